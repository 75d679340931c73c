//! Elementwise operators of one input.

use core::cell::Cell;

use crate::arena::Shared;
use crate::image::{Element, Value};
use crate::node::{Node, existing};
use crate::operator::{CheckedPart, nonzero};

/// Runs a node: each output element is `function(x)`. The output may be the input.
#[inline(always)]
pub(crate) fn run<X: Element, Y: Element>(node: &Node<'_>, memory: Shared<'_>, function: impl Fn(X) -> Y) {
    let (from, to) = (existing(node.find_input(0)), existing(node.outputs.first()));
    let (input, output) = (memory.input::<X>(0), memory.output::<Y>(0));
    if from.is_dense() && to.is_dense() {
        each(output, input, &function);
    } else {
        each_pixel([from, to], output, input, &function);
    }
}

#[inline(always)]
fn each<X: Element, Y: Element>(output: &[Cell<Y>], input: &[Cell<X>], function: &impl Fn(X) -> Y) {
    for (output, input) in output.iter().zip(input) {
        output.set(function(input.get()));
    }
}

/// For values whose pixels are not contiguous.
// Not inlined, to keep registers free for all other values: 24 instructions per node.
#[inline(never)]
fn each_pixel<X: Element, Y: Element>(
    [from, to]: [&Value; 2],
    output: &[Cell<Y>],
    input: &[Cell<X>],
    function: &impl Fn(X) -> Y,
) {
    let [channels, from, to] = [to.shape[2], from.pitch, to.pitch].map(|size| size as usize);
    for (output, input) in output.chunks(nonzero(to)).zip(input.chunks(nonzero(from))) {
        each(output.get(..channels).checked_part(), input, function);
    }
}
