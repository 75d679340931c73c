//! Elementwise multiplication with broadcasting: `y = clamp(requantize((x_1 - z_1)(x_2 - z_2)) + z_y)` with the multiplier `s_1 s_2 / s_y`.
//! Bit-exact with TensorFlow Lite Micro's int8 `MUL`.
//!
//! Constant: one [`Channel`], whose bias is 0.

use crate::BrokenRule;
use crate::arena::Shared;
use crate::image::Dtype;
use crate::kernels::{Channel, Form, LITERAL, Literal, ONE_PASS, OnePass};
use crate::node::Node;
use crate::operator::{CheckedPart, Kernel, Operator, Run, refused};
use crate::ops::{channels, pairwise};

/// Kernel of the multiplication.
pub const MUL: Kernel = Kernel {
    id: 14,
    name: NAME,
    operator: &OPERATOR,
    inputs: &[Dtype::Int8],
    outputs: &[Dtype::Int8],
    pitched: true,
    forms: &[LITERAL, ONE_PASS],
    check,
    run: Run::InPlace(run),
    #[cfg(feature = "alloc")]
    cost: |layer| Some(20 * layer.outputs[0].len() as u64),
    #[cfg(feature = "alloc")]
    pack,
};

static OPERATOR: Operator = pairwise::operator(NAME);

const NAME: &str = "mul";
/// The largest magnitude of a product: the difference of two int8 values is at most 255.
const LARGEST: i64 = 255 * 255;

fn channel<'a>(node: &Node<'a>) -> Result<&'a Channel, BrokenRule> {
    match node.constant(0)? {
        [channel] => Ok(channel),
        channels => Err(refused("wrong number of channels", channels.len() as i64)),
    }
}

fn check(node: &Node<'_>) -> Result<(), BrokenRule> {
    channels::check_requantization(channel(node)?, LARGEST, node.form() == ONE_PASS)?;
    pairwise::check(node)
}

fn run(node: &Node<'_>, memory: Shared<'_>) {
    let channel = channel(node).ok().copied().checked_part();
    if node.form() == ONE_PASS {
        pairwise::run(node, memory, |a, b| OnePass::requantize(&channel, a * b))
    } else {
        pairwise::run(node, memory, |a, b| Literal::requantize(&channel, a * b))
    }
}

#[cfg(feature = "alloc")]
fn pack(layer: &crate::image::Layer<'_>) -> Result<crate::image::Packed, crate::image::WriteError> {
    use zerocopy::IntoBytes;
    let output = layer.outputs[0];
    let real = layer.inputs.iter().map(|input| f64::from(input.scale)).product::<f64>() / f64::from(output.scale);
    let multiplier = crate::fixed_point::Multiplier::from_real(real)
        .ok_or_else(|| layer.refused("s_1 * s_2 / s_y is not in [0, 2^30)", real))?;
    let accumulator = channels::pack::Accumulator { bias: 0, multiplier, bound: LARGEST };
    let (form, channels) = channels::pack::requantizations(&[accumulator], output.zero_point);
    Ok(crate::image::Packed { form, constants: alloc::vec![channels.as_bytes().to_vec()], scratch_length: 0 })
}
