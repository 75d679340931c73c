//! Index of the largest channel of each pixel; of equal ones the first. Bit-exact with TensorFlow Lite Micro's int8 `ARG_MAX`.
//!
//! The output is int32 with scale 1: its integers are the indices themselves (see [`Value::holds_indices`](crate::image::Value::holds_indices)).

use crate::arena::Io;
use crate::image::Dtype;
use crate::node::Node;
use crate::operator::{Alias, CheckedPart, Kernel, Operator, Output, Quantization, Run, nonzero};

/// Kernel of the index of the largest channel.
pub const ARGMAX: Kernel = Kernel {
    id: 40,
    name: NAME,
    operator: &OPERATOR,
    inputs: &[Dtype::Int8],
    outputs: &[Dtype::Int32],
    pitched: true,
    forms: &[0],
    check: |node| node.require_no_scratch(),
    run: Run::Apart(run),
    #[cfg(feature = "alloc")]
    cost: |layer| Some(crate::image::Cost::instructions(7 * layer.inputs[0].len() as u64)),
    #[cfg(feature = "alloc")]
    pack: |_| Ok(crate::image::Packed::default()),
};

static OPERATOR: Operator = Operator {
    name: NAME,
    attributes: &[],
    inputs: 1..=1,
    outputs: &[Output { quantization: Quantization::Fixed { scale: 1.0, zero_point: 0 }, reset: None }],
    alias: Alias::Never,
    shape: |node, _| {
        let [height, width, _] = node.input(0).shape;
        Ok([height, width, 1])
    },
    macs: |_| 0,
};

const NAME: &str = "argmax";

fn run(node: &Node<'_>, mut io: Io<'_>) {
    let (input, output) = (node.input(0), node.output(0));
    let pixels = io.inputs.get::<i8>(0).chunks(nonzero(input.pitch as usize));
    let indices = io.outputs.take::<i32>().chunks_mut(nonzero(output.pitch as usize));
    for (pixel, index) in pixels.zip(indices) {
        if let Some(index) = index.first_mut() {
            *index = first_largest(pixel.get(..input.shape[2] as usize).checked_part());
        }
    }
}

fn first_largest(numbers: &[i8]) -> i32 {
    // Two short loops: one that keeps the largest number and its place takes twice as many instructions.
    let largest = numbers.iter().max();
    numbers.iter().position(|number| Some(number) == largest).unwrap_or_default() as i32
}
