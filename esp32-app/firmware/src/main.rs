//! torch-nano on an ESP32 chip: serves its one model over the built-in USB-serial-JTAG.
#![no_std]
#![no_main]
#![deny(missing_docs)]

use embedded_io::{Read, Write};
// Its panic handler prints the message over the same USB port.
use esp_backtrace as _;
use esp_hal::main;
use esp_hal::usb::usb_serial_jtag::UsbSerialJtag;

/// The exported model.
#[allow(missing_docs)]
mod model {
    include!(env!("TORCH_NANO_MODEL_RS"));
}

// What the bootloader wants to know of the program.
esp_bootloader_esp_idf::esp_app_desc!();

#[main]
fn main() -> ! {
    let peripherals = esp_hal::init(esp_hal::Config::default());
    let mut serial = UsbSerialJtag::new(peripherals.USB_DEVICE);
    let mut buffer = [0; 64];
    loop {
        let count = serial.read(&mut buffer).unwrap();
        serial.write_all(&buffer[..count]).unwrap();
        serial.flush().unwrap();
    }
}
