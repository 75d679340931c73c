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

/// Takes the bytes that have arrived; returns their number.
#[cfg(feature = "sensing")]
pub fn receive(port: &mut Port, buffer: &mut [u8]) -> usize {
    let mut received = 0;
    for place in buffer {
        let Ok(byte) = port.read_byte() else { break };
        *place = byte;
        received += 1;
    }
    received
}

/// Hands over a byte, if there is room for it. The port stays full while no PC reads.
#[cfg(feature = "sensing")]
pub fn offer(port: &mut Port, byte: u8) -> bool {
    port.write_byte_nb(byte).is_ok()
}

/// Has the bytes handed over sent.
#[cfg(feature = "sensing")]
pub fn send(port: &mut Port) {
    // What is not sent yet is sent later.
    let _ = port.flush_tx_nb();
}
