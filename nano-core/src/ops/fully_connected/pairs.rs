//! Fully connected layer with two output channels per multiplication, from a byte per weight; see `kernels/channel_pairs.rs`.
//!
//! Packed: the weights as words, of blocks of 16 output channels, then of 10, 4 and 2 for the rest, each `[row of two inputs][pair of
//! channels]`, between two words of padding; and the channels' records.

use super::{Attributes, OPERATOR};
use crate::BrokenRule;
use crate::image::Dtype;
use crate::kernels::channel_pairs::{LEAD, TRAIL, blocks, dot_channel_pairs, rows};
use crate::kernels::{Channel, LITERAL, ONE_PASS, Requantization};
use crate::node::Node;
use crate::operator::{Checked, CheckedPart, Kernel, Run, require};
use crate::ops::channels;

/// Kernel of the fully connected layer that multiplies the weights of channels in pairs.
pub const FULLY_CONNECTED_PAIRS: Kernel = Kernel {
    id: 10,
    name: "fully_connected_pairs",
    operator: &OPERATOR,
    inputs: &[Dtype::Int8],
    outputs: &[Dtype::Int8],
    pitched: false,
    forms: &[LITERAL, ONE_PASS],
    check: |node| layer(node)?.check(node),
    run: Run::Apart(|node, mut io| ChannelPairs::of_checked(node, layer).run(io.inputs.get(0), io.outputs.take())),
    #[cfg(feature = "alloc")]
    cost: |layer| Some(cost(layer.inputs[0].len() as u64, layer.outputs[0].len() as u64)),
    #[cfg(feature = "alloc")]
    pack: |layer| {
        let (inputs, outputs) = (layer.inputs[0].len(), layer.outputs[0].len());
        let (form, channels) = channels::pack::channels(layer, outputs, inputs)?;
        Ok(pack(form, &channels, layer.int8("weights", outputs * inputs)?, inputs))
    },
};

fn layer<'a>(node: &Node<'a>) -> Result<ChannelPairs<'a>, BrokenRule> {
    let Attributes { clamp_min, clamp_max } = Attributes::read(node.attributes())?;
    ChannelPairs::read(node, (clamp_min, clamp_max))
}

/// A matrix-vector product of all elements of a node's input.
pub(crate) struct ChannelPairs<'a> {
    words: &'a [u32],
    channels: &'a [Channel],
    requantization: Requantization,
}

impl<'a> ChannelPairs<'a> {
    /// The product of a node with this clamp.
    #[inline(always)]
    pub(crate) fn read(node: &Node<'a>, (min, max): (i32, i32)) -> Result<Self, BrokenRule> {
        let requantization = Requantization::new(node.form(), min, max);
        Ok(ChannelPairs { words: node.constant(0)?, channels: node.constant(1)?, requantization })
    }

    /// The product that `read` reads from a node that was checked. One function, so that the program has one place that can panic.
    #[inline(always)]
    pub(crate) fn of_checked(node: &Node<'a>, read: fn(&Node<'a>) -> Result<Self, BrokenRule>) -> Self {
        read(node).checked()
    }

    /// Checks the constants, scratch memory and clamp.
    pub(crate) fn check(&self, node: &Node<'_>) -> Result<(), BrokenRule> {
        let (inputs, outputs) = (node.input(0).len(), node.output(0).len());
        let length = (LEAD + TRAIL) as u64 + rows(inputs) as u64 * outputs.div_ceil(2) as u64;
        require!(self.words.len() as u64 == length, "wrong number of weights", self.words.len() as i64);
        require!(self.channels.len() == outputs, "wrong number of channels", self.channels.len() as i64);
        node.require_no_scratch()?;
        channels::check_clamp((self.requantization.min, self.requantization.max))?;
        let mut check = channels::Check::new(node.form());
        let (mut words, mut channels) = (self.words.get(LEAD..).checked_part(), self.channels);
        for width in blocks(outputs) {
            let (block, other_words) = words.split_at_checked(width * rows(inputs)).checked_part();
            let (group, other_channels) = channels.split_at_checked((2 * width).min(channels.len())).checked_part();
            check.pairs(group, block, width, inputs % 2 == 1)?;
            (words, channels) = (other_words, other_channels);
        }
        Ok(())
    }

    /// Computes `output` from `input`.
    pub(crate) fn run(&self, input: &[i8], output: &mut [i8]) {
        let words = self.words.get(LEAD..).checked_part();
        let mut rest = Rest { words, channels: self.channels, output, requantization: self.requantization };
        for width in blocks(self.channels.len()) {
            match width {
                8 => rest.block::<8>(input),
                5 => rest.block::<5>(input),
                2 => rest.block::<2>(input),
                _ => rest.block::<1>(input),
            }
        }
    }
}

/// The packed blocks not yet computed.
struct Rest<'a, 'm> {
    words: &'a [u32],
    channels: &'a [Channel],
    output: &'m mut [i8],
    requantization: Requantization,
}

impl Rest<'_, '_> {
    /// Computes the next block, of `N` pairs of channels; the last pair may have one channel.
    fn block<const N: usize>(&mut self, input: &[i8]) {
        let count = self.channels.len().min(2 * N);
        let (channels, other_channels) = self.channels.split_at_checked(count).checked_part();
        let (output, other_outputs) = core::mem::take(&mut self.output).split_at_mut_checked(count).checked_part();
        let bias = |index: usize| channels.get(index).map_or(0, |channel| channel.bias);
        let bias = core::array::from_fn(|pair| [bias(2 * pair), bias(2 * pair + 1)]);
        let sums = dot_channel_pairs::<N>(bias, input, self.words);
        requantize(&self.requantization, channels, sums.as_flattened(), output);
        self.words = self.words.get(N * rows(input.len())..).checked_part();
        (self.channels, self.output) = (other_channels, other_outputs);
    }
}

// Not inlined, nor unrolled: weights that stream through the flash cache evict the code between two blocks, and each of its lines costs 326 cycles.
#[inline(never)]
fn requantize(requantization: &Requantization, channels: &[Channel], sums: &[i32], output: &mut [i8]) {
    for ((output, channel), &sum) in output.iter_mut().zip(channels).zip(sums) {
        *output = requantization.apply(channel, sum);
    }
}

/// The estimate of a product. A word takes 10 instructions for each row and pair of channels, a row 10 in each block; an output 20, a block 60
/// more. The loop branches once per row.
#[cfg(feature = "alloc")]
pub(crate) fn cost(inputs: u64, outputs: u64) -> crate::image::Cost {
    let (rows, pairs) = (inputs.div_ceil(2), outputs.div_ceil(2));
    let blocks = blocks(outputs as usize).count() as u64;
    crate::image::Cost {
        instructions: 10 * rows * pairs + blocks * (10 * rows + 60) + 20 * outputs + 200,
        stalls: blocks * (2 * rows + 12) + 9 * outputs,
    }
}

/// Packs a product of `[channel][input]` weights.
#[cfg(feature = "alloc")]
pub(crate) fn pack(form: u8, channels: &[Channel], weights: &[i8], inputs: usize) -> crate::image::Packed {
    use zerocopy::IntoBytes;
    let constants = alloc::vec![crate::kernels::channel_pairs::pack(weights, inputs), channels.as_bytes().to_vec()];
    crate::image::Packed { form, constants, scratch_length: 0, read: None }
}
