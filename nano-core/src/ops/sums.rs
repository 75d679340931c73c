//! The arithmetic shared by addition and subtraction: both inputs are rescaled to a common scale, combined, and requantized to the output's scale.
//!
//! `y = clamp(output * combine(first * (x_1 - z_1) 2^20, second * (x_2 - z_2) 2^20) + z_y)` with the three multipliers
//! of [`AddParameters`].
//!
//! Constant: the three multipliers, or three [`RaisedMultiplier`]s in the form [`ONE_PASS`].

use core::cell::Cell;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::BrokenRule;
use crate::arena::Shared;
use crate::fixed_point::Multiplier;
#[cfg(feature = "alloc")]
use crate::kernels::one_pass_addend;
use crate::kernels::{Channel, Form, LITERAL, Literal, ONE_PASS, OnePass};
use crate::node::Node;
use crate::operator::{Checked, refused, require};
use crate::ops::channels::{check_clamp, one_pass_bound};
use crate::ops::pairwise::{self, Elements};

/// Requantization forms of the kernels of addition and subtraction.
pub(crate) const FORMS: &[u8] = &[LITERAL, ONE_PASS];

/// Left shift of both inputs before they are rescaled to a common scale, in bits.
const RAISE: u32 = 20;

/// The three multipliers of an addition or a subtraction, from the three scales.
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
            output: Multiplier::from_real(twice_largest / (f64::from(1 << RAISE) * f64::from(output)))?,
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

    /// Checks a multiplier; returns a bound of the magnitude of [`RaisedMultiplier::apply`] for `|x|` up to `bound`.
    fn check(&self, bound: i64) -> Result<i64, BrokenRule> {
        require!(self.raise <= RAISE + 1, "a multiplier raises by more than 21 bits", self.raise);
        require!((2..=31).contains(&self.shift), "the requantization shift is not 2 to 31", self.shift);
        let total = one_pass_bound(bound << self.raise, self.addend);
        require!(total < 1 << 31, "twice the sum's bound + |addend| + 2 reaches 2^31", total);
        Ok((total >> self.shift) + 1)
    }

    /// The one that computes `multiplier * (x << raise) + zero_point`; `None` if there is no one-pass form of it.
    #[cfg(feature = "alloc")]
    fn new(raise: u32, multiplier: Multiplier, zero_point: i32) -> Option<RaisedMultiplier> {
        let Multiplier { mantissa, shift } = multiplier;
        match -shift {
            // Exactly 1/2, as for the input with the larger scale. A quarter of twice the value is equal, as nothing is rounded.
            0 if mantissa == 1 << 30 => {
                RaisedMultiplier::new(raise + 1, Multiplier { mantissa, shift: -1 }, zero_point)
            }
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
    fn one_pass(&self, zero_point: i32) -> Option<[RaisedMultiplier; 3]> {
        let first = RaisedMultiplier::new(RAISE, self.first, 0)?;
        let second = RaisedMultiplier::new(RAISE, self.second, 0)?;
        let output = RaisedMultiplier::new(0, self.output, zero_point)?;
        let multipliers = [first, second, output];
        check_overflow(&multipliers).is_ok().then_some(multipliers)
    }
}

/// Checks that no sum overflows for any input.
fn check_overflow([first, second, output]: &[RaisedMultiplier; 3]) -> Result<(), BrokenRule> {
    // The largest difference of two int8 values.
    const LARGEST: i64 = 255;
    output.check(first.check(LARGEST)? + second.check(LARGEST)?).map(drop)
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

    fn check(&self) -> Result<(), BrokenRule> {
        match self {
            Terms::OnePass(multipliers) => check_overflow(multipliers),
            Terms::Literal([first, second, _]) => {
                require!(first.shift <= 0, "the first input's multiplier exceeds 1, shift", first.shift);
                require!(second.shift <= 0, "the second input's multiplier exceeds 1, shift", second.shift);
                Ok(())
            }
        }
    }
}

fn literal([first, second, output]: &[Channel; 3], [a, b]: [i32; 2], combine: impl Fn(i32, i32) -> i32) -> i32 {
    let [a, b] = [(first, a), (second, b)].map(|(scale, x)| Literal::requantize(scale, x << RAISE));
    Literal::requantize(output, combine(a, b))
}

/// Checks a node's constants, scratch memory and clamp.
pub(crate) fn check(node: &Node<'_>) -> Result<(), BrokenRule> {
    Terms::read(node, node.form())?.check()?;
    pairwise::check(node)
}

/// Runs a node; `combine` adds or subtracts.
#[inline(always)]
pub(crate) fn run(node: &Node<'_>, memory: Shared<'_>, combine: impl Fn(i32, i32) -> i32) {
    if node.form() == ONE_PASS {
        // Not by `Terms`, which would cost one more instruction per element.
        let [first, second, output] = multipliers(node).checked();
        pairwise::run(node, memory, |a, b| output.apply(combine(first.apply(a), second.apply(b))))
    } else if let Ok(Terms::Literal(channels)) = Terms::read(node, LITERAL) {
        pairwise::run(node, memory, |a, b| literal(&channels, [a, b], &combine))
    }
}

/// An addition fused into a node of another operator.
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
        self.terms.check()?;
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
                self.elements.combine([first, second], output, |a, b| literal(channels, [a, b], |a, b| a + b))
            }
        }
    }
}

#[cfg(feature = "alloc")]
pub(crate) fn pack(layer: &crate::image::Layer<'_>) -> Result<crate::image::Packed, crate::image::WriteError> {
    let mut packed = crate::image::Packed::default();
    let ([first, second], output) = ([0, 1].map(|index| layer.inputs[index].scale), layer.outputs[0]);
    let parameters = AddParameters::new(first, second, output.scale)
        .ok_or_else(|| layer.refused("a ratio of the scales is not in [0, 2^30); output scale", output.scale.into()))?;
    match parameters.one_pass(output.zero_point) {
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

    /// All first inputs with every seventh second input, for scales that are equal or differ by up to a factor of a thousand.
    #[test]
    fn one_pass_equals_the_literal_form() {
        let mut random = fastrand::Rng::with_seed(20);
        let mut compared = 0;
        for round in 0..300 {
            let mut scale = || random.f32().powi(3) + 0.001;
            let (a, b, y) = (scale(), if round % 3 == 0 { 0.5 } else { scale() }, scale());
            let a = if round % 6 == 0 { b } else { a };
            let parameters = AddParameters::new(a, b, y).unwrap();
            let Some([first, second, output]) = parameters.one_pass(-5) else { continue };
            for x in -255i32..=255 {
                let scaled = [parameters.first, parameters.second].map(|multiplier| multiplier.apply(x << RAISE));
                assert_eq!([first.apply(x), second.apply(x)], scaled, "{x}, scales {a} and {b}");
                for other in (-255..=255).step_by(7) {
                    let sum = scaled[0] + parameters.second.apply(other << RAISE);
                    assert_eq!(output.apply(sum), parameters.output.apply(sum) - 5, "{sum}, scales {a}, {b}, {y}");
                }
            }
            compared += 1;
        }
        assert!(compared > 200, "{compared}");
    }
}
