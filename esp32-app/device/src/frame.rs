//! Frames: a message in postcard with its CRC-32 behind it, in COBS, ended by a zero byte. Every zero byte starts a new frame, so a
//! receiver that joins in the middle is in step again after one.

use postcard::ser_flavors::crc::CrcModifier;
use postcard::ser_flavors::{Cobs, Slice};
use serde::{Deserialize, Serialize};

pub(crate) const CRC32: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);

/// The byte that ends a frame and occurs nowhere in it.
pub const END: u8 = 0;

/// Bytes a frame needs around `payload` bytes of tensors: the message's other fields, CRC, COBS codes, end.
pub const fn length(payload: usize) -> usize {
    const FIELDS: usize = 128;
    let message = payload.saturating_add(FIELDS);
    message.saturating_add(message / 254 + 2)
}

/// Writes `message` into `buffer` as a frame, the end byte included; `None` if the buffer is too short.
///
/// ```
/// use torch_nano_device::{Request, frame};
/// let mut buffer = [0; 16];
/// let bytes = frame::encode(&Request::Train { epochs: 20 }, &mut buffer).unwrap();
/// let (&mut frame::END, rest) = bytes.split_last_mut().unwrap() else { panic!() };
/// assert_eq!(frame::decode::<Request>(rest), Some(Request::Train { epochs: 20 }));
/// ```
pub fn encode<'b>(message: &impl Serialize, buffer: &'b mut [u8]) -> Option<&'b mut [u8]> {
    let cobs = Cobs::try_new(Slice::new(buffer)).ok()?;
    postcard::serialize_with_flavor(message, CrcModifier::new(cobs, CRC32.digest())).ok()
}

/// Reads a message from a frame without its end byte, in place; `None` if it is damaged or no such message.
pub fn decode<'b, T: Deserialize<'b>>(frame: &'b mut [u8]) -> Option<T> {
    let length = cobs::decode_in_place(frame).ok()?;
    let message = &frame[..length];
    // postcard would read a message from the start of a longer one; its checksum must end the frame.
    match postcard::take_from_bytes_crc32(message, CRC32.digest()) {
        Ok((message, [])) => Some(message),
        _ => None,
    }
}
