//! Fully connected layer with two output channels per multiplication, from a byte per weight; see `kernels/channel_pairs.rs`.
//!
//! Packed: the weights as words, of blocks of 16 output channels, then of 10, 4 and 2 for the rest, each `[row of two inputs][pair of
//! channels]`, between two words of padding; and the channels' records, an even number of them.

use super::{Attributes, OPERATOR};
use crate::BrokenRule;
use crate::image::Dtype;
use crate::kernels::channel_pairs::{LEAD, PairOfSums, TRAIL, WIDEST, add_channel_pairs, blocks, rows};
use crate::kernels::{Channel, CompactChannel, ONE_PASS, Requantization};
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
    forms: FORMS,
    check: |node| layer(node)?.check(node),
    run: Run::Apart(|node, mut io| ChannelPairs::of_checked(node, layer).run(io.inputs.get(0), io.outputs.take())),
    #[cfg(feature = "alloc")]
    cost: |layer| {
        let (inputs, outputs) = (layer.inputs[0].len(), layer.outputs[0].len());
        let (form, channels) = channels::pack::channels(layer, outputs, inputs).ok()?;
        cost(form, &channels, inputs as u64)
    },
    #[cfg(feature = "alloc")]
    pack: |layer| {
        let (inputs, outputs) = (layer.inputs[0].len(), layer.outputs[0].len());
        let (_, channels) = channels::pack::channels(layer, outputs, inputs)?;
        Ok(pack(&channels, layer.int8("weights", outputs * inputs)?, inputs))
    },
};

/// The only form of requantization; others are rare.
pub(crate) const FORMS: &[u8] = &[ONE_PASS];

fn layer<'a>(node: &Node<'a>) -> Result<ChannelPairs<'a>, BrokenRule> {
    let Attributes { clamp_min, clamp_max } = Attributes::read(node.attributes())?;
    ChannelPairs::read(node, (clamp_min, clamp_max))
}

/// A matrix-vector product of all elements of a node's input.
pub(crate) struct ChannelPairs<'a> {
    words: &'a [u32],
    channels: &'a [CompactChannel],
    zero_point: i32,
    requantization: Requantization,
}

impl<'a> ChannelPairs<'a> {
    /// The product of a node with this clamp.
    #[inline(always)]
    pub(crate) fn read(node: &Node<'a>, (min, max): (i32, i32)) -> Result<Self, BrokenRule> {
        let requantization = Requantization::new(ONE_PASS, min, max);
        let (words, channels) = (node.constant(0)?, node.constant(1)?);
        Ok(ChannelPairs { words, channels, zero_point: node.output(0).zero_point, requantization })
    }

    /// The product that `read` reads from a node that was checked. One function, so that the program has one place that can panic.
    #[inline(always)]
    pub(crate) fn of_checked(node: &Node<'a>, read: fn(&Node<'a>) -> Result<Self, BrokenRule>) -> Self {
        read(node).checked()
    }

    /// Checks the constants, scratch memory and clamp.
    pub(crate) fn check(&self, node: &Node<'_>) -> Result<(), BrokenRule> {
        let (inputs, outputs) = (node.input(0).len(), node.output(0).len());
        let (pairs, records) = (outputs.div_ceil(2), self.channels.len());
        let length = (LEAD + TRAIL) as u64 + rows(inputs) as u64 * pairs as u64;
        require!(self.words.len() as u64 == length, "wrong number of weights", self.words.len() as i64);
        require!(records == 2 * pairs, "wrong number of channels", records as i64);
        node.require_no_scratch()?;
        channels::check_clamp((self.requantization.min, self.requantization.max))?;
        let mut check = channels::Check::new(ONE_PASS);
        let mut expanded = [Channel::default(); 2 * WIDEST];
        let (mut words, mut channels) =
            (self.words.get(LEAD..).checked_part(), self.channels.get(..outputs).checked_part());
        for width in blocks(outputs) {
            let (block, other_words) = words.split_at_checked(width * rows(inputs)).checked_part();
            let (group, other_channels) = channels.split_at_checked((2 * width).min(channels.len())).checked_part();
            // Those for which the addend cannot overflow.
            let shift = group.iter().map(|channel| channel.shift()).find(|shift| !(1..=21).contains(shift));
            require!(shift.is_none(), "the requantization shift is not 1 to 21", shift.unwrap_or_default());
            let group = group.iter().zip(&mut expanded).map(|(from, to)| *to = from.expand(self.zero_point)).count();
            check.pairs(expanded.get(..group).checked_part(), block, width, inputs % 2 == 1)?;
            (words, channels) = (other_words, other_channels);
        }
        Ok(())
    }

    /// Computes `output` from `input`.
    pub(crate) fn run(&self, input: &[i8], output: &mut [i8]) {
        let &ChannelPairs { words, channels, zero_point, requantization } = self;
        let (mut words, channels, rows) =
            (words.get(LEAD..).checked_part(), channels.as_chunks::<2>().0, rows(input.len()));
        let outputs = |channels: &[CompactChannel; 2], sums: PairOfSums| {
            let [sum_a, sum_b] = sums.channels();
            let [a, b] = [channels[0].requantize(zero_point, sum_a), channels[1].requantize(zero_point, sum_b)];
            [requantization.clamp(a), requantization.clamp(b)]
        };
        let blocks = blocks(output.len());
        let (mut pairs, odd) = output.as_chunks_mut::<2>();
        let (mut rest, mut sums, mut last) = (channels, [PairOfSums::default(); WIDEST], 0);
        for width in blocks {
            let (of_block, other_channels) = rest.split_at_checked(width).checked_part();
            let (to, other_pairs) = pairs.split_at_mut_checked(width.min(pairs.len())).checked_part();
            let sums = sums.get_mut(..width).checked_part();
            for (sums, channels) in sums.iter_mut().zip(of_block) {
                *sums = PairOfSums::new(channels.map(CompactChannel::bias), rows);
            }
            words = add_channel_pairs(sums, input, words);
            for ((to, channels), &sums) in to.iter_mut().zip(of_block).zip(sums.iter()) {
                *to = outputs(channels, sums);
            }
            (rest, pairs, last) = (other_channels, other_pairs, width - 1);
        }
        if let ([to], Some(channels), Some(&sums)) = (odd, channels.last(), sums.get(last)) {
            [*to, _] = outputs(channels, sums);
        }
    }

    /// The channels of a layer with so many.
    #[cfg(feature = "host")]
    pub(super) fn expanded(&self, outputs: usize) -> alloc::vec::Vec<Channel> {
        self.channels.iter().take(outputs).map(|channel| channel.expand(self.zero_point)).collect()
    }
}

/// The estimate of a product, if its channels fit. A word takes 10 instructions for each row and pair of channels, a row 10 in each block; an
/// output 26, a block 100 more. The loop branches once per row.
#[cfg(feature = "alloc")]
pub(crate) fn cost(form: u8, channels: &[Channel], inputs: u64) -> Option<crate::image::Cost> {
    let fits = form == ONE_PASS && channels.iter().all(|channel| CompactChannel::new(channel).is_some());
    let (rows, outputs) = (inputs.div_ceil(2), channels.len() as u64);
    let (pairs, blocks) = (outputs.div_ceil(2), blocks(channels.len()).count() as u64);
    fits.then_some(crate::image::Cost {
        instructions: 10 * rows * pairs + blocks * (10 * rows + 100) + 26 * outputs + 350,
        stalls: blocks * (2 * rows + 90) + 9 * outputs,
    })
}

/// Packs a product of `[channel][input]` weights, whose channels fit.
#[cfg(feature = "alloc")]
pub(crate) fn pack(channels: &[Channel], weights: &[i8], inputs: usize) -> crate::image::Packed {
    use zerocopy::IntoBytes;
    let mut records: alloc::vec::Vec<CompactChannel> = channels.iter().filter_map(CompactChannel::new).collect();
    records.resize(channels.len().next_multiple_of(2), CompactChannel::default());
    let constants = alloc::vec![crate::kernels::channel_pairs::pack(weights, inputs), records.as_bytes().to_vec()];
    crate::image::Packed { form: ONE_PASS, constants, scratch_length: 0, read: None }
}
