//! How large heads are, and can be.

use crate::Error;
use crate::image::HeadRecord;
#[cfg(feature = "alloc")]
use crate::image::{SumsDescription, WriteError};
use crate::train::{LayersHead, LdaHead, PrototypeHead, SgdHead, lda, prototype, sgd};

/// What the memory of a head depends on, known when a program is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadSizes {
    /// Which trainer, as [`HeadRecord::trainer`].
    pub trainer: u32,
    /// The most classes it can have.
    pub classes: usize,
    /// Number of features.
    pub features: usize,
    /// Of a head of several layers; [`LayerSizes::NONE`] for others.
    pub layers: LayerSizes,
}

/// What the memory of the layers of a [`LayersHead`] depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerSizes {
    /// Number of layers.
    pub count: usize,
    /// Number of weights of all layers, biases among them.
    pub weights: usize,
    /// Number of outputs of all layers but the last.
    pub hidden: usize,
}

impl LayerSizes {
    /// Of a head whose memory depends on classes and features alone.
    pub const NONE: Self = LayerSizes { count: 0, weights: 0, hidden: 0 };
}

impl HeadSizes {
    /// The sizes of a record.
    pub const fn of(record: &HeadRecord) -> Self {
        let layers = match record.trainer {
            LayersHead::TRAINER => LayersHead::sizes_of(record),
            _ => LayerSizes::NONE,
        };
        HeadSizes {
            trainer: record.trainer,
            classes: record.classes as usize,
            features: record.features as usize,
            layers,
        }
    }

    /// The most classes and features that a trainer's numbers have room for.
    const fn most(trainer: u32) -> Option<(usize, usize)> {
        match trainer {
            SgdHead::TRAINER => Some((sgd::LARGEST_CLASSES, sgd::LARGEST_FEATURES)),
            LdaHead::TRAINER => Some((lda::LARGEST_CLASSES, lda::LARGEST_FEATURES)),
            PrototypeHead::TRAINER => Some((prototype::LARGEST_CLASSES, prototype::LARGEST_FEATURES)),
            // Its layers have limits of their own, which its records are checked for.
            LayersHead::TRAINER => Some((usize::MAX, usize::MAX)),
            _ => None,
        }
    }

    /// Whether a head can have these sizes: to ask before memory is taken for it.
    ///
    /// # Errors
    /// [`Error::Field`] for no classes, more than its trainer has room for, or a trainer that nano-core does not have.
    pub const fn check(&self) -> Result<(), Error> {
        let Some((classes, features)) = Self::most(self.trainer) else {
            return Err(Error::Field { name: "head trainer", value: self.trainer as i64 });
        };
        if self.classes == 0 || self.classes > classes {
            return Err(Error::Field { name: "head classes", value: self.classes as i64 });
        }
        if self.features > features {
            return Err(Error::Field { name: "head features", value: self.features as i64 });
        }
        Ok(())
    }

    /// Bytes of [`Head::state`](crate::train::Head::state): 0 for a trainer that nano-core does not have, `usize::MAX` for sizes that no memory holds.
    pub const fn state_bytes(&self) -> usize {
        match self.trainer {
            SgdHead::TRAINER => SgdHead::state_bytes(self.classes, self.features),
            LdaHead::TRAINER => LdaHead::state_words(self.classes, self.features).saturating_mul(4),
            PrototypeHead::TRAINER => PrototypeHead::state_words(self.classes, self.features).saturating_mul(4),
            LayersHead::TRAINER => LayersHead::state_bytes(&self.layers),
            _ => 0,
        }
    }

    /// Whether samples belong into a ring, for [`Head::train`](crate::train::Head::train) to visit often. Otherwise each is learnt once, by [`Head::learn`](crate::train::Head::learn).
    pub const fn uses_ring(&self) -> bool {
        matches!(self.trainer, SgdHead::TRAINER | LayersHead::TRAINER)
    }

    /// Words of RAM that [`Head::new`](crate::train::Head::new) needs: the state and room to work in.
    pub const fn words(&self) -> usize {
        let scratch = match self.trainer {
            LdaHead::TRAINER => LdaHead::scratch_words(self.classes, self.features),
            LayersHead::TRAINER => LayersHead::scratch_words(&self.layers, self.classes),
            _ => self.classes,
        };
        let bytes = self.state_bytes();
        if bytes == usize::MAX { usize::MAX } else { bytes.div_ceil(4).saturating_add(scratch) }
    }

    /// The words of the state, and those to work in.
    ///
    /// # Errors
    /// [`Error::Length`] unless there are [`HeadSizes::words`] in all.
    pub(super) fn split<'a>(&self, ram: &'a mut [u32]) -> Result<(&'a mut [u32], &'a mut [i32]), Error> {
        let wrong = self.wrong_ram(ram.len());
        let parts = ram.split_at_mut_checked(self.state_bytes().div_ceil(4));
        let (state, scratch) =
            parts.filter(|(state, scratch)| state.len() + scratch.len() == self.words()).ok_or(wrong)?;
        Ok((state, zerocopy::transmute_mut!(scratch)))
    }

    /// Says that a head does not have `given` words of RAM.
    pub(super) const fn wrong_ram(&self, given: usize) -> Error {
        Error::Length { name: "head RAM in words", needed: self.words(), given }
    }
}

/// Refuses a layer of more classes or features than `trainer` has room for.
#[cfg(feature = "alloc")]
pub(super) fn check_layer(trainer: u32, classes: usize, features: usize) -> Result<(), WriteError> {
    let most = HeadSizes::most(trainer).unwrap_or_default();
    for (name, number, most) in
        [("the layer's number of classes", classes, most.0), ("the layer's number of features", features, most.1)]
    {
        if number > most {
            return Err(WriteError::setting(name, number, format_args!("at most {most} for this trainer")));
        }
    }
    Ok(())
}

/// [`check_layer`], and refuses a capacity that is none.
#[cfg(feature = "alloc")]
pub(super) fn check_sums(trainer: u32, start: &SumsDescription, features: usize) -> Result<(), WriteError> {
    check_layer(trainer, start.classes, features)?;
    let most = HeadSizes::most(trainer).unwrap_or_default().0;
    if !(start.classes..=most).contains(&start.capacity) {
        let expected = format_args!("{}, the classes of the layer, to {most}", start.classes);
        return Err(WriteError::setting("capacity", start.capacity, expected));
    }
    Ok(())
}
