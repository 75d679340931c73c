//! What a sample teaches.

use crate::Error;

/// What a sample teaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The one right class.
    Class(u16),
    /// All right classes of at most 32: bit k for class k.
    Labels(u32),
    /// The right number, in 1/4096.
    Value(i32),
}

impl Target {
    /// The target as a ring keeps it; [`Head::target`](crate::train::Head::target) undoes it.
    pub const fn word(self) -> u32 {
        match self {
            Target::Class(class) => class as u32,
            Target::Labels(bits) => bits,
            Target::Value(value) => value as u32,
        }
    }

    /// The class, of as many as `trainer` has.
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
