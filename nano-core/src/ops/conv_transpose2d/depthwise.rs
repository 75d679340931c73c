//! Depthwise transposed convolution, one output channel per input channel: each phase is a depthwise convolution of stride 1 by [`Taps`], from padded
//! rows in scratch memory.
//!
//! Packed: phase by phase, row-major, blocks of four channels as of the [depthwise convolution](crate::ops::DEPTHWISE_CONV2D), each
//! `[vertical taps][horizontal taps][4]`, where the first tap reads the first input; and one [`Channel`] for each output channel. On rv32imc, a tile of
//! four channels and two pixels takes 32 instructions per tap and 150 more; by im2col ([`CONV_TRANSPOSE2D`](super::CONV_TRANSPOSE2D)) one channel of
//! four pixels takes 1,300.

#[cfg(feature = "alloc")]
use super::NAME;
use super::phases::{Phase, phases};
use super::{Attributes, OPERATOR};
use crate::BrokenRule;
use crate::arena::Io;
use crate::image::{Dtype, Value};
use crate::kernels::{Channel, LANES, ONE_PASS, OnePass, Requantization, Taps};
use crate::node::Node;
use crate::operator::{Checked, CheckedPart, Kernel, Run, nonzero, require};
use crate::ops::channels;
use crate::ops::depthwise_conv2d::Blocks;
use crate::ops::window::{Axis, Window};

/// Kernel of the depthwise transposed convolution.
pub const CONV_TRANSPOSE2D_DEPTHWISE: Kernel = Kernel {
    id: 57,
    name: "conv_transpose2d_depthwise",
    operator: &OPERATOR,
    inputs: &[Dtype::Int8],
    outputs: &[Dtype::Int8],
    pitched: true,
    forms: &[ONE_PASS],
    check: |node| Depthwise::read(node)?.check(node),
    run: Run::Apart(|node, io| Depthwise::read(node).checked().run(io)),
    #[cfg(feature = "alloc")]
    cost,
    #[cfg(feature = "alloc")]
    pack,
};

struct Depthwise<'a> {
    attributes: Attributes,
    input: &'a Value,
    output: &'a Value,
    weights: &'a [i8],
    channels: &'a [Channel],
    requantization: Requantization,
}

/// One phase: a convolution of stride 1, whose outputs lie a stride apart.
struct Part {
    window: Window,
    /// The first output, and the number of outputs.
    first: [usize; 2],
    outputs: [usize; 2],
}

impl Part {
    fn new(phase: [Phase; 2], window: &Window, input: &Value, output: &Value) -> Part {
        let axis = |phase: Phase, stride: i32, inputs: u32, outputs: u32| {
            let outputs = phase.outputs(outputs as usize, stride);
            let before = (phase.taps as i32 - 1) * phase.input_step - phase.input;
            let after = (outputs as i32 + phase.input - inputs as i32).max(0);
            let axis = Axis { kernel: phase.taps as i32, stride: 1, dilation: phase.input_step, before, after };
            (axis, outputs)
        };
        let [vertical, horizontal] = phase;
        let (rows, height) = axis(vertical, window.vertical.stride, input.shape[0], output.shape[0]);
        let (columns, width) = axis(horizontal, window.horizontal.stride, input.shape[1], output.shape[1]);
        let window = Window { vertical: rows, horizontal: columns };
        Part { window, first: [vertical.first, horizontal.first], outputs: [height, width] }
    }

    /// Whether the phase has outputs.
    fn is_present(&self) -> bool {
        self.outputs.iter().all(|&outputs| outputs > 0)
    }

    /// Whether the rows begin with the input or before it, and are not too long.
    fn fits(&self, input: &Value) -> bool {
        let Window { vertical, horizontal } = self.window;
        let [_, width, channels] = input.shape.map(u64::from);
        let (before, after) = (horizontal.before, horizontal.after);
        let inside = before >= 0 && vertical.before >= 0;
        inside && (before as u64 + width + after as u64) * channels * vertical.kernel as u64 <= Value::LARGEST
    }
}

/// The phases that have outputs.
fn parts(attributes: &Attributes, input: &Value, output: &Value) -> impl Iterator<Item = Part> {
    let window = attributes.window();
    phases(window).map(move |phase| Part::new(phase, &window, input, output))
}

/// Whether the kernel computes this layer.
fn fits(attributes: &Attributes, input: &Value, output: &Value) -> bool {
    let depthwise = attributes.groups as u32 == input.shape[2] && input.shape[2] == output.shape[2];
    let of_fours = output.shape[2] as usize >= LANES;
    depthwise && of_fours && parts(attributes, input, output).all(|part| !part.is_present() || part.fits(input))
}

/// Elements of scratch memory: the padded rows of the phase that has most.
fn scratch_length(attributes: &Attributes, input: &Value, output: &Value) -> usize {
    let lengths =
        parts(attributes, input, output).filter(Part::is_present).map(|part| part.window.scratch_length(input));
    lengths.max().unwrap_or(0)
}

impl<'a> Depthwise<'a> {
    fn read(node: &Node<'a>) -> Result<Self, BrokenRule> {
        let attributes = Attributes::read(node.attributes())?;
        let requantization = Requantization::new(node.form(), attributes.clamp_min, attributes.clamp_max);
        let (weights, channels) = (node.constant(0)?, node.constant(1)?);
        Ok(Depthwise { attributes, input: node.input(0), output: node.output(0), weights, channels, requantization })
    }

    fn check(&self, node: &Node<'_>) -> Result<(), BrokenRule> {
        let &Depthwise { attributes, input, output, .. } = self;
        require!(fits(&attributes, input, output), "not depthwise, or cropped, groups", attributes.groups);
        channels::check_clamp((attributes.clamp_min, attributes.clamp_max))?;
        let count = output.shape[2] as usize;
        let blocks = Blocks::new(count);
        let (mut weights, mut channels) = (self.weights, self.channels);
        for part in parts(&attributes, input, output) {
            let length = blocks.weights(part.window.area());
            require!(weights.len() >= length, "wrong number of weights", self.weights.len() as i64);
            require!(channels.len() >= count, "wrong number of channels", self.channels.len() as i64);
            let (own, others) = weights.split_at_checked(length).checked_part();
            let (of_part, rest) = channels.split_at_checked(count).checked_part();
            blocks.check(node.form(), of_part, own, part.window.area())?;
            (weights, channels) = (others, rest);
        }
        require!(weights.is_empty(), "wrong number of weights", self.weights.len() as i64);
        require!(channels.is_empty(), "wrong number of channels", self.channels.len() as i64);
        node.require_scratch::<i8>(scratch_length(&attributes, input, output))
    }

    fn run(&self, io: Io<'_>) {
        let Io { inputs, mut outputs, scratch } = io;
        let (input, output): (&[i8], &mut [i8]) = (inputs.get(0), outputs.take());
        let window = self.attributes.window();
        let [down, right] = [window.vertical.stride, window.horizontal.stride].map(|stride| stride as usize);
        let (width, pitch) = (self.output.shape[1] as usize, self.output.pitch as usize);
        let blocks = Blocks::new(self.output.shape[2] as usize);
        let (mut weights, mut channels) = (self.weights, self.channels);
        for part in parts(&self.attributes, self.input, self.output) {
            let (own, others) = weights.split_at_checked(blocks.weights(part.window.area())).checked_part();
            let (of_part, rest) = channels.split_at_checked(self.output.shape[2] as usize).checked_part();
            (weights, channels) = (others, rest);
            let ([first_row, first_column], [rows, columns]) = (part.first, part.outputs);
            if columns == 0 {
                continue;
            }
            for y in 0..rows {
                let start = ((first_row + y * down) * width + first_column) * pitch;
                let output = output.get_mut(start..).checked_part();
                self.row(&part.window, y, columns, (own, of_part), input, scratch, (output, right * pitch));
            }
        }
    }

    /// Computes a row of a phase.
    #[expect(clippy::too_many_arguments, reason = "a row of one phase has as many")]
    fn row(
        &self,
        window: &Window,
        y: usize,
        pixels: usize,
        (weights, channels): (&[i8], &[Channel]),
        input: &[i8],
        scratch: &mut [i8],
        (output, output_step): (&mut [i8], usize),
    ) {
        let rows = window.rows(y, self.input, input, scratch);
        let Window { vertical, horizontal } = window;
        let taps = Taps {
            rows: vertical.kernel as usize,
            pitch: rows.pitch,
            first: rows.first,
            per_row: horizontal.kernel as usize,
            step: horizontal.dilation as usize * rows.pixel_pitch,
            pixels,
            pixel_step: rows.pixel_pitch,
        };
        let blocks = weights.as_chunks().0.chunks_exact(nonzero(window.area()));
        for (first, weights) in Blocks::new(channels.len()).firsts().zip(blocks) {
            let channels = channels.get(first..).and_then(<[Channel]>::first_chunk).checked();
            let (input, output) = (rows.elements.get(first..).checked_part(), output.get_mut(first..).checked_part());
            taps.run::<OnePass>(self.requantization, channels, weights, input, output, output_step);
        }
    }
}

/// The estimate: of a tile of four channels and two pixels, 32 instructions for a tap and 172 more; a padded row 250.
#[cfg(feature = "alloc")]
fn cost(layer: &crate::image::Layer<'_>) -> Option<crate::image::Cost> {
    let attributes = Attributes::read(&layer.attributes).ok()?;
    let (input, output) = (&layer.inputs[0], &layer.outputs[0]);
    let one_pass = || {
        let accumulators = super::pack::fold(layer, &attributes).ok()?.into_iter().flatten().map(|(_, folded)| folded);
        let accumulators: alloc::vec::Vec<_> = accumulators.collect();
        Some(channels::pack::requantizations(&accumulators, output.zero_point).0 == ONE_PASS)
    };
    (fits(&attributes, input, output) && one_pass()?).then(|| {
        let blocks = output.shape[2].div_ceil(LANES as u32) as u64;
        let of_part = |part: Part| {
            let [rows, columns] = part.outputs.map(|count| count as u64);
            let (tiles, taps) = (rows * columns.div_ceil(2) * blocks, part.window.area() as u64);
            crate::image::Cost {
                instructions: tiles * (32 * taps + 172) + 250 * rows,
                stalls: tiles * (2 * taps + 116),
            }
        };
        let parts = parts(&attributes, input, output).map(of_part);
        parts.fold(crate::image::Cost::instructions(1000), core::ops::Add::add)
    })
}

#[cfg(feature = "alloc")]
fn pack(layer: &crate::image::Layer<'_>) -> Result<crate::image::Packed, crate::image::WriteError> {
    use alloc::vec::Vec;
    use zerocopy::IntoBytes;
    let attributes = Attributes::read(&layer.attributes).map_err(|broken| broken.of(NAME))?;
    let (input, output) = (&layer.inputs[0], &layer.outputs[0]);
    let (mut packed, mut accumulators) = (Vec::new(), Vec::new());
    for of_phase in super::pack::fold(layer, &attributes)? {
        let mut weights = Vec::new();
        for (own, accumulator) in of_phase {
            accumulators.push(accumulator);
            weights.extend(own.into_iter().rev());
        }
        packed.extend(Blocks::new(output.shape[2] as usize).pack(&weights));
    }
    let (form, channels) = channels::pack::requantizations(&accumulators, output.zero_point);
    let scratch_length = scratch_length(&attributes, input, output);
    let constants = alloc::vec![packed, channels.as_bytes().to_vec()];
    Ok(crate::image::Packed { form, constants, scratch_length, read: None })
}
