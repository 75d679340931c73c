//! InvenSense MPU-6050, also MPU-6500, MPU-9250 and MPU-6886, whose registers for motion are the same.

use embedded_hal::delay::DelayNs;
use embedded_hal::i2c::I2c;
use mpu6050_dmp::accel::AccelFullScale;
use mpu6050_dmp::address::Address;
use mpu6050_dmp::clock_source::ClockSource;
use mpu6050_dmp::config::DigitalLowPassFilter;
use mpu6050_dmp::error::{Error, InitError};
use mpu6050_dmp::gyro::GyroFullScale;
use mpu6050_dmp::sensor::Mpu6050 as Driver;

use crate::imu::{Motion, MotionChip};

const ACCELERATION: AccelFullScale = AccelFullScale::G8;
const ROTATION: GyroFullScale = GyroFullScale::Deg1000;
/// m/s² of one g.
const GRAVITY: f32 = 9.80665;

/// Until a filtered number of the gyroscope is there: 30 ms to start (data sheet, 6.1), and the filter.
const START: u32 = 100;

/// The chip, at ±8 g and ±1000 °/s, filtered to 42 Hz for samples at 100 Hz.
pub struct Mpu6050<B: I2c, D> {
    /// The bus, until the chip has answered on it.
    bus: Option<B>,
    driver: Option<Driver<B>>,
    address: u8,
    delay: D,
}

impl<B: I2c, D: DelayNs> Mpu6050<B, D> {
    /// The chip on a bus of at most 400 kHz, at the 7-bit address 0x68, or 0x69 if its pin AD0 is high.
    pub fn new(bus: B, address: u8, delay: D) -> Self {
        Mpu6050 { bus: Some(bus), driver: None, address, delay }
    }
}

impl<B: I2c, D: DelayNs> MotionChip for Mpu6050<B, D> {
    type Error = Error<B>;

    fn set_up(&mut self) -> Result<(), Error<B>> {
        if let Some(bus) = self.bus.take() {
            match Driver::new(bus, Address(self.address)) {
                Ok(driver) => self.driver = Some(driver),
                Err(InitError { i2c, error }) => {
                    self.bus = Some(i2c);
                    return Err(error);
                }
            }
        }
        let driver = self.driver.as_mut().ok_or(Error::WrongDevice)?;
        // The driver only adds bits to the chip's settings: they must be clear.
        driver.reset(&mut self.delay)?;
        driver.disable_sleep()?;
        driver.set_clock_source(ClockSource::Xgyro)?;
        driver.set_digital_lowpass_filter(DigitalLowPassFilter::Filter3)?;
        driver.set_accel_full_scale(ACCELERATION)?;
        driver.set_gyro_full_scale(ROTATION)?;
        self.delay.delay_ms(START);
        Ok(())
    }

    fn read(&mut self) -> Result<Motion, Error<B>> {
        let (acceleration, rotation) = self.driver.as_mut().ok_or(Error::WrongDevice)?.motion6()?;
        let (g, degrees) = (acceleration.scaled(ACCELERATION), rotation.scaled(ROTATION));
        Ok(Motion {
            acceleration: [g.x(), g.y(), g.z()].map(|g| g * GRAVITY),
            rotation: [degrees.x(), degrees.y(), degrees.z()].map(f32::to_radians),
        })
    }
}
