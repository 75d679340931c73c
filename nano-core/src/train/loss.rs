//! Losses of gradient descent, and their gradients in integers.

use crate::Error;
use crate::train::guard::Score;
use crate::train::target::Target;

/// `round(2^15 * 2^(-j/256))`.
pub(crate) const EXPONENTIALS: [u16; 256] = {
    /// `2^63 * 2^(-1/256)`, rounded.
    const STEP: u128 = 9_198_432_556_164_277_331;
    let mut table = [0; 256];
    let mut power = 1u128 << 63;
    let mut index = 0;
    while index < 256 {
        table[index] = ((power + (1 << 47)) >> 48) as u16;
        power = (power * STEP) >> 63;
        index += 1;
    }
    table
};

/// The loss of a head, which says what its outputs mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Loss {
    /// Softmax cross-entropy, for one right class: [`Target::Class`].
    CrossEntropy,
    /// Sigmoid cross-entropy, for classes that are each right or wrong: [`Target::Labels`].
    Binary,
    /// Squared error, for one number: [`Target::Value`].
    Squared,
}

impl Loss {
    /// Twice the reciprocal of the largest curvature, the largest rate with which gradient descent on inputs of mean square 1 is stable.
    #[cfg(feature = "alloc")]
    pub(super) const fn stable_rate(self) -> f64 {
        match self {
            Loss::CrossEntropy => 4.0,
            Loss::Binary => 8.0,
            Loss::Squared => 2.0,
        }
    }

    /// All losses; an image numbers them by their index.
    pub const ALL: [Loss; 3] = [Loss::CrossEntropy, Loss::Binary, Loss::Squared];

    /// Its name in settings.
    pub const fn name(self) -> &'static str {
        match self {
            Loss::CrossEntropy => "cross_entropy",
            Loss::Binary => "binary",
            Loss::Squared => "squared",
        }
    }

    /// The loss with this number in an image, for a head of `outputs` outputs.
    ///
    /// # Errors
    /// [`Error::Field`] if there is no such loss, or it does not allow so many outputs.
    pub(super) fn new(number: i32, outputs: u32) -> Result<Self, Error> {
        let Some(&loss) = usize::try_from(number).ok().and_then(|number| Self::ALL.get(number)) else {
            return Err(Error::Field { name: "head loss", value: number.into() });
        };
        if outputs > loss.most_outputs() {
            return Err(Error::Field { name: "head outputs for its loss", value: outputs.into() });
        }
        Ok(loss)
    }

    /// Units per 1 of a logit in steps 2 to 4: 1/256 of a power of two, or 1/4096.
    #[cfg(feature = "alloc")]
    pub(super) fn logit_steps(self) -> f64 {
        match self {
            Loss::CrossEntropy | Loss::Binary => core::f64::consts::LOG2_E * 256.0,
            Loss::Squared => 4096.0,
        }
    }

    /// The integer error of a gradient of 1.
    #[cfg(feature = "alloc")]
    pub(super) fn one(self) -> f64 {
        match self {
            Loss::CrossEntropy | Loss::Binary => 32768.0,
            Loss::Squared => 4096.0,
        }
    }

    /// The largest number of outputs that it has a target for.
    pub(super) const fn most_outputs(self) -> u32 {
        match self {
            Loss::CrossEntropy => u32::MAX,
            Loss::Binary => 32,
            Loss::Squared => 1,
        }
    }

    /// The target of a word from [`Target::word`].
    pub(super) fn target(self, word: u32) -> Target {
        match self {
            // Saturates: a word that is too large for a class stays too large.
            Loss::CrossEntropy => Target::Class(word.min(u16::MAX.into()) as u16),
            Loss::Binary => Target::Labels(word),
            Loss::Squared => Target::Value(word as i32),
        }
    }

    /// Checks that a target is of this loss's kind and its class below `classes`.
    #[inline(never)]
    pub(super) fn check(self, target: Target, classes: usize, trainer: &'static str) -> Result<(), Error> {
        match (self, target) {
            (Loss::CrossEntropy, _) => target.class(classes, trainer).map(|_| ()),
            (Loss::Binary, Target::Labels(labels)) => match u32::BITS - labels.leading_zeros() {
                bits if bits as usize <= classes => Ok(()),
                bits => Err(Error::Label { label: bits as usize - 1, classes }),
            },
            (Loss::Squared, Target::Value(_)) => Ok(()),
            _ => Err(Target::unsupported(trainer)),
        }
    }
}

/// Replaces logits by their errors (gradients of the loss): steps 2 to 4 of [`SgdHead`](super::SgdHead). A logit times `multiplier` over
/// 2^`shift` is in the units of [`Loss::logit_steps`]; the target has passed [`Loss::check`].
pub(super) fn errors(logits: &mut [i32], target: Target, multiplier: u64, shift: u32) {
    match target {
        Target::Class(label) => {
            let largest = logits.iter().copied().max().unwrap_or(0);
            let mut sum = 0;
            for logit in &mut *logits {
                *logit = power((u64::from(largest.abs_diff(*logit)) * multiplier) >> shift);
                sum += *logit as u32;
            }
            let reciprocal = ((1 << 30) / sum.max(1)) as i32;
            logits.iter_mut().for_each(|p| *p = (*p * reciprocal) >> 15);
            if let Some(right) = logits.get_mut(usize::from(label)) {
                *right -= 1 << 15;
            }
        }
        Target::Labels(labels) => {
            for (class, logit) in logits.iter_mut().enumerate() {
                let upper = (1 << 30) / ((1 << 15) + power((u64::from(logit.unsigned_abs()) * multiplier) >> shift));
                let probability = if *logit < 0 { (1 << 15) - upper } else { upper };
                *logit = probability - if labels >> class & 1 == 1 { 1 << 15 } else { 0 };
            }
        }
        Target::Value(value) => {
            for logit in logits {
                let output = (i64::from(*logit) * multiplier as i64) >> shift;
                *logit = (output - i64::from(value)).clamp(-(1 << 15), 1 << 15) as i32;
            }
        }
    }
}

/// How well a head does that has made these [`errors`].
pub(super) fn score(errors: &[i32], target: Target) -> Score {
    let sum = || errors.iter().map(|error| u64::from(error.unsigned_abs())).sum();
    match target {
        Target::Class(label) => {
            let own = errors.get(usize::from(label)).copied().unwrap_or(0);
            // The probability of the label is `own + 2^15`, those of others are their errors.
            let recognised = errors.iter().all(|&error| error <= own + (1 << 15));
            Score { recognised: recognised.into(), error: own.unsigned_abs().into() }
        }
        Target::Labels(_) => {
            let recognised = errors.iter().all(|error| error.abs() <= 1 << 14);
            Score { recognised: recognised.into(), error: sum() }
        }
        Target::Value(_) => Score { recognised: 0, error: sum() },
    }
}

/// Step 3: `2^(-distance/256)` in Q15.
fn power(distance: u64) -> i32 {
    let distance = distance.min(i16::MAX as u64) as usize;
    u32::from(EXPONENTIALS[distance & 255]).checked_shr((distance >> 8) as u32).unwrap_or(0) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_the_rounded_power() {
        for (index, &entry) in EXPONENTIALS.iter().enumerate() {
            assert_eq!(f64::from(entry), (32768.0 * (-(index as f64) / 256.0).exp2()).round(), "entry {index}");
        }
    }
}
