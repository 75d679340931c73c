//! torch-nano on QEMU's `virt` board as an rv32imc chip that senses and learns by itself. Its sensor and its buttons are a [`RecordedSensor`] after the model image.
//!
//! Time is the number of instructions, at one per tick, and the time that the program sleeps, which is skipped. What QEMU needs to take sent bytes does not
//! count, so that a run depends only on the image, the recording, the flash and the bytes that a PC sends.
#![no_std]
#![no_main]
#![deny(missing_docs)]

mod board;
mod console;
mod flash;
mod kernels;
mod session;

use console::Console;
use embedded_io::{Read, ReadReady, Write};
use nano_core::image::Image;
use nano_core::{CheckedImage, Error};
use torch_nano_device::{Board, Event, Program, ProgramRam, RecordedSensor, Report, Sampled};
use zerocopy::{FromBytes, IntoBytes};

/// The board, with a recorded sensor.
struct Recorded {
    console: Console,
    recording: RecordedSensor<'static>,
    pressed: Option<u16>,
    /// Time that it has slept, less that in which it has sent.
    skipped: u64,
}

impl Board for Recorded {
    type Error = virtio_drivers::Error;

    fn now(&mut self) -> u64 {
        board::instructions().wrapping_add(self.skipped)
    }

    fn sleep(&mut self, until: u64) {
        if until == u64::MAX {
            self.console.wait();
        } else {
            self.skipped = self.skipped.wrapping_add(until.saturating_sub(self.now()));
        }
    }

    fn sample(&mut self, sample: &mut [f32]) -> Sampled {
        let (sampled, pressed) = self.recording.take(sample);
        self.pressed = pressed;
        sampled
    }

    fn pressed(&mut self) -> Option<u16> {
        self.pressed.take()
    }

    fn show(&mut self, report: &Report) {
        if let Event::Missed { samples } = report.event {
            self.recording.skip(samples);
        }
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Result<usize, Self::Error> {
        if self.console.read_ready()? { self.console.read(buffer) } else { Ok(0) }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), Self::Error> {
        let start = board::instructions();
        self.console.write_all(bytes)?;
        self.skipped = self.skipped.wrapping_sub(board::instructions() - start);
        Ok(())
    }
}

/// Splits `length` elements of `T` off the front of the RAM.
fn take<T: FromBytes + IntoBytes>(ram: &mut &'static mut [u32], length: usize) -> Option<&'static mut [T]> {
    let words = ram.split_off_mut(..length.checked_mul(size_of::<T>())?.div_ceil(4))?;
    let (taken, _) = <[T]>::mut_from_prefix_with_elems(words.as_mut_bytes(), length).ok()?;
    Some(taken)
}

fn program(recording: &RecordedSensor<'static>) -> Result<Program<'static, impl FnMut() -> u64, flash::Flash>, Error> {
    let lengths =
        |image: &CheckedImage<'_>| [image.image().input(0), image.image().output(0)].map(|value| value.range().len());
    let started = session::Started::new(|own| Some(lengths(own)))?;
    let [input, output] = lengths(&started.image);
    let mut rest = session::ram();
    let buffers = (take(&mut rest, input), take(&mut rest, output), take(&mut rest, recording.sample as usize));
    let (Some(window), Some(features), Some(sample)) = buffers else {
        return Err(Error::Length { name: "RAM in words", needed: input / 4, given: rest.len() });
    };
    let session = started.session(rest, recording.settings)?;
    Program::new(session, ProgramRam { window, features, sample }, recording.options()?)
}

extern "C" fn main() -> ! {
    board::protect_flash();
    let length = Image::new(board::image()).map_or(0, |image| image.length());
    let Some(recording) = board::image().get(length..).and_then(RecordedSensor::read) else {
        board::fail(format_args!("there is no recording after the model image"))
    };
    let mut program = match program(&recording) {
        Ok(program) => program,
        Err(error) => board::fail(format_args!("{error}")),
    };
    let error =
        Console::new().and_then(|console| program.run(&mut Recorded { console, recording, pressed: None, skipped: 0 }));
    match error {
        Ok(()) => board::restart(),
        Err(error) => board::fail(format_args!("the console: {error}")),
    }
}
