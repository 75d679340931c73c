//! The session of the board's programs: the newest model in the board's RAM, with its flash.

use nano_core::train::AnyHead;
use nano_core::{CheckedImage, Error};
use torch_nano_device::{Capacity, ImageSlots, Options, Session, Settings, Slots, SpareCopy};

use crate::flash::Flash;
use crate::{board, kernels};

/// RAM for any model, in words: arena, head, ring, buffers.
const RAM_WORDS: usize = 3 << 20;
/// Number of labelled samples kept for learning.
const RING: usize = 1024;
/// Most inputs fit one frame; images take several.
const FRAME: usize = 4096;
/// As on the chips.
const COPY: SpareCopy = Options::CHIP.copy;

/// All of the board's RAM for models. There is only one: call this once.
pub fn ram() -> &'static mut [u32] {
    static mut RAM: [u32; RAM_WORDS] = [0; RAM_WORDS];
    // SAFETY: `ram` is called once, and nothing else accesses RAM.
    unsafe { (&raw mut RAM).as_mut_unchecked() }
}

/// The model that a start runs, and what a session needs to update it.
pub struct Started {
    /// The checked image.
    pub image: CheckedImage<'static>,
    slots: ImageSlots<Flash>,
    capacity: Capacity<'static>,
}

impl Started {
    /// The newest update, or the model with which the board was made. `window`: of a program that senses, the RAM that it has for a window of that model.
    ///
    /// # Errors
    /// Those of [`CheckedImage::new`].
    pub fn new(window: impl FnOnce(&CheckedImage<'static>) -> Option<[usize; 2]>) -> Result<Self, Error> {
        let own = CheckedImage::new(board::image(), kernels::KERNELS)?;
        let window = window(&own);
        let capacity =
            Capacity { kernels: kernels::KERNELS, words: RAM_WORDS, ring: RING, frame: FRAME, copy: COPY, window };
        let mut slots = ImageSlots::new(Flash::slots(), own.image().id());
        // A flash that cannot be read has no update.
        let found = slots.start(|image| capacity.check::<AnyHead<'_>>(image).is_ok()).ok().flatten();
        let update = found.and_then(|found| capacity.check::<AnyHead<'_>>(Flash::update(found.range)).ok());
        Ok(Started { image: update.unwrap_or(own), slots, capacity })
    }

    /// A session of the model in this part of the board's RAM. An update on trial with which it cannot begin is left: the board starts again.
    ///
    /// # Errors
    /// Those of [`Session::new`].
    pub fn session(
        self,
        ram: &'static mut [u32],
        settings: Settings,
    ) -> Result<Session<'static, impl FnMut() -> u64, Flash>, Error> {
        static mut SLOTS: Option<ImageSlots<Flash>> = None;
        let options = Options { ring: RING, frame: FRAME, copy: COPY, settings };
        let Started { image, slots, capacity } = self;
        let mut session = match Session::<_, _>::new(image, ram, options, Flash::heads(), board::instructions) {
            Err(_) if slots.state().trial => board::restart(),
            session => session?,
        };
        // SAFETY: a board has one session, and nothing else accesses SLOTS.
        let slots = unsafe { (&raw mut SLOTS).as_mut_unchecked() }.insert(slots);
        session.device.allow_updates(slots, capacity);
        Ok(session)
    }
}
