//! The arithmetic shared by addition and subtraction: both inputs are rescaled to a common scale, combined, and requantized to the output's scale.
//!
//! `y = clamp(output * combine(first * (x_1 - z_1) 2^raise, second * (x_2 - z_2) 2^raise) + z_y)` with the three multipliers
//! and the raise of [`AddParameters`]: 20 bits for int8, 15 for int16.
//!
//! Constant: the three multipliers, or three [`RaisedMultiplier`]s in the form [`ONE_PASS`].

use core::cell::Cell;
use core::ops::RangeInclusive;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::BrokenRule;
use crate::arena::Shared;
use crate::fixed_point::Multiplier;
use crate::image::{Dtype, Element};
#[cfg(feature = "alloc")]
use crate::kernels::one_pass_addend;
use crate::kernels::{Channel, Form, LITERAL, Literal, ONE_PASS, OnePass};
use crate::node::Node;
use crate::operator::{Checked, refused, require};
use crate::ops::channels::check_clamp;
use crate::ops::pairwise::{self, Elements};

/// Requantization forms of the kernels of addition and subtraction.
pub(crate) const FORMS: &[u8] = &[LITERAL, ONE_PASS];

/// Left shift of both inputs of this dtype before they are rescaled to a common scale, in bits.
const fn raise_of(dtype: Dtype) -> u32 {
    match dtype {
        Dtype::Int8 => 20,
        Dtype::Int16 | Dtype::Int32 => 15,
    }
}

/// The three multipliers of an addition or a subtraction, from the three scales.
#[cfg(feature = "alloc")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddParameters {
    /// `s_1 / (2 max(s_1, s_2))`.
    pub first: Multiplier,
    /// `s_2 / (2 max(s_1, s_2))`.
    pub second: Multiplier,
    /// `2 max(s_1, s_2) / (2^raise s_y)`.
    pub output: Multiplier,
    /// Left shift of both inputs before they are rescaled to a common scale, in bits.
    pub raise: u32,
}

#[cfg(feature = "alloc")]
impl AddParameters {
    /// The multipliers for inputs of scale `first` and `second` and an output of scale `output`, all of this dtype; `None` if a ratio is out of
    /// range.
    ///
    /// ```
    /// use nano_core::{fixed_point::Multiplier, image::Dtype, ops::AddParameters};
    /// let parameters = AddParameters::new(Dtype::Int8, 0.5, 0.25, 0.5).unwrap();
    /// assert_eq!(Some(parameters.first), Multiplier::from_real(0.5));
    /// assert_eq!(Some(parameters.second), Multiplier::from_real(0.25));
    /// ```
    pub fn new(dtype: Dtype, first: f32, second: f32, output: f32) -> Option<Self> {
        let raise = raise_of(dtype);
        let twice_largest = 2.0 * f64::from(first.max(second));
        Some(AddParameters {
            first: Multiplier::from_real(f64::from(first) / twice_largest)?,
            second: Multiplier::from_real(f64::from(second) / twice_largest)?,
            output: Multiplier::from_real(twice_largest / (f64::from(1 << raise) * f64::from(output)))?,
            raise,
        })
    }
}

/// One of the three multipliers in the one-pass form. It multiplies `x << raise`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RaisedMultiplier {
    raise: u32,
    /// This and the next fields: see [`Channel`].
    multiplier: i32,
    addend: i32,
    shift: i32,
}

impl RaisedMultiplier {
    #[inline(always)]
    fn apply(&self, x: i32) -> i32 {
        let &RaisedMultiplier { raise, multiplier, addend, shift } = self;
        OnePass::requantize(&Channel { bias: 0, multiplier, addend, shift }, x << (raise & 31))
    }

    /// Checks that nothing overflows for inputs in a range; returns the range of the results, which grow with the inputs.
    fn check(&self, inputs: RangeInclusive<i32>) -> Result<RangeInclusive<i32>, BrokenRule> {
        require!(self.raise <= 21, "a multiplier raises by more than 21 bits", self.raise);
        require!((2..=31).contains(&self.shift), "the requantization shift is not 2 to 31", self.shift);
        let [low, high] = [*inputs.start(), *inputs.end()];
        for (x, correction) in [(low, 2), (high, 0)] {
            let twice = i64::from(x) << (self.raise + 1);
            let sum =
                |twice: i32| ((i64::from(twice) * i64::from(self.multiplier as u32)) >> 32) + i64::from(self.addend);
            let fits = i32::try_from(twice).is_ok_and(|twice| i32::try_from(sum(twice) - correction).is_ok());
            require!(fits, "twice the sum's bound + |addend| + 2 reaches 2^31", twice.abs());
        }
        Ok(self.apply(low)..=self.apply(high))
    }

    /// The one that computes `multiplier * (x << raise) + zero_point`; `None` if there is no one-pass form of it.
    #[cfg(feature = "alloc")]
    fn new(raise: u32, multiplier: Multiplier, zero_point: i32) -> Option<RaisedMultiplier> {
        // Exactly 1/2, as for the input with the larger scale. The largest multiplier below it gives the same numbers: it is too small by a part
        // of 2^-31, so a product is by less than one, of four to the step.
        const HALF: Multiplier = Multiplier { mantissa: 1 << 30, shift: 0 };
        const BELOW_HALF: Multiplier = Multiplier { mantissa: i32::MAX, shift: -1 };
        let Multiplier { mantissa, shift } = if multiplier == HALF { BELOW_HALF } else { multiplier };
        match -shift {
            e @ 1..=21 => Some(RaisedMultiplier {
                raise,
                multiplier: mantissa << 1,
                addend: one_pass_addend(e, zero_point),
                shift: e + 1,
            }),
            _ => None,
        }
    }
}

#[cfg(feature = "alloc")]
impl AddParameters {
    /// The three multipliers in the one-pass form; `None` if one of them has none, or a sum could overflow.
    fn one_pass(&self, dtype: Dtype, zero_point: i32) -> Option<[RaisedMultiplier; 3]> {
        let first = RaisedMultiplier::new(self.raise, self.first, 0)?;
        let second = RaisedMultiplier::new(self.raise, self.second, 0)?;
        let output = RaisedMultiplier::new(0, self.output, zero_point)?;
        let multipliers = [first, second, output];
        check_overflow(&multipliers, dtype).is_ok().then_some(multipliers)
    }
}

/// Checks that no sum, and no difference, overflows for any inputs of this dtype.
fn check_overflow([first, second, output]: &[RaisedMultiplier; 3], dtype: Dtype) -> Result<(), BrokenRule> {
    let ((lowest, highest), zero_points) = (dtype.bounds(), dtype.zero_points());
    let differences = lowest - zero_points.end()..=highest - zero_points.start();
    let (first, second) = (first.check(differences.clone())?, second.check(differences)?);
    let low = first.start().saturating_add(*second.start().min(&-second.end()));
    let high = first.end().saturating_add(*second.end().max(&-second.start()));
    output.check(low..=high).map(drop)
}

fn multipliers(node: &Node<'_>) -> Result<[RaisedMultiplier; 3], BrokenRule> {
    let multipliers = node.constant::<RaisedMultiplier>(0)?;
    multipliers.try_into().map_err(|_| refused("wrong number of multipliers", multipliers.len() as i64))
}

/// The three multipliers of an addition or subtraction, in one of the two forms.
enum Terms {
    OnePass([RaisedMultiplier; 3]),
    /// The addend of the last one is the output's zero point.
    Literal([Channel; 3]),
}

impl Terms {
    /// Reads the multipliers in `form` from a node's first constant.
    fn read(node: &Node<'_>, form: u8) -> Result<Self, BrokenRule> {
        if form == ONE_PASS {
            return Ok(Terms::OnePass(multipliers(node)?));
        }
        let multipliers: [Multiplier; 3] = node.multipliers()?;
        let mut channels = multipliers.map(|Multiplier { mantissa, shift }| Channel {
            multiplier: mantissa,
            shift,
            ..Channel::default()
        });
        channels[2].addend = node.output(0).zero_point;
        Ok(Terms::Literal(channels))
    }

    fn check(&self, dtype: Dtype) -> Result<(), BrokenRule> {
        match self {
            Terms::OnePass(multipliers) => check_overflow(multipliers, dtype),
            Terms::Literal([first, second, _]) => {
                require!(first.shift <= 0, "the first input's multiplier exceeds 1, shift", first.shift);
                require!(second.shift <= 0, "the second input's multiplier exceeds 1, shift", second.shift);
                Ok(())
            }
        }
    }
}

fn literal<T: Element>(
    [first, second, output]: &[Channel; 3],
    [a, b]: [i32; 2],
    combine: impl Fn(i32, i32) -> i32,
) -> i32 {
    let [a, b] = [(first, a), (second, b)].map(|(scale, x)| Literal::requantize(scale, x << raise_of(T::DTYPE)));
    Literal::requantize(output, combine(a, b))
}

/// Checks a node's constants, scratch memory and clamp.
pub(crate) fn check(node: &Node<'_>) -> Result<(), BrokenRule> {
    Terms::read(node, node.form())?.check(node.output(0).dtype())?;
    pairwise::check(node)
}

/// Runs a node; `combine` adds or subtracts.
#[inline(always)]
pub(crate) fn run<T: Element>(node: &Node<'_>, memory: Shared<'_>, combine: impl Fn(i32, i32) -> i32) {
    if node.form() == ONE_PASS {
        // Not by `Terms`, which would cost one more instruction per element.
        let [first, second, output] = multipliers(node).checked();
        pairwise::run::<T>(node, memory, |a, b| output.apply(combine(first.apply(a), second.apply(b))))
    } else if let Ok(Terms::Literal(channels)) = Terms::read(node, LITERAL) {
        pairwise::run::<T>(node, memory, |a, b| literal::<T>(&channels, [a, b], &combine))
    }
}

#[cfg(feature = "host")]
pub(crate) mod host;

/// An addition of int8 fused into a node of another operator.
pub(super) struct Addition {
    terms: Terms,
    elements: Elements,
}

impl Addition {
    /// Reads the addition from a node's first constant in `form`, for inputs with these zero points.
    #[inline(always)]
    pub(super) fn read(
        node: &Node<'_>,
        form: u8,
        zero_points: [i32; 2],
        clamp: (i32, i32),
    ) -> Result<Self, BrokenRule> {
        Ok(Addition { terms: Terms::read(node, form)?, elements: Elements { zero_points, clamp } })
    }

    pub(super) fn check(&self) -> Result<(), BrokenRule> {
        self.terms.check(Dtype::Int8)?;
        check_clamp(self.elements.clamp)
    }

    /// Adds elements up to the length of the shortest slice; the output may be one of the inputs.
    #[inline(always)]
    pub(super) fn run(&self, first: &[Cell<i8>], second: &[Cell<i8>], output: &[Cell<i8>]) {
        match &self.terms {
            &Terms::OnePass([a, b, y]) => self
                .elements
                .combine([first, second], output, |first, second| y.apply(a.apply(first) + b.apply(second))),
            Terms::Literal(channels) => {
                self.elements.combine([first, second], output, |a, b| literal::<i8>(channels, [a, b], |a, b| a + b))
            }
        }
    }
}

#[cfg(feature = "alloc")]
pub(crate) fn pack(layer: &crate::image::Layer<'_>) -> Result<crate::image::Packed, crate::image::WriteError> {
    let mut packed = crate::image::Packed::default();
    let ([first, second], output) = ([0, 1].map(|index| layer.inputs[index].scale), layer.outputs[0]);
    let parameters = AddParameters::new(output.dtype(), first, second, output.scale)
        .ok_or_else(|| layer.refused("a ratio of the scales is not in [0, 2^30); output scale", output.scale.into()))?;
    match parameters.one_pass(output.dtype(), output.zero_point) {
        Some(multipliers) => {
            packed.form = ONE_PASS;
            packed.constants.push(multipliers.as_bytes().to_vec());
        }
        None => packed.push_multipliers(&[parameters.first, parameters.second, parameters.output]),
    }
    Ok(packed)
}

#[cfg(all(test, feature = "alloc"))]
mod tests {
    use super::*;

    /// Many first inputs with many second inputs, both ends among them, for scales that are equal or differ by up to a factor of a thousand.
    fn compare_forms(dtype: Dtype, seed: u64, step: usize) {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut compared = 0;
        let (low, high) =
            (dtype.bounds().0 - dtype.zero_points().end(), dtype.bounds().1 - dtype.zero_points().start());
        let every = |step| (low..high).step_by(step).chain([high]);
        let zero_point = if dtype == Dtype::Int8 { -5 } else { 0 };
        for round in 0..300 {
            let mut scale = || random.f32().powi(3) + 0.001;
            let (a, b, y) = (scale(), if round % 3 == 0 { 0.5 } else { scale() }, scale());
            let a = if round % 6 == 0 { b } else { a };
            let parameters = AddParameters::new(dtype, a, b, y).unwrap();
            let Some([first, second, output]) = parameters.one_pass(dtype, zero_point) else { continue };
            for x in every(step) {
                let apply = |multiplier: Multiplier, x: i32| multiplier.apply(x << parameters.raise);
                let scaled = [parameters.first, parameters.second].map(|multiplier| apply(multiplier, x));
                assert_eq!([first.apply(x), second.apply(x)], scaled, "{x}, scales {a} and {b}");
                for other in every(7 * step) {
                    let other = apply(parameters.second, other);
                    for sum in [scaled[0] + other, scaled[0] - other] {
                        let expected = parameters.output.apply(sum) + zero_point;
                        assert_eq!(output.apply(sum), expected, "{sum}, scales {a}, {b}, {y}");
                    }
                }
            }
            compared += 1;
        }
        assert!(compared > 200, "{compared}");
    }

    #[test]
    fn one_pass_equals_the_literal_form() {
        compare_forms(Dtype::Int8, 20, 1);
        compare_forms(Dtype::Int16, 21, 251);
    }

    #[test]
    fn the_multiplier_below_one_half_halves_every_int16() {
        let half = Multiplier::from_real(0.5).unwrap();
        let in_one_pass = RaisedMultiplier::new(15, half, 0).unwrap();
        in_one_pass.check(-32768..=32767).unwrap();
        for x in -32768..=32767 {
            assert_eq!(in_one_pass.apply(x), x << 14);
        }
    }
}
