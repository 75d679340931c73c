//! A board of one's own: serves a model to a PC over TCP.
//!
//! `cargo run --example own_board model.nano`, then in Python `tn.Device("socket://127.0.0.1:3333", nano=nano)`.

use std::net::TcpListener;

use embedded_io_adapters::std::FromStd;
use nano_core::{CheckedImage, ops};
use torch_nano_device::{MemoryFlash, Options, Session, Settings, Sizes, SpareCopy};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let image = std::fs::read(arguments.next().ok_or("expected the file of a model")?)?;
    let address = arguments.next().unwrap_or("127.0.0.1:3333".into());

    let image = CheckedImage::new(&image, ops::ALL)?;
    let options = Options {
        ring: 128,
        frame: 512,
        copy: SpareCopy::Flash,
        settings: Settings { rejection: 0, save_interval: 16 },
    };
    // On a chip: a static array, and a partition of the flash, as embedded-storage's `NorFlash`.
    let mut ram = vec![0; Sizes::of(image.image(), options.ring, options.frame, options.copy).words()];
    let flash = MemoryFlash(vec![0xff; 1 << 16]);
    let start = std::time::Instant::now();
    let mut session = Session::<_, _>::new(image, &mut ram, options, flash, || start.elapsed().as_micros() as u64)?;

    let listener = TcpListener::bind(address)?;
    println!(
        "serving {} on {}",
        session.device.image().metadata("name").next().unwrap_or("a model"),
        listener.local_addr()?
    );
    for stream in listener.incoming() {
        if let Err(error) = session.serve(&mut FromStd::new(stream?)) {
            println!("the PC has gone: {error}");
        }
    }
    Ok(())
}
