//! A chip that senses, predicts and learns by itself, with the sensor that is enabled as a feature.

mod board;
mod pins;
#[cfg_attr(feature = "microphone", path = "microphone.rs")]
#[cfg_attr(any(feature = "lsm6dso", feature = "mpu6050"), path = "inertial.rs")]
#[cfg_attr(feature = "voltage", path = "voltage.rs")]
pub(crate) mod sensor;

use embedded_storage::nor_flash::NorFlash;
use nano_core::image::Value;
use nano_core::train::Head;
use static_cell::ConstStaticCell;
use torch_nano_device::{Program, ProgramOptions, ProgramRam, SensingOptions, Session, Smoothing};
use torch_nano_sensors::Sensor;

use crate::{model, panic};
pub(crate) use board::Chip;
pub(crate) use pins::{button, light};
pub(crate) use sensor::open;

/// Microseconds from sample to sample: 100 samples a second.
const PERIOD: u64 = 10_000;
/// Of the latest five windows three must be of one class.
const SMOOTHING: (usize, usize) = (5, 3);
/// Passes over the samples kept, which begin after ten windows without a label.
const EPOCHS: u32 = 20;
const PAUSE: u32 = 10;
/// At most three milliseconds at 160 MHz and 7 cycles for each multiplication.
const SLICE: u64 = 1 << 16;

/// Real numbers of the longest sample.
const LONGEST_SAMPLE: usize = if cfg!(feature = "microphone") { 160 } else { 6 };

/// Bytes of RAM beside the session's.
pub(crate) const RAM: usize = model::INPUT_LENGTH + model::OUTPUT_LENGTH + 4 * LONGEST_SAMPLE;

/// Senses with the sensor of `chip`, for ever.
pub(crate) fn run<'a, C, F, H, S>(session: Session<'a, C, F, H>, mut chip: Chip<S>) -> !
where
    C: FnMut() -> u64,
    F: NorFlash,
    H: Head<'a>,
    S: Sensor,
{
    static WINDOW: ConstStaticCell<[i8; model::INPUT_LENGTH]> = ConstStaticCell::new([0; _]);
    static FEATURES: ConstStaticCell<[i8; model::OUTPUT_LENGTH]> = ConstStaticCell::new([0; _]);
    static SAMPLE: ConstStaticCell<[f32; LONGEST_SAMPLE]> = ConstStaticCell::new([0.0; _]);

    const {
        assert!(
            model::INPUT_LENGTH.is_multiple_of(S::NUMBERS),
            "the model's input is no whole number of this sensor's samples: enable the sensor that it was trained with"
        );
    }
    let samples = model::INPUT_LENGTH / S::NUMBERS;
    // Each step of a stream takes new samples; other windows overlap by half.
    let steps = session.device.image().values().iter().any(Value::is_state);
    let (length, agreement) = SMOOTHING;
    let program = Smoothing::new(length, agreement).and_then(|smoothing| {
        let sensing = SensingOptions {
            sample: S::NUMBERS,
            hop: if steps { samples } else { samples.div_ceil(2) },
            smoothing,
            epochs: EPOCHS,
            pause: PAUSE,
            slice: SLICE,
        };
        let (window, features) = (WINDOW.take(), FEATURES.take());
        // A sample that is longer than all its room is refused with its length.
        let sample = SAMPLE.take();
        let sample = sample.split_at_mut_checked(S::NUMBERS).map_or(&mut [][..], |(sample, _)| sample);
        Program::new(session, ProgramRam { window, features, sample }, ProgramOptions { sensing, period: PERIOD })
    });
    let mut program = program.unwrap_or_else(|error| panic::refuse(&error));
    let Ok(()) = program.run(&mut chip);
    crate::restart()
}
