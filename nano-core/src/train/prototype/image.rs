//! The image's record and initial state of a [`PrototypeHead`].

use alloc::vec::Vec;

use super::{PrototypeHead, SumsDescription};
use crate::image::{HeadRecord, Value, WriteError};

/// Packs the head record and the initial state, all zeros, of a head after `features`.
pub(in crate::train) fn pack(head: &SumsDescription, features: &Value) -> Result<(HeadRecord, Vec<u8>), WriteError> {
    head.check(&PrototypeHead::LIMITS, features)?;
    let record = HeadRecord {
        trainer: PrototypeHead::TRAINER,
        classes: head.capacity as u32,
        features: features.len() as u32,
        constants: [head.classes as i32, 0, 0, 0, 0, 0, 0, 0],
        logit_scale: features.scale * features.scale / 16.0,
        ..HeadRecord::default()
    };
    Ok((record, Vec::new()))
}
