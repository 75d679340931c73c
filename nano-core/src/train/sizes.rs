//! How large heads are, and can be.

use crate::Error;
use crate::image::HeadRecord;
#[cfg(feature = "alloc")]
use crate::image::WriteError;

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

/// What the memory of the layers of a [`LayersHead`](super::LayersHead) depends on.
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

/// The most classes and features that a trainer's numbers have room for.
pub(super) struct Limits {
    pub classes: usize,
    pub features: usize,
}

impl Limits {
    /// Refuses sizes that no head of the trainer has.
    pub const fn check(&self, sizes: &HeadSizes) -> Result<(), Error> {
        if sizes.classes == 0 || sizes.classes > self.classes {
            return Err(Error::Field { name: "head classes", value: sizes.classes as i64 });
        }
        if sizes.features > self.features {
            return Err(Error::Field { name: "head features", value: sizes.features as i64 });
        }
        Ok(())
    }

    /// Refuses a layer of more classes or features than there is room for.
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

/// What a head takes of RAM; `usize::MAX` for sizes that no memory holds.
#[derive(Clone, Copy)]
pub(super) struct Memory {
    /// Bytes of the state.
    pub state_bytes: usize,
    /// Words to work in.
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

    /// The words of the state, and those to work in.
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

    /// Says that a head does not have `given` words of RAM.
    pub const fn wrong_ram(&self, given: usize) -> Error {
        Error::Length { name: "head RAM in words", needed: self.words(), given }
    }
}
