//! Depthwise convolution, one output channel per input channel: `y = clamp(requantize(bias + sum (x - z_x) * w) + z_y)`.
//! (A channel multiplier above 1 is a [`CONV2D`](super::CONV2D) with as many groups as input channels.)
//!
//! Tensors for the writer: `weights` int8 `[channels, kernel_height, kernel_width]`, `bias` int32 `[channels]` with scale
//! `s_x * s_w`, int64 if the layer is of int16, `weight_scales` float32 `[channels]`. Bit-exact with TensorFlow Lite Micro's
//! `DEPTHWISE_CONV_2D`, int8 and int16x8.
//!
//! Packed: blocks of four channels (the last filled up with zeros), each `[kernel_height][kernel_width][4]`, or
//! `[kernel_width][kernel_height][4]` where the layer is computed along rows (see [`LineKernel`]).

use crate::BrokenRule;
use crate::arena::{Io, scratch_elements};
use crate::image::{Element, Value};
use crate::kernels::{
    Accumulate, Channel, LANES, LITERAL, Lines, ONE_PASS, PART, Requantization, Side, Taps, WideChannel,
};
use crate::node::Node;
use crate::operator::{Alias, Checked, Kernel, Operator, Output, Run, nonzero, require};
use crate::ops::channels::{self, ChannelRules};
use crate::ops::window::{Axis, Window, window_attributes};

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
        cost: |layer| Some(crate::image::Cost::instructions(5 * layer.macs)),
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
        let weights = count.div_ceil(LANES as u32) as u64 * self.block_length() as u64;
        require!(self.weights.len() as u64 == weights, "wrong number of weights", self.weights.len() as i64);
        require!(self.channels.len() == count as usize, "wrong number of channels", self.channels.len() as i64);
        channels::check_clamp_of(C::Element::DTYPE, (attributes.clamp_min, attributes.clamp_max))?;
        let mut check = channels::Check::new(node.form());
        check.blocks(self.channels, self.weights, LANES, self.block_length())?;
        let scratch = attributes.scratch_length(self.input, self.output, node.form());
        node.require_scratch::<C::Element>(scratch)
    }

    fn block_length(&self) -> usize {
        self.attributes.window().area() * LANES
    }

    fn run(&self, io: Io<'_>) {
        match LineKernel::new(self.attributes.window(), self.input, self.output, self.requantization.form()) {
            Some(kernel) => {
                let blocks = self.weights.as_chunks::<LANES>().0.as_chunks::<9>().0;
                let Io { inputs, mut outputs, .. } = io;
                kernel.lines.run(self.channels, blocks, self.requantization, inputs.get(0), outputs.take())
            }
            None if self.requantization.is_one_pass() => self.run_by_row::<C::OnePass>(io),
            None => self.run_by_row::<C::Literal>(io),
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
            let weights = self.weights.as_chunks().0.chunks_exact(nonzero(window.area()));
            for (block, (channels, weights)) in self.channels.chunks(LANES).zip(weights).enumerate() {
                let first = block * LANES;
                let (rows, output) = (rows.elements.get(first..).checked(), output.get_mut(first..).checked());
                match channels.try_into() {
                    Ok(channels) if A::NARROW => {
                        taps.run::<A>(self.requantization, channels, weights, rows, output, pitch)
                    }
                    _ => self.one_by_one(channels, weights, rows, &taps, output),
                }
            }
        }
    }

    /// The last one to three channels, or those whose sums exceed int32, one at a time.
    fn one_by_one(
        &self,
        channels: &[C],
        weights: &[[i8; LANES]],
        rows: &[C::Element],
        taps: &Taps,
        output: &mut [C::Element],
    ) {
        let pitch = nonzero(self.output.pitch as usize);
        for (x, pixel) in output.chunks_mut(pitch).enumerate() {
            for (lane, (channel, output)) in channels.iter().zip(pixel).enumerate() {
                let mut sum = channel.first_sum();
                for (tap_row, weights) in weights.chunks_exact(nonzero(taps.per_row)).enumerate() {
                    let row = (taps.first + tap_row).checked_rem(taps.rows).checked();
                    let inputs = rows.get(x * taps.pixel_step + row * taps.pitch + lane..).checked();
                    let mut inputs = inputs.iter().step_by(nonzero(taps.step));
                    for weights in weights.chunks(PART) {
                        let products = inputs.by_ref().zip(weights);
                        let products = products.map(|(&x, weights)| x.into() * i32::from(*weights.get(lane).checked()));
                        sum += products.sum::<i32>().into();
                    }
                }
                *output = self.requantization.apply(channel, sum);
            }
        }
    }
}

/// A 3x3 layer computed line by line, with the weights in registers: along columns or rows, whichever are longer and have a kernel.
struct LineKernel {
    lines: Lines,
    /// The lines are columns.
    #[cfg(feature = "alloc")]
    down: bool,
}

impl LineKernel {
    fn new(window: Window, input: &Value, output: &Value, form: u8) -> Option<LineKernel> {
        let Window { vertical, horizontal } = window;
        let along = |axis: Axis, across: Axis, inputs: u32| {
            let kernel = axis.kernel == 3 && across.kernel == 3 && axis.dilation == 1 && axis.stride <= 2;
            kernel && axis.before <= 1 && axis.after <= 1 && inputs >= 3 && form == ONE_PASS
        };
        let columns = along(vertical, horizontal, input.shape[0]);
        let rows = along(horizontal, vertical, input.shape[1]);
        let down = columns && !(rows && output.shape[0] < output.shape[1]);
        if !(columns || rows) {
            return None;
        }
        let step = |value: &Value, index: usize| [value.shape[1] * value.pitch, value.pitch][index] as usize;
        let side = |axis: Axis, index: usize| Side {
            inputs: input.shape[index] as usize,
            input_step: step(input, index),
            outputs: output.shape[index] as usize,
            output_step: step(output, index),
            stride: axis.stride as usize,
            before: axis.before as usize,
            dilation: axis.dilation as usize,
        };
        let (vertical, horizontal) = (side(vertical, 0), side(horizontal, 1));
        let (along, across) = if down { (vertical, horizontal) } else { (horizontal, vertical) };
        Some(LineKernel {
            lines: Lines { along, across, zero: input.zero_point },
            #[cfg(feature = "alloc")]
            down,
        })
    }
}

impl Attributes {
    /// Elements of scratch; 0 for a layer computed line by line.
    fn scratch_length(&self, input: &Value, output: &Value, form: u8) -> usize {
        match LineKernel::new(self.window(), input, output, form) {
            Some(_) => 0,
            None => self.window().scratch_length(input),
        }
    }
}

#[cfg(feature = "alloc")]
fn pack<C: ChannelRules>(layer: &crate::image::Layer<'_>) -> Result<crate::image::Packed, crate::image::WriteError> {
    use alloc::vec;
    use zerocopy::IntoBytes;
    let attributes = Attributes::read(&layer.attributes).map_err(|broken| broken.of(NAME))?;
    let (input, output) = (&layer.inputs[0], &layer.outputs[0]);
    let (count, taps) = (output.shape[2] as usize, attributes.window().area());
    let (form, channels) = C::pack(layer, count, taps)?;
    let kernel = LineKernel::new(attributes.window(), input, output, form);
    let along_rows = kernel.is_some_and(|kernel| !kernel.down);
    let mut packed = vec![0u8; count.div_ceil(LANES) * taps * LANES];
    for (channel, weights) in layer.int8("weights", count * taps)?.chunks_exact(taps.max(1)).enumerate() {
        for (tap, &weight) in weights.iter().enumerate() {
            let tap = if along_rows { tap % 3 * 3 + tap / 3 } else { tap };
            packed[(channel / LANES * taps + tap) * LANES + channel % LANES] = weight as u8;
        }
    }
    let scratch_length = attributes.scratch_length(input, output, form) * size_of::<C::Element>();
    Ok(crate::image::Packed { form, constants: vec![packed, channels.as_bytes().to_vec()], scratch_length, read: None })
}
