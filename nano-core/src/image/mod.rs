//! The `.nano` image: header, checked zero-copy view, and (feature `alloc`) the writer.
//!
//! All words are little-endian. After the 80-byte [`Header`] come sections, each at the offset the header names:
//!
//! | section | holds |
//! |---|---|
//! | values | the graph's inputs, then the output of each node in order: a [`Value`] each |
//! | nodes | in order of execution: a [`NodeHeader`], input ids (u32), attributes (i32), constants (u32 offset, u32 length) |
//! | outputs | ids (u32) of the graph's outputs |
//! | head | absent, or one [`HeadRecord`] |
//! | metadata | UTF-8 lines: `name=` and the model's name ([`is_name`]), then for each class in order `label=` and its name ([`is_label`]) |
//! | label order | where in the metadata each label begins (u32), in the order of the labels' bytes |
//! | constants | weights, biases and tables, each at a multiple of 16 bytes, packed for its node's kernel variant, in the order of the nodes; the head's state |
//!
//! A value's id is its index in its section. So node `n` writes value `inputs + n`, and what it may read has a lower id.
//!
//! Loading takes time in proportion to the image's length: a value's record holds its last use, sorted labels show that no two are equal, and
//! no two nodes share a constant.
//! What it costs memory for has a limit, [`MOST_ALIVE`].

#[cfg(feature = "alloc")]
mod description;
mod lifetimes;
mod metadata;
#[cfg(feature = "alloc")]
mod plan;
mod quantization;
mod view;
#[cfg(feature = "alloc")]
mod writer;

#[cfg(feature = "alloc")]
pub use crate::train::{TrainedLayer, description::*};
#[cfg(feature = "alloc")]
pub use description::{LayerDescription, ModelDescription, Tensor, ValueDescription, WriteError};
pub(crate) use lifetimes::check as check_lifetimes;
pub use metadata::{LONGEST_NAME, is_label, is_name};
pub(crate) use view::Cursor;
pub use view::{Image, Nodes};
#[cfg(feature = "alloc")]
pub use writer::{Layer, Packed, write};

use core::ops::Range;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The format's version; raised whenever an older reader would misread a newer image.
pub const VERSION: u16 = 3;

const MAGIC: [u8; 4] = *b"NANO";
const CRC32: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);
/// The checksum covers everything after itself.
const CHECKED_FROM: usize = 12;
/// The most values that may be needed at the same time, graph outputs among them: loading keeps a list of them on the stack.
pub const MOST_ALIVE: usize = 128;

/// Fixed start of an image. Offsets and lengths are in bytes from the start of the image.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    magic: [u8; 4],
    version: u16,
    header_length: u16,
    checksum: u32,
    length: u32,
    arena_length: u32,
    values: Section,
    nodes: Section,
    outputs: Section,
    head: Section,
    metadata: Section,
    label_order: Section,
    constants: Section,
    input_count: u32,
}

#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Section {
    offset: u32,
    length: u32,
}

/// One int8 tensor of a run: `real = scale * (q - zero_point)`, layout height, width, channels.
#[derive(Clone, Copy, Debug, Default, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Value {
    /// Height, width, channels; 1-D data has height 1, a vector has height and width 1.
    pub shape: [u32; 3],
    /// Real step of one integer.
    pub scale: f32,
    /// The integer that stands for 0.0.
    pub zero_point: i32,
    /// Index of the last node that reads it; of a graph output, the number of nodes; of a value that nothing reads, the node that writes it.
    last_use: u32,
    /// Offset in the arena, in bytes.
    offset: u32,
}

impl Value {
    /// The most elements a value, and what is derived from it, may have.
    pub(crate) const LARGEST: u64 = 1 << 28;

    /// Number of elements, which is the number of bytes.
    #[allow(clippy::len_without_is_empty, reason = "a value is never empty: the view refuses it")]
    pub fn len(&self) -> usize {
        (self.shape[0] * self.shape[1] * self.shape[2]) as usize
    }

    /// The bytes of the arena the value occupies.
    pub fn range(&self) -> Range<usize> {
        self.offset as usize..self.offset as usize + self.len()
    }

    fn check(&self) -> Result<(), crate::Error> {
        let elements = self.shape.iter().try_fold(1u64, |product, &side| {
            let product = product * u64::from(side);
            (1..=Self::LARGEST).contains(&product).then_some(product)
        });
        let field = |name, value| Err(crate::Error::Field { name, value });
        if elements.is_none() {
            return field("value shape", i64::from(self.shape[0]));
        }
        if !(self.scale.is_finite() && self.scale > 0.0) {
            return field("value scale (bits)", i64::from(self.scale.to_bits()));
        }
        if !(-128..=127).contains(&self.zero_point) {
            return field("value zero point", i64::from(self.zero_point));
        }
        Ok(())
    }
}

/// Fixed start of a node's record.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct NodeHeader {
    pub(crate) operator: u16,
    pub(crate) variant: u16,
    pub(crate) input_count: u8,
    pub(crate) attribute_count: u8,
    pub(crate) constant_count: u16,
    pub(crate) scratch_offset: u32,
    pub(crate) scratch_length: u32,
}

impl NodeHeader {
    pub(crate) fn scratch(&self) -> Range<usize> {
        self.scratch_offset as usize..self.scratch_offset as usize + self.scratch_length as usize
    }
}

/// The trainable head behind the graph's first output: which trainer, its sizes, its constants and where its initial state lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct HeadRecord {
    /// Which trainer: [`SgdHead::TRAINER`](crate::train::SgdHead::TRAINER) and its like.
    pub trainer: u32,
    /// The most classes it can have.
    pub classes: u32,
    /// Number of features: the elements of the graph's first output.
    pub features: u32,
    /// The trainer's constants, in its own order.
    pub constants: [i32; 8],
    /// Real step of one unit of an initial logit.
    pub logit_scale: f32,
    pub(crate) state_offset: u32,
    pub(crate) state_length: u32,
}
