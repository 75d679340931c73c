//! Fully connected layer with two weights per word: each multiplication serves two output channels. For small layers only, as the
//! weights take twice the flash.
//!
//! Packed: one constant, in blocks of 16 output channels; see [`pairs::Row`].

use super::{Attributes, OPERATOR};
use crate::BrokenRule;
use crate::image::Dtype;
use crate::kernels::pairs::{self, ROUND, Row, WIDTH};
use crate::kernels::{Channel, ONE_PASS};
use crate::node::Node;
use crate::operator::{Checked, Kernel, Run, nonzero, refused, require};
use crate::ops::channels;

/// Kernel of the fully connected layer that multiplies weights in pairs.
pub const FULLY_CONNECTED_PAIRS: Kernel = Kernel {
    id: 10,
    name: "fully_connected_pairs",
    operator: &OPERATOR,
    inputs: &[Dtype::Int8],
    outputs: &[Dtype::Int8],
    pitched: false,
    forms: &[ONE_PASS],
    check: check_pairs,
    run: Run::Apart(|node, mut io| pairs::run(rows_of_pairs(node).checked(), io.inputs.get(0), io.outputs.take())),
    #[cfg(feature = "alloc")]
    cost,
    #[cfg(feature = "alloc")]
    pack,
};

/// The largest number of weights of a layer that is packed like this.
#[cfg(feature = "alloc")]
const LARGEST: usize = 4096;

/// The blocks' rows.
fn rows_of_pairs<'a>(node: &Node<'a>) -> Option<&'a [Row]> {
    Some(node.bytes_of_constant(0)?.as_chunks().0.as_chunks().0)
}

fn check_pairs(node: &Node<'_>) -> Result<(), BrokenRule> {
    let Attributes { clamp_min, clamp_max } = Attributes::read(node.attributes())?;
    let (inputs, outputs) = (node.input(0).len(), node.output(0).len());
    require!(inputs.is_multiple_of(ROUND), "in pairs, needs a multiple of 8 inputs", inputs as i64);
    require!(outputs.is_multiple_of(WIDTH), "in pairs, needs a multiple of 16 outputs", outputs as i64);
    let length = pairs::BEFORE + inputs + pairs::AFTER;
    let words = node.constant::<pairs::Words>(0)?;
    let expected = (outputs / WIDTH) as u64 * length as u64;
    require!(words.len() as u64 == expected, "wrong number of weights", words.len() as i64);
    node.require_no_scratch()?;
    channels::check_clamp((clamp_min, clamp_max))?;
    words
        .chunks_exact(nonzero(length))
        .try_for_each(|block| check_block_of_pairs(block, inputs, (clamp_min, clamp_max)))
}

/// Checks a block of 16 output channels; see [`pairs::Row`].
fn check_block_of_pairs(block: &[pairs::Words], inputs: usize, clamp: (i32, i32)) -> Result<(), BrokenRule> {
    let parts = block.split_first_chunk::<{ pairs::BEFORE }>().and_then(|(before, rest)| {
        let (weights, after) = rest.split_at_checked(inputs)?;
        let (channels, last) = after.split_first_chunk::<{ pairs::AFTER - 1 }>()?;
        Some((before, weights, channels, last.first()?))
    });
    let Some(([biases, odd_biases], weights, channels, &[min, max, ..])) = parts else {
        return Err(refused("wrong number of weights", block.len() as i64));
    };
    let channels: &[Channel; WIDTH] = zerocopy::transmute_ref!(channels);
    let of_pairs = biases.iter().zip(odd_biases).zip(channels.as_chunks::<2>().0);
    for (index, ((&pair, &odd), channels)) in of_pairs.enumerate() {
        let expected = channels.each_ref().map(|channel| channel.bias);
        let same = pair == u32::from_le_bytes(pairs::pair(expected)) && odd as i32 == expected[1];
        require!(same, "a pair of biases is not that of its channels, pair", index as i64);
    }
    let same = (min as i32, max as i32) == clamp;
    require!(same, "the packed clamp is another than clamp_min and clamp_max", clamp.0);
    channels::Check::new(ONE_PASS).pairs(channels, weights)
}

#[cfg(feature = "alloc")]
fn cost(layer: &crate::image::Layer<'_>) -> Option<crate::image::Cost> {
    let (inputs, outputs) = (layer.inputs[0].len(), layer.outputs[0].len());
    let whole = inputs.is_multiple_of(ROUND) && outputs.is_multiple_of(WIDTH) && inputs * outputs <= LARGEST;
    let is_one_pass = || matches!(channels::pack::channels(layer, outputs, inputs), Ok((ONE_PASS, _)));
    (whole && is_one_pass()).then_some(crate::image::Cost::instructions(layer.macs * 5 / 2))
}

#[cfg(feature = "alloc")]
fn pack(layer: &crate::image::Layer<'_>) -> Result<crate::image::Packed, crate::image::WriteError> {
    use alloc::vec;
    let (inputs, outputs) = (layer.inputs[0].len(), layer.outputs[0].len());
    let (form, channels) = channels::pack::channels(layer, outputs, inputs)?;
    let weights = layer.int8("weights", outputs * inputs)?;
    let Attributes { clamp_min, clamp_max } =
        Attributes::read(&layer.attributes).map_err(|broken| broken.of(OPERATOR.name))?;
    let blocks = weights.chunks_exact(WIDTH * inputs).zip(channels.as_chunks().0);
    let rows = blocks.flat_map(|(weights, channels)| pairs::block(channels, weights, [clamp_min, clamp_max]));
    Ok(crate::image::Packed {
        form,
        constants: vec![rows.flatten().flatten().collect()],
        scratch_length: 0,
        read: None,
    })
}
