//! Requantization to another scale and zero point: `y = clamp(requantize(x - z_x) + z_y)` with the multiplier `s_x / s_y`.
//! Bit-exact with TensorFlow Lite Micro's int8 to int8 `QUANTIZE`.

use crate::Error;
#[cfg(feature = "alloc")]
use crate::fixed_point::Multiplier;
use crate::fixed_point::clamp_to_i8;
use crate::operator::{Checked, Io, Node, Operator, attributes, require};
use crate::ops::channels::check_clamp;

/// Table entry of requantization.
pub const REQUANTIZE: Operator = Operator {
    name: NAME,
    code: 8,
    attributes: Attributes::NAMES,
    check,
    run,
    macs: |_| 0,
    #[cfg(feature = "alloc")]
    pack,
};

const NAME: &str = "requantize";

attributes! {
    /// The clamp.
    struct Attributes { clamp_min, clamp_max }
}

fn check(node: &Node<'_>) -> Result<(), Error> {
    let attributes = Attributes::read(NAME, node.attributes())?;
    node.require_plain(NAME, 1)?;
    node.multipliers::<1>(NAME)?;
    require!(
        NAME,
        node.input(0).shape == node.output().shape,
        "the shape changes to a size of",
        node.output().len() as i64
    );
    check_clamp(NAME, (attributes.clamp_min, attributes.clamp_max))
}

fn run(node: &Node<'_>, io: &mut Io<'_>) {
    let attributes = Attributes::read(NAME, node.attributes()).checked();
    let [multiplier] = node.multipliers(NAME).checked();
    let (from, to) = (node.input(0).zero_point, node.output().zero_point);
    for (output, &input) in io.output.iter_mut().zip(io.inputs[0]) {
        let value = multiplier.apply(i32::from(input) - from).saturating_add(to);
        *output = clamp_to_i8(value, attributes.clamp_min, attributes.clamp_max);
    }
}

#[cfg(feature = "alloc")]
fn pack(layer: &crate::image::Layer<'_>) -> Result<crate::image::Packed, crate::image::WriteError> {
    let real = f64::from(layer.inputs[0].scale) / f64::from(layer.output.scale);
    let multiplier = Multiplier::from_real(real).ok_or_else(|| layer.refused("s_x / s_y is not in [0, 2^30)", real))?;
    let mut packed = crate::image::Packed::plain(layer, Attributes::NAMES)?;
    packed.push_multipliers(&[multiplier]);
    Ok(packed)
}
