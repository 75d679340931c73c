//! Messages about the head in flash.

use serde::{Deserialize, Serialize};

/// Why saving or loading failed. The head in RAM is unchanged, and the flash still holds its newest head; of a save to both halves, the
/// first may have succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum StorageError {
    /// Nothing was ever saved.
    Empty,
    /// No head is complete: what was saved was interrupted, damaged, or is not a head of this model.
    Damaged {
        /// Number of the latest save.
        count: u32,
    },
    /// The newest head stored belongs to another model, whose head is another; it stays until it is replaced on purpose.
    OtherModel {
        /// Id of that model.
        model_id: u32,
    },
    /// The newest head stored is in another format; it stays until it is replaced on purpose.
    OtherFormat {
        /// Its version.
        version: u8,
    },
    /// The head does not fit twice.
    TooSmall {
        /// Pages that the flash needs.
        needed: u32,
        /// Pages that it has.
        given: u32,
    },
    /// What was written cannot be read back: the flash is worn out or broken.
    NotWritten,
    /// The flash's driver failed.
    Driver,
}

/// A head in flash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct SavedHead {
    /// Its number among all saves to this flash, from 1.
    pub count: u32,
    /// The number of the latest save, if that is another one: it was interrupted, damaged since, or is not a head of this model.
    pub lost: Option<u32>,
}
