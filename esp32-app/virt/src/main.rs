//! torch-nano on QEMU's `virt` board as an rv32imc chip: one program for every model.
#![no_std]
#![no_main]
#![deny(missing_docs)]

mod board;
mod console;
mod flash;
mod kernels;
mod session;

use torch_nano_device::Settings;

extern "C" fn main() -> ! {
    board::protect_flash();
    let session = session::image().and_then(|image| session::session(image, session::ram(), Settings::default()));
    let mut session = match session {
        Ok(session) => session,
        Err(error) => board::fail(format_args!("{error}")),
    };
    match console::Console::new().and_then(|mut console| session.serve(&mut console)) {
        Ok(()) => board::exit(true),
        Err(error) => board::fail(format_args!("the console: {error}")),
    }
}
