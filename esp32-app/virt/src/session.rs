//! The session of the board's programs: the model in the board's RAM, with its flash.

use nano_core::{CheckedImage, Error};
use torch_nano_device::{Options, Session, Settings};

use crate::{board, flash, kernels};

/// RAM for any model, in words: arena, head, ring, buffers.
const RAM_WORDS: usize = 3 << 20;

/// All of the board's RAM for models. There is only one: call this once.
pub fn ram() -> &'static mut [u32] {
    static mut RAM: [u32; RAM_WORDS] = [0; RAM_WORDS];
    // SAFETY: `ram` is called once, and nothing else accesses RAM.
    unsafe { (&raw mut RAM).as_mut_unchecked() }
}

/// A session of the model in the board's flash, in this part of its RAM.
///
/// # Errors
/// Those of [`CheckedImage::new`] and [`Session::new`].
pub fn session(
    image: CheckedImage<'static>,
    ram: &'static mut [u32],
    settings: Settings,
) -> Result<Session<'static, impl FnMut() -> u64, flash::Flash>, Error> {
    let options = Options {
        // Number of labelled samples kept for learning.
        ring: 1024,
        // Most inputs fit one frame; images take several.
        frame: 4096,
        settings,
    };
    Session::new(image, ram, options, flash::Flash::new(), board::instructions)
}

/// The model in the board's flash.
///
/// # Errors
/// Those of [`CheckedImage::new`].
pub fn image() -> Result<CheckedImage<'static>, Error> {
    CheckedImage::new(board::image(), kernels::KERNELS)
}
