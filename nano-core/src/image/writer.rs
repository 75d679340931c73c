//! The image writer: packs every layer for its kernel variant, plans the arena, and lays the sections out.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::mem::size_of;

use zerocopy::IntoBytes;

use super::is_label;
use super::plan::{Request, plan};
use super::{CHECKED_FROM, CRC32, HeadRecord, Header, LONGEST_NAME, MAGIC, NodeHeader, Section, VERSION, Value};
use crate::fixed_point::Multiplier;
use crate::operator::MAX_INPUTS;
use crate::{Error, Operator, ops, train};

/// Kernels of later versions may load 16 bytes at a time.
const CONSTANT_ALIGNMENT: usize = 16;

/// A constant tensor of a layer, row-major.
#[derive(Clone, Debug, PartialEq)]
pub enum Tensor {
    /// Weights, tables.
    Int8(Vec<i8>),
    /// Biases.
    Int32(Vec<i32>),
    /// Scales.
    Float32(Vec<f32>),
}

/// One int8 tensor of the run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ValueDescription {
    /// Height, width, channels.
    pub shape: [u32; 3],
    /// Real step of one integer.
    pub scale: f32,
    /// The integer that stands for 0.0.
    pub zero_point: i32,
}

/// One operator of the run.
#[derive(Clone, Debug)]
pub struct LayerDescription {
    /// Name of the operator, one of [`ops::ALL`].
    pub operator: String,
    /// Ids of the input values.
    pub inputs: Vec<usize>,
    /// Id of the output value.
    pub output: usize,
    /// The operator's attributes by name, all of them.
    pub attributes: BTreeMap<String, i64>,
    /// The operator's tensors by name, all of them.
    pub tensors: BTreeMap<String, Tensor>,
}

/// A trainable head behind the first output.
#[derive(Clone, Debug)]
pub enum HeadDescription {
    /// Of [`train::SgdHead`].
    Sgd(SgdDescription),
    /// Of [`train::LdaHead`].
    Lda {
        /// Where it starts.
        start: SumsDescription,
        /// lambda over the mean variance when samples are many, above 0 and at most 1.
        shrinkage: f64,
    },
    /// Of [`train::PrototypeHead`].
    Prototype(SumsDescription),
    /// Of [`train::LayersHead`].
    Layers(LayersDescription),
}

/// The last layers of a network, which learn by stochastic gradient descent.
#[derive(Clone, Debug)]
pub struct LayersDescription {
    /// The layers, in order.
    pub layers: Vec<TrainedLayer>,
    /// How they learn.
    pub descent: train::Descent,
}

/// One of several trained layers.
#[derive(Clone, Debug)]
pub struct TrainedLayer {
    /// How often the weights apply to one sample: 1, or the pixels of a 1x1 convolution.
    pub positions: usize,
    /// Initial weights, outputs * inputs of them, inputs innermost.
    pub weights: Vec<f32>,
    /// Initial biases, one for each output.
    pub biases: Vec<f32>,
    /// Lower bound of the activation behind the layer, if it has one.
    pub clamp_low: Option<f32>,
    /// Upper bound of the activation behind the layer, if it has one.
    pub clamp_high: Option<f32>,
    /// The least and the greatest output that were seen; of no meaning for the last layer.
    pub range: (f32, f32),
}

/// A linear layer that learns by stochastic gradient descent.
#[derive(Clone, Debug)]
pub struct SgdDescription {
    /// Initial weights, [classes, features].
    pub weights: Vec<f32>,
    /// Initial biases, one for each class.
    pub biases: Vec<f32>,
    /// How it learns.
    pub descent: train::Descent,
}

/// A head of sums over samples, which begins with none.
#[derive(Clone, Debug)]
pub struct SumsDescription {
    /// Number of classes at the start.
    pub classes: usize,
    /// The most classes it can have.
    pub capacity: usize,
}

/// A whole model, as the exporter describes it.
#[derive(Clone, Debug)]
pub struct ModelDescription {
    /// Name of the model, one line of at most 64 bytes.
    pub name: String,
    /// Names of the classes, one line each; may be empty.
    pub labels: Vec<String>,
    /// All values, by id.
    pub values: Vec<ValueDescription>,
    /// Ids of the graph's inputs.
    pub inputs: Vec<usize>,
    /// Ids of the graph's outputs.
    pub outputs: Vec<usize>,
    /// All layers, in order of execution.
    pub layers: Vec<LayerDescription>,
    /// The trainable head, if any.
    pub head: Option<HeadDescription>,
}

/// Why a model could not be written.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub enum WriteError {
    /// No operator has this name.
    UnknownOperator(String),
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
        /// Which.
        name: &'static str,
        /// What it is.
        given: String,
        /// What it can be.
        expected: String,
    },
    /// A value id is out of range, or a node has more inputs than any operator takes.
    ValueId(usize),
    /// The model's name holds a line break.
    LineBreak(String),
    /// A label that is none ([`is_label`]), or that another class has.
    Label(String),
    /// A value, attribute or shape breaks a rule of the format or of the operator.
    Layer(Error),
    /// The image would exceed 2^31 bytes or another limit of the format.
    TooLarge(&'static str),
}

impl WriteError {
    /// A setting of the head that cannot be.
    pub(crate) fn setting(name: &'static str, given: impl fmt::Display, expected: impl fmt::Display) -> Self {
        WriteError::Setting { name, given: given.to_string(), expected: expected.to_string() }
    }
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WriteError::UnknownOperator(name) => write!(f, "there is no operator {name:?}"),
            WriteError::Attribute { operator, name, problem } => write!(f, "{operator}: attribute {name} {problem}"),
            WriteError::Tensor { operator, name, needed } => write!(f, "{operator}: tensor {name} must be {needed}"),
            WriteError::Refused { operator, rule, value } => write!(f, "{operator}: {rule} (found {value})"),
            WriteError::Setting { name, given, expected } => write!(f, "{name} is {given}; expected {expected}"),
            WriteError::ValueId(id) => write!(f, "value id {id} is out of range, or a node has too many inputs"),
            WriteError::LineBreak(text) => write!(f, "{text:?} holds a line break: a name is one line"),
            WriteError::Label(text) => {
                write!(f, "the label {text:?} is not of 1 to {LONGEST_NAME} bytes on one line, or two classes have it")
            }
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

/// A layer on its way into the image, as its operator's `pack` sees it.
pub struct Layer<'d> {
    /// The input values.
    pub inputs: Vec<Value>,
    /// The output value.
    pub output: Value,
    description: &'d LayerDescription,
}

impl<'d> Layer<'d> {
    /// The attributes in the order of `names`: all of them, and no others.
    pub(crate) fn attributes(&self, names: &[&str]) -> Result<Vec<i32>, WriteError> {
        let wrong = |name: &str, problem| WriteError::Attribute {
            operator: self.description.operator.clone(),
            name: name.to_string(),
            problem,
        };
        let given = &self.description.attributes;
        if let Some(name) = given.keys().find(|name| !names.contains(&name.as_str())) {
            return Err(wrong(name, "is unknown"));
        }
        let word = |&name: &&str| {
            let value = *given.get(name).ok_or_else(|| wrong(name, "is missing"))?;
            i32::try_from(value).map_err(|_| wrong(name, "does not fit 32 bits"))
        };
        names.iter().map(word).collect()
    }

    pub(crate) fn int8(&self, name: &str, length: usize) -> Result<&'d [i8], WriteError> {
        match self.description.tensors.get(name) {
            Some(Tensor::Int8(data)) if data.len() == length => Ok(data),
            _ => Err(self.tensor_error(name, "int8", length)),
        }
    }

    pub(crate) fn int32(&self, name: &str, length: usize) -> Result<&'d [i32], WriteError> {
        match self.description.tensors.get(name) {
            Some(Tensor::Int32(data)) if data.len() == length => Ok(data),
            _ => Err(self.tensor_error(name, "int32", length)),
        }
    }

    pub(crate) fn float32(&self, name: &str, length: usize) -> Result<&'d [f32], WriteError> {
        match self.description.tensors.get(name) {
            Some(Tensor::Float32(data)) if data.len() == length => Ok(data),
            _ => Err(self.tensor_error(name, "float32", length)),
        }
    }

    fn tensor_error(&self, name: &str, kind: &str, length: usize) -> WriteError {
        let given = match self.description.tensors.get(name) {
            None => "is missing".to_string(),
            Some(Tensor::Int8(data)) => alloc::format!("is int8 of length {}", data.len()),
            Some(Tensor::Int32(data)) => alloc::format!("is int32 of length {}", data.len()),
            Some(Tensor::Float32(data)) => alloc::format!("is float32 of length {}", data.len()),
        };
        let needed = alloc::format!("{kind} of length {length}, it {given}");
        WriteError::Tensor { operator: self.description.operator.clone(), name: name.to_string(), needed }
    }

    pub(crate) fn refused(&self, rule: &'static str, value: f64) -> WriteError {
        WriteError::Refused { operator: self.description.operator.clone(), rule, value }
    }
}

/// A packed layer.
pub struct Packed {
    /// Kernel variant.
    pub variant: u16,
    /// Attributes in the operator's order.
    pub attributes: Vec<i32>,
    /// Constants, packed for the variant.
    pub constants: Vec<Vec<u8>>,
    /// Bytes of scratch memory.
    pub scratch_length: usize,
}

impl Packed {
    /// A layer with one kernel variant, no scratch memory and, so far, no constants.
    pub(crate) fn plain(layer: &Layer<'_>, names: &[&str]) -> Result<Self, WriteError> {
        Ok(Packed { variant: 0, attributes: layer.attributes(names)?, constants: Vec::new(), scratch_length: 0 })
    }

    pub(crate) fn push_words(&mut self, words: &[i32]) {
        self.constants.push(words.as_bytes().to_vec());
    }

    pub(crate) fn push_multipliers(&mut self, multipliers: &[Multiplier]) {
        let words: Vec<i32> =
            multipliers.iter().flat_map(|multiplier| [multiplier.mantissa, multiplier.shift]).collect();
        self.push_words(&words);
    }
}

/// Writes a model as a `.nano` image.
///
/// # Errors
/// The first [`WriteError`] met. What the operators' own checks refuse is found by loading the image with
/// [`Model::new`](crate::Model::new), which every user of the image does.
///
/// ```
/// use nano_core::image::{self, LayerDescription, ModelDescription, Tensor, ValueDescription};
/// use nano_core::{Model, ops};
///
/// let value = ValueDescription { shape: [1, 1, 3], scale: 0.1, zero_point: 0 };
/// let negate: Vec<i8> = (-128..=127i32).map(|x| (-x).min(127) as i8).collect();
/// let layer = LayerDescription {
///     operator: "table".into(),
///     inputs: vec![0],
///     output: 1,
///     attributes: Default::default(),
///     tensors: [("table".into(), Tensor::Int8(negate))].into(),
/// };
/// let bytes = image::write(&ModelDescription {
///     name: "negate".into(),
///     labels: vec![],
///     values: vec![value, value],
///     inputs: vec![0],
///     outputs: vec![1],
///     layers: vec![layer],
///     head: None,
/// })?;
/// # let mut aligned = vec![0u32; bytes.len().div_ceil(4)];
/// # aligned.iter_mut().zip(bytes.chunks(4)).for_each(|(w, b)| *w = b.iter().rev().fold(0, |w, &b| w << 8 | u32::from(b)));
/// # let bytes = zerocopy::IntoBytes::as_bytes(&aligned[..]);
/// let mut arena = [0; 8];
/// let mut model = Model::new(bytes, &mut arena, ops::ALL)?;
/// model.input(0).copy_from_slice(&[1, -2, 3]);
/// model.run();
/// assert_eq!(model.output(0), [-1, 2, -3]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write(model: &ModelDescription) -> Result<Vec<u8>, WriteError> {
    let mut values: Vec<Value> = model
        .values
        .iter()
        .map(|&ValueDescription { shape, scale, zero_point }| Value {
            shape,
            scale,
            zero_point,
            location: 0,
            offset: 0,
        })
        .collect();
    values.iter().try_for_each(Value::check)?;
    let layers = model.layers.iter().map(|layer| pack(layer, &values)).collect::<Result<Vec<_>, _>>()?;
    let (scratch_offsets, arena_length) = place(model, &mut values, &layers)?;

    let mut constants = Constants::default();
    let mut nodes = Vec::new();
    for ((description, (operator, packed)), &scratch_offset) in model.layers.iter().zip(&layers).zip(&scratch_offsets) {
        let header = NodeHeader {
            operator: operator.code,
            variant: packed.variant,
            output: description.output as u16,
            input_count: description.inputs.len() as u8,
            attribute_count: packed.attributes.len() as u8,
            constant_count: packed.constants.len() as u32,
            scratch_offset,
            scratch_length: packed.scratch_length as u32,
        };
        nodes.extend_from_slice(header.as_bytes());
        for &input in &description.inputs {
            nodes.extend_from_slice(&(input as u32).to_le_bytes());
        }
        nodes.extend_from_slice(packed.attributes.as_bytes());
        for constant in &packed.constants {
            nodes.extend_from_slice(constants.push(constant)?.as_bytes());
        }
    }
    let head = model.head.as_ref().map(|head| write_head(model, head, &values, &mut constants)).transpose()?;
    let interface: Vec<u32> = model.inputs.iter().chain(&model.outputs).map(|&id| id as u32).collect();

    let mut image = Vec::from([0u8; size_of::<Header>()]);
    let mut header = Header {
        magic: MAGIC,
        version: VERSION,
        header_length: size_of::<Header>() as u16,
        arena_length,
        values: append(&mut image, values.as_bytes(), 4),
        nodes: append(&mut image, &nodes, 4),
        interface: append(&mut image, interface.as_bytes(), 4),
        head: append(&mut image, head.as_slice().as_bytes(), 4),
        metadata: append(&mut image, metadata(model)?.as_bytes(), 4),
        constants: append(&mut image, &constants.bytes, CONSTANT_ALIGNMENT),
        node_count: model.layers.len() as u32,
        input_count: model.inputs.len() as u16,
        output_count: model.outputs.len() as u16,
        ..Header::default()
    };
    if image.len() > i32::MAX as usize {
        return Err(WriteError::TooLarge("the image has more than 2^31 bytes"));
    }
    header.length = image.len() as u32;
    image[..size_of::<Header>()].copy_from_slice(header.as_bytes());
    header.checksum = CRC32.checksum(&image[CHECKED_FROM..]);
    image[..size_of::<Header>()].copy_from_slice(header.as_bytes());
    Ok(image)
}

fn pack(layer: &LayerDescription, values: &[Value]) -> Result<(&'static Operator, Packed), WriteError> {
    let operator = ops::ALL
        .iter()
        .find(|operator| operator.name == layer.operator)
        .ok_or_else(|| WriteError::UnknownOperator(layer.operator.clone()))?;
    let value = |id: usize| values.get(id).copied().ok_or(WriteError::ValueId(id));
    if !(1..=MAX_INPUTS).contains(&layer.inputs.len()) {
        return Err(WriteError::ValueId(layer.inputs.len()));
    }
    let inputs = layer.inputs.iter().map(|&id| value(id)).collect::<Result<_, _>>()?;
    let packed = (operator.pack)(&Layer { inputs, output: value(layer.output)?, description: layer })?;
    Ok((operator, packed))
}

/// Gives every value its place in the arena; returns the layers' scratch offsets and the arena's length.
fn place(
    model: &ModelDescription,
    values: &mut [Value],
    layers: &[(&Operator, Packed)],
) -> Result<(Vec<u32>, u32), WriteError> {
    if let Some(&id) = model.inputs.iter().chain(&model.outputs).find(|&&id| id >= values.len()) {
        return Err(WriteError::ValueId(id));
    }
    if values.len().max(model.inputs.len()).max(model.outputs.len()) > usize::from(u16::MAX) {
        return Err(WriteError::TooLarge("more than 65535 values, inputs or outputs"));
    }
    let end = layers.len();
    let live = |id: usize| {
        let first = model.layers.iter().position(|layer| layer.output == id).unwrap_or(0);
        let last = model.layers.iter().rposition(|layer| layer.inputs.contains(&id)).unwrap_or(first);
        first..=if model.outputs.contains(&id) { end } else { last }
    };
    let value_requests =
        values.iter().enumerate().map(|(id, value)| Request { length: value.len() as u32, live: live(id) });
    let scratch_requests = layers
        .iter()
        .enumerate()
        .map(|(index, (_, packed))| Request { length: packed.scratch_length as u32, live: index..=index });
    let requests: Vec<Request> = value_requests.chain(scratch_requests).collect();
    let total: u64 = requests.iter().map(|request| u64::from(request.length) + 4).sum();
    if total > u64::from(u32::MAX) {
        return Err(WriteError::TooLarge("the values have more than 2^32 bytes"));
    }
    let (mut offsets, length) = plan(&requests);
    let scratch_offsets = offsets.split_off(values.len());
    for (value, offset) in values.iter_mut().zip(offsets) {
        value.offset = offset;
    }
    Ok((scratch_offsets, length))
}

fn write_head(
    model: &ModelDescription,
    head: &HeadDescription,
    values: &[Value],
    constants: &mut Constants,
) -> Result<HeadRecord, WriteError> {
    let features = model.outputs.first().and_then(|&id| values.get(id)).ok_or(WriteError::ValueId(0))?;
    let (record, state) = match head {
        HeadDescription::Sgd(head) => train::sgd_image::pack(head, features)?,
        HeadDescription::Lda { start, shrinkage } => (train::lda::pack(start, *shrinkage, features)?, Vec::new()),
        HeadDescription::Prototype(start) => (train::prototype::pack(start, features)?, Vec::new()),
        HeadDescription::Layers(head) => train::layers_image::pack(head, features)?,
    };
    let place = constants.push(&state)?;
    Ok(HeadRecord { state_offset: place.offset, state_length: place.length, ..record })
}

fn metadata(model: &ModelDescription) -> Result<String, WriteError> {
    if model.name.len() > LONGEST_NAME {
        return Err(WriteError::TooLarge("the model's name has more than 64 bytes"));
    }
    if model.name.contains(['\n', '\r']) {
        return Err(WriteError::LineBreak(model.name.clone()));
    }
    let mut lines = String::new();
    lines.extend(["name=", &model.name, "\n"]);
    for (class, label) in model.labels.iter().enumerate() {
        if !is_label(label) || model.labels[..class].contains(label) {
            return Err(WriteError::Label(label.clone()));
        }
        lines.extend(["label=", label, "\n"]);
    }
    Ok(lines)
}

fn append(image: &mut Vec<u8>, bytes: &[u8], alignment: usize) -> Section {
    image.resize(image.len().next_multiple_of(alignment), 0);
    let section = Section { offset: image.len() as u32, length: bytes.len() as u32 };
    image.extend_from_slice(bytes);
    section
}

/// The constants section as it grows.
#[derive(Default)]
struct Constants {
    bytes: Vec<u8>,
}

impl Constants {
    fn push(&mut self, constant: &[u8]) -> Result<Section, WriteError> {
        if self.bytes.len() + constant.len() > i32::MAX as usize {
            return Err(WriteError::TooLarge("the constants have more than 2^31 bytes"));
        }
        Ok(append(&mut self.bytes, constant, CONSTANT_ALIGNMENT))
    }
}
