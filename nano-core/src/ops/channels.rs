//! Output channels of the convolutions and the fully connected layer: their checks and their packing.

use crate::Error;
use crate::kernels::{Channel, LANES, LITERAL, ONE_PASS};
use crate::operator::require;

/// Checks the channels of a node: clamp, form of requantization, multipliers, weights in [-127, 127], and that no accumulator can overflow.
/// `weights` gives the weights of each channel, in order.
pub(crate) fn check<W: Iterator<Item = i32>>(
    operator: &'static str,
    form: u16,
    channels: &[Channel],
    (clamp_min, clamp_max): (i32, i32),
    weights: impl Iterator<Item = W>,
) -> Result<(), Error> {
    check_clamp(operator, (clamp_min, clamp_max))?;
    let one_pass = match form {
        LITERAL => false,
        ONE_PASS => true,
        variant => return Err(Error::UnknownVariant { operator, variant }),
    };
    for (index, (channel, weights)) in channels.iter().zip(weights).enumerate() {
        let mut outside = false;
        let weights = weights.inspect(|weight| outside |= !(-127..=127).contains(weight));
        let bound = accumulator_bound(channel.bias.into(), weights);
        require!(operator, !outside, "a weight is not -127 to 127, in channel", index as i64);
        if one_pass {
            require!(
                operator,
                (2..=31).contains(&channel.shift),
                "the requantization shift is not 2 to 31",
                channel.shift
            );
            let total = one_pass_bound(bound, channel.addend);
            require!(operator, total < 1 << 31, "twice the accumulator's bound + |addend| + 2 reaches 2^31", total);
        } else {
            require!(
                operator,
                (-31..=30).contains(&channel.shift),
                "the requantization shift is not -31 to 30",
                channel.shift
            );
            require!(
                operator,
                channel.multiplier >= 0,
                "the requantization multiplier is negative",
                channel.multiplier
            );
            require!(
                operator,
                (-128..=127).contains(&channel.addend),
                "the output's zero point is not int8",
                channel.addend
            );
            require!(operator, bound < 1 << 31, "the accumulator's bound reaches 2^31", bound);
        }
    }
    Ok(())
}

/// The weights of each of `width` channels that lie interleaved in `block`: `[position][width]`.
pub(crate) fn interleaved(block: &[i8], width: usize) -> impl Iterator<Item = impl Iterator<Item = i32>> {
    (0..width).map(move |lane| block.iter().skip(lane).step_by(width).map(|&weight| weight.into()))
}

/// Checks that a block of [`LANES`] interleaved channels holds zeros but for the first `used`.
pub(crate) fn check_spare(operator: &'static str, block: &[i8], used: usize) -> Result<(), Error> {
    let spare = interleaved(block, LANES).skip(used).flatten().find(|&weight| weight != 0);
    require!(operator, spare.is_none(), "a weight that belongs to no channel is not 0", spare.unwrap_or(0));
    Ok(())
}

/// The largest magnitude of `bias + sum x w` over all int8 x, and of every partial sum.
fn accumulator_bound(bias: i64, weights: impl Iterator<Item = i32>) -> i64 {
    let (low, high) = weights.map(i64::from).fold((bias, bias), |(low, high), weight| {
        let (a, b) = (-128 * weight, 127 * weight);
        (low + a.min(b), high + a.max(b))
    });
    (-low).max(high)
}

/// The largest sum in the one-pass form, for accumulators up to `bound`.
pub(crate) fn one_pass_bound(bound: i64, addend: i32) -> i64 {
    2 * bound + i64::from(addend).abs() + 2
}

/// Checks that a clamp is an int8 interval.
pub(crate) fn check_clamp(operator: &'static str, (min, max): (i32, i32)) -> Result<(), Error> {
    require!(operator, (-128..=127).contains(&min), "clamp_min is not int8", min);
    require!(operator, (min..=127).contains(&max), "clamp_max is not int8, or below clamp_min", max);
    Ok(())
}

#[cfg(feature = "alloc")]
pub(crate) mod pack {
    use alloc::vec::Vec;

    use super::{accumulator_bound, one_pass_bound};
    use crate::fixed_point::Multiplier;
    use crate::image::{Layer, WriteError};
    use crate::kernels::{Channel, LITERAL, ONE_PASS, one_pass_addend};

    /// Channels of a layer with `outputs` output channels of `per_output` weights each, in the order of the tensor
    /// `weights`; returns the variant that fits them all. The input's zero point goes into the bias.
    pub(crate) fn channels(
        layer: &Layer<'_>,
        outputs: usize,
        per_output: usize,
    ) -> Result<(u16, Vec<Channel>), WriteError> {
        let weights = layer.int8("weights", outputs * per_output)?;
        let biases = layer.int32("bias", outputs)?;
        let weight_scales = layer.float32("weight_scales", outputs)?;
        let (input, output) = (layer.inputs[0], layer.output);
        let mut folded = Vec::with_capacity(outputs);
        for ((weights, &bias), &weight_scale) in weights.chunks_exact(per_output).zip(biases).zip(weight_scales) {
            let real = f64::from(input.scale) * f64::from(weight_scale) / f64::from(output.scale);
            let multiplier = Multiplier::from_real(real)
                .ok_or_else(|| layer.refused("s_x * s_w / s_y is not in [0, 2^30)", real))?;
            let sum: i64 = weights.iter().map(|&weight| i64::from(weight)).sum();
            let bias = i64::from(bias) - i64::from(input.zero_point) * sum;
            let bound = accumulator_bound(bias, weights.iter().map(|&weight| weight.into()));
            if bound >= 1 << 31 {
                return Err(layer.refused(
                    "the largest accumulator of a channel, |bias + sum (x - z_x) w|, must stay below 2^31: give it fewer \
                     inputs or a smaller bias",
                    bound as f64,
                ));
            }
            folded.push((bias as i32, multiplier, bound));
        }
        let one_pass = folded.iter().all(|&(_, Multiplier { shift, .. }, bound)| {
            (-21..=-1).contains(&shift) && one_pass_bound(bound, one_pass_addend(-shift, output.zero_point)) < 1 << 31
        });
        let channels = folded
            .iter()
            .map(|&(bias, Multiplier { mantissa, shift }, _)| {
                if one_pass {
                    let addend = one_pass_addend(-shift, output.zero_point);
                    Channel { bias, multiplier: mantissa << 1, addend, shift: 1 - shift }
                } else {
                    Channel { bias, multiplier: mantissa, addend: output.zero_point, shift }
                }
            })
            .collect();
        Ok((if one_pass { ONE_PASS } else { LITERAL }, channels))
    }
}
