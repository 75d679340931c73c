//! The bytes of an image, as they are read, and where the tests damage them.

use nano_core::Error;
use nano_core::image::Image;
use zerocopy::IntoBytes;

/// Bytes at an address that is a multiple of 4, as images are read.
#[derive(Clone)]
pub struct Aligned {
    words: Vec<u32>,
    length: usize,
}

impl Aligned {
    pub fn new(bytes: &[u8]) -> Self {
        let mut aligned = Aligned { words: vec![0; bytes.len().div_ceil(4)], length: bytes.len() };
        aligned.bytes_mut().copy_from_slice(bytes);
        aligned
    }

    pub fn bytes(&self) -> &[u8] {
        &self.words.as_bytes()[..self.length]
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.words.as_mut_bytes()[..self.length]
    }

    pub fn word(&self, offset: usize) -> u32 {
        u32::from_le_bytes(self.bytes()[offset..offset + 4].try_into().unwrap())
    }

    /// Changes a word and corrects the checksum.
    pub fn patch(&mut self, offset: usize, word: u32) {
        self.bytes_mut()[offset..offset + 4].copy_from_slice(&word.to_le_bytes());
        self.reseal();
    }

    /// Corrects the checksum.
    pub fn reseal(&mut self) {
        // Other errors come first: then the checksum does not count.
        if let Err(Error::Checksum { computed, .. }) = Image::new(self.bytes()) {
            self.bytes_mut()[place::CHECKSUM..place::CHECKED_FROM].copy_from_slice(&computed.to_le_bytes());
        }
    }
}

/// Where the header's words lie that the tests damage: the layout of format version 5, stated independently of the crate.
pub mod place {
    pub const VERSION: usize = 4;
    pub const CHECKSUM: usize = 8;
    pub const CHECKED_FROM: usize = 12;
    pub const LENGTH: usize = 12;
    pub const ARENA_LENGTH: usize = 16;
    /// Offset of a section; its length follows.
    pub const VALUES: usize = 20;
    pub const NODES: usize = 28;
    pub const INPUTS: usize = 36;
    pub const OUTPUTS: usize = 44;
    pub const HEAD: usize = 52;
    pub const METADATA: usize = 60;
    pub const LABEL_ORDER: usize = 68;
    pub const CONSTANTS: usize = 76;
    pub const CONSTANTS_IN_RAM: usize = 84;
    pub const HEADER_LENGTH: usize = 92;
    /// Bytes of a value record, and where in it lie the pitch, the scale, the zero point, the last use, the offset in the arena and the bytes there, the
    /// dtype (u8) and the place (u8).
    pub const VALUE_LENGTH: usize = 40;
    pub const VALUE_PITCH: usize = 12;
    pub const VALUE_SCALE: usize = 16;
    pub const VALUE_ZERO_POINT: usize = 20;
    pub const VALUE_LAST_USE: usize = 24;
    pub const VALUE_OFFSET: usize = 28;
    pub const VALUE_BYTES: usize = 32;
    pub const VALUE_DTYPE: usize = 36;
    /// Bytes of the record of where an input's channel scales lie.
    pub const INPUT_LENGTH: usize = 8;
    /// Bytes of a node record before its input ids, and where in it lie the kernel (u16), the form (u8), the counts of inputs, outputs and attributes
    /// and constants (u8), whether the constants are copied to RAM (u8), and the place of its scratch memory.
    pub const NODE_HEADER: usize = 16;
    pub const NODE_FORM: usize = 2;
    pub const NODE_INPUTS: usize = 3;
    pub const NODE_OUTPUTS: usize = 4;
    pub const NODE_ATTRIBUTES: usize = 5;
    pub const NODE_CONSTANTS: usize = 6;
    pub const NODE_CONSTANTS_IN_RAM: usize = 7;
    pub const NODE_SCRATCH: usize = 8;
}
