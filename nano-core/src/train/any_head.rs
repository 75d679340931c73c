//! [`AnyHead`]: a head of any registered trainer, and the sizes of such heads.

use core::num::NonZero;

use super::AnyHead;
#[cfg(feature = "alloc")]
use super::aggregation::Aggregation;
use super::guard::Score;
use super::head::Head;
use super::order::Training;
use super::ring::FeatureRing;
use super::sizes::{HeadSizes, LayerSizes, Memory};
use super::target::Target;
use crate::Error;
use crate::image::{HeadRecord, Image};

/// [`Error::Field`] for a trainer that is not in the registry.
const fn unknown(trainer: u32) -> Error {
    Error::Field { name: "head trainer", value: trainer as i64 }
}

impl HeadSizes {
    /// The sizes of a record.
    pub const fn of(record: &HeadRecord) -> Self {
        with_trainer!(record.trainer, T => T::sizes_of(record), HeadSizes::with_layers(record, LayerSizes::NONE))
    }

    /// Checks that a head can have these sizes, before memory is allocated for it.
    ///
    /// # Errors
    /// [`Error::Field`] for no classes, more than its trainer has room for, or a trainer that nano-core does not have.
    pub const fn check(&self) -> Result<(), Error> {
        with_trainer!(self.trainer, T => T::LIMITS.check(self), Err(unknown(self.trainer)))
    }

    /// Bytes of [`Head::state`]: 0 for a trainer that nano-core does not have, `usize::MAX` for sizes beyond any memory.
    pub const fn state_bytes(&self) -> usize {
        self.memory().state_bytes
    }

    /// Whether samples are kept in a ring, for [`Head::train`] to visit in epochs. Otherwise each is learnt once, by [`Head::learn`].
    pub const fn uses_ring(&self) -> bool {
        with_trainer!(self.trainer, T => T::USES_RING, false)
    }

    /// [`Head::LARGE`] of its trainer.
    pub const fn is_large(&self) -> bool {
        with_trainer!(self.trainer, T => <T<'_> as Head<'_>>::LARGE, false)
    }

    /// Words of RAM that [`Head::new`] needs: the state and room to work in.
    pub const fn words(&self) -> usize {
        self.memory().words()
    }

    const fn memory(&self) -> Memory {
        with_trainer!(self.trainer, T => T::memory(self), Memory { state_bytes: 0, scratch_words: self.classes })
    }
}

impl AnyHead<'_> {
    /// [`Head::NAME`] of its trainer.
    pub fn trainer(&self) -> &'static str {
        const fn name<'a, H: Head<'a>>(_: &H) -> &'static str {
            H::NAME
        }
        with_head!(self, head => name(head))
    }

    /// How heads of its trainer are aggregated.
    #[cfg(feature = "alloc")]
    pub(super) fn aggregation(&self) -> Aggregation {
        with_head!(self, head => head.aggregation())
    }
}

impl<'a> Head<'a> for AnyHead<'a> {
    const NAME: &'static str = "AnyHead";
    const LARGE: bool = true;

    fn runs(trainer: u32) -> bool {
        with_trainer!(trainer, T => <T<'a> as Head<'a>>::runs(trainer), false)
    }

    fn new(image: &Image<'a>, ram: &'a mut [u32]) -> Result<Self, Error> {
        let trainer = image.head().ok_or(Error::NoHead)?.trainer;
        with_trainer!(trainer, T => <T<'a> as Head<'a>>::new(image, ram).map(AnyHead::from), Err(unknown(trainer)))
    }

    fn sizes(&self) -> HeadSizes {
        with_head!(self, head => Head::sizes(head))
    }

    fn classes(&self) -> usize {
        with_head!(self, head => Head::classes(head))
    }

    fn features(&self) -> usize {
        with_head!(self, head => Head::features(head))
    }

    fn macs(&self) -> u64 {
        with_head!(self, head => Head::macs(head))
    }

    fn distance(&self, features: &[i8], class: usize) -> Option<(u32, NonZero<u32>)> {
        with_head!(self, head => Head::distance(head, features, class))
    }

    fn logit_scale(&self) -> f32 {
        with_head!(self, head => Head::logit_scale(head))
    }

    fn logits(&mut self, features: &[i8]) -> Result<&[i32], Error> {
        with_head!(self, head => Head::logits(head, features))
    }

    fn target(&self, word: u32) -> Target {
        with_head!(self, head => Head::target(head, word))
    }

    fn check(&self, target: Target) -> Result<(), Error> {
        with_head!(self, head => Head::check(head, target))
    }

    fn score(&mut self, features: &[i8], target: Target) -> Result<Score, Error> {
        with_head!(self, head => Head::score(head, features, target))
    }

    fn learn(&mut self, features: &[i8], target: Target) -> Result<(), Error> {
        with_head!(self, head => Head::learn(head, features, target))
    }

    fn unlearn(&mut self, features: &[i8], target: Target) -> Result<(), Error> {
        with_head!(self, head => Head::unlearn(head, features, target))
    }

    fn train(&mut self, ring: &FeatureRing<'_>, training: &mut Training, most: u32) -> Result<(), Error> {
        with_head!(self, head => Head::train(head, ring, training, most))
    }

    fn commit(&mut self) {
        with_head!(self, head => Head::commit(head));
    }

    fn check_growth(&self) -> Result<(), Error> {
        with_head!(self, head => Head::check_growth(head))
    }

    fn add_class(&mut self) -> Result<usize, Error> {
        with_head!(self, head => Head::add_class(head))
    }

    fn forget(&mut self, class: usize) -> Result<(), Error> {
        with_head!(self, head => Head::forget(head, class))
    }

    fn merge(&mut self, state: &[u8]) -> Result<(), Error> {
        with_head!(self, head => Head::merge(head, state))
    }

    fn state(&self) -> &[u8] {
        with_head!(self, head => Head::state(head))
    }

    fn check_state(&self, state: &[u8]) -> Result<(), Error> {
        with_head!(self, head => Head::check_state(head, state))
    }

    fn overwrite(&mut self, write: impl FnOnce(&mut [u8])) {
        with_head!(self, head => Head::overwrite(head, write))
    }

    fn reset(&mut self) {
        with_head!(self, head => Head::reset(head))
    }
}
