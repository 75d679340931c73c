//! Elementwise operators of one input.

use crate::arena::Shared;
use crate::image::Element;
use crate::node::Node;
use crate::operator::{CheckedPart, nonzero};

/// Runs a node: each output element is `function(x)`. The output may be the input.
#[inline(always)]
pub(crate) fn run<X: Element, Y: Element>(node: &Node<'_>, memory: Shared<'_>, function: impl Fn(X) -> Y) {
    let (from, to) = (node.input(0), node.output(0));
    let (input, output) = (memory.input::<X>(0), memory.output::<Y>(0));
    // Contiguous pixels are one block.
    let [length, from, to] = if from.is_dense() && to.is_dense() {
        [output.len(); 3]
    } else {
        [to.shape[2], from.pitch, to.pitch].map(|size| size as usize)
    };
    for (output, input) in output.chunks(nonzero(to)).zip(input.chunks(nonzero(from))) {
        for (output, input) in output.get(..length).checked_part().iter().zip(input) {
            output.set(function(input.get()));
        }
    }
}
