//! Frames: a message in postcard, followed by its CRC-32, in COBS, ended by a zero byte. Every zero byte starts a new frame, so a
//! receiver that starts in the middle is synchronized again after one.

use crc::{Crc, Digest, NoTable};
use nano_core::image::LONGEST_NAME;
use postcard::ser_flavors::{Cobs, Flavor, Slice};
use serde::{Deserialize, Serialize};

/// A bit at a time: a table would be 1 KB of flash, and streams and flash are slower still.
pub(crate) const CRC32: Crc<u32, NoTable> = Crc::<u32, NoTable>::new(&crc::CRC_32_ISO_HDLC);

/// The byte that ends a frame and occurs nowhere in it.
pub const END: u8 = 0;

/// The CRC-32 of frames and heads.
pub fn checksum(bytes: &[u8]) -> u32 {
    CRC32.checksum(bytes)
}

/// Bytes of the longest frame whose tensors, states and other byte strings have `payload` bytes together.
pub const fn length(payload: usize) -> usize {
    // The longest is the answer to Info: a name, and twenty numbers of five bytes at most. Those to Describe and Stats are shorter.
    const FIELDS: usize = LONGEST_NAME + 128;
    let message = payload.saturating_add(FIELDS);
    message.saturating_add(message / 254 + 2)
}

/// Writes a header and a message into `buffer` as a frame, the end byte included; `None` if the buffer is too short.
///
/// ```
/// use torch_nano_device::{Request, RequestHeader, frame};
/// let mut buffer = [0; 32];
/// let header = RequestHeader { sequence: 7, ..RequestHeader::default() };
/// let bytes = frame::encode(&header, &Request::Train { first_epoch: 0, epochs: 20 }, &mut buffer).unwrap();
/// let (&mut frame::END, rest) = bytes.split_last_mut().unwrap() else { panic!() };
/// let message = frame::open(rest).unwrap();
/// let (header, rest) = frame::parse::<RequestHeader>(message).unwrap();
/// assert_eq!((header.sequence, frame::parse(rest)), (7, Some((Request::Train { first_epoch: 0, epochs: 20 }, &[][..]))));
/// ```
pub fn encode<'b>(header: &impl Serialize, message: &impl Serialize, buffer: &'b mut [u8]) -> Option<&'b mut [u8]> {
    let cobs = Cobs::try_new(Slice::new(buffer)).ok()?;
    postcard::serialize_with_flavor(&(header, message), Checked { cobs, digest: CRC32.digest() }).ok()
}

/// Appends the CRC-32 of the message. postcard's flavor of this kind takes a CRC with a table.
struct Checked<'b> {
    cobs: Cobs<Slice<'b>>,
    digest: Digest<'static, u32, NoTable>,
}

impl<'b> Flavor for Checked<'b> {
    type Output = &'b mut [u8];

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.digest.update(&[byte]);
        self.cobs.try_push(byte)
    }

    fn finalize(mut self) -> postcard::Result<Self::Output> {
        self.cobs.try_extend(&self.digest.finalize().to_le_bytes())?;
        self.cobs.finalize()
    }
}

/// The bytes of a message, decoded in place from a frame without its end byte; `None` if it is damaged.
pub fn open(frame: &mut [u8]) -> Option<&[u8]> {
    let length = cobs::decode_in_place(frame).ok()?;
    let (message, checksum) = frame.get(..length)?.split_last_chunk()?;
    (CRC32.checksum(message) == u32::from_le_bytes(*checksum)).then_some(message)
}

/// A header or message from the start of `bytes`, and what follows it.
pub fn parse<'b, T: Deserialize<'b>>(bytes: &'b [u8]) -> Option<(T, &'b [u8])> {
    postcard::take_from_bytes(bytes).ok()
}

/// A header and a message from a frame without its end byte, in place; `None` if it is damaged, or is something else, or more.
pub fn decode<'b, H: Deserialize<'b>, T: Deserialize<'b>>(frame: &'b mut [u8]) -> Option<(H, T)> {
    match parse(open(frame)?) {
        Some((message, [])) => Some(message),
        _ => None,
    }
}
