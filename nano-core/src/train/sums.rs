//! Heads of sums over samples: their common description.

use super::sizes::Limits;
use crate::image::WriteError;

/// Description of a head of sums over samples; it starts without samples.
#[derive(Clone, Debug)]
pub struct SumsDescription {
    /// Number of classes at the start.
    pub classes: usize,
    /// The most classes it can have.
    pub capacity: usize,
}

impl SumsDescription {
    /// Checks the layer's size and the capacity against the trainer's limits.
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
