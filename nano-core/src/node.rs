//! A node of an image: the view of it that its operator and its kernel get.

use crate::fixed_point::Multiplier;
use crate::image::{NodeHeader, Value};
use crate::operator::{Checked, Kernel, refused, require};
use crate::{BrokenRule, Error};

/// A node of an image, zero-copy: values and constants are looked up when they are asked for.
pub struct Node<'a> {
    pub(crate) header: &'a NodeHeader,
    /// Ids of the inputs in `values`, which are all of the image.
    pub(crate) inputs: &'a [u32],
    pub(crate) values: &'a [Value],
    pub(crate) outputs: &'a [Value],
    pub(crate) attributes: &'a [i32],
    pub(crate) constants: &'a [[u32; 2]],
    /// The section that holds its constants, in flash or in RAM.
    pub(crate) constants_section: &'a [u8],
}

impl<'a> Node<'a> {
    /// The entry of this node's kernel in `table`.
    #[inline(never)]
    pub fn kernel<'k>(&self, table: &'k [Kernel]) -> Option<&'k Kernel> {
        self.find_kernel(table)
    }

    /// [`Node::kernel`], inlined.
    #[inline(always)]
    pub(crate) fn find_kernel<'k>(&self, table: &'k [Kernel]) -> Option<&'k Kernel> {
        let id = self.header.kernel;
        // Fast path: in the table of all kernels, an id is an index.
        let likely = table.get(usize::from(id).wrapping_sub(1)).filter(|kernel| kernel.id == id);
        likely.or_else(|| table.iter().find(|kernel| kernel.id == id))
    }

    /// The form of requantization its constants are packed for.
    pub fn form(&self) -> u8 {
        self.header.form
    }

    /// Ids of the input values.
    pub fn input_ids(&self) -> &'a [u32] {
        self.inputs
    }

    /// The inputs, in order.
    pub fn inputs(&self) -> impl Iterator<Item = &'a Value> + use<'a, '_> {
        (0..self.inputs.len()).map(|index| self.input(index))
    }

    /// Input `index`.
    ///
    /// # Panics
    /// If there is no such input.
    // Not inlined: the board's program has many of them.
    #[inline(never)]
    pub fn input(&self, index: usize) -> &'a Value {
        existing(self.find_input(index))
    }

    /// Input `index`, if there is one.
    #[inline(always)]
    pub(crate) fn find_input(&self, index: usize) -> Option<&'a Value> {
        self.inputs.get(index).and_then(|&id| self.values.get(id as usize))
    }

    /// The outputs, in order.
    pub fn outputs(&self) -> &'a [Value] {
        self.outputs
    }

    /// Output `index`.
    ///
    /// # Panics
    /// If there is no such output.
    #[inline(always)]
    pub fn output(&self, index: usize) -> &'a Value {
        existing(self.outputs.get(index))
    }

    /// The attributes, in the operator's order.
    pub fn attributes(&self) -> &'a [i32] {
        self.attributes
    }

    /// Bytes of scratch memory planned for this node.
    pub fn scratch_length(&self) -> usize {
        self.header.scratch_length as usize
    }

    /// Where that begins in the arena, in bytes.
    pub fn scratch_offset(&self) -> usize {
        self.header.scratch_offset as usize
    }

    /// Whether its constants are copied to RAM; otherwise it reads them from flash.
    pub fn has_constants_in_ram(&self) -> bool {
        self.header.constants_in_ram != 0
    }

    /// Bytes of constants (weights, biases, tables) of this node.
    pub fn constant_bytes(&self) -> usize {
        self.constants.iter().map(|[_, length]| *length as usize).sum()
    }

    /// Constant `index` as a slice of `T`, zero-copy.
    ///
    /// # Errors
    /// If it is absent, misaligned, or its length is not a multiple of `T`'s.
    pub fn constant<T>(&self, index: usize) -> Result<&'a [T], BrokenRule>
    where
        T: zerocopy::FromBytes + zerocopy::Immutable,
    {
        self.find_constant(index).ok_or_else(|| self.refused_constant(index))
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

    /// The reason why [`Node::find_constant`] finds nothing.
    #[cold]
    #[inline(never)]
    fn refused_constant(&self, index: usize) -> BrokenRule {
        let rule = match (self.constants.get(index), self.bytes_of_constant(index)) {
            (None, _) => "a constant is missing",
            (_, None) => "a constant lies outside the image",
            _ => "a constant is misaligned or has a ragged end",
        };
        refused(rule, index as i64)
    }

    /// Checks that a node has scratch memory for this number of elements.
    pub(crate) fn require_scratch<T>(&self, elements: usize) -> Result<(), BrokenRule> {
        let size = size_of::<T>();
        require!(self.scratch_length() == elements * size, "wrong scratch length", self.scratch_length() as i64);
        let offset = self.scratch_offset();
        require!(
            offset.is_multiple_of(size),
            "the scratch memory is not aligned to its elements, offset",
            offset as i64
        );
        Ok(())
    }

    /// Checks that a node has no scratch memory.
    pub(crate) fn require_no_scratch(&self) -> Result<(), BrokenRule> {
        require!(self.scratch_length() == 0, "needs no scratch memory", self.scratch_length() as i64);
        Ok(())
    }

    /// Checks that this node's constants follow each other, and those of earlier nodes, which end at `flash_end` and `ram_end` of the two sections;
    /// advances these. Shared constants are refused: each node would check them again, so loading would not be linear in the image's length.
    pub(crate) fn check_order_of_constants(&self, flash_end: &mut u32, ram_end: &mut u32) -> Result<(), Error> {
        let end = if self.has_constants_in_ram() { ram_end } else { flash_end };
        self.constants.iter().try_for_each(|&[offset, length]| {
            let error = Error::Field { name: "constant offset (inside the constant before)", value: offset.into() };
            if offset < *end {
                return Err(error);
            }
            *end = offset.saturating_add(length);
            Ok(())
        })
    }

    /// The node's `N` requantization multipliers: its first constant, a mantissa and a shift each.
    pub(crate) fn multipliers<const N: usize>(&self) -> Result<[Multiplier; N], BrokenRule> {
        let pairs = self.constant::<[i32; 2]>(0)?;
        let wrong_number = |_| refused("wrong number of multipliers", pairs.len() as i64);
        let pairs: &[[i32; 2]; N] = pairs.try_into().map_err(wrong_number)?;
        check_multipliers(pairs)?;
        Ok(pairs.map(|[mantissa, shift]| Multiplier { mantissa, shift }))
    }
}

/// A value that a checked node has. One function, so that the program has one place that can panic.
#[inline(always)]
pub(crate) fn existing(value: Option<&Value>) -> &Value {
    value.checked()
}

#[inline(never)]
fn check_multipliers(pairs: &[[i32; 2]]) -> Result<(), BrokenRule> {
    for &[mantissa, shift] in pairs {
        require!(mantissa >= 0, "a multiplier's mantissa is negative", mantissa);
        require!((-31..=30).contains(&shift), "a multiplier's shift is not -31 to 30", shift);
    }
    Ok(())
}
