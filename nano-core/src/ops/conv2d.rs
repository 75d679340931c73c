//! 2-D convolution: `y = clamp(requantize(bias + sum (x - z_x) * w) + z_y)`, padding with `z_x`; 1-D is height 1.
//!
//! Tensors for the writer: `weights` int8 [out, kernel_height, kernel_width, in / groups], `bias` int32 [out] with scale
//! `s_x * s_w`, `weight_scales` float32 [out]. Bit-exact with TensorFlow Lite Micro's int8 `CONV_2D`.
//!
//! Packed: per group, blocks of four output channels (the last filled up with zeros), each
//! [kernel_height][kernel_width][in / groups][4]. Scratch: the inputs under the windows of four output pixels side by side,
//! [kernel_height][kernel_width][in / groups][4]; every block of channels then runs over them in one pass, 16 accumulators at a time.

use crate::BrokenRule;
use crate::arena::Io;
use crate::image::{Dtype, Value};
use crate::kernels::{self, Channel, Columns, Form, LANES, LITERAL, Literal, ONE_PASS, OnePass, Requantization};
use crate::node::{Node, existing};
use crate::operator::{Alias, Checked, Kernel, Operator, Output, Run, nonzero, require, unchecked};
use crate::ops::channels;
use crate::ops::window::{Window, window_attributes};

/// Kernel of the convolution.
pub const CONV2D: Kernel = Kernel {
    id: 1,
    name: NAME,
    operator: &OPERATOR,
    inputs: &[Dtype::Int8],
    outputs: &[Dtype::Int8],
    pitched: true,
    forms: &[LITERAL, ONE_PASS],
    check: |node| Conv2d::read(node)?.check(node),
    run: Run::Apart(|node, io| Conv2d::read(node).checked().run(io)),
    #[cfg(feature = "alloc")]
    cost: |layer| Some(3 * layer.macs),
    #[cfg(feature = "alloc")]
    pack,
};

static OPERATOR: Operator = Operator {
    name: NAME,
    attributes: Attributes::NAMES,
    inputs: 1..=1,
    outputs: &[Output::OWN],
    alias: Alias::Never,
    shape: |node, _| {
        let attributes = Attributes::read(node.attributes())?;
        let (input, channels) = (node.input(0), node.output(0).shape[2]);
        let divides = |channels: u32| attributes.groups >= 1 && channels.is_multiple_of(attributes.groups as u32);
        require!(divides(input.shape[2]), "groups does not divide the input channels", attributes.groups);
        require!(divides(channels), "groups does not divide the output channels", attributes.groups);
        Window::shape(node, channels)
    },
    macs: |node| {
        let per_group = |attributes: Attributes| node.input(0).shape[2] as usize / nonzero(attributes.groups as usize);
        Attributes::read(node.attributes()).map_or(0, |attributes| {
            node.output(0).len() as u64 * (attributes.window().area() * per_group(attributes)) as u64
        })
    },
};

const NAME: &str = "conv2d";

window_attributes!(groups, clamp_min, clamp_max);

struct Conv2d<'a> {
    attributes: Attributes,
    input: &'a Value,
    output: &'a Value,
    weights: &'a [i8],
    channels: &'a [Channel],
    requantization: Requantization,
    groups: usize,
    /// Output and input channels of one group.
    per_group: usize,
    inputs_per_group: usize,
}

impl<'a> Conv2d<'a> {
    fn read(node: &Node<'a>) -> Result<Self, BrokenRule> {
        let attributes = Attributes::read(node.attributes())?;
        let (input, output) = (existing(node.find_input(0)), node.output(0));
        let requantization = Requantization::new(node.form(), attributes.clamp_min, attributes.clamp_max);
        let weights = node.constant(0)?;
        let channels = node.constant(1)?;
        let groups = nonzero(attributes.groups as usize);
        let [per_group, inputs_per_group] = [output, input].map(|value| value.shape[2] as usize / groups);
        Ok(Conv2d { attributes, input, output, weights, channels, requantization, groups, per_group, inputs_per_group })
    }

    fn check(&self, node: &Node<'_>) -> Result<(), BrokenRule> {
        let attributes = &self.attributes;
        let outputs = self.output.shape[2] as usize;
        let blocks = self.groups as u64 * self.blocks_per_group() as u64;
        let weights = blocks * self.block_length() as u64;
        require!(self.weights.len() as u64 == weights, "wrong number of weights", self.weights.len() as i64);
        require!(self.channels.len() == outputs, "wrong number of channels", self.channels.len() as i64);
        let scratch = self.window_length() * LANES;
        require!(node.scratch_length() == scratch, "wrong scratch length", node.scratch_length() as i64);
        channels::check_clamp((attributes.clamp_min, attributes.clamp_max))?;
        let mut check = channels::Check::new(node.form());
        let groups = self.weights.chunks_exact(nonzero(self.blocks_per_group() * self.block_length()));
        for (channels, group) in self.channels.chunks_exact(nonzero(self.per_group)).zip(groups) {
            check.blocks(channels, group, self.block_length())?;
        }
        Ok(())
    }

    fn blocks_per_group(&self) -> usize {
        self.per_group.div_ceil(LANES)
    }

    /// Inputs under one window, in one group.
    fn window_length(&self) -> usize {
        self.attributes.window().area() * self.inputs_per_group
    }

    /// Bytes of one packed block.
    fn block_length(&self) -> usize {
        self.window_length() * LANES
    }

    fn run(&self, io: Io<'_>) {
        if self.requantization.is_one_pass() { self.run_as::<OnePass>(io) } else { self.run_as::<Literal>(io) }
    }

    fn run_as<F: Form>(&self, io: Io<'_>) {
        let Io { inputs, mut outputs, scratch } = io;
        let (input, output): (&[i8], &mut [i8]) = (inputs.get(0), outputs.take());
        let pitch = nonzero(self.output.pitch as usize);
        let between = (self.output.pitch - self.output.shape[2]) as usize;
        let gather = self.gather();
        let columns = scratch.as_chunks_mut().0;
        let (mut y, mut x) = (0, 0);
        for tile in output.chunks_mut(nonzero(LANES * pitch)) {
            // The last pixel of all ends with its channels.
            let pixels = (tile.len() + between) / pitch;
            for group in 0..self.groups {
                gather.fill(columns, pixels, (y, x), group, input);
                self.tile::<F>(columns, group, tile, pixels == LANES);
            }
            x += pixels;
            while x >= gather.output_width {
                (y, x) = (y + 1, x - gather.output_width);
            }
        }
    }

    fn gather(&self) -> Gather {
        let window = self.attributes.window();
        let [mut height, mut width, channels] = self.input.shape.map(|side| side as usize);
        let pitch = self.input.pitch as usize;
        let mut output_width = self.output.shape[1] as usize;
        if window.is_one_to_one() {
            // All pixels are one long row: more tiles lie in one row.
            (height, width, output_width) = (1, height * width, height * output_width);
        }
        let kernel_width = window.horizontal.kernel as usize;
        // Taps that lie side by side are copied together.
        let side_by_side = window.horizontal.dilation == 1 && self.groups == 1 && pitch == channels;
        let together = if side_by_side { kernel_width } else { 1 };
        Gather {
            window,
            height,
            width,
            pitch,
            output_width,
            length: self.inputs_per_group,
            runs: kernel_width / nonzero(together),
            run_length: together * self.inputs_per_group,
            run_step: window.horizontal.dilation as usize * pitch,
            row_step: window.vertical.dilation as usize * width * pitch,
            zero: self.input.zero_point as i8,
        }
    }

    /// All output channels of `group` for the pixels of one tile, which is `whole` if it has four.
    #[inline(always)]
    fn tile<F: Form>(&self, columns: &Columns, group: usize, tile: &mut [i8], whole: bool) {
        let first = group * self.per_group;
        let weights = self.weights.get(group * self.blocks_per_group() * self.block_length()..).checked();
        let channels = self.channels.get(first..).checked().get(..self.per_group).checked();
        let tile = tile.get_mut(first..).checked();
        let (full, rest) = channels.as_chunks();
        if whole {
            block_row::<F>(&self.requantization, full, columns, weights, tile, self.output.pitch as usize);
        }
        if whole && rest.is_empty() {
            return;
        }
        self.partial_blocks::<F>(channels, if whole { full.len() } else { 0 }, columns, weights, tile)
    }

    /// The blocks of `channels` from `first` on, for as many pixels as begin in `tile`, if there are fewer than four of either.
    // Not inlined: it would take registers from the whole tiles.
    #[cold]
    #[inline(never)]
    fn partial_blocks<F: Form>(
        &self,
        channels: &[Channel],
        first: usize,
        columns: &Columns,
        weights: &[i8],
        tile: &mut [i8],
    ) {
        let weights = weights.chunks_exact(nonzero(self.block_length()));
        for (index, (given, weights)) in channels.chunks(LANES).zip(weights).enumerate().skip(first) {
            let mut filled_up = [Channel::default(); LANES];
            let channels = given.first_chunk().unwrap_or_else(|| {
                filled_up.iter_mut().zip(given).for_each(|(channel, given)| *channel = *given);
                &filled_up
            });
            let mut pixels = [[0; LANES]; LANES];
            let (channels, output) = (core::slice::from_ref(channels), pixels.as_flattened_mut());
            block_row::<F>(&self.requantization, channels, columns, weights, output, LANES);
            for (output, pixel) in tile.chunks_mut(nonzero(self.output.pitch as usize)).zip(&pixels) {
                let output = output.get_mut(LANES * index..).checked().get_mut(..given.len()).checked();
                output.copy_from_slice(pixel.get(..given.len()).checked());
            }
        }
    }
}

/// Where the inputs of a tile are.
struct Gather {
    window: Window,
    /// The input's sides.
    height: usize,
    width: usize,
    /// Bytes from one input pixel to the next.
    pitch: usize,
    output_width: usize,
    /// Input channels of a group.
    length: usize,
    /// Runs of taps that lie side by side, in one row of a window; bytes of one, and from one to the next.
    runs: usize,
    run_length: usize,
    run_step: usize,
    /// Bytes from one of a window's rows to the next.
    row_step: usize,
    zero: i8,
}

impl Gather {
    /// Copies what the windows of `pixels` output pixels from (y, x) on cover, in the channels of `group`, each into its column.
    fn fill(&self, columns: &mut Columns, pixels: usize, (y, x): (usize, usize), group: usize, input: &[i8]) {
        let Window { vertical, horizontal } = self.window;
        let (top, left) = (vertical.start(y), horizontal.start(x));
        let bottom = top + (vertical.kernel - 1) * vertical.dilation;
        let right = left + (LANES as i32 - 1) * horizontal.stride + (horizontal.kernel - 1) * horizontal.dilation;
        let inside = top >= 0 && left >= 0 && bottom < self.height as i32 && right < self.width as i32;
        if !inside || x + LANES > self.output_width {
            self.fill_by_tap(columns, pixels, (y, x), group, input);
            return;
        }
        let mut row = (top as usize * self.width + left as usize) * self.pitch + group * self.length;
        let pitch = horizontal.stride as usize * self.pitch;
        let mut rest = columns;
        for _ in 0..vertical.kernel {
            let mut start = row;
            for _ in 0..self.runs {
                let (run, after) = rest.split_at_mut_checked(self.run_length).checked();
                kernels::fill_columns(run, input.get(start..).checked(), pitch);
                (rest, start) = (after, start + self.run_step);
            }
            row += self.row_step;
        }
    }

    /// [`Gather::fill`] for windows that lie partly in the padding, or not side by side.
    #[inline(never)]
    fn fill_by_tap(
        &self,
        columns: &mut Columns,
        pixels: usize,
        (mut y, mut x): (usize, usize),
        group: usize,
        input: &[i8],
    ) {
        let Window { vertical, horizontal } = self.window;
        for pixel in 0..pixels {
            let (top, left) = (vertical.start(y), horizontal.start(x));
            let mut taps = columns.chunks_exact_mut(self.length);
            for ky in 0..vertical.kernel {
                let y = top + ky * vertical.dilation;
                for kx in 0..horizontal.kernel {
                    let Some(columns) = taps.next() else { return };
                    let x = left + kx * horizontal.dilation;
                    if (y as usize) < self.height && (x as usize) < self.width {
                        let start = (y as usize * self.width + x as usize) * self.pitch + group * self.length;
                        kernels::fill_column(columns, pixel, input.get(start..).checked().get(..self.length).checked());
                    } else {
                        columns.iter_mut().for_each(|column| *column.get_mut(pixel).checked() = self.zero);
                    }
                }
            }
            x += 1;
            if x == self.output_width {
                (y, x) = (y + 1, 0);
            }
        }
    }
}

/// Some blocks of output channels for one tile, to the beginning of each of its pixels, which lie `pitch` bytes apart in `output`.
///
/// # Panics
/// If they do not fit.
#[inline(never)]
fn block_row<F: Form>(
    requantization: &Requantization,
    channels: &[[Channel; LANES]],
    columns: &Columns,
    weights: &[i8],
    output: &mut [i8],
    pitch: usize,
) {
    let requantization = *requantization;
    if columns.is_empty() || output.len() < (LANES - 1) * pitch + LANES * channels.len() {
        unchecked();
    }
    let mut first = output.as_mut_ptr();
    for (channels, weights) in channels.iter().zip(weights.as_chunks::<LANES>().0.chunks_exact(columns.len())) {
        let sums = kernels::dot_4x4(channels.each_ref().map(|channel| channel.bias), columns, weights);
        for (lane, (channel, sums)) in channels.iter().zip(&sums).enumerate() {
            for (pixel, &sum) in sums.iter().enumerate() {
                // SAFETY: pixel and lane are below LANES, and the length was checked above. A check per element costs 3
                // instructions per output.
                unsafe { *first.add(pixel * pitch + lane) = requantization.apply_as::<F>(channel, sum) };
            }
        }
        first = first.wrapping_add(LANES);
    }
}

#[cfg(feature = "alloc")]
fn pack(layer: &crate::image::Layer<'_>) -> Result<crate::image::Packed, crate::image::WriteError> {
    use alloc::vec;
    use zerocopy::IntoBytes;
    let attributes = Attributes::read(&layer.attributes).map_err(|broken| broken.of(NAME))?;
    let groups = attributes.groups as usize;
    let (inputs, outputs) = (layer.inputs[0].shape[2] as usize / groups, layer.outputs[0].shape[2] as usize);
    let per_group = outputs / groups;
    let per_output = attributes.window().area() * inputs;
    let (form, channels) = channels::pack::channels(layer, outputs, per_output)?;
    let mut packed = vec![0u8; groups * per_group.div_ceil(LANES) * LANES * per_output];
    for (output, weights) in layer.int8("weights", outputs * per_output)?.chunks_exact(per_output.max(1)).enumerate() {
        let (group, within) = (output / per_group, output % per_group);
        let block = group * per_group.div_ceil(LANES) + within / LANES;
        for (position, &weight) in weights.iter().enumerate() {
            packed[(block * per_output + position) * LANES + within % LANES] = weight as u8;
        }
    }
    let scratch_length = per_output * LANES;
    Ok(crate::image::Packed { form, constants: vec![packed, channels.as_bytes().to_vec()], scratch_length })
}
