//! The `.nano` image: header, checked zero-copy view, and (feature `alloc`) the writer.
//!
//! All words are little-endian. After the 92-byte [`Header`] come sections, each at the offset the header names:
//!
//! | section | holds |
//! |---|---|
//! | values | the graph's inputs, then the outputs of each node in order: a [`Value`] each |
//! | nodes | in order of execution: a [`NodeHeader`], input ids (u32), attributes (i32), constants (u32 offset, u32 length) |
//! | inputs | for each of the graph's inputs the place of its [`ChannelScale`]s in the constants (u32 offset, u32 length); length 0 if it has none |
//! | outputs | ids (u32) of the graph's outputs |
//! | head | absent, or one [`HeadRecord`] |
//! | metadata | UTF-8 lines: `name=` and the model's name ([`is_name`]); for each input in order `input=` and its name, for each output `output=` and its name, for each class `label=` and its name ([`is_label`]) |
//! | label order | the offset of each label in the metadata (u32), sorted by the labels' bytes |
//! | constants | weights, biases and tables, each at a multiple of 16 bytes, packed for its node's kernel, in the order of the nodes; the inputs' channel scales; the head's state |
//! | constants in RAM | in the same way, the constants of the nodes that read a copy in RAM ([`NodeHeader`]) |
//!
//! A value's id is its index in its section: each node writes the values that follow those of the node before it, and may read values with lower
//! ids only.
//!
//! Loading takes time linear in the image's length: a value's record holds its last use, sorted labels show that no two are equal, and no two
//! nodes share a constant. Its memory is bounded by [`MOST_ALIVE`].
//!
//! Constants in RAM are checked where they are, in flash. [`CheckedImage::bind`](crate::CheckedImage::bind) copies the whole section to the end of the arena:
//! a chip waits about ten cycles for each byte of flash that is not in its cache.

mod checksum;
#[cfg(feature = "alloc")]
mod description;
mod lifetimes;
mod metadata;
mod quantization;
mod value;
mod view;
#[cfg(feature = "alloc")]
mod writer;

#[cfg(feature = "alloc")]
pub use crate::train::{RejectionDescription, StartDescription, TrainedLayer, TrainedOperation, description::*};
#[cfg(feature = "alloc")]
pub use description::{
    Budget, CodeSize, FlashTiming, InputDescription, LayerDescription, ModelDescription, Optimize, OutputDescription,
    Tensor, ValueDescription, WriteError,
};
pub(crate) use lifetimes::{CheckOverlay, check as check_lifetimes, check_overlay};
pub use metadata::{LONGEST_NAME, is_label, is_name};
pub use quantization::{dequantize, quantize};
pub(crate) use value::Extent;
pub use value::{Dtype, Element, Value};
pub(crate) use view::Cursor;
pub use view::{Image, Nodes};
#[cfg(feature = "alloc")]
pub(crate) use writer::Fusion;
#[cfg(feature = "alloc")]
pub use writer::{Cost, KernelEstimate, Layer, LayerEstimate, Packed, estimate, write, write_with};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The format's version; raised whenever an older reader would misread a newer image.
pub const VERSION: u16 = 9;

const MAGIC: [u8; 4] = *b"NANO";
/// Of a constant, in bytes. Kernels of later versions may load 16 bytes at a time.
const CONSTANT_ALIGNMENT: usize = 16;
/// The checksum covers all bytes after itself.
const CHECKED_FROM: usize = 12;
/// The largest number of values needed at the same time, graph outputs included: loading keeps a list of them on the stack.
pub const MOST_ALIVE: usize = 128;

/// Fixed start of an image. Offsets and lengths are in bytes from the start of the image.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
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
    inputs: Section,
    outputs: Section,
    head: Section,
    metadata: Section,
    label_order: Section,
    constants: Section,
    constants_in_ram: Section,
}

/// A range of bytes in an image.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(C)]
pub struct Section {
    offset: u32,
    length: u32,
}

/// What the numbers of one channel of a graph input mean: `q = round((x - offset) / scale) + zero_point`, with the zero point of the value
/// ([`ChannelScale::quantize`]). The network itself knows only the value's scale.
#[derive(Clone, Copy, Debug, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(C)]
pub struct ChannelScale {
    /// Real step of one integer, finite and not 0; below 0 where the integers fall as the real numbers grow.
    pub scale: f32,
    /// The real number of the zero point.
    pub offset: f32,
}

/// Fixed start of a node's record.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(C)]
pub struct NodeHeader {
    pub(crate) kernel: u16,
    pub(crate) form: u8,
    pub(crate) input_count: u8,
    pub(crate) output_count: u8,
    pub(crate) attribute_count: u8,
    pub(crate) constant_count: u8,
    /// 1 if the constants are in the section that is copied to RAM, else 0.
    pub(crate) constants_in_ram: u8,
    pub(crate) scratch_offset: u32,
    pub(crate) scratch_length: u32,
}

impl NodeHeader {
    /// The bytes of the scratch memory, if there is any.
    fn scratch_extent(&self) -> Option<value::Extent> {
        (self.scratch_length > 0).then(|| value::Extent::run(self.scratch_offset, self.scratch_length))
    }
}

/// The trainable head after the graph's first output: its trainer, sizes, constants and the place of its initial state.
#[derive(Clone, Copy, Debug, Default, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(C)]
pub struct HeadRecord {
    /// The trainer's code, such as [`SgdHead::TRAINER`](crate::train::SgdHead::TRAINER).
    pub trainer: u32,
    /// The largest number of classes it can have.
    pub classes: u32,
    /// Number of features: the elements of the graph's first output.
    pub features: u32,
    /// The trainer's constants, in its own order.
    pub constants: [i32; 8],
    /// Real step of one unit of an initial logit.
    pub logit_scale: f32,
    pub(crate) state_offset: u32,
    pub(crate) state_length: u32,
    /// For a head that learns in epochs: every sample whose number is a multiple of it is kept aside, to judge trainings by; 0: none.
    pub guard: u32,
    /// The number of newer samples after which a sample counts half; 0: none fades.
    pub half_life: u32,
    /// Of [`certainty`](crate::train::certainty).
    pub(crate) temperature: i32,
    /// The class means that inputs of known classes are near ([`Rejection`](crate::train::Rejection)), int8 `[classes][features]`; without them no input is
    /// rejected.
    pub(crate) centres_offset: u32,
    pub(crate) centres_length: u32,
    /// The variance within a class, summed over the features, in squared steps.
    pub(crate) variance: u32,
    /// The largest squared distance of an input of a known class.
    pub(crate) limit: u32,
    /// Two images with the same number here have the same head, so that what one has learnt is right for the other: a hash, by the writer, of the network as
    /// it was described (operators, attributes, tensors, quantization), of the names of the classes, and of the head (trainer, sizes, constants, initial
    /// state). What predictions mean (temperature, centres, limit), other names of inputs, kernels, memory
    /// plans and copies in RAM leave it as it is.
    pub id: u32,
}

impl HeadRecord {
    /// Checks that the scale of a logit is a number above 0.
    pub(crate) fn check_logit_scale(&self) -> Result<(), crate::Error> {
        if self.logit_scale.is_finite() && self.logit_scale > 0.0 {
            return Ok(());
        }
        Err(crate::Error::Field { name: "head logit scale (bits)", value: self.logit_scale.to_bits().into() })
    }
}
