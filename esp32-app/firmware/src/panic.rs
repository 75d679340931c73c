//! The firmware's panic handler.

use core::panic::PanicInfo;

use embedded_io::Write;
use esp_hal::delay::Delay;
use torch_nano_device::frame;

use crate::port;

/// Sends the panic message every second, as at startup no client listens yet. esp-hal also panics on traps and stack overflows.
#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    // SAFETY: the port's owner never runs again: there is only one core, and this function does not return.
    let mut serial = unsafe { port::steal() };
    loop {
        // The end byte of a frame shows a client that waits for an answer that this is not one. The port's errors are `Infallible`.
        let _ = write!(serial, "{info}\r\n{}", char::from(frame::END));
        let _ = serial.flush();
        Delay::new().delay_millis(1000);
    }
}
