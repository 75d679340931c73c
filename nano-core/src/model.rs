//! From an image to a run: the check, once, and the memory that a checked image is bound to.

use crate::Error;
use crate::arena::Bound;
use crate::image::{Image, Value, check_lifetimes};
use crate::operator::{CheckedPart, Kernel};

/// An image that was checked together with the kernels that run it: there is no other way to get one.
///
/// It is a view that can be copied, needs no memory of its own, and is bound to an arena, or to one per thread, by [`CheckedImage::bind`] at the cost
/// of a look at each value's record. Checking takes time in proportion to the image's length (checksum, weights, names, memory plan), so programs do
/// it once for each image.
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
    kernels: &'a [Kernel],
}

impl<'a> CheckedImage<'a> {
    /// Checks `bytes`: after this, no run can fail.
    ///
    /// `kernels` is the table of kernels this program carries: [`ops::ALL`](crate::ops::ALL), or the shorter table that an export writes
    /// beside the image so that the linker drops the rest.
    ///
    /// # Errors
    /// Everything [`Image::new`] refuses, a kernel that is not in the table, a layer that breaks a rule of its operator or kernel (shape, dtype,
    /// quantization, attribute, constant, accumulator bound), and a memory plan in which a node reads what is not there or overwrites what is
    /// still needed.
    ///
    /// ```
    /// use nano_core::{CheckedImage, Error, ops};
    /// assert_eq!(CheckedImage::new(b"not an image", ops::ALL).err(), Some(Error::NotAnImage));
    /// ```
    pub fn new(bytes: &'a [u8], kernels: &'a [Kernel]) -> Result<Self, Error> {
        let checked = CheckedImage { image: Image::new(bytes)?, kernels };
        checked.check()?;
        Ok(checked)
    }

    fn check(&self) -> Result<(), Error> {
        let mut constants_end = 0;
        for (index, node) in self.image.nodes().enumerate() {
            let unknown = Error::UnknownKernel { node: index, id: node.header.kernel };
            let kernel = node.kernel(self.kernels).ok_or(unknown)?;
            kernel.check(&node)?;
            constants_end = node.check_order_of_constants(constants_end)?;
        }
        check_lifetimes(&self.image, self.kernels)
    }

    /// The image.
    pub fn image(&self) -> &Image<'a> {
        &self.image
    }

    /// The kernels it was checked with.
    pub fn kernels(&self) -> &'a [Kernel] {
        self.kernels
    }

    /// Binds the image to an arena of at least [`Image::arena_length`] bytes, whose contents do not matter, and resets its states.
    ///
    /// # Errors
    /// [`Error::ArenaTooSmall`]; [`Error::ArenaMisaligned`] if values of more than one byte need a start at a multiple of their size.
    pub fn bind(&self, arena: &'a mut [i8]) -> Result<Model<'a>, Error> {
        let mut model = Model { bound: Bound::new(*self, arena)? };
        model.reset();
        Ok(model)
    }
}

/// A checked image with its arena, ready to run: [`Model::run`] cannot fail.
pub struct Model<'a> {
    bound: Bound<'a>,
}

impl<'a> Model<'a> {
    /// Checks an image and binds it at once: [`CheckedImage::new`], then [`CheckedImage::bind`].
    ///
    /// # Errors
    /// Those of the two.
    pub fn new(bytes: &'a [u8], arena: &'a mut [i8], kernels: &'a [Kernel]) -> Result<Self, Error> {
        CheckedImage::new(bytes, kernels)?.bind(arena)
    }

    /// The checked image.
    pub fn image(&self) -> &Image<'a> {
        self.bound.checked().image()
    }

    /// The memory of graph input `index`, to be filled before [`Model::run`]: the elements of an int8 value, the little-endian bytes of another.
    /// A run may overwrite it.
    ///
    /// # Panics
    /// If there is no such input.
    pub fn input(&mut self, index: usize) -> &mut [i8] {
        let range = self.image().input(index).range();
        // `bind` has checked that all values lie inside.
        self.bound.arena_mut().get_mut(range).checked_part()
    }

    /// Graph output `index`, as the last run left it: the elements of an int8 value, the little-endian bytes of another.
    ///
    /// # Panics
    /// If there is no such output.
    pub fn output(&self, index: usize) -> &[i8] {
        self.bound.arena().get(self.image().output(index).range()).checked_part()
    }

    /// Puts all states to what they are before the first run. What else the arena holds stays.
    pub fn reset(&mut self) {
        self.bound.reset();
    }

    /// Runs all nodes.
    pub fn run(&mut self) {
        self.run_observed(|_, _, _| {});
    }

    /// Runs all nodes; `after(index, outputs, arena)` is called after each, to time, trace or compare layers. [`Value::pixels`] finds the bytes of an
    /// output in the arena.
    pub fn run_observed(&mut self, after: impl FnMut(usize, &'a [Value], &[i8])) {
        self.bound.run(after);
    }
}
