//! What [`LdaHead`](super::LdaHead) finds in an image.

use alloc::vec::Vec;

use super::LdaHead;
use crate::image::{HeadRecord, Value, WriteError};
use crate::train::sums::SumsDescription;

/// Gauss-Seidel sweeps of a commit.
const SWEEPS: i32 = 30;

/// A head that learns by linear discriminant analysis.
#[derive(Clone, Debug)]
pub struct LdaDescription {
    /// Where it starts.
    pub start: SumsDescription,
    /// lambda over the mean variance when samples are many, within [`LdaHead::SHRINKAGE`].
    pub shrinkage: f64,
}

/// Head record of a head after `features`, which starts without samples.
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
