//! Targets of learning.

use crate::Error;

/// The target (label) of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Target {
    /// The one right class.
    Class(u16),
    /// All right classes of at most 32: bit k for class k.
    Labels(u32),
    /// The right number, in 1/4096.
    Value(i32),
}

impl Target {
    /// The target as a word, as a ring stores it; the inverse of [`Head::target`](crate::train::Head::target).
    pub const fn word(self) -> u32 {
        match self {
            Target::Class(class) => class as u32,
            Target::Labels(bits) => bits,
            Target::Value(value) => value as u32,
        }
    }

    /// The class, checked to be below `classes`.
    ///
    /// # Errors
    /// [`Error::Label`], [`Error::Unsupported`] for a target of another kind.
    pub(super) fn class(self, classes: usize, trainer: &'static str) -> Result<usize, Error> {
        match self {
            Target::Class(label) if usize::from(label) < classes => Ok(label.into()),
            Target::Class(label) => Err(Error::Label { label: label.into(), classes }),
            _ => Err(Self::unsupported(trainer)),
        }
    }

    pub(super) const fn unsupported(trainer: &'static str) -> Error {
        Error::Unsupported { trainer, request: "learn from a target of this kind" }
    }
}
