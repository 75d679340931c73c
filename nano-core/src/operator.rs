//! Operators and kernels: what is computed, and the programs that compute it.
//!
//! An [`Operator`] is the meaning of a layer: its attributes, and its rules for shapes, quantization and memory. A [`Kernel`] computes an operator
//! for the layers that it supports, from constants packed for it. An image stores the kernel id of each node.

use core::ops::RangeInclusive;

use crate::arena::{Io, Shared};
use crate::image::{CheckOverlay, Dtype, Extent, Value, check_overlay};
use crate::node::Node;
use crate::{BrokenRule, Error};

/// Declares an operator's attributes: a struct of `i32` and its field names in the image's order.
macro_rules! attributes {
    ($(#[$doc:meta])* struct $name:ident { $($(#[$field_doc:meta])* $field:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        struct $name { $($(#[$field_doc])* $field: i32),+ }

        impl $name {
            const NAMES: &'static [&'static str] = &[$(stringify!($field)),+];

            fn read(words: &[i32]) -> Result<Self, $crate::BrokenRule> {
                let &[$($field),+] = words else {
                    return Err($crate::operator::refused("wrong number of attributes", words.len() as i64));
                };
                Ok(Self { $($field),+ })
            }
        }
    };
}
pub(crate) use attributes;

/// `Err(BrokenRule)` with the rule's text unless the rule holds.
macro_rules! require {
    ($rule:expr, $text:expr, $value:expr) => {
        if !$rule {
            return Err($crate::operator::refused($text, i64::from($value)));
        }
    };
}
pub(crate) use require;

/// A rule that does not hold, for `value`.
#[cfg(feature = "rule-texts")]
// Not inlined, for code size: there are many rules.
#[cold]
#[inline(never)]
pub(crate) fn refused(rule: &'static str, value: i64) -> BrokenRule {
    BrokenRule { rule, value }
}

/// A rule that does not hold, for `value`. Inlined, so that the rule's text is not linked.
#[cfg(not(feature = "rule-texts"))]
#[inline(always)]
pub(crate) fn refused(_: &'static str, value: i64) -> BrokenRule {
    unnamed(value)
}

#[cfg(not(feature = "rule-texts"))]
#[cold]
#[inline(never)]
fn unnamed(value: i64) -> BrokenRule {
    BrokenRule { rule: "it breaks a rule, which a PC names when it reads the image", value }
}

/// Returns `size`, or 1 for 0. No checked node has such a size of 0, but the compiler does not know: without this function, a division by the
/// size, or chunks of it, compile to code that can panic.
#[inline(always)]
pub(crate) const fn nonzero(size: usize) -> usize {
    if size == 0 { 1 } else { size }
}

/// Unwraps what the check of the node has already validated. If it is absent nevertheless, the panic names the caller's line.
pub(crate) trait Checked {
    type Value;

    #[track_caller]
    fn checked(self) -> Self::Value;
}

impl<T> Checked for Option<T> {
    type Value = T;

    #[inline(always)]
    fn checked(self) -> T {
        match self {
            Some(value) => value,
            None => unchecked(),
        }
    }
}

impl<T, E> Checked for Result<T, E> {
    type Value = T;

    #[inline(always)]
    fn checked(self) -> T {
        self.ok().checked()
    }
}

/// Unwraps a part of memory whose bounds were checked when its owner was made. Used instead of [`Checked`] where an empty part does no harm: a
/// part that is absent nevertheless is empty, so the code has no panic. With debug assertions, as in tests and fuzzing, it panics at the
/// caller's line.
pub(crate) trait CheckedPart {
    type Part;

    #[track_caller]
    fn checked_part(self) -> Self::Part;
}

impl<T: Default> CheckedPart for Option<T> {
    type Part = T;

    #[inline(always)]
    fn checked_part(self) -> T {
        debug_assert!(self.is_some(), "a part of memory that was checked is absent");
        self.unwrap_or_default()
    }
}

// One cold function with one message: the fast path is one branch, and each caller adds only its source location to the program.
#[cold]
#[inline(never)]
#[track_caller]
pub(crate) fn unchecked() -> ! {
    unreachable!("CheckedImage::new lets no node through that does not run")
}

/// One operator: what a layer computes, independent of the kernel. Its rules are checked when an image is written and when it is loaded.
pub struct Operator {
    /// Name in the image's tools and in Python.
    pub name: &'static str,
    /// Names of the attributes, in the order in which a node stores them.
    pub attributes: &'static [&'static str],
    /// The number of inputs that it accepts.
    pub inputs: RangeInclusive<u8>,
    /// Its outputs.
    pub outputs: &'static [Output],
    /// Where outputs may share memory with inputs.
    pub alias: Alias,
    /// Returns the shape of output `index`, computed from the inputs' shapes and the attributes. Where the layer's tensors determine the number
    /// of channels, it is that of the output itself.
    pub shape: fn(&Node<'_>, usize) -> Result<[u32; 3], BrokenRule>,
    /// Number of multiply-accumulates (MACs) of one run.
    pub macs: fn(&Node<'_>) -> u64,
}

/// One output of an operator.
pub struct Output {
    /// Its scale and zero point.
    pub quantization: Quantization,
    /// For a state, whose bytes persist from run to run: writes its initial bytes to a slice of the state's length. Called only for nodes that
    /// the kernel's `check` has passed.
    pub reset: Option<fn(&Node<'_>, &mut [i8])>,
}

impl Output {
    /// An output that every run recomputes, with its own scale and zero point.
    pub const OWN: Output = Output { quantization: Quantization::Own, reset: None };
}

/// The rule for the scale and zero point of an output.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Quantization {
    /// Independent of the inputs.
    Own,
    /// Independent of the inputs; the scale is a power of two, which the kernel checks, and the zero point 0.
    PowerOfTwo,
    /// Equal to those of this input.
    SameAs(usize),
    /// These constants.
    Fixed {
        /// Real step of one integer.
        scale: f32,
        /// The integer that represents 0.0.
        zero_point: i32,
    },
    /// The output and all inputs have one scale and one zero point.
    Shared,
}

/// Where outputs may share memory with inputs, for kernels that run in place.
#[derive(Clone, Copy, Debug)]
pub enum Alias {
    /// Outputs share no memory with inputs.
    Never,
    /// Each element of an output depends only on the elements at the same index: the only output may replace an input of the same shape and dtype
    /// in place, at that input's last use. Several outputs share no memory with inputs.
    Elementwise,
    /// The only output consists of unchanged elements of the inputs; see [`Alias::overlay`].
    Overlay(OverlayRule),
}

impl Alias {
    /// The rule of an operator whose only output consists of unchanged elements of the inputs, as in a concatenation or a view. `place` returns
    /// where an input and the output have the same elements. An input that already lies there is not copied, and both values may stay alive.
    pub const fn overlay(place: OverlayPlace) -> Alias {
        Alias::Overlay(OverlayRule { place, check: check_overlay })
    }
}

/// Returns where input `index` of a node and the output can share elements; `None` if they cannot.
pub type OverlayPlace = fn(&Node<'_>, usize) -> Option<Overlay>;

/// The rule that [`Alias::overlay`] returns.
#[derive(Clone, Copy, Debug)]
pub struct OverlayRule {
    pub(crate) place: OverlayPlace,
    // A function pointer, so that programs without such an operator do not link the check.
    pub(crate) check: CheckOverlay,
}

/// A value whose elements are a part of another value's: the offset and the pitch, in elements, of its pixels in the other value's memory when both
/// share memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Overlay {
    /// The input is a part of the output, as in a concatenation, which copies only inputs that lie elsewhere.
    InputInside {
        /// From the output's first element to the input's.
        offset: u32,
        /// From one pixel of the input to the next.
        pitch: u32,
    },
    /// The output is a part of the input: a view, which copies nothing and must lie there.
    OutputInside {
        /// From the input's first element to the output's.
        offset: u32,
        /// From one pixel of the output to the next.
        pitch: u32,
    },
}

impl Overlay {
    /// Returns the value that is the part, and its extent inside the other value.
    #[inline(never)]
    pub(crate) fn place<'v>(self, input: &'v Value, output: &'v Value) -> (&'v Value, Extent) {
        let (part, whole, offset, pitch) = match self {
            Overlay::InputInside { offset, pitch } => (input, output, offset, pitch),
            Overlay::OutputInside { offset, pitch } => (output, input, offset, pitch),
        };
        (part, part.extent_inside(whole, offset, pitch))
    }

    /// Whether the part already lies there.
    pub(crate) fn holds(self, input: &Value, output: &Value) -> bool {
        let (part, place) = self.place(input, output);
        part.extent() == place
    }
}

/// One kernel: an implementation of an operator, for the layers that it supports.
///
/// A program links only the code of the kernels that it names: exported models come with a table of the kernels they need.
#[derive(Clone, Copy)]
pub struct Kernel {
    /// Id in the image, unique over the kernels of all operators; never reused.
    pub id: u16,
    /// Name in the image's tools and in Python.
    pub name: &'static str,
    /// What it computes.
    pub operator: &'static Operator,
    /// Dtypes of the inputs; the last one holds for all further inputs. Or [`ALIKE`].
    pub inputs: &'static [Dtype],
    /// Dtypes of the outputs. Or [`ALIKE`].
    pub outputs: &'static [Dtype],
    /// Whether it supports values whose pixels are not contiguous: whose pitch exceeds their number of channels.
    pub pitched: bool,
    /// The forms of requantization that it supports; only 0 if it does not requantize.
    pub forms: &'static [u8],
    /// Checks a node's constants and scratch memory once, when a model is loaded. The operator's rules have been checked before.
    pub check: fn(&Node<'_>) -> Result<(), BrokenRule>,
    /// Runs a node that `check` has passed.
    pub run: Run,
    /// The estimate of one run; `None` if the kernel cannot run the layer. The writer chooses the kernel with the fewest cycles.
    #[cfg(feature = "alloc")]
    pub cost: fn(&crate::image::Layer<'_>) -> Option<crate::image::Cost>,
    /// Packs a layer's constants, and returns their form and the length of the scratch memory.
    #[cfg(feature = "alloc")]
    pub pack: fn(&crate::image::Layer<'_>) -> Result<crate::image::Packed, crate::image::WriteError>,
}

/// The dtypes of the inputs, or outputs, of a kernel that moves bytes: any, but that of the first input for all of them.
pub const ALIKE: &[Dtype] = &[];

/// How a kernel runs a node.
#[derive(Clone, Copy)]
pub enum Run {
    /// Out of place: inputs, outputs and scratch memory share no byte.
    Apart(fn(&Node<'_>, Io<'_>)),
    /// As [`Run::Apart`], except that the first output always replaces the last input in place, at that input's last use: the kernel finds the
    /// input's elements in the output, and [`Io::inputs`] does not contain that input.
    Over(fn(&Node<'_>, Io<'_>)),
    /// In place: inputs and outputs may share memory as the operator's [`Alias`] allows. There is no scratch memory.
    InPlace(fn(&Node<'_>, Shared<'_>)),
}

impl Operator {
    /// Checks the rules that do not depend on the kernel: numbers of inputs and outputs, shapes, quantization, states.
    pub(crate) fn check(&self, node: &Node<'_>) -> Result<(), BrokenRule> {
        let inputs = node.inputs.len();
        let allowed = u8::try_from(inputs).is_ok_and(|count| self.inputs.contains(&count));
        require!(allowed, "wrong number of inputs", inputs as i64);
        let outputs = node.outputs.len();
        require!(outputs == self.outputs.len(), "wrong number of outputs", outputs as i64);
        for (index, (rule, output)) in self.outputs.iter().zip(node.outputs).enumerate() {
            let shape = (self.shape)(node, index)?;
            require!(
                shape == output.shape,
                "the output's shape does not follow from the inputs and the attributes, elements",
                output.len() as i64
            );
            let same = |value: &Value| output.is_quantized_by(value.scale, value.zero_point);
            let right = match rule.quantization {
                Quantization::Own | Quantization::PowerOfTwo => true,
                Quantization::SameAs(input) => same(node.input(input)),
                Quantization::Fixed { scale, zero_point } => output.is_quantized_by(scale, zero_point),
                Quantization::Shared => node.inputs().all(same),
            };
            require!(right, "an output has another scale or zero point than it must have", index as i64);
            let is_right = output.is_state() == rule.reset.is_some();
            require!(is_right, "an output is a state and must not be, or must be and is not", index as i64);
        }
        Ok(())
    }
}

impl Kernel {
    /// Checks a node of this kernel: the form, the operator's rules and the kernel's own.
    pub(crate) fn check(&self, node: &Node<'_>) -> Result<(), Error> {
        let operator = self.operator.name;
        if self.forms.iter().all(|&form| form != node.form()) {
            return Err(Error::UnknownForm { operator, form: node.form() });
        }
        let checked = self.operator.check(node).and_then(|()| self.accept(node)).and_then(|()| (self.check)(node));
        checked.map_err(|broken| broken.of(operator))
    }

    /// Checks that the kernel supports the node's dtypes and pitches.
    pub(crate) fn accept(&self, node: &Node<'_>) -> Result<(), BrokenRule> {
        for (index, value) in node.inputs().chain(node.outputs).enumerate() {
            let (dtypes, dtype) = match index.checked_sub(node.inputs.len()) {
                None => (self.inputs, self.inputs.get(index).or(self.inputs.last())),
                Some(output) => (self.outputs, self.outputs.get(output)),
            };
            let first = || node.find_input(0).filter(|_| dtypes.is_empty()).map(Value::dtype);
            let same = dtype.copied().or_else(first).is_some_and(|dtype| value.is_of(dtype));
            require!(same, "a value has another dtype than the kernel's, value", index as i64);
            let fits = self.pitched || value.is_dense();
            require!(fits, "a value's pixels do not lie side by side, as the kernel needs them: pitch", value.pitch);
        }
        Ok(())
    }

    /// Whether the kernel computes a view, a part of its first input, but the output does not lie there.
    #[cfg(feature = "alloc")]
    pub(crate) fn is_misplaced_view(&self, node: &Node<'_>) -> bool {
        let Alias::Overlay(rule) = self.alias() else { return false };
        let overlay = (rule.place)(node, 0).filter(|overlay| matches!(overlay, Overlay::OutputInside { .. }));
        overlay.is_some_and(|overlay| !overlay.holds(node.input(0), node.output(0)))
    }

    /// Where outputs may share memory with inputs: the operator's rule for kernels that run in place, [`Alias::Never`] for others.
    #[inline(always)]
    pub(crate) fn alias(&self) -> Alias {
        match self.run {
            Run::Apart(_) | Run::Over(_) => Alias::Never,
            Run::InPlace(_) => self.operator.alias,
        }
    }
}
