//! Elementwise operators of two inputs, with broadcasting: along each axis the inputs have the same length, or one of them has length 1 and is
//! repeated.

use core::cell::Cell;

use crate::BrokenRule;
use crate::arena::Shared;
use crate::image::{Dtype, Element, Value};
use crate::kernels::clamp;
use crate::node::Node;
use crate::operator::{Alias, CheckedPart, Operator, Output, attributes, nonzero, require};
use crate::ops::channels::check_clamp_of;

attributes! {
    /// The clamp of the output, as integers.
    struct Attributes { clamp_min, clamp_max }
}

/// The pairwise operator with this name.
pub(crate) const fn operator(name: &'static str) -> Operator {
    Operator {
        name,
        attributes: Attributes::NAMES,
        inputs: 2..=2,
        outputs: &[Output::OWN],
        alias: Alias::Elementwise,
        shape: |node, _| broadcast(node.input(0).shape, node.input(1).shape),
        macs: |_| 0,
    }
}

/// The shape to which both inputs are broadcast.
fn broadcast(first: [u32; 3], second: [u32; 3]) -> Result<[u32; 3], BrokenRule> {
    let mut shape = first;
    for (length, other) in shape.iter_mut().zip(second) {
        let fits = *length == other || *length == 1 || other == 1;
        require!(fits, "the inputs' sizes differ along an axis, and none is 1: length of the second", other);
        *length = (*length).max(other);
    }
    Ok(shape)
}

/// Checks a node's clamp, and that it has no scratch memory.
pub(crate) fn check(node: &Node<'_>) -> Result<(), BrokenRule> {
    let attributes = Attributes::read(node.attributes())?;
    node.require_no_scratch()?;
    check_clamp_of(node.output(0).dtype(), (attributes.clamp_min, attributes.clamp_max))
}

/// The clamp of a node.
#[cfg(feature = "host")]
pub(crate) fn clamp_of(node: &Node<'_>) -> Option<(i32, i32)> {
    Attributes::read(node.attributes()).ok().map(|attributes| (attributes.clamp_min, attributes.clamp_max))
}

/// The arithmetic of one output element.
#[derive(Clone, Copy)]
pub(crate) struct Elements {
    /// Zero points of the two inputs; 0 for int16.
    pub(crate) zero_points: [i32; 2],
    /// Least and largest element of the output.
    pub(crate) clamp: (i32, i32),
}

impl Elements {
    /// `clamp(combine(a - z_1, b - z_2))`.
    #[inline(always)]
    fn element<T: Element>(self, a: T, b: T, combine: impl Fn(i32, i32) -> i32) -> T {
        let Elements { zero_points, clamp: (min, max) } = self;
        // Without the zero points of int16, two instructions less per element.
        let [first, second] = if T::DTYPE as usize == Dtype::Int8 as usize { zero_points } else { [0; 2] };
        T::truncate(clamp(combine(a.into() - first, b.into() - second), min, max))
    }

    /// Combines elements up to the length of the shortest slice; the output may be one of the inputs.
    #[inline(always)]
    pub(crate) fn combine<T: Element>(
        self,
        [first, second]: [&[Cell<T>]; 2],
        output: &[Cell<T>],
        combine: impl Fn(i32, i32) -> i32,
    ) {
        for ((output, a), b) in output.iter().zip(first).zip(second) {
            output.set(self.element(a.get(), b.get(), &combine));
        }
    }
}

/// One input with its strides: 0 along axes where it is broadcast.
struct Operand<'m, T> {
    cells: &'m [Cell<T>],
    /// The input's elements from one row of the output, or one pixel, to the next: 0 where the input is broadcast.
    row_step: usize,
    pixel_step: usize,
    /// Bit mask of the channel's index: 0 where a single channel is broadcast.
    channel_mask: usize,
}

impl<'m, T: Element> Operand<'m, T> {
    fn new(value: &Value, cells: &'m [Cell<T>]) -> Self {
        let [height, width, channels] = value.shape;
        Operand {
            cells,
            row_step: if height == 1 { 0 } else { (width * value.pitch) as usize },
            pixel_step: if width == 1 { 0 } else { value.pitch as usize },
            channel_mask: if channels == 1 { 0 } else { usize::MAX },
        }
    }

    fn pixel(&self, y: usize, x: usize) -> &'m [Cell<T>] {
        self.cells.get(y * self.row_step + x * self.pixel_step..).checked_part()
    }
}

/// Runs a node: each output element is `clamp(combine(x_1 - z_1, x_2 - z_2))`.
#[inline(always)]
pub(crate) fn run<T: Element>(node: &Node<'_>, memory: Shared<'_>, combine: impl Fn(i32, i32) -> i32) {
    let clamp = Attributes::read(node.attributes()).ok().map(|attributes| (attributes.clamp_min, attributes.clamp_max));
    let value = node.output(0);
    let inputs = [0, 1].map(|index| node.input(index));
    let elements = Elements { zero_points: inputs.map(|input| input.zero_point), clamp: clamp.checked_part() };
    let [first, second] = [0, 1].map(|index| Operand::new(inputs[index], memory.input(index)));
    let output: &[Cell<T>] = memory.output(0);
    let [_, mut width, mut channels] = value.shape.map(|side| side as usize);
    let mut pitch = value.pitch as usize;
    let [first_mask, second_mask] = [&first, &second].map(|operand| operand.channel_mask);
    let mut side_by_side = first_mask == second_mask;
    let dense = inputs.iter().all(|input| input.is_dense()) && value.is_dense();
    if dense && [&first, &second].iter().all(|operand| operand.cells.len() == output.len()) {
        // Fast path without broadcasting: all elements count as the channels of one pixel.
        (width, channels, pitch, side_by_side) = (1, output.len(), output.len(), true);
    }
    let (mut y, mut x) = (0, 0);
    for output in output.chunks(nonzero(pitch)) {
        let output = output.get(..channels).checked_part();
        let (first, second) = (first.pixel(y, x), second.pixel(y, x));
        if side_by_side {
            elements.combine([first, second], output, &combine);
        } else {
            for (index, output) in output.iter().enumerate() {
                let channel = |cells: &[Cell<T>], mask| cells.get(index & mask).map_or(T::default(), Cell::get);
                let (a, b) = (channel(first, first_mask), channel(second, second_mask));
                output.set(elements.element(a, b, &combine));
            }
        }
        x += 1;
        if x == width {
            (y, x) = (y + 1, 0);
        }
    }
}
