//! The pins of the button and the light. Those of the sensor stand with it.

/// The button of Espressif's boards that selects the boot mode when the chip is reset.
macro_rules! button {
    ($peripherals:ident) => {{
        #[cfg(feature = "esp32c5")]
        let pin = $peripherals.GPIO28;
        #[cfg(feature = "esp32p4")]
        let pin = $peripherals.GPIO35;
        #[cfg(not(any(feature = "esp32c5", feature = "esp32p4")))]
        let pin = $peripherals.GPIO9;
        pin
    }};
}
pub(crate) use button;

/// An LED, with a resistor to ground.
macro_rules! light {
    ($peripherals:ident) => {
        $peripherals.GPIO10
    };
}
pub(crate) use light;
