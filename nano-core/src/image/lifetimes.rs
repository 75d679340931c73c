//! That no node overwrites what is still needed: the check of an image's memory plan, made once when it is loaded.
//!
//! Values may share bytes of the arena, and nothing but their places says so. What [`Io`](crate::Io) and [`Shared`](crate::Shared) take for granted
//! is proved here.

use core::ops::Range;

use super::value::Extent;
use super::{Image, MOST_ALIVE, Value};
use crate::operator::{Alias, Kernel, Overlay, Run, refused, require};
use crate::{BrokenRule, Error, Node};

/// Checks that each value is written before it is read, and that what is written at a node (its outputs and scratch memory; before the first node, the
/// graph's inputs and the states) shares no byte with a value that is needed then or later; but for an output that its operator lets take the place of
/// an input. What an output has in common with an input by [`Alias::Overlay`] is not written where both lie in the same bytes. Inputs, outputs and
/// scratch memory of a node that runs [`Run::Apart`] do not even lie between each other's pixels.
///
/// # Errors
/// [`Error::Order`], [`Error::Lifetime`], [`Error::Overlap`], [`Error::Layer`] for a view that lies elsewhere than in its input, and
/// [`Error::TooManyAlive`] beyond [`MOST_ALIVE`].
pub(crate) fn check(image: &Image<'_>, kernels: &[Kernel]) -> Result<(), Error> {
    let (values, end) = (image.values(), image.node_count());
    let mut alive = Alive { values, places: [None; MOST_ALIVE], used: 0 };
    for (id, value) in values.iter().enumerate() {
        if value.is_state() && value.last_use as usize != end {
            return Err(Error::Lifetime { node: end, value: id });
        }
        if id < image.input_count() || value.is_state() {
            alive.refuse_overlap(0, &value.range(), |other| other.extent().overlaps(&value.extent()))?;
            alive.add(0, value)?;
        }
    }
    let mut next = image.input_count();
    for (index, node) in image.nodes().enumerate() {
        for (&id, input) in node.inputs.iter().zip(node.inputs()) {
            if id as usize >= next {
                return Err(Error::Order { node: index, value: id as usize });
            }
            if (input.last_use as usize) < index {
                return Err(Error::Lifetime { node: index, value: id as usize });
            }
        }
        next += node.outputs.len();
        alive.end_before(index);
        let kernel = node.kernel(kernels).ok_or(Error::UnknownKernel { node: index, id: node.header.kernel })?;
        if let Run::Over(_) = kernel.run {
            check_over(&node).map_err(|broken| broken.of(kernel.operator.name))?;
        }
        for output in node.outputs {
            match kernel.alias() {
                Alias::Overlay(overlay) => alive.check_overlay(index, &node, output, kernel, overlay)?,
                _ => {
                    let range = output.range();
                    alive
                        .refuse_overlap(index, &range, |other| !may_be_written(kernel, &node, index, output, other))?;
                }
            }
            if !output.is_state() {
                alive.add(index, output)?;
            }
        }
        if let Some(scratch) = node.header.scratch_extent() {
            alive.refuse_overlap(index, &node.header.scratch(), |other| overlap_at(&node, other, &scratch))?;
        }
    }
    for (&id, output) in image.outputs() {
        if output.last_use as usize != end {
            return Err(Error::Lifetime { node: end, value: id as usize });
        }
    }
    Ok(())
}

/// Whether node `index` may write `output` while `other` is needed.
fn may_be_written(kernel: &Kernel, node: &Node<'_>, index: usize, output: &Value, other: &Value) -> bool {
    if core::ptr::eq(output, other) {
        // A state, which is needed all the time.
        return true;
    }
    match kernel.run {
        Run::Apart(_) => !overlap_at(node, other, &output.extent()),
        Run::Over(_) => {
            is_over(node, output, other) && other.last_use as usize == index
                || !overlap_at(node, other, &output.extent())
        }
        Run::InPlace(_) => {
            let is_elementwise = matches!(kernel.alias(), Alias::Elementwise);
            let takes_its_place = is_elementwise && output.coincides(other) && other.last_use as usize == index;
            !output.extent().overlaps(&other.extent()) || takes_its_place && is_input(node, other)
        }
    }
}

/// Checks that the output of a node that runs [`Run::Over`] its last input is in the place of that.
#[inline(never)]
fn check_over(node: &Node<'_>) -> Result<(), BrokenRule> {
    if let (Some(last), Some(output)) = (node.inputs().last(), node.outputs.first()) {
        let text = "the output does not lie in the place of the last input, but at";
        require!(output.coincides(last), text, output.offset);
    }
    Ok(())
}

/// Whether `output` is the first of a node, and `value` the last input and no other one.
fn is_over(node: &Node<'_>, output: &Value, value: &Value) -> bool {
    let is_first = node.outputs.first().is_some_and(|first| core::ptr::eq(first, output));
    let is_last = |(index, input): (usize, &Value)| core::ptr::eq(input, value) == (index + 1 == node.inputs.len());
    is_first && node.inputs().enumerate().all(is_last)
}

/// Whether `value` is in the way of `written`. To what a node runs on belongs what lies between its pixels.
fn overlap_at(node: &Node<'_>, value: &Value, written: &Extent) -> bool {
    let extent = value.extent();
    let is_part = || is_input(node, value) || node.outputs.iter().any(|output| core::ptr::eq(output, value));
    extent.overlaps(written) || is_part() && extent.whole().overlaps(&written.whole())
}

fn is_input(node: &Node<'_>, value: &Value) -> bool {
    node.inputs().any(|input| core::ptr::eq(input, value))
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

    /// Refuses an output made of elements of the inputs if what is written of it is in the way: the parts of inputs that do not lie there already.
    #[inline(never)]
    fn check_overlay(
        &self,
        index: usize,
        node: &Node<'_>,
        output: &Value,
        kernel: &Kernel,
        overlay: fn(&Node<'_>, usize) -> Option<Overlay>,
    ) -> Result<(), Error> {
        for (position, input) in node.inputs().enumerate() {
            let overlay = overlay(node, position);
            if overlay.is_some_and(|overlay| overlay.holds(input, output)) {
                continue;
            }
            let written = match overlay {
                Some(Overlay::InputInside { offset, pitch }) => input.inside(output, offset, pitch),
                Some(Overlay::OutputInside { .. }) => {
                    let broken = refused("a view lies elsewhere than in its input, node", index as i64);
                    return Err(broken.of(kernel.operator.name));
                }
                None => *output,
            };
            // A part can have another pitch than the whole, at which overlaps are not exact.
            let extents = [written.extent(), output.extent()];
            let is_in_the_way = |other: &Value| extents.iter().all(|extent| extent.overlaps(&other.extent()));
            self.refuse_overlap(index, &written.range(), is_in_the_way)?;
        }
        Ok(())
    }

    /// Refuses to write to a range of the arena at a node, if there is a value that is in the way.
    fn refuse_overlap(
        &self,
        node: usize,
        written: &Range<usize>,
        is_in_the_way: impl Fn(&Value) -> bool,
    ) -> Result<(), Error> {
        // Most values lie elsewhere, which costs no more than two comparisons.
        let is_near = |value: &Value| value.range().start < written.end && written.start < value.range().end;
        let mut alive = self.places.iter().take(self.used).flatten();
        let overwritten = alive.find(|&&value| is_near(value) && is_in_the_way(value));
        let Some(&overwritten) = overwritten else { return Ok(()) };
        let value = self.values.iter().position(|value| core::ptr::eq(value, overwritten)).unwrap_or_default();
        Err(Error::Overlap { node, value })
    }
}
