//! Packs the constants of transposed convolutions, for the writer.

use alloc::vec;
use alloc::vec::Vec;

use zerocopy::IntoBytes;

use super::phases::{Phase, phases};
use super::{Attributes, NAME};
use crate::image::{Layer, Packed, WriteError};
use crate::kernels::LANES;
use crate::operator::nonzero;
use crate::ops::channels::pack::{Accumulator, read_per_tile, requantizations};

/// An output channel of a phase: its weights, `[vertical tap][horizontal tap][in / groups]`, and its accumulator.
pub(super) type Folded = (Vec<i8>, Accumulator);

/// The output channels of each phase.
pub(super) fn fold(layer: &Layer<'_>, attributes: &Attributes) -> Result<Vec<Vec<Folded>>, WriteError> {
    let window = attributes.window();
    let inputs = layer.inputs[0].shape[2] as usize / nonzero(attributes.groups as usize);
    let outputs = layer.outputs[0].shape[2] as usize;
    let [height, width] = [window.vertical, window.horizontal].map(|axis| axis.kernel as usize);
    let weights = layer.int8("weights", outputs * height * width * inputs)?;
    let biases = layer.int32("bias", outputs)?;
    let weight_scales = layer.float32("weight_scales", outputs)?;
    let own = |output: usize, [vertical, horizontal]: [Phase; 2]| {
        let taps = vertical.taps * horizontal.taps;
        let mut own: Vec<i8> = Vec::with_capacity(taps * inputs);
        for tap in 0..taps {
            let y = vertical.first_tap + tap / horizontal.taps * vertical.tap_step;
            let x = horizontal.first_tap + tap % horizontal.taps * horizontal.tap_step;
            if y < height && x < width {
                own.extend_from_slice(&weights[((output * height + y) * width + x) * inputs..][..inputs]);
            } else {
                own.resize(own.len() + inputs, 0);
            }
        }
        own
    };
    let of_output = |output: usize, phase: [Phase; 2]| {
        let own = own(output, phase);
        let folded = Accumulator::fold(layer, &own, biases[output], weight_scales[output])?;
        Ok((own, folded))
    };
    phases(window).map(|phase| (0..outputs).map(|output| of_output(output, phase)).collect()).collect()
}

pub(super) fn pack(layer: &Layer<'_>) -> Result<Packed, WriteError> {
    let attributes = Attributes::read(&layer.attributes).map_err(|broken| broken.of(NAME))?;
    let window = attributes.window();
    let groups = nonzero(attributes.groups as usize);
    let per_group = layer.outputs[0].shape[2] as usize / groups;
    let inputs = layer.inputs[0].shape[2] as usize / groups;
    let (mut packed, mut accumulators) = (vec![], vec![]);
    for of_phase in fold(layer, &attributes)? {
        let taps = of_phase.first().map_or(0, |(own, _)| own.len());
        let start = packed.len();
        packed.resize(start + groups * per_group.div_ceil(LANES) * LANES * taps, 0u8);
        for (output, (own, accumulator)) in of_phase.into_iter().enumerate() {
            accumulators.push(accumulator);
            let (group, within) = (output / per_group, output % per_group);
            let block = group * per_group.div_ceil(LANES) + within / LANES;
            for (position, weight) in own.into_iter().enumerate() {
                packed[start + (block * taps + position) * LANES + within % LANES] = weight as u8;
            }
        }
    }
    let (form, channels) = requantizations(&accumulators, layer.outputs[0].zero_point);
    let scratch_length = Phase::most_taps(&window.vertical) * Phase::most_taps(&window.horizontal) * inputs * LANES;
    let constants = vec![packed, channels.as_bytes().to_vec()];
    // Each pixel is of one phase, which has its part of the weights.
    let tiles = read_per_tile(&constants, &layer.outputs[0]);
    let read = Some(tiles / phases(window).count().max(1));
    Ok(Packed { form, constants, scratch_length, read })
}
