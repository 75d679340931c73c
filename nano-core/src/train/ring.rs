//! Ring buffer of the most recent features and their targets.

use core::num::NonZero;

use crate::Error;
use crate::train::target::Target;

/// The position of a [`FeatureRing`]: which samples it held at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct RingPosition {
    oldest: usize,
    length: usize,
}

/// Ring buffer of the most recent features and their targets, in RAM of the caller; a full ring overwrites the oldest.
///
/// ```
/// use nano_core::train::{FeatureRing, Target};
/// let (mut features, mut targets) = ([0; 4], [0; 2]);
/// let mut ring = FeatureRing::new(2, &mut features, &mut targets)?;
/// ring.push(&[1, 1], Target::Class(0))?;
/// ring.push(&[2, 2], Target::Class(1))?;
/// ring.push(&[3, 3], Target::Class(2))?;
/// assert_eq!(ring.get(0), Some((&[2, 2][..], 1)));
/// assert_eq!(ring.get(1), Some((&[3, 3][..], 2)));
/// assert_eq!(ring.get(2), None);
/// # Ok::<(), nano_core::Error>(())
/// ```
pub struct FeatureRing<'a> {
    width: NonZero<usize>,
    features: &'a mut [i8],
    targets: &'a mut [u32],
    oldest: usize,
    length: usize,
}

impl<'a> FeatureRing<'a> {
    /// An empty ring with `targets.len()` places of `width` features each.
    ///
    /// # Errors
    /// [`Error::Length`] unless `features` has `width` bytes for every target and there is room for one.
    pub fn new(width: usize, features: &'a mut [i8], targets: &'a mut [u32]) -> Result<Self, Error> {
        let needed = width.saturating_mul(targets.len());
        match NonZero::new(width) {
            Some(width) if !targets.is_empty() && features.len() == needed => {
                Ok(FeatureRing { width, features, targets, oldest: 0, length: 0 })
            }
            _ => Err(Error::Length { name: "ring features", needed, given: features.len() }),
        }
    }

    /// Number of places.
    pub fn capacity(&self) -> usize {
        self.targets.len()
    }

    /// Number of samples held.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether no sample is held.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Forgets all samples.
    pub fn clear(&mut self) {
        (self.oldest, self.length) = (0, 0);
    }

    /// Adds a sample; if the ring is full, it replaces the oldest.
    ///
    /// # Errors
    /// [`Error::Length`] if the number of features is another.
    pub fn push(&mut self, features: &[i8], target: Target) -> Result<(), Error> {
        let full = self.length == self.capacity();
        self.put(self.place(if full { 0 } else { self.length }), features, target.word())?;
        if full {
            self.oldest = self.place(1);
        } else {
            self.length += 1;
        }
        Ok(())
    }

    /// Sample `index` of [`FeatureRing::len`], 0 being the oldest: features, and the target as [`Target::word`] gives it.
    pub fn get(&self, index: usize) -> Option<(&[i8], u32)> {
        if index >= self.length {
            return None;
        }
        let place = self.place(index);
        self.features.chunks_exact(self.width.get()).nth(place).zip(self.targets.get(place).copied())
    }

    /// The current position, for [`FeatureRing::rewind`].
    pub fn position(&self) -> RingPosition {
        RingPosition { oldest: self.oldest, length: self.length }
    }

    /// Restores the samples it held at `position`, after at most one [`clear`](FeatureRing::clear) or [`push`](FeatureRing::push). If the
    /// ring was full then, `displaced` is the sample that was its oldest (features, and the target's word).
    ///
    /// ```
    /// use nano_core::train::{FeatureRing, Target};
    /// let (mut features, mut targets) = ([0; 2], [0; 2]);
    /// let mut ring = FeatureRing::new(1, &mut features, &mut targets)?;
    /// ring.push(&[1], Target::Class(0))?;
    /// ring.push(&[2], Target::Class(1))?;
    /// let (position, displaced) = (ring.position(), ([1], 0));
    /// ring.push(&[3], Target::Class(2))?;
    /// ring.rewind(position, Some((&displaced.0, displaced.1)))?;
    /// assert_eq!((ring.get(0), ring.get(1)), (Some((&[1][..], 0)), Some((&[2][..], 1))));
    /// # Ok::<(), nano_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Length`] if the number of features is another.
    pub fn rewind(&mut self, position: RingPosition, displaced: Option<(&[i8], u32)>) -> Result<(), Error> {
        if let Some((features, target)) = displaced {
            self.put(position.oldest, features, target)?;
        }
        (self.oldest, self.length) = (position.oldest, position.length);
        Ok(())
    }

    fn put(&mut self, place: usize, features: &[i8], target: u32) -> Result<(), Error> {
        Error::check_length("features", self.width.get(), features.len())?;
        let width = self.width.get();
        if let (Some(own), Some(word)) = (self.features.chunks_exact_mut(width).nth(place), self.targets.get_mut(place))
        {
            own.copy_from_slice(features);
            *word = target;
        }
        Ok(())
    }

    /// The place of sample `index`, counted from the oldest; `index` is at most the capacity.
    fn place(&self, index: usize) -> usize {
        let place = self.oldest + index;
        if place < self.capacity() { place } else { place - self.capacity() }
    }
}
