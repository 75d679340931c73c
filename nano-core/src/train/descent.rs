//! Settings of stochastic gradient descent.

use alloc::format;
use alloc::vec::Vec;

use super::linear::{LARGEST_GUARD, LARGEST_SHIFT};
use super::loss::Loss;
use crate::fixed_point::normalize;
use crate::image::WriteError;

/// Settings of [`SgdHead`](super::SgdHead) and [`LayersHead`](super::LayersHead).
#[derive(Clone, Debug)]
pub struct Descent {
    /// Learning rate of the real-valued step; None: three quarters of the largest with which gradient descent on a linear layer is stable,
    /// given the inputs' mean square (see [`SgdHead`](super::SgdHead)).
    pub learning_rate: Option<f64>,
    /// The loss, which says what the outputs mean.
    pub loss: Loss,
    /// Number of epochs of one training after which the rate is halved, again and again; 0: never.
    pub halve_every: u32,
    /// Weight of each class's samples, above 0; empty: all the same.
    pub class_weights: Vec<f64>,
    /// Whether a training weighs classes by how rarely the ring has them; only of an [`SgdHead`](super::SgdHead) with one right class.
    pub balance: bool,
    /// The rows (classes) of the last layer that do not learn.
    pub frozen: Vec<usize>,
    /// Every sample whose number is a multiple of it is kept aside, to judge trainings by; 0: none.
    pub guard: u32,
    /// The number of newer samples of the ring after which a training visits a sample half as often; 0: all alike.
    pub half_life: u32,
}

impl Descent {
    /// Checks the settings, except class weights, frozen rows and rate, for a last layer of `outputs` outputs.
    pub(super) fn check(&self, outputs: usize) -> Result<(), WriteError> {
        let (loss, most) = (self.loss.name(), self.loss.most_outputs());
        if outputs as u64 > most.into() {
            let given = format!("{loss:?} for a layer of {outputs} outputs");
            return Err(WriteError::setting("loss", given, format_args!("a layer of at most {most}")));
        }
        if self.loss == Loss::Squared && !self.class_weights.is_empty() {
            let given = format!("{:?}", self.class_weights);
            return Err(WriteError::setting(
                "class_weights",
                given,
                format_args!("none: loss {loss:?} has no classes"),
            ));
        }
        if self.balance && self.loss != Loss::CrossEntropy {
            let given = format!("True with loss {loss:?}");
            return Err(WriteError::setting("balance", given, "False, or loss \"cross_entropy\": one right class"));
        }
        Ok(())
    }

    /// [`Descent::guard`] as records hold it.
    pub(super) fn guard(&self) -> Result<u32, WriteError> {
        if self.guard != 1 && self.guard <= LARGEST_GUARD {
            return Ok(self.guard);
        }
        Err(WriteError::setting("guard", self.guard, format_args!("2 to {LARGEST_GUARD}, or none")))
    }

    /// [`Descent::halve_every`] as records hold it.
    pub(super) fn halve_every(&self) -> Result<i32, WriteError> {
        i32::try_from(self.halve_every)
            .map_err(|_| WriteError::setting("halve_every", self.halve_every, format_args!("at most {}", i32::MAX)))
    }

    /// Mantissa (15 bits) and right shift of a learning rate times each of `factors`, one per layer.
    pub(super) fn rates(rate: f64, factors: &[f64]) -> Result<Vec<(i32, i32)>, WriteError> {
        let packed = |&factor: &f64| {
            let (mantissa, exponent) = normalize(rate * factor, 15)?;
            (-LARGEST_SHIFT..=-1).contains(&exponent).then_some((mantissa as i32, -exponent))
        };
        factors.iter().map(packed).collect::<Option<_>>().ok_or_else(|| {
            // From the smallest mantissa with the largest shift to just below what the smallest shift holds; both moved inwards by more
            // than the rounding to four digits.
            let (least, most) = (0.5 / (1u64 << LARGEST_SHIFT) as f64, 0.5);
            let least = factors.iter().fold(0.0f64, |all, factor| all.max(least / factor)) * 1.001;
            let most = factors.iter().fold(f64::INFINITY, |all, factor| all.min(most / factor)) * 0.999;
            let expected = match least < most {
                true => format!("{:?} to {:?} for the weights and features of this model", short(least), short(most)),
                false => "layers whose weights are of more similar sizes: no rate suits them all".into(),
            };
            WriteError::setting("learning_rate", format_args!("{rate:?}"), expected)
        })
    }

    /// Mantissa (15 bits) and right shift, which may be a left one, of the rate for inputs of mean square 1, in units of
    /// `input_scale`, times `factor`.
    pub(super) fn normalized_rate(&self, factor: f64, input_scale: f64) -> Result<(i32, i32), WriteError> {
        let rate = 0.75 * self.loss.stable_rate() / (input_scale * input_scale);
        let packed = normalize(rate * factor, 15).filter(|(_, shift)| (-LARGEST_SHIFT..=LARGEST_SHIFT).contains(shift));
        let (mantissa, shift) = packed.ok_or_else(|| {
            WriteError::setting(
                "learning_rate",
                "\"auto\"",
                "a number: no rate suits weights and features of these sizes",
            )
        })?;
        Ok((mantissa as i32, -shift))
    }

    /// A word for each class: its weight, of which `full` is the largest, and the bit `frozen` for a row that does not learn.
    pub(super) fn class_words(&self, classes: usize, full: i32, frozen: i32) -> Result<Vec<i32>, WriteError> {
        let refused = |given, expected| Err(WriteError::setting("class_weights", given, expected));
        let mut words = alloc::vec![full; classes];
        if !self.class_weights.is_empty() {
            let largest = self.class_weights.iter().fold(0.0f64, |largest, &weight| largest.max(weight));
            if self.class_weights.len() != classes {
                let length = self.class_weights.len();
                return refused(format!("of length {length}"), format!("{classes}, one for each class"));
            }
            for (class, (word, &weight)) in words.iter_mut().zip(&self.class_weights).enumerate() {
                let given = || format!("{weight:?} for class {class}");
                if !(weight.is_finite() && weight > 0.0) {
                    return refused(given(), "finite numbers above 0".into());
                }
                *word = (f64::from(full) * (weight / largest) + 0.5) as i32;
                if *word == 0 {
                    let least = short(largest / (2.0 * f64::from(full)) * 1.001);
                    return refused(given(), format!("at least {least:?} beside {largest:?}: less counts as nothing"));
                }
            }
        }
        for &row in &self.frozen {
            let word = words.get_mut(row).ok_or_else(|| {
                let expected = format_args!("classes from 0 to {}", classes - 1);
                WriteError::setting("frozen", format_args!("{:?}", self.frozen), expected)
            })?;
            *word |= frozen;
        }
        Ok(words)
    }
}

/// `value` with four digits.
fn short(value: f64) -> f64 {
    format!("{value:.3e}").parse().unwrap_or(value)
}
