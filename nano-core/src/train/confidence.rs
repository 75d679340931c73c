//! How sure a prediction is: softmax probabilities, in integers.

use super::loss::EXPONENTIALS;

/// The logit of a class without samples.
pub(super) const NO_LOGIT: i32 = i32::MIN;
/// `round(2^22 * 256 * log2(e))`.
const LOG2_E: u64 = 1_549_082_005;

/// The largest temperature, and minus the least: a factor of 2^32.
pub const LARGEST_TEMPERATURE: i32 = 32 * TEMPERATURE_STEPS;
/// Steps of a temperature by which it doubles.
pub const TEMPERATURE_STEPS: i32 = 16;

/// How sure a prediction is, in Q15: 32768 is certainty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Certainty {
    /// The softmax probability of the predicted class.
    pub confidence: u16,
    /// By how much it exceeds that of the second class: a label helps most where it is least (margin sampling; Scheffer, Decomain,
    /// Wrobel, Active hidden Markov models for information extraction, 2001).
    pub margin: u16,
}

/// The softmax probability of the largest of `logits`, and its margin, for logits whose unit is `scale`, divided by the temperature
/// `2^(temperature / 16)` (Guo, Pleiss, Sun, Weinberger, On calibration of modern neural networks, 2017).
///
/// With `d_k = a_max - a_k`, `scale = m 2^e` (m the 24 bits of the float's mantissa), `t = temperature` and
/// `M = floor(floor(m * round(2^22 * 256 * log2(e)) / 2^24) * LUT[16 (t mod 16)] / 2^15)`:
/// `u_k = min((d_k * M) >> -(e + 2 - floor(t / 16)), 32767)`, which is the distance base 2 in 1/256; `p_k = LUT[u_k & 255] >> (u_k >> 8)`,
/// with `LUT[j] = round(2^15 * 2^(-j/256))`. The confidence is `r = floor(2^30 / sum p_k)`, the margin `floor((2^15 - p) r / 2^15)` with p
/// that of the second largest logit. A logit of `i32::MIN`, of a class without samples, has `p_k = 0`; if all have, both are 0. For a scale
/// that is not a positive number the confidence is 32768, and the margin, too.
///
/// Bounds: `d_k < 2^32`, `M < 2^31`: the product fits 63 bits. A sum above 2^30, of more than 2^15 logits, gives 0, so it may saturate. The
/// error against real softmax is below 0.4 %: a step of u is 0.27 %, the table adds 0.002 %. Probabilities below 2^-15 count as 0: at most
/// 3 % in all with 1000 classes.
///
/// ```
/// use nano_core::train::{Certainty, certainty};
/// assert_eq!(certainty([5, 5].into_iter(), 0.1, 0), Certainty { confidence: 16384, margin: 0 });
/// // 1 / (1 + exp(-2)) = 0.8808 = 28862 / 32768, and tanh(1) = 0.7616 = 24956 / 32768
/// assert_eq!(certainty([0, 20].into_iter(), 0.1, 0), Certainty { confidence: 28856, margin: 24944 });
/// // At a temperature of 2: 1 / (1 + exp(-1)) = 0.7311 = 23955 / 32768
/// assert_eq!(certainty([0, 20].into_iter(), 0.1, 16).confidence, 23949);
/// ```
pub fn certainty(logits: impl Iterator<Item = i32> + Clone, scale: f32, temperature: i32) -> Certainty {
    let logits = logits.filter(|&logit| logit != NO_LOGIT);
    let (mut largest, mut second) = (NO_LOGIT, NO_LOGIT);
    for logit in logits.clone() {
        if logit > largest {
            (largest, second) = (logit, largest);
        } else if logit > second {
            second = logit;
        }
    }
    if largest == NO_LOGIT {
        return Certainty::default();
    }
    if !(scale.is_finite() && scale > 0.0) {
        return Certainty { confidence: 1 << 15, margin: 1 << 15 };
    }
    let (bits, stored) = (scale.to_bits() & 0x007f_ffff, scale.to_bits() >> 23);
    // Subnormal floats have no implicit leading one.
    let mantissa = u64::from(if stored == 0 { bits } else { bits | 1 << 23 });
    let exponent = stored.max(1) as i32 - 150 - temperature.div_euclid(TEMPERATURE_STEPS);
    let part = temperature.rem_euclid(TEMPERATURE_STEPS) * (256 / TEMPERATURE_STEPS);
    let multiplier = (((mantissa * LOG2_E) >> 24) * u64::from(EXPONENTIALS[part as usize & 255])) >> 15;
    let distance = |logit: i32| {
        let product = u64::from(largest.abs_diff(logit)) * multiplier;
        let distance = match exponent + 2 {
            left @ 0.. => product.saturating_mul(1u64.checked_shl(left as u32).unwrap_or(u64::MAX)),
            right => product.checked_shr(right.unsigned_abs()).unwrap_or(0),
        };
        distance.min(i16::MAX as u64) as usize
    };
    let probability = |logit: i32| {
        let u = distance(logit);
        u32::from(EXPONENTIALS[u & 255]).checked_shr((u >> 8) as u32).unwrap_or(0)
    };
    let sum = logits.fold(0u32, |sum, logit| sum.saturating_add(probability(logit)));
    let confidence = (1 << 30) / sum.max(1 << 15);
    let ahead = if second == NO_LOGIT { 1 << 15 } else { (1 << 15) - probability(second) };
    Certainty { confidence: confidence as u16, margin: ((ahead * confidence) >> 15) as u16 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certainty_is_close_to_float_softmax_at_every_temperature() {
        assert_eq!(LOG2_E as f64, (f64::from(1 << 22) * 256.0 * core::f64::consts::LOG2_E).round());
        for seed in 0..20_000 {
            let mut random = fastrand::Rng::with_seed(seed);
            let scale = 2f32.powf(random.f32() * 30.0 - 28.0);
            // Logits that are up to 12 apart as real numbers, as heads have them.
            let range = ((12.0 / scale) as i32).max(1);
            let mut logits: Vec<i32> = (0..random.usize(1..12)).map(|_| random.i32(-range..=range)).collect();
            let temperature = random.i32(-40..=40);
            let factor = f64::from(scale) / (f64::from(temperature) / 16.0).exp2();
            let largest = *logits.iter().max().unwrap();
            let real = |logit: &i32| ((f64::from(*logit) - f64::from(largest)) * factor).exp();
            let expected = 32768.0 / logits.iter().map(real).sum::<f64>();
            let Certainty { confidence, margin } = certainty(logits.iter().copied(), scale, temperature);
            let found = f64::from(confidence);
            logits.sort_unstable();
            let second = logits.iter().rev().nth(1).map_or(0.0, real);
            let (ahead, found_margin) = (expected * (1.0 - second), f64::from(margin));
            // The margin has the confidence's error, and that of the second probability: 0.3 % of at most the confidence, and 2^-15.
            let tolerance = 0.007 * expected + 1.0 + 12.0;
            assert!((found_margin - ahead).abs() <= tolerance, "seed {seed}: margin {found_margin}, {ahead}");
            // Errors of the floors: the distance 1/256 of a power of two, each of up to 11 terms 2^-15, the result 1.
            assert!((found - expected).abs() <= 0.004 * expected + 1.0 + 11.0, "seed {seed}: {found}, {expected}");
        }
    }

    #[test]
    fn extremes_are_defined() {
        let extreme = [i32::MIN + 1, i32::MAX];
        for scale in [f32::MIN_POSITIVE / 8.0, f32::MIN_POSITIVE, 1e-20, 1.0, 1e20, f32::MAX] {
            let found = certainty(extreme.into_iter(), scale, 0).confidence;
            assert_eq!(found, if scale < 1e-12 { 1 << 14 } else { 1 << 15 }, "scale {scale}");
        }
        let confidence = |logits: &[i32], scale| certainty(logits.iter().copied(), scale, 0).confidence;
        assert_eq!(certainty([].into_iter(), 1.0, 0), Certainty::default());
        // With any scale, a class without samples takes no probability from the others.
        assert_eq!(confidence(&[i32::MIN, 3, i32::MIN], 1e-20), 1 << 15);
        assert_eq!(confidence(&[i32::MIN; 3], 1.0), 0);
        assert_eq!(confidence(&[1, 2], f32::NAN), 1 << 15);
        // A class alone has no second one.
        assert_eq!(certainty([7].into_iter(), 1.0, 0), Certainty { confidence: 1 << 15, margin: 1 << 15 });
        for temperature in [-LARGEST_TEMPERATURE, LARGEST_TEMPERATURE] {
            for scale in [f32::MIN_POSITIVE / 8.0, f32::MAX] {
                let Certainty { confidence, margin } = certainty(extreme.into_iter(), scale, temperature);
                assert!(confidence >= 1 << 14 && margin <= 1 << 15, "scale {scale}, temperature {temperature}");
            }
        }
        // Any number of classes: four of 2^15 equal ones have a sum of 2^32.
        for (classes, expected) in [(1 << 15, 1), (1 << 16, 0), ((1 << 17) - 1, 0), (1 << 17, 0), (1 << 18, 0)] {
            assert_eq!(certainty(std::iter::repeat_n(0, classes), 1.0, 0).confidence, expected, "{classes} classes");
        }
    }
}
