//! 2-D convolution: `y = clamp(requantize(bias + sum (x - z_x) * w) + z_y)`, padding with `z_x`; 1-D is height 1.
//!
//! Tensors for the writer: `weights` int8 `[out, kernel_height, kernel_width, in / groups]`, `bias` int32 `[out]` with scale
//! `s_x * s_w`, int64 if the layer is of int16, `weight_scales` float32 `[out]`. Bit-exact with TensorFlow Lite Micro's `CONV_2D`, int8 and
//! int16x8.
//!
//! The kernel is im2col and GEMM, tile by tile. Packed: for each group, blocks of four output channels (the last one padded with zeros), each
//! `[kernel_height][kernel_width][in / groups][4]`. Scratch: the im2col columns of a tile of four output pixels,
//! `[kernel_height][kernel_width][in / groups][4]`. Each block of channels makes one pass over them with 16 accumulators. As many blocks as stay in the flash
//! cache are a chunk; each chunk goes over all tiles.

mod add;
mod depthwise;
mod direct;
mod gather;
#[cfg(feature = "host")]
pub(super) mod host;
mod narrow;
mod one_pixel;
mod pairs;
mod winograd;

pub use add::CONV2D_ADD;
#[cfg(feature = "alloc")]
pub(crate) use add::FUSION;
pub use depthwise::{CONV2D_LINES, CONV2D_LINES_INT16};
pub use direct::{CONV2D_DIRECT, CONV2D_DIRECT_INT16};
pub use narrow::CONV2D_NARROW;
pub use one_pixel::CONV2D_ONE_PIXEL;
pub use pairs::{CONV2D_ADD_PAIRS, CONV2D_PAIRS};
pub use winograd::{
    CONV2D_ADD_WINOGRAD2, CONV2D_ADD_WINOGRAD4, CONV2D_WINOGRAD2, CONV2D_WINOGRAD4, CONV2D_WINOGRAD4_TRANSFORMED,
};

use core::ops::Range;

use crate::BrokenRule;
use crate::arena::{Io, scratch_elements};
use crate::image::{Element, Value};
use crate::kernels::{Accumulate, Channel, Columns, LANES, LITERAL, ONE_PASS, Requantization, WideChannel};
use crate::node::{Node, existing};
use crate::operator::{Alias, Checked, CheckedPart, Kernel, Operator, Output, Run, nonzero, require, unchecked};
use crate::ops::channels::{self, ChannelRules};
use crate::ops::window::{Window, check_groups, window_attributes};
use add::Sum;
use gather::Gather;

/// Kernel of the convolution.
pub const CONV2D: Kernel = kernel::<Channel>(1, NAME);
/// Kernel of the convolution of int16.
pub const CONV2D_INT16: Kernel = kernel::<WideChannel>(38, "conv2d_int16");

const fn kernel<C: ChannelRules>(id: u16, name: &'static str) -> Kernel {
    Kernel {
        id,
        name,
        operator: &OPERATOR,
        inputs: <C::Element as Element>::DTYPES,
        outputs: <C::Element as Element>::DTYPES,
        pitched: true,
        forms: &[LITERAL, ONE_PASS],
        check: |node| {
            let convolution = Conv2d::<C>::of(node)?;
            node.require_scratch::<C::Element>(convolution.columns_length())?;
            convolution.check()
        },
        run: Run::Apart(|node, io| {
            let Io { inputs, mut outputs, scratch } = io;
            Conv2d::<C>::of_checked(node).run(inputs.get(0), scratch_elements(scratch), outputs.take(), None);
        }),
        #[cfg(feature = "alloc")]
        cost: |layer| cost(layer, &layer.attributes),
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
    shape: |node, _| shape(node, node.attributes()),
    macs: |node| macs(node, node.attributes()),
};

const NAME: &str = "conv2d";

window_attributes!(groups, clamp_min, clamp_max);

/// The output shape of a convolution with these attributes.
fn shape(node: &Node<'_>, attributes: &[i32]) -> Result<[u32; 3], BrokenRule> {
    let attributes = Attributes::read(attributes)?;
    check_groups(node, attributes.groups)?;
    Window::shape(node, node.output(0).shape[2])
}

fn macs(node: &Node<'_>, attributes: &[i32]) -> u64 {
    Attributes::read(attributes).map_or(0, |attributes| {
        let per_group = node.input(0).shape[2] as usize / nonzero(attributes.groups as usize);
        node.output(0).len() as u64 * (attributes.window().area() * per_group) as u64
    })
}

/// Bytes of weights that stay in the smallest flash cache of the chips, of 16 KB, beside the code of the loop.
const CHUNK: usize = 10 * 1024;

/// Number of blocks of so many bytes that stay in the flash cache over all tiles, beside the code: a chunk. Weights that do not stay are read again for
/// each tile, which can take longer than the arithmetic.
fn blocks_of_chunk(block_length: usize) -> usize {
    (CHUNK / nonzero(block_length)).max(1)
}

struct Conv2d<'a, C> {
    attributes: Attributes,
    input: &'a Value,
    output: &'a Value,
    weights: &'a [i8],
    channels: &'a [C],
    /// Elements from one convolved pixel to the next in the memory that they are written to.
    pitch: usize,
    requantization: Requantization,
    groups: usize,
    /// Output and input channels of one group.
    per_group: usize,
    inputs_per_group: usize,
}

impl<'a, C: ChannelRules> Conv2d<'a, C> {
    /// The convolution of an unfused node.
    fn of(node: &Node<'a>) -> Result<Self, BrokenRule> {
        Conv2d::read(node, Attributes::read(node.attributes())?, node.form(), 0, node.output(0).pitch)
    }

    /// [`Conv2d::of`] a node that was checked. One function, so that the program has one place that can panic.
    #[inline(always)]
    fn of_checked(node: &Node<'a>) -> Self {
        Conv2d::of(node).checked()
    }

    /// The convolution in a node, possibly a fused one: constant `weights` holds its weights, the next constant its channels.
    // Inlined: a call would cost 60 instructions, which matters for small convolutions.
    #[inline(always)]
    fn read(node: &Node<'a>, attributes: Attributes, form: u8, weights: usize, pitch: u32) -> Result<Self, BrokenRule> {
        let (input, output) = (existing(node.find_input(0)), node.output(0));
        let requantization = Requantization::new(form, attributes.clamp_min, attributes.clamp_max);
        let channels = node.constant(weights + 1)?;
        let weights = node.constant(weights)?;
        let groups = nonzero(attributes.groups as usize);
        let [per_group, inputs_per_group] = [output, input].map(|value| value.shape[2] as usize / groups);
        let pitch = nonzero(pitch as usize);
        Ok(Conv2d {
            attributes,
            input,
            output,
            weights,
            channels,
            pitch,
            requantization,
            groups,
            per_group,
            inputs_per_group,
        })
    }

    fn check(&self) -> Result<(), BrokenRule> {
        let attributes = &self.attributes;
        let outputs = self.output.shape[2] as usize;
        let blocks = self.groups as u64 * self.blocks_per_group() as u64;
        let weights = blocks * self.block_length() as u64;
        require!(self.weights.len() as u64 == weights, "wrong number of weights", self.weights.len() as i64);
        require!(self.channels.len() == outputs, "wrong number of channels", self.channels.len() as i64);
        channels::check_clamp_of(C::Element::DTYPE, (attributes.clamp_min, attributes.clamp_max))?;
        let mut check = channels::Check::new(self.requantization.form());
        let groups = self.weights.chunks_exact(nonzero(self.blocks_per_group() * self.block_length()));
        for (channels, group) in self.channels.chunks_exact(nonzero(self.per_group)).zip(groups) {
            check.blocks(channels, group, LANES, self.block_length())?;
        }
        Ok(())
    }

    fn blocks_per_group(&self) -> usize {
        self.per_group.div_ceil(LANES)
    }

    /// Number of inputs under one window, in one group.
    fn window_length(&self) -> usize {
        self.attributes.window().area() * self.inputs_per_group
    }

    /// Number of blocks of a group in a chunk.
    fn blocks_of_chunk(&self) -> usize {
        match self.groups {
            1 => blocks_of_chunk(self.block_length()),
            _ => self.blocks_per_group(),
        }
    }

    /// Elements of the im2col columns of a tile.
    fn columns_length(&self) -> usize {
        self.window_length() * LANES
    }

    /// Bytes of one packed block of weights.
    fn block_length(&self) -> usize {
        self.window_length() * LANES
    }

    /// Convolves `input`, tile by tile. Writes the result to `output`, or with `sum` adds it to the residual in `output`. `columns` has
    /// [`Conv2d::columns_length`] elements.
    // Not inlined, for code size: the fused kernel calls it, too.
    #[inline(never)]
    fn run(
        &self,
        input: &[C::Element],
        columns: &mut [C::Element],
        output: &mut [C::Element],
        sum: Option<Sum<'_, C::Element>>,
    ) {
        if self.requantization.is_one_pass() {
            self.run_as::<C::OnePass>(input, columns, output, sum)
        } else {
            self.run_as::<C::Literal>(input, columns, output, sum)
        }
    }

    fn run_as<A: Accumulate<Channel = C, Element = C::Element>>(
        &self,
        input: &[C::Element],
        columns: &mut [C::Element],
        output: &mut [C::Element],
        mut sum: Option<Sum<'_, C::Element>>,
    ) {
        let pitch = nonzero(self.output.pitch as usize);
        let between = (self.output.pitch - self.output.shape[2]) as usize;
        let gather = Gather::new(self);
        let columns = columns.as_chunks_mut().0;
        let blocks = self.blocks_of_chunk();
        let mut first = 0;
        while first < self.blocks_per_group() {
            let chunk = first..(first + blocks).min(self.blocks_per_group());
            let (mut y, mut x) = (0, 0);
            for tile in output.chunks_mut(nonzero(LANES * pitch)) {
                // The last pixel of the output has no gap after its channels.
                let pixels = (tile.len() + between) / pitch;
                let convolved = match &mut sum {
                    None => &mut *tile,
                    Some(sum) => &mut *sum.convolved,
                };
                for group in 0..self.groups {
                    gather.fill(columns, pixels, (y, x), group, input);
                    self.tile::<A>(columns, group, chunk.clone(), convolved, pixels == LANES);
                }
                if let Some(sum) = &mut sum {
                    self.add_chunk(sum, &chunk, tile);
                }
                x += pixels;
                while x >= gather.output_width {
                    (y, x) = (y + 1, x - gather.output_width);
                }
            }
            first = chunk.end;
        }
    }

    /// Adds the channels of a chunk to the residual's pixels in `tile`.
    #[inline(always)]
    fn add_chunk(&self, sum: &mut Sum<'_, C::Element>, chunk: &Range<usize>, tile: &mut [C::Element]) {
        if chunk.len() == self.blocks_per_group() {
            return (sum.add)(sum.convolved, tile);
        }
        let channels = LANES * chunk.start..(LANES * chunk.end).min(self.per_group);
        let pitch = nonzero(self.output.pitch as usize);
        for (convolved, pixel) in sum.convolved.chunks_mut(nonzero(self.pitch)).zip(tile.chunks_mut(pitch)) {
            (sum.add)(
                convolved.get_mut(channels.clone()).checked_part(),
                pixel.get_mut(channels.clone()).checked_part(),
            );
        }
    }

    /// Computes the output channels of a chunk of `group` for the pixels of one tile; `whole` says that the tile has all four pixels.
    #[inline(always)]
    fn tile<A: Accumulate<Channel = C, Element = C::Element>>(
        &self,
        columns: &Columns<C::Element>,
        group: usize,
        chunk: Range<usize>,
        tile: &mut [C::Element],
        whole: bool,
    ) {
        let first = group * self.per_group + LANES * chunk.start;
        let count = (LANES * chunk.len()).min(self.per_group - LANES * chunk.start);
        let block = group * self.blocks_per_group() + chunk.start;
        let weights = self.weights.get(block * self.block_length()..).checked_part();
        let channels = self.channels.get(first..).checked_part().get(..count).checked_part();
        let tile = tile.get_mut(first..).checked_part();
        let (full, rest) = channels.as_chunks();
        if whole {
            block_row::<A>(&self.requantization, full, columns, weights, tile, self.pitch);
        }
        if whole && rest.is_empty() {
            return;
        }
        self.partial_blocks::<A>(channels, if whole { full.len() } else { 0 }, columns, weights, tile)
    }

    /// Computes the blocks of `channels` from block `first` on, where a block has fewer than four channels or `tile` fewer than four pixels.
    // Not inlined, to keep registers free for whole tiles.
    #[cold]
    #[inline(never)]
    fn partial_blocks<A: Accumulate<Channel = C, Element = C::Element>>(
        &self,
        channels: &[C],
        first: usize,
        columns: &Columns<C::Element>,
        weights: &[i8],
        tile: &mut [C::Element],
    ) {
        let weights = weights.chunks_exact(nonzero(self.block_length()));
        for (index, (given, weights)) in channels.chunks(LANES).zip(weights).enumerate().skip(first) {
            let mut filled_up = [C::default(); LANES];
            let channels = given.first_chunk().unwrap_or_else(|| {
                filled_up.iter_mut().zip(given).for_each(|(channel, given)| *channel = *given);
                &filled_up
            });
            let mut pixels = [[C::Element::default(); LANES]; LANES];
            let (channels, output) = (core::slice::from_ref(channels), pixels.as_flattened_mut());
            block_row::<A>(&self.requantization, channels, columns, weights, output, LANES);
            for (output, pixel) in tile.chunks_mut(nonzero(self.pitch)).zip(&pixels) {
                let output = output.get_mut(LANES * index..).checked_part();
                output.iter_mut().zip(pixel).take(given.len()).for_each(|(output, &pixel)| *output = pixel);
            }
        }
    }
}

/// GEMM of blocks of output channels for one tile of four pixels, which lie `pitch` elements apart in `output`.
///
/// # Panics
/// If there are no columns, or `output` is too short.
#[inline(never)]
fn block_row<A: Accumulate>(
    requantization: &Requantization,
    channels: &[[A::Channel; LANES]],
    columns: &Columns<A::Element>,
    weights: &[i8],
    output: &mut [A::Element],
    pitch: usize,
) {
    let requantization = *requantization;
    if columns.is_empty() || output.len() < (LANES - 1) * pitch + LANES * channels.len() {
        unchecked();
    }
    let mut first = output.as_mut_ptr();
    for (channels, weights) in channels.iter().zip(weights.as_chunks::<LANES>().0.chunks_exact(columns.len())) {
        let sums = A::dot_4x4(channels, columns, weights);
        for (lane, (channel, sums)) in channels.iter().zip(&sums).enumerate() {
            for (pixel, &sum) in sums.iter().enumerate() {
                // SAFETY: pixel and lane are below LANES, and the length was checked above. A check per element costs 3
                // instructions per output.
                unsafe { *first.add(pixel * pitch + lane) = requantization.apply_as::<A>(channel, sum) };
            }
        }
        first = first.wrapping_add(LANES);
    }
}

/// The estimate of one run, fitted to counts. Without groups a tile takes 40 instructions per position and 230 more for each block of channels, and in each
/// chunk 18 per position and 300 more to fill the columns, for each run of taps 100, at edges 156 for each tap. In groups, filling takes 30 for a tap and 4.5 for each of its inputs, and a block of channels
/// 150 and 2.6 per product, or 500 more if it is partial. The loop over two positions jumps back, a requantization stalls for 9 cycles.
#[cfg(feature = "alloc")]
fn cost(layer: &crate::image::Layer<'_>, attributes: &[i32]) -> Option<crate::image::Cost> {
    let attributes = Attributes::read(attributes).ok()?;
    let (output, groups) = (&layer.outputs[0], nonzero(attributes.groups as usize) as u64);
    let [per_group, inputs] = [output, &layer.inputs[0]].map(|value| u64::from(value.shape[2]) / groups);
    let taps = attributes.window().area() as u64;
    let positions = taps * inputs;
    let tiles = u64::from(output.shape[0] * output.shape[1]).div_ceil(LANES as u64);
    let in_group = per_group.div_ceil(LANES as u64);
    let blocks = groups * tiles * in_group;
    let is_partial = u64::from(!per_group.is_multiple_of(LANES as u64));
    let instructions = if groups == 1 {
        let chunks = in_group.div_ceil(blocks_of_chunk(LANES * positions as usize) as u64);
        let fills = pairs::Fills::of(&attributes, &layer.inputs[0], output);
        let of_fills = 100 * (fills.runs - fills.at_edges) + 156 * fills.at_edges;
        blocks * (40 * positions + 230)
            + chunks * of_fills
            + tiles * (chunks * (18 * positions + 300) + 120 * is_partial)
    } else {
        let block = 150 + 16 * 26 * positions / 10;
        tiles * groups * (LANES as u64 * taps * (30 + 9 * inputs / 2) + in_group * block + 500 * is_partial)
    };
    Some(crate::image::Cost { instructions: instructions + 950, stalls: blocks * (positions + 150) })
}

#[cfg(feature = "alloc")]
fn pack<C: ChannelRules>(layer: &crate::image::Layer<'_>) -> Result<crate::image::Packed, crate::image::WriteError> {
    use alloc::vec;
    use zerocopy::IntoBytes;
    let attributes = Attributes::read(&layer.attributes).map_err(|broken| broken.of(NAME))?;
    let groups = attributes.groups as usize;
    let (inputs, outputs) = (layer.inputs[0].shape[2] as usize / groups, layer.outputs[0].shape[2] as usize);
    let per_group = outputs / groups;
    let per_output = attributes.window().area() * inputs;
    let (form, channels) = C::pack(layer, outputs, per_output)?;
    let mut packed = vec![0u8; groups * per_group.div_ceil(LANES) * LANES * per_output];
    for (output, weights) in layer.int8("weights", outputs * per_output)?.chunks_exact(per_output.max(1)).enumerate() {
        let (group, within) = (output / per_group, output % per_group);
        let block = group * per_group.div_ceil(LANES) + within / LANES;
        for (position, &weight) in weights.iter().enumerate() {
            packed[(block * per_output + position) * LANES + within % LANES] = weight as u8;
        }
    }
    let scratch_length = per_output * LANES * size_of::<C::Element>();
    let constants = vec![packed, channels.as_bytes().to_vec()];
    // Of one group, the weights are read once: chunk by chunk.
    let read = (groups > 1).then(|| crate::ops::channels::pack::read_per_tile(&constants, &layer.outputs[0]));
    Ok(crate::image::Packed { form, constants, scratch_length, read })
}
