//! An operator for tests, with a kernel that copies and one that makes a view.

use nano_core::image::{Cost, Dtype, Packed};
use nano_core::{Alias, BrokenRule, Io, Kernel, Node, Operator, Output, Overlay, Quantization, Run, ops};

/// Some channels of its input: `y[i, j, k] = x[i, j, start + k]`.
static PART: Operator = Operator {
    name: "part",
    attributes: &["start"],
    inputs: 1..=1,
    outputs: &[Output { quantization: Quantization::SameAs(0), reset: None }],
    alias: Alias::overlay(|node, _| {
        Some(Overlay::OutputInside { offset: start(node) as u32, pitch: node.input(0).pitch })
    }),
    shape: |node, _| {
        let [height, width, channels] = node.input(0).shape;
        let taken = node.output(0).shape[2];
        if start(node) + taken as usize > channels as usize {
            return Err(BrokenRule { rule: "takes more channels than there are", value: taken.into() });
        }
        Ok([height, width, taken])
    },
    macs: |_| 0,
};

fn start(node: &Node<'_>) -> usize {
    node.attributes()[0] as usize
}

/// Ids of the two kernels.
pub const COPY: u16 = 2000;
pub const VIEW: u16 = 2001;

const fn kernel(id: u16, name: &'static str, run: Run) -> Kernel {
    Kernel {
        id,
        name,
        operator: &PART,
        inputs: &[Dtype::Int8],
        outputs: &[Dtype::Int8],
        pitched: true,
        forms: &[0],
        check: |_| Ok(()),
        run,
        cost: |layer| Some(Cost::instructions(layer.outputs[0].len() as u64)),
        pack: |_| Ok(Packed::default()),
    }
}

fn copy(node: &Node<'_>, io: Io<'_>) {
    let Io { inputs, mut outputs, .. } = io;
    let (input, output) = (node.input(0), node.output(0));
    let pixels = inputs.get::<i8>(0).chunks(input.pitch as usize);
    for (from, to) in pixels.zip(outputs.take::<i8>().chunks_mut(output.pitch as usize)) {
        let channels = output.shape[2] as usize;
        to[..channels].copy_from_slice(&from[start(node)..][..channels]);
    }
}

/// The kernels of the crate that the tests of memory plans use, and those of this file.
pub const KERNELS: &[Kernel] = &[
    ops::CONV2D,
    ops::CONV2D_ADD,
    ops::DEPTHWISE_CONV2D,
    ops::MAX_POOL2D,
    ops::TABLE,
    ops::ADD,
    ops::SOFTMAX,
    ops::CONCAT,
    kernel(COPY, "part", Run::Apart(copy)),
    kernel(VIEW, "part_view", Run::InPlace(|_, _| {})),
];
