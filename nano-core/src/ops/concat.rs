//! Concatenation of the inputs along `axis` (0 height, 1 width, 2 channels). All values have one scale and zero point.
//! Bit-exact with TensorFlow Lite Micro's `CONCATENATION`. Copies bytes, so all dtypes have one kernel.
//!
//! An input that already lies in its part of the output is not copied.

use core::cell::Cell;

use crate::BrokenRule;
use crate::arena::Shared;
use crate::image::Value;
use crate::node::Node;
use crate::operator::{
    ALIKE, Alias, Checked, CheckedPart, Kernel, Operator, Output, Overlay, Quantization, Run, attributes, nonzero,
    require,
};

/// Kernel of the concatenation.
pub const CONCAT: Kernel = Kernel {
    id: 17,
    name: NAME,
    operator: &OPERATOR,
    inputs: ALIKE,
    outputs: ALIKE,
    pitched: true,
    forms: &[0],
    check: |node| node.require_no_scratch(),
    run: Run::InPlace(run),
    #[cfg(feature = "alloc")]
    cost: |layer| Some(crate::image::Cost::instructions(4 * layer.outputs[0].len() as u64)),
    #[cfg(feature = "alloc")]
    pack: |_| Ok(crate::image::Packed::default()),
};

static OPERATOR: Operator = Operator {
    name: NAME,
    attributes: Attributes::NAMES,
    inputs: 1..=u8::MAX,
    outputs: &[Output { quantization: Quantization::Shared, reset: None }],
    alias: Alias::overlay(overlay),
    shape,
    macs: |_| 0,
};

const NAME: &str = "concat";

attributes! {
    /// The axis of the concatenation.
    struct Attributes { axis }
}

fn shape(node: &Node<'_>, _: usize) -> Result<[u32; 3], BrokenRule> {
    let Attributes { axis } = Attributes::read(node.attributes())?;
    require!((0..3).contains(&axis), "the axis is not 0 (height), 1 (width) or 2 (channels)", axis);
    let axis = axis as usize;
    let mut shape = node.input(0).shape;
    for (index, input) in node.inputs().enumerate().skip(1) {
        for (dimension, (size, other)) in shape.iter_mut().zip(input.shape).enumerate() {
            if dimension == axis {
                // Saturates, as a value so large fails the check of the values.
                *size = size.saturating_add(other);
            } else {
                require!(
                    *size == other,
                    "an input's sizes differ from the first's beside the axis, input",
                    index as i64
                );
            }
        }
    }
    Ok(shape)
}

/// The part of the output that an input fills, in elements.
struct Part<'a> {
    input: &'a Value,
    offset: usize,
    /// From one row of the part to the next, and from one pixel to the next.
    row_pitch: usize,
    pitch: usize,
}

impl Part<'_> {
    /// The overlay of the input on this part; `None` if the part does not have one pitch.
    fn overlay(&self) -> Option<Overlay> {
        let &Part { input, offset, row_pitch, pitch } = self;
        let [height, width, _] = input.shape.map(|size| size as usize);
        let pitch = match (height, width) {
            _ if width * pitch == row_pitch => pitch,
            (1, _) => pitch,
            (_, 1) => row_pitch,
            _ => return None,
        };
        Some(Overlay::InputInside { offset: offset as u32, pitch: pitch as u32 })
    }

    /// Copies the bytes of the input to its part.
    #[inline(always)]
    fn copy(&self, from: &[Cell<i8>], to: &[Cell<i8>]) {
        let size = self.input.dtype().size();
        let (width, channels) = (self.input.shape[1] as usize, self.input.shape[2] as usize * size);
        let mut pixel = [channels, nonzero(self.input.pitch as usize * size), nonzero(self.pitch * size)];
        let row_pitch = nonzero(width * pixel[1]);
        if pixel == [channels; 3] {
            // The pixels of a row are contiguous in input and output: each row is copied as one block.
            pixel = [nonzero(width * channels); 3];
        }
        let [length, from_pitch, to_pitch] = pixel;
        let rows = from
            .chunks(row_pitch)
            .zip(to.get(self.offset * size..).checked_part().chunks(nonzero(self.row_pitch * size)));
        for (from, to) in rows {
            for (from, to) in from.chunks(from_pitch).zip(to.chunks(to_pitch)) {
                Shared::copy(from.get(..length).checked_part(), to);
            }
        }
    }
}

/// The parts of the inputs, in the inputs' order.
fn parts<'a>(node: &'a Node<'_>, axis: i32) -> impl Iterator<Item = Part<'a>> {
    let (output, axis) = (node.output(0), axis as usize);
    let pitch = output.pitch as usize;
    let row_pitch = output.shape[1] as usize * pitch;
    // Elements of the output from one index along the axis to the next.
    let step = [row_pitch, pitch, 1].get(axis).copied().unwrap_or_default();
    node.inputs().scan(0, move |offset, input| {
        let part = Part { input, offset: *offset, row_pitch, pitch };
        *offset += input.shape.get(axis).map_or(0, |&size| size as usize) * step;
        Some(part)
    })
}

fn overlay(node: &Node<'_>, index: usize) -> Option<Overlay> {
    let Attributes { axis } = Attributes::read(node.attributes()).ok()?;
    parts(node, axis).nth(index)?.overlay()
}

fn run(node: &Node<'_>, memory: Shared<'_>) {
    let Attributes { axis } = Attributes::read(node.attributes()).checked();
    let output = memory.output::<i8>(0);
    for (index, part) in parts(node, axis).enumerate() {
        if !part.overlay().is_some_and(|overlay| overlay.holds(part.input, node.output(0))) {
            part.copy(memory.input(index), output);
        }
    }
}
