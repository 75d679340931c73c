//! Logarithm of softmax over the channels: `y = x - max - log sum exp(x - max)`, output scale 1/16 and zero point 127. Bit-exact with TensorFlow
//! Lite Micro's int8 `LOG_SOFTMAX`: the exponentials of [softmax](super::softmax), their sum, and a fixed-point logarithm.
//!
//! Constants: the three words of softmax, and the multiplier from fixed-point differences back to integer ones (mantissa, shift).

use crate::BrokenRule;
use crate::arena::Io;
use crate::fixed_point::{
    Multiplier, clamp_to_i8, doubling_high_multiply, rounding_divide_by_power_of_two, shift_left_saturating,
};
use crate::image::Dtype;
use crate::node::Node;
use crate::operator::{Alias, Kernel, Operator, Output, Quantization, Run, nonzero, refused, require};
#[cfg(feature = "alloc")]
use crate::ops::softmax::SoftmaxParameters;
use crate::ops::softmax::{
    DIFFERENCE_INTEGER_BITS, LARGEST_CHANNELS, SUM_INTEGER_BITS, check_differences, exponential_of_negative,
    reciprocal_of_one_plus,
};

/// Kernel of the logarithm of softmax.
pub const LOG_SOFTMAX: Kernel = Kernel {
    id: 30,
    name: NAME,
    operator: &OPERATOR,
    inputs: &[Dtype::Int8],
    outputs: &[Dtype::Int8],
    pitched: false,
    forms: &[0],
    check,
    run: Run::Apart(run),
    #[cfg(feature = "alloc")]
    cost: |layer| Some(crate::image::Cost::instructions(200 * layer.outputs[0].len() as u64)),
    #[cfg(feature = "alloc")]
    pack,
};

static OPERATOR: Operator = Operator {
    name: NAME,
    attributes: &[],
    inputs: 1..=1,
    outputs: &[Output { quantization: Quantization::Fixed { scale: 1.0 / 16.0, zero_point: ZERO_POINT }, reset: None }],
    alias: Alias::Never,
    shape: |node, _| Ok(node.input(0).shape),
    macs: |_| 0,
};

/// Fixed-point parameters of the logarithm of softmax, from its input's scale.
#[cfg(feature = "alloc")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSoftmaxParameters {
    /// Those of softmax.
    pub differences: SoftmaxParameters,
    /// Converts a fixed-point difference to an integer one.
    pub reverse: Multiplier,
}

#[cfg(feature = "alloc")]
impl LogSoftmaxParameters {
    /// The parameters for an input of the given scale; `None` up to 2^-25.
    ///
    /// ```
    /// let parameters = nano_core::ops::LogSoftmaxParameters::new(0.5).unwrap();
    /// assert_eq!(parameters.reverse.shift, -24);
    /// ```
    pub fn new(scale: f32) -> Option<Self> {
        let differences = SoftmaxParameters::new(scale)?;
        let Multiplier { mantissa, shift } = differences.multiplier;
        let reverse = f64::from(1u32 << (31 - shift)) / f64::from(mantissa);
        (reverse < 1.0).then_some(LogSoftmaxParameters { differences, reverse: Multiplier::from_real(reverse)? })
    }
}

const NAME: &str = "log_softmax";
const ZERO_POINT: i32 = 127;
/// From fixed-point differences, with 26 fractional bits, to outputs, with 4.
const OUTPUT_SHIFT: u32 = 31 - DIFFERENCE_INTEGER_BITS - 4;

/// The fixed-point parameters of a node.
struct Parameters {
    /// Converts an integer difference to fixed point.
    differences: Multiplier,
    /// Differences below this one count as minus infinity.
    smallest: i32,
    /// Converts a fixed-point difference to an integer one.
    reverse: Multiplier,
}

impl Parameters {
    fn read(node: &Node<'_>) -> Result<Self, BrokenRule> {
        match *node.constant::<i32>(0)? {
            [mantissa, shift, smallest, reverse_mantissa, reverse_shift] => Ok(Parameters {
                differences: Multiplier { mantissa, shift },
                smallest,
                reverse: Multiplier { mantissa: reverse_mantissa, shift: reverse_shift },
            }),
            ref words => Err(refused("needs five parameters", words.len() as i64)),
        }
    }

    /// A difference from the maximum in fixed point; not below the smallest.
    fn fixed_point(&self, difference: i32) -> i32 {
        doubling_high_multiply((i64::from(difference) << self.differences.shift) as i32, self.differences.mantissa)
    }
}

fn check(node: &Node<'_>) -> Result<(), BrokenRule> {
    node.require_no_scratch()?;
    let Parameters { differences, smallest, reverse } = Parameters::read(node)?;
    check_differences(differences.mantissa, differences.shift, smallest)?;
    require!(reverse.mantissa >= 0, "the reverse multiplier's mantissa is negative", reverse.mantissa);
    require!((-31..=1).contains(&reverse.shift), "the reverse multiplier's shift is not -31 to 1", reverse.shift);
    let channels = node.input(0).shape[2] as usize;
    require!(channels <= LARGEST_CHANNELS, "more than 2048 channels", channels as i64);
    Ok(())
}

fn run(node: &Node<'_>, mut io: Io<'_>) {
    let Ok(parameters) = Parameters::read(node) else { return };
    let channels = nonzero(node.input(0).shape[2] as usize);
    let (inputs, outputs) = (io.inputs.get::<i8>(0), io.outputs.take::<i8>());
    for (input, output) in inputs.chunks_exact(channels).zip(outputs.chunks_exact_mut(channels)) {
        let largest = i32::from(input.iter().copied().max().unwrap_or(i8::MIN));
        let differences = || input.iter().map(|&x| i32::from(x) - largest);
        let sum: i32 = differences()
            .filter(|&difference| difference >= parameters.smallest)
            .map(|difference| exponential_of_negative(parameters.fixed_point(difference)))
            .map(|exponential| rounding_divide_by_power_of_two(exponential, SUM_INTEGER_BITS))
            .sum();
        let log_sum = logarithm(sum.max(1));
        // Below, the difference of the two overflows 32 bits; the output is its least anyway.
        let excluded =
            parameters.reverse.apply(log_sum.wrapping_add(i32::MIN)).max(parameters.smallest.saturating_sub(1));
        for (output, difference) in output.iter_mut().zip(differences()) {
            *output = if difference > excluded {
                let log = parameters.fixed_point(difference).wrapping_sub(log_sum);
                clamp_to_i8(rounding_divide_by_power_of_two(log, OUTPUT_SHIFT) + ZERO_POINT, -128, 127)
            } else {
                i8::MIN
            };
        }
    }
}

/// `log x` with 26 fractional bits, for x >= 1 with 19: x is a power of two times r in [sqrt 1/2, 1), and the logarithm of r a rational
/// function around the fourth root of 1/2.
fn logarithm(x: i32) -> i32 {
    const LOG_2: i32 = 1_488_522_236;
    const FOURTH_ROOT_OF_HALF: i32 = 1_805_811_301;
    const ROOT_OF_HALF: i32 = 1_518_500_250;
    /// 1/4 with 25 fractional bits, those of the powers.
    const QUARTER: i32 = 1 << 23;
    // With f the fourth root of 2: 11/240 f, 1/20 f, 2/f - f and 1/4 f.
    const NUMERATOR: i32 = 117_049_297;
    const SQUARE: i32 = 127_690_142;
    const CONSTANT: i32 = 1_057_819_769;
    const LINEAR: i32 = 638_450_708;
    let multiply = doubling_high_multiply;
    // Two candidates for the power of two; the larger one has the smaller r.
    let first_headroom = x.leading_zeros();
    let first = shift_left_saturating(multiply(shift_left_saturating(x, first_headroom - 1), ROOT_OF_HALF), 1);
    let first_power = ((SUM_INTEGER_BITS as i32 - first_headroom as i32) << 25) + QUARTER;
    let second_headroom = multiply(x, ROOT_OF_HALF).leading_zeros() - 1;
    let second = shift_left_saturating(x, second_headroom);
    let second_power = ((SUM_INTEGER_BITS as i32 - second_headroom as i32) << 25) - QUARTER;
    let (r, power) = (first.min(second), first_power.max(second_power));
    let half_sum = ((i64::from(r) + i64::from(FOURTH_ROOT_OF_HALF) + 1) / 2) as i32;
    let q = 2 * (r - FOURTH_ROOT_OF_HALF);
    let square = multiply(q, q);
    let numerator = multiply(q, r) + multiply(multiply(q, square), NUMERATOR);
    let denominator = multiply(half_sum, CONSTANT + q + multiply(SQUARE, square)) + multiply(LINEAR, q);
    let quotient = multiply(rounding_divide_by_power_of_two(numerator, 6), reciprocal_of_one_plus(denominator));
    shift_left_saturating(multiply(power, LOG_2) + quotient, 1)
}

#[cfg(feature = "alloc")]
fn pack(layer: &crate::image::Layer<'_>) -> Result<crate::image::Packed, crate::image::WriteError> {
    let scale = layer.inputs[0].scale;
    let parameters = LogSoftmaxParameters::new(scale)
        .ok_or_else(|| layer.refused("the input's scale is not above 2^-25", scale.into()))?;
    let SoftmaxParameters { multiplier, smallest_difference } = parameters.differences;
    let reverse = parameters.reverse;
    let mut packed = crate::image::Packed::default();
    packed.push_words(&[multiplier.mantissa, multiplier.shift, smallest_difference, reverse.mantissa, reverse.shift]);
    Ok(packed)
}
