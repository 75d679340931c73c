//! Heads of sums over samples: what they learn of a sample can be taken back exactly.

use core::num::NonZero;

use crate::Error;
use crate::image::HeadRecord;
#[cfg(feature = "alloc")]
use crate::image::{Value, WriteError};
use crate::train::head::Head;
#[cfg(feature = "alloc")]
use crate::train::sizes::Limits;
#[cfg(feature = "alloc")]
use crate::train::start::StartDescription;
use crate::train::target::Target;

/// A head that holds sums over the samples of each class.
pub(super) trait SumsHead<'a>: Head<'a> {
    /// Adds a sample of an existing class to the sums `times` times: 1 or -1.
    fn add(&mut self, features: &[i8], class: usize, times: i32);

    /// The number of samples of a class, and their sums of `x = q - zero_point`; `None` for a class that it has no room for.
    fn sums_of(&self, class: usize) -> Option<(u32, &[i32])>;

    /// The number of times that the sums were halved.
    fn halvings(&self) -> u32;

    /// Halves sums, if the next sample of `class` needs it.
    fn make_room(&mut self, class: usize);

    /// Implements [`Head::distance`].
    ///
    /// Bounds: at most 2^16 samples of a class and 512 features, so `|n x - s| <= 255 n` and the sum is below `2^25 n^2 < 2^57`.
    fn distance_to_mean(&self, features: &[i8], class: usize, zero_point: i32) -> Option<(u32, NonZero<u32>)> {
        let (count, sums) = self.sums_of(class)?;
        let samples = NonZero::new(count)?;
        let squares = sums.iter().zip(features).map(|(&sum, &q)| {
            let difference = i64::from(count as i32 * (i32::from(q) - zero_point) - sum);
            (difference * difference) as u64
        });
        // Both divisors are the number of samples: the quotient is that by its square, rounded down.
        let divisor = NonZero::<u64>::from(samples);
        Some((((squares.sum::<u64>() / divisor) / divisor) as u32, samples))
    }

    /// Implements [`Head::learn`].
    fn learn_sample(&mut self, features: &[i8], target: Target) -> Result<(), Error> {
        let class = self.check_sample(features, target)?;
        self.make_room(class);
        self.add(features, class, 1);
        Ok(())
    }

    /// Implements [`Head::unlearn`].
    fn unlearn_sample(&mut self, features: &[i8], target: Target) -> Result<(), Error> {
        let class = self.check_sample(features, target)?;
        if self.halvings() > 0 {
            return Err(Error::Unsupported {
                trainer: Self::NAME,
                request: "unlearn samples after its sums were halved",
            });
        }
        let never = Error::Unsupported { trainer: Self::NAME, request: "unlearn a sample that it has not learnt" };
        if self.sums_of(class).is_none_or(|(count, _)| count == 0) {
            return Err(never);
        }
        self.add(features, class, -1);
        if self.check_state(self.state()).is_err() {
            self.add(features, class, 1);
            return Err(never);
        }
        Ok(())
    }

    /// Checks a sample; returns its class.
    fn check_sample(&self, features: &[i8], target: Target) -> Result<usize, Error> {
        self.check_features(features)?;
        target.class(self.classes(), Self::NAME)
    }

    /// Checks that it has this class.
    fn check_class(&self, class: usize) -> Result<(), Error> {
        let classes = self.classes();
        if class < classes { Ok(()) } else { Err(Error::Label { label: class, classes }) }
    }

    /// The index of the class that [`Head::add_class`] adds, in memory for `capacity` classes.
    fn next_class(&self, capacity: usize) -> Result<usize, Error> {
        let class = self.classes();
        if class < capacity { Ok(class) } else { Err(Error::Full { name: "classes", capacity }) }
    }
}

/// Whether so many samples of a class are twice the half-life: they are halved before the next one.
pub(super) fn is_old(count: u32, half_life: u32) -> bool {
    half_life > 0 && count >= 2 * half_life
}

/// Halves the sums of a class of `count` samples; returns `n' = ceil(n / 2)`. `s' = floor(s n' / n + 1/2)`, so a sum stays within the
/// bounds of n' samples, which are multiples of n'.
pub(super) fn halve(count: u32, sums: &mut [i32]) -> u32 {
    let halved = count.div_ceil(2);
    let (before, after) = (i64::from(count), i64::from(halved));
    for sum in sums {
        *sum = (2 * i64::from(*sum) * after + before).checked_div_euclid(2 * before).unwrap_or(0) as i32;
    }
    halved
}

/// Refuses to merge a head whose sums were halved.
pub(super) fn check_merged(trainer: &'static str, halvings: u32) -> Result<(), Error> {
    match halvings {
        0 => Ok(()),
        _ => Err(Error::Unsupported { trainer, request: "merge a head whose sums were halved" }),
    }
}

/// Checks a record's number of classes at the start, and its half-life, for a trainer whose classes have at most `most` samples.
pub(super) fn check_record(record: &HeadRecord, classes: i32, most: u32) -> Result<(), Error> {
    if record.half_life > most / 2 {
        return Err(Error::Field { name: "head half-life", value: record.half_life.into() });
    }
    if record.guard != 0 {
        return Err(Error::Field { name: "head guard", value: record.guard.into() });
    }
    let possible = (1..=record.classes as i32).contains(&classes);
    if possible { Ok(()) } else { Err(Error::Field { name: "head classes at the start", value: classes.into() }) }
}

/// Description of a head of sums over samples.
#[cfg(feature = "alloc")]
#[derive(Clone, Debug)]
pub struct SumsDescription {
    /// Number of classes at the start.
    pub classes: usize,
    /// The most classes it can have.
    pub capacity: usize,
    /// What the factory's samples say of them; None: nothing.
    pub start: Option<StartDescription>,
    /// The number of newer samples of its class after which a sample counts half; 0: none fades.
    pub half_life: u32,
}

#[cfg(feature = "alloc")]
impl SumsDescription {
    /// Checks the layer's size, the capacity, the start and the half-life against the trainer's limits, and the most samples of a class.
    pub(super) fn check(&self, limits: &Limits, features: &Value, samples: u32) -> Result<(), WriteError> {
        if self.half_life > samples / 2 {
            return Err(WriteError::setting("half_life", self.half_life, format_args!("at most {}", samples / 2)));
        }
        limits.check_layer(self.classes, features.len())?;
        let most = limits.classes;
        if !(self.classes..=most).contains(&self.capacity) {
            let expected = format_args!("{}, the classes of the layer, to {most}", self.classes);
            return Err(WriteError::setting("capacity", self.capacity, expected));
        }
        self.start.as_ref().map_or(Ok(()), |start| start.check(self.classes, features.len()))
    }
}
