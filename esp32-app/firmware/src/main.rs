//! torch-nano on an ESP32 chip: serves one model over a serial port.
#![no_std]
#![no_main]
#![deny(missing_docs)]

mod images;
mod mapping;
#[allow(dead_code, missing_docs)]
mod model;
mod panic;
mod partition;
mod port;
#[cfg(feature = "sensing")]
mod sensing;
mod text;

use const_format::formatcp;
#[cfg(not(feature = "sensing"))]
use embedded_io::Write;
use esp_hal::clock::CpuClock;
use esp_hal::main;
use esp_hal::system::software_reset;
#[cfg(feature = "sensing")]
use esp_hal::timer::OneShotTimer;
use esp_hal::timer::systimer::{SystemTimer, Unit};
use nano_core::CheckedImage;
use static_cell::{ConstStaticCell, StaticCell};
#[cfg(not(feature = "sensing"))]
use torch_nano_device::frame;
use torch_nano_device::{Capacity, ImageSlots, Options, Session, Sizes, Slots};

use images::Images;
use partition::Partition;

// The application descriptor that the ESP-IDF bootloader reads.
esp_bootloader_esp_idf::esp_app_desc!();

const OPTIONS: Options = Options::CHIP;

const RAM: Sizes = Sizes {
    arena: model::ARENA_LENGTH,
    layers: model::LAYERS,
    head: model::HEAD,
    ring: OPTIONS.ring,
    frame: OPTIONS.frame,
    copy: OPTIONS.copy,
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

/// Words of RAM for sessions: what the model needs, or more if that was reserved for updates.
const WORDS: usize =
    if RAM.words() > chip::RESERVED_RAM.div_ceil(4) { RAM.words() } else { chip::RESERVED_RAM.div_ceil(4) };

const NEEDED: usize = WORDS.saturating_mul(4).saturating_add(SENSING);

/// What an update may need: a program that senses has RAM for the window of its own model.
const CAPACITY: Capacity<'static> = Capacity {
    kernels: model::KERNELS,
    words: WORDS,
    ring: OPTIONS.ring,
    frame: OPTIONS.frame,
    copy: OPTIONS.copy,
    window: if cfg!(feature = "sensing") { Some([model::INPUT_LENGTH, model::OUTPUT_LENGTH]) } else { None },
};

const _: () = assert!(
    NEEDED <= chip::MODEL_RAM,
    "{}",
    formatcp!(
        "the model needs {} bytes of RAM (arena {}, the rest for the head, the ring and the messages, or reserved for updates), and \
         this chip has {}: make its largest layers or its head smaller, or OPTIONS in esp32-app/firmware/src/main.rs",
        NEEDED,
        RAM.arena,
        chip::MODEL_RAM
    )
);

#[main]
fn main() -> ! {
    static RAM_WORDS: ConstStaticCell<[u32; WORDS]> = ConstStaticCell::new([0; WORDS]);
    static SLOTS: StaticCell<ImageSlots<Images>> = StaticCell::new();

    let peripherals = esp_hal::init(esp_hal::Config::default().with_cpu_clock(CpuClock::max()));
    let port = port::open!(peripherals);
    // Not the CPU's cycle counter: its 32 bits wrap within 11 s at 400 MHz, and training may take longer.
    let (cpu, timer) = (u64::from(esp_hal::clock::cpu_clock().as_mhz()), SystemTimer::ticks_per_second() / 1_000_000);
    // A tick is not a whole number of cycles on every chip: 7.5 at 120 MHz.
    let cycles = || SystemTimer::unit_value(Unit::Unit0) * cpu / timer;

    let [heads, images] = Partition::heads_and_images(peripherals.FLASH);
    let own = CheckedImage::new(model::IMAGE, model::KERNELS).unwrap_or_else(|error| panic::refuse(&error));
    let slots = SLOTS.init(ImageSlots::new(Images::new(images), own.image().id()));
    // A flash that cannot be read has no update.
    let found = slots.start(|image| CAPACITY.check::<model::Head<'_>>(image).is_ok()).ok().flatten();
    let update = found.and_then(|found| CAPACITY.check::<model::Head<'_>>(slots.flash().running(found.range)).ok());
    let mut session =
        match Session::<_, _, model::Head<'_>>::new(update.unwrap_or(own), RAM_WORDS.take(), OPTIONS, heads, cycles) {
            Ok(session) => session,
            // The next start takes the model before.
            Err(_) if slots.state().trial => software_reset(),
            Err(error) => panic::refuse(&error),
        };
    session.device.allow_updates(slots, CAPACITY);

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

/// Answers a PC, until that wants a restart.
#[cfg(not(feature = "sensing"))]
fn serve<'a, C: FnMut() -> u64>(
    mut session: Session<'a, C, Partition, model::Head<'a>>,
    mut port: port::transport::Port,
) -> ! {
    // Ends the boot loader's text; after a restart a client waits for it.
    let Ok(()) = port.write_all(&[frame::END]);
    let Ok(()) = port.flush();
    while !session.device.restarts() {
        let Ok(()) = session.serve(&mut port);
    }
    restart()
}

/// Starts again, once the last answer has left the port.
fn restart() -> ! {
    esp_hal::delay::Delay::new().delay_millis(100);
    software_reset()
}
