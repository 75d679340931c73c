//! Winograd convolutions of 3x3 windows with stride 1, bit-exact: they restore the accumulators of [`conv2d`](super), and requantize those.
//!
//! `transform.rs` has the method, `f4.rs` and `f2.rs` the transforms with their bounds. Weights are packed as in [`conv2d`](super) and transformed block by
//! block in each run, or stored transformed: faster, but eight times as many bytes, for layers whose weights stay in the flash cache.
//!
//! Four tiles of output pixels are a group, and a strip is as many groups as scratch memory has room for. Of each strip the inputs are transformed; then each
//! block of four output channels multiplies them point by point (`kernels/points.rs`), and transforms the products back to accumulators.
//!
//! Packed: weights as in [`conv2d`](super), or for each block of four output channels `[channel][point][4]` as int16; then the channels. Scratch: up to 3
//! bytes to align the rest to words; a pixel of the input's zero point; the transformed inputs of a strip, `[group][pair of channels][point][tile]`; the
//! transformed weights of a block, unless they are stored; and the products of a group, `[point][output channel][tile]`.

mod f2;
mod f4;
mod inputs;
mod kernels;
mod outputs;
#[cfg(feature = "alloc")]
mod pack;
#[cfg(feature = "host")]
mod restore;
mod transform;
mod weights;

use core::cell::Cell;
use core::marker::PhantomData;

use zerocopy::{FromBytes, IntoBytes};

use super::{Attributes, Conv2d};
use crate::BrokenRule;
use crate::kernels::{Channel, LANES, Literal, OnePass, PairOfChannels, SumsOfPoint, WeightSums, WeightsOfPoint};
use crate::node::Node;
use crate::operator::{CheckedPart, nonzero, require};
use crate::ops::channels::{ChannelRules, check_clamp, one_pass_bound};
use inputs::{Patch, Pixels};
pub use kernels::{
    CONV2D_ADD_WINOGRAD2, CONV2D_ADD_WINOGRAD4, CONV2D_WINOGRAD2, CONV2D_WINOGRAD4, CONV2D_WINOGRAD4_TRANSFORMED,
};
use outputs::{Place, Tile};
#[cfg(feature = "host")]
pub(super) use restore::restored;
use transform::Transform;
use weights::Weights;

/// A convolution by the transform `T`.
struct Winograd<'a, T, const SIDE: usize, const OUTPUTS: usize> {
    convolution: Conv2d<'a, Channel>,
    /// Whether its weights are stored transformed.
    stored: bool,
    transform: PhantomData<T>,
}

/// Adds convolved pixels to the same pixels of the residual.
type Add<'m> = &'m dyn Fn(&[Cell<i8>], &[Cell<i8>]);

/// Numbers of elements in a layer's scratch memory.
struct Sizes {
    /// Words of the pixel of padding.
    padding: usize,
    /// Transformed inputs of a group.
    pairs: usize,
    /// Transformed weights of a block.
    weights: usize,
    /// Products of a group.
    products: usize,
}

impl Sizes {
    fn new<const SIDE: usize>(channels: usize, stored: bool) -> Self {
        let points = SIDE * SIDE;
        let weights = if stored { 0 } else { points * channels };
        Sizes { padding: channels.div_ceil(4), pairs: points * channels.div_ceil(2), weights, products: points }
    }

    /// Bytes of scratch memory for strips of `groups`.
    fn bytes(&self, groups: usize) -> usize {
        let words = self.padding + 2 * self.weights + LANES * LANES * self.products;
        3 + 4 * (words + groups * LANES * self.pairs)
    }

    /// The number of groups for which there is scratch memory.
    fn groups(&self, bytes: usize) -> usize {
        bytes.saturating_sub(self.bytes(0)) / nonzero(4 * LANES * self.pairs)
    }
}

/// The parts of the scratch memory.
struct Scratch<'m> {
    padding: &'m mut [i8],
    pairs: &'m mut [PairOfChannels],
    weights: &'m mut [Weights],
    products: &'m mut [SumsOfPoint],
}

impl<'m> Scratch<'m> {
    fn new(scratch: &'m mut [i8], sizes: &Sizes, groups: usize) -> Self {
        let start = scratch.as_ptr().align_offset(size_of::<u32>());
        let aligned = scratch.get_mut(start..).checked_part();
        let length = sizes.bytes(groups) - 3;
        let words =
            <[u32]>::mut_from_bytes(aligned.get_mut(..length).checked_part().as_mut_bytes()).ok().checked_part();
        let (padding, words) = words.split_at_mut_checked(sizes.padding).checked_part();
        let (pairs, words) = words.split_at_mut_checked(LANES * groups * sizes.pairs).checked_part();
        let (weights, products) = words.split_at_mut_checked(2 * sizes.weights).checked_part();
        let products = <[i32]>::mut_from_bytes(products.as_mut_bytes()).ok().checked_part();
        Scratch {
            padding: <[i8]>::mut_from_bytes(padding.as_mut_bytes()).ok().checked_part(),
            pairs: pairs.as_chunks_mut().0,
            weights: weights.as_chunks_mut().0,
            products: products.as_chunks_mut().0.as_chunks_mut().0,
        }
    }
}

impl<'a, T: Transform<SIDE, OUTPUTS>, const SIDE: usize, const OUTPUTS: usize> Winograd<'a, T, SIDE, OUTPUTS> {
    fn new(convolution: Conv2d<'a, Channel>, stored: bool) -> Self {
        Winograd { convolution, stored, transform: PhantomData }
    }

    fn sizes(&self) -> Sizes {
        Sizes::new::<SIDE>(self.convolution.inputs_per_group, self.stored)
    }

    fn check(&self, node: &Node<'_>) -> Result<(), BrokenRule> {
        let convolution = &self.convolution;
        let groups = i64::from(convolution.attributes.groups);
        require!(is_supported(&convolution.attributes), "the window is not 3x3 with stride 1, or has groups", groups);
        let past_word = convolution.weights.as_ptr().addr() % size_of::<u32>();
        require!(past_word == 0, "the weights are not aligned to words: bytes past a word", past_word as i64);
        let sizes = self.sizes();
        let groups = sizes.groups(node.scratch_length());
        require!(groups > 0, "wrong scratch length", node.scratch_length() as i64);
        node.require_scratch::<i8>(sizes.bytes(groups))?;
        if self.stored { self.check_stored() } else { self.check_weights() }
    }

    /// Checks weights as [`conv2d`](super) has them.
    fn check_weights(&self) -> Result<(), BrokenRule> {
        let convolution = &self.convolution;
        convolution.check()?;
        let one_pass = convolution.requantization.is_one_pass();
        let blocks = convolution.weights.chunks_exact(nonzero(convolution.block_length()));
        for (channels, block) in convolution.channels.chunks(LANES).zip(blocks) {
            for (lane, channel) in channels.iter().enumerate() {
                // Fast path: what so many weights of -127 to 127 can add up to, which they are, is small enough for nearly all layers.
                let bound = largest_accumulator(channel, convolution.window_length());
                if check_bound::<T, SIDE, OUTPUTS>(channel, bound, one_pass).is_err() {
                    let weights = block.get(lane..).checked_part().iter().step_by(LANES);
                    let sums = WeightSums::of(weights.copied().map(i32::from));
                    let bound = sums.accumulator_bound::<i8>(channel.bias.into());
                    check_bound::<T, SIDE, OUTPUTS>(channel, bound, one_pass)?;
                }
            }
        }
        Ok(())
    }

    /// Checks transformed weights. Their sums are modulo 2^32, and the accumulator that is restored from any sum is below `2^(31 - SHIFT)`: whatever the
    /// weights are, nothing overflows.
    fn check_stored(&self) -> Result<(), BrokenRule> {
        let convolution = &self.convolution;
        let length = convolution.blocks_per_group() * SIDE * SIDE * convolution.inputs_per_group;
        let weights = convolution.weights.len();
        require!(weights == length * size_of::<Weights>(), "wrong number of weights", weights as i64);
        let channels = convolution.channels.len();
        require!(channels == convolution.per_group, "wrong number of channels", channels as i64);
        check_clamp((convolution.attributes.clamp_min, convolution.attributes.clamp_max))?;
        let one_pass = convolution.requantization.is_one_pass();
        convolution
            .channels
            .iter()
            .try_for_each(|channel| check_bound::<T, SIDE, OUTPUTS>(channel, i64::from(channel.bias).abs(), one_pass))
    }

    /// Convolves `input`. Writes the result to `output`, or with `add` adds it to the residual in `output`.
    // Not inlined, for code size: the fused kernel calls it, too.
    #[inline(never)]
    fn run(&self, input: &[i8], scratch: &mut [i8], output: &mut [i8], add: Option<Add<'_>>) {
        let convolution = &self.convolution;
        let sizes = self.sizes();
        let groups = sizes.groups(scratch.len());
        let Scratch { padding, pairs, weights, products } = Scratch::new(scratch, &sizes, groups);
        padding.fill(convolution.input.zero_point as i8);
        let pixels = Pixels::new(input, convolution.input, padding);
        let mut patch = Patch::new();
        let mut tile = Tile::new();
        let mut rows = [[0; SIDE]; OUTPUTS];
        let [height, width, _] = convolution.output.shape.map(|side| side as usize);
        let across = nonzero(width.div_ceil(OUTPUTS));
        let tiles = height.div_ceil(OUTPUTS) * across;
        let block_length = match self.stored {
            true => size_of::<Weights>() * SIDE * SIDE * pixels.channels,
            false => convolution.block_length(),
        };
        let mut first = 0;
        while first < tiles {
            let strip = first..(first + LANES * groups).min(tiles);
            self.transform_inputs(&pixels, &mut patch, strip.clone(), across, &sizes, pairs);
            let blocks = convolution.weights.chunks_exact(nonzero(block_length));
            for (block, (constant, channels)) in blocks.zip(convolution.channels.chunks(LANES)).enumerate() {
                let weights = if self.stored {
                    constant.as_bytes()
                } else {
                    let words = <[u32]>::ref_from_bytes(constant.as_bytes()).ok().checked_part();
                    weights::transform::<T, SIDE, OUTPUTS>(words, weights);
                    weights.as_bytes()
                };
                let weights = <[WeightsOfPoint]>::ref_from_bytes(weights).ok().checked_part();
                for (index, pairs) in pairs.chunks_exact(nonzero(sizes.pairs)).enumerate() {
                    let group = first + LANES * index..(first + LANES * (index + 1)).min(strip.end);
                    if group.is_empty() {
                        break;
                    }
                    T::multiply(pairs, weights, pixels.channels, products);
                    for (place_in_group, index) in group.enumerate() {
                        let start = (index / across * OUTPUTS, index % across * OUTPUTS);
                        let place = Place::new(convolution.output, start, OUTPUTS, LANES * block, channels.len());
                        let requantization = &convolution.requantization;
                        if requantization.is_one_pass() {
                            tile.fill::<OnePass, T, SIDE>(
                                requantization,
                                channels,
                                products,
                                place_in_group,
                                &mut rows,
                            );
                        } else {
                            tile.fill::<Literal, T, SIDE>(
                                requantization,
                                channels,
                                products,
                                place_in_group,
                                &mut rows,
                            );
                        }
                        if let Some(add) = add {
                            tile.add_to(output, place, add);
                        } else {
                            tile.write(output, place);
                        }
                    }
                }
            }
            first = strip.end;
        }
    }

    /// Transforms the inputs of the tiles of a strip, `across` in a row of tiles.
    #[inline(never)]
    fn transform_inputs(
        &self,
        pixels: &Pixels<'_>,
        patch: &mut Patch<SIDE>,
        strip: core::ops::Range<usize>,
        across: usize,
        sizes: &Sizes,
        pairs: &mut [PairOfChannels],
    ) {
        let attributes = &self.convolution.attributes;
        let mut tile = strip.start;
        while tile < strip.end {
            let (y, x, index) = (tile / nonzero(across), tile % nonzero(across), tile - strip.start);
            patch.first = index % LANES;
            patch.tiles = (LANES - patch.first).min(across - x).min(strip.end - tile);
            let top = (y * OUTPUTS) as isize - attributes.padding_top as isize;
            let left = (x * OUTPUTS) as isize - attributes.padding_left as isize;
            patch.point_to(pixels, top, left);
            patch.transform::<T, OUTPUTS>(pixels, pairs.get_mut(index / LANES * sizes.pairs..).checked_part());
            tile += patch.tiles;
        }
    }
}

/// The largest accumulator of a channel with so many weights.
fn largest_accumulator(channel: &Channel, weights: usize) -> i64 {
    crate::kernels::largest_sum::<i8>(weights) + i64::from(channel.bias).abs()
}

/// Checks that the transform restores accumulators up to `bound`.
fn check_bound<T: Transform<SIDE, OUTPUTS>, const SIDE: usize, const OUTPUTS: usize>(
    channel: &Channel,
    bound: i64,
    one_pass: bool,
) -> Result<(), BrokenRule> {
    channel.check(bound, one_pass)?;
    require!(bound < 1 << (31 - T::SHIFT), "the accumulator's bound is too large for this Winograd transform", bound);
    if one_pass {
        let total = one_pass_bound(bound, channel.addend);
        let fits = total < 1 << (32 - T::SHIFT) && channel.shift <= 32 - T::SHIFT as i32;
        require!(fits, "twice the accumulator's bound + |addend| + 2 is too large for this Winograd transform", total);
    }
    Ok(())
}

fn is_supported(attributes: &Attributes) -> bool {
    let window = attributes.window();
    let fits = |axis: crate::ops::window::Axis| axis.kernel == 3 && axis.stride == 1 && axis.dilation == 1;
    fits(window.vertical) && fits(window.horizontal) && attributes.groups == 1
}
