//! The image's record and initial state of a [`PrototypeHead`].

use alloc::vec::Vec;

use super::{LARGEST_SAMPLES, PrototypeHead, SumsDescription};
use crate::image::{HeadRecord, Value, WriteError};

/// Packs the head record, and the means that a head after `features` starts from, if it has a start.
pub(in crate::train) fn pack(head: &SumsDescription, features: &Value) -> Result<(HeadRecord, Vec<u8>), WriteError> {
    head.check(&PrototypeHead::LIMITS, features, LARGEST_SAMPLES)?;
    let (constants, state) = match &head.start {
        None => ([0; 2], Vec::new()),
        Some(start) => {
            let means = start.packed_means(features);
            (start.constants(features.len()), means.into_iter().flat_map(i16::to_le_bytes).collect())
        }
    };
    let [strength, variance] = constants;
    let record = HeadRecord {
        trainer: PrototypeHead::TRAINER,
        classes: head.capacity as u32,
        features: features.len() as u32,
        constants: [head.classes as i32, strength, variance, 0, 0, 0, 0, 0],
        half_life: head.half_life,
        logit_scale: features.scale * features.scale / 16.0,
        ..HeadRecord::default()
    };
    Ok((record, state))
}
