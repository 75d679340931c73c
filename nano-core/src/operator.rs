//! Operators and kernels: what is computed, and the programs that compute it.
//!
//! An [`Operator`] is the meaning of a layer: its attributes, its rules for shapes, quantization and memory. A [`Kernel`] computes an operator on
//! layers that fit it, from constants packed for it. An image names the kernel of each of its nodes.

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

// Not inlined: there are many rules.
#[cold]
#[inline(never)]
pub(crate) fn refused(rule: &'static str, value: i64) -> BrokenRule {
    BrokenRule { rule, value }
}

/// A size that no checked node has as 0. The compiler does not know: without this, dividing by it and cutting into chunks of it have panics.
#[inline(always)]
pub(crate) const fn nonzero(size: usize) -> usize {
    if size == 0 { 1 } else { size }
}

/// What a run takes for granted because the node's check has made sure of it. If it is wrong after all, the panic names the caller's line.
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

/// A part of memory whose sizes were checked when its owner was made. Instead of [`Checked`] where running over nothing does no harm: a part that
/// is absent after all is empty, which costs a program no panic. With debug assertions, as in tests and under fuzzing, it panics at the caller's
/// line.
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

// One cold function with one message: the fast path is a branch, and a caller costs the program a location.
#[cold]
#[inline(never)]
#[track_caller]
pub(crate) fn unchecked() -> ! {
    unreachable!("CheckedImage::new lets no node through that does not run")
}

/// One operator: what a layer computes, apart from how. Its rules are checked generically when an image is written and when it is loaded.
pub struct Operator {
    /// Name in the image's tools and in Python.
    pub name: &'static str,
    /// Names of the attributes, in the order in which a node stores them.
    pub attributes: &'static [&'static str],
    /// How many inputs it can have.
    pub inputs: RangeInclusive<u8>,
    /// Its outputs.
    pub outputs: &'static [Output],
    /// Where outputs may lie over inputs.
    pub alias: Alias,
    /// The shape of output `index`, from the inputs' shapes and the attributes; where the layer's tensors decide its channels, those of the
    /// output itself.
    pub shape: fn(&Node<'_>, usize) -> Result<[u32; 3], BrokenRule>,
    /// Multiply-accumulates of one run.
    pub macs: fn(&Node<'_>) -> u64,
}

/// One output of an operator.
pub struct Output {
    /// Its scale and zero point.
    pub quantization: Quantization,
    /// For a state, which lives from run to run: writes what its bytes are at the start. Its memory is as long as the state's, and what else the
    /// function reads of the node, its kernel's `check` has passed.
    pub reset: Option<fn(&Node<'_>, &mut [i8])>,
}

impl Output {
    /// An output that every run makes anew, with a scale and zero point of its own.
    pub const OWN: Output = Output { quantization: Quantization::Own, reset: None };
}

/// The rule for the scale and zero point of an output.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Quantization {
    /// Its own.
    Own,
    /// Those of this input.
    SameAs(usize),
    /// Always these.
    Fixed {
        /// Real step of one integer.
        scale: f32,
        /// The integer that stands for 0.0.
        zero_point: i32,
    },
    /// One scale and one zero point for it and all inputs.
    Shared,
}

/// Where outputs may lie over inputs, for kernels that run in place.
#[derive(Clone, Copy, Debug)]
pub enum Alias {
    /// Nowhere.
    Never,
    /// Each element of the output is made of the elements at its own index: it may take the place of an input of its shape and dtype that
    /// is read for the last time.
    Elementwise,
    /// The one output is made of elements of the inputs, unchanged; see [`Alias::overlay`].
    Overlay(OverlayRule),
}

impl Alias {
    /// The rule of an operator whose one output is made of elements of the inputs, unchanged. `place` returns where an input has elements of
    /// the output: what lies there already is not written, however long both are needed.
    pub const fn overlay(place: OverlayPlace) -> Alias {
        Alias::Overlay(OverlayRule { place, check: check_overlay })
    }
}

/// Where input `index` of a node has elements of the output, if it has any.
pub type OverlayPlace = fn(&Node<'_>, usize) -> Option<Overlay>;

/// What [`Alias::overlay`] makes.
#[derive(Clone, Copy, Debug)]
pub struct OverlayRule {
    pub(crate) place: OverlayPlace,
    // A pointer: programs without such an operator do not link the check.
    pub(crate) check: CheckOverlay,
}

/// A value that has the elements of a part of another: its pixels lie in the other's memory, if both share it, where this says, in elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlay {
    /// The input is a part of the output, as in a concatenation, which writes only inputs that lie elsewhere.
    InputInside {
        /// From the output's first element to the input's.
        offset: u32,
        /// From one pixel of the input to the next.
        pitch: u32,
    },
    /// The output is a part of the input: a view of it, which writes nothing and must lie there.
    OutputInside {
        /// From the input's first element to the output's.
        offset: u32,
        /// From one pixel of the output to the next.
        pitch: u32,
    },
}

impl Overlay {
    /// The value that is the part, and its place in the other.
    #[inline(never)]
    pub(crate) fn place<'v>(self, input: &'v Value, output: &'v Value) -> (&'v Value, Extent) {
        let (part, whole, offset, pitch) = match self {
            Overlay::InputInside { offset, pitch } => (input, output, offset, pitch),
            Overlay::OutputInside { offset, pitch } => (output, input, offset, pitch),
        };
        (part, part.extent_inside(whole, offset, pitch))
    }

    /// Whether the part lies there already.
    pub(crate) fn holds(self, input: &Value, output: &Value) -> bool {
        let (part, place) = self.place(input, output);
        part.extent() == place
    }
}

/// One kernel: a program for the layers of an operator that fit it.
///
/// A program that names only the entries it needs links only their code: exported models come with such a table.
pub struct Kernel {
    /// Id in the image, unique over the kernels of all operators; never reused.
    pub id: u16,
    /// Name in the image's tools and in Python.
    pub name: &'static str,
    /// What it computes.
    pub operator: &'static Operator,
    /// Dtypes of the inputs; inputs beyond these have the last one.
    pub inputs: &'static [Dtype],
    /// Dtypes of the outputs.
    pub outputs: &'static [Dtype],
    /// Whether it reads and writes values whose pixels do not lie side by side.
    pub pitched: bool,
    /// The forms of requantization that it has: 0 alone if it has none.
    pub forms: &'static [u8],
    /// Checks a node's constants and scratch memory, once, when a model is loaded; the operator's rules hold already.
    pub check: fn(&Node<'_>) -> Result<(), BrokenRule>,
    /// Runs a node that `check` has passed.
    pub run: Run,
    /// The estimated number of instructions on an rv32imc chip, `None` if the kernel cannot run the layer. The writer takes the cheapest kernel.
    #[cfg(feature = "alloc")]
    pub cost: fn(&crate::image::Layer<'_>) -> Option<u64>,
    /// Packs a layer's constants; these, and the scratch memory, are what the kernel costs beside its instructions.
    #[cfg(feature = "alloc")]
    pub pack: fn(&crate::image::Layer<'_>) -> Result<crate::image::Packed, crate::image::WriteError>,
}

/// How a kernel runs a node.
#[derive(Clone, Copy)]
pub enum Run {
    /// On inputs, outputs and scratch memory that share no byte.
    Apart(fn(&Node<'_>, Io<'_>)),
    /// As [`Run::Apart`], but that the first output always takes the place of the last input, which is read for the last time: the kernel finds that
    /// input in the output that it takes, and [`Io::inputs`] ends before it.
    Over(fn(&Node<'_>, Io<'_>)),
    /// On inputs and outputs that may share memory as the operator's [`Alias`] says, without scratch memory.
    InPlace(fn(&Node<'_>, Shared<'_>)),
}

impl Operator {
    /// Checks what does not depend on the kernel: numbers of inputs and outputs, shapes, quantization, states.
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
                Quantization::Own => true,
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
    /// Checks a node of this kernel with all rules: its operator's, its own.
    pub(crate) fn check(&self, node: &Node<'_>) -> Result<(), Error> {
        let operator = self.operator.name;
        if self.forms.iter().all(|&form| form != node.form()) {
            return Err(Error::UnknownForm { operator, form: node.form() });
        }
        let checked = self.operator.check(node).and_then(|()| self.accept(node)).and_then(|()| (self.check)(node));
        checked.map_err(|broken| broken.of(operator))
    }

    /// Checks that it takes the node's dtypes and pitches.
    pub(crate) fn accept(&self, node: &Node<'_>) -> Result<(), BrokenRule> {
        for (index, value) in node.inputs().chain(node.outputs).enumerate() {
            let dtype = match index.checked_sub(node.inputs.len()) {
                None => self.inputs.get(index).or(self.inputs.last()),
                Some(output) => self.outputs.get(output),
            };
            let same = dtype.is_some_and(|&dtype| value.is_of(dtype));
            require!(same, "a value has another dtype than the kernel's, value", index as i64);
            let fits = self.pitched || value.is_dense();
            require!(fits, "a value's pixels do not lie side by side, as the kernel needs them: pitch", value.pitch);
        }
        Ok(())
    }

    /// Whether it makes a view, whose output is a part of its first input, and the output does not lie there.
    #[cfg(feature = "alloc")]
    pub(crate) fn is_misplaced_view(&self, node: &Node<'_>) -> bool {
        let Alias::Overlay(rule) = self.alias() else { return false };
        let overlay = (rule.place)(node, 0).filter(|overlay| matches!(overlay, Overlay::OutputInside { .. }));
        overlay.is_some_and(|overlay| !overlay.holds(node.input(0), node.output(0)))
    }

    /// Where an output may lie over inputs: nowhere unless it runs in place.
    #[inline(always)]
    pub(crate) fn alias(&self) -> Alias {
        match self.run {
            Run::Apart(_) | Run::Over(_) => Alias::Never,
            Run::InPlace(_) => self.operator.alias,
        }
    }
}
