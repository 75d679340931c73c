//! Bounds of accumulators: a quick one that holds for all weights, and the exact one of a channel.

use zerocopy::{FromBytes, IntoBytes};

use crate::image::Element;

/// The largest magnitude of a sum of `count` products of inputs of a dtype and weights from -127 to 127.
pub(crate) fn largest_sum<T: Element>(count: usize) -> i64 {
    let (lowest, _) = T::DTYPE.bounds();
    -127 * i64::from(lowest) * count as i64
}

/// Sums over a channel's weights w. They saturate; such a channel is refused anyway, as any whose magnitudes add up to 2^25, or to 2^32 for int16.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct WeightSums {
    /// The sum of |w|.
    magnitude: u32,
    /// The sum of |w| over the negative w.
    negative: u32,
    /// All |w|, or-ed.
    seen: u32,
}

impl WeightSums {
    /// Adds up a channel's weights.
    pub fn of(weights: impl Iterator<Item = i32>) -> Self {
        let mut sums = WeightSums::default();
        for weight in weights {
            let magnitude = weight.unsigned_abs();
            sums.seen |= magnitude;
            sums.magnitude = sums.magnitude.saturating_add(magnitude);
            if weight < 0 {
                sums.negative = sums.negative.saturating_add(magnitude);
            }
        }
        sums
    }

    /// The largest magnitude of `bias + sum x w`, and of its partial sums, over all x of a dtype; with saturated sums, a lower bound of it.
    ///
    /// The accumulator of int8 is at most `bias + 127 P + 128 N` and at least `bias - 128 P - 127 N`, where P and N are the sums of |w| over the
    /// positive and over the negative weights; likewise that of int16.
    pub fn accumulator_bound<T: Element>(self, bias: i64) -> i64 {
        let (magnitude, negative) = (i64::from(self.magnitude), i64::from(self.negative));
        let (_, highest) = T::DTYPE.bounds();
        i64::from(highest) * magnitude + (bias + negative).max(magnitude - negative - bias)
    }

    /// The sum of the weights.
    #[cfg(feature = "alloc")]
    pub fn sum(self) -> i64 {
        i64::from(self.magnitude) - 2 * i64::from(self.negative)
    }

    /// Whether all weights are -127 to 127.
    pub fn is_symmetric(self) -> bool {
        self.seen <= 127
    }
}

const SIGN_BITS: u32 = 0x8080_8080;

/// Splits packed weights into words of four and the rest. The writer aligns weights to words; where they are not aligned, all of them are the
/// rest.
fn words(weights: &[i8]) -> (&[u32], &[u8]) {
    <[u32]>::ref_from_prefix(weights.as_bytes()).unwrap_or((&[], weights.as_bytes()))
}

/// Whether all weights are -127 to 127, four at a time (SWAR).
#[inline(never)]
pub(crate) fn are_symmetric(weights: &[i8]) -> bool {
    let (words, rest) = words(weights);
    // The difference has bit 7 in bytes whose other bits are 0: those of 0 and of -128.
    let outside = words.iter().fold(0, |outside, &word| outside | word & (SIGN_BITS - (word & !SIGN_BITS)));
    outside & SIGN_BITS == 0 && rest.iter().all(|&weight| weight != 0x80)
}

/// Whether the weights of lanes `first` to 3 are all 0, in aligned words of four lanes.
pub(crate) fn are_zero_from(first: usize, weights: &[i8]) -> bool {
    let (words, rest) = words(weights);
    let seen = words.iter().fold(0, |seen, &word| seen | u32::from_le(word));
    rest.is_empty() && seen >> (8 * first) == 0
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::*;

    /// The bound by its definition, in i128: the larger magnitude of the least and the largest sum.
    fn bound(bias: i32, weights: &[i8]) -> i128 {
        let ends = |weight: &i8| [-128, 127].map(|x| x * i128::from(*weight));
        let low: i128 = weights.iter().map(|weight| ends(weight).into_iter().min().unwrap()).sum();
        let high: i128 = weights.iter().map(|weight| ends(weight).into_iter().max().unwrap()).sum();
        (i128::from(bias) + high).max(-(i128::from(bias) + low))
    }

    fn check(sums: WeightSums, weights: &[i8], random: &mut fastrand::Rng) {
        assert_eq!(sums.is_symmetric(), !weights.contains(&-128), "{weights:?}");
        #[cfg(feature = "alloc")]
        assert_eq!(sums.sum(), weights.iter().map(|&weight| i64::from(weight)).sum::<i64>(), "{weights:?}");
        for bias in [0, i32::MIN, i32::MAX, random.i32(..)] {
            let of_sums = sums.accumulator_bound::<i8>(bias.into());
            assert_eq!(i128::from(of_sums), bound(bias, weights), "{bias}, {weights:?}");
            let largest = largest_sum::<i8>(weights.len()) + i64::from(bias).abs();
            assert!(largest >= of_sums || !sums.is_symmetric(), "{bias}, {weights:?}");
        }
    }

    /// Extreme and random weights: all alike, only the ends of the range, any.
    fn weights(length: usize, random: &mut fastrand::Rng) -> Vec<i8> {
        let kind = random.u8(..6);
        let one = random.i8(-127..);
        let weight = |_| match kind {
            0 => 127,
            1 => -127,
            2 => 0,
            3 => one,
            4 => random.choice([-127, 127]).unwrap(),
            _ => random.i8(-127..),
        };
        (0..length).map(weight).collect()
    }

    /// Calls `check` with blocks of every small length and some long ones, at every alignment, -128 in some.
    fn each_block(multiple: usize, mut check: impl FnMut(&[i8], &mut fastrand::Rng)) {
        let mut random = fastrand::Rng::with_seed(12);
        for length in (0..200).chain([4095, 4096, 4097, 4112, 8192, 20_000]) {
            for start in 0..4 {
                let mut block = weights(start + multiple * length, &mut random);
                check(&block[start..], &mut random);
                if length > 0 {
                    let place = random.usize(start..block.len());
                    block[place] = -128;
                    check(&block[start..], &mut random);
                    block[start..].fill(-128);
                    check(&block[start..], &mut random);
                }
            }
        }
    }

    #[test]
    fn bounds_are_those_of_the_definition() {
        each_block(1, |block, random| check(WeightSums::of(block.iter().copied().map(i32::from)), block, random));
    }

    #[test]
    fn only_minus_128_is_not_symmetric() {
        each_block(1, |block, _| assert_eq!(are_symmetric(block), !block.contains(&-128), "{block:?}"));
        for weight in i8::MIN..=i8::MAX {
            for neighbours in [-128, -127, -1, 0, 1, 127] {
                let block = [neighbours, weight, weight, neighbours];
                assert_eq!(are_symmetric(&block), !block.contains(&-128), "{block:?}");
            }
        }
    }

    #[test]
    fn lanes_are_zero_from_the_first_that_is_not() {
        let mut random = fastrand::Rng::with_seed(14);
        for _ in 0..10_000 {
            let mut rows = [[0u8; 4]; 9];
            let used = random.usize(0..4);
            for row in &mut rows {
                row[..used].fill_with(|| random.u8(1..));
            }
            let words = rows.map(u32::from_le_bytes);
            let weights = <[i8]>::ref_from_bytes(words.as_bytes()).unwrap();
            for first in 1..4 {
                assert_eq!(are_zero_from(first, weights), first >= used, "{rows:?}");
            }
        }
    }

    #[test]
    fn saturated_sums_are_beyond_every_bound() {
        for weight in [127, -127] {
            let sums = WeightSums::of(core::iter::repeat_n(weight, 1 << 26));
            assert_eq!(sums.magnitude, u32::MAX);
            for bias in [0, i64::from(i32::MIN), i64::from(i32::MAX), i64::MAX >> 8, -(i64::MAX >> 8)] {
                assert!(sums.accumulator_bound::<i8>(bias) > 1 << 31, "{bias}");
            }
        }
    }
}
