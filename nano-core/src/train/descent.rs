//! How stochastic gradient descent learns, as an image's author says it.

use alloc::vec::Vec;

use super::Loss;
use crate::image::WriteError;

/// How [`SgdHead`](super::SgdHead) and [`LayersHead`](super::LayersHead) learn.
#[derive(Clone, Debug)]
pub struct Descent {
    /// Learning rate of the real-valued step.
    pub learning_rate: f64,
    /// What the outputs mean, and so what they learn from.
    pub loss: Loss,
    /// The rate is halved whenever so many epochs of one training have passed; 0: never.
    pub halve_every: u32,
    /// What a sample of each class counts, above 0, one for each; empty: all the same.
    pub class_weights: Vec<f32>,
    /// The rows (classes) of the last layer that do not learn.
    pub frozen: Vec<usize>,
}

impl Descent {
    /// [`Descent::halve_every`] as records hold it.
    pub(super) fn halve_every(&self, refused: impl Fn(&'static str, f64) -> WriteError) -> Result<i32, WriteError> {
        i32::try_from(self.halve_every)
            .map_err(|_| refused("too many epochs between halvings of the rate", self.halve_every.into()))
    }

    /// A word for each class: what its samples count, the most being `full`, and the bit `frozen` for a row that does not learn.
    pub(super) fn class_words(
        &self,
        classes: usize,
        (full, frozen): (i32, i32),
        refused: impl Fn(&'static str, f64) -> WriteError,
    ) -> Result<Vec<i32>, WriteError> {
        let mut words = alloc::vec![full; classes];
        if !self.class_weights.is_empty() {
            let largest = self.class_weights.iter().fold(0.0f32, |largest, &weight| largest.max(weight));
            if self.class_weights.len() != classes {
                return Err(refused("needs one weight for each class, has", self.class_weights.len() as f64));
            }
            if let Some(&weight) = self.class_weights.iter().find(|weight| !(weight.is_finite() && **weight > 0.0)) {
                return Err(refused("the weight of a class must be above 0 and finite", weight.into()));
            }
            for (word, weight) in words.iter_mut().zip(&self.class_weights) {
                *word = (f64::from(full) * f64::from(*weight) / f64::from(largest) + 0.5) as i32;
            }
        }
        for &row in &self.frozen {
            *words.get_mut(row).ok_or_else(|| refused("a frozen row is none of the classes", row as f64))? |= frozen;
        }
        Ok(words)
    }
}
