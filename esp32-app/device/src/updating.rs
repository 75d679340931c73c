//! Updates of the model by a PC.

use embedded_storage::nor_flash::NorFlash;
use nano_core::train::Head;
use nano_core::{CheckedImage, Kernel};

use crate::device::Device;
use crate::failure::Failure;
use crate::graph;
use crate::sizes::{Sizes, SpareCopy};
use crate::update::{Slots, UpdateState};
use crate::update_error::UpdateError;

/// What a program can run: the kernels that it links and the RAM that it has reserved.
#[derive(Clone, Copy)]
pub struct Capacity<'k> {
    /// The kernels.
    pub kernels: &'k [Kernel],
    /// Words of RAM for a [`Session`](crate::Session).
    pub words: usize,
    /// [`Options::ring`](crate::Options::ring).
    pub ring: usize,
    /// [`Options::frame`](crate::Options::frame).
    pub frame: usize,
    /// [`Options::copy`](crate::Options::copy).
    pub copy: SpareCopy,
    /// Of a program that senses by itself, the bytes of inputs and first output for which it has RAM.
    pub window: Option<[usize; 2]>,
}

impl<'k> Capacity<'k> {
    /// Checks that a program with heads of type `H` can run an image.
    ///
    /// # Errors
    /// [`UpdateError::Version`], [`UpdateError::Kernel`], [`UpdateError::Ram`], [`UpdateError::Trainer`], [`UpdateError::Window`], [`UpdateError::Image`].
    pub fn check<'h, H: Head<'h>>(&self, bytes: &'k [u8]) -> Result<CheckedImage<'k>, UpdateError> {
        let image = CheckedImage::new(bytes, self.kernels)?;
        let view = image.image();
        let words = Sizes::of(view, self.ring, self.frame, self.copy).words();
        if words > self.words {
            let [needed, given] = [words, self.words].map(|words| (words as u32).saturating_mul(4));
            return Err(UpdateError::Ram { needed, given });
        }
        if let Some(head) = view.head()
            && !H::runs(head.trainer)
        {
            return Err(UpdateError::Trainer { trainer: head.trainer });
        }
        let lengths = [graph::input_length(view), view.output(0).range().len()];
        match self.window {
            Some(window) if window != lengths => {
                let [needed, given] = [window, lengths].map(|lengths| lengths.map(|length| length as u32));
                Err(UpdateError::Window { needed, given })
            }
            _ => Ok(image),
        }
    }
}

/// The slots of a device, and what its program can run.
pub(crate) struct Updates<'a> {
    // `'static`: a shorter bound would make devices invariant over `'a`.
    slots: &'a mut (dyn Slots + 'static),
    capacity: Capacity<'a>,
}

impl<'a, C: FnMut() -> u64, F: NorFlash, H: Head<'a>> Device<'a, C, F, H> {
    /// Allows a PC to update the model. `slots` have been [started](crate::ImageSlots::start), and this device runs the image that they found, or the program's
    /// own. The board starts again once [`Device::restarts`].
    pub fn allow_updates(&mut self, slots: &'a mut (dyn Slots + 'static), capacity: Capacity<'a>) {
        self.updates = Some(Updates { slots, capacity });
    }

    /// Whether a PC has asked the board to start again. The answer is to be sent before.
    pub fn restarts(&self) -> bool {
        self.restarts
    }

    pub(crate) fn update_state(&self) -> UpdateState {
        self.updates.as_ref().map(|updates| updates.slots.state()).unwrap_or_default()
    }

    pub(crate) fn slots(&mut self) -> Result<&mut dyn Slots, Failure> {
        let updates = self.updates.as_mut().ok_or(UpdateError::NoSlots)?;
        Ok(&mut *updates.slots)
    }

    /// Finishes the update; returns its number, and whether its head is the same as that of the model which runs.
    pub(crate) fn finish_update(&mut self) -> Result<(u32, bool), Failure> {
        let Updates { slots, capacity } = self.updates.as_mut().ok_or(UpdateError::NoSlots)?;
        let own = self.model.image().head().map(|head| head.id);
        let mut same_head = false;
        let count = slots.finish(&mut |bytes| {
            let image = capacity.check::<H>(bytes)?;
            same_head = own.is_some() && image.image().head().map(|head| head.id) == own;
            Ok(())
        })?;
        Ok((count, same_head))
    }

    pub(crate) fn restart(&mut self) -> Result<(), Failure> {
        self.slots()?;
        self.restarts = true;
        Ok(())
    }
}
