//! Accumulator bounds: the sum of |w| over a channel's weights w, and that over the negative weights.
//!
//! Both in one pass over the packed weights, four of a word at a time (SWAR); for loading and for the writer.

use core::ops::Add;

use zerocopy::FromBytes;

use super::LANES;

/// Sums over a channel's weights. They saturate; such a channel is refused anyway, as any whose magnitudes add up to 2^25.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct WeightSums {
    /// The sum of |w|.
    magnitude: u32,
    /// The sum of |w| over the negative w.
    negative: u32,
    /// Whether some w is not -127 to 127: then the sums mean nothing.
    pub outside: bool,
}

impl WeightSums {
    /// The largest magnitude of `bias + sum x w`, and of its partial sums, over all int8 x; with saturated sums, a lower bound of it.
    ///
    /// The accumulator is at most `bias + 127 P + 128 N` and at least `bias - 128 P - 127 N`, where P and N are the sums of |w| over the
    /// positive and over the negative weights.
    pub fn accumulator_bound(self, bias: i64) -> i64 {
        let (magnitude, negative) = (i64::from(self.magnitude), i64::from(self.negative));
        127 * magnitude + (bias + negative).max(magnitude - negative - bias)
    }

    /// The sum of the weights.
    #[cfg(feature = "alloc")]
    pub fn sum(self) -> i64 {
        i64::from(self.magnitude) - 2 * i64::from(self.negative)
    }

    /// Whether all weights are -127 to 127, and their magnitudes add up to less than `limit`.
    pub fn is_below(self, limit: u32) -> bool {
        self.magnitude < limit && !self.outside
    }

    /// Whether all weights are 0.
    pub fn is_zero(self) -> bool {
        self.magnitude == 0 && !self.outside
    }

    fn add_magnitudes(&mut self, all: u32, negative: u32) {
        self.magnitude = self.magnitude.saturating_add(all);
        self.negative = self.negative.saturating_add(negative);
    }

    fn push(&mut self, weight: i8) {
        let magnitude = weight.unsigned_abs().into();
        self.add_magnitudes(magnitude, if weight < 0 { magnitude } else { 0 });
        self.outside |= weight == -128;
    }
}

impl Add for WeightSums {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        self.add_magnitudes(other.magnitude, other.negative);
        self.outside = self.outside || other.outside;
        self
    }
}

/// Sums of four lanes; lane i is byte i of every word.
pub(crate) type LaneSums = [WeightSums; LANES];

/// Two rows of `WORDS` words, of four weights each.
pub(crate) type Rows<const WORDS: usize> = [[u32; WORDS]; 2];

/// The largest number of [`Rows`] whose sums fit in 16 bits: each adds two magnitudes.
pub(crate) const PIECE: usize = 256;

/// The sums of each lane of rows of `4 * WORDS` weights.
#[inline(never)]
pub(crate) fn sum_lanes<const WORDS: usize>(weights: &[u8]) -> [LaneSums; WORDS] {
    // The writer aligns weights to words. Where they are not aligned, all of them are the rest.
    let (rows, rest) = <[Rows<WORDS>]>::ref_from_prefix(weights).unwrap_or((&[], weights));
    let mut sums = sum_rows(rows.chunks(PIECE).map(|piece| piece.iter().copied()));
    for row in rest.chunks(LANES * WORDS) {
        for (sums, &weight) in sums.as_flattened_mut().iter_mut().zip(row) {
            sums.push(weight as i8);
        }
    }
    sums
}

/// The sums of each lane of pieces of at most [`PIECE`] rows.
#[inline(always)]
pub(crate) fn sum_rows<const WORDS: usize>(
    pieces: impl Iterator<Item = impl Iterator<Item = Rows<WORDS>>>,
) -> [LaneSums; WORDS] {
    let mut sums = [LaneSums::default(); WORDS];
    for piece in pieces {
        let mut lanes = [Lanes::default(); WORDS];
        for [first, second] in piece {
            for (lanes, (first, second)) in lanes.iter_mut().zip(first.into_iter().zip(second)) {
                lanes.push(first, second);
            }
        }
        for (sums, lanes) in sums.iter_mut().zip(lanes) {
            lanes.add_to(sums);
        }
    }
    sums
}

const LOW_BITS: u32 = 0x0101_0101;
const SIGN_BITS: u32 = 0x8080_8080;

/// Running sums of four lanes in 16 bits: lanes 0 and 2 in the halves of one word, 1 and 3 in those of another.
#[derive(Clone, Copy, Default)]
struct Lanes {
    magnitude: [u32; 2],
    negative: [u32; 2],
    /// All magnitudes, or-ed: bit 7 is that of -128 alone.
    seen: u32,
}

impl Lanes {
    #[inline(always)]
    fn push(&mut self, first: u32, second: u32) {
        let (first, second) = (Magnitudes::of(first), Magnitudes::of(second));
        self.seen |= first.all | second.all;
        // Two magnitudes fit in a byte.
        add_bytes(&mut self.magnitude, first.all.wrapping_add(second.all));
        add_bytes(&mut self.negative, first.negative.wrapping_add(second.negative));
    }

    fn add_to(self, sums: &mut LaneSums) {
        let lanes = |[even, odd]: [u32; 2]| [even & 0xffff, odd & 0xffff, even >> 16, odd >> 16];
        let (magnitudes, negatives) = (lanes(self.magnitude), lanes(self.negative));
        for ((sums, magnitude), negative) in sums.iter_mut().zip(magnitudes).zip(negatives) {
            sums.add_magnitudes(magnitude, negative);
        }
        if self.seen & SIGN_BITS != 0 {
            for (sums, magnitudes) in sums.iter_mut().zip(self.seen.to_le_bytes()) {
                sums.outside |= magnitudes > 127;
            }
        }
    }
}

/// |w| of the four weights of a word, and |w| where w is negative, else 0. |-128| is 128.
struct Magnitudes {
    all: u32,
    negative: u32,
}

impl Magnitudes {
    #[inline(always)]
    fn of(weights: u32) -> Self {
        let signs = weights >> 7 & LOW_BITS;
        // 255 in each negative byte.
        let mask = (signs << 8).wrapping_sub(signs);
        let all = (weights ^ mask).wrapping_add(signs);
        Magnitudes { all, negative: all & mask }
    }
}

/// Adds bytes 0 and 2 to the halves of the first sum, 1 and 3 to those of the second.
#[inline(always)]
fn add_bytes([even, odd]: &mut [u32; 2], bytes: u32) {
    const EVEN: u32 = 0x00ff_00ff;
    *even = even.wrapping_add(bytes & EVEN);
    *odd = odd.wrapping_add(bytes >> 8 & EVEN);
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::*;
    use crate::kernels::pairs;

    /// The bound by its definition, in i128: the larger magnitude of the least and the largest sum.
    fn bound(bias: i32, weights: &[i8]) -> i128 {
        let ends = |weight: &i8| [-128, 127].map(|x| x * i128::from(*weight));
        let low: i128 = weights.iter().map(|weight| ends(weight).into_iter().min().unwrap()).sum();
        let high: i128 = weights.iter().map(|weight| ends(weight).into_iter().max().unwrap()).sum();
        (i128::from(bias) + high).max(-(i128::from(bias) + low))
    }

    fn check(sums: WeightSums, weights: &[i8], random: &mut fastrand::Rng) {
        let outside = weights.contains(&-128);
        assert_eq!(sums.outside, outside, "{weights:?}");
        if outside {
            return;
        }
        assert_eq!(sums.is_zero(), weights.iter().all(|&weight| weight == 0), "{weights:?}");
        #[cfg(feature = "alloc")]
        assert_eq!(sums.sum(), weights.iter().map(|&weight| i64::from(weight)).sum::<i64>(), "{weights:?}");
        for bias in [0, i32::MIN, i32::MAX, random.i32(..)] {
            assert_eq!(i128::from(sums.accumulator_bound(bias.into())), bound(bias, weights), "{bias}, {weights:?}");
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

    fn lane(block: &[i8], lane: usize, width: usize) -> Vec<i8> {
        block.iter().skip(lane).step_by(width).copied().collect()
    }

    #[test]
    fn bounds_of_lanes_are_those_of_the_definition() {
        each_block(1, |block, random| {
            // The first lanes up to one with -128, which may carry into the next.
            let check_lanes = |sums: &[WeightSums], random: &mut fastrand::Rng| {
                for (index, &of_lane) in sums.iter().enumerate() {
                    check(of_lane, &lane(block, index, sums.len()), random);
                    if of_lane.outside {
                        break;
                    }
                }
            };
            let bytes = zerocopy::IntoBytes::as_bytes(block);
            check_lanes(sum_lanes::<1>(bytes).as_flattened(), random);
            check_lanes(sum_lanes::<2>(bytes).as_flattened(), random);
            let [[a, b, c, d]] = sum_lanes::<1>(bytes);
            check_lanes(&[a + c, b + d], random);
            check_lanes(&[a + b + c + d], random);
        });
    }

    #[test]
    fn bounds_of_pairs_are_those_of_the_definition() {
        const CHANNELS: usize = pairs::WIDTH;
        each_block(4 * CHANNELS, |block, random| {
            if block.len() > 100_000 {
                return;
            }
            let row = |weights: &[i8; CHANNELS]| {
                core::array::from_fn(|pair| {
                    let of_pair = [0, 1].map(|odd| i32::from(weights[2 * pair + odd]));
                    u32::from_le_bytes(pairs::pair(of_pair))
                })
            };
            let rows: Vec<[u32; CHANNELS / 2]> = block.as_chunks().0.iter().map(row).collect();
            for pair in 0..CHANNELS / 2 {
                let [even, odd] = pairs::sums(&rows, pair);
                check(even, &lane(block, 2 * pair, CHANNELS), random);
                if !even.outside {
                    check(odd, &lane(block, 2 * pair + 1, CHANNELS), random);
                }
            }
        });
    }

    #[test]
    fn weights_of_pairs_beyond_int8_are_outside() {
        let mut random = fastrand::Rng::with_seed(13);
        for _ in 0..10_000 {
            let mut rows = [[0; pairs::WIDTH / 2]; 8];
            let weights = [random.i32(-300..300), random.i32(-300..300)];
            let pair = random.usize(..pairs::WIDTH / 2);
            rows[random.usize(..8)][pair] = u32::from_le_bytes(pairs::pair(weights));
            let [even, odd] = pairs::sums(&rows, pair);
            assert_eq!(even.outside, !(-127..=127).contains(&weights[0]), "{weights:?}");
            if !even.outside {
                assert_eq!(odd.outside, !(-127..=127).contains(&weights[1]), "{weights:?}");
            }
        }
    }

    #[test]
    fn saturated_sums_are_beyond_every_bound() {
        let [[a, b, c, d]] = sum_lanes::<1>(&std::vec![127; 1 << 26]);
        assert_eq!((a + b).magnitude, 127 << 25);
        let sums = a + b + c + d;
        assert_eq!(sums.magnitude, u32::MAX);
        for bias in [0, i64::from(i32::MIN), i64::from(i32::MAX), i64::MAX >> 8, -(i64::MAX >> 8)] {
            assert!(sums.accumulator_bound(bias) > 1 << 31, "{bias}");
        }
    }
}
