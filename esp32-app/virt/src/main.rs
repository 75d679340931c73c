//! torch-nano on QEMU's `virt` board as an rv32imc chip: one program for every model.
#![no_std]
#![no_main]
#![deny(missing_docs)]

mod board;
mod uart;

use embedded_io::{Read, Write};

extern "C" fn main() -> ! {
    board::protect_flash();
    let mut uart = uart::Uart::new();
    let mut buffer = [0; 256];
    loop {
        let Ok(count) = uart.read(&mut buffer);
        let Ok(()) = uart.write_all(&buffer[..count]);
    }
}
