//! Requantization to another scale, zero point or dtype: `y = clamp(apply(x - z_x) + z_y)`, where `apply` is
//! [`Multiplier::apply`](crate::fixed_point::Multiplier::apply) with the multiplier `s_x / s_y`. Bit-exact with TensorFlow Lite Micro's
//! `QUANTIZE` between these dtypes, which clamps to the output's dtype only.

use crate::BrokenRule;
use crate::arena::Shared;
use crate::fixed_point::Multiplier;
use crate::image::Element;
use crate::node::Node;
use crate::operator::{Alias, Checked, CheckedPart, Kernel, Operator, Output, Run, attributes};
use crate::ops::channels::check_clamp_of;
use crate::ops::unary;

/// Kernel of requantization from int8 to int8.
pub const REQUANTIZE: Kernel = kernel::<i8, i8>(8, NAME);
/// Kernel of requantization from int8 to int16.
pub const REQUANTIZE_INT8_TO_INT16: Kernel = kernel::<i8, i16>(21, "requantize_int8_to_int16");
/// Kernel of requantization from int16 to int8.
pub const REQUANTIZE_INT16_TO_INT8: Kernel = kernel::<i16, i8>(22, "requantize_int16_to_int8");
/// Kernel of requantization from int16 to int16.
pub const REQUANTIZE_INT16: Kernel = kernel::<i16, i16>(23, "requantize_int16");
/// Kernel of requantization from int32 to int8.
pub const REQUANTIZE_INT32_TO_INT8: Kernel = kernel::<i32, i8>(24, "requantize_int32_to_int8");
/// Kernel of requantization from int32 to int16.
pub const REQUANTIZE_INT32_TO_INT16: Kernel = kernel::<i32, i16>(25, "requantize_int32_to_int16");

const fn kernel<X: Element, Y: Element>(id: u16, name: &'static str) -> Kernel {
    Kernel {
        id,
        name,
        operator: &OPERATOR,
        inputs: X::DTYPES,
        outputs: Y::DTYPES,
        pitched: true,
        forms: &[0],
        check,
        run: Run::InPlace(run::<X, Y>),
        #[cfg(feature = "alloc")]
        cost: |layer| Some(crate::image::Cost::instructions(30 * layer.outputs[0].len() as u64)),
        #[cfg(feature = "alloc")]
        pack,
    }
}

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
    check_clamp_of(node.output(0).dtype(), (attributes.clamp_min, attributes.clamp_max))
}

fn run<X: Element, Y: Element>(node: &Node<'_>, memory: Shared<'_>) {
    let attributes = Attributes::read(node.attributes()).checked();
    let [multiplier] = node.multipliers().ok().checked_part();
    let (from, to) = (node.input(0).zero_point, node.output(0).zero_point);
    let is_int8 = size_of::<X>() + size_of::<Y>() == 2;
    let (min, max) = (attributes.clamp_min, attributes.clamp_max);
    unary::run(node, memory, |x: X| {
        // No overflow: the zero point of an int32 is 0.
        let difference = x.into().wrapping_sub(from);
        let scaled = if is_int8 { multiplier.apply(difference) } else { apply(multiplier, difference) };
        Y::truncate(crate::kernels::clamp(scaled.saturating_add(to), min, max))
    });
}

/// [`Multiplier::apply`] for wider elements than int8, which are rare.
// Not inlined, for code size: each kernel would have 500 bytes of it, and saves 15 instructions per element.
#[inline(never)]
fn apply(multiplier: Multiplier, value: i32) -> i32 {
    multiplier.apply(value)
}

#[cfg(feature = "alloc")]
fn pack(layer: &crate::image::Layer<'_>) -> Result<crate::image::Packed, crate::image::WriteError> {
    let real = f64::from(layer.inputs[0].scale) / f64::from(layer.outputs[0].scale);
    let multiplier = Multiplier::from_real(real).ok_or_else(|| layer.refused("s_x / s_y is not in [0, 2^30)", real))?;
    let mut packed = crate::image::Packed::default();
    packed.push_multipliers(&[multiplier]);
    Ok(packed)
}
