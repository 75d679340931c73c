//! A recorded sensor with its buttons: what a board without a sensor runs a program on.

use nano_core::Error;
use serde::{Deserialize, Serialize};

use crate::message::Settings;
use crate::program::{ProgramOptions, Sampled};
use crate::sensing::SensingOptions;
use crate::smoothing::Smoothing;

/// Bytes of a mark, little-endian.
const MARK: usize = 2;
/// The bit of a mark whose sample does not follow the one before.
const GAP: u16 = 1 << 15;

/// Samples, the classes that were pressed, and how the program is to sense and learn. In postcard it can lie in a flash after an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct RecordedSensor<'a> {
    /// As [`SensingOptions::sample`].
    pub sample: u32,
    /// As [`SensingOptions::hop`].
    pub hop: u32,
    /// The length and the agreement of [`Smoothing`].
    pub smoothing: (u32, u32),
    /// As [`SensingOptions::epochs`].
    pub epochs: u32,
    /// As [`SensingOptions::pause`].
    pub pause: u32,
    /// As [`SensingOptions::slice`].
    pub slice: u64,
    /// As [`ProgramOptions::period`].
    pub period: u64,
    /// Settings of the device, unless others were saved.
    pub settings: Settings,
    /// Of each sample a u16, little-endian, from [`RecordedSensor::mark`].
    pub marks: &'a [u8],
    /// The numbers of all samples, f32, little-endian.
    pub samples: &'a [u8],
}

impl<'a> RecordedSensor<'a> {
    /// The recording at the start of these bytes, or `None` where they hold no recording.
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        let (recording, _) = postcard::take_from_bytes::<Self>(bytes).ok()?;
        let samples = recording.marks.len() / MARK;
        let whole = samples * MARK == recording.marks.len()
            && samples.checked_mul(recording.sample as usize)?.checked_mul(4)? == recording.samples.len();
        (whole && recording.sample > 0).then_some(recording)
    }

    /// Appends the recording to `bytes`.
    pub fn write<B: Extend<u8>>(&self, bytes: B) -> Option<B> {
        postcard::to_extend(self, bytes).ok()
    }

    /// The mark of a sample: whether there is a gap before it, and the class that is pressed after it; `None` for a class of 32767 or above.
    pub fn mark(gap: bool, pressed: Option<u16>) -> Option<[u8; MARK]> {
        let class = pressed.map_or(Some(0), |class| class.checked_add(1)).filter(|&class| class < GAP)?;
        Some((class | if gap { GAP } else { 0 }).to_le_bytes())
    }

    /// How a program is to sense and learn.
    ///
    /// # Errors
    /// Those of [`Smoothing::new`].
    pub fn options(&self) -> Result<ProgramOptions, Error> {
        let (length, agreement) = self.smoothing;
        let sensing = SensingOptions {
            sample: self.sample as usize,
            hop: self.hop as usize,
            smoothing: Smoothing::new(length as usize, agreement as usize)?,
            epochs: self.epochs,
            pause: self.pause,
            slice: self.slice,
        };
        Ok(ProgramOptions { sensing, period: self.period })
    }

    /// Takes the next sample off the front, and writes it; returns the class that is pressed after it.
    pub fn take(&mut self, sample: &mut [f32]) -> (Sampled, Option<u16>) {
        let length = 4 * self.sample as usize;
        let next = (self.marks.split_first_chunk(), self.samples.split_at_checked(length));
        let (Some((&mark, marks)), Some((numbers, samples))) = next else { return (Sampled::Ended, None) };
        (self.marks, self.samples) = (marks, samples);
        sample.iter_mut().zip(numbers.as_chunks().0).for_each(|(own, &bytes)| *own = f32::from_le_bytes(bytes));
        let mark = u16::from_le_bytes(mark);
        let sampled = if mark & GAP == 0 { Sampled::Taken } else { Sampled::AfterGap };
        (sampled, (mark & !GAP).checked_sub(1))
    }

    /// Leaves out samples that were missed, with what was pressed after them.
    pub fn skip(&mut self, samples: u32) {
        let count = (samples as usize).min(self.marks.len() / MARK);
        self.marks = self.marks.get(count * MARK..).unwrap_or_default();
        self.samples = self.samples.get(count * 4 * self.sample as usize..).unwrap_or_default();
    }
}
