//! Fully connected layer: `y = clamp(requantize(bias + sum (x - z_x) * w) + z_y)` over all elements of the input.
//!
//! Tensors for the writer: `weights` int8 [out, in], `bias` int32 [out] with scale `s_x * s_w`, `weight_scales` float32 [out].
//! Bit-exact with TensorFlow Lite Micro's int8 `FULLY_CONNECTED`.
//!
//! Packed: groups of 8 output channels, then one each of 4, 2 and 1 as the rest needs, each [in][channels of the group]. In the
//! variant [`PAIRS`], for small layers, one constant has all, in blocks of 16 output channels; see [`pairs::Row`].

use crate::Error;
use crate::image::Value;
use crate::kernels::pairs::{self, ROUND, Row, WIDTH};
use crate::kernels::{self, Channel, LITERAL, ONE_PASS, Requantization};
use crate::operator::{Checked, CheckedPart, Io, Node, Operator, attributes, nonzero, require};
use crate::ops::channels;

/// Table entry of the fully connected layer.
pub const FULLY_CONNECTED: Operator = Operator {
    name: NAME,
    code: 3,
    attributes: Attributes::NAMES,
    check: |node| match node.variant() {
        LITERAL | ONE_PASS => FullyConnected::read(node)?.check(node),
        PAIRS => check_pairs(node),
        variant => Err(Error::UnknownVariant { operator: NAME, variant }),
    },
    run: |node, io| {
        if node.variant() == PAIRS { run_pairs(node, io) } else { FullyConnected::run(node, io) }
    },
    macs: |node| node.input(0).len() as u64 * node.output().len() as u64,
    #[cfg(feature = "alloc")]
    pack,
};

const NAME: &str = "fully_connected";
/// Kernel variant: [`ONE_PASS`], and pairs of weights.
const PAIRS: u16 = 2;
/// Weights of the largest layer packed in pairs, which take twice the flash.
#[cfg(feature = "alloc")]
const LARGEST_IN_PAIRS: usize = 4096;

attributes! {
    /// The clamp.
    struct Attributes { clamp_min, clamp_max }
}

struct FullyConnected<'a> {
    attributes: Attributes,
    input: &'a Value,
    output: &'a Value,
    weights: &'a [i8],
    channels: &'a [Channel],
    requantization: Requantization,
}

/// Number of channels of each packed group.
fn groups(outputs: usize) -> impl Iterator<Item = usize> {
    let mut rest = outputs;
    core::iter::from_fn(move || {
        let size = [8, 4, 2, 1].into_iter().find(|&size| size <= rest)?;
        rest -= size;
        Some(size)
    })
}

impl<'a> FullyConnected<'a> {
    fn read(node: &Node<'a>) -> Result<Self, Error> {
        let attributes = Attributes::read(NAME, node.attributes())?;
        let (input, output) = (node.input(0), node.output());
        let requantization = Requantization::new(node.variant(), attributes.clamp_min, attributes.clamp_max);
        let weights = node.constant(NAME, 0)?;
        let channels = node.constant(NAME, 1)?;
        Ok(FullyConnected { attributes, input, output, weights, channels, requantization })
    }

    fn check(&self, node: &Node<'_>) -> Result<(), Error> {
        let (inputs, outputs) = (self.input.len(), self.output.len());
        require!(NAME, node.input_count() == 1, "needs one input", node.input_count() as i64);
        let weights = inputs as u64 * outputs as u64;
        require!(NAME, self.weights.len() as u64 == weights, "wrong number of weights", self.weights.len() as i64);
        require!(NAME, self.channels.len() == outputs, "wrong number of channels", self.channels.len() as i64);
        require!(NAME, node.scratch_length() == 0, "needs no scratch memory", node.scratch_length() as i64);
        let clamp = (self.attributes.clamp_min, self.attributes.clamp_max);
        let mut check = channels::Check::new(NAME, node.variant(), clamp)?;
        let (mut weights, mut channels) = (self.weights, self.channels);
        for size in groups(outputs) {
            let (block, other_weights) = weights.split_at_checked(size * inputs).checked_part();
            let (group, other_channels) = channels.split_at_checked(size).checked_part();
            check.interleaved(group, block, size)?;
            (weights, channels) = (other_weights, other_channels);
        }
        Ok(())
    }

    #[inline(never)]
    fn run(node: &Node<'a>, io: &mut Io<'_>) {
        let FullyConnected { weights, channels, requantization, .. } = Self::read(node).checked();
        let [inputs, _] = io.inputs;
        let mut rest = Rest { weights, channels, output: io.output, requantization };
        while rest.output.len() >= 8 {
            rest.group::<8>(inputs);
        }
        if rest.output.len() >= 4 {
            rest.group::<4>(inputs);
        }
        if rest.output.len() >= 2 {
            rest.group::<2>(inputs);
        }
        if !rest.output.is_empty() {
            rest.group::<1>(inputs);
        }
    }
}

/// The packed groups that are still to be computed.
struct Rest<'a, 'm> {
    weights: &'a [i8],
    channels: &'a [Channel],
    output: &'m mut [i8],
    requantization: Requantization,
}

impl Rest<'_, '_> {
    /// Computes the next group, of `SIZE` channels.
    fn group<const SIZE: usize>(&mut self, inputs: &[i8]) {
        let (channels, other_channels) = self.channels.split_first_chunk::<SIZE>().checked();
        let (weights, other_weights) = self.weights.split_at_checked(SIZE * inputs.len()).checked();
        let (output, other_outputs) = core::mem::take(&mut self.output).split_first_chunk_mut::<SIZE>().checked();
        let mut sums = channels.each_ref().map(|channel| channel.bias);
        kernels::add_rows(&mut sums, inputs, weights.as_chunks().0);
        for ((output, channel), sum) in output.iter_mut().zip(channels).zip(sums) {
            *output = self.requantization.apply(channel, sum);
        }
        (self.channels, self.weights, self.output) = (other_channels, other_weights, other_outputs);
    }
}

/// The rows of a layer in the variant [`PAIRS`].
fn rows_of_pairs<'a>(node: &Node<'a>) -> Option<&'a [Row]> {
    Some(node.bytes_of_constant(0)?.as_chunks().0.as_chunks().0)
}

fn check_pairs(node: &Node<'_>) -> Result<(), Error> {
    let Attributes { clamp_min, clamp_max } = Attributes::read(NAME, node.attributes())?;
    let (inputs, outputs) = (node.input(0).len(), node.output().len());
    require!(NAME, node.input_count() == 1, "needs one input", node.input_count() as i64);
    require!(NAME, inputs.is_multiple_of(ROUND), "in pairs, needs a multiple of 8 inputs", inputs as i64);
    require!(NAME, outputs.is_multiple_of(WIDTH), "in pairs, needs a multiple of 16 outputs", outputs as i64);
    let length = pairs::BEFORE + inputs + pairs::BEHIND;
    let words = node.constant::<[u32; WIDTH / 2]>(NAME, 0)?;
    let expected = (outputs / WIDTH) as u64 * length as u64;
    require!(NAME, words.len() as u64 == expected, "wrong number of weights", words.len() as i64);
    require!(NAME, node.scratch_length() == 0, "needs no scratch memory", node.scratch_length() as i64);
    words
        .chunks_exact(nonzero(length))
        .try_for_each(|block| check_block_of_pairs(block, inputs, (clamp_min, clamp_max)))
}

/// Checks a block of 16 output channels; see [`pairs::Row`].
fn check_block_of_pairs(block: &[[u32; WIDTH / 2]], inputs: usize, clamp: (i32, i32)) -> Result<(), Error> {
    let parts = block.split_first_chunk::<{ pairs::BEFORE }>().and_then(|(before, rest)| {
        let (weights, behind) = rest.split_at_checked(inputs)?;
        let (channels, last) = behind.split_first_chunk::<{ pairs::BEHIND - 1 }>()?;
        Some((before, weights, channels, last.first()?))
    });
    let Some(([biases, odd_biases], weights, channels, &[min, max, ..])) = parts else {
        return Err(Error::Layer { operator: NAME, rule: "wrong number of weights", value: block.len() as i64 });
    };
    let channels: &[Channel; WIDTH] = zerocopy::transmute_ref!(channels);
    let of_pairs = biases.iter().zip(odd_biases).zip(channels.as_chunks::<2>().0);
    for (index, ((&pair, &odd), channels)) in of_pairs.enumerate() {
        let expected = channels.each_ref().map(|channel| channel.bias);
        let same = pair == u32::from_le_bytes(pairs::pair(expected)) && odd as i32 == expected[1];
        require!(NAME, same, "a pair of biases is not that of its channels, pair", index as i64);
    }
    let same = (min as i32, max as i32) == clamp;
    require!(NAME, same, "the packed clamp is another than clamp_min and clamp_max", clamp.0);
    let mut check = channels::Check::new(NAME, ONE_PASS, clamp)?;
    for (pair, channels) in channels.as_chunks::<2>().0.iter().enumerate() {
        check.lanes(channels, &pairs::sums(weights, pair))?;
    }
    Ok(())
}

// Not inlined, as is the other way: each saves the registers it needs.
#[inline(never)]
fn run_pairs(node: &Node<'_>, io: &mut Io<'_>) {
    pairs::run(rows_of_pairs(node).checked(), io.inputs[0], io.output)
}

#[cfg(feature = "alloc")]
fn pack(layer: &crate::image::Layer<'_>) -> Result<crate::image::Packed, crate::image::WriteError> {
    use alloc::vec;
    use zerocopy::IntoBytes;
    let (inputs, outputs) = (layer.inputs[0].len(), layer.output.len());
    let (mut variant, channels) = channels::pack::channels(layer, outputs, inputs)?;
    let weights = layer.int8("weights", outputs * inputs)?;
    let attributes = layer.attributes(Attributes::NAMES)?;
    let whole = inputs.is_multiple_of(ROUND) && outputs.is_multiple_of(WIDTH);
    let constants = if variant == ONE_PASS && whole && weights.len() <= LARGEST_IN_PAIRS {
        variant = PAIRS;
        let Attributes { clamp_min, clamp_max } = Attributes::read(NAME, &attributes)?;
        let blocks = weights.chunks_exact(WIDTH * inputs).zip(channels.as_chunks().0);
        let rows = blocks.flat_map(|(weights, channels)| pairs::block(channels, weights, [clamp_min, clamp_max]));
        vec![rows.flatten().flatten().collect()]
    } else {
        let mut next = 0;
        let packed = groups(outputs)
            .flat_map(|size| {
                let first = next;
                next += size;
                (0..inputs * size).map(move |index| weights[(first + index % size) * inputs + index / size] as u8)
            })
            .collect();
        vec![packed, channels.as_bytes().to_vec()]
    };
    Ok(crate::image::Packed { variant, attributes, constants, scratch_length: 0 })
}
