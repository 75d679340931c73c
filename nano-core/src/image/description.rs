//! The writer's input, a model as plain data, and its errors.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use super::{ChannelScale, Dtype, LONGEST_NAME};
use crate::Error;
use crate::train::RejectionDescription;
use crate::train::description::HeadDescription;

/// A constant tensor of a layer, row-major.
#[derive(Clone, Debug, PartialEq)]
pub enum Tensor {
    /// Weights, tables.
    Int8(Vec<i8>),
    /// Tables and starts of states.
    Int16(Vec<i16>),
    /// Biases.
    Int32(Vec<i32>),
    /// Biases of int16 layers.
    Int64(Vec<i64>),
    /// Scales.
    Float32(Vec<f32>),
}

/// One tensor of the run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ValueDescription {
    /// Type of its elements.
    pub dtype: Dtype,
    /// Height, width, channels.
    pub shape: [u32; 3],
    /// Real step of one integer.
    pub scale: f32,
    /// The integer that stands for 0.0; 0 unless the dtype is int8.
    pub zero_point: i32,
    /// Whether it is a state, which is kept from run to run.
    pub state: bool,
}

/// One operator of the run.
#[derive(Clone, Debug)]
pub struct LayerDescription {
    /// Name of the operator, one of [`ops::ALL`](crate::ops::ALL).
    pub operator: String,
    /// Ids of the input values.
    pub inputs: Vec<usize>,
    /// The output values.
    pub outputs: Vec<ValueDescription>,
    /// The operator's attributes by name, all of them.
    pub attributes: BTreeMap<String, i64>,
    /// The operator's tensors by name, all of them.
    pub tensors: BTreeMap<String, Tensor>,
}

/// An input of the graph.
#[derive(Clone, Debug)]
pub struct InputDescription {
    /// Its name, which no other input has ([`is_label`](super::is_label)).
    pub name: String,
    /// The value that the network reads.
    pub value: ValueDescription,
    /// Scale and offset of each channel; empty if the value's scale and zero point hold for all.
    pub channels: Vec<ChannelScale>,
}

/// An output of the graph.
#[derive(Clone, Debug)]
pub struct OutputDescription {
    /// Its name, which no other output has ([`is_label`](super::is_label)).
    pub name: String,
    /// Id of the value.
    pub id: usize,
}

/// A whole model as plain data.
///
/// The ids of its values: the inputs from 0 on, then the outputs of each layer in order. They are those of the image, unless one of its nodes stands
/// for two layers ([`Operator::described_layers`](crate::Operator::described_layers)): the value between these is not in the image.
#[derive(Clone, Debug)]
pub struct ModelDescription {
    /// Name of the model ([`is_name`](super::is_name)).
    pub name: String,
    /// Names of the classes, all different ([`is_label`](super::is_label)); not more than the model has classes, may be empty.
    pub labels: Vec<String>,
    /// The graph's inputs.
    pub inputs: Vec<InputDescription>,
    /// All layers, in order of execution.
    pub layers: Vec<LayerDescription>,
    /// The graph's outputs.
    pub outputs: Vec<OutputDescription>,
    /// The trainable head, if any.
    pub head: Option<HeadDescription>,
    /// What the head's predictions mean; None: a temperature of 1, and no input is rejected.
    pub rejection: Option<RejectionDescription>,
    /// Bytes of RAM for copies of layers' constants, at most: those of whole layers, which save the most waiting for flash per byte of RAM.
    pub weights_in_ram: usize,
    /// By what the layers' kernels are chosen.
    pub optimize: Optimize,
    /// What the kernels may take; a model that needs more takes as little more as it can.
    pub budget: Budget,
    /// The chip's time for reading flash.
    pub flash_timing: FlashTiming,
    /// The code that programs link for kernels; empty: code counts nothing.
    pub code: Vec<CodeSize>,
}

/// What the choice of kernels makes small.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Optimize {
    /// The modelled cycles; a KiB of code must save 0.05 % of them.
    #[default]
    Speed,
    /// The constants, which are within 1 % of the smallest, and the code, a KiB of which must save 2 % of the run's cycles.
    Flash,
    /// The arena: of the choices with the smallest, the fastest.
    Ram,
}

/// Bytes that an image may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// The image's length.
    pub flash: usize,
    /// The arena without copies of constants.
    pub arena: usize,
}

impl Default for Budget {
    /// No limits.
    fn default() -> Self {
        Budget { flash: usize::MAX, arena: usize::MAX }
    }
}

/// Code that a program links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeSize {
    /// Its bytes.
    pub bytes: usize,
    /// Names of the kernels of which one in the program is enough for it.
    pub kernels: Vec<String>,
}

/// The time that a chip needs to read flash through its cache. By default reading takes no time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlashTiming {
    /// Bytes of the cache.
    pub cache: usize,
    /// Bytes of a line of the cache.
    pub line: usize,
    /// Lines of a set, of which a miss replaces the one that was read first.
    pub ways: usize,
    /// Cycles from the read of a missing line to its first word.
    pub cycles_to_first_word: u32,
    /// Cycles from the read of a missing line to the next possible one.
    pub cycles_per_line: u32,
}

impl ModelDescription {
    /// All values, by id.
    pub(super) fn values(&self) -> impl Iterator<Item = &ValueDescription> {
        let inputs = self.inputs.iter().map(|input| &input.value);
        inputs.chain(self.layers.iter().flat_map(|layer| &layer.outputs))
    }
}

/// Why a model could not be written.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub enum WriteError {
    /// No operator has this name.
    UnknownOperator(String),
    /// None of the given kernels of this operator computes the layer.
    NoKernel(String),
    /// A layer's attribute is missing, unknown or not an int32.
    Attribute {
        /// The operator.
        operator: String,
        /// The attribute.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A layer's tensor is missing, of another type or length.
    Tensor {
        /// The operator.
        operator: String,
        /// The tensor.
        name: String,
        /// Type and length needed.
        needed: String,
    },
    /// A rule of the operator is broken.
    Refused {
        /// The operator.
        operator: String,
        /// The rule.
        rule: &'static str,
        /// The offending number.
        value: f64,
    },
    /// A setting of the head that its trainer, or the layer, does not allow.
    Setting {
        /// Its name.
        name: &'static str,
        /// The value given.
        given: String,
        /// The values allowed.
        expected: String,
    },
    /// A layer or the graph reads a value that does not exist, or is not written yet.
    ValueId(usize),
    /// A layer has more inputs, outputs, attributes or constants than a record counts, 255 of each.
    Count(usize),
    /// The channel scales of a graph's input are not one for each channel, or one is 0 or not finite.
    ChannelScales(usize),
    /// A name that a model cannot have ([`is_name`](super::is_name)).
    Name(String),
    /// A name that an input or an output cannot have ([`is_label`](super::is_label)).
    ValueName(String),
    /// A name that two inputs or two outputs have.
    SameName(String),
    /// A name that a class cannot have ([`is_label`](super::is_label)).
    Label(String),
    /// A name that two classes have.
    SameLabel(String),
    /// A value, attribute or shape breaks a rule of the format or of the operator.
    Layer(Error),
    /// The image would exceed 2^31 bytes or another limit of the format.
    TooLarge(&'static str),
}

impl WriteError {
    /// An invalid setting of the head.
    pub(crate) fn setting(name: &'static str, given: impl fmt::Display, expected: impl fmt::Display) -> Self {
        WriteError::Setting { name, given: given.to_string(), expected: expected.to_string() }
    }
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WriteError::UnknownOperator(name) => write!(f, "there is no operator {name:?}"),
            WriteError::NoKernel(operator) => write!(f, "{operator}: no kernel that may be used computes this layer"),
            WriteError::Attribute { operator, name, problem } => write!(f, "{operator}: attribute {name} {problem}"),
            WriteError::Tensor { operator, name, needed } => write!(f, "{operator}: tensor {name} must be {needed}"),
            WriteError::Refused { operator, rule, value } => write!(f, "{operator}: {rule} (found {value})"),
            WriteError::Setting { name, given, expected } => write!(f, "{name} is {given}; expected {expected}"),
            WriteError::ValueId(id) => write!(f, "value {id} is read, and nothing before makes it"),
            WriteError::Count(count) => {
                write!(f, "a layer has {count} inputs, outputs, attributes or constants; expected at most 255")
            }
            WriteError::ChannelScales(input) => write!(
                f,
                "the channel scales of input {input} are wrong; expected one for each channel, finite and not 0, with a finite offset"
            ),
            WriteError::Name(text) => write!(
                f,
                "the name {text:?} is too long, or holds a line break or a zero; expected at most {LONGEST_NAME} bytes on one line"
            ),
            WriteError::Label(text) => write!(
                f,
                "the label {text:?} is empty or too long, or holds a line break or a zero; expected 1 to {LONGEST_NAME} bytes on one line"
            ),
            WriteError::ValueName(text) => write!(
                f,
                "the name {text:?} of an input or output is empty or too long, or holds a line break or a zero; expected 1 to {LONGEST_NAME} bytes on one line"
            ),
            WriteError::SameName(text) => write!(f, "two inputs or two outputs have the name {text:?}"),
            WriteError::SameLabel(text) => write!(f, "two classes have the label {text:?}"),
            WriteError::Layer(error) => error.fmt(f),
            WriteError::TooLarge(what) => write!(f, "too large for the format: {what}"),
        }
    }
}

impl core::error::Error for WriteError {}

impl From<Error> for WriteError {
    fn from(error: Error) -> Self {
        WriteError::Layer(error)
    }
}
