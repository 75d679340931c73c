//! Gated recurrent unit (GRU) over a sequence, from a state of zeros, as in torch:
//!
//! `r = sigmoid(W_r x + b_r + R_r h + c_r)`, `z = sigmoid(W_z x + b_z + R_z h + c_z)`, `n = tanh(W_n x + b_n + r (R_n h + c_n))`,
//! `h' = (1 - z) n + z h`.
//!
//! TensorFlow Lite has no such operator; this is its definition. The input is `[1, steps, F]`, the output `[1, steps, H]`: h after each step.
//! The gates' order is r, z, n; for their tensors and constants see [`super::recurrent`]. In each step, for each unit:
//!
//! 1. The six products, each with its bias, are requantized to int32 with steps of 2^-12. Those with the state read the int8 output of the step
//!    before, zero before the first.
//! 2. `r = sigmoid(x_r + h_r)`, `z = sigmoid(x_z + h_z)`, and `n = tanh(x_n + floor(r h_n / 2^15 + 1/2))` are numbers with steps of 2^-15 from
//!    [`crate::sigmoid`]; sums saturate to int16, beyond 8.
//! 3. The state is kept in int16 with steps of 2^-15: `s' = n + floor(z (s - n) / 2^15 + 1/2)`, between n and s.
//! 4. `y = clamp(requantize(s') + z_y)` with the multiplier `2^-15 / s_y`.
//!
//! The state is not the int8 output, as a unit with z near 1 moves by less than half a step of it at a time and would stand still.
//! `tests/ops/test_recurrent.py` measures both.
//!
//! **Error.** From the integers x, y and s before a step, s' differs from the real formula by at most `(16 + 4 |c|) 2^-14`, with the real number
//! `c = R_n h + c_n`, where no argument exceeds 8: a requantization is off by at most 3/4 of a step, so the arguments of r and z by 3/2 2^-12,
//! r and z by 5/2 2^-14; the argument of n by `2^-11 + 5/2 |c| 2^-14`, n by 2^-13 more; and z counts twice at most, as |s - n| <= 2. Arguments
//! beyond 8 add at most 2^-11 (1 + |c| / 2): sigmoid(8) is 2^-11.5 below 1. The output adds its own rounding, at most 3/4 of a step.

use zerocopy::little_endian::I16;
use zerocopy::{FromBytes, IntoBytes};

use crate::BrokenRule;
use crate::arena::Io;
use crate::fixed_point::clamp_to_i8;
use crate::image::Dtype;
use crate::kernels::{Form, LANES, LITERAL, Literal, ONE_PASS, OnePass};
use crate::node::Node;
use crate::operator::{Alias, CheckedPart, Kernel, Operator, Output, Run, require};
use crate::ops::recurrent::{self, Gates, RESULT_BITS, saturated_sum};
use crate::sigmoid::{sigmoid, tanh};

/// Kernel of the GRU.
pub const GRU: Kernel = Kernel {
    id: 27,
    name: NAME,
    operator: &OPERATOR,
    inputs: &[Dtype::Int8],
    outputs: &[Dtype::Int8],
    pitched: true,
    forms: &[LITERAL, ONE_PASS],
    check,
    run: Run::Apart(run),
    #[cfg(feature = "alloc")]
    cost: |layer| Some(crate::image::Cost::instructions(layer.macs * 4 + 250 * layer.outputs[0].len() as u64)),
    #[cfg(feature = "alloc")]
    pack,
};

static OPERATOR: Operator = Operator {
    name: NAME,
    attributes: &[],
    inputs: 1..=1,
    outputs: &[Output::OWN],
    alias: Alias::Never,
    shape: |node, _| recurrent::shape(node),
    macs: |node| recurrent::macs(node, GATES as u64),
};

const NAME: &str = "gru";
const GATES: usize = 3;
const HALF: i32 = 1 << (RESULT_BITS - 1);

/// The first step's int8 state, and the int16 state of all steps.
const fn scratch_length(units: usize) -> usize {
    3 * units
}

fn check(node: &Node<'_>) -> Result<(), BrokenRule> {
    let expected = scratch_length(node.output(0).shape[2] as usize);
    require!(node.scratch_length() == expected, "wrong scratch length", node.scratch_length() as i64);
    Gates::<GATES>::check(node)
}

fn run(node: &Node<'_>, io: Io<'_>) {
    if node.form() == ONE_PASS { run_as::<OnePass>(node, io) } else { run_as::<Literal>(node, io) }
}

fn run_as<F: Form>(node: &Node<'_>, io: Io<'_>) {
    let Ok(gates) = Gates::<GATES>::read(node) else { return };
    let output = node.output(0);
    let (start, state) = io.scratch.split_at_mut_checked(output.shape[2] as usize).checked_part();
    let state = <[I16]>::mut_from_bytes(state.as_mut_bytes()).ok().checked_part();
    state.fill(I16::ZERO);
    gates.run::<F>(node, io.inputs, io.outputs, start, |outputs, index, [of_input, of_state]| {
        let states = state.chunks_mut(LANES).nth(index).checked_part();
        let lanes = lanes(&of_input).zip(lanes(&of_state));
        for ((y, state), (of_input, of_state)) in outputs.iter_mut().zip(states).zip(lanes) {
            let new_state = next(state.get().into(), of_input, of_state);
            state.set(new_state as i16);
            *y = clamp_to_i8(gates.multiplier.apply(new_state) + output.zero_point, -128, 127);
        }
    });
}

/// The gates r, z, n of each unit of a block.
fn lanes([reset, update, new]: &[[i32; LANES]; GATES]) -> impl Iterator<Item = [i32; GATES]> + '_ {
    reset.iter().zip(update).zip(new).map(|((&reset, &update), &new)| [reset, update, new])
}

/// The state of a unit after a step.
fn next(state: i32, [x_r, x_z, x_n]: [i32; GATES], [h_r, h_z, h_n]: [i32; GATES]) -> i32 {
    let [reset, update] = [saturated_sum(x_r, h_r), saturated_sum(x_z, h_z)].map(|sum| i32::from(sigmoid(sum)));
    let kept = (i64::from(reset) * i64::from(h_n) + i64::from(HALF)) >> RESULT_BITS;
    let new = i32::from(tanh(saturated_sum(x_n, kept as i32), recurrent::EXPONENT));
    // Below 2^31: an update is at most 2^15 - 1, and a difference of int16 2^16 - 1.
    new + ((update * (state - new) + HALF) >> RESULT_BITS)
}

#[cfg(feature = "alloc")]
fn pack(layer: &crate::image::Layer<'_>) -> Result<crate::image::Packed, crate::image::WriteError> {
    let packed = recurrent::pack::gates(layer, GATES, recurrent::SCALE, recurrent::ACTIVATION_SCALE)?;
    let scratch_length = scratch_length(layer.outputs[0].shape[2] as usize);
    Ok(crate::image::Packed { scratch_length, ..packed })
}
