//! The voltage at GPIO 3, up to about 3.1 V.

/// Volts of one step at the attenuation of 11 dB, not calibrated: the full scale of the 12 bits is 3.1 V.
pub(crate) const STEP: f32 = 3.1 / 4095.0;

/// The sensor, with the chip's peripherals.
macro_rules! open {
    ($peripherals:ident) => {{
        use esp_hal::analog::adc::{Adc, AdcConfig, Attenuation};
        let mut config = AdcConfig::new();
        let mut pin = config.enable_pin($peripherals.GPIO3, Attenuation::_11dB);
        let mut adc = Adc::new($peripherals.ADC1, config);
        // A conversion takes microseconds.
        let read = move || loop {
            match adc.read_oneshot(&mut pin) {
                Ok(number) => break Some(number),
                Err(nb::Error::WouldBlock) => {}
                Err(nb::Error::Other(())) => break None,
            }
        };
        torch_nano_sensors::Voltage::new(read, $crate::sensing::sensor::STEP)
    }};
}
pub(crate) use open;
