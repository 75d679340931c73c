//! UART0 on the pins that the boot messages use, for chips without USB-Serial-JTAG.

use core::convert::Infallible;

use embedded_io::{ErrorType, Read, Write};
use esp_hal::Blocking;
use esp_hal::gpio::interconnect::{PeripheralInput, PeripheralOutput};
use esp_hal::peripherals::Peripherals;
use esp_hal::uart::{Config, Uart};

/// Bits per second: the default of torch_nano's `Device`.
const BAUDRATE: u32 = 115_200;

/// The port. A byte that it loses damages its frame, which the frame's CRC shows: it has no errors of its own.
pub struct Port(Uart<'static, Blocking>);

/// Opens the port with the chip's peripherals.
macro_rules! open {
    ($peripherals:ident) => {{
        #[cfg(feature = "esp32")]
        let (receive, send) = ($peripherals.GPIO3, $peripherals.GPIO1);
        #[cfg(feature = "esp32c2")]
        let (receive, send) = ($peripherals.GPIO19, $peripherals.GPIO20);
        #[cfg(feature = "esp32s2")]
        let (receive, send) = ($peripherals.GPIO44, $peripherals.GPIO43);
        $crate::port::transport::Port::new($peripherals.UART0, receive, send)
    }};
}
pub(crate) use open;

/// A second port on the same hardware.
///
/// # Safety
/// The owner of the first port never runs again.
pub unsafe fn steal() -> Port {
    // SAFETY: the caller's.
    let peripherals = unsafe { Peripherals::steal() };
    open!(peripherals)
}

impl Port {
    /// Opens the port on two pins.
    pub fn new(
        uart: esp_hal::peripherals::UART0<'static>,
        receive: impl PeripheralInput<'static>,
        send: impl PeripheralOutput<'static>,
    ) -> Self {
        let uart = Uart::new(uart, Config::default().with_baudrate(BAUDRATE));
        let uart = uart.expect("every clock of the chip makes this baud rate");
        Port(uart.with_rx(receive).with_tx(send))
    }
}

impl ErrorType for Port {
    type Error = Infallible;
}

impl Read for Port {
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Infallible> {
        loop {
            if let Ok(length) = self.0.read(bytes) {
                return Ok(length);
            }
        }
    }
}

impl Write for Port {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        loop {
            if let Ok(length) = self.0.write(bytes) {
                return Ok(length);
            }
        }
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        while self.0.flush().is_err() {}
        Ok(())
    }
}

/// Takes the bytes that have arrived; returns their number.
#[cfg(feature = "sensing")]
pub fn receive(port: &mut Port, buffer: &mut [u8]) -> usize {
    if port.0.read_ready() { port.0.read_buffered(buffer).unwrap_or(0) } else { 0 }
}

/// Hands over a byte, if there is room for it.
#[cfg(feature = "sensing")]
pub fn offer(port: &mut Port, byte: u8) -> bool {
    port.0.write_ready() && port.0.write(&[byte]).is_ok()
}

/// Has the bytes handed over sent: a UART sends them by itself.
#[cfg(feature = "sensing")]
pub fn send(_: &mut Port) {}
