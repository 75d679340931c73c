//! The image writer: chooses a kernel for every layer, packs the layer's constants, plans the arena, and lays out the sections.

mod cost;
mod fuse;
mod head;
mod layer;
mod layout;
mod memory;
mod plan;
mod prepared;
mod ram;

use alloc::vec::Vec;
use core::mem::size_of;

use zerocopy::IntoBytes;

use super::checksum::checksum;
use super::{
    CHECKED_FROM, CONSTANT_ALIGNMENT, ChannelScale, Header, MAGIC, ModelDescription, NodeHeader, Section, VERSION,
    Value, WriteError, metadata,
};
use crate::{Kernel, ops};
use head::Head;
use memory::Chosen;
use prepared::Prepared;

pub use cost::Cost;
pub(crate) use fuse::Fusion;
pub use layer::{Layer, Packed};

/// A model's values and nodes with their places in the arena.
struct Plan<'k> {
    values: Vec<Value>,
    layers: Vec<Prepared<'k>>,
    memory: memory::Plan<'k>,
}

impl<'k> Plan<'k> {
    fn new(model: &'k ModelDescription, kernels: &'k [Kernel]) -> Result<Self, WriteError> {
        let mut values: Vec<Value> = model.values().map(Value::unplaced).collect();
        values.iter().try_for_each(Value::check)?;
        let mut layers = Vec::with_capacity(model.layers.len());
        let mut next = model.inputs.len();
        for layer in &model.layers {
            let end = next + layer.outputs.len();
            layers.push(Prepared::new(layer, &values, next..end, kernels)?);
            next = end;
        }
        let memory = memory::place(model, &mut values, &layers)?;
        Ok(Plan { values, layers, memory })
    }

    /// Bytes of the arena, then the estimated cycles of one run; plans are compared in this order.
    fn cost(&self) -> (u32, u64) {
        let cost = self.memory.layers.iter().fold(Cost::default(), |sum, layer| sum + layer.cost);
        (self.memory.length, cost.cycles())
    }
}

/// Writes a model as a `.nano` image.
///
/// # Errors
/// The first [`WriteError`]. The kernels' checks of constants run when the image is loaded with
/// [`CheckedImage::new`](crate::CheckedImage::new), as every user of an image does.
///
/// ```
/// use nano_core::image::{
///     self, Dtype, InputDescription, LayerDescription, ModelDescription, OutputDescription, Tensor, ValueDescription,
/// };
/// use nano_core::{Model, ops};
///
/// let value = ValueDescription { dtype: Dtype::Int8, shape: [1, 1, 3], scale: 0.1, zero_point: 0, state: false };
/// let negate: Vec<i8> = (-128..=127i32).map(|x| (-x).min(127) as i8).collect();
/// let layer = LayerDescription {
///     operator: "table".into(),
///     inputs: vec![0],
///     outputs: vec![value],
///     attributes: Default::default(),
///     tensors: [("table".into(), Tensor::Int8(negate))].into(),
/// };
/// let bytes = image::write(&ModelDescription {
///     name: "negate".into(),
///     labels: vec![],
///     inputs: vec![InputDescription { name: "x".into(), value, channels: vec![] }],
///     layers: vec![layer],
///     outputs: vec![OutputDescription { name: "y".into(), id: 1 }],
///     head: None,
///     weights_in_ram: 0,
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
    write_with(model, ops::ALL)
}

/// [`write()`] with the given kernels, and thus operators, instead of those of this crate.
///
/// # Errors
/// Those of [`write()`].
pub fn write_with(model: &ModelDescription, kernels: &[Kernel]) -> Result<Vec<u8>, WriteError> {
    check_ids(model)?;
    let plan = Plan::new(model, kernels);
    let Some(fused_model) = fuse::fuse(model, kernels) else { return write_plan(model, plan?, Head::pack(model)?) };
    match (plan, Plan::new(&fused_model, kernels)) {
        // Without a kernel for one of the two layers, only the fused one can be written.
        (plan, Ok(fused)) if !plan.as_ref().is_ok_and(|plan| plan.cost() <= fused.cost()) => {
            write_plan(&fused_model, fused, Head::pack(model)?)
        }
        (plan, _) => write_plan(model, plan?, Head::pack(model)?),
    }
}

/// Lays out the sections of the image.
fn write_plan(model: &ModelDescription, plan: Plan<'_>, head: Option<Head>) -> Result<Vec<u8>, WriteError> {
    let Plan { values, layers, memory: memory::Plan { layers: chosen, scratch_offsets, length: arena_length, .. } } =
        plan;
    let (mut constants, mut constants_in_ram) = (Constants::default(), Constants::default());
    let mut nodes = Vec::new();
    let in_ram = ram::choose(&chosen, model.weights_in_ram);
    for (((layer, chosen), scratch_offset), in_ram) in layers.iter().zip(&chosen).zip(scratch_offsets).zip(in_ram) {
        let (Prepared { inputs, outputs, attributes, .. }, Chosen { kernel, packed, .. }) = (layer, chosen);
        let header = NodeHeader {
            kernel: kernel.id,
            form: packed.form,
            input_count: count(inputs.len())?,
            output_count: count(outputs.len())?,
            attribute_count: count(attributes.len())?,
            constant_count: count(packed.constants.len())?,
            constants_in_ram: in_ram.into(),
            scratch_offset,
            scratch_length: packed.scratch_length as u32,
        };
        nodes.extend_from_slice(header.as_bytes());
        nodes.extend_from_slice(inputs.as_bytes());
        nodes.extend_from_slice(attributes.as_bytes());
        let section = if in_ram { &mut constants_in_ram } else { &mut constants };
        for constant in &packed.constants {
            nodes.extend_from_slice(section.push(constant)?.as_bytes());
        }
    }
    // Whole, so that the copied bytes are what `ram::choose` counts.
    constants_in_ram.bytes.resize(constants_in_ram.bytes.len().next_multiple_of(CONSTANT_ALIGNMENT), 0);
    let inputs = write_inputs(model, &mut constants)?;
    let head = head.map(|head| head.place(|state| constants.push(state))).transpose()?;
    let outputs: Vec<u32> = model.outputs.iter().map(|output| output.id as u32).collect();
    let (metadata, label_order) = metadata::write(model)?;
    let classes = head.map_or_else(|| values[model.outputs[0].id].most_classes(), |head| head.classes as usize);
    metadata::check(&metadata, [model.inputs.len(), model.outputs.len()], &label_order, classes)?;

    let mut image = Vec::from([0u8; size_of::<Header>()]);
    let mut header = Header {
        magic: MAGIC,
        version: VERSION,
        header_length: size_of::<Header>() as u16,
        arena_length,
        values: append(&mut image, values.as_bytes(), 4),
        nodes: append(&mut image, &nodes, 4),
        inputs: append(&mut image, inputs.as_bytes(), 4),
        outputs: append(&mut image, outputs.as_bytes(), 4),
        head: append(&mut image, head.as_slice().as_bytes(), 4),
        metadata: append(&mut image, metadata.as_bytes(), 4),
        label_order: append(&mut image, label_order.as_bytes(), 4),
        constants: append(&mut image, &constants.bytes, CONSTANT_ALIGNMENT),
        constants_in_ram: append(&mut image, &constants_in_ram.bytes, CONSTANT_ALIGNMENT),
        ..Header::default()
    };
    if image.len() > i32::MAX as usize {
        return Err(WriteError::TooLarge("the image has more than 2^31 bytes"));
    }
    header.length = image.len() as u32;
    image[..size_of::<Header>()].copy_from_slice(header.as_bytes());
    header.checksum = checksum(&image[CHECKED_FROM..]);
    image[..size_of::<Header>()].copy_from_slice(header.as_bytes());
    Ok(image)
}

/// Checks that each layer reads only inputs and outputs of earlier layers, and that the model has inputs and outputs.
fn check_ids(model: &ModelDescription) -> Result<(), WriteError> {
    let mut made = model.inputs.len();
    for layer in &model.layers {
        if let Some(&id) = layer.inputs.iter().find(|&&id| id >= made) {
            return Err(WriteError::ValueId(id));
        }
        made += layer.outputs.len();
    }
    match model.outputs.iter().find(|output| output.id >= made) {
        Some(output) => Err(WriteError::ValueId(output.id)),
        None if model.inputs.is_empty() || model.outputs.is_empty() => Err(WriteError::ValueId(0)),
        None => Ok(()),
    }
}

fn count(number: usize) -> Result<u8, WriteError> {
    u8::try_from(number).map_err(|_| WriteError::Count(number))
}

/// Adds the inputs' channel scales to the constants; returns the section of each.
fn write_inputs(model: &ModelDescription, constants: &mut Constants) -> Result<Vec<Section>, WriteError> {
    let mut places = Vec::with_capacity(model.inputs.len());
    for (index, input) in model.inputs.iter().enumerate() {
        let channels = &input.channels;
        let complete = channels.is_empty() || channels.len() == input.value.shape[2] as usize;
        if !complete || !channels.iter().all(ChannelScale::is_valid) {
            return Err(WriteError::ChannelScales(index));
        }
        places.push(if channels.is_empty() { Section::default() } else { constants.push(channels.as_bytes())? });
    }
    Ok(places)
}

fn append(image: &mut Vec<u8>, bytes: &[u8], alignment: usize) -> Section {
    image.resize(image.len().next_multiple_of(alignment), 0);
    let section = Section { offset: image.len() as u32, length: bytes.len() as u32 };
    image.extend_from_slice(bytes);
    section
}

/// Builds the constants section.
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
