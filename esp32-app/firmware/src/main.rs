//! torch-nano on an ESP32 chip: serves one model over a serial port.
#![no_std]
#![no_main]
#![deny(missing_docs)]

mod heads;
#[allow(dead_code, missing_docs)]
mod model;
mod panic;
mod port;
#[cfg(feature = "sensing")]
mod sensing;
mod text;

use const_format::formatcp;
use esp_hal::clock::CpuClock;
use esp_hal::main;
#[cfg(feature = "sensing")]
use esp_hal::timer::OneShotTimer;
use esp_hal::timer::systimer::{SystemTimer, Unit};
use nano_core::CheckedImage;
use static_cell::ConstStaticCell;
use torch_nano_device::{Options, Session, Sizes};

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

/// For the latest window and its features.
#[cfg(feature = "sensing")]
const SENSING: usize = sensing::RAM;
#[cfg(not(feature = "sensing"))]
const SENSING: usize = 0;

const NEEDED: usize = RAM.words().saturating_mul(4).saturating_add(SENSING);

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
    let port = port::open!(peripherals);
    // Not the CPU's cycle counter: its 32 bits wrap within 11 s at 400 MHz, and training may take longer.
    let (cpu, timer) = (u64::from(esp_hal::clock::cpu_clock().as_mhz()), SystemTimer::ticks_per_second() / 1_000_000);
    // A tick is not a whole number of cycles on every chip: 7.5 at 120 MHz.
    let cycles = || SystemTimer::unit_value(Unit::Unit0) * cpu / timer;

    let heads = heads::Heads::new(peripherals.FLASH);
    let session = CheckedImage::new(model::IMAGE, model::KERNELS)
        .and_then(|image| Session::<_, _, model::Head<'_>>::new(image, WORDS.take(), OPTIONS, heads, cycles));
    let session = session.unwrap_or_else(|error| panic::refuse(&error));

    #[cfg(feature = "sensing")]
    {
        let sensor = sensing::open!(peripherals);
        let timer = OneShotTimer::new(SystemTimer::new(peripherals.SYSTIMER).alarm0).into_async();
        let (button, light) = (sensing::button!(peripherals), sensing::light!(peripherals));
        sensing::run(session, sensing::Chip::new(port, sensor, timer, button, light))
    }
    #[cfg(not(feature = "sensing"))]
    serve(session, port)
}

/// Answers a PC, for ever.
#[cfg(not(feature = "sensing"))]
fn serve<'a, C: FnMut() -> u64>(
    mut session: Session<'a, C, heads::Heads, model::Head<'a>>,
    mut port: port::transport::Port,
) -> ! {
    loop {
        let Ok(()) = session.serve(&mut port);
    }
}
