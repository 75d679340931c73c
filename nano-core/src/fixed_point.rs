//! Fixed-point arithmetic: a real multiplier as integers, and its product with an int32, rounded twice.
//!
//! This is gemmlowp's double rounding, `MultiplyByQuantizedMultiplier` in TensorFlow Lite Micro's reference kernels: the product is
//! rounded to the mantissa's precision (half up), then divided by a power of two (rounded half away from zero). A left shift that
//! overflows saturates here and is undefined there. Layers requantize their accumulators with it in `kernels/requantize.rs`.
//!
//! Layers of int16 have sums beyond int32, and a multiplier of their own, [`WideMultiplier`] (`kernels/requantize_wide.rs`).

/// A non-negative real number as `mantissa * 2^(shift - 31)`, mantissa in `[2^30, 2^31)` (or 0).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Multiplier {
    /// Q31 mantissa.
    pub mantissa: i32,
    /// Power of two, -31 to 31; a left shift if positive.
    pub shift: i32,
}

impl Multiplier {
    /// The multiplier nearest to `real`, or `None` if `real` is not finite, negative, or at least 2^30.
    /// Numbers that round to less than 2^-32 become 0.
    ///
    /// ```
    /// use nano_core::fixed_point::Multiplier;
    /// assert_eq!(Multiplier::from_real(0.75), Some(Multiplier { mantissa: 0x6000_0000, shift: 0 }));
    /// assert_eq!(Multiplier::from_real(f64::NAN), None);
    /// ```
    pub fn from_real(real: f64) -> Option<Multiplier> {
        const ZERO: Multiplier = Multiplier { mantissa: 0, shift: 0 };
        if !(0.0..1_073_741_824.0).contains(&real) {
            return None;
        }
        Some(match normalize(real, 31) {
            Some((mantissa, shift)) if shift >= -31 => Multiplier { mantissa: mantissa as i32, shift },
            _ => ZERO,
        })
    }

    /// `value` times this multiplier, rounded twice. A left shift saturates to int32, which changes no int8 made from the result:
    /// a saturated product is at least 2^30 in magnitude, beyond every clamp.
    ///
    /// ```
    /// use nano_core::fixed_point::Multiplier;
    /// let half = Multiplier::from_real(0.5).unwrap();
    /// assert_eq!((half.apply(5), half.apply(-5)), (3, -2));
    /// let quarter = Multiplier::from_real(0.25).unwrap();
    /// assert_eq!((quarter.apply(4), quarter.apply(5)), (1, 2)); // 1.25 becomes 2.5 / 2, then 3 / 2, then 2
    /// ```
    #[inline]
    pub fn apply(self, value: i32) -> i32 {
        let widened = if self.shift > 0 { shift_left_saturating(value, self.shift as u32) } else { value };
        rounding_divide_by_power_of_two(doubling_high_multiply(widened, self.mantissa), (-self.shift).max(0) as u32)
    }
}

/// A non-negative real number as `mantissa * 2^-shift`, the mantissa of 15 bits: the multiplier of sums beyond int32.
///
/// This is `MultiplyByQuantizedMultiplier` of an int64 in TensorFlow Lite Micro's reference kernels: a [`Multiplier`] whose mantissa is rounded to 16
/// bits and a product that is rounded once, half up. A result beyond int32 saturates here and wraps there. Its fully connected and (depthwise)
/// convolution kernels use it alike, with one scale of weights or one per channel, and clamp to the fused activation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct WideMultiplier {
    /// Q15 mantissa: 2^14 to 2^15 - 1, or 0.
    pub mantissa: i32,
    /// The right shift, 8 to 46.
    pub shift: i32,
}

impl WideMultiplier {
    /// The multiplier of `real`, or `None` if `real` is not finite, negative, or at least 2^7. Numbers that round to less than 2^-32 become 0.
    ///
    /// ```
    /// use nano_core::fixed_point::WideMultiplier;
    /// assert_eq!(WideMultiplier::from_real(0.75), Some(WideMultiplier { mantissa: 0x6000, shift: 15 }));
    /// // The mantissa has 15 bits: just below 1 it is rounded down.
    /// assert_eq!(WideMultiplier::from_real(1.0 - 1e-6), Some(WideMultiplier { mantissa: 0x7fff, shift: 15 }));
    /// assert_eq!(WideMultiplier::from_real(128.0), None);
    /// ```
    pub fn from_real(real: f64) -> Option<WideMultiplier> {
        let Multiplier { mantissa, shift } = Multiplier::from_real(real)?;
        let mantissa = ((i64::from(mantissa) + (1 << 15)) >> 16).min(0x7fff) as i32;
        (shift <= 7).then_some(WideMultiplier { mantissa, shift: 15 - shift })
    }

    /// `value`, below 2^47 in magnitude, times this multiplier, rounded; saturates to int32.
    ///
    /// ```
    /// use nano_core::fixed_point::WideMultiplier;
    /// let half = WideMultiplier::from_real(0.5).unwrap();
    /// assert_eq!((half.apply(5), half.apply(-5)), (3, -2));
    /// assert_eq!(half.apply(1 << 46), i32::MAX);
    /// ```
    #[inline]
    pub fn apply(self, value: i64) -> i32 {
        // Wrapping, as the channels that fill up a block have shift 0; their results are not used.
        let half = 1i64.wrapping_shl((self.shift - 1) as u32);
        let rounded = (value * i64::from(self.mantissa) + half) >> self.shift;
        rounded.clamp(i32::MIN.into(), i32::MAX.into()) as i32
    }
}

/// A positive, normal `real` as `mantissa * 2^(exponent - bits)`, the mantissa rounded to `[2^(bits - 1), 2^bits)`; `bits` up to 31.
/// `None` for everything else.
pub(crate) fn normalize(real: f64, bits: u32) -> Option<(u32, i32)> {
    const FRACTION: u32 = 52;
    if !(real.is_normal() && real > 0.0) {
        return None;
    }
    let word = real.to_bits();
    let significand = (word & ((1 << FRACTION) - 1)) | 1 << FRACTION;
    let dropped = FRACTION + 1 - bits;
    let mantissa = (significand + (1 << (dropped - 1))) >> dropped;
    let exponent = (word >> FRACTION) as i32 - 1022;
    Some(if mantissa == 1 << bits { (1 << (bits - 1), exponent + 1) } else { (mantissa as u32, exponent) })
}

#[inline]
pub(crate) fn shift_left_saturating(value: i32, shift: u32) -> i32 {
    (i64::from(value) << shift).clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32
}

/// `2 * a * b / 2^32`, rounded half up; saturates the one product that overflows, `i32::MIN * i32::MIN`.
///
/// ```
/// use nano_core::fixed_point::doubling_high_multiply;
/// assert_eq!(doubling_high_multiply(1 << 30, 1 << 30), 1 << 29);
/// assert_eq!(doubling_high_multiply(i32::MIN, i32::MIN), i32::MAX);
/// ```
#[inline]
pub fn doubling_high_multiply(a: i32, b: i32) -> i32 {
    let product = i64::from(a) * i64::from(b);
    ((product + (1 << 30)) >> 31).min(i64::from(i32::MAX)) as i32
}

/// `value / 2^exponent`, rounded half away from zero; `exponent` 0 to 31.
///
/// ```
/// use nano_core::fixed_point::rounding_divide_by_power_of_two as divide;
/// assert_eq!((divide(6, 2), divide(-6, 2), divide(-7, 0)), (2, -2, -7));
/// ```
#[inline]
pub fn rounding_divide_by_power_of_two(value: i32, exponent: u32) -> i32 {
    let mask = ((1u32 << exponent) - 1) as i32;
    let threshold = (mask >> 1) + i32::from(value < 0);
    (value >> exponent) + i32::from((value & mask) > threshold)
}

/// `value` clamped to `[min, max]`, an interval of int8.
#[inline]
pub(crate) fn clamp_to_i8(value: i32, min: i32, max: i32) -> i8 {
    crate::kernels::clamp(value, min, max) as i8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extremes_of_from_real() {
        assert_eq!(Multiplier::from_real(-1.0), None);
        assert_eq!(Multiplier::from_real(f64::INFINITY), None);
        assert_eq!(Multiplier::from_real(1e-300).unwrap().mantissa, 0);
        let below_one = Multiplier::from_real(1.0 - 1e-12).unwrap();
        assert_eq!(below_one, Multiplier { mantissa: 1 << 30, shift: 1 });
    }

    #[test]
    fn halves_go_away_from_zero() {
        for value in -1000i32..1000 {
            for exponent in 0..8u32 {
                let expected = (f64::from(value) / f64::from(1 << exponent)).round() as i32;
                assert_eq!(rounding_divide_by_power_of_two(value, exponent), expected, "{value} / 2^{exponent}");
            }
        }
    }

    #[test]
    fn a_left_shift_saturates_instead_of_wrapping() {
        let large = Multiplier::from_real(1000.0).unwrap();
        assert!(large.apply(i32::MAX) > 1 << 29);
        assert!(large.apply(i32::MIN) < -(1 << 29));
    }
}
