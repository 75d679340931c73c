//! Softmax over the channels that a constant mask leaves, and 0 for the others: on those that it leaves, bit for bit [`softmax`](mod@super::softmax).
//!
//! The mask of pixel i is its row `i % rows`: all heads of an attention have one mask. Tensors for the writer: `mask` int8 `[rows, channels]`, 1 for
//! a channel that takes part and 0 for one that does not; in each row one takes part.

use crate::BrokenRule;
use crate::arena::Io;
use crate::image::Dtype;
use crate::node::Node;
use crate::operator::{Alias, CheckedPart, Kernel, Operator, Output, Quantization, Run, attributes, nonzero, require};
use crate::ops::softmax;

/// Kernel of the masked softmax.
pub const MASKED_SOFTMAX: Kernel = Kernel {
    id: 42,
    name: NAME,
    operator: &OPERATOR,
    inputs: &[Dtype::Int8],
    outputs: &[Dtype::Int8],
    pitched: false,
    forms: &[0],
    check,
    run: Run::Apart(run),
    #[cfg(feature = "alloc")]
    cost: |layer| Some(crate::image::Cost::instructions(330 * layer.outputs[0].len() as u64)),
    #[cfg(feature = "alloc")]
    pack,
};

static OPERATOR: Operator = Operator {
    name: NAME,
    attributes: Attributes::NAMES,
    inputs: 1..=1,
    outputs: &[Output { quantization: Quantization::Fixed { scale: 1.0 / 256.0, zero_point: -128 }, reset: None }],
    alias: Alias::Never,
    shape: |node, _| Ok(node.input(0).shape),
    macs: |_| 0,
};

const NAME: &str = "masked_softmax";

attributes! {
    struct Attributes {
        /// Rows of the mask.
        mask_rows
    }
}

fn check(node: &Node<'_>) -> Result<(), BrokenRule> {
    softmax::check(node)?;
    let Attributes { mask_rows } = Attributes::read(node.attributes())?;
    let [height, width, channels] = node.input(0).shape;
    let divides = mask_rows >= 1 && (height * width).is_multiple_of(mask_rows as u32);
    require!(divides, "mask_rows does not divide the pixels", mask_rows);
    let mask = node.constant::<i8>(1)?;
    let entries = u64::from(mask_rows as u32) * u64::from(channels);
    require!(mask.len() as u64 == entries, "wrong length of the mask", mask.len() as i64);
    for row in mask.chunks(nonzero(channels as usize)) {
        require!(row.iter().all(|entry| (0..=1).contains(entry)), "the mask has other numbers than 0 and 1", 0);
        require!(row.contains(&1), "a row of the mask leaves no channel", 0);
    }
    Ok(())
}

fn run(node: &Node<'_>, mut io: Io<'_>) {
    let parameters = softmax::parameters(node).ok().copied().checked_part();
    let mask: &[i8] = node.constant(1).ok().checked_part();
    let channels = nonzero(node.input(0).shape[2] as usize);
    let pixels = io.inputs.get::<i8>(0).chunks_exact(channels).zip(io.outputs.take::<i8>().chunks_exact_mut(channels));
    for ((input, output), mask) in pixels.zip(mask.chunks_exact(channels).cycle()) {
        let numbers = input.iter().zip(mask).map(|(&x, &takes_part)| (x, takes_part == 1));
        softmax::normalize(parameters, numbers, output);
    }
}

#[cfg(feature = "alloc")]
fn pack(layer: &crate::image::Layer<'_>) -> Result<crate::image::Packed, crate::image::WriteError> {
    let Attributes { mask_rows } = Attributes::read(&layer.attributes).map_err(|broken| broken.of(NAME))?;
    let entries = mask_rows.max(0) as usize * layer.outputs[0].shape[2] as usize;
    let mut packed = softmax::pack(layer)?;
    packed.constants.push(layer.int8("mask", entries)?.iter().map(|&entry| entry as u8).collect());
    Ok(packed)
}
