//! Requantization of an int8 tensor to another scale and zero point: `y = clamp(apply(x - z_x) + z_y)`, where `apply` is
//! [`Multiplier::apply`](crate::fixed_point::Multiplier::apply) with the multiplier `s_x / s_y`. Bit-exact with TensorFlow Lite Micro's
//! int8 to int8 `QUANTIZE`, which clamps to int8 only.

use crate::BrokenRule;
use crate::arena::Shared;
#[cfg(feature = "alloc")]
use crate::fixed_point::Multiplier;
use crate::fixed_point::clamp_to_i8;
use crate::image::Dtype;
use crate::node::Node;
use crate::operator::{Alias, Checked, Kernel, Operator, Output, Run, attributes};
use crate::ops::channels::check_clamp;
use crate::ops::unary;

/// Kernel of requantization.
pub const REQUANTIZE: Kernel = Kernel {
    id: 8,
    name: NAME,
    operator: &OPERATOR,
    inputs: &[Dtype::Int8],
    outputs: &[Dtype::Int8],
    pitched: true,
    forms: &[0],
    check,
    run: Run::InPlace(run),
    #[cfg(feature = "alloc")]
    cost: |layer| Some(30 * layer.outputs[0].len() as u64),
    #[cfg(feature = "alloc")]
    pack,
};

static OPERATOR: Operator = Operator {
    name: NAME,
    attributes: Attributes::NAMES,
    inputs: 1..=1,
    outputs: &[Output::OWN],
    alias: Alias::Elementwise,
    shape: |node, _| Ok(node.input(0).shape),
    macs: |_| 0,
};

const NAME: &str = "requantize";

attributes! {
    /// The clamp.
    struct Attributes { clamp_min, clamp_max }
}

fn check(node: &Node<'_>) -> Result<(), BrokenRule> {
    let attributes = Attributes::read(node.attributes())?;
    node.require_no_scratch()?;
    node.multipliers::<1>()?;
    check_clamp((attributes.clamp_min, attributes.clamp_max))
}

fn run(node: &Node<'_>, memory: Shared<'_>) {
    let attributes = Attributes::read(node.attributes()).checked();
    let [multiplier] = node.multipliers().checked();
    let (from, to) = (node.input(0).zero_point, node.output(0).zero_point);
    unary::run(node, memory, |x| {
        let value = multiplier.apply(i32::from(x) - from).saturating_add(to);
        clamp_to_i8(value, attributes.clamp_min, attributes.clamp_max)
    });
}

#[cfg(feature = "alloc")]
fn pack(layer: &crate::image::Layer<'_>) -> Result<crate::image::Packed, crate::image::WriteError> {
    let real = f64::from(layer.inputs[0].scale) / f64::from(layer.outputs[0].scale);
    let multiplier = Multiplier::from_real(real).ok_or_else(|| layer.refused("s_x / s_y is not in [0, 2^30)", real))?;
    let mut packed = crate::image::Packed::default();
    packed.push_multipliers(&[multiplier]);
    Ok(packed)
}
