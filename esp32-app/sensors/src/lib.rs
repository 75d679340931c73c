//! Sensors and buttons for a torch-nano device, for every board: each is a [`Sensor`] over the traits of `embedded-hal`.
//!
//! A sensor is set up when it is first asked, and again after each failure, so that a plug that was loose for a moment stops nothing.
#![no_std]
#![deny(missing_docs)]

mod button;
mod imu;
mod lsm6dso;
mod mpu6050;
mod replay;
mod voltage;

use torch_nano_device::Sampled;

pub use button::Button;
pub use imu::{Imu, Motion, MotionChip};
pub use lsm6dso::Lsm6dso;
pub use mpu6050::Mpu6050;
pub use replay::Replay;
pub use voltage::Voltage;

/// What a program samples.
pub trait Sensor {
    /// Real numbers of a sample.
    const NUMBERS: usize;

    /// Writes the next sample, [`Sensor::NUMBERS`] real numbers. It waits for the bus, and never for the sensor.
    fn sample(&mut self, sample: &mut [f32]) -> Sampled;
}
