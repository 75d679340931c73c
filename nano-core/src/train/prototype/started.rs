//! The means of a [`PrototypeHead`](super::PrototypeHead) that starts from the factory's samples.

use core::num::NonZero;

use zerocopy::{FromBytes, IntoBytes};

use crate::Error;
use crate::image::{HeadRecord, Image};
use crate::train::confidence::NO_LOGIT;
use crate::train::start::{FRACTION, Start};

/// What such a head has beside its state.
pub(super) struct Started<'a> {
    start: Start<'a>,
    features: NonZero<usize>,
    /// The means of factory and user, `[classes][features]`, and the padding of the last word.
    means: &'a mut [i16],
    moved: &'a mut [i32],
    /// Whether the means are those of the state.
    current: bool,
}

impl<'a> Started<'a> {
    /// Words of scratch memory for this number of means.
    pub const fn words(means: usize, features: usize) -> usize {
        means.div_ceil(2).saturating_add(features)
    }

    /// Reads a record; None for a head that starts without samples.
    pub fn read(
        image: &Image<'a>,
        record: &HeadRecord,
        zero_point: i32,
        scratch: &'a mut [i32],
    ) -> Result<Option<Self>, Error> {
        let state = image.head_state(record);
        let wrong = Error::Field { name: "head state length", value: state.len() as i64 };
        let [classes, strength, variance, ..] = record.constants;
        if strength == 0 {
            return if state.is_empty() { Ok(None) } else { Err(wrong) };
        }
        let features = NonZero::new(record.features as usize).ok_or(wrong)?;
        let means = <[i16]>::ref_from_bytes_with_elems(state, classes as usize * features.get()).map_err(|_| wrong)?;
        let start = Start::new(means, features, [strength, variance], (-128 - zero_point, 127 - zero_point))?;
        let (moved, means) = scratch.split_at_mut_checked(features.get()).ok_or(wrong)?;
        let means = <[i16]>::mut_from_bytes(means.as_mut_bytes()).map_err(|_| wrong)?;
        Ok(Some(Started { start, features, means, moved, current: false }))
    }

    /// After a change of the state.
    pub fn state_changed(&mut self) {
        self.current = false;
    }

    /// Makes the means those of a state, if they are not.
    pub fn update(&mut self, counts: &[u32], sums: &[i32]) {
        if self.current {
            return;
        }
        let width = self.features.get();
        for ((means, sums), &count) in self.means.chunks_exact_mut(width).zip(sums.chunks_exact(width)).zip(counts) {
            let count = i64::from(count);
            for (mean, &sum) in means.iter_mut().zip(sums) {
                let twice = (i64::from(sum) << (FRACTION + 1)) + count;
                *mean = if count == 0 { 0 } else { twice.div_euclid(2 * count) as i16 };
            }
        }
        self.start.combine(counts, self.means, self.start.variance.get(), self.moved);
        self.current = true;
    }

    /// The logits of features.
    pub fn logits(&self, features: &[i8], zero_point: i32, counts: &[u32], logits: &mut [i32]) {
        let means = self.means.chunks_exact(self.features.get());
        for (((logit, &count), means), class) in logits.iter_mut().zip(counts).zip(means).zip(0..) {
            let squares = means.iter().zip(features).map(|(&mean, &q)| {
                let difference = ((i32::from(q) - zero_point) << FRACTION) - i32::from(mean);
                (difference * difference) as u64
            });
            let known = count > 0 || class < self.start.classes();
            *logit = if known { -((squares.sum::<u64>() >> (2 * FRACTION - 4)) as i32) } else { NO_LOGIT };
        }
    }
}
