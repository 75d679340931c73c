//! The arena: one buffer that holds all values of a run, and the only module that splits it into slices.
//!
//! Loading proves once which bytes a node may read and write at the same time (`image/lifetimes.rs`); runs do not check it again.

use core::cell::Cell;

use zerocopy::{FromBytes, IntoBytes};

use crate::image::{Cursor, Dtype, Element, Value};
use crate::node::existing;
use crate::operator::{Checked, CheckedPart, Run};
use crate::{CheckedImage, Error, Node};

/// The memory of a node whose inputs, outputs and scratch memory share no byte. Of a node that runs [`Run::Over`], the last input is not among the
/// inputs: the first output holds it.
pub struct Io<'m> {
    /// The inputs.
    pub inputs: Inputs<'m>,
    /// The outputs.
    pub outputs: Outputs<'m>,
    /// Scratch memory of the planned length; contents are undefined.
    pub scratch: &'m mut [i8],
}

/// The inputs of a node, to read.
#[derive(Clone, Copy)]
pub struct Inputs<'m> {
    base: *const i8,
    node: &'m Node<'m>,
}

/// The outputs of a node, to write: each can be taken once.
pub struct Outputs<'m> {
    base: *mut i8,
    values: core::slice::Iter<'m, Value>,
}

/// The memory of a node whose inputs and outputs may lie in the same bytes: an element that is written may be one still to be read.
#[derive(Clone, Copy)]
pub struct Shared<'m> {
    base: *mut i8,
    node: &'m Node<'m>,
}

impl<'m> Io<'m> {
    /// The memory of `node` in the arena at `base`, with the inputs of `reader`: the node itself, or the node without its last input.
    #[inline(always)]
    fn new(base: *mut i8, node: &'m Node<'m>, reader: &'m Node<'m>) -> Self {
        // Not a range, whose length would be computed from its ends.
        let (start, length) = (node.header.scratch_offset as usize, node.scratch_length());
        Io {
            inputs: Inputs { base, node: reader },
            outputs: Outputs { base, values: node.outputs.iter() },
            // SAFETY: the scratch memory lies in the arena (image/view.rs), and overlaps neither inputs nor outputs (image/lifetimes.rs).
            scratch: unsafe { core::slice::from_raw_parts_mut(base.add(start), length) },
        }
    }
}

impl<'m> Inputs<'m> {
    /// The elements of input `index` from its first to its last, `pitch` from one pixel to the next. As `i8`, the bytes of any input.
    ///
    /// # Panics
    /// If there is no such input, or its dtype is another.
    #[inline(always)]
    pub fn get<T: Element>(&self, index: usize) -> &'m [T] {
        let (offset, length) = place::<T>(self.node.find_input(index));
        // SAFETY: `Bound` has made this of a node of its checked image and of its arena, in which the value lies aligned. No output and no scratch
        // memory of this node overlaps it (image/lifetimes.rs).
        unsafe { core::slice::from_raw_parts(self.base.add(offset).cast(), length) }
    }
}

impl<'m> Outputs<'m> {
    /// The elements of the next output from its first to its last, `pitch` from one pixel to the next: of a state, as the last run left them; of
    /// others, undefined. What lies between its pixels is not to be changed. As `i8`, the bytes of any output.
    ///
    /// # Panics
    /// If there is no next output, or its dtype is another.
    #[inline(always)]
    pub fn take<T: Element>(&mut self) -> &'m mut [T] {
        let (offset, length) = place::<T>(self.values.next());
        // SAFETY: as in `Inputs::get`; also, outputs of one node do not overlap each other, and each is taken once.
        unsafe { core::slice::from_raw_parts_mut(self.base.add(offset).cast(), length) }
    }
}

impl<'m> Shared<'m> {
    /// The elements of input `index`, as from [`Inputs::get`].
    ///
    /// # Panics
    /// If there is no such input, or its dtype is another.
    #[inline(always)]
    pub fn input<T: Element>(&self, index: usize) -> &'m [Cell<T>] {
        self.cells(self.node.find_input(index))
    }

    /// The elements of output `index`, as from [`Outputs::take`].
    ///
    /// # Panics
    /// If there is no such output, or its dtype is another.
    #[inline(always)]
    pub fn output<T: Element>(&self, index: usize) -> &'m [Cell<T>] {
        self.cells(self.node.outputs.get(index))
    }

    /// Copies elements, which may overlap; as many as the shorter slice has.
    pub fn copy<T: Element>(from: &[Cell<T>], to: &[Cell<T>]) {
        let length = from.len().min(to.len());
        // SAFETY: both have that many elements, which can be written through either, and no other thread sees a cell.
        unsafe { core::ptr::copy(from.as_ptr(), to.as_ptr().cast_mut(), length) };
    }

    #[inline(always)]
    fn cells<T: Element>(&self, value: Option<&Value>) -> &'m [Cell<T>] {
        let (offset, length) = place::<T>(value);
        // SAFETY: as in `Inputs::get`. Cells may overlap, and nothing else points into the arena as long as they live.
        unsafe { core::slice::from_raw_parts(self.base.add(offset).cast(), length) }
    }
}

/// Scratch memory as elements, empty unless [`Node::require_scratch`] has checked it for them.
#[inline(always)]
pub(crate) fn scratch_elements<T: Element>(scratch: &mut [i8]) -> &mut [T] {
    <[T]>::mut_from_bytes(scratch.as_mut_bytes()).ok().checked_part()
}

/// Offset in bytes, and number of elements from first to last; bytes of any value are `i8`.
#[inline(always)]
fn place<T: Element>(value: Option<&Value>) -> (usize, usize) {
    existing(value.filter(|value| size_of::<T>() == 1 || value.is_of(T::DTYPE))).elements::<T>()
}

/// A checked image bound to the arena that it runs in.
pub(crate) struct Bound<'a> {
    checked: CheckedImage<'a>,
    /// The start of each run.
    first_node: Cursor<'a>,
    arena: &'a mut [i8],
}

impl<'a> Bound<'a> {
    /// # Errors
    /// [`Error::ArenaTooSmall`], [`Error::ArenaMisaligned`].
    pub(crate) fn new(checked: CheckedImage<'a>, arena: &'a mut [i8]) -> Result<Self, Error> {
        let image = checked.image();
        let (needed, given) = (image.arena_length(), arena.len());
        if given < needed {
            return Err(Error::ArenaTooSmall { needed, given });
        }
        let alignment = image.values().iter().map(|value| value.dtype().size()).max().unwrap_or(Dtype::Int8.size());
        if !arena.as_ptr().addr().is_multiple_of(alignment) {
            return Err(Error::ArenaMisaligned { alignment });
        }
        let (arena, constants) = arena.split_at_mut_checked(image.values_length()).checked_part();
        let checked = checked.with_constants_in(constants);
        Ok(Bound { checked, first_node: image.first_node(), arena })
    }

    pub(crate) fn checked(&self) -> &CheckedImage<'a> {
        &self.checked
    }

    pub(crate) fn arena(&self) -> &[i8] {
        self.arena
    }

    pub(crate) fn arena_mut(&mut self) -> &mut [i8] {
        self.arena
    }

    /// Resets all states to their operators' start.
    pub(crate) fn reset(&mut self) {
        let image = self.checked.image();
        if !image.values().iter().any(Value::is_state) {
            return;
        }
        for node in image.nodes() {
            let outputs = node.kernel(self.checked.kernels()).map(|kernel| kernel.operator.outputs).checked_part();
            for (output, value) in outputs.iter().zip(node.outputs) {
                let Some(reset) = output.reset else { continue };
                reset(&node, self.arena.get_mut(value.range()).checked_part());
            }
        }
    }

    /// Runs all nodes; calls `after(index, outputs, arena)` after each.
    pub(crate) fn run(&mut self, mut after: impl FnMut(usize, &'a [Value], &[i8])) {
        let mut cursor = self.first_node.clone();
        let mut index = 0;
        loop {
            let before = cursor.clone();
            if !self.run_next(&mut cursor) {
                return;
            }
            after(index, cursor.outputs_since(&before), self.arena);
            index += 1;
        }
    }

    /// Runs the node at the cursor; false after the last node.
    // Not inlined: the registers of the caller, which counts, sends or compares, would spill.
    #[inline(never)]
    fn run_next(&mut self, cursor: &mut Cursor<'a>) -> bool {
        let Some(node) = self.checked.image().take_node(cursor) else { return false };
        let kernel = node.find_kernel(self.checked.kernels()).checked();
        let base = self.arena.as_mut_ptr();
        match kernel.run {
            Run::Apart(run) => run(&node, Io::new(base, &node, &node)),
            Run::Over(run) => run_over(run, base, &node),
            Run::InPlace(run) => run(&node, Shared { base, node: &node }),
        }
        true
    }
}

/// Runs a node whose output takes the place of its last input: no reference may be had to that.
// Not inlined: few nodes are of this kind, and the others would pay for it.
#[inline(never)]
fn run_over(run: fn(&Node<'_>, Io<'_>), base: *mut i8, node: &Node<'_>) {
    let inputs = node.inputs.split_last().map(|(_, others)| others).checked_part();
    run(node, Io::new(base, node, &Node { inputs, ..*node }));
}

/// A checked image bound to the arenas of several samples, which [`HostModel`](crate::HostModel) runs together.
#[cfg(feature = "host")]
pub struct Arenas<'a> {
    checked: CheckedImage<'a>,
    memory: &'a mut [i8],
    /// Bytes of one arena.
    stride: usize,
    count: usize,
}

#[cfg(feature = "host")]
impl<'a> Arenas<'a> {
    /// Each arena starts at a multiple of this, with the memory of all.
    const ALIGNMENT: usize = 64;

    fn stride(checked: &CheckedImage<'_>) -> usize {
        checked.image().values_length().next_multiple_of(Self::ALIGNMENT)
    }

    /// Bytes that the arenas of so many samples take. Constants in RAM are there once.
    pub fn length(checked: &CheckedImage<'_>, count: usize) -> usize {
        let image = checked.image();
        Self::stride(checked) * count + (image.arena_length() - image.values_length())
    }

    /// Binds an image to the arenas of `count` samples in `memory`, of [`Arenas::length`] bytes, and resets its states.
    ///
    /// # Errors
    /// [`Error::ArenaTooSmall`]; [`Error::ArenaMisaligned`] unless the memory starts at a multiple of 4.
    pub fn new(checked: CheckedImage<'a>, memory: &'a mut [i8], count: usize) -> Result<Self, Error> {
        let (needed, given) = (Self::length(&checked, count), memory.len());
        if given < needed {
            return Err(Error::ArenaTooSmall { needed, given });
        }
        if !memory.as_ptr().addr().is_multiple_of(4) {
            return Err(Error::ArenaMisaligned { alignment: 4 });
        }
        let stride = Self::stride(&checked);
        let (memory, constants) = memory.split_at_mut_checked(stride * count).checked_part();
        let checked = checked.with_constants_in(constants);
        let mut arenas = Arenas { checked, memory, stride, count };
        arenas.reset();
        Ok(arenas)
    }

    /// The checked image.
    pub fn checked(&self) -> &CheckedImage<'a> {
        &self.checked
    }

    /// The number of samples.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The arena of a sample.
    ///
    /// # Panics
    /// If there is no such sample.
    pub fn arena(&self, sample: usize) -> &[i8] {
        &self.memory[sample * self.stride..][..self.stride]
    }

    /// [`Model::input`](crate::Model::input) of a sample.
    ///
    /// # Panics
    /// If there is no such sample or input.
    pub fn input(&mut self, sample: usize, index: usize) -> &mut [i8] {
        let range = self.checked.image().input(index).range();
        &mut self.memory[sample * self.stride..][..self.stride][range]
    }

    /// [`Model::output`](crate::Model::output) of a sample.
    ///
    /// # Panics
    /// If there is no such sample or output.
    pub fn output(&self, sample: usize, index: usize) -> &[i8] {
        &self.arena(sample)[self.checked.image().output(index).range()]
    }

    /// Resets all states of all samples.
    pub fn reset(&mut self) {
        let image = self.checked.image();
        if !image.values().iter().any(Value::is_state) {
            return;
        }
        for node in image.nodes() {
            let outputs = node.kernel(self.checked.kernels()).map(|kernel| kernel.operator.outputs).checked_part();
            for (output, value) in outputs.iter().zip(node.outputs) {
                let Some(reset) = output.reset else { continue };
                for arena in self.memory.chunks_exact_mut(self.stride) {
                    reset(&node, &mut arena[value.range()]);
                }
            }
        }
    }

    /// The memory of a node of the image, for all samples.
    pub(crate) fn samples<'m>(&'m mut self, node: &'m Node<'m>) -> Samples<'m> {
        let kernel = node.find_kernel(self.checked.kernels()).checked();
        Samples { node, run: kernel.run, base: self.memory.as_mut_ptr(), stride: self.stride, count: self.count }
    }
}

/// The memory of a node for several samples.
#[cfg(feature = "host")]
pub(crate) struct Samples<'m> {
    node: &'m Node<'m>,
    run: Run,
    base: *mut i8,
    stride: usize,
    count: usize,
}

#[cfg(feature = "host")]
impl Samples<'_> {
    /// The number of samples.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "the portable kernels run on other processors"))]
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// The arena of a sample.
    fn base(&self, sample: usize) -> *mut i8 {
        self.base.wrapping_add(sample * self.stride)
    }

    /// Calls `run` with each sample's memory, of a kernel that does not run in place.
    pub(crate) fn each(&mut self, mut run: impl FnMut(usize, Io<'_>)) {
        let inputs = match self.run {
            Run::Over(_) => self.node.inputs.split_last().map(|(_, others)| others).checked_part(),
            _ => self.node.inputs,
        };
        let reader = Node { inputs, ..*self.node };
        for sample in 0..self.count {
            run(sample, Io::new(self.base(sample), self.node, &reader));
        }
    }

    /// Calls `run` with each sample's memory, of a kernel that runs in place.
    pub(crate) fn each_in_place(&mut self, mut run: impl FnMut(Shared<'_>)) {
        for sample in 0..self.count {
            run(Shared { base: self.base(sample), node: self.node });
        }
    }

    /// Runs the node's kernel for all samples.
    pub(crate) fn run_portable(&mut self) {
        match self.run {
            Run::Apart(run) | Run::Over(run) => {
                let node = self.node;
                self.each(|_, io| run(node, io));
            }
            Run::InPlace(run) => {
                let node = self.node;
                self.each_in_place(|memory| run(node, memory));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_may_overlap() {
        let mut elements = [1i16, 2, 3, 4, 5, 6];
        let cells = Cell::from_mut(&mut elements[..]).as_slice_of_cells();
        Shared::copy(&cells[..4], &cells[2..]);
        assert_eq!(elements, [1, 2, 1, 2, 3, 4]);
        let cells = Cell::from_mut(&mut elements[..]).as_slice_of_cells();
        Shared::copy(&cells[1..], cells);
        assert_eq!(elements, [2, 1, 2, 3, 4, 4]);
    }
}
