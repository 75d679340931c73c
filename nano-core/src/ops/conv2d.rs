//! 2-D convolution: `y = clamp(requantize(bias + sum (x - z_x) * w) + z_y)`, padding with `z_x`; 1-D is height 1.
//!
//! Tensors for the writer: `weights` int8 [out, kernel_height, kernel_width, in / groups], `bias` int32 [out] with scale
//! `s_x * s_w`, `weight_scales` float32 [out]. Bit-exact with TensorFlow Lite Micro's int8 `CONV_2D`.
//!
//! Packed: per group, blocks of four output channels (the last filled up with zeros), each
//! [kernel_height][kernel_width][in / groups][4], so that one pass over an input row feeds four accumulators.

use crate::image::Value;
use crate::operator::{Io, Node, Operator, require};
use crate::ops::channels::{self, Channel, Requantization};
use crate::ops::window::window_attributes;
use crate::{Error, kernels};

/// Table entry of the convolution.
pub const CONV2D: Operator = Operator {
    name: NAME,
    code: 1,
    attributes: Attributes::NAMES,
    check: |node| Conv2d::read(node)?.check(node),
    run: |node, io| Conv2d::read(node).expect("checked by Model::new").run(io),
    macs: |node| Conv2d::read(node).map_or(0, |conv| conv.macs()),
    #[cfg(feature = "alloc")]
    pack,
};

const NAME: &str = "conv2d";
/// Output channels per packed block.
const LANES: usize = 4;
/// Output pixels per tile.
const PIXELS: usize = 4;

window_attributes!(groups, clamp_min, clamp_max);

impl Attributes {
    fn check(&self, input: &Value, output: &Value) -> Result<(), Error> {
        self.window().check(NAME, input, output)?;
        let divides = |channels: u32| self.groups >= 1 && channels.is_multiple_of(self.groups as u32);
        require!(NAME, divides(input.shape[2]), "groups does not divide the input channels", self.groups);
        require!(NAME, divides(output.shape[2]), "groups does not divide the output channels", self.groups);
        Ok(())
    }
}

struct Conv2d<'a> {
    attributes: Attributes,
    input: &'a Value,
    output: &'a Value,
    weights: &'a [i8],
    channels: &'a [Channel],
    requantization: Requantization,
}

impl<'a> Conv2d<'a> {
    fn read(node: &Node<'a>) -> Result<Self, Error> {
        let attributes = Attributes::read(NAME, node.attributes())?;
        let (input, output) = (node.input(0), node.output());
        let requantization =
            Requantization::new(node.variant(), output.zero_point, attributes.clamp_min, attributes.clamp_max);
        let weights = node.constant(NAME, 0)?;
        let channels = node.constant(NAME, 1)?;
        Ok(Conv2d { attributes, input, output, weights, channels, requantization })
    }

    fn check(&self, node: &Node<'_>) -> Result<(), Error> {
        let attributes = &self.attributes;
        require!(NAME, node.input_count() == 1, "needs one input", node.input_count() as i64);
        attributes.check(self.input, self.output)?;
        let outputs = self.output.shape[2] as usize;
        let weights = self.blocks() as u64 * self.block_length() as u64;
        require!(NAME, self.weights.len() as u64 == weights, "wrong number of weights", self.weights.len() as i64);
        require!(NAME, self.channels.len() == outputs, "wrong number of channels", self.channels.len() as i64);
        let scratch = attributes.window().scratch_length(self.input);
        require!(NAME, node.scratch_length() == scratch, "wrong scratch length", node.scratch_length() as i64);
        channels::check(NAME, node, self.channels, (attributes.clamp_min, attributes.clamp_max), |channel| {
            let (group, within) = (channel / self.per_group(), channel % self.per_group());
            let block = group * self.per_group().div_ceil(LANES) + within / LANES;
            self.weights[block * self.block_length()..][..self.block_length()].iter().skip(within % LANES).step_by(LANES).copied()
        })
    }

    /// Output channels of one group.
    fn per_group(&self) -> usize {
        self.output.shape[2] as usize / self.attributes.groups as usize
    }

    fn inputs_per_group(&self) -> usize {
        self.input.shape[2] as usize / self.attributes.groups as usize
    }

    fn blocks(&self) -> usize {
        self.attributes.groups as usize * self.per_group().div_ceil(LANES)
    }

    /// Bytes of one packed block.
    fn block_length(&self) -> usize {
        self.attributes.window().area() * self.inputs_per_group() * LANES
    }

    fn macs(&self) -> u64 {
        self.output.len() as u64 * (self.attributes.window().area() * self.inputs_per_group()) as u64
    }

    fn run(&self, io: &mut Io<'_>) {
        let window = self.attributes.window();
        let output_row = self.output.shape[1] as usize * self.output.shape[2] as usize;
        for (y, output) in io.output.chunks_exact_mut(output_row).enumerate() {
            let (rows, pitch) = window.rows(y, self.input, io.inputs[0], io.scratch);
            for block in 0..self.blocks() {
                self.row(block, rows, pitch, output);
            }
        }
    }

    /// One block of output channels for one row of output pixels; `rows` holds the input rows, `pitch` bytes apart.
    fn row(&self, block: usize, rows: &[i8], pitch: usize, output: &mut [i8]) {
        let attributes = &self.attributes;
        let per_group_blocks = self.per_group().div_ceil(LANES);
        let (group, within) = (block / per_group_blocks, block % per_group_blocks);
        let first = group * self.per_group() + within * LANES;
        let lanes = (self.per_group() - within * LANES).min(LANES);
        let channels = &self.channels[first..first + lanes];
        let mut bias = [0; LANES];
        for (bias, channel) in bias.iter_mut().zip(channels) {
            *bias = channel.bias;
        }
        let weights = &self.weights[block * self.block_length()..][..self.block_length()];
        let outputs = self.output.shape[2] as usize;
        let step = attributes.stride_width as usize * self.input.shape[2] as usize;
        let runs = self.runs();
        let mut start = group * self.inputs_per_group();
        for tile in output.chunks_mut(PIXELS * outputs) {
            let pixels = tile.len() / outputs;
            // A narrower tile at the end of a row computes its first pixel again in the places it does not store.
            let starts: [usize; PIXELS] = core::array::from_fn(|pixel| start + if pixel < pixels { pixel * step } else { 0 });
            let accumulators = kernels::dot_4x4(bias, rows, pitch, starts, &runs, weights);
            for (lane, channel) in channels.iter().enumerate() {
                self.requantization.store(channel, &accumulators[lane][..pixels], &mut tile[first + lane..], outputs);
            }
            start += PIXELS * step;
        }
    }

    /// How the input bytes under a window lie in memory.
    fn runs(&self) -> kernels::Runs {
        let attributes = &self.attributes;
        let rows = attributes.kernel_height as usize;
        let kernel_width = attributes.kernel_width as usize;
        let per_group = self.inputs_per_group();
        if attributes.dilation_width == 1 && attributes.groups == 1 {
            return kernels::Runs { rows, per_row: 1, length: kernel_width * per_group, step: 0 };
        }
        let step = attributes.dilation_width as usize * self.input.shape[2] as usize;
        kernels::Runs { rows, per_row: kernel_width, length: per_group, step }
    }
}

#[cfg(feature = "alloc")]
fn pack(layer: &crate::image::Layer<'_>) -> Result<crate::image::Packed, crate::image::WriteError> {
    use alloc::vec;
    let words = layer.attributes(Attributes::NAMES)?;
    let attributes = Attributes::read(NAME, &words)?;
    attributes.check(&layer.inputs[0], &layer.output)?;
    let groups = attributes.groups as usize;
    let (inputs, outputs) = (layer.inputs[0].shape[2] as usize / groups, layer.output.shape[2] as usize);
    let per_group = outputs / groups;
    let per_output = attributes.window().area() * inputs;
    let (variant, channels) = channels::pack::channels(layer, outputs, per_output)?;
    let mut packed = vec![0u8; groups * per_group.div_ceil(LANES) * LANES * per_output];
    for (output, weights) in layer.int8("weights", outputs * per_output)?.chunks_exact(per_output.max(1)).enumerate() {
        let (group, within) = (output / per_group, output % per_group);
        let block = group * per_group.div_ceil(LANES) + within / LANES;
        for (position, &weight) in weights.iter().enumerate() {
            packed[(block * per_output + position) * LANES + within % LANES] = weight as u8;
        }
    }
    let scratch_length = attributes.window().scratch_length(&layer.inputs[0]);
    Ok(crate::image::Packed { variant, attributes: words, constants: vec![packed, channels], scratch_length })
}
