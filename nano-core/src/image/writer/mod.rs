//! The image writer: chooses a kernel for every layer, packs the layer's constants, plans the arena, and lays out the sections.

mod choice;
mod code;
mod cost;
mod estimate;
mod flash;
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

use super::checksum::checksum_of;
use super::{
    Budget, CHECKED_FROM, CONSTANT_ALIGNMENT, ChannelScale, CodeSize, FlashTiming, Header, MAGIC, ModelDescription,
    NodeHeader, Optimize, Section, VERSION, Value, WriteError, metadata,
};
use crate::{Kernel, ops};
use choice::Choice;
use flash::CodeUse;
use head::Head;
use memory::Chosen;
use prepared::Prepared;

pub use cost::Cost;
pub use estimate::{KernelEstimate, LayerEstimate, estimate};
pub(crate) use fuse::Fusion;
pub use layer::{Layer, Packed};

/// A model's values and nodes with their places in the arena.
struct Plan<'k> {
    values: Vec<Value>,
    layers: Vec<Prepared<'k>>,
    memory: memory::Plan<'k>,
    /// The time for reading constants.
    timing: FlashTiming,
}

impl<'k> Plan<'k> {
    /// Chooses the kernels and places the values. Their code counts, unless the model then exceeds its budget.
    fn new(model: &'k ModelDescription, kernels: &'k [Kernel]) -> Result<Self, WriteError> {
        if model.code.is_empty() || model.optimize == Optimize::Ram {
            return Plan::with(model, kernels, &[]);
        }
        let plan = Plan::with(model, kernels, &model.code)?;
        let Budget { flash, arena } = model.budget;
        let is_within = plan.memory.length as usize <= arena
            && (flash == usize::MAX || write_plan(model, &plan, Head::pack(model)?)?.len() <= flash);
        if is_within { Ok(plan) } else { Plan::with(model, kernels, &[]) }
    }

    /// [`Plan::new`] with these sizes of code.
    fn with(model: &'k ModelDescription, kernels: &'k [Kernel], code: &[CodeSize]) -> Result<Self, WriteError> {
        let mut values: Vec<Value> = model.values().map(Value::unplaced).collect();
        values.iter().try_for_each(Value::check)?;
        let mut layers = Vec::with_capacity(model.layers.len());
        let mut next = model.inputs.len();
        for layer in &model.layers {
            let end = next + layer.outputs.len();
            layers.push(Prepared::new(layer, &values, next..end, kernels)?);
            next = end;
        }
        let mut packings = memory::Packings::default();
        let mut choice = Choice::new(model, &values, &layers, code, &mut packings)?;
        let mut arena = model.budget.arena;
        let unplaced = values.clone();
        let mut place = |choice: &Choice<'k>, layers: &mut Vec<Prepared<'k>>, values: &mut Vec<Value>| {
            choice.apply(layers);
            values.clone_from(&unplaced);
            memory::place(model, values, layers, &mut packings)
        };
        if model.optimize == Optimize::Ram {
            choice.take_least_scratch();
            arena = arena.min(place(&choice, &mut layers, &mut values)?.length as usize);
            choice.take_fastest();
        }
        let mut memory = place(&choice, &mut layers, &mut values)?;
        while memory.length as usize > arena && choice.save_scratch(&memory, false) {
            memory = place(&choice, &mut layers, &mut values)?;
        }
        if model.optimize != Optimize::Ram {
            // RAM that saves little time is not taken: of the choices with ever less scratch memory, the one whose cycles and bytes together cost least.
            let timing = choice.timing;
            let price = |memory: &memory::Plan<'_>| cycles(memory, timing) + WORTH * u64::from(memory.length);
            let (mut least, mut best) = (price(&memory), choice.chosen());
            while cycles(&memory, timing) < least && choice.save_scratch(&memory, false) {
                memory = place(&choice, &mut layers, &mut values)?;
                if price(&memory) < least {
                    (least, best) = (price(&memory), choice.chosen());
                }
            }
            choice.take(best);
            memory = place(&choice, &mut layers, &mut values)?;
        }
        let plan = Plan { values, layers, memory, timing: choice.timing };
        if model.budget.flash == usize::MAX {
            return Ok(plan);
        }
        plan.within_flash(model, choice, arena, &mut packings)
    }

    /// Takes smaller kernels until the image is within the budget, and the arena still within its own.
    fn within_flash(
        mut self,
        model: &ModelDescription,
        mut choice: Choice<'k>,
        arena: usize,
        packings: &mut memory::Packings,
    ) -> Result<Self, WriteError> {
        loop {
            let excess = write_plan(model, &self, Head::pack(model)?)?.len().saturating_sub(model.budget.flash);
            if !choice.save_flash(excess) {
                return Ok(self);
            }
            choice.apply(&mut self.layers);
            let before = self.memory.length as usize;
            self.values = model.values().map(Value::unplaced).collect();
            self.memory = memory::place(model, &mut self.values, &self.layers, packings)?;
            while self.memory.length as usize > arena.max(before) && choice.save_scratch(&self.memory, true) {
                choice.apply(&mut self.layers);
                self.values = model.values().map(Value::unplaced).collect();
                self.memory = memory::place(model, &mut self.values, &self.layers, packings)?;
            }
        }
    }

    /// Whether this plan is the better one: that with less arena over the budget, then the one that is better in what the model is optimized for. Estimates are no
    /// better than to 2 %: of about equal cycles the smaller arena counts.
    fn is_better_than(&self, other: &Plan<'_>, model: &ModelDescription) -> bool {
        let arena = |plan: &Plan<'_>| u64::from(plan.memory.length);
        let excess = |plan: &Plan<'_>| arena(plan).saturating_sub(model.budget.arena as u64);
        let [cycles, of_other] = [self.cycles(), other.cycles()];
        let are_about_equal = cycles.abs_diff(of_other) <= cycles.min(of_other) / 50;
        let arena_first = model.optimize == Optimize::Ram || are_about_equal;
        let rank = |plan: &Plan<'_>, cycles: u64| match arena_first {
            true => (excess(plan), arena(plan), cycles),
            false => (excess(plan), cycles, arena(plan)),
        };
        rank(self, cycles) < rank(other, of_other)
    }

    /// Modelled cycles of one run.
    fn cycles(&self) -> u64 {
        cycles(&self.memory, self.timing)
    }
}

/// Cycles that a byte of the arena must save: a KiB of RAM for 0.1 ms of an ESP32-C3 at 160 MHz.
const WORTH: u64 = 16;

/// Modelled cycles of one run of a plan.
fn cycles(memory: &memory::Plan<'_>, timing: FlashTiming) -> u64 {
    let of_layer = |layer: &Chosen<'_>| timing.cycles(layer.cost, &layer.packed, CodeUse::of(layer.kernel.name));
    memory.layers.iter().map(of_layer).fold(0, u64::saturating_add)
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
///     rejection: None,
///     weights_in_ram: 0,
///     optimize: Default::default(),
///     budget: Default::default(),
///     flash_timing: Default::default(),
///     code: vec![],
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
    // The head's identity is that of the described network, whether layers are fused or not.
    planned(model, kernels, |planned, plan| write_plan(planned, plan, Head::pack(model)?))
}

/// Plans a model, with and without fused layers, and uses the better plan.
fn planned<R>(
    model: &ModelDescription,
    kernels: &[Kernel],
    used: impl Fn(&ModelDescription, &Plan<'_>) -> Result<R, WriteError>,
) -> Result<R, WriteError> {
    check_ids(model)?;
    let plan = Plan::new(model, kernels);
    let Some(fused_model) = fuse::fuse(model, kernels) else { return used(model, &plan?) };
    match (plan, Plan::new(&fused_model, kernels)) {
        // Without a kernel for one of the two layers, only the fused one can be written.
        (plan, Ok(fused)) if !plan.as_ref().is_ok_and(|plan| !fused.is_better_than(plan, model)) => {
            used(&fused_model, &fused)
        }
        (Err(_), Err(of_fused)) => Err(of_fused),
        (plan, _) => used(model, &plan?),
    }
}

/// Lays out the sections of the image.
fn write_plan(model: &ModelDescription, plan: &Plan<'_>, head: Option<Head>) -> Result<Vec<u8>, WriteError> {
    let Plan { values, layers, memory, .. } = plan;
    let memory::Plan { layers: chosen, scratch_offsets, length: arena_length, .. } = memory;
    let (mut constants, mut constants_in_ram) = (Constants::default(), Constants::default());
    let mut nodes = Vec::new();
    let in_ram = ram::choose(chosen, model);
    for (((layer, chosen), scratch_offset), in_ram) in layers.iter().zip(chosen).zip(scratch_offsets).zip(in_ram) {
        let (Prepared { inputs, outputs, attributes, .. }, Chosen { kernel, packed, .. }) = (layer, chosen);
        let header = NodeHeader {
            kernel: kernel.id,
            form: packed.form,
            input_count: count(inputs.len())?,
            output_count: count(outputs.len())?,
            attribute_count: count(attributes.len())?,
            constant_count: count(packed.constants.len())?,
            constants_in_ram: in_ram.into(),
            scratch_offset: *scratch_offset,
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
        arena_length: *arena_length,
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
    header.checksum = checksum_of(&image[CHECKED_FROM..]);
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
