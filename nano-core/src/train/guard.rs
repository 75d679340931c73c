//! The guard: a training is taken back unless it makes the head better on samples that it has not visited.
//!
//! Every k-th labelled sample is kept aside ([`FeatureRing::guarded`]). After a training, the head before it and the head after it are compared
//! on the samples kept aside. The new head is kept if it recognises more of them, or as many with at most a quarter of the error: few samples prove
//! little, so it must be clearly better. Without a sample kept aside there is nothing to judge by, and the new head is kept.
//!
//! The error of a sample is `2^15 - p` of its label in Q15, and it is recognised if no other class has a larger p; with several labels the error is the
//! sum over the classes, and it is recognised if each of them is nearer to what it should be than to the opposite. A number is never recognised; its error is
//! its distance in 1/4096, at most 2^15. Bounds: an error is at most 32 * 2^15, so the sum over fewer than 2^40 samples, times 4, fits u64.
//!
//! Measured on a watch's recordings, 36 person-arms of three seeds, with every 8th of an arm's 30 to 80 labelled windows kept aside and the rate made by the
//! device (`just bench-learning`): without the guard the worst arm ends 3.9 points below the head that it began with, with it none does, and the mean loses
//! nothing. Over ten seeds, 120 arms, 17 end more than 0.5 points below without the guard, and 10 with it, the worst 3.1; the mean loses 0.5. No test of the
//! samples kept aside does better at that price: with every 3rd, 4th or 6th kept aside 10 to 13 arms end below; at most a quarter, an eighth or half of the
//! error, or no sample lost, 6 to 13, for up to 3.2 points of the mean. Only two more recognised of every 8th leaves none, for 3.9 points.

use core::ops::AddAssign;

use crate::Error;
use crate::train::head::Head;
use crate::train::ring::FeatureRing;

/// How well a head does on some samples; the module's documentation defines both numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Score {
    /// Samples recognised.
    pub recognised: u64,
    /// The sum of the errors.
    pub error: u64,
}

impl Score {
    /// Whether it is clearly better than `other`, of the same samples.
    pub fn beats(self, other: Self) -> bool {
        self.recognised > other.recognised || self.recognised == other.recognised && 4 * self.error <= other.error
    }
}

impl AddAssign for Score {
    fn add_assign(&mut self, other: Self) {
        self.recognised += other.recognised;
        self.error += other.error;
    }
}

/// Judges a training on the samples of `ring` that are kept aside: if it is to be taken back, restores the state `before` it, and `before` is then the one after it.
/// Returns whether it was taken back.
///
/// # Errors
/// Those of [`Head::check_state`] for `before`; [`Error::Unsupported`] for a trainer that does not learn in epochs. The head is then unchanged.
pub fn take_back_if_worse<'a>(
    head: &mut impl Head<'a>,
    before: &mut [u8],
    ring: &FeatureRing<'_>,
) -> Result<bool, Error> {
    if ring.aside_len() == 0 {
        return Ok(false);
    }
    let after_it = score_aside(head, ring)?;
    head.exchange(before)?;
    let taken_back = !after_it.beats(score_aside(head, ring)?);
    if !taken_back {
        head.exchange(before)?;
    }
    Ok(taken_back)
}

/// How well a head does on the samples of `ring` that are kept aside.
///
/// # Errors
/// Those of [`Head::score`].
pub fn score_aside<'a>(head: &mut impl Head<'a>, ring: &FeatureRing<'_>) -> Result<Score, Error> {
    let mut sum = Score::default();
    for (features, word) in (0..ring.aside_len()).filter_map(|index| ring.aside(index)) {
        sum += head.score(features, head.target(word))?;
    }
    Ok(sum)
}
