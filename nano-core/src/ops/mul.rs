//! Elementwise multiplication with broadcasting: `y = clamp(requantize((x_1 - z_1)(x_2 - z_2)) + z_y)` with the multiplier `s_1 s_2 / s_y`.
//! Bit-exact with TensorFlow Lite Micro's int8 and int16 `MUL`.
//!
//! Constant: one [`Channel`], whose bias is 0.

use crate::BrokenRule;
use crate::arena::Shared;
use crate::image::{Dtype, Element};
use crate::kernels::{Channel, Form, LITERAL, Literal, ONE_PASS, OnePass, TWO_PASS, TwoPass};
use crate::node::Node;
use crate::operator::{CheckedPart, Kernel, Operator, Run, refused, require};
use crate::ops::{channels, pairwise};

/// Kernel of the multiplication of int8.
pub const MUL: Kernel = kernel::<i8, OnePass>(14, NAME, &[LITERAL, ONE_PASS]);
/// Kernel of the multiplication of int16.
pub const MUL_INT16: Kernel = kernel::<i16, TwoPass>(34, "mul_int16", &[LITERAL, TWO_PASS]);

const fn kernel<T: Element, F: Form>(id: u16, name: &'static str, forms: &'static [u8]) -> Kernel {
    Kernel {
        id,
        name,
        operator: &OPERATOR,
        inputs: T::DTYPES,
        outputs: T::DTYPES,
        pitched: true,
        forms,
        check,
        run: Run::InPlace(run::<T, F>),
        #[cfg(feature = "alloc")]
        cost: |layer| Some(crate::image::Cost::instructions(20 * layer.outputs[0].len() as u64)),
        #[cfg(feature = "alloc")]
        pack,
    }
}

static OPERATOR: Operator = pairwise::operator(NAME);

const NAME: &str = "mul";

/// The largest magnitude of a product of two elements without their zero points.
const fn largest_product(dtype: Dtype) -> i64 {
    let ((lowest, highest), zero_points) = (dtype.bounds(), dtype.zero_points());
    let (low, high) = (lowest as i64 - *zero_points.end() as i64, highest as i64 - *zero_points.start() as i64);
    if -low > high { low * low } else { high * high }
}

fn channel<'a>(node: &Node<'a>) -> Result<&'a Channel, BrokenRule> {
    match node.constant(0)? {
        [channel] => Ok(channel),
        channels => Err(refused("wrong number of channels", channels.len() as i64)),
    }
}

fn check(node: &Node<'_>) -> Result<(), BrokenRule> {
    let (channel, largest) = (channel(node)?, largest_product(node.output(0).dtype()));
    if node.form() == TWO_PASS {
        require!((1..=31).contains(&channel.shift), "the requantization shift is not 1 to 31", channel.shift);
        let total = largest + i64::from(channel.addend);
        require!(channel.addend >= 0 && total < 1 << 31, "the largest product + addend reaches 2^31", total);
    } else {
        channels::check_requantization(channel, largest, node.form() == ONE_PASS)?;
    }
    pairwise::check(node)
}

/// Prepares a node for a processor.
#[cfg(feature = "host")]
pub(super) fn host(node: &Node<'_>, processor: crate::Processor) -> alloc::boxed::Box<dyn crate::host::HostLayer> {
    match node.output(0).dtype() {
        Dtype::Int8 => crate::host::compiled_in_place(processor, run::<i8, OnePass>),
        _ => crate::host::compiled_in_place(processor, run::<i16, TwoPass>),
    }
}

/// Runs a node; `F` is the form that is not [`LITERAL`].
#[inline(always)]
fn run<T: Element, F: Form>(node: &Node<'_>, memory: Shared<'_>) {
    let channel = channel(node).ok().copied().checked_part();
    if node.form() == LITERAL {
        pairwise::run::<T>(node, memory, |a, b| Literal::requantize(&channel, a * b))
    } else {
        pairwise::run::<T>(node, memory, |a, b| F::requantize(&channel, a * b))
    }
}

#[cfg(feature = "alloc")]
fn pack(layer: &crate::image::Layer<'_>) -> Result<crate::image::Packed, crate::image::WriteError> {
    use zerocopy::IntoBytes;
    let output = layer.outputs[0];
    let real = layer.inputs.iter().map(|input| f64::from(input.scale)).product::<f64>() / f64::from(output.scale);
    let multiplier = crate::fixed_point::Multiplier::from_real(real)
        .ok_or_else(|| layer.refused("s_1 * s_2 / s_y is not in [0, 2^30)", real))?;
    let crate::fixed_point::Multiplier { mantissa, shift } = multiplier;
    let bound = largest_product(output.dtype());
    let (form, channels) = if output.dtype() == Dtype::Int8 || !(-30..=-1).contains(&shift) {
        let accumulator = channels::pack::Accumulator { bias: 0, multiplier, bound };
        channels::pack::requantizations(&[accumulator], output.zero_point)
    } else {
        let addend = 1 << (-shift - 1);
        (TWO_PASS, alloc::vec![Channel { bias: 0, multiplier: mantissa << 1, addend, shift: -shift }])
    };
    Ok(crate::image::Packed {
        form,
        constants: alloc::vec![channels.as_bytes().to_vec()],
        scratch_length: 0,
        read: None,
    })
}
