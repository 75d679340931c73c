//! PReLU, with a slope below zero for each channel: `y = clamp(apply(x - z_x) + z_y)` for x from z_x on, with the multiplier `s_x / s_y`; below
//! z_x that of `(x - z_x) * alpha`, with `s_x * s_alpha / s_y`, where `apply` is
//! [`Multiplier::apply`](crate::fixed_point::Multiplier::apply). Bit-exact with TensorFlow Lite Micro's int8 `PRELU`.
//!
//! Tensors for the writer: `alpha` int8 `[channels]`, `alpha_scale` float32 `[1]`.

use crate::BrokenRule;
use crate::arena::Shared;
#[cfg(feature = "alloc")]
use crate::fixed_point::Multiplier;
use crate::fixed_point::clamp_to_i8;
use crate::image::Dtype;
use crate::node::Node;
use crate::operator::{Alias, CheckedPart, Kernel, Operator, Output, Run, nonzero, require};

/// Kernel of PReLU.
pub const PRELU: Kernel = Kernel {
    id: 41,
    name: NAME,
    operator: &OPERATOR,
    inputs: &[Dtype::Int8],
    outputs: &[Dtype::Int8],
    pitched: true,
    forms: &[0],
    check,
    run: Run::InPlace(run),
    #[cfg(feature = "alloc")]
    cost: |layer| Some(crate::image::Cost::instructions(35 * layer.outputs[0].len() as u64)),
    #[cfg(feature = "alloc")]
    pack,
};

static OPERATOR: Operator = Operator {
    name: NAME,
    attributes: &[],
    inputs: 1..=1,
    outputs: &[Output::OWN],
    alias: Alias::Elementwise,
    shape: |node, _| Ok(node.input(0).shape),
    macs: |_| 0,
};

const NAME: &str = "prelu";

fn check(node: &Node<'_>) -> Result<(), BrokenRule> {
    node.require_no_scratch()?;
    node.multipliers::<2>()?;
    let slopes = node.constant::<i8>(1)?.len();
    require!(slopes == node.input(0).shape[2] as usize, "wrong number of slopes", slopes as i64);
    Ok(())
}

fn run(node: &Node<'_>, memory: Shared<'_>) {
    let [above, below] = node.multipliers().ok().checked_part();
    let slopes: &[i8] = node.constant(1).ok().checked_part();
    let (from, to) = (node.input(0), node.output(0));
    let inputs = memory.input::<i8>(0).chunks(nonzero(from.pitch as usize));
    let outputs = memory.output::<i8>(0).chunks(nonzero(to.pitch as usize));
    for (inputs, outputs) in inputs.zip(outputs) {
        for ((input, output), &slope) in inputs.iter().zip(outputs).zip(slopes) {
            let difference = i32::from(input.get()) - from.zero_point;
            // No overflow: the product is below 2^15.
            let (multiplier, value) =
                if difference < 0 { (below, difference * i32::from(slope)) } else { (above, difference) };
            output.set(clamp_to_i8(multiplier.apply(value).saturating_add(to.zero_point), -128, 127));
        }
    }
}

#[cfg(feature = "alloc")]
fn pack(layer: &crate::image::Layer<'_>) -> Result<crate::image::Packed, crate::image::WriteError> {
    let channels = layer.outputs[0].shape[2] as usize;
    let &[alpha_scale] = layer.float32("alpha_scale", 1)? else { return Err(layer.refused("needs one scale", 0.0)) };
    let above = f64::from(layer.inputs[0].scale) / f64::from(layer.outputs[0].scale);
    let multiplier =
        |real: f64| Multiplier::from_real(real).ok_or_else(|| layer.refused("a multiplier is not in [0, 2^30)", real));
    let below = f64::from(layer.inputs[0].scale) * f64::from(alpha_scale) / f64::from(layer.outputs[0].scale);
    let mut packed = crate::image::Packed::default();
    packed.push_multipliers(&[multiplier(above)?, multiplier(below)?]);
    packed.constants.push(layer.int8("alpha", channels)?.iter().map(|&slope| slope as u8).collect());
    Ok(packed)
}
