//! Output channels of the convolutions and the fully connected layer: bias, requantization, clamp, and their packing.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Error;
use crate::fixed_point::{Multiplier, clamp_to_i8};
use crate::operator::{Node, require};

/// Kernel variant: requantization in its literal form, for every multiplier.
pub(crate) const LITERAL: u16 = 0;
/// Kernel variant: both roundings and the zero point in one addition and one shift, where the bounds allow it.
pub(crate) const ONE_PASS: u16 = 1;

/// What requantization needs of one output channel.
///
/// `LITERAL`: `multiplier` is the Q31 mantissa, `shift` its power of two, `addend` the output's zero point.
/// `ONE_PASS`, from the bit-exact identity (for a right shift e >= 1 and an accumulator
/// bounded by b with `2 * b + |addend| + 2 < 2^31`, so that no sum below overflows):
/// with `h = floor(2 * accumulator * 2 * mantissa / 2^32)`, the first rounding is `t = (h + 1) >> 1`, the second
/// `(t + 2^(e-1) - [t < 0]) >> e`; so `(h + addend - 2 * [h + 1 < 0]) >> shift` with `shift = e + 1` and
/// `addend = 1 + 2 * (2^(e-1) + (zero_point << e))` does both and adds the zero point. `multiplier` is `2 * mantissa` as u32.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Channel {
    pub(crate) bias: i32,
    multiplier: i32,
    addend: i32,
    shift: i32,
}

/// The requantization of a layer: which form, and the clamp.
#[derive(Clone, Copy)]
pub(crate) struct Requantization {
    form: Form,
    min: i32,
    max: i32,
}

#[derive(Clone, Copy)]
enum Form {
    Literal,
    OnePass,
    /// The clamp starts at the zero point, so what a negative number rounds to does not matter.
    OnePassRelu,
}

impl Channel {
    #[inline(always)]
    fn literal(&self, accumulator: i32) -> i32 {
        Multiplier { mantissa: self.multiplier, shift: self.shift }.apply(accumulator).saturating_add(self.addend)
    }

    #[inline(always)]
    fn one_pass<const CORRECT_NEGATIVE: bool>(&self, accumulator: i32) -> i32 {
        let doubled = i64::from(accumulator << 1);
        let high = ((doubled * i64::from(self.multiplier as u32)) >> 32) as i32;
        let correction = if CORRECT_NEGATIVE { ((high + 1) >> 31) << 1 } else { 0 };
        (high + self.addend + correction) >> (self.shift & 31)
    }
}

impl Requantization {
    pub(crate) fn new(variant: u16, zero_point: i32, min: i32, max: i32) -> Self {
        let form = match variant {
            LITERAL => Form::Literal,
            _ if min >= zero_point => Form::OnePassRelu,
            _ => Form::OnePass,
        };
        Requantization { form, min, max }
    }

    /// Requantizes `accumulators` of one channel into every `pitch`-th byte of `output`.
    #[inline(always)]
    pub(crate) fn store(&self, channel: &Channel, accumulators: &[i32], output: &mut [i8], pitch: usize) {
        let outputs = output.iter_mut().step_by(pitch);
        match self.form {
            Form::OnePassRelu => {
                for (output, &accumulator) in outputs.zip(accumulators) {
                    *output = clamp_to_i8(channel.one_pass::<false>(accumulator), self.min, self.max);
                }
            }
            Form::OnePass => {
                for (output, &accumulator) in outputs.zip(accumulators) {
                    *output = clamp_to_i8(channel.one_pass::<true>(accumulator), self.min, self.max);
                }
            }
            Form::Literal => {
                for (output, &accumulator) in outputs.zip(accumulators) {
                    *output = clamp_to_i8(channel.literal(accumulator), self.min, self.max);
                }
            }
        }
    }
}

/// Checks the channels of a node: clamp, variant, multipliers, weights in [-127, 127], and that no accumulator can overflow.
/// `weights_of(channel)` gives the channel's weights.
pub(crate) fn check<I: Iterator<Item = i8>>(
    operator: &'static str,
    node: &Node<'_>,
    channels: &[Channel],
    clamp: (i32, i32),
    weights_of: impl Fn(usize) -> I,
) -> Result<(), Error> {
    check_clamp(operator, clamp)?;
    let one_pass = match node.variant() {
        LITERAL => false,
        ONE_PASS => true,
        variant => return Err(Error::UnknownVariant { operator, variant }),
    };
    for (index, channel) in channels.iter().enumerate() {
        let below = weights_of(index).any(|weight| weight == i8::MIN);
        require!(operator, !below, "a weight is below -127, in channel", index as i64);
        let bound = accumulator_bound(channel.bias.into(), weights_of(index));
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

/// The largest magnitude of `bias + sum x w` over all int8 x, and of every partial sum.
fn accumulator_bound(bias: i64, weights: impl Iterator<Item = i8>) -> i64 {
    let (low, high) = weights.map(i64::from).fold((bias, bias), |(low, high), weight| {
        let (a, b) = (-128 * weight, 127 * weight);
        (low + a.min(b), high + a.max(b))
    });
    (-low).max(high)
}

/// The largest sum in the one-pass form, for accumulators up to `bound`.
fn one_pass_bound(bound: i64, addend: i32) -> i64 {
    2 * bound + i64::from(addend).abs() + 2
}

/// The addend of the one-pass form for a right shift of `e`, 1 to 21.
fn one_pass_addend(e: i32, zero_point: i32) -> i32 {
    1 + 2 * ((1 << (e - 1)) + (zero_point << e))
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
    use zerocopy::IntoBytes;

    use super::{Channel, LITERAL, ONE_PASS, accumulator_bound, one_pass_addend, one_pass_bound};
    use crate::fixed_point::Multiplier;
    use crate::image::{Layer, WriteError};

    /// Channels of a layer with `outputs` output channels of `per_output` weights each, in the order of the tensor
    /// `weights`; returns the variant that fits them all and their bytes. The input's zero point goes into the bias.
    pub(crate) fn channels(layer: &Layer<'_>, outputs: usize, per_output: usize) -> Result<(u16, Vec<u8>), WriteError> {
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
            let bound = accumulator_bound(bias, weights.iter().copied());
            if bound >= 1 << 31 {
                return Err(layer.refused(
                    "the largest accumulator, |bias + sum (x - z_x) w|, reaches 2^31, in channel",
                    folded.len() as f64,
                ));
            }
            folded.push((bias as i32, multiplier, bound));
        }
        let one_pass = folded.iter().all(|&(_, Multiplier { shift, .. }, bound)| {
            (-21..=-1).contains(&shift) && one_pass_bound(bound, one_pass_addend(-shift, output.zero_point)) < 1 << 31
        });
        let channels: Vec<Channel> = folded
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
        Ok((if one_pass { ONE_PASS } else { LITERAL }, channels.as_bytes().to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_pass_equals_the_literal_form() {
        let mut state = 0x2545_F491_4F6C_DD1Du64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for round in 0..2_000_000 {
            let mantissa = (1 << 30) | (random() as i32 & ((1 << 30) - 1));
            let e = 1 + (random() % 21) as i32;
            let zero_point = (random() % 256) as i32 - 128;
            let addend = one_pass_addend(e, zero_point);
            let largest = ((1i64 << 31) - 3 - i64::from(addend).abs()) / 2;
            let accumulator = (i64::from(random() as i32).clamp(-largest, largest) as i32) >> (random() % 28);
            let literal = Channel { bias: 0, multiplier: mantissa, addend: zero_point, shift: -e };
            let one_pass = Channel { bias: 0, multiplier: mantissa << 1, addend, shift: e + 1 };
            let expected = literal.literal(accumulator);
            assert_eq!(one_pass.one_pass::<true>(accumulator), expected, "round {round}: {accumulator} {literal:?}");
            let relu = one_pass.one_pass::<false>(accumulator).max(zero_point);
            assert_eq!(relu, expected.max(zero_point), "round {round}: {accumulator} {literal:?}");
        }
    }
}
