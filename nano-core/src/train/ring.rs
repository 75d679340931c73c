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
    first: usize,
}

/// Ring buffer of the most recent features and their targets, in RAM of the caller; a full ring overwrites the oldest.
///
/// With a guard of k, every k-th sample that arrives is kept aside: a training does not visit it, and [`take_back_if_worse`]
/// judges the training by it. This takes no RAM: it follows from the sample's number.
///
/// [`take_back_if_worse`]: crate::train::take_back_if_worse
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
    guard: Option<NonZero<usize>>,
    /// The number of the oldest sample since the ring was cleared, modulo the guard; 0 without one.
    first: usize,
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
                Ok(FeatureRing { width, features, targets, oldest: 0, length: 0, guard: None, first: 0 })
            }
            _ => Err(Error::Length { name: "ring features", needed, given: features.len() }),
        }
    }

    /// The same ring, empty, which keeps every sample aside whose number, from 1 on, is a multiple of `guard`; 0: none.
    pub fn guarded(mut self, guard: u32) -> Self {
        self.guard = NonZero::new(guard as usize);
        self.clear();
        self
    }

    /// Sets the number, from 0, of the sample that arrives next in an empty ring: as if others had come and gone.
    pub fn continue_from(&mut self, number: usize) {
        self.first = self.guard.map_or(0, |guard| number % guard);
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
        (self.oldest, self.length, self.first) = (0, 0, 0);
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
            self.first = self.guard.map_or(0, |guard| (self.first + 1) % guard);
        } else {
            self.length += 1;
        }
        Ok(())
    }

    /// Sample `index` of [`FeatureRing::len`], 0 being the oldest: features, and the target as [`Target::word`] gives it.
    #[inline(never)]
    pub fn get(&self, index: usize) -> Option<(&[i8], u32)> {
        if index >= self.length {
            return None;
        }
        let place = self.place(index);
        self.features.chunks_exact(self.width.get()).nth(place).zip(self.targets.get(place).copied())
    }

    /// Number of samples kept aside.
    pub fn aside_len(&self) -> usize {
        self.guard.map_or(0, |guard| (self.first + self.length) / guard)
    }

    /// Number of samples that a training visits: those not kept aside.
    pub fn trained_len(&self) -> usize {
        self.length - self.aside_len()
    }

    /// Sample `index` of [`FeatureRing::trained_len`], as [`FeatureRing::get`].
    #[inline(never)]
    pub fn trained(&self, index: usize) -> Option<(&[i8], u32)> {
        let Some(guard) = self.guard else { return self.get(index) };
        // With the samples before the oldest counted in, each group has guard - 1 of them and then one that is kept aside.
        let others = NonZero::new(guard.get() - 1)?;
        self.get((self.first + index) / others * guard.get() + (self.first + index) % others - self.first)
    }

    /// Sample `index` of [`FeatureRing::aside_len`], as [`FeatureRing::get`].
    pub fn aside(&self, index: usize) -> Option<(&[i8], u32)> {
        self.get(((index + 1) * self.guard?.get()).checked_sub(self.first + 1)?)
    }

    /// The current position, for [`FeatureRing::rewind`].
    pub fn position(&self) -> RingPosition {
        RingPosition { oldest: self.oldest, length: self.length, first: self.first }
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
        (self.oldest, self.length, self.first) = (position.oldest, position.length, position.first);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers of the samples at the indices of one of the parts.
    fn numbers<'r>(count: usize, get: impl Fn(usize) -> Option<(&'r [i8], u32)>) -> Vec<u32> {
        assert_eq!(get(count), None);
        (0..count).map(|index| get(index).unwrap().1).collect()
    }

    #[test]
    fn each_sample_is_visited_or_kept_aside_by_its_number() {
        for guard in [0, 2, 3, 4, 7, 20] {
            for places in 1..=17 {
                let (mut features, mut targets) = (vec![0; places], vec![0; places]);
                let mut ring = FeatureRing::new(1, &mut features, &mut targets).unwrap().guarded(guard);
                for number in 1..=60 {
                    let (position, full) = (ring.position(), ring.len() == places);
                    let oldest = ring.get(0).map_or(0, |(_, target)| target);
                    let held = |ring: &FeatureRing<'_>, newest: u32| {
                        let held = newest.saturating_sub(places as u32) + 1..=newest;
                        let is_aside = |number: &u32| number.is_multiple_of(guard);
                        let (aside, visited): (Vec<_>, Vec<_>) = held.partition(is_aside);
                        assert_eq!(numbers(ring.aside_len(), |index| ring.aside(index)), aside, "{guard} {places}");
                        assert_eq!(
                            numbers(ring.trained_len(), |index| ring.trained(index)),
                            visited,
                            "{guard} {places}"
                        );
                    };
                    ring.push(&[0], Target::Value(number as i32)).unwrap();
                    held(&ring, number);
                    ring.rewind(position, full.then_some((&[0], oldest))).unwrap();
                    held(&ring, number - 1);
                    ring.push(&[0], Target::Value(number as i32)).unwrap();
                }
                let position = ring.position();
                ring.clear();
                assert_eq!((ring.aside_len(), ring.trained_len()), (0, 0));
                ring.rewind(position, None).unwrap();
                assert_eq!(ring.aside_len() + ring.trained_len(), places);
            }
        }
    }
}
