//! torch-nano on QEMU's `virt` board as an rv32imc chip: one program for every model.
#![no_std]
#![no_main]
#![deny(missing_docs)]

mod board;
mod console;
mod flash;
mod kernels;

use nano_core::CheckedImage;
use nano_core::train::AnyHead;
use torch_nano_device::{Options, Session, Settings};

/// RAM for any model, in words: arena, head, ring, buffers.
const RAM_WORDS: usize = 3 << 20;
const OPTIONS: Options = Options {
    // Number of labelled samples kept for learning.
    ring: 1024,
    // Most inputs fit one frame; images take several.
    frame: 4096,
    settings: Settings { rejection: 0, save_interval: 0 },
};

extern "C" fn main() -> ! {
    static mut RAM: [u32; RAM_WORDS] = [0; RAM_WORDS];
    board::protect_flash();
    // SAFETY: `main` runs once, and nothing else accesses RAM.
    let ram = unsafe { (&raw mut RAM).as_mut_unchecked() };
    let flash = flash::Flash::new();
    let session = CheckedImage::new(board::image(), kernels::KERNELS)
        .and_then(|image| Session::<_, _, AnyHead<'_>>::new(image, ram, OPTIONS, flash, board::instructions));
    let mut session = match session {
        Ok(session) => session,
        Err(error) => board::fail(format_args!("{error}")),
    };
    match console::Console::new().and_then(|mut console| session.serve(&mut console)) {
        Ok(()) => board::exit(true),
        Err(error) => board::fail(format_args!("the console: {error}")),
    }
}
