//! Output channels of convolutions and fully connected layers: their checks and their packing.

use crate::BrokenRule;
use crate::image::Dtype;
use crate::kernels::channel_pairs;
use crate::kernels::{
    Channel, ChannelRecord, ONE_PASS, WeightSums, WideChannel, are_symmetric, are_zero_from, largest_sum,
};
use crate::operator::{CheckedPart, nonzero, require};

/// The rules of a channel's record, and how the writer makes it.
pub(crate) trait ChannelRules: ChannelRecord {
    /// Checks the requantization of accumulators up to `bound`, in one form or the other.
    fn check(&self, bound: i64, one_pass: bool) -> Result<(), BrokenRule>;

    /// Whether [`check`](Self::check) passes the one-pass form for every sum of products below [`SMALL_SUM`]. May be false if it does.
    fn passes_small_sums(&self) -> bool;

    /// Packs the channels of a layer with `outputs` output channels of `per_output` weights each, in the order of the tensor `weights`; returns
    /// them with the form of requantization that fits them all.
    #[cfg(feature = "alloc")]
    fn pack(
        layer: &crate::image::Layer<'_>,
        outputs: usize,
        per_output: usize,
    ) -> Result<(u8, alloc::vec::Vec<Self>), crate::image::WriteError>;
}

impl ChannelRules for Channel {
    #[inline(always)]
    fn check(&self, bound: i64, one_pass: bool) -> Result<(), BrokenRule> {
        check_requantization(self, bound, one_pass)
    }

    // In 32 bits: 2 (SMALL_SUM + 2^28) + 2^29 + 2 stays below 2^31.
    #[inline(always)]
    fn passes_small_sums(&self) -> bool {
        let is_within = |number: i32, limit: i32| number.wrapping_add(limit) as u32 <= 2 * limit as u32;
        (2..=31).contains(&self.shift) && is_within(self.bias, 1 << 28) && is_within(self.addend, 1 << 29)
    }

    #[cfg(feature = "alloc")]
    fn pack(
        layer: &crate::image::Layer<'_>,
        outputs: usize,
        per_output: usize,
    ) -> Result<(u8, alloc::vec::Vec<Self>), crate::image::WriteError> {
        pack::channels(layer, outputs, per_output)
    }
}

impl ChannelRules for WideChannel {
    fn check(&self, bound: i64, one_pass: bool) -> Result<(), BrokenRule> {
        require!(self.multiplier >= 0, "the requantization multiplier is negative", self.multiplier);
        if one_pass {
            require!((0..=30).contains(&self.shift), "the requantization shift is not 0 to 30", self.shift);
            require!(bound < 1 << 31, "the accumulator's bound reaches 2^31", bound);
        } else {
            require!(self.multiplier < 1 << 15, "the requantization multiplier reaches 2^15", self.multiplier);
            require!((8..=46).contains(&self.shift), "the requantization shift is not 8 to 46", self.shift);
            require!(bound < WIDE_BOUND, "the accumulator's bound reaches 2^46", bound);
        }
        Ok(())
    }

    fn passes_small_sums(&self) -> bool {
        false
    }

    #[cfg(feature = "alloc")]
    fn pack(
        layer: &crate::image::Layer<'_>,
        outputs: usize,
        per_output: usize,
    ) -> Result<(u8, alloc::vec::Vec<Self>), crate::image::WriteError> {
        pack::wide_channels(layer, outputs, per_output)
    }
}

/// For smaller sums of products, a channel of int8 is checked without 64-bit arithmetic.
const SMALL_SUM: i64 = 1 << 28;

/// The bound of int64 accumulators: times a multiplier of 15 bits they fit int64.
const WIDE_BOUND: i64 = 1 << 46;

/// Checks the channels of a node, in order: multipliers, weights in [-127, 127], and that no accumulator can overflow.
///
/// Almost all blocks of channels pass by the largest sum that so many weights can have. Only for the others are the weights of each channel
/// added up, and the rule found that is broken, if any.
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

    /// The same check, of channels from number `first` on.
    pub fn from(self, first: usize) -> Self {
        Check { checked: first, ..self }
    }

    /// Checks the next channels, whose weights lie in blocks of `length` bytes, each `[position][width]`. In the last block, lanes without a
    /// channel must hold zeros; only a width of 4 has such lanes.
    // Not inlined: many kernels check blocks, and a program has room for one copy.
    #[inline(never)]
    pub fn blocks<C: ChannelRules>(
        &mut self,
        channels: &[C],
        weights: &[i8],
        width: usize,
        length: usize,
    ) -> Result<(), BrokenRule> {
        let (width, length) = (nonzero(width), nonzero(length));
        let in_last = channels.len() % width;
        let last = weights.get(weights.len().saturating_sub(length)..).checked_part();
        let spare_are_zero = in_last == 0 || are_zero_from(in_last, last);
        if spare_are_zero && are_symmetric(weights) && self.pass(channels, length / width) {
            return Ok(());
        }
        let blocks = weights.chunks_exact(length);
        channels
            .chunks(width)
            .zip(blocks)
            .try_for_each(|(channels, block)| self.block_at_limits(channels, block, width))
    }

    #[inline(never)]
    fn block_at_limits<C: ChannelRules>(
        &mut self,
        channels: &[C],
        block: &[i8],
        width: usize,
    ) -> Result<(), BrokenRule> {
        let lane = |lane: usize| block.get(lane..).checked_part().iter().step_by(width).copied();
        for (index, channel) in channels.iter().enumerate() {
            self.channel_at_limits(channel, WeightSums::of(lane(index).map(i32::from)))?;
        }
        let spare = (channels.len()..width).find(|&index| lane(index).any(|weight| weight != 0));
        require!(
            spare.is_none(),
            "a weight that belongs to no channel is not 0, in lane",
            spare.unwrap_or_default() as i64
        );
        Ok(())
    }

    /// Checks the next channels, whose weights lie in rows of `width` pairs of channels (`kernels/channel_pairs.rs`). A lane without a channel must
    /// hold zeros, and if `odd`, so must the first input of the first row.
    #[inline(never)]
    pub fn pairs(&mut self, channels: &[Channel], words: &[u32], width: usize, odd: bool) -> Result<(), BrokenRule> {
        let width = nonzero(width);
        let lane = |channel: usize| {
            let of_pair = words.get(channel / 2..).checked_part().iter().step_by(width);
            of_pair.map(move |&word| channel_pairs::weights(word, channel % 2))
        };
        let spare =
            if channels.len() % 2 == 1 { lane(channels.len()).flatten().find(|&weight| weight != 0) } else { None };
        let first = words.get(..width).checked_part().iter();
        let mut of_no_input = first.flat_map(|&word| [0, 1].map(|lane| channel_pairs::weights(word, lane)[0]));
        let spare = spare.or_else(|| of_no_input.find(|&weight| odd && weight != 0));
        require!(
            spare.is_none(),
            "a weight that belongs to no channel or no input is not 0",
            spare.unwrap_or_default()
        );
        if channel_pairs::are_symmetric(words) && self.pass(channels, 2 * (words.len() / width)) {
            return Ok(());
        }
        for (index, channel) in channels.iter().enumerate() {
            self.channel_at_limits(channel, WeightSums::of(lane(index).flatten()))?;
        }
        Ok(())
    }

    /// Whether the next channels pass whatever their weights are, `count` each, if all are -127 to 127.
    #[inline(never)]
    fn pass<C: ChannelRules>(&mut self, channels: &[C], count: usize) -> bool {
        let sum = largest_sum::<C::Element>(count);
        let is_small = self.one_pass && sum < SMALL_SUM;
        let passes = channels.iter().all(|channel| {
            (is_small && channel.passes_small_sums())
                || channel.check(sum + channel.bias().abs(), self.one_pass).is_ok()
        });
        if passes {
            self.checked += channels.len();
        }
        passes
    }

    #[inline(never)]
    fn channel_at_limits<C: ChannelRules>(&mut self, channel: &C, sums: WeightSums) -> Result<(), BrokenRule> {
        require!(sums.is_symmetric(), "a weight is not -127 to 127, in channel", self.checked as i64);
        self.checked += 1;
        channel.check(sums.accumulator_bound::<C::Element>(channel.bias()), self.one_pass)
    }
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
pub(crate) fn check_clamp(clamp: (i32, i32)) -> Result<(), BrokenRule> {
    check_clamp_of(Dtype::Int8, clamp)
}

/// Checks the clamp of an output of this dtype.
// Not inlined, for code size: most operators call it.
#[inline(never)]
pub(crate) fn check_clamp_of(dtype: Dtype, (min, max): (i32, i32)) -> Result<(), BrokenRule> {
    let (lowest, highest) = dtype.bounds();
    require!((lowest..=highest).contains(&min), "clamp_min is not a number of the output's dtype", min);
    require!(
        (min..=highest).contains(&max),
        "clamp_max is not a number of the output's dtype, or below clamp_min",
        max
    );
    Ok(())
}

#[cfg(feature = "alloc")]
pub(crate) mod pack {
    use alloc::vec::Vec;
    use core::ops::RangeInclusive;

    use super::{WIDE_BOUND, one_pass_bound};
    use crate::fixed_point::{Multiplier, WideMultiplier};
    use crate::image::{Layer, Value, WriteError};
    use crate::kernels::{Channel, LANES, LITERAL, ONE_PASS, WeightSums, WideChannel, one_pass_addend};

    /// The shifts of multipliers that the one-pass form takes.
    const ONE_PASS_SHIFTS: RangeInclusive<i32> = -21..=-1;
    /// The multipliers of int8 layers with weights, `s_x * s_w / s_y`, stay below this number in the one-pass form: one channel beyond it makes
    /// its whole layer slower.
    pub const ONE_PASS_LIMIT: f64 = 1.0 / (1 << -*ONE_PASS_SHIFTS.end()) as f64;

    /// Bytes of constants that one run of a convolution reads: it walks all of them for each tile of pixels.
    pub(crate) fn read_per_tile(constants: &[Vec<u8>], output: &Value) -> usize {
        let pixels = (output.shape[0] * output.shape[1]) as usize;
        constants.iter().map(Vec::len).sum::<usize>().saturating_mul(pixels.div_ceil(LANES))
    }

    /// [`ChannelRules::pack`](super::ChannelRules::pack) of int16 layers, whose biases are int64.
    pub(super) fn wide_channels(
        layer: &Layer<'_>,
        outputs: usize,
        per_output: usize,
    ) -> Result<(u8, Vec<WideChannel>), WriteError> {
        let weights = layer.int8("weights", outputs * per_output)?.chunks_exact(per_output);
        let channels = weights.zip(layer.int64("bias", outputs)?).zip(layer.float32("weight_scales", outputs)?);
        let channels = channels.map(|((weights, &bias), &scale)| {
            let real = f64::from(layer.inputs[0].scale) * f64::from(scale) / f64::from(layer.outputs[0].scale);
            let multiplier = WideMultiplier::from_real(real)
                .ok_or_else(|| layer.refused("s_x * s_w / s_y of int16 is not in [0, 2^7)", real))?;
            let sums = WeightSums::of(weights.iter().copied().map(i32::from));
            let bound = sums.accumulator_bound::<i16>(bias.clamp(-WIDE_BOUND, WIDE_BOUND));
            if bound >= WIDE_BOUND {
                return Err(layer.refused(
                    "the largest accumulator of a channel, |bias + sum x w|, must stay below 2^46: give it fewer inputs or a smaller bias",
                    bound as f64,
                ));
            }
            Ok((bias, multiplier, bound))
        });
        let channels = channels.collect::<Result<Vec<_>, _>>()?;
        let in_form = |one_pass: bool| {
            let fits = |&(bias, multiplier, bound): &(i64, WideMultiplier, i64)| {
                WideChannel::new(bias, multiplier, one_pass).filter(|_| !one_pass || bound < 1 << 31)
            };
            channels.iter().map(fits).collect::<Option<Vec<_>>>()
        };
        Ok(match in_form(true) {
            Some(packed) => (ONE_PASS, packed),
            None => (LITERAL, in_form(false).unwrap_or_default()),
        })
    }

    /// [`ChannelRules::pack`](super::ChannelRules::pack) of int8 layers, with the input's zero point folded into the bias.
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
            let sums = WeightSums::of(weights.iter().copied().map(i32::from));
            let bias = i64::from(bias) - i64::from(input.zero_point) * sums.sum();
            let bound = sums.accumulator_bound::<i8>(bias);
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
                ONE_PASS_SHIFTS.contains(&shift) && one_pass_bound(bound, one_pass_addend(-shift, zero_point)) < 1 << 31
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{LANES, LITERAL};

    #[test]
    fn passing_at_once_equals_the_exact_check() {
        let mut random = fastrand::Rng::with_seed(15);
        let mut passed = [0; 2];
        for _ in 0..20_000 {
            let form = random.choice([LITERAL, ONE_PASS]).unwrap();
            let (count, length) = (random.usize(1..9), LANES * random.usize(1..40));
            let mut near = |limit: i32| {
                let distance = random.i32(..) >> random.u32(8..32);
                random.choice([0, limit.wrapping_add(distance), distance]).unwrap()
            };
            let channels: [Channel; 8] = core::array::from_fn(|_| Channel {
                bias: near(1 << 30),
                multiplier: near(1 << 30),
                addend: near(if form == ONE_PASS { 1 << 29 } else { 127 }),
                shift: near(31).clamp(-40, 40),
            });
            // Mostly channels that fit.
            let channels = channels
                .map(|channel| Channel { shift: if random.u8(..8) > 0 { 5 } else { channel.shift }, ..channel });
            let channels = &channels[..count];
            let mut weights = [0i8; 8 * 160];
            let weights = &mut weights[..count.div_ceil(LANES) * length];
            let largest = random.i8(..);
            weights.fill_with(|| {
                let any = random.i8(-127..);
                random.choice([largest, any, 0]).unwrap()
            });
            if random.bool() {
                for (index, weight) in weights.iter_mut().enumerate() {
                    if index / length * LANES + index % LANES >= count {
                        *weight = 0;
                    }
                }
            }
            let mut check = Check::new(form);
            let all = check.blocks(channels, weights, LANES, length);
            let mut exact = Check::new(form);
            let mut blocks = channels.chunks(LANES).zip(weights.chunks_exact(length));
            let each = blocks.try_for_each(|(channels, block)| exact.block_at_limits(channels, block, LANES));
            assert_eq!(all, each);
            assert!(all.is_err() || check.checked == exact.checked);
            passed[usize::from(all.is_ok())] += 1;
        }
        assert!(passed.iter().all(|&count| count > 1000), "{passed:?}");
    }
}
