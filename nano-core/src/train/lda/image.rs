//! The image's record and initial state of an [`LdaHead`].

use alloc::vec::Vec;

use super::LdaHead;
use crate::image::{HeadRecord, Value, WriteError};
use crate::train::sums::SumsDescription;

/// Gauss-Seidel sweeps of a commit.
const SWEEPS: i32 = 30;

/// Description of a head that learns by linear discriminant analysis.
#[derive(Clone, Debug)]
pub struct LdaDescription {
    /// Its classes.
    pub start: SumsDescription,
    /// lambda relative to the mean variance, in the limit of many samples; within [`LdaHead::SHRINKAGE`].
    pub shrinkage: f64,
}

/// Packs the head record and the initial state, without samples, of a head after `features`.
pub(in crate::train) fn pack(head: &LdaDescription, features: &Value) -> Result<(HeadRecord, Vec<u8>), WriteError> {
    let LdaDescription { start, shrinkage } = head;
    start.check(&LdaHead::LIMITS, features.len())?;
    if !LdaHead::SHRINKAGE.contains(shrinkage) {
        let (least, most) = (LdaHead::SHRINKAGE.start(), LdaHead::SHRINKAGE.end());
        let expected = format_args!("{least:?} to {most:?}");
        return Err(WriteError::setting("shrinkage", format_args!("{shrinkage:?}"), expected));
    }
    let ratio = shrinkage * 65536.0 + 0.5;
    let record = HeadRecord {
        trainer: LdaHead::TRAINER,
        classes: start.capacity as u32,
        features: features.len() as u32,
        constants: [start.classes as i32, ratio as i32, SWEEPS, 0, 0, 0, 0, 0],
        ..HeadRecord::default()
    };
    Ok((record, Vec::new()))
}
