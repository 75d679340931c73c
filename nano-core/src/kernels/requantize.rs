//! Requantization per channel: from an int32 accumulator to an int8 output element.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::accumulate::{Accumulate, ChannelRecord};
#[cfg(target_arch = "riscv32")]
use super::one_pass::one_pass;
use crate::fixed_point::Multiplier;
use crate::image::Element;

/// Form of requantization: [`Multiplier::apply`] and the zero point, as in its definition. Fits every multiplier.
pub(crate) const LITERAL: u8 = 0;
/// Form of requantization: both roundings and the zero point in one multiplication, two additions and one shift, where the bounds
/// allow it.
pub(crate) const ONE_PASS: u8 = 1;
/// Form of requantization: one rounding after the other, for right shifts and an output without zero point.
pub(crate) const TWO_PASS: u8 = 2;

/// Bias and requantization parameters of one output channel.
///
/// `LITERAL`: `multiplier` is the Q31 mantissa, `shift` its power of two, `addend` the output's zero point.
///
/// `ONE_PASS`: `multiplier` is `2 * mantissa` as u32, `shift` is `e + 1` for a right shift of e >= 1, and `addend` is
/// `1 + 2 * (2^(e-1) + (zero_point << e))`. With `h = floor(2 * accumulator * multiplier / 2^32)`, the first rounding is
/// `t = (h + 1) >> 1`, the second `(t + 2^(e-1) - [t < 0]) >> e`. So `(h + addend - 2 * [h < 0]) >> shift` is bit-exact: both
/// roundings and the zero point. (For h = -1, t is 0: subtracting the 2 or not gives the same.) An accumulator is bounded by b with
/// `2 * b + |addend| + 2 < 2^31`, so no sum overflows.
///
/// `TWO_PASS`: `multiplier` is `2 * mantissa` as u32, `shift` is e for a right shift of e >= 1, and `addend` is `2^(e-1)`. The first rounding
/// is `t = accumulator * multiplier / 2^32`, rounded half up, the second `(t + addend - [t < 0]) >> e`. For accumulators up to 2^30 and e up
/// to 30 no sum overflows.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Channel {
    pub(crate) bias: i32,
    pub(crate) multiplier: i32,
    pub(crate) addend: i32,
    pub(crate) shift: i32,
}

/// [`Channel`] of the form `ONE_PASS` in half the bytes, for layers whose time is that of reading flash: bias and e in one word, without the
/// addend, which follows from e and the output's zero point. A bias has 27 bits.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct CompactChannel {
    /// `bias << 5 | e`
    bias_and_shift: i32,
    multiplier: i32,
}

impl CompactChannel {
    /// Magnitudes of biases are below this number.
    #[cfg(any(feature = "alloc", test))]
    const BIAS_LIMIT: i32 = 1 << 26;

    /// A channel of the form `ONE_PASS`, if its bias fits.
    #[cfg(any(feature = "alloc", test))]
    pub(crate) fn new(channel: &Channel) -> Option<Self> {
        let fits = (-Self::BIAS_LIMIT + 1..Self::BIAS_LIMIT).contains(&channel.bias);
        let bias_and_shift = channel.bias << 5 | (channel.shift - 1);
        fits.then_some(CompactChannel { bias_and_shift, multiplier: channel.multiplier })
    }

    /// The right shift e.
    pub(crate) fn shift(self) -> i32 {
        self.bias_and_shift & 31
    }

    /// The bias.
    #[inline(always)]
    pub(crate) fn bias(self) -> i32 {
        self.bias_and_shift >> 5
    }

    /// [`OnePass`] of the channel of a layer whose output has this zero point. With y = t * 2 as of [`Channel`], the second rounding is
    /// `(y + 2^e) >> (e + 1) = ((y >> e) + 1) >> 1`.
    #[inline(always)]
    pub(crate) fn requantize(self, zero_point: i32, accumulator: i32) -> i32 {
        let high = ((i64::from(accumulator << 1) * i64::from(self.multiplier as u32)) >> 32) as i32;
        let rounded = (subtract_if_negative::<1>(high) + 1) >> (self.bias_and_shift & 31);
        (rounded + (2 * zero_point + 1)) >> 1
    }

    /// The channel of a layer whose output has this zero point.
    pub(crate) fn expand(self, zero_point: i32) -> Channel {
        let e = self.bias_and_shift & 31;
        let addend = ((2 * zero_point + 1) << e).wrapping_add(1);
        Channel { bias: self.bias(), multiplier: self.multiplier, addend, shift: e + 1 }
    }
}

/// The requantization of a layer: its form and its clamp.
#[derive(Clone, Copy)]
pub(crate) struct Requantization {
    form: u8,
    pub(crate) min: i32,
    pub(crate) max: i32,
}

/// One form of requantization; see [`Channel`].
pub(crate) trait Form {
    fn requantize(channel: &Channel, accumulator: i32) -> i32;

    /// [`Form::requantize`] of `accumulator / 2^SHIFT`, which is an integer; `SHIFT` is at least 1. Of the one-pass form the sum's bound in [`Channel`] must
    /// stay below 2^31 when it is multiplied by `2^(SHIFT - 1)`, and so must the shift.
    #[inline(always)]
    fn requantize_shifted<const SHIFT: u32>(channel: &Channel, accumulator: i32) -> i32 {
        Self::requantize(channel, accumulator >> SHIFT)
    }

    /// [`Form::requantize`] and the clamp.
    #[inline(always)]
    fn requantize_and_clamp(channel: &Channel, accumulator: i32, min: i32, max: i32) -> i32 {
        clamp(Self::requantize(channel, accumulator), min, max)
    }

    /// [`Form::requantize_shifted`] and the clamp.
    #[inline(always)]
    fn requantize_shifted_and_clamp<const SHIFT: u32>(channel: &Channel, accumulator: i32, min: i32, max: i32) -> i32 {
        clamp(Self::requantize_shifted::<SHIFT>(channel, accumulator), min, max)
    }
}

pub(crate) struct Literal;
pub(crate) struct OnePass;
pub(crate) struct TwoPass;

impl Form for Literal {
    // Not inlined: large, and rarely used.
    #[inline(never)]
    fn requantize(channel: &Channel, accumulator: i32) -> i32 {
        let multiplier = Multiplier { mantissa: channel.multiplier, shift: channel.shift };
        multiplier.apply(accumulator).saturating_add(channel.addend)
    }
}

impl Form for OnePass {
    #[inline(always)]
    fn requantize(channel: &Channel, accumulator: i32) -> i32 {
        Self::requantize_shifted::<1>(channel, accumulator << 1)
    }

    /// With `2^d` times the accumulator of [`Channel`], d = `SHIFT - 1`, h becomes a number whose part above d bits is h; so all terms times `2^d`, and one
    /// shift by d more, give the same.
    #[inline(always)]
    fn requantize_shifted<const SHIFT: u32>(channel: &Channel, accumulator: i32) -> i32 {
        let high = ((i64::from(accumulator) * i64::from(channel.multiplier as u32)) >> 32) as i32;
        let addend = channel.addend.wrapping_shl(SHIFT - 1);
        // The sum fits, if not what it is made of.
        subtract_if_negative::<SHIFT>(high).wrapping_add(addend) >> ((channel.shift + SHIFT as i32 - 1) & 31)
    }

    #[cfg(target_arch = "riscv32")]
    #[inline(always)]
    fn requantize_and_clamp(channel: &Channel, accumulator: i32, min: i32, max: i32) -> i32 {
        let mut x = accumulator << 1;
        one_pass!(x, channel, channel.addend, channel.shift, min, max, 2, "sra {zero}, {addend}, {shift}", out(reg) _);
        x
    }

    #[cfg(target_arch = "riscv32")]
    #[inline(always)]
    fn requantize_shifted_and_clamp<const SHIFT: u32>(channel: &Channel, accumulator: i32, min: i32, max: i32) -> i32 {
        let mut x = accumulator;
        let (addend, shift) = (channel.addend.wrapping_shl(SHIFT - 1), channel.shift + SHIFT as i32 - 1);
        // Of the shifted addend, only its sum with the product fits.
        let zero = channel.addend >> (channel.shift & 31);
        one_pass!(x, channel, addend, shift, min, max, 1 << SHIFT, "", in(reg) zero);
        x
    }
}

impl Form for TwoPass {
    #[inline(always)]
    fn requantize(channel: &Channel, accumulator: i32) -> i32 {
        let product = i64::from(accumulator) * i64::from(channel.multiplier as u32);
        let rounded = (product >> 32) as i32 + (product as u32 >> 31) as i32;
        (rounded + (rounded >> 31) + channel.addend) >> (channel.shift & 31)
    }
}

impl Requantization {
    /// The requantization of a layer in `form`, which is [`LITERAL`] or [`ONE_PASS`].
    pub(crate) fn new(form: u8, min: i32, max: i32) -> Self {
        Requantization { form, min, max }
    }

    pub(crate) fn form(&self) -> u8 {
        self.form
    }

    pub(crate) fn is_one_pass(&self) -> bool {
        self.form == ONE_PASS
    }

    /// The clamp of int8 outputs.
    #[cfg(feature = "host")]
    pub(crate) fn clamp_of_int8(&self) -> (i8, i8) {
        (self.min as i8, self.max as i8)
    }

    /// Clamps an output element; the last step of requantization.
    #[inline(always)]
    pub(crate) fn clamp<T: Element>(&self, x: i32) -> T {
        T::truncate(clamp(x, self.min, self.max))
    }

    /// Requantizes one accumulator.
    #[inline(always)]
    pub(crate) fn apply<C: ChannelRecord>(&self, channel: &C, accumulator: C::Sum) -> C::Element {
        self.clamp(channel.requantize(self.is_one_pass(), accumulator))
    }

    /// [`Requantization::apply`] where the form is known.
    #[inline(always)]
    pub(crate) fn apply_as<A: Accumulate>(&self, channel: &A::Channel, accumulator: A::Sum) -> A::Element {
        A::Element::truncate(A::to_clamped_output(channel, accumulator, self.min, self.max))
    }
}

/// The addend of the one-pass form for a right shift of `e`, 1 to 21.
#[cfg(any(feature = "alloc", test))]
pub(crate) fn one_pass_addend(e: i32, zero_point: i32) -> i32 {
    1 + 2 * ((1 << (e - 1)) + (zero_point << e))
}

/// `x - 2^SHIFT` for a negative `x`, else `x`.
#[inline(always)]
fn subtract_if_negative<const SHIFT: u32>(x: i32) -> i32 {
    #[cfg(target_arch = "riscv32")]
    {
        let mut x = x;
        // SAFETY: a branch and an addition on a register. LLVM takes three instructions and more, on every path.
        unsafe {
            core::arch::asm!(
                "bgez {x}, 2f",
                "addi {x}, {x}, -{correction}",
                "2:",
                x = inout(reg) x,
                correction = const 1 << SHIFT,
                options(pure, nomem, nostack),
            );
        }
        x
    }
    #[cfg(not(target_arch = "riscv32"))]
    {
        x.wrapping_sub(i32::from(x < 0) << SHIFT)
    }
}

/// [`Ord::clamp`].
#[inline(always)]
pub(crate) fn clamp(x: i32, min: i32, max: i32) -> i32 {
    #[cfg(target_arch = "riscv32")]
    {
        let mut x = x;
        // SAFETY: branches and moves on registers. LLVM moves on every path: 2 to 3 instructions more per output.
        unsafe {
            core::arch::asm!(
                "bge {x}, {min}, 2f",
                "mv {x}, {min}",
                "2:",
                "bge {max}, {x}, 2f",
                "mv {x}, {max}",
                "2:",
                x = inout(reg) x,
                min = in(reg) min,
                max = in(reg) max,
                options(pure, nomem, nostack),
            );
        }
        x
    }
    #[cfg(not(target_arch = "riscv32"))]
    {
        x.clamp(min, max)
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
            let expected = Literal::requantize(&literal, accumulator);
            let actual = OnePass::requantize(&one_pass, accumulator);
            assert_eq!(actual, expected, "round {round}: {accumulator} {literal:?}");
        }
    }

    #[test]
    fn a_compact_channel_expands_to_the_channel() {
        let mut random = fastrand::Rng::with_seed(31);
        for _ in 0..200_000 {
            let (e, zero_point) = (random.i32(1..=21), random.i32(-128..128));
            let limit = CompactChannel::BIAS_LIMIT;
            let any = random.i32(1 - limit..limit);
            let bias = random.choice([limit - 1, 1 - limit, limit, -limit, any]).unwrap();
            let multiplier = random.i32(1 << 30..) << 1;
            let channel = Channel { bias, multiplier, addend: one_pass_addend(e, zero_point), shift: e + 1 };
            let Some(compact) = CompactChannel::new(&channel) else {
                assert_eq!(bias.abs(), limit);
                continue;
            };
            let expanded = compact.expand(zero_point);
            let Channel { bias, multiplier, addend, shift } = expanded;
            assert_eq!([bias, multiplier, addend, shift], [channel.bias, channel.multiplier, channel.addend, e + 1]);
            assert_eq!(compact.bias(), bias);
            let largest = ((1i64 << 31) - 3 - i64::from(channel.addend).abs()) / 2;
            let accumulator = (i64::from(random.i32(..)).clamp(-largest, largest) as i32) >> random.u32(0..28);
            let [actual, expected] =
                [compact.requantize(zero_point, accumulator), OnePass::requantize(&channel, accumulator)];
            assert_eq!(actual, expected, "{accumulator} {channel:?} {zero_point}");
        }
    }

    #[test]
    fn two_pass_equals_the_literal_form() {
        let mut random = fastrand::Rng::with_seed(30);
        for round in 0..1_000_000 {
            let (mantissa, e) = (random.i32(1 << 30..), random.i32(1..=30));
            let accumulator = match round % 8 {
                0 => 1 << 30,
                1 => -(1 << 30),
                _ => random.i32(-(1 << 30)..=1 << 30) >> random.u32(0..28),
            };
            let literal = Channel { bias: 0, multiplier: mantissa, addend: 0, shift: -e };
            let two_pass = Channel { bias: 0, multiplier: mantissa << 1, addend: 1 << (e - 1), shift: e };
            let expected = Literal::requantize(&literal, accumulator);
            assert_eq!(TwoPass::requantize(&two_pass, accumulator), expected, "{accumulator} {literal:?}");
        }
    }
}
