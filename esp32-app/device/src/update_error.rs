//! Why an update of the model is refused.

use nano_core::Error;
use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;

/// Why an update was refused, or failed. The image that runs, and its slot, are unchanged. As `&'static str` it is the name of the variant, a code for
/// programs.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, IntoStaticStr)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum UpdateError {
    /// The device has no flash for updates.
    NoSlots,
    /// The image does not fit a slot.
    TooLarge {
        /// Bytes of the image.
        needed: u32,
        /// Bytes that a slot has for it.
        given: u32,
    },
    /// The image that runs is on trial: it must be confirmed first.
    Unconfirmed,
    /// No update was begun.
    NotBegun,
    /// The bytes do not follow those before, are more than the image has, or end within a word before the image does.
    Order {
        /// Bytes written so far, where the next ones belong.
        needed: u32,
        /// Where the given ones begin.
        given: u32,
    },
    /// The image is not complete.
    Incomplete {
        /// Bytes of the image.
        needed: u32,
        /// Bytes written.
        given: u32,
    },
    /// What was written is not what was announced: the link, or the flash, has damaged it.
    Checksum {
        /// CRC-32 that was announced, the image's id.
        stored: u32,
        /// CRC-32 of the bytes in flash.
        computed: u32,
    },
    /// The image is of another version of the format than the program reads.
    Version {
        /// Version of the image.
        found: u16,
        /// Version that the program reads.
        expected: u16,
    },
    /// A node needs a kernel that the program does not link.
    Kernel {
        /// Index of the node.
        node: u32,
        /// Id of the kernel.
        id: u16,
    },
    /// The image needs more RAM than the program has reserved.
    Ram {
        /// Bytes that the image needs.
        needed: u32,
        /// Bytes that are reserved.
        given: u32,
    },
    /// The program does not link the trainer of the image's head.
    Trainer {
        /// The trainer's code.
        trainer: u32,
    },
    /// A device that senses by itself needs the same window and features, as their RAM is reserved.
    Window {
        /// Bytes of its inputs, then of its first output.
        needed: [u32; 2],
        /// Bytes of the image's.
        given: [u32; 2],
    },
    /// nano-core refuses the image for another reason.
    Image,
    /// The image that runs is in no slot, or is confirmed already.
    NothingToConfirm,
    /// The flash's driver failed.
    Driver,
}

impl From<Error> for UpdateError {
    fn from(error: Error) -> Self {
        match error {
            Error::Version { found, expected } => UpdateError::Version { found, expected },
            Error::UnknownKernel { node, id } => UpdateError::Kernel { node: node as u32, id },
            _ => UpdateError::Image,
        }
    }
}
