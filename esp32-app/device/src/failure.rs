//! Why a request is refused.

use nano_core::Error;
use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;

use crate::saved_head::StorageError;
use crate::update_error::UpdateError;

/// Why a request was refused. As `&'static str` it is the name of the variant, a code for programs.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, IntoStaticStr)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Failure {
    /// The frame is of another version of the messages.
    Protocol {
        /// The version that the device speaks.
        protocol: u8,
    },
    /// The request is meant for another model.
    Model {
        /// The model of the device.
        model_id: u32,
    },
    /// The request is of another session: the device has restarted, or another PC has begun one.
    Session,
    /// The frame is damaged, or no request.
    Frame,
    /// The frame is longer than any request.
    TooLong {
        /// Bytes a frame may have.
        limit: u32,
    },
    /// The inputs have the wrong length together.
    Input {
        /// Bytes needed, after the parts that came before.
        needed: u32,
        /// Bytes given.
        given: u32,
    },
    /// The part does not begin where the last one ended.
    Order {
        /// The next offset.
        needed: u32,
        /// The offset given.
        given: u32,
    },
    /// The range exceeds the data.
    Range {
        /// Bytes of data.
        length: u32,
    },
    /// The graph does not have that many inputs, or outputs.
    GraphValue {
        /// Number of inputs or outputs that it has.
        count: u32,
    },
    /// The model was not run, or not profiled, since the last input or reset of its states.
    NoRun,
    /// The model has no trainable head.
    NoHead,
    /// The label is not below the number of classes.
    Label {
        /// The label given.
        label: u32,
        /// Number of classes.
        classes: u32,
    },
    /// No class has this name.
    UnknownName,
    /// Another class has this name.
    NameTaken,
    /// A name is empty, too long, or has a line break or a zero byte.
    Name {
        /// Bytes it may have.
        limit: u32,
    },
    /// There is nothing to train on: no features are kept.
    EmptyRing,
    /// A training has too many epochs.
    Epochs {
        /// The largest number, epochs before its first one included.
        limit: u32,
    },
    /// No training is open: none was begun, it is complete, or another change of the head or of the kept features ended it.
    NoTraining,
    /// The model's trainer cannot do this.
    Unsupported,
    /// A capacity fixed by the image, or a counter's range, is exhausted.
    Full {
        /// The capacity.
        capacity: u32,
    },
    /// There is nothing to undo.
    NothingToUndo,
    /// The head's state was damaged in transit.
    Checksum {
        /// CRC-32 of what arrived.
        computed: u32,
    },
    /// No head of this model has such a state, or such names of classes.
    State,
    /// Nothing was saved or loaded.
    Storage(StorageError),
    /// The model is not updated.
    Update(UpdateError),
    /// nano-core refused it for another reason.
    Other,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::NoHead => Failure::NoHead,
            Error::Label { label, classes } => Failure::Label { label: label as u32, classes: classes as u32 },
            Error::Length { needed, given, .. } => Failure::Input { needed: needed as u32, given: given as u32 },
            Error::Epochs { largest, .. } => Failure::Epochs { limit: largest },
            Error::Unsupported { .. } => Failure::Unsupported,
            Error::Full { capacity, .. } => Failure::Full { capacity: capacity as u32 },
            Error::Field { .. } => Failure::State,
            _ => Failure::Other,
        }
    }
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        Failure::Storage(error)
    }
}

impl From<UpdateError> for Failure {
    fn from(error: UpdateError) -> Self {
        Failure::Update(error)
    }
}
