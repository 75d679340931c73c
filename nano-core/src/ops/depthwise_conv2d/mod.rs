//! Depthwise convolution, one output channel per input channel: `y = clamp(requantize(bias + sum (x - z_x) * w) + z_y)`.
//! (A channel multiplier above 1 is a [`CONV2D`](super::CONV2D) with as many groups as input channels.)
//!
//! Tensors for the writer: `weights` int8 `[channels, kernel_height, kernel_width]`, `bias` int32 `[channels]` with scale
//! `s_x * s_w`, int64 if the layer is of int16, `weight_scales` float32 `[channels]`. Bit-exact with TensorFlow Lite Micro's
//! `DEPTHWISE_CONV_2D`, int8 and int16x8.
//!
//! The plain kernel computes tiles of four channels by two pixels, for any window. Packed: blocks of four channels, each
//! `[kernel_height][kernel_width][4]`. The last block ends with the last channel, so some channels may be in two blocks; fewer than four channels
//! are one narrower block. Small windows have [a kernel of their own](lines).

#[cfg(feature = "host")]
pub(super) mod host;
mod lines;

pub(super) use lines::kernel as lines_kernel;
pub use lines::{DEPTHWISE_CONV2D_LINES, DEPTHWISE_CONV2D_LINES_INT16};

use crate::BrokenRule;
use crate::arena::{Io, scratch_elements};
use crate::image::{Element, Value};
use crate::kernels::{Accumulate, Channel, LANES, LITERAL, ONE_PASS, PART, Requantization, Taps, WideChannel};
use crate::node::Node;
use crate::operator::{Alias, Checked, CheckedPart, Kernel, Operator, Output, Run, nonzero, require};
use crate::ops::channels::{self, ChannelRules};
use crate::ops::window::{Window, window_attributes};

/// Kernel of the depthwise convolution.
pub const DEPTHWISE_CONV2D: Kernel = kernel::<Channel>(2, NAME);
/// Kernel of the depthwise convolution of int16.
pub const DEPTHWISE_CONV2D_INT16: Kernel = kernel::<WideChannel>(39, "depthwise_conv2d_int16");

const fn kernel<C: ChannelRules>(id: u16, name: &'static str) -> Kernel {
    Kernel {
        id,
        name,
        operator: &OPERATOR,
        inputs: <C::Element as Element>::DTYPES,
        outputs: <C::Element as Element>::DTYPES,
        pitched: true,
        forms: &[LITERAL, ONE_PASS],
        check: |node| DepthwiseConv2d::<C>::read(node)?.check(node),
        run: Run::Apart(|node, io| DepthwiseConv2d::<C>::read(node).checked().run(io)),
        #[cfg(feature = "alloc")]
        cost: |layer| Some(cost(layer)),
        #[cfg(feature = "alloc")]
        pack: pack::<C>,
    }
}

static OPERATOR: Operator = Operator {
    name: NAME,
    attributes: Attributes::NAMES,
    inputs: 1..=1,
    outputs: &[Output::OWN],
    alias: Alias::Never,
    shape: |node, _| Window::shape(node, node.input(0).shape[2]),
    macs: |node| {
        Attributes::read(node.attributes())
            .map_or(0, |attributes| node.output(0).len() as u64 * attributes.window().area() as u64)
    },
};

const NAME: &str = "depthwise_conv2d";

window_attributes!(clamp_min, clamp_max);

struct DepthwiseConv2d<'a, C> {
    attributes: Attributes,
    input: &'a Value,
    output: &'a Value,
    weights: &'a [i8],
    channels: &'a [C],
    requantization: Requantization,
}

impl<'a, C: ChannelRules> DepthwiseConv2d<'a, C> {
    fn read(node: &Node<'a>) -> Result<Self, BrokenRule> {
        let attributes = Attributes::read(node.attributes())?;
        let (input, output) = (node.input(0), node.output(0));
        let requantization = Requantization::new(node.form(), attributes.clamp_min, attributes.clamp_max);
        let weights = node.constant(0)?;
        let channels = node.constant(1)?;
        Ok(DepthwiseConv2d { attributes, input, output, weights, channels, requantization })
    }

    fn check(&self, node: &Node<'_>) -> Result<(), BrokenRule> {
        let attributes = &self.attributes;
        let count = self.output.shape[2];
        let layout = Blocks::new(count as usize);
        let taps = attributes.window().area();
        require!(self.weights.len() == layout.weights(taps), "wrong number of weights", self.weights.len() as i64);
        require!(self.channels.len() == count as usize, "wrong number of channels", self.channels.len() as i64);
        channels::check_clamp_of(C::Element::DTYPE, (attributes.clamp_min, attributes.clamp_max))?;
        layout.check(node.form(), self.channels, self.weights, taps)?;
        node.require_scratch::<C::Element>(attributes.window().scratch_length(self.input))
    }

    fn block_length(&self) -> usize {
        self.attributes.window().area() * Blocks::new(self.channels.len()).width
    }

    fn run(&self, io: Io<'_>) {
        if self.requantization.is_one_pass() {
            self.run_by_row::<C::OnePass>(io)
        } else {
            self.run_by_row::<C::Literal>(io)
        }
    }

    fn run_by_row<A: Accumulate<Channel = C, Element = C::Element>>(&self, io: Io<'_>) {
        let Io { inputs, mut outputs, scratch } = io;
        let (input, output): (&[C::Element], &mut [C::Element]) = (inputs.get(0), outputs.take());
        let scratch = scratch_elements(scratch);
        let window = self.attributes.window();
        let pitch = self.output.pitch as usize;
        let pixels = self.output.shape[1] as usize;
        for (y, output) in output.chunks_mut(nonzero(pixels * pitch)).enumerate() {
            let rows = window.rows(y, self.input, input, scratch);
            let taps = Taps {
                rows: self.attributes.kernel_height as usize,
                pitch: rows.pitch,
                first: rows.first,
                per_row: self.attributes.kernel_width as usize,
                step: self.attributes.dilation_width as usize * rows.pixel_pitch,
                pixels,
                pixel_step: self.attributes.stride_width as usize * rows.pixel_pitch,
            };
            let layout = Blocks::new(self.channels.len());
            for (first, weights) in layout.firsts().zip(self.weights.chunks_exact(nonzero(self.block_length()))) {
                let channels = self.channels.get(first..).checked_part();
                let (rows, output) =
                    (rows.elements.get(first..).checked_part(), output.get_mut(first..).checked_part());
                match channels.first_chunk() {
                    Some(channels) if A::NARROW => {
                        taps.run::<A>(self.requantization, channels, weights.as_chunks().0, rows, output, pitch)
                    }
                    _ => {
                        let channels = channels.get(..layout.width).checked_part();
                        self.one_by_one(channels, weights, rows, &taps, output)
                    }
                }
            }
        }
    }

    /// The channels of a block one at a time, where they are fewer than four, or their sums exceed int32.
    fn one_by_one(&self, channels: &[C], weights: &[i8], rows: &[C::Element], taps: &Taps, output: &mut [C::Element]) {
        let pitch = nonzero(self.output.pitch as usize);
        for (x, pixel) in output.chunks_mut(pitch).enumerate() {
            for (lane, (channel, output)) in channels.iter().zip(pixel).enumerate() {
                let mut sum = channel.first_sum();
                for (tap_row, weights) in weights.chunks_exact(nonzero(taps.per_row * channels.len())).enumerate() {
                    let row = (taps.first + tap_row) % nonzero(taps.rows);
                    let inputs = rows.get(x * taps.pixel_step + row * taps.pitch + lane..).checked_part();
                    let mut inputs = inputs.iter().step_by(nonzero(taps.step));
                    for weights in weights.chunks(nonzero(PART * channels.len())) {
                        let weights = weights.get(lane..).checked_part().iter().step_by(nonzero(channels.len()));
                        let products = inputs.by_ref().zip(weights).map(|(&x, &weight)| x.into() * i32::from(weight));
                        sum += products.sum::<i32>().into();
                    }
                }
                *output = self.requantization.apply(channel, sum);
            }
        }
    }
}

/// The blocks of channels that the plain kernel computes together: of four, where there are as many.
pub(super) struct Blocks {
    channels: usize,
    count: usize,
    width: usize,
}

impl Blocks {
    pub(super) fn new(channels: usize) -> Blocks {
        let width = channels.clamp(1, LANES);
        Blocks { channels, count: channels.div_ceil(width), width }
    }

    /// The first channel of each block; the last block ends with the last channel.
    pub(super) fn firsts(&self) -> impl Iterator<Item = usize> {
        let (last, width) = (self.channels - self.width, self.width);
        (0..self.count).map(move |block| (block * width).min(last))
    }

    /// Weights of all blocks with this many taps.
    pub(super) fn weights(&self, taps: usize) -> usize {
        self.count * self.width * taps
    }

    /// Checks the accumulators of all blocks.
    pub(super) fn check<C: ChannelRules>(
        &self,
        form: u8,
        channels: &[C],
        weights: &[i8],
        taps: usize,
    ) -> Result<(), BrokenRule> {
        // Whole blocks at once, then the last one if it overlaps them.
        let (length, whole) = (taps * self.width, self.channels / nonzero(self.width));
        let (weights, last) = weights.split_at_checked(whole * length).checked_part();
        let of_whole = channels.get(..whole * self.width).checked_part();
        channels::Check::new(form).blocks(of_whole, weights, self.width, length)?;
        if whole < self.count {
            let first = self.channels - self.width;
            let channels = channels.get(first..).checked_part();
            channels::Check::new(form).from(first).blocks(channels, last, self.width, last.len())?;
        }
        Ok(())
    }

    /// Packs `[channel][tap]` weights.
    #[cfg(feature = "alloc")]
    pub(super) fn pack(&self, weights: &[i8]) -> alloc::vec::Vec<u8> {
        let taps = weights.len() / self.channels.max(1);
        let block = |first: usize| {
            (0..taps).flat_map(move |tap| {
                (first..first + self.width).map(move |channel| weights[channel * taps + tap] as u8)
            })
        };
        self.firsts().flat_map(block).collect()
    }
}

/// The estimate of one run: of a tile of four channels and two pixels, 32 instructions for a tap and 152 more;
/// of fewer channels, 10 for a product.
#[cfg(feature = "alloc")]
fn cost(layer: &crate::image::Layer<'_>) -> crate::image::Cost {
    let output = &layer.outputs[0];
    let channels = output.shape[2] as usize;
    if channels < LANES {
        return crate::image::Cost { instructions: 10 * layer.macs + 60 * output.len() as u64, stalls: 5 * layer.macs };
    }
    let taps = (layer.macs / output.len() as u64).max(1);
    let tiles = u64::from(output.shape[0] * output.shape[1].div_ceil(2)) * Blocks::new(channels).count as u64;
    crate::image::Cost { instructions: tiles * (32 * taps + 172), stalls: tiles * (2 * taps + 116) }
}

#[cfg(feature = "alloc")]
fn pack<C: ChannelRules>(layer: &crate::image::Layer<'_>) -> Result<crate::image::Packed, crate::image::WriteError> {
    use alloc::vec;
    use zerocopy::IntoBytes;
    let attributes = Attributes::read(&layer.attributes).map_err(|broken| broken.of(NAME))?;
    let (input, output) = (&layer.inputs[0], &layer.outputs[0]);
    let (count, taps) = (output.shape[2] as usize, attributes.window().area());
    let (form, channels) = C::pack(layer, count, taps)?;
    let weights = layer.int8("weights", count * taps)?;
    let packed = Blocks::new(count).pack(weights);
    let scratch_length = attributes.window().scratch_length(input) * size_of::<C::Element>();
    Ok(crate::image::Packed { form, constants: vec![packed, channels.as_bytes().to_vec()], scratch_length, read: None })
}
