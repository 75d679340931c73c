//! The rate of a training: made of the samples' features and of how much their gradients agree, and weighed by class.
//!
//! A normalized rate is `2^b 3/4 r / |x|^2` with `|x|^2 = s_x^2 (sum x_i^2 + B^2)`, as in normalized least mean squares (Haykin, Adaptive Filter
//! Theory): gradient descent is stable below r / |x|^2, where r / 2 is the reciprocal of the loss's largest curvature, 1/2 for softmax, 1/4 for
//! sigmoid and 1 for squared error. So features of any size are learnt at a rate that fits them. The image holds the rate for `|x|^2 = s_x^2` and b = 0;
//! the rest is a shift and a factor, a logarithm base 2 in 1/256: minus that of the mean of `sum x_i^2 + B^2` over up to 64 of the ring's
//! samples, evenly chosen (with a half-life, of the newest two half-lives), or of the sample that is learnt alone, plus b.
//!
//! b is 0 unless the loss is softmax cross-entropy and a ring is learnt. There it follows from the gradients `e_j x_j` that these samples have at the shipped
//! weights, as in measures of gradient noise (McCandlish et al., An empirical model of large-batch training, 2018). `a` is the mean product of two
//! different samples' gradients of one class, over the mean square of a gradient: near 1 where a sample says what the next ones will, near 0 where
//! it is noise. With `l = log2(a / (1 - a))`
//!
//! - `b = 0.45 l - 1.1`, from -4 to 1, if the shipped layer does no better than guessing: `|e|^2` is at least 15/16 of that of equal probabilities.
//!   This includes layers of zeros.
//! - `b = 3 l + 1.5`, from -3.5 to 1.75, otherwise: what the layer knows is not given up for noise.
//!
//! Few samples are little evidence: four more count as if they said b = 0, or, if the layer knows something, `prior`, which is in the image. Without two
//! samples of a class, that is all. The numbers are fitted to a watch's recordings, three changes of MNIST-1D, MNIST to other digits, and layers of zeros on
//! digits, MNIST and MNIST-1D (`just bench-learning` compares with the best of eight fixed rates).
//!
//! Bounds: `e . e' / 2^15` is at most 2^16, `x . x'` at most `255^2 2^15 + 2^14 < 2^31`, so a product is below 2^48, and the sum over 2016 pairs below 2^59.

// Not inlined where it is called more than once: a training of thousands of steps calls it once, and flash is short.
use super::{BALANCED, LARGEST_IMBALANCE, MEASURED_SAMPLES, NORMALIZED, PRIOR_AT, SgdHead};
use crate::train::linear;
use crate::train::loss::{self, EXPONENTIALS, Loss};
use crate::train::ring::FeatureRing;

/// 1 of a logarithm.
pub(super) const OCTAVE: i32 = 256;
/// The number of samples that the prior counts as.
const PRIOR_SAMPLES: i32 = 4;

/// Sums over samples.
#[derive(Default)]
struct Gradients {
    samples: u64,
    /// Of `sum x_i^2 + B^2`.
    inputs: u64,
    /// Of `|e|^2 / 2^15`, and of that times `sum x_i^2 + B^2`.
    errors: u64,
    squares: u64,
    /// Pairs of one class, and the sum of their gradients' products.
    pairs: u64,
    products: i64,
}

impl SgdHead<'_> {
    /// `x . x'` of two samples, their bias inputs included.
    #[inline(never)]
    fn product(&self, one: &[i8], other: &[i8]) -> i32 {
        let x = |q: i8| i32::from(q) - self.input_zero_point;
        let products = one.iter().zip(other).map(|(&one, &other)| x(one) * x(other));
        products.sum::<i32>() + self.bias_input().pow(2)
    }

    fn is_normalized(&self) -> bool {
        self.record.constants[7] & NORMALIZED != 0
    }

    /// Minus the logarithm of the rate for a sample that is learnt alone, relative to the record's.
    pub(super) fn lowered_for(&self, features: &[i8]) -> i32 {
        if self.is_normalized() { logarithm(self.product(features, features) as u64) } else { 0 }
    }

    /// The same for a ring.
    pub(super) fn lowered_for_ring(&mut self, ring: &FeatureRing<'_>) -> i32 {
        if !self.is_normalized() {
            return 0;
        }
        let sums = self.gradients(ring);
        logarithm(sums.inputs / sums.samples.max(1))
            - if self.loss == Loss::CrossEntropy { self.raised_for(&sums) } else { 0 }
    }

    /// The sums over evenly chosen samples of a ring, at the weights that were shipped.
    #[inline(never)]
    fn gradients(&mut self, ring: &FeatureRing<'_>) -> Gradients {
        let held = ring.trained_len();
        // With a half-life, those before are hardly visited.
        let newest = 2 * self.record.half_life as usize;
        let length = if newest == 0 { held } else { held.min(newest) };
        let count = length.min(MEASURED_SAMPLES);
        let chosen = |place: usize| ring.trained(held - length + place * length / count.max(1));
        let mut sums = Gradients { samples: count as u64, ..Gradients::default() };
        for (place, (features, word)) in (0..count).filter_map(|place| Some((place, chosen(place)?))) {
            self.shipped_errors(features, word);
            self.counts.iter_mut().zip(&*self.scratch).for_each(|(own, &error)| *own = error);
            // Itself the last.
            for (other, (partner, class)) in (0..=place).filter_map(|other| Some((other, chosen(other)?))) {
                if class != word {
                    continue;
                }
                self.shipped_errors(partner, word);
                let (errors, inputs) = (self.errors_product(), i64::from(self.product(features, partner)));
                if other == place {
                    sums.inputs += inputs as u64;
                    sums.errors += errors as u64;
                    sums.squares += (errors * inputs) as u64;
                } else {
                    sums.pairs += 1;
                    sums.products += errors * inputs;
                }
            }
        }
        sums
    }

    /// Replaces the scratch memory by the errors of a sample at the weights that were shipped.
    #[inline(never)]
    fn shipped_errors(&mut self, features: &[i8], word: u32) {
        linear::products(self.initial, features, self.input_zero_point, self.bias_input(), self.scratch);
        let [multiplier, shift, ..] = self.record.constants;
        loss::errors(self.scratch, self.loss.target(word), multiplier as u64, shift as u32);
    }

    /// `e . e' / 2^15` of the errors in both parts of the scratch memory.
    #[inline(never)]
    fn errors_product(&self) -> i64 {
        let products = self.scratch.iter().zip(&*self.counts).map(|(&one, &other)| i64::from(one) * i64::from(other));
        products.sum::<i64>() >> 15
    }

    /// b.
    fn raised_for(&self, sums: &Gradients) -> i32 {
        let classes = u64::from(self.record.classes);
        let guesses = 16 * classes * sums.errors >= 15 * classes.saturating_sub(1) * (sums.samples << 15);
        let prior = if guesses { 0 } else { self.record.constants[7] >> PRIOR_AT };
        let Some(own) = (sums.squares).checked_div(sums.samples).filter(|&own| own > 0) else { return prior };
        let Some(agreed) = (sums.products.max(0) as u64).checked_div(sums.pairs) else { return prior };
        let odds = logarithm(agreed) - logarithm(own.saturating_sub(agreed));
        let raised = match guesses {
            true => (((115 * odds) >> 8) - 282).clamp(-4 * OCTAVE, OCTAVE),
            false => (3 * odds + 384).clamp(-896, 448),
        };
        let samples = sums.samples as i32;
        (samples * raised + PRIOR_SAMPLES * prior).checked_div_euclid(samples + PRIOR_SAMPLES).unwrap_or(prior)
    }

    /// The rate of a class in a training of balanced classes.
    pub(super) fn weighed(&self, rate: u16, label: u16) -> u16 {
        let count = self.counts.get(usize::from(label)).map_or(0, |&count| count as u32);
        match self.full_rate_at {
            // No sample of a ring is of a class that the ring has not counted.
            full if count <= full => rate,
            0 => rate,
            full => (u64::from(rate) * u64::from(full)).div_euclid(u64::from(count).max(1)) as u16,
        }
    }

    /// Counts the samples of each class in a ring, for balanced classes.
    pub(super) fn count(&mut self, ring: &FeatureRing<'_>) {
        self.full_rate_at = 0;
        if self.record.constants[7] & BALANCED == 0 {
            return;
        }
        self.counts.fill(0);
        for (_, word) in (0..ring.len()).filter_map(|index| ring.get(index)) {
            if let Some(count) = self.counts.get_mut(word as usize) {
                *count += 1;
            }
        }
        let counts = self.counts.iter().map(|&count| count as u32);
        let largest = counts.clone().max().unwrap_or(0);
        let least = counts.filter(|&count| count > 0).min().unwrap_or(0);
        self.full_rate_at = least.max(largest.div_ceil(LARGEST_IMBALANCE));
    }
}

/// The logarithm base 2 in 1/256, at most 0.09 too small: between powers of two it is a line. That of 0 is taken as 0.
#[inline(never)]
fn logarithm(value: u64) -> i32 {
    let zeros = (value | 1).leading_zeros();
    let fraction = ((value << zeros) >> 55) as i32 & (OCTAVE - 1);
    (63 - zeros as i32) * OCTAVE + fraction
}

/// A whole shift, and the factor in Q15 for the rest of a logarithm.
pub(super) fn shift_and_factor(lowered: i32) -> (i32, i32) {
    let fraction = EXPONENTIALS.get(lowered.rem_euclid(OCTAVE) as usize);
    (lowered.div_euclid(OCTAVE), fraction.map_or(1 << 15, |&factor| factor.into()))
}
