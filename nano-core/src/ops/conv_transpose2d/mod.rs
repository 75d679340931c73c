//! 2-D transposed convolution: `y[o] = clamp(requantize(bias + sum (x[i] - z_x) * w[k]) + z_y)` over all i and k with
//! `i * stride + k * dilation = o + padding before`, along both axes; 1-D is height 1. Padding crops the full output: `padding_top` rows at its
//! start, `padding_bottom` rows at its end, where a negative number adds rows of the bias alone (output padding).
//!
//! Tensors for the writer: `weights` int8 `[out, kernel_height, kernel_width, in / groups]`, `bias` int32 `[out]` with scale
//! `s_x * s_w`, `weight_scales` float32 `[out]`. Bit-exact with TensorFlow Lite Micro's int8 `TRANSPOSE_CONV`.
//!
//! The output pixels whose positions are equal modulo the stride form a phase. Each phase is an ordinary convolution of stride 1 with a subset of the
//! taps (sub-pixel convolution), computed by im2col and GEMM on four pixels at a time. So no accumulator is stored in memory.
//!
//! Packed: phase by phase, row-major, the constants of a convolution: for each group, blocks of four output channels (the last one padded with
//! zeros), each `[vertical taps][horizontal taps][in / groups][4]`; and one [`Channel`] for each output channel, as the folded bias depends on the
//! phase's taps.
//! A phase without taps has one tap of zeros. Scratch: the im2col columns of four output pixels.

mod depthwise;
#[cfg(feature = "alloc")]
mod pack;
mod phases;

pub use depthwise::CONV_TRANSPOSE2D_DEPTHWISE;

use crate::BrokenRule;
use crate::arena::Io;
use crate::image::{Dtype, Value};
use crate::kernels::{self, Channel, Columns, Form, LANES, LITERAL, Literal, ONE_PASS, OnePass, Requantization};
use crate::node::Node;
use crate::operator::{Alias, Checked, CheckedPart, Kernel, Operator, Output, Run, nonzero, require};
use crate::ops::channels;
use crate::ops::window::{Axis, check_groups, window_attributes};
use phases::{Phase, phases};

/// Kernel of the transposed convolution.
pub const CONV_TRANSPOSE2D: Kernel = Kernel {
    id: 16,
    name: NAME,
    operator: &OPERATOR,
    inputs: &[Dtype::Int8],
    outputs: &[Dtype::Int8],
    pitched: true,
    forms: &[LITERAL, ONE_PASS],
    check: |node| ConvTranspose2d::read(node)?.check(node),
    run: Run::Apart(|node, io| ConvTranspose2d::read(node).checked().run(io)),
    #[cfg(feature = "alloc")]
    cost,
    #[cfg(feature = "alloc")]
    pack: pack::pack,
};

static OPERATOR: Operator = Operator {
    name: NAME,
    attributes: Attributes::NAMES,
    inputs: 1..=1,
    outputs: &[Output::OWN],
    alias: Alias::Never,
    shape: |node, _| {
        let attributes = Attributes::read(node.attributes())?;
        let window = attributes.window();
        let ([height, width, inputs], channels) = (node.input(0).shape, node.output(0).shape[2]);
        check_groups(node, attributes.groups)?;
        let shape = [outputs(&window.vertical, height)?, outputs(&window.horizontal, width)?, channels];
        // In 64 bits: the sizes of packed blocks and scratch memory, at most 4 times this, then fit the 32 of a device.
        let area = window.vertical.kernel as u64 * window.horizontal.kernel as u64 * u64::from(inputs);
        require!(area <= Value::LARGEST, "the window covers more than 2^28 elements", area as i64);
        Ok(shape)
    },
    macs: |node| {
        let per_group = |attributes: Attributes| node.output(0).shape[2] as usize / nonzero(attributes.groups as usize);
        Attributes::read(node.attributes()).map_or(0, |attributes| {
            node.input(0).len() as u64 * (attributes.window().area() * per_group(attributes)) as u64
        })
    },
};

const NAME: &str = "conv_transpose2d";
/// The number of phases along an axis is the stride.
const LARGEST_STRIDE: i32 = 256;

window_attributes!(groups, clamp_min, clamp_max);

/// The output's length along an axis whose input has length `input`.
fn outputs(axis: &Axis, input: u32) -> Result<u32, BrokenRule> {
    let &Axis { kernel, stride, dilation, before, after } = axis;
    let positive = 1..=Axis::LARGEST;
    require!(positive.contains(&kernel), "the kernel is not 1 to 32768", kernel);
    require!((1..=LARGEST_STRIDE).contains(&stride), "the stride is not 1 to 256", stride);
    require!(positive.contains(&dilation), "the dilation is not 1 to 32768", dilation);
    require!((0..Axis::LARGEST).contains(&before), "the padding is not 0 to 32767", before);
    require!(after < Axis::LARGEST, "the padding is not 0 to 32767", after);
    require!(-stride.max(dilation) < after, "the output padding is not below the stride or the dilation", after);
    let full = (i64::from(input) - 1) * i64::from(stride) + i64::from(dilation) * (i64::from(kernel) - 1) + 1;
    let left = full - i64::from(before) - i64::from(after);
    require!(left > 0, "the padding cuts off all of the output, and more by", -left);
    u32::try_from(left).map_err(|_| crate::operator::refused("the output has 2^32 rows or columns or more", left))
}

/// One phase of the layer: a convolution.
struct Part<'a> {
    vertical: Phase,
    horizontal: Phase,
    /// Bytes of one packed block of weights.
    block: usize,
    weights: &'a [i8],
    channels: &'a [Channel],
}

struct ConvTranspose2d<'a> {
    attributes: Attributes,
    input: &'a Value,
    output: &'a Value,
    weights: &'a [i8],
    channels: &'a [Channel],
    requantization: Requantization,
    /// Output and input channels of one group.
    per_group: usize,
    inputs_per_group: usize,
}

impl<'a> ConvTranspose2d<'a> {
    fn read(node: &Node<'a>) -> Result<Self, BrokenRule> {
        let attributes = Attributes::read(node.attributes())?;
        let (input, output) = (node.input(0), node.output(0));
        let requantization = Requantization::new(node.form(), attributes.clamp_min, attributes.clamp_max);
        let (weights, channels) = (node.constant(0)?, node.constant(1)?);
        let groups = nonzero(attributes.groups as usize);
        let [per_group, inputs_per_group] = [output, input].map(|value| value.shape[2] as usize / groups);
        Ok(ConvTranspose2d {
            attributes,
            input,
            output,
            weights,
            channels,
            requantization,
            per_group,
            inputs_per_group,
        })
    }

    fn check(&self, node: &Node<'_>) -> Result<(), BrokenRule> {
        let attributes = &self.attributes;
        let window = attributes.window();
        let channels =
            window.vertical.stride as u64 * window.horizontal.stride as u64 * u64::from(self.output.shape[2]);
        require!(self.channels.len() as u64 == channels, "wrong number of channels", self.channels.len() as i64);
        let weights: u64 = phases(window).map(|phase| self.weights_of(phase) as u64).sum();
        require!(self.weights.len() as u64 == weights, "wrong number of weights", self.weights.len() as i64);
        let taps = Phase::most_taps(&window.vertical) * Phase::most_taps(&window.horizontal);
        let scratch = taps * self.inputs_per_group * LANES;
        require!(node.scratch_length() == scratch, "wrong scratch length", node.scratch_length() as i64);
        channels::check_clamp((attributes.clamp_min, attributes.clamp_max))?;
        let mut check = channels::Check::new(node.form());
        for part in self.parts() {
            let groups = part.weights.chunks_exact(nonzero(self.per_group.div_ceil(LANES) * part.block));
            for (channels, group) in part.channels.chunks_exact(nonzero(self.per_group)).zip(groups) {
                check.blocks(channels, group, LANES, part.block)?;
            }
        }
        Ok(())
    }

    /// Bytes of one packed block of a phase.
    fn block_of(&self, [vertical, horizontal]: [Phase; 2]) -> usize {
        vertical.taps * horizontal.taps * self.inputs_per_group * LANES
    }

    /// Bytes of a phase's packed weights, saturated.
    fn weights_of(&self, phase: [Phase; 2]) -> usize {
        let blocks = nonzero(self.attributes.groups as usize) * self.per_group.div_ceil(LANES);
        self.block_of(phase).saturating_mul(blocks)
    }

    fn parts(&self) -> impl Iterator<Item = Part<'a>> {
        let (mut weights, mut channels) = (self.weights, self.channels);
        phases(self.attributes.window()).map(move |phase| {
            let (own_weights, others) = weights.split_at_checked(self.weights_of(phase)).checked_part();
            let (own_channels, rest) = channels.split_at_checked(self.output.shape[2] as usize).checked_part();
            (weights, channels) = (others, rest);
            let [vertical, horizontal] = phase;
            Part { vertical, horizontal, block: self.block_of(phase), weights: own_weights, channels: own_channels }
        })
    }

    fn run(&self, io: Io<'_>) {
        if self.requantization.is_one_pass() { self.run_as::<OnePass>(io) } else { self.run_as::<Literal>(io) }
    }

    fn run_as<F: Form>(&self, io: Io<'_>) {
        let Io { inputs, mut outputs, scratch } = io;
        let (input, output): (&[i8], &mut [i8]) = (inputs.get(0), outputs.take());
        let [height, width, _] = self.output.shape.map(|side| side as usize);
        let pitch = self.output.pitch as usize;
        let window = self.attributes.window();
        let strides = [window.vertical.stride, window.horizontal.stride].map(|stride| nonzero(stride as usize));
        for part in self.parts() {
            let columns = scratch.as_chunks_mut().0.get_mut(..part.block / LANES).checked_part();
            let pixels = part.horizontal.outputs(width, window.horizontal.stride);
            for (y, row) in (part.vertical.first..height).step_by(strides[0]).enumerate() {
                for x in (0..pixels).step_by(LANES) {
                    let start = (row * width + part.horizontal.first + x * strides[1]) * pitch;
                    let tile = output.get_mut(start..).checked_part();
                    let tile = tile.chunks_mut(nonzero(strides[1] * pitch)).take(LANES.min(pixels - x));
                    self.tile::<F>(&part, columns, [y, x], input, tile);
                }
            }
        }
    }

    /// Computes all channels of a tile: up to four pixels of a phase in a row, starting at pixel (y, x) of the phase.
    #[inline(always)]
    fn tile<'o, F: Form>(
        &self,
        part: &Part<'_>,
        columns: &mut Columns,
        place: [usize; 2],
        input: &[i8],
        tile: impl Iterator<Item = &'o mut [i8]>,
    ) {
        let mut pixels: [&mut [i8]; LANES] = Default::default();
        pixels.iter_mut().zip(tile).for_each(|(pixel, output)| *pixel = output);
        let groups = part.weights.chunks_exact(nonzero(self.per_group.div_ceil(LANES) * part.block));
        let groups = part.channels.chunks_exact(nonzero(self.per_group)).zip(groups);
        for (group, (channels, weights)) in groups.enumerate() {
            self.gather(part, columns, place, group, input);
            let blocks = channels.chunks(LANES).zip(weights.chunks_exact(nonzero(part.block)));
            for (block, (channels, weights)) in blocks.enumerate() {
                let first = group * self.per_group + block * LANES;
                let mut biases = [0; LANES];
                biases.iter_mut().zip(channels).for_each(|(bias, channel)| *bias = channel.bias);
                let sums = accumulate(biases, columns, weights.as_chunks().0);
                for (index, output) in pixels.iter_mut().enumerate() {
                    // A missing pixel of the last tile is an empty slice.
                    let output = output.get_mut(first..).unwrap_or_default();
                    for ((output, channel), sums) in output.iter_mut().zip(channels).zip(&sums) {
                        *output = self.requantization.apply_as::<F>(channel, sums.get(index).copied().unwrap_or(0));
                    }
                }
            }
        }
    }

    /// im2col: copies the inputs under the taps of four pixels, in the channels of `group`, one column for each pixel.
    fn gather(&self, part: &Part<'_>, columns: &mut Columns, [y, x]: [usize; 2], group: usize, input: &[i8]) {
        let Part { vertical, horizontal, .. } = part;
        let [height, width, _] = self.input.shape.map(|side| side as i32);
        let (pitch, length) = (self.input.pitch as usize, self.inputs_per_group);
        let zero = self.input.zero_point as i8;
        let mut taps = columns.chunks_exact_mut(nonzero(length));
        for vertical_tap in 0..vertical.taps {
            let row = vertical.input_at(y, vertical_tap);
            for horizontal_tap in 0..horizontal.taps {
                let Some(columns) = taps.next() else { return };
                let column = horizontal.input_at(x, horizontal_tap);
                let start = |column: i32| (row * width + column) as usize * pitch + group * length;
                let row_is_inside = (0..height).contains(&row);
                if row_is_inside && column >= 0 && column + LANES as i32 <= width {
                    kernels::fill_columns(columns, input.get(start(column)..).checked_part(), pitch);
                    continue;
                }
                for pixel in 0..LANES {
                    let column = column + pixel as i32;
                    if row_is_inside && (0..width).contains(&column) {
                        let input = input.get(start(column)..).checked_part();
                        kernels::fill_column(columns, pixel, input.get(..length).checked_part());
                    } else {
                        columns.iter_mut().filter_map(|column| column.get_mut(pixel)).for_each(|x| *x = zero);
                    }
                }
            }
        }
    }
}

/// [`kernels::dot_4x4`], not inlined, for code size.
#[inline(never)]
fn accumulate(biases: [i32; LANES], columns: &Columns, weights: &[[i8; LANES]]) -> [[i32; LANES]; LANES] {
    kernels::dot_4x4(biases, columns, weights)
}

/// The estimate: a tile takes 40 instructions per position and 230 more for each block of channels, and in each group 18 per position and 300 more
/// to fill the columns. A position branches once, a requantization stalls for 9 cycles.
#[cfg(feature = "alloc")]
fn cost(layer: &crate::image::Layer<'_>) -> Option<crate::image::Cost> {
    let attributes = Attributes::read(&layer.attributes).ok()?;
    let (window, groups) = (attributes.window(), u64::from(attributes.groups as u32).max(1));
    let [inputs, outputs] = [&layer.inputs[0], &layer.outputs[0]].map(|value| u64::from(value.shape[2]) / groups);
    let [height, width, _] = layer.outputs[0].shape.map(|side| side as usize);
    let blocks = outputs.div_ceil(LANES as u64);
    let of_phase = |[vertical, horizontal]: [Phase; 2]| {
        let rows = vertical.outputs(height, window.vertical.stride);
        let tiles = (rows * horizontal.outputs(width, window.horizontal.stride).div_ceil(LANES)) as u64 * groups;
        let positions = (vertical.taps * horizontal.taps) as u64 * inputs;
        crate::image::Cost {
            instructions: tiles * (18 * positions + 300 + blocks * (40 * positions + 230)),
            stalls: tiles * blocks * (positions + 150),
        }
    };
    Some(phases(window).map(of_phase).fold(crate::image::Cost::instructions(1000), core::ops::Add::add))
}
