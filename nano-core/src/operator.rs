//! What every operator is made of: a table entry, the view of its node in the image, and the slices it runs on.

use crate::Error;
use crate::fixed_point::Multiplier;
use crate::image::{NodeHeader, Value};

/// Declares an operator's attributes: a struct of `i32` and its field names in the image's order.
macro_rules! attributes {
    ($(#[$doc:meta])* struct $name:ident { $($(#[$field_doc:meta])* $field:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        struct $name { $($(#[$field_doc])* $field: i32),+ }

        impl $name {
            const NAMES: &'static [&'static str] = &[$(stringify!($field)),+];

            fn read(operator: &'static str, words: &[i32]) -> Result<Self, $crate::Error> {
                #[cold]
                #[inline(never)]
                fn refused(operator: &'static str, given: usize) -> $crate::Error {
                    $crate::Error::Layer { operator, rule: "wrong number of attributes", value: given as i64 }
                }
                let &[$($field),+] = words else { return Err(refused(operator, words.len())) };
                Ok(Self { $($field),+ })
            }
        }
    };
}
pub(crate) use attributes;

/// `Err(Error::Layer)` with the rule's text unless the rule holds.
macro_rules! require {
    ($operator:expr, $rule:expr, $text:expr, $value:expr) => {
        if !$rule {
            return Err($crate::Error::Layer { operator: $operator, rule: $text, value: i64::from($value) });
        }
    };
}
pub(crate) use require;

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

/// The largest number of inputs of any operator.
pub const MAX_INPUTS: usize = 2;

/// One operator: everything the model runner, the image writer and the Python side must know of it.
///
/// A program that names only the entries it needs links only their code: exported models come with such a table.
pub struct Operator {
    /// Name in the image's tools and in Python.
    pub name: &'static str,
    /// Code in the image; never reused.
    pub code: u16,
    /// Names of the attributes, in the order in which a node stores them.
    pub attributes: &'static [&'static str],
    /// Checks a node's shapes, attributes and constants, once, when a model is loaded.
    pub check: fn(&Node<'_>) -> Result<(), Error>,
    /// Runs a node that `check` has passed, on memory of its sizes.
    pub run: fn(&Node<'_>, &mut Io<'_>),
    /// Multiply-accumulates of one run of a node that `check` has passed.
    pub macs: fn(&Node<'_>) -> u64,
    /// Packs a layer's attributes and constants for the kernel variant that suits it.
    #[cfg(feature = "alloc")]
    pub pack: fn(&crate::image::Layer<'_>) -> Result<crate::image::Packed, crate::image::WriteError>,
}

/// A node of an image, as its operator sees it: zero-copy, with its values resolved.
pub struct Node<'a> {
    pub(crate) header: &'a NodeHeader,
    pub(crate) ids: &'a [u32],
    pub(crate) inputs: [&'a Value; MAX_INPUTS],
    pub(crate) output: &'a Value,
    pub(crate) attributes: &'a [i32],
    pub(crate) constants: &'a [[u32; 2]],
    pub(crate) constants_section: &'a [u8],
}

impl<'a> Node<'a> {
    /// The kernel variant this node was packed for.
    pub fn variant(&self) -> u16 {
        self.header.variant
    }

    /// The entry of this node's operator in `table`.
    pub fn operator<'o>(&self, table: &'o [Operator]) -> Option<&'o Operator> {
        let code = self.header.operator;
        // In the table of all operators, each lies where its code says.
        let likely = table.get(usize::from(code).wrapping_sub(1)).filter(|operator| operator.code == code);
        likely.or_else(|| table.iter().find(|operator| operator.code == code))
    }

    /// Ids of the input values.
    pub fn input_ids(&self) -> &'a [u32] {
        self.ids
    }

    /// Number of inputs.
    pub fn input_count(&self) -> usize {
        usize::from(self.header.input_count)
    }

    /// Input `index`; a node of one input gives it for both.
    ///
    /// # Panics
    /// If `index` is not below [`MAX_INPUTS`].
    pub fn input(&self, index: usize) -> &'a Value {
        self.inputs[index]
    }

    /// The output.
    pub fn output(&self) -> &'a Value {
        self.output
    }

    /// The attributes, in the operator's order.
    pub fn attributes(&self) -> &'a [i32] {
        self.attributes
    }

    /// Bytes of scratch memory planned for this node.
    pub fn scratch_length(&self) -> usize {
        self.header.scratch_length as usize
    }

    /// Bytes of constants (weights, biases, tables) this node reads from flash.
    pub fn constant_bytes(&self) -> usize {
        self.constants.iter().map(|[_, length]| *length as usize).sum()
    }

    /// Checks the frame of a node with `inputs` inputs, one kernel variant and no scratch memory.
    pub(crate) fn require_plain(&self, operator: &'static str, inputs: usize) -> Result<(), Error> {
        if self.variant() != 0 {
            return Err(Error::UnknownVariant { operator, variant: self.variant() });
        }
        self.require_frame(operator, inputs)
    }

    /// Checks the frame of a node with `inputs` inputs and no scratch memory.
    pub(crate) fn require_frame(&self, operator: &'static str, inputs: usize) -> Result<(), Error> {
        require!(operator, self.input_count() == inputs, "wrong number of inputs", self.input_count() as i64);
        require!(operator, self.scratch_length() == 0, "needs no scratch memory", self.scratch_length() as i64);
        Ok(())
    }

    /// Refuses a constant that begins before the one before it ends, of this node or of an earlier one, whose constants end at `end`; returns where
    /// this node's end. What nodes share would be checked for each of them.
    pub(crate) fn check_order_of_constants(&self, end: u32) -> Result<u32, Error> {
        self.constants.iter().try_fold(end, |end, &[offset, length]| {
            let error = Error::Field { name: "constant offset (inside the constant before)", value: offset.into() };
            if offset < end { Err(error) } else { Ok(offset.saturating_add(length)) }
        })
    }

    /// The node's `N` multipliers: its first constant, a mantissa and a shift each.
    pub(crate) fn multipliers<const N: usize>(&self, operator: &'static str) -> Result<[Multiplier; N], Error> {
        let pairs = self.constant::<[i32; 2]>(operator, 0)?;
        let pairs: &[[i32; 2]; N] = pairs.try_into().map_err(|_| Error::Layer {
            operator,
            rule: "wrong number of multipliers",
            value: pairs.len() as i64,
        })?;
        for &[mantissa, shift] in pairs {
            require!(operator, mantissa >= 0, "a multiplier's mantissa is negative", mantissa);
            require!(operator, (-31..=30).contains(&shift), "a multiplier's shift is not -31 to 30", shift);
        }
        Ok(pairs.map(|[mantissa, shift]| Multiplier { mantissa, shift }))
    }

    /// Constant `index` as a slice of `T` where it lies. An absent, misaligned or ragged constant is an error.
    pub(crate) fn constant<T>(&self, operator: &'static str, index: usize) -> Result<&'a [T], Error>
    where
        T: zerocopy::FromBytes + zerocopy::Immutable,
    {
        self.find_constant(index).ok_or_else(|| self.refused_constant(operator, index))
    }

    fn find_constant<T: zerocopy::FromBytes + zerocopy::Immutable>(&self, index: usize) -> Option<&'a [T]> {
        <[T] as zerocopy::FromBytes>::ref_from_bytes(self.bytes_of_constant(index)?).ok()
    }

    /// The bytes of constant `index`.
    #[inline(always)]
    pub(crate) fn bytes_of_constant(&self, index: usize) -> Option<&'a [u8]> {
        let &[offset, length] = self.constants.get(index)?;
        self.constants_section.get(offset as usize..)?.get(..length as usize)
    }

    /// Why [`Node::find_constant`] finds nothing.
    #[cold]
    #[inline(never)]
    fn refused_constant(&self, operator: &'static str, index: usize) -> Error {
        let rule = match (self.constants.get(index), self.bytes_of_constant(index)) {
            (None, _) => "a constant is missing",
            (_, None) => "a constant lies outside the image",
            _ => "a constant is misaligned or has a ragged end",
        };
        Error::Layer { operator, rule, value: index as i64 }
    }
}

/// The memory one node runs on.
pub struct Io<'m> {
    /// The inputs' bytes, NHWC.
    pub inputs: [&'m [i8]; MAX_INPUTS],
    /// The output's bytes, NHWC.
    pub output: &'m mut [i8],
    /// Scratch memory of the planned length; contents are undefined.
    pub scratch: &'m mut [i8],
}
