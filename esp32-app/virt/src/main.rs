//! torch-nano on QEMU's `virt` board as an rv32imc chip: one program for every model.
#![no_std]
#![no_main]
#![deny(missing_docs)]

mod board;
mod console;
mod flash;
mod kernels;
mod session;

use console::Console;
use embedded_io::Write;
use torch_nano_device::{Settings, frame};

extern "C" fn main() -> ! {
    board::protect_flash();
    let started = session::Started::new(|_| None);
    let mut session = match started.and_then(|started| started.session(session::ram(), Settings::default())) {
        Ok(session) => session,
        Err(error) => board::fail(format_args!("{error}")),
    };
    // After a restart a client waits for it.
    let ready = |mut console: Console| console.write_all(&[frame::END]).map(|()| console);
    match Console::new().and_then(ready).and_then(|mut console| session.serve(&mut console)) {
        Ok(()) if session.device.restarts() => board::restart(),
        Ok(()) => board::exit(true),
        Err(error) => board::fail(format_args!("the console: {error}")),
    }
}
