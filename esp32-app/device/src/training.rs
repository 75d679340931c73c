//! Training in slices: each answers within a bounded time, and a request between two slices can stop the training.

use embedded_storage::nor_flash::NorFlash;
use nano_core::train::{Head, Training};

use crate::device::Device;
use crate::failure::Failure;
use crate::message::Response;

/// Multiplications of one slice, counted as one prediction per step. With the rest of the steps a slice takes 9 to 22 million instructions on
/// the emulated board, about 0.15 s at 160 MHz.
const SLICE: u64 = 1 << 20;
/// The largest number of steps of a slice: with the smallest heads, a step takes about 900 instructions.
const MOST_STEPS: u64 = 4096;

/// A training that is not complete.
pub(crate) struct OpenTraining {
    training: Training,
    /// Ticks of the counter spent in it.
    ticks: u64,
}

impl<'a, C: FnMut() -> u64, F: NorFlash, H: Head<'a>> Device<'a, C, F, H> {
    pub fn train(&mut self, first_epoch: u32, epochs: u32) -> Result<Response<'_>, Failure> {
        let learner = self.learner.as_mut().ok_or(Failure::NoHead)?;
        let ring = &learner.samples.as_ref().ok_or(Failure::Unsupported)?.ring;
        if ring.is_empty() {
            return Err(Failure::EmptyRing);
        }
        let training = Training::new(ring, first_epoch, epochs)?;
        learner.change(|_, _| Ok(()))?;
        learner.training = Some(OpenTraining { training, ticks: 0 });
        self.count_change();
        self.take_steps()
    }

    pub fn continue_training(&mut self) -> Result<Response<'_>, Failure> {
        self.require_training()?;
        self.stats.changes = self.stats.changes.wrapping_add(1);
        // It may have been saved in the middle of the training.
        self.unsaved = self.unsaved.max(1);
        self.take_steps()
    }

    pub fn stop_training(&mut self) -> Result<Response<'_>, Failure> {
        let open = self.require_training()?;
        let response = open.answer();
        self.end_training();
        Ok(response)
    }

    /// Ends the open training, if there is one, where it is.
    pub fn end_training(&mut self) {
        if self.learner.as_mut().and_then(|learner| learner.training.take()).is_some() {
            self.save_if_due();
        }
    }

    fn require_training(&self) -> Result<&OpenTraining, Failure> {
        let learner = self.learner.as_ref().ok_or(Failure::NoHead)?;
        learner.training.as_ref().ok_or(Failure::NoTraining)
    }

    /// Takes the steps of one slice.
    fn take_steps(&mut self) -> Result<Response<'_>, Failure> {
        let learner = self.learner.as_mut().ok_or(Failure::NoHead)?;
        let samples = learner.samples.as_ref().ok_or(Failure::Unsupported)?;
        let open = learner.training.as_mut().ok_or(Failure::NoTraining)?;
        let steps = (SLICE / learner.head.macs().max(1)).clamp(1, MOST_STEPS) as u32;
        let taken = open.training.taken();
        let start = (self.counter)();
        learner.head.train(&samples.ring, &mut open.training, steps)?;
        open.ticks += (self.counter)() - start;
        self.stats.steps = self.stats.steps.wrapping_add((open.training.taken() - taken) as u32);
        let response = open.answer();
        if open.training.left() == 0 {
            self.end_training();
        }
        Ok(response)
    }
}

impl OpenTraining {
    fn answer(&self) -> Response<'static> {
        Response::Trained { steps: self.training.taken(), left: self.training.left(), ticks: self.ticks }
    }
}
