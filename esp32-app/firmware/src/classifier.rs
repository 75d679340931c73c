//! A classifier on an ESP32 chip, and nothing else: without the protocol, learning and saving, the program is less than half as large.
//!
//! It answers the bytes of each input that arrive with a line of text: the class, and its probability in 1/32768.
#![no_std]
#![no_main]
#![deny(missing_docs)]

#[allow(dead_code, missing_docs)]
mod model;
mod panic;
mod port;
mod text;

use core::convert::Infallible;

use embedded_io::Read;
use esp_hal::clock::CpuClock;
use esp_hal::main;
use nano_core::{CheckedImage, Classifier, Error, Memory};
use static_cell::ConstStaticCell;

use text::Text;

// The application descriptor that the ESP-IDF bootloader reads.
esp_bootloader_esp_idf::esp_app_desc!();

const ARENA: usize = model::ARENA_LENGTH.div_ceil(4);
const HEAD: usize = match model::HEAD {
    Some(head) => head.words(),
    None => 0,
};
const FEATURES: usize = match model::HEAD {
    Some(head) => head.features,
    None => 0,
};

#[main]
fn main() -> ! {
    let peripherals = esp_hal::init(esp_hal::Config::default().with_cpu_clock(CpuClock::max()));
    let mut port = port::open!(peripherals);
    let Err(error) = classify(&mut port);
    panic::refuse(&error)
}

/// Classifies the bytes of each input that arrive, for ever.
fn classify(port: &mut port::transport::Port) -> Result<Infallible, Error> {
    // A place of the ring, as a head may want one.
    static MEMORY: ConstStaticCell<Memory<ARENA, HEAD, FEATURES, 1>> = ConstStaticCell::new(Memory::new());

    let image = CheckedImage::new(model::IMAGE, model::KERNELS)?;
    let mut classifier = Classifier::<model::Head<'_>>::new(image, MEMORY.take())?;
    loop {
        for index in 0..classifier.image().input_count() {
            for element in classifier.input(index) {
                let mut byte = [0];
                let Ok(_) = port.read(&mut byte);
                *element = byte[0] as i8;
            }
        }
        let made = classifier.classify();
        let mut text = Text(&mut *port);
        text.number(made.class.into());
        if let Some(confidence) = made.confidence {
            text.text(" ").number(confidence.into());
        }
        text.text("\r\n").end();
    }
}
