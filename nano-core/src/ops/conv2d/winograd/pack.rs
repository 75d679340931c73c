//! The writer's part: costs and constants.

use alloc::vec;
use alloc::vec::Vec;

use zerocopy::{FromBytes, IntoBytes};

use super::transform::Transform;
use super::weights::{self, Weights};
use super::{Sizes, check_bound, is_supported};
use crate::image::{Cost, Dtype, Layer, Packed, WriteError};
use crate::kernels::{Channel, LANES, ONE_PASS, WeightSums};
use crate::ops::channels::pack::channels;
use crate::ops::conv2d::Attributes;

/// The most tiles, and bytes of transformed inputs, of a strip. A longer strip transforms the weights less often; stored ones need no more than a group.
const STRIP: (usize, usize) = (16, 18 * 1024);

/// The most bytes of stored transformed weights: as many as stay in the flash cache, of 16 KB, beside the code. Beyond them each strip waits for the flash longer than
/// the transform of weights takes.
const MOST_STORED: usize = 10 * 1024;

/// Whether the transform computes the layer, and exactly.
fn fits<T: Transform<SIDE, OUTPUTS>, const SIDE: usize, const OUTPUTS: usize>(layer: &Layer<'_>) -> bool {
    let supported = Attributes::read(&layer.attributes).is_ok_and(|attributes| is_supported(&attributes));
    if !supported || layer.outputs[0].dtype() != Dtype::Int8 {
        return false;
    }
    let (outputs, per_output) = (layer.outputs[0].shape[2] as usize, 9 * layer.inputs[0].shape[2] as usize);
    let weights = layer.int8("weights", outputs * per_output);
    let (Ok(weights), Ok((form, channels))) = (weights, channels(layer, outputs, per_output)) else { return false };
    weights.chunks_exact(per_output.max(1)).zip(&channels).all(|(weights, channel)| {
        let sums = WeightSums::of(weights.iter().copied().map(i32::from));
        let bound = sums.accumulator_bound::<i8>(channel.bias.into());
        check_bound::<T, SIDE, OUTPUTS>(channel, bound, form == ONE_PASS).is_ok()
    })
}

/// Tiles of the output, and groups in a strip.
fn tiles<const OUTPUTS: usize>(layer: &Layer<'_>, sizes: &Sizes) -> (usize, usize) {
    let [height, width, _] = layer.outputs[0].shape.map(|side| (side as usize).div_ceil(OUTPUTS));
    let tiles = height * width;
    let most = if sizes.weights == 0 { 1 } else { (STRIP.0 / LANES).min(STRIP.1 / (4 * LANES * sizes.pairs)) };
    (tiles, tiles.div_ceil(LANES).min(most.max(1)))
}

/// Estimate of one run, fitted to counts.
pub(super) fn cost<T: Transform<SIDE, OUTPUTS>, const SIDE: usize, const OUTPUTS: usize, const STORED: bool>(
    layer: &Layer<'_>,
) -> Option<Cost> {
    if !fits::<T, SIDE, OUTPUTS>(layer) {
        return None;
    }
    let [inputs, outputs] = [&layer.inputs[0], &layer.outputs[0]].map(|value| value.shape[2] as usize);
    let sizes = Sizes::new::<SIDE>(inputs, STORED);
    let (tiles, groups) = tiles::<OUTPUTS>(layer, &sizes);
    let (blocks, points) = (outputs.div_ceil(LANES), SIDE * SIDE);
    if STORED && blocks * points * inputs * size_of::<Weights>() > MOST_STORED {
        return None;
    }
    let products = tiles.div_ceil(LANES) * blocks * points * (40 * inputs + 4 * inputs.div_ceil(2) + 30);
    let weights = if STORED { 0 } else { tiles.div_ceil(LANES * groups) * blocks * inputs * T::COSTS.weights };
    let rest = tiles
        * (inputs.next_multiple_of(2) * T::COSTS.inputs + outputs * T::COSTS.outputs + blocks * T::COSTS.tile + 90);
    // The loop over two channels jumps back, a requantization stalls for 11 cycles, a transform of nine weights for 42.
    let of_weights = if STORED { 0 } else { 42 * tiles.div_ceil(LANES * groups) * blocks * inputs };
    let stalls =
        tiles.div_ceil(LANES) * blocks * points * inputs + tiles * outputs * OUTPUTS * OUTPUTS * 11 + of_weights;
    Some(Cost { instructions: (products + weights + rest + 600) as u64, stalls: stalls as u64 })
}

pub(super) fn pack<T: Transform<SIDE, OUTPUTS>, const SIDE: usize, const OUTPUTS: usize, const STORED: bool>(
    layer: &Layer<'_>,
) -> Result<Packed, WriteError> {
    let packed = crate::ops::conv2d::pack::<Channel>(layer)?;
    let channels = layer.inputs[0].shape[2] as usize;
    let sizes = Sizes::new::<SIDE>(channels, STORED);
    let (tiles, groups) = tiles::<OUTPUTS>(layer, &sizes);
    let scratch_length = sizes.bytes(groups);
    let mut constants = packed.constants;
    if STORED {
        constants[0] = transformed::<T, SIDE, OUTPUTS>(&constants[0], channels);
    }
    let strips = tiles.div_ceil(LANES * groups);
    let read = Some(constants.iter().map(Vec::len).sum::<usize>() * strips);
    Ok(Packed { constants, scratch_length, read, ..packed })
}

/// Packed weights, transformed.
fn transformed<T: Transform<SIDE, OUTPUTS>, const SIDE: usize, const OUTPUTS: usize>(
    packed: &[u8],
    channels: usize,
) -> Vec<u8> {
    let mut transformed: Vec<Weights> = Vec::new();
    for block in packed.chunks_exact(9 * channels * LANES) {
        let mut words = vec![0u32; 9 * channels];
        words.as_mut_bytes().copy_from_slice(block);
        let start = transformed.len();
        transformed.resize(start + SIDE * SIDE * channels, [0; 2]);
        weights::transform::<T, SIDE, OUTPUTS>(&words, &mut transformed[start..]);
    }
    // The words of two int16 each, as a device has them.
    let words = <[u32]>::ref_from_bytes(transformed.as_bytes()).expect("pairs of words are words");
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}
