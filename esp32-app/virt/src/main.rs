//! torch-nano on QEMU's `virt` board as an rv32imc chip: one program for every model.
#![no_std]
#![no_main]
#![deny(missing_docs)]

mod board;
mod console;

use embedded_io::{Read, Write};

extern "C" fn main() -> ! {
    board::protect_flash();
    let mut console = console::Console::new().unwrap();
    let mut buffer = [0; 1024];
    loop {
        let count = console.read(&mut buffer).unwrap();
        console.write_all(&buffer[..count]).unwrap();
    }
}
