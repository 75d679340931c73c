//! Fully connected layer: `y = clamp(requantize(bias + sum (x - z_x) * w) + z_y)` over all elements of the input.
//!
//! Tensors for the writer: `weights` int8 [out, in], `bias` int32 [out] with scale `s_x * s_w`, `weight_scales` float32 [out].
//! Bit-exact with TensorFlow Lite Micro's int8 `FULLY_CONNECTED`.
//!
//! Packed: groups of 8 output channels, then one each of 4, 2 and 1 as the rest needs, each [in][channels of the group].

use crate::Error;
use crate::image::Value;
use crate::kernels::{self, Channel, Requantization};
use crate::operator::{Io, Node, Operator, attributes, require};
use crate::ops::channels;

/// Table entry of the fully connected layer.
pub const FULLY_CONNECTED: Operator = Operator {
    name: NAME,
    code: 3,
    attributes: Attributes::NAMES,
    check: |node| FullyConnected::read(node)?.check(node),
    run: |node, io| FullyConnected::read(node).expect("checked by Model::new").run(io),
    macs: |node| node.input(0).len() as u64 * node.output().len() as u64,
    #[cfg(feature = "alloc")]
    pack,
};

const NAME: &str = "fully_connected";

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
        channels::check(NAME, node, self.channels, clamp, |channel| {
            let (first, size) =
                groups(outputs).find(|(first, size)| (*first..first + size).contains(&channel)).unwrap_or((0, 1));
            self.weights[first * inputs..][..size * inputs].iter().skip(channel - first).step_by(size).copied()
        })
    }

    fn run(&self, io: &mut Io<'_>) {
        for (first, size) in groups(io.output.len()) {
            match size {
                8 => self.group::<8>(first, io.inputs[0], io.output),
                4 => self.group::<4>(first, io.inputs[0], io.output),
                2 => self.group::<2>(first, io.inputs[0], io.output),
                _ => self.group::<1>(first, io.inputs[0], io.output),
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

#[cfg(feature = "alloc")]
fn pack(layer: &crate::image::Layer<'_>) -> Result<crate::image::Packed, crate::image::WriteError> {
    use alloc::vec;
    use alloc::vec::Vec;
    let (inputs, outputs) = (layer.inputs[0].len(), layer.output.len());
    let (variant, channels) = channels::pack::channels(layer, outputs, inputs)?;
    let weights = layer.int8("weights", outputs * inputs)?;
    let packed: Vec<u8> = groups(outputs)
        .flat_map(|(first, size)| {
            (0..inputs * size).map(move |index| weights[(first + index % size) * inputs + index / size] as u8)
        })
        .collect();
    let attributes = layer.attributes(Attributes::NAMES)?;
    Ok(crate::image::Packed { variant, attributes, constants: vec![packed, channels], scratch_length: 0 })
}
