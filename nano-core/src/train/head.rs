//! The trait of all trainable heads.

use core::mem;
use core::num::NonZero;

use crate::Error;
use crate::image::Image;
use crate::train::guard::Score;
use crate::train::order::Training;
use crate::train::ring::FeatureRing;
use crate::train::sizes::HeadSizes;
use crate::train::target::Target;

/// A trainable head of any trainer.
///
/// A head is deterministic: with the same image, state and calls it gives the same answers and the same new state, byte for byte, on every
/// machine. A refused call changes nothing. Methods that not every trainer supports refuse by default.
pub trait Head<'a>: Sized {
    /// The trainer, as errors name it.
    const NAME: &'static str;

    /// Whether its state may be so large that a device keeps the spare copy of it in flash.
    const LARGE: bool = false;

    /// Whether a program with this type can run heads of this trainer, a code as in [`HeadRecord::trainer`](crate::image::HeadRecord::trainer).
    fn runs(trainer: u32) -> bool;

    /// The head of `image`, in its initial state, in RAM of [`HeadSizes::words`].
    ///
    /// # Errors
    /// [`Error::NoHead`], [`Error::Field`] for a record that this trainer cannot run, [`Error::Length`] for RAM of another length.
    fn new(image: &Image<'a>, ram: &'a mut [u32]) -> Result<Self, Error>;

    /// The sizes that its memory depends on.
    fn sizes(&self) -> HeadSizes;

    /// Number of classes (or other outputs) at present.
    fn classes(&self) -> usize;

    /// Number of features.
    fn features(&self) -> usize;

    /// Multiplications of one prediction. A step of training takes two to four times as many.
    fn macs(&self) -> u64 {
        self.features() as u64 * self.classes() as u64
    }

    /// Real step of one unit of a logit at present.
    fn logit_scale(&self) -> f32;

    /// The integer logits of int8 features, one for each class.
    ///
    /// # Errors
    /// [`Error::Length`] if the number of features is another.
    fn logits(&mut self, features: &[i8]) -> Result<&[i32], Error>;

    /// The class with the largest logit; the first of equal ones.
    ///
    /// # Errors
    /// [`Error::Length`] if the number of features is another.
    fn predict(&mut self, features: &[i8]) -> Result<usize, Error> {
        let logits = self.logits(features)?;
        Ok(logits.iter().enumerate().rev().max_by_key(|&(_, logit)| logit).map_or(0, |(class, _)| class))
    }

    /// Squared distance of features, in steps, rounded down, to the mean of the samples of `class` that it holds, and their number. `None` for
    /// a head that holds no sums, and for a class without samples.
    fn distance(&self, features: &[i8], class: usize) -> Option<(u32, NonZero<u32>)> {
        let _ = (features, class);
        None
    }

    /// The target of a word from [`Target::word`].
    fn target(&self, word: u32) -> Target;

    /// Whether this head can learn from `target` now.
    ///
    /// # Errors
    /// [`Error::Label`] for a class that it does not have, [`Error::Unsupported`] for a target of another kind, [`Error::Full`] if its
    /// sums can hold no more.
    fn check(&self, target: Target) -> Result<(), Error>;

    /// Checks the number of features.
    ///
    /// # Errors
    /// [`Error::Length`].
    fn check_features(&self, features: &[i8]) -> Result<(), Error> {
        Error::check_length("features", self.features(), features.len())
    }

    /// How well it does on a sample, by which [`take_back_if_worse`](crate::train::take_back_if_worse) judges.
    ///
    /// # Errors
    /// [`Error::Length`], those of [`Head::check`], [`Error::Unsupported`] for a trainer that does not learn in epochs.
    fn score(&mut self, features: &[i8], target: Target) -> Result<Score, Error> {
        let _ = (features, target);
        Err(Error::Unsupported { trainer: Self::NAME, request: "score a sample" })
    }

    /// Learns from one sample.
    ///
    /// # Errors
    /// [`Error::Length`], or those of [`Head::check`].
    fn learn(&mut self, features: &[i8], target: Target) -> Result<(), Error>;

    /// Takes back, exactly, what [`Head::learn`] learnt from one sample.
    ///
    /// # Errors
    /// Those of [`Head::learn`]; [`Error::Unsupported`] for a trainer that cannot; [`Error::Field`] if the head cannot have learnt it.
    fn unlearn(&mut self, features: &[i8], target: Target) -> Result<(), Error> {
        let _ = (features, target);
        Err(Error::Unsupported { trainer: Self::NAME, request: "unlearn a sample" })
    }

    /// Continues a training by at most `most` steps. Each epoch visits all samples, from a random one on, by a random stride coprime to
    /// their number. The number of the epoch decides the learning rate.
    ///
    /// A training whose samples do not fit the ring at once is split into several, each with the number of its first epoch.
    ///
    /// # Errors
    /// [`Error::Unsupported`] unless [`HeadSizes::uses_ring`]; [`Error::Length`] if the ring has another number of samples than the
    /// training began with; those of [`Head::learn`] for a sample that does not fit this head, which has then learnt the ones before.
    fn train(&mut self, ring: &FeatureRing<'_>, training: &mut Training, most: u32) -> Result<(), Error> {
        let _ = (ring, training, most);
        Err(only_once(Self::NAME))
    }

    /// Updates the weights from all that was learnt; nothing to do for trainers that update them at once.
    fn commit(&mut self) {}

    /// Whether classes can be added and forgotten.
    ///
    /// # Errors
    /// [`Error::Unsupported`].
    fn check_growth(&self) -> Result<(), Error> {
        Err(Error::Unsupported { trainer: Self::NAME, request: "add or forget a class" })
    }

    /// Adds a class without samples; returns its index.
    ///
    /// # Errors
    /// [`Error::Full`] if the memory has no more room, [`Error::Unsupported`] if this trainer cannot.
    fn add_class(&mut self) -> Result<usize, Error> {
        self.check_growth().map(|()| self.classes())
    }

    /// Forgets all that was learnt of a class; it keeps its index.
    ///
    /// # Errors
    /// [`Error::Label`], [`Error::Unsupported`] if this trainer cannot.
    fn forget(&mut self, class: usize) -> Result<(), Error> {
        let _ = class;
        self.check_growth()
    }

    /// Adds what another head of this image has learnt, given its state: after that this one has learnt all samples of both.
    ///
    /// # Errors
    /// Those of [`Head::load`], [`Error::Full`], [`Error::Unsupported`] if this trainer cannot.
    fn merge(&mut self, state: &[u8]) -> Result<(), Error> {
        let _ = state;
        Err(Error::Unsupported { trainer: Self::NAME, request: "merge two heads exactly" })
    }

    /// The whole state as bytes, zero-copy; [`HeadSizes::state_bytes`] of them.
    fn state(&self) -> &[u8];

    /// Checks that these bytes are a state of this head, as [`Head::state`] returns it.
    ///
    /// # Errors
    /// [`Error::Length`], or [`Error::Field`] for a value that no head holds.
    fn check_state(&self, state: &[u8]) -> Result<(), Error>;

    /// Lets `write` overwrite the state; the result must pass [`Head::check_state`].
    fn overwrite(&mut self, write: impl FnOnce(&mut [u8]));

    /// Loads a state.
    ///
    /// # Errors
    /// Those of [`Head::check_state`]; the head is then unchanged.
    fn load(&mut self, state: &[u8]) -> Result<(), Error> {
        self.check_state(state)?;
        self.overwrite(|own| own.copy_from_slice(state));
        Ok(())
    }

    /// Swaps its state with the given one.
    ///
    /// # Errors
    /// Those of [`Head::check_state`]; head and `state` are then unchanged.
    fn exchange(&mut self, state: &mut [u8]) -> Result<(), Error> {
        self.check_state(state)?;
        self.overwrite(|own| own.iter_mut().zip(state).for_each(|(own, other)| mem::swap(own, other)));
        Ok(())
    }

    /// Restores the state stored in the image.
    fn reset(&mut self);
}

/// The error of a training by a trainer that does not learn in epochs.
pub(crate) const fn only_once(trainer: &'static str) -> Error {
    Error::Unsupported { trainer, request: "learn from a sample more than once" }
}
