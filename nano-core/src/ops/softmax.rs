//! Softmax over the channels, output scale 1/256 and zero point -128. Bit-exact with TensorFlow Lite Micro's int8 `SOFTMAX`
//! (beta 1): fixed-point exponentials of the differences from the maximum, their sum, one reciprocal by Newton's method.

use crate::BrokenRule;
use crate::arena::Io;
#[cfg(feature = "alloc")]
use crate::fixed_point::Multiplier;
use crate::fixed_point::{clamp_to_i8, doubling_high_multiply, rounding_divide_by_power_of_two, shift_left_saturating};
use crate::image::Dtype;
use crate::node::Node;
use crate::operator::{Alias, CheckedPart, Kernel, Operator, Output, Quantization, Run, nonzero, refused, require};

/// Kernel of softmax.
pub const SOFTMAX: Kernel = Kernel {
    id: 9,
    name: NAME,
    operator: &OPERATOR,
    inputs: &[Dtype::Int8],
    outputs: &[Dtype::Int8],
    pitched: false,
    forms: &[0],
    check,
    run: Run::Apart(run),
    #[cfg(feature = "alloc")]
    cost: |layer| Some(crate::image::Cost::instructions(330 * layer.outputs[0].len() as u64)),
    #[cfg(feature = "alloc")]
    pack,
};

static OPERATOR: Operator = Operator {
    name: NAME,
    attributes: &[],
    inputs: 1..=1,
    outputs: &[Output { quantization: Quantization::Fixed { scale: 1.0 / 256.0, zero_point: -128 }, reset: None }],
    alias: Alias::Never,
    shape: |node, _| Ok(node.input(0).shape),
    macs: |_| 0,
};

const NAME: &str = "softmax";
/// Integer bits of the fixed-point differences; 26 fractional bits follow.
pub(super) const DIFFERENCE_INTEGER_BITS: u32 = 5;
/// Integer bits of the sum of exponentials.
pub(super) const SUM_INTEGER_BITS: u32 = 12;
pub(super) const LARGEST_CHANNELS: usize = 1 << (SUM_INTEGER_BITS - 1);

/// Fixed-point parameters of softmax, from its input's scale.
#[cfg(feature = "alloc")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SoftmaxParameters {
    /// `min(scale * 2^26, 2^31 - 1)`: converts an integer difference to fixed point.
    pub multiplier: Multiplier,
    /// Differences below this one count as minus infinity.
    pub smallest_difference: i32,
}

#[cfg(feature = "alloc")]
impl SoftmaxParameters {
    /// The parameters for an input of the given scale; `None` up to 2^-26, where no difference is visible.
    ///
    /// ```
    /// let parameters = nano_core::ops::SoftmaxParameters::new(0.1).unwrap();
    /// assert_eq!(parameters.smallest_difference, -248);
    /// ```
    pub fn new(scale: f32) -> Option<Self> {
        let fractional_bits = 31 - DIFFERENCE_INTEGER_BITS;
        let real = (f64::from(scale) * f64::from(1u32 << fractional_bits)).min(f64::from(i32::MAX));
        if real <= 1.0 {
            return None;
        }
        // Multiplier::from_real stops at 2^30, the largest left shift of an int32; a softmax input may need one bit more.
        let halved = Multiplier::from_real(real / 2.0)?;
        let multiplier = Multiplier { shift: halved.shift + 1, ..halved };
        let radius = (((1i64 << DIFFERENCE_INTEGER_BITS) - 1) << fractional_bits) >> multiplier.shift;
        Some(SoftmaxParameters { multiplier, smallest_difference: -(radius as i32) })
    }
}

pub(super) fn check(node: &Node<'_>) -> Result<(), BrokenRule> {
    node.require_no_scratch()?;
    let [mantissa, shift, smallest] = *parameters(node)?;
    check_differences(mantissa, shift, smallest)?;
    let channels = node.input(0).shape[2] as usize;
    require!(channels <= LARGEST_CHANNELS, "more than 2048 channels", channels as i64);
    Ok(())
}

/// Checks the parameters that make fixed-point numbers of differences.
pub(super) fn check_differences(mantissa: i32, shift: i32, smallest: i32) -> Result<(), BrokenRule> {
    require!(mantissa >= 1 << 30, "the multiplier's mantissa is below 2^30", mantissa);
    require!((0..=31).contains(&shift), "the multiplier's shift is not 0 to 31", shift);
    require!(smallest <= 0, "the smallest difference is positive", smallest);
    let reach = (i64::from(smallest.max(-255)) << shift).abs();
    require!(reach <= 1 << 31, "the smallest difference overflows 32 bits", smallest);
    Ok(())
}

pub(super) fn parameters<'a>(node: &Node<'a>) -> Result<&'a [i32; 3], BrokenRule> {
    let words = node.constant::<i32>(0)?;
    words.try_into().map_err(|_| refused("needs three parameters", words.len() as i64))
}

fn run(node: &Node<'_>, mut io: Io<'_>) {
    let parameters = parameters(node).ok().copied().checked_part();
    let channels = nonzero(node.input(0).shape[2] as usize);
    let (inputs, outputs) = (io.inputs.get::<i8>(0), io.outputs.take::<i8>());
    for (input, output) in inputs.chunks_exact(channels).zip(outputs.chunks_exact_mut(channels)) {
        normalize(parameters, input.iter().map(|&x| (x, true)), output);
    }
}

/// Writes the softmax of one pixel's channels, each with whether it takes part; 0 for the others.
#[inline(always)]
pub(super) fn normalize(
    [mantissa, shift, smallest]: [i32; 3],
    channels: impl Iterator<Item = (i8, bool)> + Clone,
    output: &mut [i8],
) {
    let taking_part = || channels.clone().filter(|&(_, takes_part)| takes_part).map(|(x, _)| x);
    let largest = taking_part().max().unwrap_or(i8::MIN);
    let exponential = |x: i8| {
        let difference = i32::from(x) - i32::from(largest);
        (difference >= smallest).then(|| {
            exponential_of_negative(doubling_high_multiply(((i64::from(difference)) << shift) as i32, mantissa))
        })
    };
    let sum: i32 = taking_part()
        .filter_map(exponential)
        .map(|exponential| rounding_divide_by_power_of_two(exponential, SUM_INTEGER_BITS))
        .sum();
    let headroom = sum.leading_zeros();
    let reciprocal = reciprocal_of_one_plus(((sum as u32) << headroom).wrapping_sub(1 << 31) as i32);
    let right_shift = SUM_INTEGER_BITS + 31 - 8 - headroom;
    if right_shift > 31 {
        output.fill(-128);
        return;
    }
    for (output, (x, takes_part)) in output.iter_mut().zip(channels) {
        let scaled = exponential(x).filter(|_| takes_part).map_or(0, |exponential| {
            rounding_divide_by_power_of_two(doubling_high_multiply(reciprocal, exponential), right_shift)
        });
        *output = clamp_to_i8(scaled - 128, -128, 127);
    }
}

/// `e^x` for `x <= 0` with 5 integer bits, as Q31: a polynomial on [-1/4, 0) times a factor `e^(-2^k)` for each set bit of the rest.
pub(super) fn exponential_of_negative(x: i32) -> i32 {
    const FRACTIONAL_BITS: u32 = 31 - DIFFERENCE_INTEGER_BITS;
    const QUARTER: i32 = 1 << (FRACTIONAL_BITS - 2);
    /// `e^(-2^k)` as Q31 for k = -2 to 4.
    const FACTORS: [i32; 7] = [1_672_461_947, 1_302_514_674, 790_015_084, 290_630_308, 39_332_535, 720_401, 242];
    if x == 0 {
        return i32::MAX;
    }
    let in_quarter = (x & (QUARTER - 1)) - QUARTER;
    let rest = in_quarter.wrapping_sub(x);
    let start = exponential_between_minus_quarter_and_0(in_quarter << DIFFERENCE_INTEGER_BITS);
    (FRACTIONAL_BITS - 2..).zip(FACTORS).fold(start, |product, (bit, factor)| {
        if rest & (1 << bit) == 0 { product } else { doubling_high_multiply(product, factor) }
    })
}

/// `e^x` for `x` in [-1/4, 0), Q31 to Q31: the Taylor series to the fourth power around -1/8.
fn exponential_between_minus_quarter_and_0(x: i32) -> i32 {
    const EXPONENTIAL_OF_MINUS_EIGHTH: i32 = 1_895_147_668;
    const THIRD: i32 = 715_827_883;
    let x = x + (1 << 28);
    let square = doubling_high_multiply(x, x);
    let cube = doubling_high_multiply(square, x);
    let fourth = doubling_high_multiply(square, square);
    let quarter_of_fourth = rounding_divide_by_power_of_two(fourth, 2);
    let higher = rounding_divide_by_power_of_two(doubling_high_multiply(quarter_of_fourth + cube, THIRD) + square, 1);
    EXPONENTIAL_OF_MINUS_EIGHTH + doubling_high_multiply(EXPONENTIAL_OF_MINUS_EIGHTH, x + higher)
}

/// `1 / (1 + x)` for `x` in [0, 1), Q31 to Q31: three Newton steps on the half denominator, from 48/17 - 32/17 d.
pub(super) fn reciprocal_of_one_plus(x: i32) -> i32 {
    const FORTY_EIGHT_SEVENTEENTHS: i32 = 1_515_870_810;
    const MINUS_THIRTY_TWO_SEVENTEENTHS: i32 = -1_010_580_540;
    const ONE_WITH_TWO_INTEGER_BITS: i32 = 1 << 29;
    let half_denominator = ((i64::from(x) + i64::from(i32::MAX) + 1) / 2) as i32;
    let start = FORTY_EIGHT_SEVENTEENTHS + doubling_high_multiply(half_denominator, MINUS_THIRTY_TWO_SEVENTEENTHS);
    let estimate = (0..3).fold(start, |estimate, _| {
        let error = ONE_WITH_TWO_INTEGER_BITS - doubling_high_multiply(half_denominator, estimate);
        estimate + shift_left_saturating(doubling_high_multiply(estimate, error), 2)
    });
    shift_left_saturating(estimate, 1)
}

#[cfg(feature = "alloc")]
pub(super) fn pack(layer: &crate::image::Layer<'_>) -> Result<crate::image::Packed, crate::image::WriteError> {
    let scale = layer.inputs[0].scale;
    let SoftmaxParameters { multiplier, smallest_difference } = SoftmaxParameters::new(scale)
        .ok_or_else(|| layer.refused("the input's scale is not above 2^-26", scale.into()))?;
    let mut packed = crate::image::Packed::default();
    packed.push_words(&[multiplier.mantissa, multiplier.shift, smallest_difference]);
    Ok(packed)
}
