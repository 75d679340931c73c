//! The serial port that connects the chip with a PC.

#[cfg_attr(transport = "uart", path = "uart.rs")]
#[cfg_attr(transport = "usb-serial-jtag", path = "usb_serial_jtag.rs")]
pub(crate) mod transport;

#[cfg(feature = "sensing")]
pub(crate) use transport::{Port, offer, receive, send};
pub(crate) use transport::{open, steal};
