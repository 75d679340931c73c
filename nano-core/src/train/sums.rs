//! What heads of sums over samples have in common.

use super::sizes::Limits;
use crate::image::WriteError;

/// A head of sums over samples, which begins with none.
#[derive(Clone, Debug)]
pub struct SumsDescription {
    /// Number of classes at the start.
    pub classes: usize,
    /// The most classes it can have.
    pub capacity: usize,
}

impl SumsDescription {
    /// Refuses a layer beyond the trainer's limits, and a capacity that cannot be.
    pub(super) fn check(&self, limits: &Limits, features: usize) -> Result<(), WriteError> {
        limits.check_layer(self.classes, features)?;
        let most = limits.classes;
        if !(self.classes..=most).contains(&self.capacity) {
            let expected = format_args!("{}, the classes of the layer, to {most}", self.classes);
            return Err(WriteError::setting("capacity", self.capacity, expected));
        }
        Ok(())
    }
}
