//! What a head of sums knows when it is shipped: the means of the factory's classes, which the user's samples move.
//!
//! Means have 7 fraction bits, variances 6. With the user's counts n_k and means u_k, the factory's means m_k and v, the variance within
//! a class (the trace of its covariance), a commit takes as the mean of class k
//!
//! `m_k + d + n_k / (n_k + p) (u_k - m_k - d)`.
//!
//! - `d` is what all classes have moved by, so that it also moves those that the user has not taught: the mean of `u_k - m_k`, with the
//!   weights `n_k / (n_k + 1)`, and half a class that has not moved.
//! - `p`, the number of samples that the factory's mean counts as, is the empirical Bayes estimate (Efron and Morris, Stein's estimation
//!   rule and its competitors, 1973) of a mean between groups, `strength v / t`: `t`, the mean of `|u_k - m_k - d|^2 - v / n_k` over the
//!   classes that the user has taught, none of them below 0, is how far classes move from the factory's to this user's. So the
//!   means that still hold for a user count much, and others little. p is between 1/64 and 64.
//!
//! Bounds: means are below 2^15, `|d|` below 2^17; with up to 2^16 samples and 2^12 classes, sums of weighted moves are below 2^44; squared
//! distances over 2^9 features, in 1/64, below 2^31, their sum below 2^43, and `strength v classes` below 2^52.

#[cfg(feature = "alloc")]
use alloc::{format, vec::Vec};
use core::num::NonZero;

use crate::Error;
#[cfg(feature = "alloc")]
use crate::image::{Value, WriteError};

/// Fraction bits of a mean.
pub(super) const FRACTION: u32 = 7;
/// The largest strength, in 1/256.
const LARGEST_STRENGTH: i32 = 1 << 10;
#[cfg(feature = "alloc")]
const STRENGTH_STEPS: f64 = 256.0;
/// The largest variance in 1/64, of 512 features at their bounds.
const LARGEST_VARIANCE: i32 = 1 << 30;
/// The bounds of p, in 1/256.
const LEAST_WEIGHT: u64 = 4;
const LARGEST_WEIGHT: u64 = 64 << 8;

/// The factory's part of a head of sums; the module's documentation has the arithmetic.
#[derive(Clone, Copy)]
pub(super) struct Start<'a> {
    /// `[classes][features]`.
    means: &'a [i16],
    features: NonZero<usize>,
    /// The least and the largest mean that samples can have.
    bounds: (i32, i32),
    /// In 1/256.
    strength: u32,
    /// v in 1/64, at least 1.
    pub variance: NonZero<u64>,
}

impl<'a> Start<'a> {
    /// Checks a record's constants and the means that an image holds, of features from `low` to `high`.
    pub fn new(
        means: &'a [i16],
        features: NonZero<usize>,
        [strength, variance]: [i32; 2],
        (low, high): (i32, i32),
    ) -> Result<Self, Error> {
        let field = |name, value: i32| Err(Error::Field { name, value: value.into() });
        let (low, high) = (low << FRACTION, high << FRACTION);
        if !(1..=LARGEST_STRENGTH).contains(&strength) {
            return field("head strength of the start's means", strength);
        }
        let Some(positive) = u64::try_from(variance).ok().and_then(NonZero::new) else {
            return field("head variance at the start", variance);
        };
        if variance > LARGEST_VARIANCE {
            return field("head variance at the start", variance);
        }
        if let Some(&mean) = means.iter().find(|&&mean| !(low..=high).contains(&mean.into())) {
            return field("head mean at the start", mean.into());
        }
        Ok(Start { means, features, bounds: (low, high), strength: strength as u32, variance: positive })
    }

    /// Number of classes that it knows.
    pub fn classes(&self) -> usize {
        self.means.len() / self.features
    }

    /// Replaces the user's means of the classes that it knows, given their counts and the variance within a class, in 1/64, by what
    /// factory and user know together. `moved` has room for one number per feature.
    pub fn combine(&self, counts: &[u32], means: &mut [i16], variance: u64, moved: &mut [i32]) {
        self.common_move(counts, means, moved);
        let width = self.features.get();
        let (mut taught, mut distance) = (0, 0);
        for ((own, user), &count) in self.means.chunks_exact(width).zip(means.chunks_exact(width)).zip(counts) {
            let Some(count) = NonZero::new(u64::from(count)) else { continue };
            let squares = self.expected(own, moved).zip(user).map(|(mean, &user)| {
                let difference = i64::from(i32::from(user) - mean);
                (difference * difference) as u64
            });
            taught += 1;
            distance += (squares.sum::<u64>() >> (2 * FRACTION - 6)).saturating_sub(variance / count);
        }
        let weight = u64::from(self.strength).saturating_mul(variance).saturating_mul(taught) / at_least_one(distance);
        let weight = weight.clamp(LEAST_WEIGHT, LARGEST_WEIGHT);
        for ((own, user), &count) in self.means.chunks_exact(width).zip(means.chunks_exact_mut(width)).zip(counts) {
            let count = u64::from(count) << 8;
            let share = ((count << 16) / at_least_one(count + weight)) as i64;
            for (mean, user) in self.expected(own, moved).zip(user) {
                let difference = i64::from(i32::from(*user) - mean);
                *user = (mean + ((difference * share + (1 << 15)) >> 16) as i32) as i16;
            }
        }
    }

    /// d, rounded towards 0.
    fn common_move(&self, counts: &[u32], means: &[i16], moved: &mut [i32]) {
        let width = self.features.get();
        moved.fill(0);
        let weight = |count: u32| ((u64::from(count) << 15) / at_least_one(u64::from(count) + 1)) as i64;
        let total = counts.iter().take(self.classes()).map(|&count| weight(count)).sum::<i64>() + (1 << 14);
        for (i, moved) in moved.iter_mut().enumerate().take(width) {
            let column = self.means.iter().skip(i).step_by(width).zip(means.iter().skip(i).step_by(width));
            let moves = column
                .zip(counts)
                .map(|((&own, &user), &count)| weight(count) * i64::from(i32::from(user) - i32::from(own)));
            let sum = moves.sum::<i64>();
            let size = (sum.unsigned_abs() / at_least_one(total as u64)) as i32;
            *moved = if sum < 0 { -size } else { size };
        }
    }

    /// The mean of a class if it has moved as all have: within the bounds of samples.
    fn expected(&self, own: &[i16], moved: &[i32]) -> impl Iterator<Item = i32> {
        let (low, high) = self.bounds;
        own.iter().zip(moved).map(move |(&own, &moved)| (i32::from(own) + moved).max(low).min(high))
    }
}

/// A divisor that the arithmetic keeps above 0, which LLVM cannot know.
fn at_least_one(divisor: u64) -> NonZero<u64> {
    NonZero::new(divisor).unwrap_or(NonZero::<u64>::MIN)
}

/// What the factory's samples say of the classes, of features `x = q - zero_point`.
#[cfg(feature = "alloc")]
#[derive(Clone, Debug)]
pub struct StartDescription {
    /// The classes' means, `[classes, features]`.
    pub means: Vec<f32>,
    /// The covariance within classes, `[features, features]`.
    pub covariance: Vec<f32>,
    /// The weights of the layer that is shipped, `[classes, features]`; the head has them until it has learnt.
    pub weights: Vec<f32>,
    /// Its biases, one for each class.
    pub biases: Vec<f32>,
    /// The number of samples that a class's mean counts as if the classes of a user are as far from the factory's as samples are from
    /// their class: above 0, at most 4.
    pub mean_strength: f64,
    /// The number of samples of each class that the covariance counts as; above 0.
    pub spread_strength: f64,
}

#[cfg(feature = "alloc")]
impl StartDescription {
    /// Checks the lengths, and that all numbers are finite.
    pub(super) fn check(&self, classes: usize, features: usize) -> Result<(), WriteError> {
        let parts = [
            ("start means", &self.means, classes * features),
            ("start covariance", &self.covariance, features * features),
            ("start weights", &self.weights, classes * features),
            ("start biases", &self.biases, classes),
        ];
        for (name, numbers, length) in parts {
            if numbers.len() != length || !numbers.iter().all(|number| number.is_finite()) {
                let given = format!("{} numbers, not all of them finite or as many as needed", numbers.len());
                return Err(WriteError::setting(name, given, format_args!("{length} finite numbers")));
            }
        }
        let most = f64::from(LARGEST_STRENGTH) / STRENGTH_STEPS;
        if !(0.5 / STRENGTH_STEPS..=most).contains(&self.mean_strength) {
            let given = format_args!("{:?}", self.mean_strength);
            return Err(WriteError::setting("means", given, format_args!("above 0, at most {most}")));
        }
        if !(self.spread_strength.is_finite() && self.spread_strength > 0.0) {
            let given = format_args!("{:?}", self.spread_strength);
            return Err(WriteError::setting("spread", given, "a finite number above 0"));
        }
        Ok(())
    }

    /// Strength and variance, as records hold them.
    pub(super) fn constants(&self, features: usize) -> [i32; 2] {
        let trace: f64 = self.covariance.iter().step_by(features + 1).map(|&variance| f64::from(variance)).sum();
        let variance = rounded(trace * 64.0).clamp(1.0, LARGEST_VARIANCE.into());
        [rounded(self.mean_strength * STRENGTH_STEPS) as i32, variance as i32]
    }

    /// The means as images hold them.
    pub(super) fn packed_means(&self, features: &Value) -> Vec<i16> {
        let (low, high) = (-128 - features.zero_point, 127 - features.zero_point);
        let steps = f64::from(1 << FRACTION);
        let (low, high) = (f64::from(low) * steps, f64::from(high) * steps);
        self.means.iter().map(|&mean| rounded(f64::from(mean) * steps).clamp(low, high) as i16).collect()
    }
}

/// Rounded half away from zero; core has no f64::round. Only for numbers that i64 holds.
#[cfg(feature = "alloc")]
pub(super) fn rounded(value: f64) -> f64 {
    (value + 0.5f64.copysign(value)) as i64 as f64
}
