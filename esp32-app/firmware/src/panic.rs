//! The last words of the firmware.

use core::fmt::Write;
use core::panic::PanicInfo;

use esp_hal::delay::Delay;
use esp_hal::peripherals::USB_DEVICE;
use esp_hal::usb::usb_serial_jtag::UsbSerialJtag;
use torch_nano_device::frame;

/// Says every second what is wrong: at a start, nobody listens yet. esp-hal panics on traps and stack overflows, too.
#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    // SAFETY: the port's owner never runs again: there is one core, and this function does not return.
    let mut serial = UsbSerialJtag::new(unsafe { USB_DEVICE::steal() });
    loop {
        // The end of a frame lets a client that waits for an answer see that this is none. The port's errors are `Infallible`.
        let _ = write!(serial, "{info}\r\n{}", char::from(frame::END));
        let _ = serial.flush_tx();
        Delay::new().delay_millis(1000);
    }
}
