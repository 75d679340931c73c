//! A training: epochs over the samples of a ring, each in a new order, which can pause after any step.

use crate::Error;
use crate::train::ring::FeatureRing;

/// The largest number of epochs of one training, those before its first one included.
pub const LARGEST_EPOCHS: u32 = 1_000_000;
/// The random state of a fresh head.
pub(super) const FIRST_RANDOM: u32 = 0x9E37_79B9;

/// The position of a training: [`Head::train`](crate::train::Head::train) continues from there.
///
/// The result does not depend on how the steps are divided into calls. Between calls neither the ring nor the head may change.
///
/// ```
/// use nano_core::train::{FeatureRing, Target, Training};
/// let (mut features, mut targets) = ([0; 4], [0; 4]);
/// let mut ring = FeatureRing::new(1, &mut features, &mut targets)?;
/// ring.push(&[1], Target::Class(0))?;
/// ring.push(&[2], Target::Class(1))?;
/// let training = Training::new(&ring, 0, 20)?;
/// assert_eq!((training.taken(), training.left()), (0, 40));
/// # Ok::<(), nano_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Training {
    samples: u32,
    epoch: u32,
    end: u32,
    /// The current epoch's samples visited, next sample, and stride.
    visited: u32,
    next: u32,
    stride: u32,
    taken: u64,
    /// What a trainer has made of the samples before the first step: by how much it lowers its rate.
    pub(super) lowered: Option<i32>,
}

impl Training {
    /// The start of `epochs` epochs over the samples that `ring` holds and does not keep aside, after `first_epoch` epochs of the same training.
    ///
    /// # Errors
    /// [`Error::Epochs`] for more than [`LARGEST_EPOCHS`].
    pub fn new(ring: &FeatureRing<'_>, first_epoch: u32, epochs: u32) -> Result<Self, Error> {
        let end = first_epoch.saturating_add(epochs);
        if end > LARGEST_EPOCHS {
            return Err(Error::Epochs { given: end, largest: LARGEST_EPOCHS });
        }
        let samples = u32::try_from(ring.trained_len())
            .map_err(|_| Error::Full { name: "samples of a training", capacity: u32::MAX as usize })?;
        Ok(Training { samples, epoch: first_epoch, end, visited: 0, next: 0, stride: 0, taken: 0, lowered: None })
    }

    /// Steps taken.
    pub const fn taken(&self) -> u64 {
        self.taken
    }

    /// Steps left.
    pub const fn left(&self) -> u64 {
        (self.end - self.epoch) as u64 * self.samples as u64 - self.visited as u64
    }

    /// Whether its first step is its next one, and no epoch was before it.
    pub(super) const fn is_at_start(&self) -> bool {
        self.epoch == 0 && self.visited == 0 && self.left() > 0
    }

    /// Begins an epoch: from a random sample, by a random stride coprime to the number of samples. Draws two random numbers.
    fn begin_epoch(&mut self, random: &mut u32) {
        let range = (self.samples - 1).max(1);
        self.stride = 1 + draw(random) % range;
        while greatest_common_divisor(self.stride, self.samples) != 1 {
            self.stride = self.stride % range + 1;
        }
        self.next = draw(random) % self.samples.max(1);
    }

    fn advance(&mut self) {
        let wraps = self.next >= self.samples - self.stride;
        self.next = if wraps { self.next - (self.samples - self.stride) } else { self.next + self.stride };
        self.taken += 1;
        self.visited += 1;
        if self.visited == self.samples {
            (self.visited, self.epoch) = (0, self.epoch + 1);
        }
    }
}

/// Calls `step(features, target word, epoch)` for the next samples of the training, at most `most`, until one is refused.
///
/// With a half-life of h > 0, the newest h samples are visited in every epoch, the h before them in every second one, and so on: in epoch e those
/// with `floor(age / h) = j` if 2^j divides e. The others are steps, too, without an effect.
pub(super) fn visit(
    half_life: u32,
    ring: &FeatureRing<'_>,
    training: &mut Training,
    most: u32,
    random: &mut u32,
    mut step: impl FnMut(&[i8], u32, u32) -> Result<(), Error>,
) -> Result<(), Error> {
    Error::check_length("ring of the training", training.samples as usize, ring.trained_len())?;
    for _ in 0..training.left().min(most.into()) {
        if training.visited == 0 {
            training.begin_epoch(random);
        }
        let age = training.samples - 1 - training.next;
        let times_halved = age.checked_div(half_life).unwrap_or(0);
        let faded = training.epoch.trailing_zeros() < times_halved && training.epoch > 0;
        if let Some((features, target)) = ring.trained(training.next as usize).filter(|_| !faded) {
            step(features, target, training.epoch)?;
        }
        training.advance();
    }
    Ok(())
}

/// Marsaglia's xorshift32.
fn draw(random: &mut u32) -> u32 {
    *random ^= *random << 13;
    *random ^= *random >> 17;
    *random ^= *random << 5;
    *random
}

fn greatest_common_divisor(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::target::Target;

    #[test]
    fn an_epoch_visits_each_sample_once_and_a_training_has_a_limit() {
        for samples in 1..40 {
            let (mut features, mut targets) = (vec![0; samples], vec![0; samples]);
            let mut ring = FeatureRing::new(1, &mut features, &mut targets).unwrap();
            for sample in 0..samples {
                ring.push(&[0], Target::Value(sample as i32)).unwrap();
            }
            let mut random = FIRST_RANDOM;
            let mut training = Training::new(&ring, 7, 3).unwrap();
            for epoch in 7..10 {
                let mut seen = vec![];
                // In pieces of one, two, three ... steps.
                for piece in 1.. {
                    let left_of_epoch = (samples - seen.len()) as u32;
                    let keep = |_: &[i8], target: u32, now: u32| {
                        assert_eq!(now, epoch);
                        seen.push(target as usize);
                        Ok(())
                    };
                    visit(0, &ring, &mut training, left_of_epoch.min(piece), &mut random, keep).unwrap();
                    if left_of_epoch <= piece {
                        break;
                    }
                }
                seen.sort_unstable();
                assert!(seen.into_iter().eq(0..samples), "{samples} samples, epoch {epoch}");
            }
            assert_eq!((training.taken(), training.left()), (3 * samples as u64, 0));
            let refused = |given| Err(Error::Epochs { given, largest: LARGEST_EPOCHS });
            assert_eq!(Training::new(&ring, LARGEST_EPOCHS, 1), refused(LARGEST_EPOCHS + 1));
            assert_eq!(Training::new(&ring, 1, u32::MAX), refused(u32::MAX));
            assert!(Training::new(&ring, 1, LARGEST_EPOCHS - 1).is_ok());
        }
    }
}
