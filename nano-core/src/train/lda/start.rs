//! What an image says of the samples of the factory: the start of an [`LdaHead`](super::LdaHead).

use core::num::NonZero;

use zerocopy::FromBytes;

use super::state::{EXPONENTS, LARGEST_BIAS, LARGEST_WEIGHT, Parts};
use super::{solve, triangle};
use crate::Error;
use crate::image::HeadRecord;
use crate::train::confidence::NO_LOGIT;
use crate::train::start::Start;

/// The largest number of degrees of freedom that the factory's spread counts as.
pub(super) const LARGEST_FREEDOM: u32 = 1 << 8;
/// Bounds the factory's sums of products: S, at its bounds, and they still fit int32.
pub(super) const LARGEST_SPREAD: u32 = 1 << 23;

/// The factory's part of a head.
///
/// In the image: the shipped layer's biases (int32), the sums of products (int32, i <= j, row by row), then the means (int16, in 1/2^7) and
/// the shipped layer's weights (int16), `[classes][features]`.
#[derive(Clone, Copy)]
pub(super) struct LdaStart<'a> {
    start: Start<'a>,
    biases: &'a [i32],
    spread: &'a [i32],
    weights: &'a [i16],
    exponent: i32,
    /// Degrees of freedom of the spread.
    freedom: u32,
}

impl<'a> LdaStart<'a> {
    /// Reads a record and its state; None for a head that starts without samples.
    pub fn read(record: &HeadRecord, state: &'a [u8], bounds: (i32, i32)) -> Result<Option<Self>, Error> {
        let field = |name, value: i64| Err(Error::Field { name, value });
        if state.is_empty() {
            return Ok(None);
        }
        let wrong = Error::Field { name: "head state length", value: state.len() as i64 };
        let [classes, _, _, strength, variance, freedom, exponent, _] = record.constants;
        let features = NonZero::new(record.features as usize).ok_or(wrong)?;
        let (classes, width) = (classes as usize, features.get());
        let (biases, rest) = <[i32]>::ref_from_prefix_with_elems(state, classes).map_err(|_| wrong)?;
        let (spread, rest) = <[i32]>::ref_from_prefix_with_elems(rest, triangle::length(width)).map_err(|_| wrong)?;
        let (means, weights) = <[i16]>::ref_from_prefix_with_elems(rest, classes * width).map_err(|_| wrong)?;
        let weights = <[i16]>::ref_from_bytes_with_elems(weights, classes * width).map_err(|_| wrong)?;
        let start = Start::new(means, features, [strength, variance], bounds)?;
        if !(1..=LARGEST_FREEDOM as i32).contains(&freedom) {
            return field("head degrees of freedom at the start", freedom.into());
        }
        if !EXPONENTS.contains(&exponent) {
            return field("head exponent at the start", exponent.into());
        }
        if let Some(&bias) = biases.iter().find(|bias| bias.unsigned_abs() > LARGEST_BIAS) {
            return field("head bias at the start", bias.into());
        }
        if let Some(&weight) = weights.iter().find(|weight| weight.unsigned_abs() > LARGEST_WEIGHT) {
            return field("head weight at the start", weight.into());
        }
        if let Some(&sum) = spread.iter().find(|sum| sum.unsigned_abs() > LARGEST_SPREAD) {
            return field("head sum of products at the start", sum.into());
        }
        if let Some(&sum) = triangle::diagonal(spread, features).find(|&&sum| !(0..=freedom << 15).contains(&sum)) {
            return field("head sum of squares at the start", sum.into());
        }
        Ok(Some(LdaStart { start, biases, spread, weights, exponent, freedom: freedom as u32 }))
    }

    /// Number of classes that it knows.
    pub fn classes(&self) -> usize {
        self.start.classes()
    }

    /// Restores the shipped layer's weights.
    pub fn restore(&self, parts: &mut Parts<'_>) {
        for class in parts.classes.iter_mut() {
            *class.bias = NO_LOGIT;
            class.weights.fill(0);
        }
        let width = parts.features.get();
        let shipped = self.biases.iter().zip(self.weights.chunks_exact(width));
        for (class, (&bias, weights)) in parts.classes.iter_mut().zip(shipped) {
            *class.bias = bias;
            class.weights.copy_from_slice(weights);
        }
        parts.header.exponent.set(self.exponent);
        parts.header.freedom.set(1);
    }

    /// Combines the user's means, which are in place of the weights, with the factory's, and adds the factory's sums of products, given
    /// the user's degrees of freedom; returns those of both, and the share of the factory's sums that is added.
    pub fn combine(&self, parts: &mut Parts<'_>, moved: &mut [i32], freedom: u32) -> (u32, i64) {
        let variance = self.variance(parts, freedom);
        self.start.combine(parts.classes.counts, parts.classes.weights, variance, moved);
        let share = ((variance << 16) / self.start.variance).min(1 << 16) as i64;
        self.add(parts, share, 1);
        (freedom + self.freedom, share)
    }

    /// Adds `times` (1 or -1) the share of the factory's sums of products.
    pub fn add(&self, parts: &mut Parts<'_>, share: i64, times: i32) {
        for (sum, &own) in parts.spread.iter_mut().zip(self.spread) {
            *sum = sum.wrapping_add(times * ((i64::from(own) * share + (1 << 15)) >> 16) as i32);
        }
    }

    /// The variance within a class, in 1/64: the user's, and the factory's as that of one more sample of each class.
    fn variance(&self, parts: &Parts<'_>, freedom: u32) -> u64 {
        let classes = self.classes() as u64;
        let within = solve::trace_within(parts) << 6;
        let total = NonZero::new(u64::from(freedom) + classes).unwrap_or(NonZero::<u64>::MIN);
        (within + classes * self.start.variance.get()) / total
    }
}
