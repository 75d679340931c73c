//! torch-nano on an ESP32 chip: serves one model over a serial port.
#![no_std]
#![no_main]
#![deny(missing_docs)]

mod heads;
mod panic;
mod port;
mod text;

use const_format::formatcp;
use esp_hal::clock::CpuClock;
use esp_hal::main;
use esp_hal::timer::systimer::{SystemTimer, Unit};
use nano_core::CheckedImage;
use static_cell::ConstStaticCell;
use torch_nano_device::{Options, Session, Sizes};

/// The exported model.
#[allow(dead_code, missing_docs)]
mod model {
    include!(env!("TORCH_NANO_MODEL_RS"));
}

// The application descriptor that the ESP-IDF bootloader reads.
esp_bootloader_esp_idf::esp_app_desc!();

const OPTIONS: Options = Options::CHIP;

const RAM: Sizes = Sizes {
    arena: model::ARENA_LENGTH,
    layers: model::LAYERS,
    head: model::HEAD,
    ring: OPTIONS.ring,
    frame: OPTIONS.frame,
};

/// The chip's facts.
mod chip {
    include!(concat!(env!("OUT_DIR"), "/chip.rs"));
}

const NEEDED: usize = RAM.words().saturating_mul(4);

const _: () = assert!(
    NEEDED <= chip::MODEL_RAM,
    "{}",
    formatcp!(
        "the model needs {} bytes of RAM (arena {}, the rest for the head, the ring and the messages), and this chip has {}: make \
         its largest layers or its head smaller, or OPTIONS in esp32-app/firmware/src/main.rs",
        NEEDED,
        RAM.arena,
        chip::MODEL_RAM
    )
);

#[main]
fn main() -> ! {
    static WORDS: ConstStaticCell<[u32; RAM.words()]> = ConstStaticCell::new([0; RAM.words()]);

    let peripherals = esp_hal::init(esp_hal::Config::default().with_cpu_clock(CpuClock::max()));
    let mut serial = port::open!(peripherals);
    // Not the CPU's cycle counter: its 32 bits wrap within 11 s at 400 MHz, and training may take longer.
    let (cpu, timer) = (u64::from(esp_hal::clock::cpu_clock().as_mhz()), SystemTimer::ticks_per_second() / 1_000_000);
    // A tick is not a whole number of cycles on every chip: 7.5 at 120 MHz.
    let cycles = || SystemTimer::unit_value(Unit::Unit0) * cpu / timer;

    let heads = heads::Heads::new(peripherals.FLASH);
    let session = CheckedImage::new(model::IMAGE, model::KERNELS)
        .and_then(|image| Session::<_, _, model::Head<'_>>::new(image, WORDS.take(), OPTIONS, heads, cycles));
    let mut session = session.unwrap_or_else(|error| panic::refuse(&error));
    loop {
        let Ok(()) = session.serve(&mut serial);
    }
}
