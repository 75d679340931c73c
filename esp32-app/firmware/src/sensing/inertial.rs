//! An inertial measurement unit on an I2C bus: SDA at GPIO 5, SCL at GPIO 6, both with pull-ups, as sensor boards have them.

#[cfg(feature = "lsm6dso")]
pub(crate) use torch_nano_sensors::Lsm6dso as Unit;
#[cfg(feature = "mpu6050")]
pub(crate) use torch_nano_sensors::Mpu6050 as Unit;

/// Its address with the address pin low.
pub(crate) const ADDRESS: u8 = if cfg!(feature = "lsm6dso") { 0x6a } else { 0x68 };

/// The sensor, with the chip's peripherals.
macro_rules! open {
    ($peripherals:ident) => {{
        use $crate::sensing::sensor::{ADDRESS, Unit};
        let config = esp_hal::i2c::master::Config::default().with_frequency(esp_hal::time::Rate::from_khz(400));
        let bus = esp_hal::i2c::master::I2c::new($peripherals.I2C0, config);
        let bus = bus.expect("every clock of the chip makes 400 kHz");
        let bus = bus.with_sda($peripherals.GPIO5).with_scl($peripherals.GPIO6);
        torch_nano_sensors::Imu::new(Unit::new(bus, ADDRESS, esp_hal::delay::Delay::new()))
    }};
}
pub(crate) use open;
