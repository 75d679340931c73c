//! Training in slices: each answers within a bounded time, and a request between two slices can stop the training.

use embedded_storage::nor_flash::NorFlash;
use nano_core::train::{Head, Score, Training, score_aside};

use crate::device::Device;
use crate::failure::Failure;

/// Multiplications of one slice, counted as one prediction per step. With the rest of the steps a slice takes 9 to 22 million instructions on
/// the emulated board, about 0.15 s at 160 MHz.
const SLICE: u64 = 1 << 20;
/// The largest number of steps of a slice: with the smallest heads, a step takes about 900 instructions.
const MOST_STEPS: u64 = 4096;

/// How far a training is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Progress {
    /// Steps taken since the training began.
    pub steps: u64,
    /// Steps left: 0 at its end.
    pub left: u64,
    /// What the board's counter advanced in all its slices.
    pub ticks: u64,
    /// Whether the training has ended and was taken back, because it had not made the head better ([`nano_core::train::take_back_if_worse`]).
    pub taken_back: bool,
}

/// A training that is not complete.
pub(crate) struct OpenTraining {
    /// Its number among all trainings since the start.
    number: u32,
    training: Training,
    /// How well the head did on the samples kept aside when it began; only if its spare copy is in flash.
    pub(crate) before: Score,
    /// Ticks of the counter spent in it.
    ticks: u64,
}

impl<'a, C: FnMut() -> u64, F: NorFlash, H: Head<'a>> Device<'a, C, F, H> {
    /// Opens a training of `epochs` passes over the features kept, after `first_epoch` earlier ones, on which the learning rate may depend. It takes no step;
    /// [`Device::train_slice`] does. The head becomes what it would in one piece, and undo takes the whole training back.
    ///
    /// A training stays open until it is at its end, or until [`Device::stop_training`], learning, or another change of the head ends it where it is.
    ///
    /// # Errors
    /// [`Failure::NoHead`]; [`Failure::Unsupported`] for a head that does not learn in epochs; [`Failure::EmptyRing`]; [`Failure::Epochs`].
    pub fn begin_training(&mut self, first_epoch: u32, epochs: u32) -> Result<(), Failure> {
        let learner = self.learner.as_mut().ok_or(Failure::NoHead)?;
        let ring = &learner.samples.as_ref().ok_or(Failure::Unsupported)?.ring;
        if ring.is_empty() {
            return Err(Failure::EmptyRing);
        }
        let training = Training::new(ring, first_epoch, epochs)?;
        let kept = self.keep_copy()?;
        let learner = self.learner.as_mut().ok_or(Failure::NoHead)?;
        learner.change(kept, |_, _| Ok(()))?;
        let before = match (kept, &learner.samples) {
            (Some(_), Some(samples)) => score_aside(&mut learner.head, &samples.ring)?,
            _ => Score::default(),
        };
        learner.trainings = learner.trainings.wrapping_add(1);
        learner.training = Some(OpenTraining { number: learner.trainings, training, before, ticks: 0 });
        Ok(())
    }

    /// Takes a bounded number of steps of the open training: about 0.15 s at 160 MHz.
    ///
    /// # Errors
    /// [`Failure::NoHead`], [`Failure::NoTraining`].
    pub fn train_slice(&mut self) -> Result<Progress, Failure> {
        self.train_steps(SLICE)
    }

    /// Takes steps of the open training for about so many multiplications, counted as one prediction per step; at least one step.
    ///
    /// # Errors
    /// As [`Device::train_slice`].
    pub fn train_steps(&mut self, multiplications: u64) -> Result<Progress, Failure> {
        self.require_training()?;
        self.stats.changes = self.stats.changes.wrapping_add(1);
        let learner = self.learner.as_mut().ok_or(Failure::NoHead)?;
        let samples = learner.samples.as_ref().ok_or(Failure::Unsupported)?;
        let open = learner.training.as_mut().ok_or(Failure::NoTraining)?;
        let taken = open.training.taken();
        // One change, which may have been saved in the middle of the training.
        self.unsaved = if taken == 0 { self.unsaved.saturating_add(1) } else { self.unsaved.max(1) };
        let steps = (multiplications / learner.head.macs().max(1)).clamp(1, MOST_STEPS) as u32;
        let start = (self.counter)();
        learner.head.train(&samples.ring, &mut open.training, steps)?;
        open.ticks += (self.counter)() - start;
        self.stats.steps = self.stats.steps.wrapping_add((open.training.taken() - taken) as u32);
        let progress = open.progress();
        let taken_back = progress.left == 0 && self.end_training();
        Ok(Progress { taken_back, ..progress })
    }

    /// The number of the open training among all since the start; `None` if none is open.
    pub fn training(&self) -> Option<u32> {
        self.require_training().ok().map(|open| open.number)
    }

    /// Whether the head keeps features and learns from them in epochs, not from each at once.
    pub fn learns_in_epochs(&self) -> bool {
        self.learner.as_ref().is_some_and(|learner| learner.samples.is_some())
    }

    /// Ends the open training where it is.
    ///
    /// # Errors
    /// [`Failure::NoHead`], [`Failure::NoTraining`].
    pub fn stop_training(&mut self) -> Result<Progress, Failure> {
        let progress = self.require_training()?.progress();
        let taken_back = self.end_training();
        Ok(Progress { taken_back, ..progress })
    }

    /// Ends the open training, if there is one, where it is; returns whether it was taken back.
    pub(crate) fn end_training(&mut self) -> bool {
        let ended = match self.copy_is_in_flash() {
            true => self.end_training_of_kept(),
            false => self.learner.as_mut().and_then(|learner| learner.end_training()),
        };
        let Some(taken_back) = ended else { return false };
        self.change_ended();
        taken_back
    }

    fn require_training(&self) -> Result<&OpenTraining, Failure> {
        let learner = self.learner.as_ref().ok_or(Failure::NoHead)?;
        learner.training.as_ref().ok_or(Failure::NoTraining)
    }
}

impl OpenTraining {
    fn progress(&self) -> Progress {
        Progress { steps: self.training.taken(), left: self.training.left(), ticks: self.ticks, taken_back: false }
    }
}
