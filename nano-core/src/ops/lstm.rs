//! Long short-term memory: one layer in one direction, from states of zero. Bit-exact with TensorFlow Lite Micro's
//! `UNIDIRECTIONAL_SEQUENCE_LSTM` of int8 activations and int16 cells, without peepholes, projection, layer normalization and clipping.
//!
//! Shapes (height, width, channels): x [1, steps, features]; outputs: the hidden states h of all steps int8 [1, steps, units], and the last cell
//! state c int16 [1, 1, units], whose scale is a power of two. `R(a, m)` is `a m` rounded twice, `[a]` a clamped to int16. A step computes
//! for the gates i, f, g, o of each unit
//!
//! 1. `s = [[R(bias + sum (x - z_x) w, s_x s_w 2^12)] + [R(sum (h - z_h) u, s_h s_u 2^12)]]`, in steps of 2^-12;
//! 2. `i = sigmoid(s_i)`, `f = sigmoid(s_f)`, `g = tanh(s_g)`, `o = sigmoid(s_o)`, in steps of 2^-15, by [`crate::sigmoid`];
//! 3. `c = [[R(f c, 2^-15)] + [R(i g, 2^-30 / s_c)]]`;
//! 4. `h = clamp(R(o tanh(c), 2^-30 / s_h) + z_h)`.
//!
//! A gate's weights have one scale over x and one over h, as in TensorFlow Lite Micro; the arithmetic would allow one per unit.
//!
//! Tensors for the writer, of the gates i, f, g, o: `weights` int8 `[4, units, features]`, `recurrent_weights` int8 `[4, units, units]`, `bias` int32
//! `[4, units]` with scale `s_x s_w`, `weight_scales` and `recurrent_weight_scales` float32 `[4]`.
//!
//! Constants: the multiplier of h; a [`Channel`] without a bias for the sums of each gate, over x, then over h; the weights of each unit,
//! `[features + units][4]`; its biases, `[2][4]`, over x and over h, with the zero points folded in. The hidden states of the step before are read from the output, and c is
//! updated in its own, so there is no scratch memory.

use crate::BrokenRule;
use crate::arena::Io;
use crate::fixed_point::{Multiplier, clamp_to_i8, rounding_divide_by_power_of_two};
use crate::image::{Dtype, Value};
use crate::kernels::{self, Channel, Form, LITERAL, Literal, ONE_PASS, OnePass, clamp};
use crate::node::Node;
use crate::operator::{
    Alias, Checked, CheckedPart, Kernel, Operator, Output, Quantization, Run, nonzero, refused, require,
};
use crate::ops::channels;
use crate::sigmoid::{EXPONENTS, sigmoid, tanh};

/// Kernel of the long short-term memory.
pub const LSTM: Kernel = Kernel {
    id: 26,
    name: NAME,
    operator: &OPERATOR,
    inputs: &[Dtype::Int8],
    outputs: &[Dtype::Int8, Dtype::Int16],
    pitched: true,
    forms: &[LITERAL, ONE_PASS],
    check,
    run: Run::Apart(run),
    #[cfg(feature = "alloc")]
    cost: |layer| Some(crate::image::Cost::instructions(7 * layer.macs / 2 + 450 * layer.outputs[0].len() as u64)),
    #[cfg(feature = "alloc")]
    pack,
};

static OPERATOR: Operator = Operator {
    name: NAME,
    attributes: &[],
    inputs: 1..=1,
    outputs: &[Output::OWN, Output { quantization: Quantization::PowerOfTwo, reset: None }],
    alias: Alias::Never,
    shape: |node, index| shape(node, index),
    macs: |node| {
        let (features, hidden) = (node.input(0).shape[2], node.output(0));
        hidden.len() as u64 * (GATES * (features as usize + hidden.shape[2] as usize)) as u64
    },
};

const NAME: &str = "lstm";
/// Input, forget, cell and output gate, in torch's order.
const GATES: usize = 4;
/// The exponent of the steps of the gates' sums.
const SUMS: i32 = -12;

type Gates<T> = [T; GATES];

fn shape(node: &Node<'_>, index: usize) -> Result<[u32; 3], BrokenRule> {
    let [height, steps, _] = node.input(0).shape;
    require!(height == 1, "the input's height is not 1", height);
    let units = node.output(0).shape[2];
    Ok(if index == 0 { [1, steps, units] } else { [1, 1, units] })
}

struct Lstm<'a> {
    form: u8,
    /// Over x, and over h.
    channels: &'a [Gates<Channel>; 2],
    /// To h, from the product of gate and cell.
    shown: Multiplier,
    zero_point: i32,
    /// Of the cell's scale.
    exponent: i32,
    /// `[units][features + units]`.
    weights: &'a [Gates<i8>],
    biases: &'a [[Gates<i32>; 2]],
    features: usize,
    units: usize,
}

impl<'a> Lstm<'a> {
    fn read(node: &Node<'a>) -> Result<Self, BrokenRule> {
        let [shown] = node.multipliers()?;
        let channels = node.constant(1)?;
        let wrong_number = |_| refused("wrong number of channels", channels.len() as i64);
        Ok(Lstm {
            form: node.form(),
            channels: channels.try_into().map_err(wrong_number)?,
            shown,
            zero_point: node.output(0).zero_point,
            exponent: exponent(node.output(1))?,
            weights: node.constant(2)?,
            biases: node.constant(3)?,
            features: node.input(0).shape[2] as usize,
            units: node.output(0).shape[2] as usize,
        })
    }

    /// The weights of each unit.
    fn blocks(&self) -> impl Iterator<Item = &'a [Gates<i8>]> + use<'a> {
        self.weights.chunks_exact(nonzero(self.features + self.units))
    }

    fn check(&self) -> Result<(), BrokenRule> {
        let weights = self.units as u64 * (self.features + self.units) as u64;
        require!(self.weights.len() as u64 == weights, "wrong number of weights", self.weights.len() as i64);
        require!(self.biases.len() == self.units, "wrong number of biases", self.biases.len() as i64);
        let mut check = channels::Check::new(self.form);
        for (block, biases) in self.blocks().zip(self.biases) {
            let (input, hidden) = block.split_at_checked(self.features).checked_part();
            for ((weights, biases), channels) in [input, hidden].into_iter().zip(biases).zip(self.channels) {
                let mut channels = *channels;
                for (channel, &bias) in channels.iter_mut().zip(biases) {
                    channel.bias = bias;
                }
                let weights = weights.as_flattened();
                check.blocks(&channels, weights, GATES, weights.len())?;
            }
        }
        Ok(())
    }

    /// One step: from x and the hidden states before, none in the first step, to the next.
    fn step(&self, x: &[i8], before: &[i8], hidden: &mut [i8], cells: &mut [i16]) {
        let units = hidden.iter_mut().zip(cells).zip(self.blocks().zip(self.biases));
        for ((hidden, cell), (weights, [of_input, of_hidden])) in units {
            let (input, recurrent) = weights.split_at_checked(self.features).checked_part();
            let mut sums = *of_input;
            kernels::add_rows(&mut sums, x, input);
            let mut recurrent_sums = [0; GATES];
            if !before.is_empty() {
                recurrent_sums = *of_hidden;
                kernels::add_rows(&mut recurrent_sums, before, recurrent);
            }
            let gate = |gate: usize| {
                let [of_input, of_hidden] = self.channels;
                let of_input = requantized(self.form, &of_input[gate], sums[gate]);
                clamp_to_i16(of_input + requantized(self.form, &of_hidden[gate], recurrent_sums[gate]))
            };
            let added = product(sigmoid(gate(0)), tanh(gate(2), SUMS));
            let kept = shifted(product(sigmoid(gate(1)), *cell), -15);
            *cell = clamp_to_i16(kept + shifted(added, -30 - self.exponent));
            let shown = self.shown.apply(product(tanh(*cell, self.exponent), sigmoid(gate(3))));
            *hidden = clamp_to_i8(shown.saturating_add(self.zero_point), -128, 127);
        }
    }
}

fn product(a: i16, b: i16) -> i32 {
    i32::from(a) * i32::from(b)
}

/// `[R(x, m)]` with the multiplier m of a channel.
// Not inlined, for code size: a step has eight.
#[inline(never)]
fn requantized(form: u8, channel: &Channel, x: i32) -> i32 {
    let form = if form == ONE_PASS { OnePass::requantize } else { Literal::requantize };
    clamp_to_i16(form(channel, x)).into()
}

/// `[R(x, 2^exponent)]` for |x| up to 2^30: the mantissa of the multiplier is 1/2.
fn shifted(x: i32, exponent: i32) -> i32 {
    let shift = exponent + 1;
    let scaled = if shift > 0 {
        Multiplier { mantissa: 1 << 30, shift }.apply(x)
    } else {
        rounding_divide_by_power_of_two((x + 1) >> 1, (-shift & 31) as u32)
    };
    clamp_to_i16(scaled).into()
}

fn clamp_to_i16(x: i32) -> i16 {
    clamp(x, i16::MIN.into(), i16::MAX.into()) as i16
}

/// The exponent of a cell's scale.
fn exponent(cell: &Value) -> Result<i32, BrokenRule> {
    let bits = cell.scale.to_bits();
    let exponent = (bits >> 23) as i32 - 127;
    let right = bits & ((1 << 23) - 1) == 0 && EXPONENTS.contains(&exponent);
    require!(right, "the cell's scale is not a power of two from 2^-43 to 2^2", bits);
    Ok(exponent)
}

fn check(node: &Node<'_>) -> Result<(), BrokenRule> {
    node.require_no_scratch()?;
    Lstm::read(node)?.check()
}

fn run(node: &Node<'_>, mut io: Io<'_>) {
    let lstm = Lstm::read(node).checked();
    let inputs = io.inputs.get::<i8>(0).chunks(nonzero(node.input(0).pitch as usize));
    let outputs = io.outputs.take::<i8>().chunks_mut(nonzero(node.output(0).pitch as usize));
    let cells = io.outputs.take::<i16>();
    cells.fill(0);
    let mut before: &[i8] = &[];
    for (input, output) in inputs.zip(outputs) {
        let hidden = output.get_mut(..lstm.units).checked_part();
        lstm.step(input.get(..lstm.features).checked_part(), before, hidden, cells);
        before = hidden;
    }
}

#[cfg(feature = "alloc")]
fn pack(layer: &crate::image::Layer<'_>) -> Result<crate::image::Packed, crate::image::WriteError> {
    use alloc::vec::Vec;
    use zerocopy::IntoBytes;
    let (input, hidden) = (layer.inputs[0], layer.outputs[0]);
    let (features, units) = (input.shape[2] as usize, hidden.shape[2] as usize);
    exponent(&layer.outputs[1]).map_err(|broken| layer.refused(broken.rule, f64::from(layer.outputs[1].scale)))?;
    let weights = layer.int8("weights", GATES * units * features)?;
    let recurrent = layer.int8("recurrent_weights", GATES * units * units)?;
    let biases = layer.int32("bias", GATES * units)?;
    let multiplier = |real: f64, rule| Multiplier::from_real(real).ok_or_else(|| layer.refused(rule, real));
    let mut accumulators = Vec::new();
    for (value, name) in [(&input, "weight_scales"), (&hidden, "recurrent_weight_scales")] {
        for &scale in layer.float32(name, GATES)? {
            let real = f64::from(value.scale) * f64::from(scale) * f64::from(1 << -SUMS);
            let multiplier = multiplier(real, "s_x * s_w * 2^12, or s_h * s_u * 2^12, is not in [0, 2^30)")?;
            accumulators.push(channels::pack::Accumulator { bias: 0, multiplier, bound: 0 });
        }
    }
    let real = 1.0 / f64::from(1 << 30) / f64::from(hidden.scale);
    let shown = multiplier(real, "2^-30 / s_h is not in [0, 2^30)")?;

    let (mut packed, mut folded) = (Vec::new(), Vec::new());
    for unit in 0..units {
        for (first, weights, length, value, biases) in
            [(0, weights, features, &input, Some(biases)), (GATES, recurrent, units, &hidden, None)]
        {
            let row = |gate: usize| &weights[(gate * units + unit) * length..][..length];
            packed.extend((0..length * GATES).map(|index| row(index % GATES)[index / GATES] as u8));
            for gate in 0..GATES {
                let bias = biases.map_or(0, |biases| i64::from(biases[gate * units + unit]));
                let sums = kernels::WeightSums::of(row(gate).iter().copied().map(i32::from));
                let bias = bias - i64::from(value.zero_point) * sums.sum();
                let bound = sums.accumulator_bound::<i8>(bias);
                if bound >= 1 << 31 {
                    let rule = "the largest sum of a gate, |bias + sum (x - z_x) w|, must stay below 2^31: give it fewer \
                                features or units, or a smaller bias";
                    return Err(layer.refused(rule, bound as f64));
                }
                let accumulator = &mut accumulators[first + gate];
                accumulator.bound = accumulator.bound.max(bound);
                folded.push(bias as i32);
            }
        }
    }
    let (form, channels) = channels::pack::requantizations(&accumulators, 0);
    let read = Some(packed.len().saturating_mul(input.shape[1] as usize));
    let mut result = crate::image::Packed { form, read, ..Default::default() };
    result.push_multipliers(&[shown]);
    result.constants.push(channels.as_bytes().to_vec());
    result.constants.push(packed);
    result.constants.push(folded.as_bytes().to_vec());
    Ok(result)
}
