//! Depthwise convolution, one output channel per input channel: `y = clamp(requantize(bias + sum (x - z_x) * w) + z_y)`.
//! (More outputs per input channel are a [`CONV2D`](super::CONV2D) with as many groups as input channels.)
//!
//! Tensors for the writer: `weights` int8 [channels, kernel_height, kernel_width], `bias` int32 [channels] with scale
//! `s_x * s_w`, `weight_scales` float32 [channels]. Bit-exact with TensorFlow Lite Micro's int8 `DEPTHWISE_CONV_2D`.
//!
//! Packed: blocks of four channels (the last filled up with zeros), each [kernel_height][kernel_width][4].

use crate::image::Value;
use crate::operator::{Io, Node, Operator, require};
use crate::ops::channels::{self, Channel, Requantization};
use crate::ops::window::window_attributes;
use crate::{Error, kernels};

/// Table entry of the depthwise convolution.
pub const DEPTHWISE_CONV2D: Operator = Operator {
    name: NAME,
    code: 2,
    attributes: Attributes::NAMES,
    check: |node| DepthwiseConv2d::read(node)?.check(node),
    run: |node, io| DepthwiseConv2d::read(node).expect("checked by Model::new").run(io),
    macs: |node| DepthwiseConv2d::read(node).map_or(0, |layer| (layer.output.len() * layer.attributes.window().area()) as u64),
    #[cfg(feature = "alloc")]
    pack,
};

const NAME: &str = "depthwise_conv2d";
/// Channels per packed block.
const LANES: usize = 4;
/// Output pixels per tile.
const PIXELS: usize = 2;

window_attributes!(clamp_min, clamp_max);

struct DepthwiseConv2d<'a> {
    attributes: Attributes,
    input: &'a Value,
    output: &'a Value,
    weights: &'a [i8],
    channels: &'a [Channel],
    requantization: Requantization,
}

impl<'a> DepthwiseConv2d<'a> {
    fn read(node: &Node<'a>) -> Result<Self, Error> {
        let attributes = Attributes::read(NAME, node.attributes())?;
        let (input, output) = (node.input(0), node.output());
        let requantization =
            Requantization::new(node.variant(), output.zero_point, attributes.clamp_min, attributes.clamp_max);
        let weights = node.constant(NAME, 0)?;
        let channels = node.constant(NAME, 1)?;
        Ok(DepthwiseConv2d { attributes, input, output, weights, channels, requantization })
    }

    fn check(&self, node: &Node<'_>) -> Result<(), Error> {
        let attributes = &self.attributes;
        require!(NAME, node.input_count() == 1, "needs one input", node.input_count() as i64);
        attributes.window().check(NAME, self.input, self.output)?;
        let count = self.output.shape[2];
        require!(NAME, self.input.shape[2] == count, "needs as many output channels as input channels", count);
        let weights = count.div_ceil(LANES as u32) as u64 * self.block_length() as u64;
        require!(NAME, self.weights.len() as u64 == weights, "wrong number of weights", self.weights.len() as i64);
        require!(NAME, self.channels.len() == count as usize, "wrong number of channels", self.channels.len() as i64);
        let scratch = attributes.window().scratch_length(self.input);
        require!(NAME, node.scratch_length() == scratch, "wrong scratch length", node.scratch_length() as i64);
        channels::check(NAME, node, self.channels, (attributes.clamp_min, attributes.clamp_max), |channel| {
            let block = &self.weights[channel / LANES * self.block_length()..][..self.block_length()];
            block.iter().skip(channel % LANES).step_by(LANES).copied()
        })
    }

    fn block_length(&self) -> usize {
        self.attributes.window().area() * LANES
    }

    fn run(&self, io: &mut Io<'_>) {
        let window = self.attributes.window();
        let output_row = self.output.shape[1] as usize * self.output.shape[2] as usize;
        for (y, output) in io.output.chunks_exact_mut(output_row).enumerate() {
            let (rows, pitch) = window.rows(y, self.input, io.inputs[0], io.scratch);
            for (block, channels) in self.channels.chunks(LANES).enumerate() {
                self.row(block, channels, rows, pitch, output);
            }
        }
    }

    /// One block of channels for one row of output pixels; `rows` holds the input rows, `pitch` bytes apart.
    fn row(&self, block: usize, channels: &[Channel], rows: &[i8], pitch: usize, output: &mut [i8]) {
        let mut bias = [0; LANES];
        for (bias, channel) in bias.iter_mut().zip(channels) {
            *bias = channel.bias;
        }
        let weights = &self.weights[block * self.block_length()..][..self.block_length()];
        let count = self.output.shape[2] as usize;
        let first = block * LANES;
        let step = self.attributes.stride_width as usize * count;
        let taps = kernels::Runs {
            rows: self.attributes.kernel_height as usize,
            per_row: self.attributes.kernel_width as usize,
            length: channels.len(),
            step: self.attributes.dilation_width as usize * count,
        };
        let mut start = first;
        for tile in output.chunks_mut(PIXELS * count) {
            let pixels = tile.len() / count;
            // A narrower tile at the end of a row computes its first pixel again in the place it does not store.
            let starts = [start, start + if pixels == PIXELS { step } else { 0 }];
            let sums = kernels::depthwise_4x2(bias, rows, pitch, starts, &taps, weights);
            for (lane, channel) in channels.iter().enumerate() {
                self.requantization.store(channel, &sums[lane][..pixels], &mut tile[first + lane..], count);
            }
            start += PIXELS * step;
        }
    }
}

#[cfg(feature = "alloc")]
fn pack(layer: &crate::image::Layer<'_>) -> Result<crate::image::Packed, crate::image::WriteError> {
    use alloc::vec;
    let words = layer.attributes(Attributes::NAMES)?;
    let attributes = Attributes::read(NAME, &words)?;
    attributes.window().check(NAME, &layer.inputs[0], &layer.output)?;
    let (count, taps) = (layer.output.shape[2] as usize, attributes.window().area());
    let (variant, channels) = channels::pack::channels(layer, count, taps)?;
    let mut packed = vec![0u8; count.div_ceil(LANES) * taps * LANES];
    for (channel, weights) in layer.int8("weights", count * taps)?.chunks_exact(taps.max(1)).enumerate() {
        for (tap, &weight) in weights.iter().enumerate() {
            packed[(channel / LANES * taps + tap) * LANES + channel % LANES] = weight as u8;
        }
    }
    let scratch_length = attributes.window().scratch_length(&layer.inputs[0]);
    Ok(crate::image::Packed { variant, attributes: words, constants: vec![packed, channels], scratch_length })
}
