//! Requantization of int16 layers, whose sums may exceed int32: the only place where they differ from int8 layers in meaning.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::accumulate::{Accumulate, ChannelRecord};
use super::rows::add_rows;
use super::tile::{Columns, LANES, dot_4x4};
use crate::fixed_point::WideMultiplier;

/// Number of products of int16 and weights from -127 to 127 whose sum fits int32: 512 * 127 * 2^15 < 2^31. Sums of more are added up in parts.
pub(crate) const PART: usize = 512;

/// Bias and requantization parameters of one output channel of an int16 layer.
///
/// `LITERAL`, for all sums below 2^46 in magnitude: `multiplier` and `shift` are those of [`WideMultiplier`].
///
/// `ONE_PASS`, for sums that fit int32 and multipliers below 1/4: the mantissa of 15 bits and a right shift of s >= 17 become
/// `multiplier = mantissa << k` and a right shift of s + k = 32 + e, e >= 1. As the rounding constant 2^(s+k-1) is a multiple of 2^32,
/// `(h + 2^(e-1)) >> e` is bit-exact for the high half h of the product; with `shift` = e - 1 this is `((h >> shift) + 1) >> 1`, which cannot
/// overflow.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct WideChannel {
    // Constants are aligned to words only.
    bias: [u32; 2],
    pub(crate) multiplier: i32,
    pub(crate) shift: i32,
}

/// The literal form: int64 accumulators.
pub(crate) struct WideLiteral;
/// The one-pass form: int32 accumulators.
pub(crate) struct WideOnePass;

impl WideChannel {
    /// The channel in the one-pass form, which its multiplier must fit, or in the literal form.
    #[cfg(any(feature = "alloc", test))]
    pub(crate) fn new(bias: i64, multiplier: WideMultiplier, one_pass: bool) -> Option<Self> {
        let WideMultiplier { mantissa, shift } = multiplier;
        let (multiplier, shift) = match one_pass {
            false => (mantissa, shift),
            true if mantissa == 0 => (0, 0),
            true => {
                let raised = (33 - shift).max(0);
                (mantissa.checked_shl(raised as u32).filter(|_| raised <= 16)?, shift + raised - 33)
            }
        };
        Some(WideChannel { bias: [bias as u32, (bias >> 32) as u32], multiplier, shift })
    }
}

impl Accumulate for WideLiteral {
    type Element = i16;
    type Channel = WideChannel;
    type Sum = i64;
    const NARROW: bool = false;

    // Not inlined: large, and rarely used.
    #[inline(never)]
    fn dot_4x4(
        channels: &[WideChannel; LANES],
        columns: &Columns<i16>,
        weights: &[[i8; LANES]],
    ) -> [[i64; LANES]; LANES] {
        let mut sums = channels.each_ref().map(|channel| [channel.first_sum(); LANES]);
        for (columns, weights) in columns.chunks(PART).zip(weights.chunks(PART)) {
            let parts = dot_4x4([0; LANES], columns, weights);
            for (sum, part) in sums.as_flattened_mut().iter_mut().zip(parts.as_flattened()) {
                *sum += i64::from(*part);
            }
        }
        sums
    }

    // Not inlined: large, and rarely used.
    #[inline(never)]
    fn to_output(channel: &WideChannel, sum: i64) -> i32 {
        WideMultiplier { mantissa: channel.multiplier, shift: channel.shift & 63 }.apply(sum)
    }
}

impl Accumulate for WideOnePass {
    type Element = i16;
    type Channel = WideChannel;
    type Sum = i32;
    const NARROW: bool = true;

    #[inline(always)]
    fn dot_4x4(
        channels: &[WideChannel; LANES],
        columns: &Columns<i16>,
        weights: &[[i8; LANES]],
    ) -> [[i32; LANES]; LANES] {
        dot_4x4(channels.each_ref().map(ChannelRecord::narrow_bias), columns, weights)
    }

    #[inline(always)]
    fn to_output(channel: &WideChannel, sum: i32) -> i32 {
        let high = ((i64::from(sum) * i64::from(channel.multiplier)) >> 32) as i32;
        ((high >> (channel.shift & 31)) + 1) >> 1
    }
}

impl ChannelRecord for WideChannel {
    type Element = i16;
    type Sum = i64;
    type Literal = WideLiteral;
    type OnePass = WideOnePass;

    #[inline(always)]
    fn bias(&self) -> i64 {
        self.first_sum().clamp(-(1 << 62), 1 << 62)
    }

    #[inline(always)]
    fn narrow_bias(&self) -> i32 {
        self.bias[0] as i32
    }

    #[inline(always)]
    fn first_sum(&self) -> i64 {
        let [low, high] = self.bias;
        i64::from(high as i32) << 32 | i64::from(low)
    }

    #[inline(always)]
    fn dot_rows<const N: usize>(channels: &[Self; N], inputs: &[i16], weights: &[[i8; N]]) -> [i64; N] {
        let mut sums = channels.each_ref().map(Self::first_sum);
        for (inputs, weights) in inputs.chunks(PART).zip(weights.chunks(PART)) {
            let mut part = [0; N];
            add_rows(&mut part, inputs, weights);
            for (sum, part) in sums.iter_mut().zip(part) {
                *sum += i64::from(part);
            }
        }
        sums
    }

    #[inline(always)]
    fn requantize(&self, one_pass: bool, sum: i64) -> i32 {
        if one_pass { WideOnePass::to_output(self, sum as i32) } else { WideLiteral::to_output(self, sum) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_pass_equals_the_literal_form() {
        let mut random = fastrand::Rng::with_seed(16);
        let mut fitting = 0;
        for round in 0..500_000 {
            let real = f64::from(random.u32(1 << 20..)) * 2f64.powi(random.i32(-60..-31));
            let multiplier = WideMultiplier::from_real(real).unwrap();
            let literal = WideChannel::new(0, multiplier, false).unwrap();
            let Some(one_pass) = WideChannel::new(0, multiplier, true) else {
                assert!(real > 0.2499, "{real}");
                continue;
            };
            fitting += 1;
            let any = random.i32(..);
            let sum = random.choice([i32::MIN + 1, i32::MAX, any]).unwrap() >> random.u32(..28);
            let expected = WideLiteral::to_output(&literal, sum.into());
            assert_eq!(WideOnePass::to_output(&one_pass, sum), expected, "round {round}: {sum} times {multiplier:?}");
        }
        assert!(fitting > 300_000);
    }

    #[test]
    fn a_part_of_the_largest_products_fits_int32() {
        let (inputs, weights) = ([i16::MIN; PART], [[-127i8]; PART]);
        let [sum] = WideChannel::dot_rows(&[WideChannel::default()], &inputs, &weights);
        assert_eq!(sum, (PART as i64 * 127) << 15);
        assert!(sum < 1 << 31);
    }

    #[test]
    fn biases_are_64_bits() {
        let multiplier = WideMultiplier::from_real(0.1).unwrap();
        for bias in [0, -1, i64::from(i32::MIN) - 1, 1 << 40, -(1 << 45) + 3] {
            assert_eq!(WideChannel::new(bias, multiplier, false).unwrap().bias(), bias);
        }
        assert_eq!(WideChannel::new(i64::MIN, multiplier, false).unwrap().bias(), -(1 << 62));
    }
}
