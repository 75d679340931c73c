//! The view kernel: copies nothing, as the output shares the memory of its elements in the input.

use super::{Attributes, OPERATOR};
use crate::BrokenRule;
use crate::image::Value;
use crate::node::Node;
use crate::operator::{ALIKE, Kernel, Overlay, Run, require};

/// Kernel of data movement by a view.
pub const MOVE_VIEW: Kernel = Kernel {
    id: 18,
    name: "move_view",
    operator: &OPERATOR,
    inputs: ALIKE,
    outputs: ALIKE,
    pitched: true,
    forms: &[0],
    check,
    run: Run::InPlace(|_, _| ()),
    #[cfg(feature = "alloc")]
    cost: |layer| place(&layer.attributes, &layer.inputs[0], &layer.outputs[0]).map(|_| crate::image::Cost::default()),
    #[cfg(feature = "alloc")]
    pack: |layer| super::pack::tables(layer).map(|_| Default::default()),
};

/// Where the output lies in its input, if it is a part of it with one pitch there.
pub(super) fn place(attributes: &[i32], input: &Value, output: &Value) -> Option<Overlay> {
    let Attributes { first, pitch, .. } = Attributes::read(attributes).ok()?;
    let (first, pitch) = (u32::try_from(first).ok()?, u32::try_from(pitch).ok()?);
    let [height, width, channels] = output.shape;
    if pitch == 0 {
        return None;
    }
    if input.is_dense() {
        return Some(Overlay::OutputInside { offset: first, pitch });
    }
    // The input's pixels are not contiguous: the part must lie within their channels.
    let of_input = input.shape[2];
    let (pixel, channel) = (first.checked_div(of_input)?, first.checked_rem(of_input)?);
    let pitch = match height * width {
        1 => channels,
        _ if pitch.is_multiple_of(of_input) => pitch.checked_div(of_input)?.checked_mul(input.pitch)?,
        _ => return None,
    };
    let offset = pixel.checked_mul(input.pitch)?.checked_add(channel)?;
    (channel + channels <= of_input).then_some(Overlay::OutputInside { offset, pitch })
}

fn check(node: &Node<'_>) -> Result<(), BrokenRule> {
    node.require_no_scratch()?;
    let is_part = place(node.attributes(), node.input(0), node.output(0)).is_some();
    require!(is_part, "a view is no part of its input: pitch of the input", node.input(0).pitch);
    Ok(())
}
