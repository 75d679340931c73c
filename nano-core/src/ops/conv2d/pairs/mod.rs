//! Convolution with two pixels per multiplication ([`crate::kernels`], `pixel_pairs.rs`), of any window, with one group. Its constants stay in
//! the flash cache over all pixels.
//!
//! Packed: blocks of four output channels, each `[kernel_height][kernel_width][in][4]`; then the channels left over, each
//! `[kernel_height][kernel_width][in]`. Scratch: the im2col columns of four output pixels, 8 bytes for each position under a window; one more; and the inputs of a
//! pixel of padding.
//!
//! The loops go over blocks of at most [`PASS`] bytes of weights (outside), tiles of four pixels, and the blocks of these weights (inside). So
//! weights larger than the cache are read from flash once, not once per tile, and the columns are filled once per [`PASS`] bytes.

mod gather;
mod tile;

use zerocopy::{FromBytes, IntoBytes};

use super::add::{self, Parts, Sum};
#[cfg(feature = "alloc")]
use super::{Attributes, NAME};
use super::{Conv2d, OPERATOR};
use crate::BrokenRule;
use crate::arena::Io;
use crate::image::Dtype;
use crate::kernels::{Channel, END, LANES, LITERAL, ONE_PASS, PairedColumn};
use crate::operator::{CheckedPart, Kernel, Run, nonzero, require};
use crate::ops::channels;
#[cfg(feature = "alloc")]
pub(super) use gather::Fills;
use gather::Gather;
use tile::Block;

/// Kernel of the convolution that multiplies pixels in pairs.
pub const CONV2D_PAIRS: Kernel = Kernel {
    id: 44,
    name: "conv2d_pairs",
    operator: &OPERATOR,
    inputs: &[Dtype::Int8],
    outputs: &[Dtype::Int8],
    pitched: true,
    forms: &[LITERAL, ONE_PASS],
    check: |node| {
        let convolution = Conv2d::of(node)?;
        node.require_scratch::<i8>(scratch_length(convolution.window_length(), convolution.inputs_per_group))?;
        check(&convolution)
    },
    run: Run::Apart(|node, io| {
        let Io { inputs, mut outputs, scratch } = io;
        let convolution = Conv2d::of_checked(node);
        // Weights in RAM are not read through the cache: one pass.
        let pass = if node.has_constants_in_ram() { usize::MAX } else { PASS };
        run(&convolution, inputs.get(0), scratch, outputs.take(), pass, None);
    }),
    #[cfg(feature = "alloc")]
    cost: |layer| cost(layer, &layer.attributes),
    #[cfg(feature = "alloc")]
    pack,
};

/// Kernel of the fused convolution and addition that multiplies pixels in pairs. Its scratch memory is followed by the convolved channels of four
/// pixels. It computes all channels of a tile at once, as the residual is added to whole pixels.
pub const CONV2D_ADD_PAIRS: Kernel = Kernel {
    id: 46,
    name: "conv2d_add_pairs",
    operator: &add::OPERATOR,
    inputs: &[Dtype::Int8],
    outputs: &[Dtype::Int8],
    pitched: true,
    forms: add::FORMS,
    check: |node| {
        let Parts { convolution, addition } = Parts::read(node)?;
        let own = scratch_length(convolution.window_length(), convolution.inputs_per_group);
        node.require_scratch::<i8>(own + LANES * convolution.pitch)?;
        check(&convolution)?;
        addition.check()
    },
    run: Run::Over(|node, io| {
        let parts = Parts::of_checked(node);
        let convolution = &parts.convolution;
        let Io { inputs, mut outputs, scratch } = io;
        let own = scratch_length(convolution.window_length(), convolution.inputs_per_group);
        let (scratch, convolved) = scratch.split_at_mut_checked(own).checked_part();
        let sum = Sum { convolved, add: &|convolved, tile| parts.add(convolved, tile) };
        run(convolution, inputs.get(0), scratch, outputs.take(), usize::MAX, Some(sum));
    }),
    #[cfg(feature = "alloc")]
    cost: |layer| Some(cost(layer, add::split(&layer.attributes).ok()?.0)? + add::cost_of_sum(layer)),
    #[cfg(feature = "alloc")]
    pack: |layer| {
        let mut packed = add::pack_with(layer, pack)?;
        packed.read = Some(channels::pack::read_per_tile(&packed.constants, &layer.outputs[0]));
        Ok(packed)
    },
};

/// Bytes of weights that stay in the smallest flash cache, of 16 KiB, beside the code of the loops and the channels' records.
const PASS: usize = 8 * 1024;

/// Of the columns: that of riscv32, on every machine.
const ALIGNMENT: usize = 4;

/// Bytes of the columns, with the word after the last, and of what precedes them to align them.
fn columns_length(positions: usize) -> usize {
    (positions + 1) * size_of::<PairedColumn>() + ALIGNMENT - 1
}

/// Bytes of scratch memory of windows of this many positions, on so many input channels.
fn scratch_length(positions: usize, inputs: usize) -> usize {
    columns_length(positions) + inputs
}

/// Checks all but the scratch memory.
fn check(convolution: &Conv2d<'_, Channel>) -> Result<(), BrokenRule> {
    let &Conv2d { attributes, weights, channels, groups, .. } = convolution;
    let (positions, outputs) = (convolution.window_length(), convolution.output.shape[2] as usize);
    require!(groups == 1, "in pairs of pixels, needs one group", groups as i64);
    require!(
        weights.len() as u64 == positions as u64 * outputs as u64,
        "wrong number of weights",
        weights.len() as i64
    );
    require!(channels.len() == outputs, "wrong number of channels", channels.len() as i64);
    channels::check_clamp((attributes.clamp_min, attributes.clamp_max))?;
    let mut check = channels::Check::new(convolution.requantization.form());
    let (full, rest) = channels.as_chunks::<LANES>();
    let (of_full, of_rest) = weights.split_at_checked(full.as_flattened().len() * positions).checked_part();
    check.blocks(full.as_flattened(), of_full, LANES, LANES * positions)?;
    check.blocks(rest, of_rest, 1, positions)
}

/// Convolves `input`, `pass` bytes of weights at a time. Writes the result to `output`, or with `sum` adds it to the residual in `output`.
// Not inlined, for code size: the fused kernel calls it, too.
#[inline(never)]
fn run(
    convolution: &Conv2d<'_, Channel>,
    input: &[i8],
    scratch: &mut [i8],
    output: &mut [i8],
    pass: usize,
    mut sum: Option<Sum<'_, i8>>,
) {
    let &Conv2d { weights, channels, pitch, .. } = convolution;
    let output_pitch = nonzero(convolution.output.pitch as usize);
    let positions = nonzero(convolution.window_length());
    let (columns, padding) = scratch.split_at_mut_checked(columns_length(positions)).checked_part();
    padding.fill(convolution.input.zero_point as i8);
    let (columns, padding) = (aligned(columns), &*padding);
    let (columns, after) = columns.split_at_mut_checked(positions).checked_part();
    after.fill(END);
    let gather = Gather::new(convolution, padding);
    let between = (convolution.output.pitch - convolution.output.shape[2]) as usize;
    let per_pass = nonzero(channels_per_pass(pass, positions));
    let passes = channels.chunks(per_pass).zip(weights.chunks(nonzero(per_pass.saturating_mul(positions))));
    for (index, (channels, weights)) in passes.enumerate() {
        let (mut y, mut x) = (0, 0);
        for tile in output.chunks_mut(nonzero(LANES * output_pitch)) {
            // The last pixel of the output has no gap after its channels.
            let pixels = (tile.len() + between) / output_pitch;
            gather.fill(columns, pixels, (y, x), input);
            let block = Block { requantization: convolution.requantization, columns, pitch };
            match &mut sum {
                None => block.all(channels, weights, tile.get_mut(index * per_pass..).checked_part(), pixels),
                Some(sum) => {
                    block.all(channels, weights, sum.convolved, pixels);
                    (sum.add)(sum.convolved, tile);
                }
            }
            x += pixels;
            while x >= gather.output_width {
                (y, x) = (y + 1, x - gather.output_width);
            }
        }
    }
}

/// Output channels whose weights take at most `pass` bytes, at least one block.
fn channels_per_pass(pass: usize, positions: usize) -> usize {
    (pass / nonzero(LANES * positions)).max(1) * LANES
}

/// The columns in their memory, whose address may be any.
fn aligned(memory: &mut [i8]) -> &mut [PairedColumn] {
    let before = memory.as_ptr().addr().wrapping_neg() % ALIGNMENT;
    let memory = IntoBytes::as_mut_bytes(memory.get_mut(before..).checked_part());
    <[PairedColumn]>::mut_from_prefix(memory).ok().checked_part().0
}

/// The estimate, within 2.5 % of counts. For each block of four channels, a tile takes 34.9 instructions per position and 209 more; the last one, of one or two
/// pixels, 22 and 28, of three 34.9 and 290. Channels left over take 12 per position, and 16 per output. In each pass a tile takes 287, and its columns
/// ([`Fills`]) 48 per run, 40 for four of a run and 20 for each of its rest; at an edge a tile takes 269 more, and a run 129. The loop branches once in four
/// positions; a requantization stalls for 5 cycles, a tile for 170, a run at an edge for 25.
#[cfg(feature = "alloc")]
fn cost(layer: &crate::image::Layer<'_>, attributes: &[i32]) -> Option<crate::image::Cost> {
    let attributes = Attributes::read(attributes).ok().filter(|attributes| attributes.groups == 1)?;
    let (input, output) = (&layer.inputs[0], &layer.outputs[0]);
    let positions = attributes.window().area() as u64 * u64::from(input.shape[2]);
    let (pixels, channels) = (u64::from(output.shape[0] * output.shape[1]), u64::from(output.shape[2]));
    let lanes = LANES as u64;
    let (tiles, full, blocks, rest) = (pixels.div_ceil(lanes), pixels / lanes, channels / lanes, channels % lanes);
    let of_last = match pixels % lanes {
        0 => 0,
        1 | 2 => 22 * positions + 28,
        _ => 349 * positions / 10 + 290,
    };
    let of_rest = if rest == 0 { 0 } else { tiles * (rest * (12 * positions + 64) + 60) };
    let passes = channels.div_ceil(channels_per_pass(PASS, positions as usize) as u64);
    let fills = Fills::of(&attributes, input, output);
    Some(crate::image::Cost {
        instructions: blocks * (full * (349 * positions / 10 + 209) + of_last)
            + of_rest
            + passes
                * (287 * tiles
                    + 269 * fills.tiles_at_edges
                    + 48 * (fills.runs - fills.at_edges)
                    + 129 * fills.at_edges)
            + passes * (40 * fills.fours + 20 * fills.rest)
            + 2700,
        stalls: tiles * blocks * (3 * positions / 4 + 79)
            + passes * (170 * tiles + 25 * fills.at_edges + 3 * fills.rest)
            + if rest == 0 { 0 } else { tiles * rest * (positions + 40) }
            + 700,
    })
}

#[cfg(feature = "alloc")]
fn pack(layer: &crate::image::Layer<'_>) -> Result<crate::image::Packed, crate::image::WriteError> {
    use alloc::vec::Vec;
    let attributes = Attributes::read(&layer.attributes).map_err(|broken| broken.of(NAME))?;
    let (inputs, outputs) = (layer.inputs[0].shape[2] as usize, layer.outputs[0].shape[2] as usize);
    let positions = attributes.window().area() * inputs;
    let (form, channels) = channels::pack::channels(layer, outputs, positions)?;
    let weights = layer.int8("weights", outputs * positions)?;
    let mut packed: Vec<u8> = Vec::with_capacity(weights.len());
    let blocks = weights.chunks_exact(LANES * positions);
    let of_rest = blocks.remainder();
    for block in blocks {
        for position in 0..positions {
            packed.extend(block.iter().skip(position).step_by(positions).map(|&weight| weight as u8));
        }
    }
    packed.extend(of_rest.iter().map(|&weight| weight as u8));
    let constants = alloc::vec![packed, channels.as_bytes().to_vec()];
    Ok(crate::image::Packed { form, constants, scratch_length: scratch_length(positions, inputs), read: None })
}
