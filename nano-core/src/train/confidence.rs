//! Confidence of a prediction: the softmax probability of its class, in integers.

use super::loss::EXPONENTIALS;

/// The logit of a class without samples.
pub(super) const NO_LOGIT: i32 = i32::MIN;
/// `round(2^22 * 256 * log2(e))`.
const LOG2_E: u64 = 1_549_082_005;

/// The softmax probability of the largest of `logits`, in Q15 (32768 is certainty), for logits whose unit is `scale`.
///
/// With `d_k = a_max - a_k`, `scale = m 2^e` (m the 24 bits of the float's mantissa) and `M = floor(m * round(2^22 * 256 * log2(e)) / 2^24)`:
/// `u_k = min((d_k * M) >> -(e + 2), 32767)`, which is the distance base 2 in 1/256; `p_k = LUT[u_k & 255] >> (u_k >> 8)`, with
/// `LUT[j] = round(2^15 * 2^(-j/256))`; the result is `floor(2^30 / sum p_k)`. A logit of `i32::MIN`, of a class without samples, has
/// `p_k = 0`; if all have, the result is 0. For a scale that is not a positive number it is 32768.
///
/// Bounds: `d_k < 2^32`, `M < 2^31`: the product fits 63 bits. A sum above 2^30, of more than 2^15 logits, gives 0, so it may saturate. The
/// error against real softmax is below 0.4 %: a step of u is 0.27 %, the table adds 0.002 %. Probabilities below 2^-15 count as 0: at most
/// 3 % in all with 1000 classes.
///
/// ```
/// use nano_core::train::confidence;
/// assert_eq!(confidence([5, 5].into_iter(), 0.1), 16384);
/// // 1 / (1 + exp(-2)) = 0.8808 = 28862 / 32768
/// assert_eq!(confidence([0, 20].into_iter(), 0.1), 28856);
/// ```
pub fn confidence(logits: impl Iterator<Item = i32> + Clone, scale: f32) -> u16 {
    let logits = logits.filter(|&logit| logit != NO_LOGIT);
    let Some(largest) = logits.clone().max() else { return 0 };
    if !(scale.is_finite() && scale > 0.0) {
        return 1 << 15;
    }
    let (bits, stored) = (scale.to_bits() & 0x007f_ffff, scale.to_bits() >> 23);
    // Subnormal floats have no implicit leading one.
    let mantissa = u64::from(if stored == 0 { bits } else { bits | 1 << 23 });
    let exponent = stored.max(1) as i32 - 150;
    let multiplier = (mantissa * LOG2_E) >> 24;
    let distance = |logit: i32| {
        let product = u64::from(largest.abs_diff(logit)) * multiplier;
        let distance = match exponent + 2 {
            left @ 0.. => product.saturating_mul(1u64.checked_shl(left as u32).unwrap_or(u64::MAX)),
            right => product.checked_shr(right.unsigned_abs()).unwrap_or(0),
        };
        distance.min(i16::MAX as u64) as usize
    };
    let probability = |u: usize| u32::from(EXPONENTIALS[u & 255]).checked_shr((u >> 8) as u32).unwrap_or(0);
    let sum = logits.fold(0u32, |sum, logit| sum.saturating_add(probability(distance(logit))));
    ((1 << 30) / sum.max(1 << 15)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confidence_is_close_to_float_softmax() {
        assert_eq!(LOG2_E as f64, (f64::from(1 << 22) * 256.0 * core::f64::consts::LOG2_E).round());
        for seed in 0..20_000 {
            let mut random = fastrand::Rng::with_seed(seed);
            let scale = 2f32.powf(random.f32() * 30.0 - 28.0);
            // Logits that are up to 12 apart as real numbers, as heads have them.
            let range = ((12.0 / scale) as i32).max(1);
            let logits: Vec<i32> = (0..random.usize(1..12)).map(|_| random.i32(-range..=range)).collect();
            let largest = *logits.iter().max().unwrap();
            let real = |logit: &i32| ((f64::from(*logit) - f64::from(largest)) * f64::from(scale)).exp();
            let expected = 32768.0 / logits.iter().map(real).sum::<f64>();
            let found = f64::from(confidence(logits.iter().copied(), scale));
            // Errors of the floors: the distance 1/256 of a power of two, each of up to 11 terms 2^-15, the result 1.
            assert!((found - expected).abs() <= 0.004 * expected + 1.0 + 11.0, "seed {seed}: {found}, {expected}");
        }
    }

    #[test]
    fn extremes_are_defined() {
        let extreme = [i32::MIN + 1, i32::MAX];
        for scale in [f32::MIN_POSITIVE / 8.0, f32::MIN_POSITIVE, 1e-20, 1.0, 1e20, f32::MAX] {
            let found = confidence(extreme.into_iter(), scale);
            assert_eq!(found, if scale < 1e-12 { 1 << 14 } else { 1 << 15 }, "scale {scale}");
        }
        assert_eq!(confidence([].into_iter(), 1.0), 0);
        // With any scale, a class without samples takes no probability from the others.
        assert_eq!(confidence([i32::MIN, 3, i32::MIN].into_iter(), 1e-20), 1 << 15);
        assert_eq!(confidence([i32::MIN; 3].into_iter(), 1.0), 0);
        assert_eq!(confidence([1, 2].into_iter(), f32::NAN), 1 << 15);
        // Any number of classes: four of 2^15 equal ones have a sum of 2^32.
        for (classes, expected) in [(1 << 15, 1), (1 << 16, 0), ((1 << 17) - 1, 0), (1 << 17, 0), (1 << 18, 0)] {
            assert_eq!(confidence(std::iter::repeat_n(0, classes), 1.0), expected, "{classes} classes");
        }
    }
}
