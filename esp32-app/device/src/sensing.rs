//! The loop of a device without a PC: from samples of a sensor to decisions, and from labels to what the head learns.

use embedded_storage::nor_flash::NorFlash;
use nano_core::Error;
use nano_core::image::{Image, Value};
use nano_core::train::Head;
use serde::{Deserialize, Serialize};

use crate::device::Device;
use crate::failure::Failure;
use crate::learner::Learned;
use crate::message::Label;
use crate::smoothing::Smoothing;
use crate::training::Progress;
use crate::window::SlidingWindow;

/// How a device senses and learns.
#[derive(Clone, Debug)]
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

/// Senses with a model of one input, and learns what it is told.
///
/// It holds no model: each call takes the [`Device`], so that a PC's requests come between two calls. They do not change what it senses, unless the model has
/// states; a PC that labels or trains ends its training.
pub struct Sensing<'a> {
    window: SlidingWindow<'a>,
    /// What the model made of the latest window.
    features: &'a mut [i8],
    options: SensingOptions,
    /// Whether `features` may be learnt: they are of a window that has no label yet.
    unlabelled: bool,
    /// Whether something was learnt that no training has used.
    untrained: bool,
    /// Windows since the latest label.
    quiet: u32,
    /// The number of its own training.
    training: Option<u32>,
}

/// What became of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sensed {
    /// The class that this window alone is predicted to be of.
    pub class: u32,
    /// Its probability in Q15, as [`Prediction::confidence`](crate::Prediction::confidence).
    pub confidence: Option<u16>,
    /// Whether that is not below [`Settings::rejection`](crate::Settings::rejection).
    pub known: bool,
    /// The class decided for, by [`Smoothing`]; rejected predictions are of none.
    pub decided: Option<u32>,
    /// What the board's counter advanced.
    pub ticks: u64,
}

impl<'a> Sensing<'a> {
    /// Senses for the model of `image`, in RAM for its input and for its first output (`INPUT_LENGTH` and `FEATURES` of the exported `model.rs`).
    ///
    /// # Errors
    /// [`Error::Length`] for a model of several inputs, if the RAM has another length, if windows of a model with states overlap or have gaps between them, or for what
    /// [`SlidingWindow::new`] refuses.
    pub fn new(
        image: &Image<'_>,
        window: &'a mut [i8],
        features: &'a mut [i8],
        options: SensingOptions,
    ) -> Result<Self, Error> {
        if image.input_count() != 1 {
            return Err(Error::Length { name: "inputs to sense", needed: 1, given: image.input_count() });
        }
        let (input, output) = (image.input(0), image.output(0));
        let (needed, given) = (input.range().len(), window.len());
        if given != needed {
            return Err(Error::Length { name: "window", needed, given });
        }
        let (needed, given) = (output.range().len(), features.len());
        if given != needed {
            return Err(Error::Length { name: "features", needed, given });
        }
        // Each step of a stream takes new samples.
        let steps = image.values().iter().any(Value::is_state);
        let (needed, given) = (input.len(), options.hop.saturating_mul(options.sample));
        if steps && given != needed {
            return Err(Error::Length { name: "hop of a model with states, in numbers", needed, given });
        }
        let sample = options.sample * (input.range().len() / input.len());
        let window = SlidingWindow::new(window, sample, options.hop)?;
        Ok(Sensing { window, features, options, unlabelled: false, untrained: false, quiet: 0, training: None })
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
        let made = device.predict(&self.window)?;
        self.features.iter_mut().zip(made.output).for_each(|(own, &feature)| *own = feature);
        self.unlabelled = true;
        self.quiet = self.quiet.saturating_add(1);
        let decided = self.options.smoothing.push(made.known.then_some(made.class));
        Ok(Some(Sensed {
            class: made.class,
            confidence: made.confidence,
            known: made.known,
            decided,
            ticks: made.ticks,
        }))
    }

    /// Learns that the window sensed last is of `label`, once. Ends the open training.
    ///
    /// # Errors
    /// [`Failure::NoRun`] if there is no window since the latest label; those of [`Device::learn`].
    pub fn label<'h, 'l, C: FnMut() -> u64, F: NorFlash, H: Head<'h>>(
        &mut self,
        device: &mut Device<'h, C, F, H>,
        label: impl Into<Label<'l>>,
    ) -> Result<Learned, Failure> {
        if !self.unlabelled {
            return Err(Failure::NoRun);
        }
        let learned = device.learn_features(self.features, label)?;
        (self.unlabelled, self.untrained, self.quiet) = (false, true, 0);
        Ok(learned)
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
        if self.untrained && self.quiet >= self.options.pause {
            self.untrained = false;
            if !device.learns_in_epochs() {
                let ticks = device.commit()?;
                return Ok(Some(Progress { steps: 0, left: 0, ticks }));
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
        self.unlabelled = false;
    }
}
