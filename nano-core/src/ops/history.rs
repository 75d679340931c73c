//! A delay line for streams: the output is a state that holds the last `rows` rows of the inputs of earlier runs, then the rows of this input.
//! Rows are along the height, or along the width if the height is 1 (1-D data). Input and output share scale and zero point. TensorFlow Lite Micro
//! has no such operator. It copies bytes, so it has no error.
//!
//! Tensors for the writer: `start` `[channels]`, of the input's dtype, the elements of all rows before the first run.

#[cfg(feature = "alloc")]
use zerocopy::IntoBytes;

use crate::BrokenRule;
use crate::arena::Shared;
#[cfg(feature = "alloc")]
use crate::image::Dtype;
use crate::image::Value;
use crate::node::Node;
use crate::operator::{ALIKE, Alias, CheckedPart, Kernel, Operator, Output, Quantization, Run};
use crate::operator::{attributes, nonzero, require};

/// Kernel of the history.
pub const HISTORY: Kernel = Kernel {
    id: 11,
    name: NAME,
    operator: &OPERATOR,
    inputs: ALIKE,
    outputs: ALIKE,
    pitched: true,
    forms: &[0],
    check,
    // In place: the state's rows move within its own memory.
    run: Run::InPlace(run),
    #[cfg(feature = "alloc")]
    cost: |layer| Some(crate::image::Cost::instructions(2 * layer.outputs[0].len() as u64)),
    #[cfg(feature = "alloc")]
    pack,
};

static OPERATOR: Operator = Operator {
    name: NAME,
    attributes: Attributes::NAMES,
    inputs: 1..=1,
    outputs: &[Output { quantization: Quantization::SameAs(0), reset: Some(reset) }],
    alias: Alias::Never,
    shape: |node, _| shape(node),
    macs: |_| 0,
};

const NAME: &str = "history";

attributes! {
    /// Length of the delay line.
    struct Attributes {
        /// Number of rows of earlier inputs.
        rows,
    }
}

fn shape(node: &Node<'_>) -> Result<[u32; 3], BrokenRule> {
    let Attributes { rows } = Attributes::read(node.attributes())?;
    // No overflow in the sum: no side of a value exceeds 2^28.
    let possible = 1..=Value::LARGEST as i32;
    require!(possible.contains(&rows), "the rows are not 1 to 2^28", rows);
    Ok(match node.input(0).shape {
        [1, width, channels] => [1, width + rows as u32, channels],
        [height, width, channels] => [height + rows as u32, width, channels],
    })
}

fn check(node: &Node<'_>) -> Result<(), BrokenRule> {
    node.require_no_scratch()?;
    let (output, start) = (node.output(0), node.constant::<i8>(0)?);
    let pixel = output.shape[2] as usize * output.dtype().size();
    require!(start.len() == pixel, "the start is not one number per channel, bytes", start.len() as i64);
    Ok(())
}

fn reset(node: &Node<'_>, state: &mut [i8]) {
    let start: &[i8] = node.constant(0).ok().checked_part();
    for pixel in state.chunks_exact_mut(nonzero(start.len())) {
        for (place, &start) in pixel.iter_mut().zip(start) {
            *place = start;
        }
    }
}

fn run(node: &Node<'_>, memory: Shared<'_>) {
    let (input, state) = (node.input(0), memory.output::<i8>(0));
    let size = input.dtype().size();
    let new = input.len() * size;
    let kept = state.get(new..).checked_part();
    Shared::copy(kept, state);
    let end = state.get(kept.len()..).checked_part();
    // Contiguous pixels are copied as one block.
    let (channels, pitch) = (input.shape[2] as usize * size, input.pitch as usize * size);
    let (length, pitch) = if input.is_dense() { (new, new) } else { (channels, pitch) };
    for (pixels, place) in memory.input::<i8>(0).chunks(nonzero(pitch)).zip(end.chunks_exact(nonzero(length))) {
        Shared::copy(pixels, place);
    }
}

#[cfg(feature = "alloc")]
fn pack(layer: &crate::image::Layer<'_>) -> Result<crate::image::Packed, crate::image::WriteError> {
    let output = &layer.outputs[0];
    let channels = output.shape[2] as usize;
    let start = match output.dtype() {
        Dtype::Int8 => layer.int8("start", channels)?.as_bytes(),
        Dtype::Int16 => layer.int16("start", channels)?.as_bytes(),
        Dtype::Int32 => layer.int32("start", channels)?.as_bytes(),
    };
    // A reset reads the start, not a run.
    let mut packed = crate::image::Packed { read: Some(0), ..Default::default() };
    packed.constants.push(start.to_vec());
    Ok(packed)
}
