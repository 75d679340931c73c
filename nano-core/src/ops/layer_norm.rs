//! Layer normalization over the channels of each pixel: `y = (x - mean) / sqrt(variance + epsilon) * weight + bias`, and RMS normalization:
//! `y = x / sqrt(mean of x^2 + epsilon) * weight + bias`.
//!
//! TensorFlow Lite has no such operator; this is its definition. With n channels and q the integers without their zero point, both are
//! `T = d / sqrt(V + n^2 epsilon / s_x^2)` times the weight, where
//!
//! | | d | V |
//! |---|---|---|
//! | layer | `n q - sum q` | `n sum q^2 - (sum q)^2` |
//! | RMS | `n q` | `n sum q^2` |
//!
//! and `d^2 <= n V`, so `|T| <= sqrt n`. All of it is integers:
//!
//! 1. `W = 2^16 V + E`, with `E = round(2^16 n^2 epsilon / s_x^2)` from the writer; `W < 2^62` for n up to 2^14.
//! 2. `W = w 4^e` with w in [1/4, 1) as Q32, the lower bits of W dropped, and `r = 1 / sqrt w` as Q30 by [`reciprocal_square_root`].
//! 3. `t = floor(d 2^(31 - e) r / 2^32)`, which is T in steps of 2^-21; the first factor is below 2^30.
//! 4. `y = clamp((floor(t m / 2^32) + a) >> shift)`. Each channel has a multiplier `m = round(weight / s_y 2^(11 + shift))`, an addend
//!    `a = round((bias / s_y + z_y + 1/2) 2^shift)` and the largest shift, 20 at most, with `|m| < 2^31` and `|a| < 2^30`.
//!
//! **Error.** With g = weight / s_y, y before its clamp differs from the real number by at most
//!
//! `1/2 + |g T| (2^-23 + 2^-17 / V) + 2^-21 |g| + 2^(1 - shift) + 2^-(12 + shift) |T|`
//!
//! steps: its own rounding; the relative errors of r and E (V is 0 or at least n - 1); the floor of t; those of `t m` and a; the rounding of m.
//! Where the shift is 10 or more (|g| < 2^9 and |bias / s_y| < 2^19) and |g T| < 512, that is below 1/2 + 1/100.
//!
//! Tensors for the writer: `weight` float32 `[channels]`, `bias` float32 `[channels]`, `epsilon` float32 `[1]`. Constants: E, two words;
//! one [`NormalizedChannel`] per channel.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::BrokenRule;
use crate::arena::Io;
use crate::fixed_point::clamp_to_i8;
use crate::image::Dtype;
use crate::node::Node;
use crate::operator::{Alias, CheckedPart, Kernel, Operator, Output, Run, attributes, nonzero, refused, require};

/// Kernel of layer and RMS normalization.
pub const LAYER_NORM: Kernel = Kernel {
    id: 20,
    name: NAME,
    operator: &OPERATOR,
    inputs: &[Dtype::Int8],
    outputs: &[Dtype::Int8],
    pitched: true,
    forms: &[0],
    check,
    run: Run::Apart(run),
    #[cfg(feature = "alloc")]
    cost: |layer| Some(crate::image::Cost::instructions(26 * layer.outputs[0].len() as u64)),
    #[cfg(feature = "alloc")]
    pack,
};

static OPERATOR: Operator = Operator {
    name: NAME,
    attributes: Attributes::NAMES,
    inputs: 1..=1,
    outputs: &[Output::OWN],
    alias: Alias::Never,
    shape: |node, _| Ok(node.input(0).shape),
    macs: |_| 0,
};

const NAME: &str = "layer_norm";
const LARGEST_CHANNELS: usize = 1 << 14;
/// Fractional bits of W.
const FRACTION: u32 = 16;
/// E stays below 2 to this power.
const EPSILON_BITS: u32 = 61;

attributes! {
    /// Whether the mean is subtracted: 1 for layer, 0 for RMS normalization.
    struct Attributes { subtract_mean }
}

/// What the normalized numbers of one channel are multiplied by, and what is added; see the module's step 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(C)]
pub struct NormalizedChannel {
    /// m.
    pub multiplier: i32,
    /// a.
    pub addend: i32,
    /// 1 to 20.
    pub shift: i32,
}

#[derive(Clone, Copy)]
struct LayerNorm<'a> {
    /// E.
    epsilon: u64,
    channels: &'a [NormalizedChannel],
    subtract_mean: bool,
}

impl<'a> LayerNorm<'a> {
    fn read(node: &Node<'a>) -> Result<Self, BrokenRule> {
        let Attributes { subtract_mean } = Attributes::read(node.attributes())?;
        require!((0..=1).contains(&subtract_mean), "subtract_mean is not 0 or 1", subtract_mean);
        let epsilon = match *node.constant::<u32>(0)? {
            [low, high] => u64::from(high) << 32 | u64::from(low),
            ref words => return Err(refused("wrong number of words of epsilon", words.len() as i64)),
        };
        Ok(LayerNorm { epsilon, channels: node.constant(1)?, subtract_mean: subtract_mean == 1 })
    }
}

fn check(node: &Node<'_>) -> Result<(), BrokenRule> {
    node.require_no_scratch()?;
    let LayerNorm { epsilon, channels, .. } = LayerNorm::read(node)?;
    let count = node.input(0).shape[2] as usize;
    require!(count <= LARGEST_CHANNELS, "more than 16384 channels", count as i64);
    require!(channels.len() == count, "wrong number of channels", channels.len() as i64);
    require!(epsilon >> EPSILON_BITS == 0, "epsilon reaches 2^61", (epsilon >> EPSILON_BITS) as i64);
    for channel in channels {
        require!(channel.multiplier != i32::MIN, "a multiplier is -2^31", channel.multiplier);
        require!(channel.addend.unsigned_abs() < 1 << 30, "an addend reaches 2^30", channel.addend);
        require!((1..=20).contains(&channel.shift), "a channel's shift is not 1 to 20", channel.shift);
    }
    Ok(())
}

fn run(node: &Node<'_>, mut io: Io<'_>) {
    let Ok(layer) = LayerNorm::read(node) else { return };
    let (input, output) = (node.input(0), node.output(0));
    let inputs = io.inputs.get::<i8>(0).chunks(nonzero(input.pitch as usize));
    let outputs = io.outputs.take::<i8>().chunks_mut(nonzero(output.pitch as usize));
    for (inputs, outputs) in inputs.zip(outputs) {
        layer.normalize(inputs.get(..layer.channels.len()).checked_part(), outputs, input.zero_point);
    }
}

impl LayerNorm<'_> {
    /// Normalizes one pixel.
    fn normalize(&self, inputs: &[i8], outputs: &mut [i8], zero_point: i32) {
        let count = inputs.len() as i32;
        let (mut sum, mut squares) = (0i32, 0i32);
        for &x in inputs {
            let x = i32::from(x);
            (sum, squares) = (sum + x, squares + x * x);
        }
        // d is n x - center. V of a layer is the same with and without the zero point.
        let (center, variance) = if self.subtract_mean {
            (sum, i64::from(count) * i64::from(squares) - i64::from(sum) * i64::from(sum))
        } else {
            let squares = squares - 2 * zero_point * sum + count * zero_point * zero_point;
            (count * zero_point, i64::from(count) * i64::from(squares))
        };
        // Where W is 0, so is every d.
        let square = (((variance as u64) << FRACTION) + self.epsilon).max(1);
        let pairs = square.leading_zeros() / 2;
        let reciprocal = reciprocal_square_root((square << (2 * pairs) >> 32) as u32);
        // e is 32 - pairs.
        let (count, center) = (count << (pairs - 1), center << (pairs - 1));
        for ((output, &x), channel) in outputs.iter_mut().zip(inputs).zip(self.channels) {
            // Modulo 2^32, as the difference fits.
            let scaled = i32::from(x).wrapping_mul(count).wrapping_sub(center);
            let normalized = ((i64::from(scaled) * i64::from(reciprocal)) >> 32) as i32;
            let product = ((i64::from(normalized) * i64::from(channel.multiplier)) >> 32) as i32;
            *output = clamp_to_i8((product + channel.addend) >> channel.shift, -128, 127);
        }
    }
}

/// `1 / sqrt w` as Q30 for w in [1/4, 1) as Q32, with a relative error below 2^-23.
///
/// Three Newton steps `r (3 - w r^2) / 2` from `2.1287 - 1.2095 w`, which is off by at most 8.8 %: a step makes of a relative error x one of
/// `-(3 + x) x^2 / 2`, so that three make 7e-8 of it. Of each product the upper 32 bits are kept.
fn reciprocal_square_root(w: u32) -> u32 {
    let high = |a: u32, b: u32| ((u64::from(a) * u64::from(b)) >> 32) as u32;
    let start = 2_285_674_225 - high(1_298_690_736, w);
    (0..3).fold(start, |r, _| high(r, ((3 << 28) - high(w, high(r, r))) << 2) << 1)
}

/// The constants of a layer, from its real numbers.
#[cfg(feature = "alloc")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerNormParameters {
    /// E.
    pub epsilon: u64,
    /// One per channel.
    pub channels: alloc::vec::Vec<NormalizedChannel>,
}

/// Why a layer's numbers do not fit the integers: what is wrong, and the number.
#[cfg(feature = "alloc")]
pub type LayerNormLimit = (&'static str, f64);

#[cfg(feature = "alloc")]
impl LayerNormParameters {
    /// The constants for an input of scale `input_scale` and an output of scale `output_scale` and zero point `zero_point`.
    ///
    /// # Errors
    /// If a number does not fit; see the module.
    ///
    /// ```
    /// use nano_core::ops::LayerNormParameters;
    /// let parameters = LayerNormParameters::new(&[1.0], &[0.0], 0.0, 0.5, (0.25, 3)).unwrap();
    /// let channel = parameters.channels[0];
    /// assert_eq!((channel.multiplier, channel.addend, channel.shift), (1 << 30, 3 << 17 | 1 << 16, 17));
    /// ```
    pub fn new(
        weights: &[f32],
        biases: &[f32],
        epsilon: f32,
        input_scale: f32,
        (output_scale, zero_point): (f32, i32),
    ) -> Result<Self, LayerNormLimit> {
        let (count, scale) = (weights.len() as f64, f64::from(input_scale));
        let real = f64::from(1u32 << FRACTION) * count * count * f64::from(epsilon) / (scale * scale);
        if !(0.0..(1u64 << EPSILON_BITS) as f64).contains(&real) {
            return Err(("2^16 channels^2 epsilon / s_x^2 is not in [0, 2^61)", real));
        }
        let channel = |(&weight, &bias): (&f32, &f32)| {
            let factor = f64::from(weight) / f64::from(output_scale);
            let addend = f64::from(bias) / f64::from(output_scale) + f64::from(zero_point) + 0.5;
            let integers = |shift: i32| {
                let unit = f64::from(1u32 << shift);
                let (multiplier, addend) = (round(factor * 2048.0 * unit), round(addend * unit));
                let fits = multiplier.unsigned_abs() < 1 << 31 && addend.unsigned_abs() < 1 << 30;
                fits.then_some(NormalizedChannel { multiplier: multiplier as i32, addend: addend as i32, shift })
            };
            let largest = if factor.abs() > addend.abs() { factor } else { addend };
            (1..=20).rev().find_map(integers).ok_or(("weight / s_y reaches 2^19, or bias / s_y 2^29", largest))
        };
        let channels = weights.iter().zip(biases).map(channel).collect::<Result<_, _>>()?;
        Ok(LayerNormParameters { epsilon: (real + 0.5) as u64, channels })
    }
}

/// Rounds half away from zero; saturates to int64.
#[cfg(feature = "alloc")]
fn round(real: f64) -> i64 {
    (real + if real < 0.0 { -0.5 } else { 0.5 }) as i64
}

#[cfg(feature = "alloc")]
fn pack(layer: &crate::image::Layer<'_>) -> Result<crate::image::Packed, crate::image::WriteError> {
    let (input, output) = (layer.inputs[0], layer.outputs[0]);
    let channels = input.shape[2] as usize;
    let (weights, biases) = (layer.float32("weight", channels)?, layer.float32("bias", channels)?);
    let &[epsilon] = layer.float32("epsilon", 1)? else { return Err(layer.refused("needs one epsilon", 0.0)) };
    let of_output = (output.scale, output.zero_point);
    let parameters = LayerNormParameters::new(weights, biases, epsilon, input.scale, of_output)
        .map_err(|(rule, value)| layer.refused(rule, value))?;
    let constants = alloc::vec![parameters.epsilon.to_le_bytes().to_vec(), parameters.channels.as_bytes().to_vec()];
    Ok(crate::image::Packed { form: 0, constants, scratch_length: 0, read: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reciprocal_square_roots_are_exact_to_23_bits() {
        let mut random = fastrand::Rng::with_seed(20);
        let mut worst = 0f64;
        let ends = (0..1000).flat_map(|step| [(1 << 30) + step, u32::MAX - step, (1 << 31) + step]);
        for w in ends.chain((0..2_000_000).map(|_| random.u32(1 << 30..))) {
            let exact = (f64::from(1u32 << 30)) / (f64::from(w) / 4_294_967_296.0).sqrt();
            worst = worst.max((f64::from(reciprocal_square_root(w)) / exact - 1.0).abs());
        }
        assert!(worst < 2f64.powi(-23), "{worst:e}");
    }
}
