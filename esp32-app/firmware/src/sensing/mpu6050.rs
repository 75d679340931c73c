//! An MPU-6050 on an I2C bus: SDA at GPIO 5, SCL at GPIO 6, both with pull-ups, as sensor boards have them.

/// Its address with the address pin low.
pub(crate) const ADDRESS: u8 = 0x68;

/// The sensor, with the chip's peripherals.
macro_rules! open {
    ($peripherals:ident) => {{
        let config = esp_hal::i2c::master::Config::default().with_frequency(esp_hal::time::Rate::from_khz(400));
        let bus = esp_hal::i2c::master::I2c::new($peripherals.I2C0, config);
        let bus = bus.expect("every clock of the chip makes 400 kHz");
        let bus = bus.with_sda($peripherals.GPIO5).with_scl($peripherals.GPIO6);
        let address = $crate::sensing::sensor::ADDRESS;
        torch_nano_sensors::Imu::new(torch_nano_sensors::Mpu6050::new(bus, address, esp_hal::delay::Delay::new()))
    }};
}
pub(crate) use open;
