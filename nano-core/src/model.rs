//! From an image to a run: the check, once, and the memory that a checked image is bound to.

use crate::Error;
use crate::arena::cut;
use crate::image::{Cursor, Image, check_lifetimes};
use crate::operator::{Checked, CheckedPart, Operator};

/// An image that was checked together with the operators that run it: there is no other way to get one.
///
/// It is a view that can be copied, needs no memory of its own, and is bound to an arena, or to one per thread, by [`CheckedImage::bind`] at the cost
/// of a comparison. Checking takes time in proportion to the image's length (checksum, weights, names, memory plan), so programs do it once for
/// each image.
///
/// ```no_run
/// # let bytes: &[u8] = &[];
/// use nano_core::{CheckedImage, ops};
/// let checked = CheckedImage::new(bytes, ops::ALL)?;
/// let mut arena = vec![0; checked.image().arena_length()];
/// let mut model = checked.bind(&mut arena)?;
/// model.run();
/// # Ok::<(), nano_core::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct CheckedImage<'a> {
    image: Image<'a>,
    operators: &'a [Operator],
}

impl<'a> CheckedImage<'a> {
    /// Checks `bytes`: after this, no run can fail.
    ///
    /// `operators` is the table of operators this program carries: [`ops::ALL`](crate::ops::ALL), or the shorter table that an export writes
    /// beside the image so that the linker drops the rest.
    ///
    /// # Errors
    /// Everything [`Image::new`] refuses, an operator that is not in the table, a layer that breaks a rule of its operator (shape,
    /// attribute, constant, accumulator bound), and a memory plan in which a node reads what is not there or overwrites what is still needed.
    ///
    /// ```
    /// use nano_core::{CheckedImage, Error, ops};
    /// assert_eq!(CheckedImage::new(b"not an image", ops::ALL).err(), Some(Error::NotAnImage));
    /// ```
    pub fn new(bytes: &'a [u8], operators: &'a [Operator]) -> Result<Self, Error> {
        let image = Image::new(bytes)?;
        let mut constants_end = 0;
        for (index, node) in image.nodes().enumerate() {
            let operator =
                node.operator(operators).ok_or(Error::UnknownOperator { node: index, code: node.header.operator })?;
            (operator.check)(&node)?;
            constants_end = node.check_order_of_constants(constants_end)?;
        }
        check_lifetimes(&image)?;
        Ok(CheckedImage { image, operators })
    }

    /// The image.
    pub fn image(&self) -> &Image<'a> {
        &self.image
    }

    /// The operators it was checked with.
    pub fn operators(&self) -> &'a [Operator] {
        self.operators
    }

    /// Binds the image to an arena of at least [`Image::arena_length`] bytes, whose contents do not matter.
    ///
    /// # Errors
    /// [`Error::ArenaTooSmall`].
    pub fn bind(&self, arena: &'a mut [i8]) -> Result<Model<'a>, Error> {
        let (needed, given) = (self.image.arena_length(), arena.len());
        if given < needed {
            return Err(Error::ArenaTooSmall { needed, given });
        }
        Ok(Model { checked: *self, first_node: self.image.first_node(), arena })
    }
}

/// A checked image with its arena, ready to run: [`Model::run`] cannot fail.
pub struct Model<'a> {
    checked: CheckedImage<'a>,
    /// Where each run begins.
    first_node: Cursor<'a>,
    arena: &'a mut [i8],
}

impl<'a> Model<'a> {
    /// Checks an image and binds it at once: [`CheckedImage::new`], then [`CheckedImage::bind`].
    ///
    /// # Errors
    /// Those of the two.
    pub fn new(bytes: &'a [u8], arena: &'a mut [i8], operators: &'a [Operator]) -> Result<Self, Error> {
        CheckedImage::new(bytes, operators)?.bind(arena)
    }

    /// The checked image.
    pub fn image(&self) -> &Image<'a> {
        &self.checked.image
    }

    /// The memory of graph input `index`, to be filled before [`Model::run`]. A run may overwrite it.
    ///
    /// # Panics
    /// If there is no such input.
    pub fn input(&mut self, index: usize) -> &mut [i8] {
        // `bind` has checked that all values lie inside.
        self.arena.get_mut(self.checked.image.input(index).range()).checked_part()
    }

    /// Graph output `index`, as the last run left it.
    ///
    /// # Panics
    /// If there is no such output.
    pub fn output(&self, index: usize) -> &[i8] {
        self.arena.get(self.checked.image.output(index).range()).checked_part()
    }

    /// Runs all nodes.
    pub fn run(&mut self) {
        self.run_observed(|_, _| {});
    }

    /// Runs all nodes; `after(index, output bytes)` is called after each, to time, trace or compare layers.
    pub fn run_observed(&mut self, mut after: impl FnMut(usize, &[i8])) {
        let mut cursor = self.first_node.clone();
        let mut index = 0;
        while let Some(output) = self.run_next(&mut cursor) {
            after(index, output);
            index += 1;
        }
    }

    /// Runs the node at the cursor; returns its output, `None` after the last node.
    // Not inlined: registers are free here, and taken where the caller counts, sends or compares.
    #[inline(never)]
    fn run_next(&mut self, cursor: &mut Cursor<'a>) -> Option<&[i8]> {
        let node = self.checked.image.take_node(cursor)?;
        let operator = node.operator(self.checked.operators).checked();
        let mut io = cut(self.arena, &node).checked();
        (operator.run)(&node, &mut io);
        Some(io.output)
    }
}
