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
use crate::operator::{Io, Node, Operator, attributes, require};
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
        if node.variant() == PAIRS {
            run_pairs(node, io);
        } else {
            FullyConnected::run(node, io);
        }
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

/// First channel and size of every packed group.
fn groups(outputs: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut first = 0;
    core::iter::from_fn(move || {
        let size = [8, 4, 2, 1].into_iter().find(|size| first + size <= outputs)?;
        first += size;
        Some((first - size, size))
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
        let mut rest = self.weights;
        let weights = groups(outputs).flat_map(|(_, size)| {
            let (group, tail) = rest.split_at_checked(size * inputs).unwrap_or_default();
            rest = tail;
            channels::interleaved(group, size)
        });
        channels::check(NAME, node.variant(), self.channels, clamp, weights)
    }

    #[inline(never)]
    fn run(node: &Node<'a>, io: &mut Io<'_>) {
        let layer = Self::read(node).expect("checked by Model::new");
        for (first, size) in groups(io.output.len()) {
            match size {
                8 => layer.group::<8>(first, io.inputs[0], io.output),
                4 => layer.group::<4>(first, io.inputs[0], io.output),
                2 => layer.group::<2>(first, io.inputs[0], io.output),
                _ => layer.group::<1>(first, io.inputs[0], io.output),
            }
        }
    }

    fn group<const SIZE: usize>(&self, first: usize, inputs: &[i8], output: &mut [i8]) {
        let channels: &[Channel] = &self.channels[first..first + SIZE];
        let mut sums: [i32; SIZE] = core::array::from_fn(|index| channels[index].bias);
        kernels::add_rows(&mut sums, inputs, self.weights[first * inputs.len()..][..SIZE * inputs.len()].as_chunks().0);
        for ((output, channel), sum) in output[first..][..SIZE].iter_mut().zip(channels).zip(sums) {
            *output = self.requantization.apply(channel, sum);
        }
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
    let rows = rows_of_pairs(node).unwrap_or_default();
    for (block, words) in rows.chunks_exact(length).zip(words.chunks_exact(length)) {
        let channels: &[Channel] = zerocopy::transmute_ref!(words.as_flattened().as_chunks::<4>().0);
        let channels = &channels[2 * (pairs::BEFORE + inputs)..][..WIDTH];
        for (index, channels) in channels.chunks_exact(2).enumerate() {
            let [even, odd] = [channels[0].bias, channels[1].bias];
            let same = block[0][index] == pairs::pair([even, odd]) && block[1][index] == odd.to_le_bytes();
            require!(NAME, same, "a pair of biases is not that of its channels, pair", index as i64);
        }
        let clamp = block[length - 1][..2] == [clamp_min, clamp_max].map(i32::to_le_bytes);
        require!(NAME, clamp, "the packed clamp is another than clamp_min and clamp_max", clamp_min);
        let rows = &block[pairs::BEFORE..][..inputs];
        let weights =
            (0..WIDTH).map(|channel| rows.iter().map(move |row| pairs::weights(row[channel / 2])[channel % 2]));
        channels::check(NAME, ONE_PASS, channels, (clamp_min, clamp_max), weights)?;
    }
    Ok(())
}

// Not inlined, as is the other way: each saves the registers it needs.
#[inline(never)]
fn run_pairs(node: &Node<'_>, io: &mut Io<'_>) {
    let Some(rows) = rows_of_pairs(node) else { unreachable!("checked by Model::new") };
    pairs::run(rows, io.inputs[0], io.output);
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
        let packed = groups(outputs)
            .flat_map(|(first, size)| {
                (0..inputs * size).map(move |index| weights[(first + index % size) * inputs + index / size] as u8)
            })
            .collect();
        vec![packed, channels.as_bytes().to_vec()]
    };
    Ok(crate::image::Packed { variant, attributes, constants, scratch_length: 0 })
}
