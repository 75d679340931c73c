//! The loop of a device without a PC: from samples of a sensor to decisions, and from labels to what the head learns.

use embedded_storage::nor_flash::NorFlash;
use nano_core::Error;
use nano_core::image::{Image, Value};
use nano_core::train::Head;
use serde::{Deserialize, Serialize};

use crate::device::{Device, Prediction};
use crate::failure::Failure;
use crate::learner::Learned;
use crate::message::Label;
use crate::smoothing::Smoothing;
use crate::training::Progress;
use crate::window::SlidingWindow;

/// How a device senses and learns.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct SensingOptions {
    /// Real numbers of one sample of the sensor: the model's input has a whole number of samples.
    pub sample: usize,
    /// Samples from window to window.
    pub hop: usize,
    /// How predictions become decisions.
    pub smoothing: Smoothing,
    /// Passes of a training over the samples kept.
    pub epochs: u32,
    /// Windows without a label after which the training begins.
    pub pause: u32,
    /// Multiplications of a slice of training, so that none takes longer than a sample may wait.
    pub slice: u64,
}

impl SensingOptions {
    /// Numbers of the shortest sample for this model: one step of its input along the first dimension that is longer than 1, which is that of time; with
    /// states, all channels. So the channels of a sensor stay together.
    pub fn shortest_sample(image: &Image<'_>) -> usize {
        let (input, [.., channels]) = (image.input(0), image.input(0).shape);
        if has_states(image) {
            return channels as usize;
        }
        let time = input.shape.iter().find(|&&size| size > 1).map_or(1, |&size| size as usize);
        input.len() / time
    }

    /// Whether a model can be sensed with so.
    ///
    /// # Errors
    /// [`Error::Length`] for a model of several inputs; if a sample has no whole number of steps ([`SensingOptions::shortest_sample`]), or the input no whole
    /// number of samples; without a hop; if windows of a model with states overlap or have gaps between them.
    pub fn check(&self, image: &Image<'_>) -> Result<(), Error> {
        let length = |name, needed, given| Err(Error::Length { name, needed, given });
        if image.input_count() != 1 {
            return length("inputs to sense", 1, image.input_count());
        }
        let input = image.input(0);
        let (numbers, shortest) = (input.len(), Self::shortest_sample(image));
        if self.sample == 0 || !self.sample.is_multiple_of(shortest) {
            return length("sample", shortest, self.sample);
        }
        if !numbers.is_multiple_of(self.sample) {
            return length("sample", numbers, self.sample);
        }
        if self.hop == 0 {
            return length("hop", 1, 0);
        }
        // Each step of a stream takes new samples.
        let given = self.hop.saturating_mul(self.sample);
        if has_states(image) && given != numbers {
            return length("hop of a model with states, in numbers", numbers, given);
        }
        Ok(())
    }
}

fn has_states(image: &Image<'_>) -> bool {
    image.values().iter().any(Value::is_state)
}

/// What the model made of the window that was sensed last: a label means it, whatever a PC has run since.
#[derive(Debug)]
pub(crate) struct LatestWindow<'a> {
    features: &'a mut [i8],
    /// Whether `features` may be learnt: they are of a window that has no label yet.
    unlabelled: bool,
    /// Labels so far.
    labels: u32,
    /// The word ([`Target::word`](nano_core::train::Target::word)) of the latest label, unless it was taken.
    labelled: Option<u32>,
    /// Whether a PC wants each sample.
    pub(crate) sends_samples: bool,
}

/// Senses with a model of one input, and learns what it is told by [`Device::label`].
///
/// It holds no model: each call takes the [`Device`], so that a PC's requests come between two calls. They do not change what it senses, unless the model has
/// states; a PC that learns or trains ends its training.
pub struct Sensing<'a> {
    window: SlidingWindow<'a>,
    options: SensingOptions,
    /// Labels noticed so far.
    labels: u32,
    /// Whether something was learnt that no training has used.
    untrained: bool,
    /// Windows since the latest label.
    quiet: u32,
    /// The number of its own training.
    training: Option<u32>,
}

/// What became of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Sensed {
    /// The class that this window alone is predicted to be of.
    pub class: u32,
    /// Its probability in Q15, as [`Prediction::confidence`](crate::Prediction::confidence).
    pub confidence: Option<u16>,
    /// As [`Prediction::margin`](crate::Prediction::margin).
    pub margin: Option<u16>,
    /// As [`Prediction::known`](crate::Prediction::known).
    pub known: bool,
    /// The class decided for, by [`Smoothing`]; rejected predictions are of none.
    pub decided: Option<u32>,
    /// What the board's counter advanced.
    pub ticks: u64,
}

impl<'a> Sensing<'a> {
    /// Senses with `device`, in RAM for its model's input and, for as long as the device lives, first output: the bytes of both.
    ///
    /// # Errors
    /// [`Error::Length`] if the RAM has another length; those of [`SensingOptions::check`].
    pub fn new<'h, C: FnMut() -> u64, F: NorFlash, H: Head<'h>>(
        device: &mut Device<'h, C, F, H>,
        window: &'a mut [i8],
        features: &'h mut [i8],
        options: SensingOptions,
    ) -> Result<Self, Error> {
        let image = device.image();
        options.check(image)?;
        let (input, output) = (image.input(0), image.output(0));
        let (needed, given) = (input.range().len(), window.len());
        if given != needed {
            return Err(Error::Length { name: "window", needed, given });
        }
        let (needed, given) = (output.range().len(), features.len());
        if given != needed {
            return Err(Error::Length { name: "features", needed, given });
        }
        let sample = options.sample * (input.range().len() / input.len());
        let window = SlidingWindow::new(window, sample, options.hop)?;
        device.latest =
            Some(LatestWindow { features, unlabelled: false, labels: 0, labelled: None, sends_samples: false });
        Ok(Sensing { window, options, labels: 0, untrained: false, quiet: 0, training: None })
    }

    /// Takes a sample: quantizes it with the scales of the model's input and, if a window is due, predicts. `None` between windows.
    ///
    /// # Errors
    /// [`Failure::Input`] if the sample has not [`SensingOptions::sample`] numbers.
    pub fn sense<'h, C: FnMut() -> u64, F: NorFlash, H: Head<'h>>(
        &mut self,
        device: &mut Device<'h, C, F, H>,
        sample: &[f32],
    ) -> Result<Option<Sensed>, Failure> {
        let (needed, given) = (self.options.sample, sample.len());
        if given != needed {
            return Err(Failure::Input { needed: needed as u32, given: given as u32 });
        }
        if !self.window.push(|place| device.image().quantize_input(0, sample, place)) {
            return Ok(None);
        }
        let Prediction { class, confidence, margin, known, ticks, .. } = device.predict(&self.window)?;
        device.keep_window();
        self.notice_labels(device);
        self.quiet = self.quiet.saturating_add(1);
        let decided = self.options.smoothing.push(known.then_some(class));
        Ok(Some(Sensed { class, confidence, margin, known, decided, ticks }))
    }

    /// Takes note of labels that came since the last look.
    fn notice_labels<'h, C: FnMut() -> u64, F: NorFlash, H: Head<'h>>(&mut self, device: &Device<'h, C, F, H>) {
        let labels = device.latest.as_ref().map_or(0, |latest| latest.labels);
        if labels != self.labels {
            (self.labels, self.untrained, self.quiet) = (labels, true, 0);
        }
    }

    /// Uses the time until the next sample: takes one slice of the training that is open, or begins it once there were no labels for some windows. A head that
    /// learns sums computes its weights instead. `None` if there is nothing to do: the program may sleep.
    ///
    /// # Errors
    /// Those of [`Device::begin_training`] and [`Device::commit`].
    pub fn work<'h, C: FnMut() -> u64, F: NorFlash, H: Head<'h>>(
        &mut self,
        device: &mut Device<'h, C, F, H>,
    ) -> Result<Option<Progress>, Failure> {
        self.notice_labels(device);
        if self.untrained && self.quiet >= self.options.pause {
            self.untrained = false;
            if !device.learns_in_epochs() {
                let ticks = device.commit()?;
                return Ok(Some(Progress { steps: 0, left: 0, ticks, taken_back: false }));
            }
            device.begin_training(0, self.options.epochs)?;
            self.training = device.training();
        }
        if self.training.is_none() || self.training != device.training() {
            self.training = None;
            return Ok(None);
        }
        device.train_steps(self.options.slice).map(Some)
    }

    /// Forgets the window, the latest decisions and the model's states, as after a gap in what the sensor saw.
    pub fn clear<'h, C: FnMut() -> u64, F: NorFlash, H: Head<'h>>(&mut self, device: &mut Device<'h, C, F, H>) {
        device.reset_states();
        self.window.clear();
        self.options.smoothing.clear();
        if let Some(latest) = &mut device.latest {
            latest.unlabelled = false;
        }
    }
}

impl<'a, C: FnMut() -> u64, F: NorFlash, H: Head<'a>> Device<'a, C, F, H> {
    /// Learns that the window which [`Sensing`] sensed last is of `label`, once. Ends the open training.
    ///
    /// # Errors
    /// [`Failure::NoRun`] if there is no window since the latest label; those of [`Device::learn`].
    pub fn label<'l>(&mut self, label: impl Into<Label<'l>>) -> Result<Learned, Failure> {
        let mut latest = self.latest.take().ok_or(Failure::NoRun)?;
        let learned = self.learn_latest(&mut latest, label.into());
        self.latest = Some(latest);
        learned
    }

    fn learn_latest(&mut self, latest: &mut LatestWindow<'_>, label: Label<'_>) -> Result<Learned, Failure> {
        if !latest.unlabelled {
            return Err(Failure::NoRun);
        }
        let target = self.target(label)?;
        let learned = self.learn_target(Some(latest.features), target)?;
        (latest.unlabelled, latest.labels, latest.labelled) =
            (false, latest.labels.wrapping_add(1), Some(target.word()));
        Ok(learned)
    }

    /// The word of the latest label, unless it was taken before.
    pub(crate) fn take_label(&mut self) -> Option<u32> {
        self.latest.as_mut().and_then(|latest| latest.labelled.take())
    }

    /// Whether a PC wants each sample.
    pub(crate) fn sends_samples(&self) -> bool {
        self.latest.as_ref().is_some_and(|latest| latest.sends_samples)
    }

    /// Keeps what the model has just made of a window.
    fn keep_window(&mut self) {
        if let Some(latest) = &mut self.latest {
            latest.features.iter_mut().zip(self.model.output(0)).for_each(|(own, &feature)| *own = feature);
            latest.unlabelled = true;
        }
    }
}
