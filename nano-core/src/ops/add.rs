//! Element-wise addition of two tensors of one shape:
//! `y = clamp(output * (a * (x_1 - z_1) 2^20 + b * (x_2 - z_2) 2^20) + z_y)`, the three multipliers in [`AddParameters`].
//! Bit-exact with TensorFlow Lite Micro's int8 `ADD`.

use crate::Error;
#[cfg(feature = "alloc")]
use crate::fixed_point::Multiplier;
use crate::fixed_point::clamp_to_i8;
use crate::operator::{Io, Node, Operator, attributes, require};
use crate::ops::channels::check_clamp;

/// Table entry of addition.
pub const ADD: Operator = Operator {
    name: NAME,
    code: 4,
    attributes: Attributes::NAMES,
    check,
    run,
    macs: |_| 0,
    #[cfg(feature = "alloc")]
    pack,
};

const NAME: &str = "add";
/// Bits by which both inputs are raised before they are scaled to a common step.
const LEFT_SHIFT: u32 = 20;

attributes! {
    /// The clamp.
    struct Attributes { clamp_min, clamp_max }
}

/// The three multipliers of an addition, from the three scales.
#[cfg(feature = "alloc")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddParameters {
    /// `s_1 / (2 max(s_1, s_2))`.
    pub first: Multiplier,
    /// `s_2 / (2 max(s_1, s_2))`.
    pub second: Multiplier,
    /// `2 max(s_1, s_2) / (2^20 s_y)`.
    pub output: Multiplier,
}

#[cfg(feature = "alloc")]
impl AddParameters {
    /// The multipliers for inputs of scale `first` and `second` and an output of scale `output`; `None` if a ratio is out of range.
    ///
    /// ```
    /// use nano_core::{fixed_point::Multiplier, ops::AddParameters};
    /// let parameters = AddParameters::new(0.5, 0.25, 0.5).unwrap();
    /// assert_eq!(Some(parameters.first), Multiplier::from_real(0.5));
    /// assert_eq!(Some(parameters.second), Multiplier::from_real(0.25));
    /// ```
    pub fn new(first: f32, second: f32, output: f32) -> Option<Self> {
        let twice_largest = 2.0 * f64::from(first.max(second));
        Some(AddParameters {
            first: Multiplier::from_real(f64::from(first) / twice_largest)?,
            second: Multiplier::from_real(f64::from(second) / twice_largest)?,
            output: Multiplier::from_real(twice_largest / (f64::from(1 << LEFT_SHIFT) * f64::from(output)))?,
        })
    }
}

fn check(node: &Node<'_>) -> Result<(), Error> {
    let attributes = Attributes::read(NAME, node.attributes())?;
    node.require_plain(NAME, 2)?;
    let [first, second, _] = node.multipliers(NAME)?;
    require!(NAME, first.shift <= 0, "the first input's multiplier exceeds 1, shift", first.shift);
    require!(NAME, second.shift <= 0, "the second input's multiplier exceeds 1, shift", second.shift);
    let shape = node.output().shape;
    require!(NAME, node.input(0).shape == shape, "the first input has another size", node.input(0).len() as i64);
    require!(NAME, node.input(1).shape == shape, "the second input has another size", node.input(1).len() as i64);
    check_clamp(NAME, (attributes.clamp_min, attributes.clamp_max))
}

fn run(node: &Node<'_>, io: &mut Io<'_>) {
    let attributes = Attributes::read(NAME, node.attributes()).expect("checked by Model::new");
    let [first, second, output_multiplier] = node.multipliers(NAME).expect("checked by Model::new");
    let (first_zero, second_zero) = (node.input(0).zero_point, node.input(1).zero_point);
    for ((output, &a), &b) in io.output.iter_mut().zip(io.inputs[0]).zip(io.inputs[1]) {
        let a = first.apply((i32::from(a) - first_zero) << LEFT_SHIFT);
        let b = second.apply((i32::from(b) - second_zero) << LEFT_SHIFT);
        let value = output_multiplier.apply(a + b).saturating_add(node.output().zero_point);
        *output = clamp_to_i8(value, attributes.clamp_min, attributes.clamp_max);
    }
}

#[cfg(feature = "alloc")]
fn pack(layer: &crate::image::Layer<'_>) -> Result<crate::image::Packed, crate::image::WriteError> {
    let mut packed = crate::image::Packed::plain(layer, Attributes::NAMES)?;
    let [first, second] = layer.inputs[..] else {
        return Err(layer.refused("needs two inputs, has", layer.inputs.len() as f64));
    };
    let parameters = AddParameters::new(first.scale, second.scale, layer.output.scale).ok_or_else(|| {
        layer.refused("a ratio of the scales is not in [0, 2^30); output scale", layer.output.scale.into())
    })?;
    packed.push_multipliers(&[parameters.first, parameters.second, parameters.output]);
    Ok(packed)
}
