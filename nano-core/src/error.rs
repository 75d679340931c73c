//! The error types of the crate.

use core::fmt;

/// Why an image, a buffer or a layer was refused. Each variant is one sentence: what was found, what was expected.
///
/// ```
/// use nano_core::Error;
/// let error = Error::ArenaTooSmall { needed: 640, given: 639 };
/// assert_eq!(error.to_string(), "the arena has 639 bytes, the model needs 640");
/// ```
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
// Checks return it through many `?`: with a tag of one word it is copied in words, not in bytes.
#[repr(u32)]
pub enum Error {
    /// The bytes end before the structure that starts at `offset` does.
    Truncated {
        /// Where the structure starts, in bytes from the start of the image.
        offset: usize,
        /// Bytes the structure needs.
        needed: usize,
        /// Bytes the image has.
        given: usize,
    },
    /// The first four bytes are not `NANO`.
    NotAnImage,
    /// The image was written in another format version.
    Version {
        /// Version in the image.
        found: u16,
        /// Version this crate reads.
        expected: u16,
    },
    /// The image's bytes were changed after it was written.
    Checksum {
        /// Checksum stored in the image.
        stored: u32,
        /// Checksum of the bytes given.
        computed: u32,
    },
    /// The image does not start at a multiple of four bytes, so its words cannot be read in place.
    Misaligned,
    /// A field of a header or of a record holds a value that the format does not allow.
    Field {
        /// Name of the field.
        name: &'static str,
        /// What it holds.
        value: i64,
    },
    /// A node names a kernel that is not in the table given to [`Model::new`](crate::Model::new).
    UnknownKernel {
        /// Index of the node.
        node: usize,
        /// Id of the kernel in the node.
        id: u16,
    },
    /// A node names a form of requantization that its kernel does not have.
    UnknownForm {
        /// The operator.
        operator: &'static str,
        /// The form in the node.
        form: u8,
    },
    /// An operator's attribute, shape or constant breaks a rule of that operator.
    Layer {
        /// The operator.
        operator: &'static str,
        /// The rule that is broken; without the feature `rule-texts` a text that names none.
        rule: &'static str,
        /// The offending value.
        value: i64,
    },
    /// Two values that are needed at the same time share bytes of the arena.
    Overlap {
        /// Index of the node at which both are needed.
        node: usize,
        /// Id of the value that would be overwritten.
        value: usize,
    },
    /// A value is read before it is written.
    Order {
        /// Index of the node that reads it.
        node: usize,
        /// Id of the value.
        value: usize,
    },
    /// A value is read after its last use, when its bytes in the arena may hold another.
    Lifetime {
        /// Index of the node that reads it; the number of nodes for a graph output.
        node: usize,
        /// Id of the value.
        value: usize,
    },
    /// More values are needed at the same time than loading can track.
    TooManyAlive {
        /// Index of the node at which they are needed.
        node: usize,
        /// The largest number allowed, [`MOST_ALIVE`](crate::image::MOST_ALIVE).
        limit: usize,
    },
    /// The arena is smaller than the model needs.
    ArenaTooSmall {
        /// Bytes needed.
        needed: usize,
        /// Bytes given.
        given: usize,
    },
    /// The arena does not start at a multiple of the size of the model's largest elements.
    ArenaMisaligned {
        /// That size, in bytes.
        alignment: usize,
    },
    /// The image has no trainable head.
    NoHead,
    /// A buffer (input, features, head memory, ring) has the wrong length.
    Length {
        /// Which buffer.
        name: &'static str,
        /// Length needed, in elements.
        needed: usize,
        /// Length given.
        given: usize,
    },
    /// A label is not smaller than the number of classes.
    Label {
        /// The label given.
        label: usize,
        /// Number of classes of the head.
        classes: usize,
    },
    /// A training has too many epochs.
    Epochs {
        /// Epochs up to its end.
        given: u32,
        /// The most.
        largest: u32,
    },
    /// The model's trainer cannot do what is asked.
    Unsupported {
        /// The trainer.
        trainer: &'static str,
        /// What it cannot do.
        request: &'static str,
    },
    /// A capacity fixed by the image, or a counter's range, is exhausted.
    Full {
        /// What there is no more room for.
        name: &'static str,
        /// The capacity.
        capacity: usize,
    },
}

/// A rule that a layer breaks: [`Error::Layer`] without the operator's name, which the caller of the check adds.
///
/// It is small, as checks return it through many `?`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct BrokenRule {
    /// The rule; see [`Error::Layer`].
    pub rule: &'static str,
    /// The offending value.
    pub value: i64,
}

impl BrokenRule {
    /// The error of a layer of `operator`.
    #[cold]
    pub fn of(self, operator: &'static str) -> Error {
        let BrokenRule { rule, value } = self;
        Error::Layer { operator, rule, value }
    }
}

impl Error {
    /// Refuses a length other than the one needed, in elements.
    pub(crate) const fn check_length(name: &'static str, needed: usize, given: usize) -> Result<(), Error> {
        if given == needed { Ok(()) } else { Err(Error::Length { name, needed, given }) }
    }
}

/// A piece of the sentence that an [`Error`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Piece {
    /// Text, as it is.
    Text(&'static str),
    /// A number, in decimal.
    Number(i64),
    /// A checksum, in 8 hexadecimal digits.
    Checksum(u32),
}

/// The end of a sentence; the advice is for whoever makes an image, as [`Error::TooManyAlive`] stops that already.
const TOO_MANY: &str = if cfg!(feature = "rule-texts") {
    " intermediate results are needed at the same time: use results soon after they are made (long skip connections keep them), or give the \
     model fewer inputs and outputs"
} else {
    " intermediate results are needed at the same time"
};

impl Error {
    /// Has `write` write the sentence piece by piece, for programs that are too small for `core::fmt`.
    ///
    /// ```
    /// use nano_core::{Error, Piece};
    /// let mut pieces = Vec::new();
    /// Error::NotAnImage.spell(|piece| pieces.push(piece));
    /// assert_eq!(pieces, [Piece::Text("not a .nano image: it does not start with NANO")]);
    /// ```
    pub fn spell(&self, mut write: impl FnMut(Piece)) {
        use Piece::{Checksum, Text};
        let number = |number: usize| Piece::Number(number as i64);
        // Texts and values in turn: the texts are constants, so that only the values take code.
        let (texts, values): (&[&'static str], &[Piece]) = match *self {
            Error::Truncated { offset, needed, given } => (
                &["the image ends early: ", " bytes are needed at offset ", ", it has "],
                &[number(needed), number(offset), number(given)],
            ),
            Error::NotAnImage => (&["not a .nano image: it does not start with NANO"], &[]),
            Error::Version { found, expected } => (
                &["the image has format version ", ", this build reads ", ": export the model again"],
                &[number(found.into()), number(expected.into())],
            ),
            Error::Checksum { stored, computed } => (
                &["the image is damaged: its checksum is ", ", ", " was stored"],
                &[Checksum(computed), Checksum(stored)],
            ),
            Error::Misaligned => (&["the image must start at a multiple of 4 bytes"], &[]),
            Error::Field { name, value } => {
                (&["the image's field ", " holds ", ", which is not allowed"], &[Text(name), Piece::Number(value)])
            }
            Error::UnknownKernel { node, id } => (
                &["node ", " needs kernel ", ", which is not in this program's table of kernels"],
                &[number(node), number(id.into())],
            ),
            Error::UnknownForm { operator, form } => {
                (&["", " has no form ", " of requantization in this build"], &[Text(operator), number(form.into())])
            }
            Error::Layer { operator, rule, value } => {
                (&["", ": ", " (found ", ")"], &[Text(operator), Text(rule), Piece::Number(value)])
            }
            Error::Overlap { node, value } => {
                (&["node ", " would overwrite value ", ", which is still needed"], &[number(node), number(value)])
            }
            Error::Order { node, value } => {
                (&["node ", " uses value ", " before it is written"], &[number(node), number(value)])
            }
            Error::Lifetime { node, value } => (
                &["value ", " is still needed at node ", ", after the last use that its record names"],
                &[number(value), number(node)],
            ),
            Error::TooManyAlive { node, limit } => {
                (&["at layer ", ", counted from 0, more than ", TOO_MANY], &[number(node), number(limit)])
            }
            Error::ArenaTooSmall { needed, given } => {
                (&["the arena has ", " bytes, the model needs "], &[number(given), number(needed)])
            }
            Error::ArenaMisaligned { alignment } => {
                (&["the arena must start at a multiple of ", " bytes"], &[number(alignment)])
            }
            Error::NoHead => (&["this image has no trainable head"], &[]),
            Error::Length { name, needed, given } => {
                (&["", " has length ", ", ", " is needed"], &[Text(name), number(given), number(needed)])
            }
            Error::Label { label, classes } => {
                (&["label ", " is not below the number of classes, "], &[number(label), number(classes)])
            }
            Error::Epochs { given, largest } => (
                &["the training would end after ", " epochs, at most ", " are allowed"],
                &[number(given as usize), number(largest as usize)],
            ),
            Error::Unsupported { trainer, request } => (&["", " cannot "], &[Text(trainer), Text(request)]),
            Error::Full { name, capacity } => {
                (&["there is room for ", " ", ", and no more"], &[number(capacity), Text(name)])
            }
        };
        for (index, text) in texts.iter().enumerate() {
            if !text.is_empty() {
                write(Text(text));
            }
            values.get(index).copied().into_iter().for_each(&mut write);
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut result = Ok(());
        self.spell(|piece| {
            result = result.and_then(|()| match piece {
                Piece::Text(text) => f.write_str(text),
                Piece::Number(number) => write!(f, "{number}"),
                Piece::Checksum(checksum) => write!(f, "{checksum:08x}"),
            });
        });
        result
    }
}

impl core::error::Error for Error {}
