//! ST LSM6DSO.

use embedded_hal::delay::DelayNs;
use embedded_hal::i2c::I2c;
use lsm6dso::{AccelerometerOutput, AccelerometerScale, Error, GyroscopeFullScale, GyroscopeOutput, Lsm6dso as Driver};

use crate::imu::{Motion, MotionChip};

/// The control register 3, which the driver does not write, with its bits BDU and IF_INC: bytes of one moment, at growing addresses.
const WHOLE_SAMPLES: [u8; 2] = [0x12, 0x44];
/// Until the gyroscope has started at 104 Hz: 70 ms, and the filter (application note AN5192, 3.9).
const START: u32 = 100;

/// The chip, at ±8 g and ±1000 °/s, which measures 104 times a second.
pub struct Lsm6dso<B, D> {
    driver: Option<Driver<B>>,
    address: u8,
    delay: D,
}

impl<B: I2c, D: DelayNs> Lsm6dso<B, D> {
    /// The chip on a bus of at most 400 kHz, at the 7-bit address 0x6a, or 0x6b if its pin SA0 is high.
    pub fn new(bus: B, address: u8, delay: D) -> Self {
        Lsm6dso { driver: Some(Driver::new(bus, address)), address, delay }
    }

    fn keep_samples_whole(&mut self) -> Result<(), Error<B::Error>> {
        let Some(mut bus) = self.driver.take().map(Driver::release) else { return Ok(()) };
        let written = bus.write(self.address, &WHOLE_SAMPLES);
        self.driver = Some(Driver::new(bus, self.address));
        Ok(written?)
    }
}

impl<B: I2c, D: DelayNs> MotionChip for Lsm6dso<B, D> {
    type Error = Error<B::Error>;

    fn set_up(&mut self) -> Result<(), Self::Error> {
        self.keep_samples_whole()?;
        let driver = self.driver.as_mut().ok_or(Error::ChipDetectFailed)?;
        driver.check()?;
        driver.set_accelerometer_scale(AccelerometerScale::G08)?;
        driver.set_accelerometer_output(AccelerometerOutput::Rate104)?;
        driver.set_gyroscope_scale(GyroscopeFullScale::Dps1000)?;
        driver.set_gyroscope_output(GyroscopeOutput::Rate104)?;
        self.delay.delay_ms(START);
        Ok(())
    }

    fn read(&mut self) -> Result<Motion, Self::Error> {
        let data = self.driver.as_mut().ok_or(Error::ChipDetectFailed)?.read_all()?;
        Ok(Motion {
            acceleration: [data.accel_x, data.accel_y, data.accel_z],
            rotation: [data.gyro_x, data.gyro_y, data.gyro_z],
        })
    }
}
