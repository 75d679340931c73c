//! That no node overwrites what is still needed: the check of an image's memory plan, made once when it is loaded.

use core::ops::Range;

use super::{Image, MOST_ALIVE, Value};
use crate::Error;
use crate::arena::overlap;
use crate::operator::CheckedPart;

/// Checks that each value is written before it is read, and that what is written at a node (its output and scratch memory; before the first
/// node, the graph's inputs) shares no byte with a value that is needed then or later.
///
/// # Errors
/// [`Error::Order`], [`Error::Lifetime`], [`Error::Overlap`], and [`Error::TooManyAlive`] beyond [`MOST_ALIVE`].
pub(crate) fn check(image: &Image<'_>) -> Result<(), Error> {
    let values = image.values();
    let mut alive = Alive { values, places: [None; MOST_ALIVE], used: 0 };
    let (inputs, outputs) = values.split_at_checked(image.input_count()).checked_part();
    for input in inputs {
        alive.refuse_overlap(0, &input.range())?;
        alive.add(0, input)?;
    }
    for (index, (node, output)) in image.nodes().zip(outputs).enumerate() {
        let range = output.range();
        for (&id, input) in node.ids.iter().zip(node.inputs) {
            if id as usize >= inputs.len() + index {
                return Err(Error::Order { node: index, value: id as usize });
            }
            if (input.last_use as usize) < index {
                return Err(Error::Lifetime { node: index, value: id as usize });
            }
        }
        alive.end_before(index);
        alive.refuse_overlap(index, &range)?;
        alive.add(index, output)?;
        alive.refuse_overlap(index, &node.header.scratch())?;
    }
    let end = outputs.len();
    for (&id, output) in image.outputs() {
        if output.last_use as usize != end {
            return Err(Error::Lifetime { node: end, value: id as usize });
        }
    }
    Ok(())
}

/// The values that have been written and are still needed.
struct Alive<'a> {
    /// All of the image.
    values: &'a [Value],
    places: [Option<&'a Value>; MOST_ALIVE],
    /// Places that have held a value: those after them are free.
    used: usize,
}

impl<'a> Alive<'a> {
    fn add(&mut self, node: usize, value: &'a Value) -> Result<(), Error> {
        let free = self.places.iter_mut().enumerate().find(|(_, place)| place.is_none());
        let (index, place) = free.ok_or(Error::TooManyAlive { node, limit: MOST_ALIVE })?;
        *place = Some(value);
        self.used = self.used.max(index + 1);
        Ok(())
    }

    fn end_before(&mut self, node: usize) {
        for place in self.places.iter_mut().take(self.used) {
            *place = place.filter(|value| value.last_use as usize >= node);
        }
    }

    /// Refuses to write to bytes of the arena that a value has.
    fn refuse_overlap(&self, node: usize, written: &Range<usize>) -> Result<(), Error> {
        let mut alive = self.places.iter().take(self.used).flatten();
        let Some(&overwritten) = alive.find(|value| overlap(&value.range(), written)) else { return Ok(()) };
        let value = self.values.iter().position(|value| core::ptr::eq(value, overwritten)).unwrap_or_default();
        Err(Error::Overlap { node, value })
    }
}
