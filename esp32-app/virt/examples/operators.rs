//! The test's own operators on the emulated board: runs the case of `nano-core/tests/operators` that lies where a model does, and prints the
//! number of compared bytes on the UART.
#![no_std]
#![no_main]
#![allow(unexpected_cfgs, reason = "the kernels' packing, for nano-core's feature alloc, is not for the board")]

#[path = "../src/board.rs"]
#[allow(dead_code, reason = "what the session needs of the board")]
mod board;
#[path = "../../../nano-core/tests/operators/case.rs"]
mod case;
#[path = "../../../nano-core/tests/operators/kernels.rs"]
mod kernels;

use nano_core::CheckedImage;
use zerocopy::{FromBytes, IntoBytes};

extern "C" fn main() -> ! {
    static mut ARENA: [u32; 1 << 10] = [0; 1 << 10];
    board::protect_flash();
    // SAFETY: `main` runs once, and nothing else names ARENA.
    let arena = unsafe { (&raw mut ARENA).as_mut_unchecked() };
    let arena = <[i8]>::mut_from_bytes(arena.as_mut_bytes()).unwrap_or_default();
    let bytes = board::image();
    let model = CheckedImage::new(bytes, kernels::KERNELS).and_then(|image| image.bind(arena));
    match model {
        Ok(mut model) => {
            let steps = case::Steps(bytes.get(model.image().length()..).unwrap_or_default());
            board::say(format_args!("{} bytes are equal", steps.run(&mut model)));
            board::exit(true)
        }
        Err(error) => board::fail(format_args!("{error}")),
    }
}
