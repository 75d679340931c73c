//! The image writer: packs every layer for its kernel variant, plans the arena, and lays the sections out.

use alloc::string::ToString;
use alloc::vec::Vec;
use core::mem::size_of;
use core::ops::RangeInclusive;

use zerocopy::IntoBytes;

use super::metadata;
use super::plan::{Request, plan};
use super::{
    CHECKED_FROM, CRC32, HeadDescription, HeadRecord, Header, LayerDescription, MAGIC, MOST_ALIVE, ModelDescription,
    NodeHeader, Section, Tensor, VERSION, Value, ValueDescription, WriteError,
};
use crate::fixed_point::Multiplier;
use crate::operator::MAX_INPUTS;
use crate::{Error, Operator, ops};

/// Kernels of later versions may load 16 bytes at a time.
const CONSTANT_ALIGNMENT: usize = 16;

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
/// [`CheckedImage::new`](crate::CheckedImage::new), which every user of the image does.
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
///     output: value,
///     attributes: Default::default(),
///     tensors: [("table".into(), Tensor::Int8(negate))].into(),
/// };
/// let bytes = image::write(&ModelDescription {
///     name: "negate".into(),
///     labels: vec![],
///     inputs: vec![value],
///     layers: vec![layer],
///     outputs: vec![1],
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
    let described = model.inputs.iter().chain(model.layers.iter().map(|layer| &layer.output));
    let mut values: Vec<Value> = described
        .map(|&ValueDescription { shape, scale, zero_point }| Value {
            shape,
            scale,
            zero_point,
            last_use: 0,
            offset: 0,
        })
        .collect();
    values.iter().try_for_each(Value::check)?;
    check_ids(model)?;
    let layers = model.layers.iter().enumerate();
    let layers = layers.map(|(index, layer)| pack(layer, &values, model.inputs.len() + index));
    let layers = layers.collect::<Result<Vec<_>, _>>()?;
    let (scratch_offsets, arena_length) = place(model, &mut values, &layers)?;

    let mut constants = Constants::default();
    let mut nodes = Vec::new();
    for ((description, (operator, packed)), &scratch_offset) in model.layers.iter().zip(&layers).zip(&scratch_offsets) {
        let header = NodeHeader {
            operator: operator.code,
            variant: packed.variant,
            input_count: description.inputs.len() as u8,
            attribute_count: packed.attributes.len() as u8,
            constant_count: packed.constants.len() as u16,
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
    let outputs: Vec<u32> = model.outputs.iter().map(|&id| id as u32).collect();
    let (metadata, label_order) = metadata::write(&model.name, &model.labels)?;
    let classes = head.map_or_else(|| values[model.outputs[0]].len(), |head| head.classes as usize);
    metadata::check(&metadata, &label_order, classes)?;

    let mut image = Vec::from([0u8; size_of::<Header>()]);
    let mut header = Header {
        magic: MAGIC,
        version: VERSION,
        header_length: size_of::<Header>() as u16,
        arena_length,
        values: append(&mut image, values.as_bytes(), 4),
        nodes: append(&mut image, &nodes, 4),
        outputs: append(&mut image, outputs.as_bytes(), 4),
        head: append(&mut image, head.as_slice().as_bytes(), 4),
        metadata: append(&mut image, metadata.as_bytes(), 4),
        label_order: append(&mut image, label_order.as_bytes(), 4),
        constants: append(&mut image, &constants.bytes, CONSTANT_ALIGNMENT),
        input_count: model.inputs.len() as u32,
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

/// Checks that what is read has been made, and that there are inputs and outputs.
fn check_ids(model: &ModelDescription) -> Result<(), WriteError> {
    let (inputs, values) = (model.inputs.len(), model.inputs.len() + model.layers.len());
    for (index, layer) in model.layers.iter().enumerate() {
        if !(1..=MAX_INPUTS).contains(&layer.inputs.len()) {
            return Err(WriteError::InputCount(layer.inputs.len()));
        }
        if let Some(&id) = layer.inputs.iter().find(|&&id| id >= inputs + index) {
            return Err(WriteError::ValueId(id));
        }
    }
    match model.outputs.iter().find(|&&id| id >= values) {
        Some(&id) => Err(WriteError::ValueId(id)),
        None if model.inputs.is_empty() || model.outputs.is_empty() => Err(WriteError::ValueId(0)),
        None => Ok(()),
    }
}

/// Packs a layer whose output is value `output`.
fn pack(layer: &LayerDescription, values: &[Value], output: usize) -> Result<(&'static Operator, Packed), WriteError> {
    let operator = ops::ALL
        .iter()
        .find(|operator| operator.name == layer.operator)
        .ok_or_else(|| WriteError::UnknownOperator(layer.operator.clone()))?;
    let inputs = layer.inputs.iter().map(|&id| values[id]).collect();
    let packed = (operator.pack)(&Layer { inputs, output: values[output], description: layer })?;
    Ok((operator, packed))
}

/// Gives every value its last use and its place in the arena; returns the layers' scratch offsets and the arena's length.
fn place(
    model: &ModelDescription,
    values: &mut [Value],
    layers: &[(&Operator, Packed)],
) -> Result<(Vec<u32>, u32), WriteError> {
    let (inputs, end) = (model.inputs.len(), layers.len());
    for (index, layer) in model.layers.iter().enumerate() {
        values[inputs + index].last_use = index as u32;
        layer.inputs.iter().for_each(|&id| values[id].last_use = index as u32);
    }
    model.outputs.iter().for_each(|&id| values[id].last_use = end as u32);
    let lifetimes = values.iter().enumerate().map(|(id, value)| id.saturating_sub(inputs)..=value.last_use as usize);
    check_alive(lifetimes.clone(), end)?;
    let value_requests = values.iter().zip(lifetimes).map(|(value, live)| Request { length: value.len() as u32, live });
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

/// Refuses a model of which more values are needed at a node than loading keeps account of.
fn check_alive(lifetimes: impl Iterator<Item = RangeInclusive<usize>>, end: usize) -> Result<(), Error> {
    let mut changes = alloc::vec![0isize; end + 2];
    for lifetime in lifetimes {
        changes[*lifetime.start()] += 1;
        changes[*lifetime.end() + 1] -= 1;
    }
    let alive = changes.iter().scan(0, |alive, change| {
        *alive += change;
        Some(*alive)
    });
    match alive.enumerate().find(|(_, alive)| *alive > MOST_ALIVE as isize) {
        Some((node, _)) => Err(Error::TooManyAlive { node, limit: MOST_ALIVE }),
        None => Ok(()),
    }
}

fn write_head(
    model: &ModelDescription,
    head: &HeadDescription,
    values: &[Value],
    constants: &mut Constants,
) -> Result<HeadRecord, WriteError> {
    let features = &values[model.outputs[0]];
    let (record, state) = head.pack(features)?;
    let place = constants.push(&state)?;
    Ok(HeadRecord { state_offset: place.offset, state_length: place.length, ..record })
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
