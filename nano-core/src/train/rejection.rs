//! What predictions of a head mean: how sure they are, and whether an input is of any class that the head knows.
//!
//! Softmax tells classes apart, and is as sure of an input that is like none of them: of the classes left out of a watch's seven, it puts
//! only 41 to 72 % below those that were taught (area under the ROC curve). The distance to the nearest class mean puts 97 % there.
//!
//! An image holds the class means of features, rounded to int8 (its centres), and the largest squared distance of a known class. With
//! features q and centre c it is `sum (q - c)^2`. A class whose sums the head holds, of n samples with the sum s, has their mean instead:
//! `floor(sum (n x - s)^2 / n^2) - floor(v / n)`, at least 0, where v is the variance within a class, summed over the features: so much
//! farther than the class itself is, on average, the mean of n of its samples. So what a user teaches is known, and classes that are added,
//! too. (The factor `n / (n + 1)` in place of the difference has the same mean, but moves outliers nearer: with 8 samples of each class 8 %
//! of digits were rejected where 5 % were wanted.)
//!
//! Bounds: `(q - c)^2 < 2^16`, and up to 2^15 features: below 2^31.

use crate::Error;
use crate::image::{HeadRecord, Image};
use crate::train::confidence::LARGEST_TEMPERATURE;
use crate::train::head::Head;

/// How the predictions of an image's head are read; the module's documentation has the arithmetic.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Rejection<'a> {
    /// Of [`certainty`](super::certainty).
    pub temperature: i32,
    /// `[classes][features]`; empty: every input is of a known class.
    centres: &'a [i8],
    features: usize,
    variance: u32,
    limit: u32,
}

impl<'a> Rejection<'a> {
    /// That of an image with this head.
    pub fn of(image: &Image<'a>, head: &HeadRecord) -> Self {
        let features = (head.features as usize).max(1);
        let &HeadRecord { temperature, variance, limit, .. } = head;
        Rejection { temperature, centres: image.head_centres(head), features, variance, limit }
    }

    /// Checks a head's temperature and number of centres.
    pub(crate) fn check(head: &HeadRecord) -> Result<(), Error> {
        if !(-LARGEST_TEMPERATURE..=LARGEST_TEMPERATURE).contains(&head.temperature) {
            return Err(Error::Field { name: "head temperature", value: head.temperature.into() });
        }
        let (length, features) = (u64::from(head.centres_length), u64::from(head.features.max(1)));
        if length % features != 0 || length / features > u64::from(head.classes) {
            return Err(Error::Field { name: "head centres length", value: head.centres_length.into() });
        }
        Ok(())
    }

    /// Squared distance, in steps, to the nearest class that the image has a centre of, or the head samples of; `u32::MAX` without such a
    /// class.
    pub fn distance<'h>(&self, head: &impl Head<'h>, features: &[i8]) -> u32 {
        let mut centres = self.centres.chunks_exact(self.features.max(1));
        let distances = (0..head.classes()).filter_map(|class| {
            let centre = centres.next();
            let square = |(&q, &centre): (&i8, &i8)| u32::from(q.abs_diff(centre)).pow(2);
            match head.distance(features, class) {
                Some((distance, samples)) => Some(distance.saturating_sub(self.variance / samples)),
                None => Some(features.iter().zip(centre?).map(square).sum()),
            }
        });
        distances.min().unwrap_or(u32::MAX)
    }

    /// Whether features are of a class that the image or the head knows: the distance is at most the limit.
    pub fn knows<'h>(&self, head: &impl Head<'h>, features: &[i8]) -> bool {
        self.centres.is_empty() || self.distance(head, features) <= self.limit
    }
}

/// What an image says of its head's predictions.
#[cfg(feature = "alloc")]
#[derive(Clone, Debug)]
pub struct RejectionDescription {
    /// Of [`certainty`](super::certainty), at most [`LARGEST_TEMPERATURE`] from 0.
    pub temperature: i32,
    /// The class means of features, `[classes, features]`; empty: no input is rejected.
    pub centres: alloc::vec::Vec<i8>,
    /// The variance within a class, summed over the features, in squared steps.
    pub variance: u32,
    /// The largest squared distance of an input of a known class.
    pub limit: u32,
}
