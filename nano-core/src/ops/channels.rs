//! Output channels of convolutions and fully connected layers: their checks and their packing.

use zerocopy::IntoBytes;

use crate::BrokenRule;
use crate::kernels::{Channel, LANES, ONE_PASS, WeightSums, sum_lanes};
use crate::operator::{nonzero, require};

/// Checks the channels of a node, in order: multipliers, weights in [-127, 127], and that no accumulator can overflow.
pub(crate) struct Check {
    one_pass: bool,
    /// Channels checked so far.
    checked: usize,
}

impl Check {
    /// The check of channels packed for a form of requantization.
    pub fn new(form: u8) -> Self {
        Check { one_pass: form == ONE_PASS, checked: 0 }
    }

    /// Checks the next channels, whose weights lie in blocks of `length` bytes, each of [`LANES`] interleaved channels.
    pub fn blocks(&mut self, channels: &[Channel], weights: &[i8], length: usize) -> Result<(), BrokenRule> {
        let blocks = weights.chunks_exact(nonzero(length));
        channels.chunks(LANES).zip(blocks).try_for_each(|(channels, block)| self.interleaved(channels, block, LANES))
    }

    /// Checks the next channels, whose weights lie interleaved in `block`: `[position][width]`, width 1, 2, 4 or 8. Lanes without a
    /// channel must hold zeros.
    pub fn interleaved(&mut self, channels: &[Channel], block: &[i8], width: usize) -> Result<(), BrokenRule> {
        let block = block.as_bytes();
        if width == 2 * LANES {
            return self.lanes(channels, sum_lanes::<2>(block).as_flattened());
        }
        let sums = sum_lanes::<1>(block);
        let &[[a, b, c, d]] = &sums;
        match width {
            1 => self.lanes(channels, &[a + b + c + d]),
            2 => self.lanes(channels, &[a + c, b + d]),
            _ => self.lanes(channels, sums.as_flattened()),
        }
    }

    /// Checks the next channels by the sums of their weights.
    // Not inlined: many kernels check lanes, and a program has room for one copy.
    #[inline(never)]
    pub fn lanes(&mut self, channels: &[Channel], sums: &[WeightSums]) -> Result<(), BrokenRule> {
        for (channel, &sums) in channels.iter().zip(sums) {
            self.channel(channel, sums)?;
        }
        let spare = sums.iter().skip(channels.len()).position(|sums| !sums.is_zero());
        require!(
            spare.is_none(),
            "a weight that belongs to no channel is not 0, in lane",
            (channels.len() + spare.unwrap_or(0)) as i64
        );
        Ok(())
    }

    fn channel(&mut self, channel: &Channel, sums: WeightSums) -> Result<(), BrokenRule> {
        if self.one_pass && is_far_below_limits(channel, sums) {
            self.checked += 1;
            return Ok(());
        }
        self.channel_at_limits(channel, sums)
    }

    #[inline(never)]
    fn channel_at_limits(&mut self, channel: &Channel, sums: WeightSums) -> Result<(), BrokenRule> {
        let bound = sums.accumulator_bound(channel.bias.into());
        require!(!sums.outside, "a weight is not -127 to 127, in channel", self.checked as i64);
        self.checked += 1;
        check_requantization(channel, bound, self.one_pass)
    }
}

/// Whether a channel passes the check of the one-pass form by sizes alone, as almost all do: a chip has no 64-bit arithmetic for the exact check.
///
/// With M the sum of the magnitudes, the accumulator's bound is at most `128 M + |bias| < 2^28`, so twice it, |addend| and 2 are below 2^31.
fn is_far_below_limits(channel: &Channel, sums: WeightSums) -> bool {
    let is_small = |number: i32, bits: u32| number.unsigned_abs() >> bits == 0;
    sums.is_below(1 << 20)
        && is_small(channel.bias, 27)
        && is_small(channel.addend, 29)
        && (2..=31).contains(&channel.shift)
}

/// Checks the requantization of accumulators up to `bound`, in one form or the other.
pub(crate) fn check_requantization(channel: &Channel, bound: i64, one_pass: bool) -> Result<(), BrokenRule> {
    if one_pass {
        require!((2..=31).contains(&channel.shift), "the requantization shift is not 2 to 31", channel.shift);
        let total = one_pass_bound(bound, channel.addend);
        require!(total < 1 << 31, "twice the accumulator's bound + |addend| + 2 reaches 2^31", total);
    } else {
        require!((-31..=30).contains(&channel.shift), "the requantization shift is not -31 to 30", channel.shift);
        require!(channel.multiplier >= 0, "the requantization multiplier is negative", channel.multiplier);
        require!((-128..=127).contains(&channel.addend), "the output's zero point is not int8", channel.addend);
        require!(bound < 1 << 31, "the accumulator's bound reaches 2^31", bound);
    }
    Ok(())
}

/// The largest sum in the one-pass form, for accumulators up to `bound`.
pub(crate) fn one_pass_bound(bound: i64, addend: i32) -> i64 {
    2 * bound + i64::from(addend).abs() + 2
}

/// Checks that a clamp is an int8 interval.
#[inline(never)]
pub(crate) fn check_clamp((min, max): (i32, i32)) -> Result<(), BrokenRule> {
    require!((-128..=127).contains(&min), "clamp_min is not int8", min);
    require!((min..=127).contains(&max), "clamp_max is not int8, or below clamp_min", max);
    Ok(())
}

#[cfg(feature = "alloc")]
pub(crate) mod pack {
    use alloc::vec::Vec;

    use zerocopy::IntoBytes;

    use super::one_pass_bound;
    use crate::fixed_point::Multiplier;
    use crate::image::{Layer, WriteError};
    use crate::kernels::{Channel, LITERAL, ONE_PASS, one_pass_addend, sum_lanes};

    /// Packs the channels of a layer with `outputs` output channels of `per_output` weights each, in the order of the tensor
    /// `weights`, with the input's zero point folded into the bias; returns them with the form of requantization that fits them all.
    pub(crate) fn channels(
        layer: &Layer<'_>,
        outputs: usize,
        per_output: usize,
    ) -> Result<(u8, Vec<Channel>), WriteError> {
        let weights = layer.int8("weights", outputs * per_output)?;
        let biases = layer.int32("bias", outputs)?;
        let weight_scales = layer.float32("weight_scales", outputs)?;
        let channels = weights.chunks_exact(per_output).zip(biases).zip(weight_scales);
        let folded = channels.map(|((weights, &bias), &scale)| Accumulator::fold(layer, weights, bias, scale));
        let folded = folded.collect::<Result<Vec<_>, _>>()?;
        Ok(requantizations(&folded, layer.outputs[0].zero_point))
    }

    /// An accumulator on its way to an output: what it begins with, its multiplier, and the bound of its magnitude.
    pub(crate) struct Accumulator {
        pub(crate) bias: i32,
        pub(crate) multiplier: Multiplier,
        pub(crate) bound: i64,
    }

    impl Accumulator {
        /// That of a channel of a layer with one input: the input's zero point goes into the bias.
        pub(crate) fn fold(
            layer: &Layer<'_>,
            weights: &[i8],
            bias: i32,
            weight_scale: f32,
        ) -> Result<Self, WriteError> {
            let (input, output) = (layer.inputs[0], layer.outputs[0]);
            let real = f64::from(input.scale) * f64::from(weight_scale) / f64::from(output.scale);
            let multiplier = Multiplier::from_real(real)
                .ok_or_else(|| layer.refused("s_x * s_w / s_y is not in [0, 2^30)", real))?;
            let [[a, b, c, d]] = sum_lanes::<1>(weights.as_bytes());
            let sums = a + b + c + d;
            let bias = i64::from(bias) - i64::from(input.zero_point) * sums.sum();
            let bound = sums.accumulator_bound(bias);
            if bound >= 1 << 31 {
                return Err(layer.refused(
                    "the largest accumulator of a channel, |bias + sum (x - z_x) w|, must stay below 2^31: give it fewer \
                     inputs or a smaller bias",
                    bound as f64,
                ));
            }
            Ok(Accumulator { bias: bias as i32, multiplier, bound })
        }
    }

    /// The form of requantization that fits all accumulators, and the channels in it.
    pub(crate) fn requantizations(accumulators: &[Accumulator], zero_point: i32) -> (u8, Vec<Channel>) {
        let one_pass =
            accumulators.iter().all(|&Accumulator { multiplier: Multiplier { shift, .. }, bound, .. }| {
                (-21..=-1).contains(&shift) && one_pass_bound(bound, one_pass_addend(-shift, zero_point)) < 1 << 31
            });
        let channel = |&Accumulator { bias, multiplier: Multiplier { mantissa, shift }, .. }: &Accumulator| {
            if one_pass {
                Channel {
                    bias,
                    multiplier: mantissa << 1,
                    addend: one_pass_addend(-shift, zero_point),
                    shift: 1 - shift,
                }
            } else {
                Channel { bias, multiplier: mantissa, addend: zero_point, shift }
            }
        };
        (if one_pass { ONE_PASS } else { LITERAL }, accumulators.iter().map(channel).collect())
    }
}
