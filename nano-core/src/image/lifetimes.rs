//! The check of an image's memory plan when it is loaded: no node overwrites a value that is still alive.
//!
//! Values may share bytes of the arena; only their offsets and pitches tell. This check establishes what [`Io`](crate::Io) and
//! [`Shared`](crate::Shared) rely on.

use core::ops::Range;

use super::value::Extent;
use super::{Image, MOST_ALIVE, Value};
use crate::operator::{Alias, Kernel, Overlay, OverlayPlace, Run, refused, require};
use crate::{BrokenRule, Error, Node};

/// Checks that each value is written before it is read, and that no write overwrites a value that is needed by the same node or later. A node writes
/// its outputs and scratch memory; the graph's inputs and the states are written before the first node.
///
/// The exceptions are the aliases that operators allow: an output may replace an input in place, and by [`Alias::Overlay`] an output and an input may
/// share the elements that they have in common, which are then not written. Inputs, outputs and scratch memory of a node that runs [`Run::Apart`] or
/// [`Run::Over`] must not lie between each other's pixels either.
///
/// # Errors
/// [`Error::Order`], [`Error::Lifetime`], [`Error::Overlap`], [`Error::Layer`] for a view that lies elsewhere than in its input, and
/// [`Error::TooManyAlive`] beyond [`MOST_ALIVE`].
pub(crate) fn check(image: &Image<'_>, kernels: &[Kernel]) -> Result<(), Error> {
    let (values, end) = (image.values(), image.node_count());
    if let Some(value) = values.iter().position(|value| value.is_state() && value.last_use as usize != end) {
        return Err(Error::Lifetime { node: end, value });
    }
    let mut alive = Alive::new(values, image.input_count())?;
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
        let kernel = node.kernel(kernels).ok_or(Error::UnknownKernel { node: index, id: node.header.kernel })?;
        alive.write(index, &node, kernel)?;
    }
    for (&id, output) in image.outputs() {
        if output.last_use as usize != end {
            return Err(Error::Lifetime { node: end, value: id as usize });
        }
    }
    Ok(())
}

/// A write of a node, to an output or to scratch memory.
#[derive(Clone, Copy)]
struct Written<'n> {
    extent: Extent,
    /// The output that contains `extent`: a second test, as the overlap test may not be exact at the pitch of a part.
    whole: Extent,
    /// The output that is written, if it may replace an input in place.
    output: Option<&'n Value>,
    /// A node that runs out of place: the bytes between the pixels of its values count as theirs.
    apart: Option<&'n Node<'n>>,
    /// The inputs that the output may replace in place, at their last use.
    takes: Takes<'n>,
}

/// The inputs that an output may replace in place.
#[derive(Clone, Copy)]
enum Takes<'n> {
    Nothing,
    /// Values for which [`Value::coincides`] holds.
    Alike,
    /// The last input of this node, replaced by its first output, unless it is also another input.
    Last(&'n Node<'n>),
}

impl Written<'_> {
    fn new(extent: Extent) -> Self {
        Written { extent, whole: extent, output: None, apart: None, takes: Takes::Nothing }
    }

    /// Whether the output may replace `value` in place at node `index`.
    fn may_take(&self, output: &Value, value: &Value, index: usize) -> bool {
        value.last_use as usize == index
            && match self.takes {
                Takes::Nothing => false,
                Takes::Alike => output.coincides(value),
                Takes::Last(node) => is_over(node, output, value),
            }
    }

    /// Whether the write conflicts with `value`, which node `index` or a later one needs.
    fn is_hindered_by(&self, value: &Value, index: usize) -> bool {
        if self.output.is_some_and(|output| core::ptr::eq(output, value) || self.may_take(output, value, index)) {
            // The output itself is alive here if it is a state: states are alive all the time.
            return false;
        }
        let extent = value.extent();
        if extent.overlaps(&self.extent) && extent.overlaps(&self.whole) {
            return true;
        }
        let is_part = |node: &Node<'_>| node.inputs().chain(node.outputs).any(|part| core::ptr::eq(part, value));
        self.apart.is_some_and(is_part) && extent.whole().overlaps(&self.extent.whole())
    }
}

/// Checks that the first output of a node that runs [`Run::Over`] lies in the place of the last input.
#[inline(never)]
fn check_over(node: &Node<'_>) -> Result<(), BrokenRule> {
    if let (Some(last), Some(output)) = (node.inputs().last(), node.outputs.first()) {
        let text = "the output does not lie in the place of the last input, but at";
        require!(output.coincides(last), text, output.range().start as i64);
    }
    Ok(())
}

/// Whether `output` is the first output of a node, and `value` its last input and no other input.
fn is_over(node: &Node<'_>, output: &Value, value: &Value) -> bool {
    let is_first = node.outputs.first().is_some_and(|first| core::ptr::eq(first, output));
    let is_last = |(index, input): (usize, &Value)| core::ptr::eq(input, value) == (index + 1 == node.inputs.len());
    is_first && node.inputs().enumerate().all(is_last)
}

/// The type of [`check_overlay`].
pub(crate) type CheckOverlay = fn(&Alive<'_>, usize, &Node<'_>, &Value, &Kernel, OverlayPlace) -> Result<(), Error>;

/// The values that are alive: written, and still needed.
pub(crate) struct Alive<'a> {
    /// All values of the image.
    values: &'a [Value],
    places: [Option<&'a Value>; MOST_ALIVE],
    /// Places from this index on have never held a value.
    used: usize,
}

impl<'a> Alive<'a> {
    /// The values alive before the first node: the first `inputs` values, and the states.
    pub(super) fn new(values: &'a [Value], inputs: usize) -> Result<Self, Error> {
        let mut alive = Alive { values, places: [None; MOST_ALIVE], used: 0 };
        for (id, value) in values.iter().enumerate() {
            if id < inputs || value.is_state() {
                alive.refuse_overlap(0, &Written::new(value.extent()))?;
                alive.add(0, value)?;
            }
        }
        Ok(alive)
    }

    /// Checks the writes of node `index`, and adds its outputs.
    pub(super) fn write(&mut self, index: usize, node: &Node<'a>, kernel: &Kernel) -> Result<(), Error> {
        self.end_before(index);
        if let Run::Over(_) = kernel.run {
            check_over(node).map_err(|broken| broken.of(kernel.operator.name))?;
        }
        let (apart, takes) = match (kernel.run, kernel.alias()) {
            (Run::Apart(_), _) => (Some(node), Takes::Nothing),
            (Run::Over(_), _) => (Some(node), Takes::Last(node)),
            // One of several outputs must not take the place of another that nothing reads.
            (Run::InPlace(_), Alias::Elementwise) if node.outputs.len() == 1 => (None, Takes::Alike),
            (Run::InPlace(_), _) => (None, Takes::Nothing),
        };
        for output in node.outputs {
            if let Alias::Overlay(rule) = kernel.alias() {
                (rule.check)(self, index, node, output, kernel, rule.place)?;
            } else if self.is_near(&output.range()) {
                let written = Written { output: Some(output), apart, takes, ..Written::new(output.extent()) };
                self.refuse_overlap(index, &written)?;
            }
            if !output.is_state() {
                self.add(index, output)?;
            }
        }
        if let Some(scratch) = node.header.scratch_extent().filter(|scratch| self.is_near(&scratch.range())) {
            self.refuse_overlap(index, &Written { apart: Some(node), ..Written::new(scratch) })?;
        }
        Ok(())
    }

    #[inline(never)]
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

    /// Whether a value may overlap a range. Fast path: two comparisons per value exclude most overlaps.
    #[inline(never)]
    fn is_near(&self, range: &Range<usize>) -> bool {
        let alive = self.places.iter().take(self.used).flatten().map(|value| value.range());
        alive.into_iter().any(|value| value.start < range.end && range.start < value.end)
    }

    /// Refuses a write that conflicts with a value that is alive.
    // Not inlined, for code size on the device: one function for all callers.
    #[inline(never)]
    fn refuse_overlap(&self, node: usize, written: &Written<'_>) -> Result<(), Error> {
        let mut alive = self.places.iter().take(self.used).flatten();
        let overwritten = alive.find(|&&value| written.is_hindered_by(value, node));
        let Some(&overwritten) = overwritten else { return Ok(()) };
        let value = self.values.iter().position(|value| core::ptr::eq(value, overwritten)).unwrap_or_default();
        Err(Error::Overlap { node, value })
    }
}

/// Checks the writes of an operator with [`Alias::Overlay`]: the parts of the output whose inputs do not already lie there.
pub(crate) fn check_overlay(
    alive: &Alive<'_>,
    index: usize,
    node: &Node<'_>,
    output: &Value,
    kernel: &Kernel,
    place: OverlayPlace,
) -> Result<(), Error> {
    for (position, input) in node.inputs().enumerate() {
        let written = match place(node, position) {
            None => output.extent(),
            Some(overlay) => {
                let (part, place) = overlay.place(input, output);
                if part.extent() == place {
                    continue;
                }
                if let Overlay::OutputInside { .. } = overlay {
                    let broken = refused("a view lies elsewhere than in its input, node", index as i64);
                    return Err(broken.of(kernel.operator.name));
                }
                place
            }
        };
        alive.refuse_overlap(index, &Written { whole: output.extent(), ..Written::new(written) })?;
    }
    Ok(())
}
