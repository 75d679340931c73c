//! Direct convolution, for groups of few channels and for few output channels: see [`Runs`]. No im2col: the inputs are read where they are, from
//! padded rows in scratch memory if there is padding.
//!
//! Packed: for each group its blocks of output channels, each `[kernel_height][run][position][width]`. A block has four channels; of the rest, one
//! or two channels are a block of their own, and three are filled up with zeros. A run are the input channels of one tap; or one channel's taps
//! of a row, where a group has fewer input channels than a row of the kernel has taps.

#[cfg(feature = "alloc")]
use super::NAME;
use super::{Attributes, OPERATOR};
use crate::BrokenRule;
use crate::arena::{Io, scratch_elements};
use crate::image::{Element, Value};
use crate::kernels::{Accumulate, Channel, LANES, ONE_PASS, Requantization, Runs, WideChannel, pixels_of};
use crate::node::Node;
use crate::operator::{Checked, CheckedPart, Kernel, Run, nonzero, require};
use crate::ops::channels::{self, ChannelRules};
use crate::ops::window::Window;

/// Kernel of the convolution without im2col.
pub const CONV2D_DIRECT: Kernel = kernel::<Channel>(50, "conv2d_direct");
/// Kernel of the convolution of int16 without im2col.
pub const CONV2D_DIRECT_INT16: Kernel = kernel::<WideChannel>(51, "conv2d_direct_int16");

const fn kernel<C: ChannelRules>(id: u16, name: &'static str) -> Kernel {
    Kernel {
        id,
        name,
        operator: &OPERATOR,
        inputs: <C::Element as Element>::DTYPES,
        outputs: <C::Element as Element>::DTYPES,
        pitched: true,
        forms: &[ONE_PASS],
        check: |node| Direct::<C>::read(node)?.check(node),
        run: Run::Apart(|node, io| Direct::<C>::read(node).checked().run(io)),
        #[cfg(feature = "alloc")]
        cost: cost::<C>,
        #[cfg(feature = "alloc")]
        pack: pack::<C>,
    }
}

/// The parts of a group: its output channels in blocks, and the positions under a window in runs.
#[derive(Clone, Copy)]
struct Group {
    outputs: usize,
    inputs: usize,
    rows: usize,
    taps: usize,
}

impl Group {
    fn new(attributes: &Attributes, input: &Value, output: &Value) -> Group {
        let groups = nonzero(attributes.groups as usize);
        let [outputs, inputs] = [output, input].map(|value| value.shape[2] as usize / groups);
        Group { outputs, inputs, rows: attributes.kernel_height as usize, taps: attributes.kernel_width as usize }
    }

    /// Whether a run are the input channels of one tap.
    fn runs_of_channels(&self) -> bool {
        self.inputs >= self.taps
    }

    /// Positions under a window.
    fn positions(&self) -> usize {
        self.rows * self.taps * self.inputs
    }

    /// The blocks of output channels: the first channel, the number of channels, and the width.
    fn blocks(self) -> impl Iterator<Item = (usize, usize, usize)> {
        (0..self.outputs).step_by(LANES).map(move |first| match self.outputs - first {
            count @ (1 | 2) => (first, count, count),
            count => (first, count.min(LANES), LANES),
        })
    }

    /// The place of a packed position among the layer's weights of an output channel.
    #[cfg(feature = "alloc")]
    fn place(&self, position: usize) -> usize {
        let (row, within) = (position / (self.taps * self.inputs), position % (self.taps * self.inputs));
        let (tap, input) = match self.runs_of_channels() {
            true => (within / self.inputs, within % self.inputs),
            false => (within % self.taps, within / self.taps),
        };
        (row * self.taps + tap) * self.inputs + input
    }

    /// Weights of all blocks.
    fn weights(self) -> usize {
        self.blocks().map(|(.., width)| width * self.positions()).sum()
    }
}

struct Direct<'a, C> {
    attributes: Attributes,
    input: &'a Value,
    output: &'a Value,
    weights: &'a [i8],
    channels: &'a [C],
    requantization: Requantization,
    group: Group,
}

impl<'a, C: ChannelRules> Direct<'a, C> {
    fn read(node: &Node<'a>) -> Result<Self, BrokenRule> {
        let attributes = Attributes::read(node.attributes())?;
        let (input, output) = (node.input(0), node.output(0));
        let requantization = Requantization::new(node.form(), attributes.clamp_min, attributes.clamp_max);
        let (weights, channels) = (node.constant(0)?, node.constant(1)?);
        let group = Group::new(&attributes, input, output);
        Ok(Direct { attributes, input, output, weights, channels, requantization, group })
    }

    fn check(&self, node: &Node<'_>) -> Result<(), BrokenRule> {
        let Attributes { groups, clamp_min, clamp_max, .. } = self.attributes;
        let (group, outputs) = (self.group, self.output.shape[2] as usize);
        let weights = groups as u64 * group.weights() as u64;
        require!(self.weights.len() as u64 == weights, "wrong number of weights", self.weights.len() as i64);
        require!(self.channels.len() == outputs, "wrong number of channels", self.channels.len() as i64);
        channels::check_clamp_of(C::Element::DTYPE, (clamp_min, clamp_max))?;
        let mut check = channels::Check::new(node.form());
        for (channels, weights) in self.groups() {
            for (channels, weights, width) in blocks(group, channels, weights) {
                check.blocks(channels, weights, width, weights.len())?;
            }
        }
        node.require_scratch::<C::Element>(self.attributes.window().scratch_length(self.input))
    }

    /// Channels and weights of each group.
    fn groups(&self) -> impl Iterator<Item = (&'a [C], &'a [i8])> {
        let weights = self.weights.chunks_exact(nonzero(self.group.weights()));
        self.channels.chunks_exact(nonzero(self.group.outputs)).zip(weights)
    }

    fn run(&self, io: Io<'_>) {
        let Io { inputs, mut outputs, scratch } = io;
        let (input, output): (&[C::Element], &mut [C::Element]) = (inputs.get(0), outputs.take());
        let scratch = scratch_elements(scratch);
        let (attributes, group, window) = (&self.attributes, self.group, self.attributes.window());
        let pitch = self.output.pitch as usize;
        let [_, pixels] = rows_and_pixels(&window, self.output);
        for (y, output) in output.chunks_mut(nonzero(pixels * pitch)).enumerate() {
            let rows = window.rows_in_order(y, self.input, input, scratch);
            let tap_step = attributes.dilation_width as usize * rows.pixel_pitch;
            let (taps, channels) = ((group.taps, tap_step), (group.inputs, 1));
            let ((runs, run_step), (length, step)) = match group.runs_of_channels() {
                // Taps without a gap between them are one run.
                true if tap_step == group.inputs => ((1, 0), (group.taps * group.inputs, 1)),
                true => (taps, channels),
                false => (channels, taps),
            };
            let runs = Runs {
                rows: group.rows,
                pitch: rows.pitch,
                runs,
                run_step,
                length,
                step,
                pixels,
                pixel_step: attributes.stride_width as usize * rows.pixel_pitch,
            };
            for (index, (channels, weights)) in self.groups().enumerate() {
                let input = rows.elements.get(index * group.inputs..).checked_part();
                let output = output.get_mut(index * group.outputs..).checked_part();
                self.group::<C::OnePass>(&runs, channels, weights, input, output);
            }
        }
    }

    /// Computes a row of one group.
    fn group<A: Accumulate<Channel = C, Element = C::Element>>(
        &self,
        runs: &Runs,
        channels: &[C],
        weights: &[i8],
        input: &[C::Element],
        mut output: &mut [C::Element],
    ) {
        let (pitch, requantization) = (self.output.pitch as usize, self.requantization);
        for (channels, weights, width) in blocks(self.group, channels, weights) {
            match width {
                1 => {
                    let weights = weights.as_chunks().0;
                    runs.run::<A, 1, { pixels_of(1) }>(requantization, channels, weights, input, output, pitch)
                }
                2 => {
                    let weights = weights.as_chunks().0;
                    runs.run::<A, 2, { pixels_of(2) }>(requantization, channels, weights, input, output, pitch)
                }
                _ => {
                    let weights = weights.as_chunks().0;
                    runs.run::<A, 4, { pixels_of(4) }>(requantization, channels, weights, input, output, pitch)
                }
            }
            output = output.get_mut(channels.len()..).unwrap_or_default();
        }
    }
}

/// The rows that are computed one after the other, and the output pixels in each. Those of a 1x1 window are one row.
fn rows_and_pixels(window: &Window, output: &Value) -> [usize; 2] {
    let [height, width, _] = output.shape.map(|side| side as usize);
    if window.is_one_to_one() { [1, height * width] } else { [height, width] }
}

/// Channels, weights and width of each block of a group.
fn blocks<'g, C>(
    group: Group,
    channels: &'g [C],
    mut weights: &'g [i8],
) -> impl Iterator<Item = (&'g [C], &'g [i8], usize)> {
    group.blocks().map(move |(first, count, width)| {
        let (block, rest) = weights.split_at_checked(width * group.positions()).checked_part();
        weights = rest;
        (channels.get(first..).checked_part().get(..count).checked_part(), block, width)
    })
}

/// The layer's weights, `[out][kernel_height][kernel_width][in / groups]`, of packed ones.
#[cfg(feature = "host")]
pub(super) fn unpacked(
    packed: &[i8],
    attributes: &Attributes,
    input: &Value,
    output: &Value,
) -> Option<alloc::vec::Vec<i8>> {
    let group = Group::new(attributes, input, output);
    let positions = group.positions();
    let blocks = (0..attributes.groups).flat_map(|_| group.blocks().map(|(_, count, width)| (count, width)));
    let in_runs = crate::host::unpack::from_blocks(packed, blocks, positions)?;
    let mut weights = alloc::vec![0; in_runs.len()];
    for (weights, in_runs) in weights.chunks_exact_mut(positions).zip(in_runs.chunks_exact(positions)) {
        for (position, &weight) in in_runs.iter().enumerate() {
            weights[group.place(position)] = weight;
        }
    }
    Some(weights)
}

#[cfg(feature = "alloc")]
fn cost<C: ChannelRules>(layer: &crate::image::Layer<'_>) -> Option<crate::image::Cost> {
    let attributes = Attributes::read(&layer.attributes).ok()?;
    let (input, output) = (&layer.inputs[0], &layer.outputs[0]);
    let group = Group::new(&attributes, input, output);
    let (form, _) = C::pack(layer, output.shape[2] as usize, group.positions()).ok()?;
    (form == ONE_PASS).then(|| estimate(&attributes, group, input, output))
}

#[cfg(feature = "alloc")]
fn pack<C: ChannelRules>(layer: &crate::image::Layer<'_>) -> Result<crate::image::Packed, crate::image::WriteError> {
    use alloc::{vec, vec::Vec};
    use zerocopy::IntoBytes;
    let attributes = Attributes::read(&layer.attributes).map_err(|broken| broken.of(NAME))?;
    let (input, output) = (&layer.inputs[0], &layer.outputs[0]);
    let group = Group::new(&attributes, input, output);
    let (outputs, positions) = (output.shape[2] as usize, group.positions());
    let (form, channels) = C::pack(layer, outputs, positions)?;
    let weights = layer.int8("weights", outputs * positions)?;
    let mut packed = Vec::with_capacity(attributes.groups as usize * group.weights());
    for weights in weights.chunks_exact(nonzero(group.outputs * positions)) {
        for (first, count, width) in group.blocks() {
            for position in 0..positions {
                let place = group.place(position);
                let weight =
                    |lane: usize| if lane < count { weights[(first + lane) * positions + place] as u8 } else { 0 };
                packed.extend((0..width).map(weight));
            }
        }
    }
    let scratch_length = attributes.window().scratch_length(input) * size_of::<C::Element>();
    let constants = vec![packed, channels.as_bytes().to_vec()];
    // It walks all of them for each row of outputs.
    let [rows, _] = rows_and_pixels(&attributes.window(), output);
    let read = Some(constants.iter().map(Vec::len).sum::<usize>().saturating_mul(rows));
    Ok(crate::image::Packed { form, constants, scratch_length, read })
}

/// The estimate of a run: 900 instructions, and for each row 100, and for each of its padded rows 175 and one per element. The loops of a tile are
/// those of [`Runs`]; a requantization stalls for 9 cycles, a position branches once.
#[cfg(feature = "alloc")]
fn estimate(attributes: &Attributes, group: Group, input: &Value, output: &Value) -> crate::image::Cost {
    use crate::image::Cost;
    let window = attributes.window();
    let [height, pixels] = rows_and_pixels(&window, output).map(|count| count as u64);
    let (runs, rows) = match group.runs_of_channels() {
        true if group.taps == 1 => (group.rows, 1),
        true => (group.rows * group.taps, group.rows),
        false if group.inputs == 1 => (group.rows, 1),
        false => (group.rows * group.inputs, group.rows),
    };
    let (mut instructions, mut stalls) = (0, 0);
    for (_, count, width) in group.blocks() {
        let tiles = pixels.div_ceil(pixels_of(width) as u64);
        let outputs = (pixels_of(width) * count) as u64;
        let (position, per_run) = if width == LANES { (26, 8) } else { (19 + 9 * (width as u64 - 1), 10) };
        let positions = group.positions() as u64;
        let tile = position * positions + per_run * runs as u64 + 15 * rows as u64 + 23;
        instructions += tiles * (tile + 10 * outputs) + 60;
        stalls += tiles * (2 * positions + 9 * outputs + 10);
    }
    let padded = match window.scratch_length(input) as u64 {
        0 => 0,
        length => 175 * group.rows as u64 + length,
    };
    let groups = attributes.groups as u64;
    Cost { instructions: height * (groups * instructions + 100 + padded) + 900, stalls: height * groups * stalls + 300 }
}
