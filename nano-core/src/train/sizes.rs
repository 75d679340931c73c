//! Sizes of heads, the memory they need, and the trainers' limits.

use crate::Error;
use crate::image::HeadRecord;
#[cfg(feature = "alloc")]
use crate::image::WriteError;

/// The sizes that a head's memory depends on, known when a program is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct HeadSizes {
    /// Which trainer, as [`HeadRecord::trainer`].
    pub trainer: u32,
    /// The largest number of classes it can have.
    pub classes: usize,
    /// Number of features.
    pub features: usize,
    /// The layers of a head of several, or the means of one with a start; [`LayerSizes::NONE`] for others.
    pub layers: LayerSizes,
}

/// The sizes that the memory of a [`LayersHead`](super::LayersHead)'s layers depends on, and that of the means of a
/// [`PrototypeHead`](super::PrototypeHead) with a start: its `weights`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct LayerSizes {
    /// Number of layers.
    pub count: usize,
    /// Number of weights of all layers that learn, biases among them.
    pub weights: usize,
    /// Number of outputs of all layers but the last.
    pub hidden: usize,
    /// The largest number of sums of gradients of one output.
    pub sums: usize,
}

impl LayerSizes {
    /// No layers: the head's memory depends on classes and features alone.
    pub const NONE: Self = LayerSizes { count: 0, weights: 0, hidden: 0, sums: 0 };
}

impl HeadSizes {
    /// The sizes of a record whose layers have these.
    pub(super) const fn with_layers(record: &HeadRecord, layers: LayerSizes) -> Self {
        HeadSizes {
            trainer: record.trainer,
            classes: record.classes as usize,
            features: record.features as usize,
            layers,
        }
    }
}

/// The largest numbers of classes and features of a trainer, for which its arithmetic does not overflow.
pub(super) struct Limits {
    pub classes: usize,
    pub features: usize,
}

impl Limits {
    /// Checks a head's sizes.
    pub const fn check(&self, sizes: &HeadSizes) -> Result<(), Error> {
        if sizes.classes == 0 || sizes.classes > self.classes {
            return Err(Error::Field { name: "head classes", value: sizes.classes as i64 });
        }
        if sizes.features > self.features {
            return Err(Error::Field { name: "head features", value: sizes.features as i64 });
        }
        Ok(())
    }

    /// Checks a layer's numbers of classes and features.
    #[cfg(feature = "alloc")]
    pub fn check_layer(&self, classes: usize, features: usize) -> Result<(), WriteError> {
        for (name, number, most) in [
            ("the layer's number of classes", classes, self.classes),
            ("the layer's number of features", features, self.features),
        ] {
            if number > most {
                return Err(WriteError::setting(name, number, format_args!("at most {most} for this trainer")));
            }
        }
        Ok(())
    }
}

/// The RAM of a head; `usize::MAX` for sizes beyond any memory.
#[derive(Clone, Copy)]
pub(super) struct Memory {
    /// Bytes of the state.
    pub state_bytes: usize,
    /// Words of scratch.
    pub scratch_words: usize,
}

impl Memory {
    /// Words of both.
    pub const fn words(&self) -> usize {
        match self.state_bytes {
            usize::MAX => usize::MAX,
            bytes => bytes.div_ceil(4).saturating_add(self.scratch_words),
        }
    }

    /// Splits RAM into state and scratch.
    ///
    /// # Errors
    /// [`Error::Length`] unless there are [`Memory::words`] in all.
    pub fn split<'a>(&self, ram: &'a mut [u32]) -> Result<(&'a mut [u32], &'a mut [i32]), Error> {
        let wrong = self.wrong_ram(ram.len());
        let parts = ram.split_at_mut_checked(self.state_bytes.div_ceil(4));
        let (state, scratch) =
            parts.filter(|(state, scratch)| state.len() + scratch.len() == self.words()).ok_or(wrong)?;
        Ok((state, zerocopy::transmute_mut!(scratch)))
    }

    /// The error for RAM of `given` words.
    pub const fn wrong_ram(&self, given: usize) -> Error {
        Error::Length { name: "head RAM in words", needed: self.words(), given }
    }
}
