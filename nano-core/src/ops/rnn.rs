//! Elman's recurrent layer over a sequence, from a state of zeros, as in torch: `h' = f(W x + b + R h + c)` with f tanh or ReLU.
//!
//! TensorFlow Lite's fused one rounds otherwise; this is its definition. The input is `[1, steps, F]`, the output `[1, steps, H]`: h after each
//! step. For tensors and constants see [`super::recurrent`]; there is one gate. In each step, for each unit:
//!
//! 1. The two products, each with its bias, are requantized to int32 with steps of 2^-12 for tanh, and of `2^-8 s_y` for ReLU. That with the
//!    state reads the int8 output of the step before, zero before the first.
//! 2. f of their sum: [`tanh`] with steps of 2^-15, of a sum that saturates to int16, beyond 8; or the larger of it and 0.
//! 3. `y = clamp(requantize(f) + z_y)` with the multiplier `2^-15 / s_y` for tanh, 2^-8 for ReLU.
//!
//! **Error.** From the integers x and y before a step, the output differs from the real formula before its clamp by at most 3/4 of a step for its
//! rounding, and `(2^-12 3/2 + 2^-13) / s_y` for tanh, 2^-7 for ReLU: a requantization is off by at most 3/4 of a step.

use crate::BrokenRule;
use crate::arena::Io;
use crate::fixed_point::clamp_to_i8;
use crate::image::Dtype;
use crate::kernels::{Form, LITERAL, Literal, ONE_PASS, OnePass};
use crate::node::Node;
use crate::operator::{Alias, Kernel, Operator, Output, Run, attributes, require};
use crate::ops::recurrent::{self, Gates, saturated_sum};
use crate::sigmoid::tanh;

/// Kernel of the recurrent layer.
pub const RNN: Kernel = Kernel {
    id: 28,
    name: NAME,
    operator: &OPERATOR,
    inputs: &[Dtype::Int8],
    outputs: &[Dtype::Int8],
    pitched: true,
    forms: &[LITERAL, ONE_PASS],
    check,
    run: Run::Apart(run),
    #[cfg(feature = "alloc")]
    cost: |layer| Some(crate::image::Cost::instructions(layer.macs * 4 + 80 * layer.outputs[0].len() as u64)),
    #[cfg(feature = "alloc")]
    pack,
};

static OPERATOR: Operator = Operator {
    name: NAME,
    attributes: Attributes::NAMES,
    inputs: 1..=1,
    outputs: &[Output::OWN],
    alias: Alias::Never,
    shape: |node, _| recurrent::shape(node),
    macs: |node| recurrent::macs(node, 1),
};

const NAME: &str = "rnn";
/// Steps of the sum for ReLU in one step of the output.
#[cfg(feature = "alloc")]
const RELU_STEPS: f32 = 256.0;

attributes! {
    /// Whether the activation is ReLU: 1, or 0 for tanh.
    struct Attributes { relu }
}

fn check(node: &Node<'_>) -> Result<(), BrokenRule> {
    let Attributes { relu } = Attributes::read(node.attributes())?;
    require!((0..=1).contains(&relu), "relu is not 0 or 1", relu);
    let units = node.output(0).shape[2] as usize;
    require!(node.scratch_length() == units, "wrong scratch length", node.scratch_length() as i64);
    Gates::<1>::check(node)
}

fn run(node: &Node<'_>, io: Io<'_>) {
    if node.form() == ONE_PASS { run_as::<OnePass>(node, io) } else { run_as::<Literal>(node, io) }
}

fn run_as<F: Form>(node: &Node<'_>, io: Io<'_>) {
    let Ok(gates) = Gates::<1>::read(node) else { return };
    let relu = Attributes::read(node.attributes()).is_ok_and(|attributes| attributes.relu == 1);
    let zero_point = node.output(0).zero_point;
    gates.run::<F>(node, io.inputs, io.outputs, io.scratch, |outputs, _, [[of_input], [of_state]]| {
        for ((y, of_input), of_state) in outputs.iter_mut().zip(of_input).zip(of_state) {
            let activated = if relu {
                of_input.saturating_add(of_state).max(0)
            } else {
                tanh(saturated_sum(of_input, of_state), recurrent::EXPONENT).into()
            };
            *y = clamp_to_i8(gates.multiplier.apply(activated).saturating_add(zero_point), -128, 127);
        }
    });
}

#[cfg(feature = "alloc")]
fn pack(layer: &crate::image::Layer<'_>) -> Result<crate::image::Packed, crate::image::WriteError> {
    let Attributes { relu } = Attributes::read(&layer.attributes).map_err(|broken| broken.of(NAME))?;
    let output = layer.outputs[0];
    let (scale, activation_scale) = if relu == 1 {
        let scale = output.scale / RELU_STEPS;
        (scale, scale.into())
    } else {
        (recurrent::SCALE, recurrent::ACTIVATION_SCALE)
    };
    let packed = recurrent::pack::gates(layer, 1, scale, activation_scale)?;
    Ok(crate::image::Packed { scratch_length: output.shape[2] as usize, ..packed })
}
