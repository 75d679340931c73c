//! The chip's built-in USB-Serial-JTAG.

use esp_hal::Blocking;
use esp_hal::peripherals::USB_DEVICE;
use esp_hal::usb::usb_serial_jtag::UsbSerialJtag;

/// The port, whose errors are `Infallible`.
pub type Port = UsbSerialJtag<'static, Blocking>;

/// Opens the port with the chip's peripherals.
macro_rules! open {
    ($peripherals:ident) => {
        esp_hal::usb::usb_serial_jtag::UsbSerialJtag::new($peripherals.USB_DEVICE)
    };
}
pub(crate) use open;

/// A second port on the same hardware.
///
/// # Safety
/// The owner of the first port never runs again.
pub unsafe fn steal() -> Port {
    // SAFETY: the caller's.
    UsbSerialJtag::new(unsafe { USB_DEVICE::steal() })
}
