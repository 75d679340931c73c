//! Loading and running: [`CheckedImage`] is an image checked once, [`Model`] is one bound to an arena.

use zerocopy::{FromBytes, IntoBytes};

use crate::Error;
use crate::arena::Bound;
use crate::image::{Element, Image, Value, check_lifetimes};
use crate::operator::{CheckedPart, Kernel};

/// An image that was checked together with the kernels that run it.
///
/// A view that can be copied and needs no memory of its own. [`CheckedImage::bind`] binds it to an arena, one per thread, and only looks at each
/// value's record. Checking takes time linear in the image's length (checksum, weights, names, memory plan), so programs check an image once.
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
    /// Checks `bytes`. After that, no run can fail.
    ///
    /// `kernels` is the table of kernels this program carries: [`ops::ALL`](crate::ops::ALL), or the shorter table that an export writes
    /// beside the image so that the linker drops the rest.
    ///
    /// # Errors
    /// Everything [`Image::new`] refuses, a kernel that is not in the table, a layer that breaks a rule of its operator or kernel (shape, dtype,
    /// quantization, attribute, constant, accumulator bound), and a memory plan in which a node reads a value that is not written yet or
    /// overwrites one that is still needed.
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
        let (mut flash_end, mut ram_end) = (0, 0);
        for (index, node) in self.image.nodes().enumerate() {
            let unknown = Error::UnknownKernel { node: index, id: node.header.kernel };
            let kernel = node.kernel(self.kernels).ok_or(unknown)?;
            kernel.check(&node)?;
            node.check_order_of_constants(&mut flash_end, &mut ram_end)?;
        }
        check_lifetimes(&self.image, self.kernels)
    }

    /// The image.
    pub fn image(&self) -> &Image<'a> {
        &self.image
    }

    /// [`Image::with_constants_in`]: the copy has the bytes that were checked.
    pub(crate) fn with_constants_in(&self, ram: &'a mut [i8]) -> Self {
        CheckedImage { image: self.image.with_constants_in(ram), ..*self }
    }

    /// The kernels it was checked with.
    pub fn kernels(&self) -> &'a [Kernel] {
        self.kernels
    }

    /// Whether the first output is the probabilities of a softmax.
    pub fn ends_in_softmax(&self) -> bool {
        let last = self.image.writer(self.image.output_id(0)).and_then(|node| node.kernel(self.kernels));
        last.is_some_and(|kernel| kernel.operator.name == "softmax")
    }

    /// Binds the image to an arena of at least [`Image::arena_length`] bytes, whose contents do not matter: copies its constants in RAM there, and resets its
    /// states.
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

    /// The kernels that run it.
    pub fn kernels(&self) -> &'a [Kernel] {
        self.bound.checked().kernels()
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

    /// The elements of graph input `index`, as [`Model::input`].
    ///
    /// # Panics
    /// If there is no such input, or its dtype is another.
    pub fn input_elements<T: Element>(&mut self, index: usize) -> &mut [T] {
        self.image().input(index).require_dtype::<T>();
        // `bind` has checked that all values are aligned.
        <[T]>::mut_from_bytes(self.input(index).as_mut_bytes()).ok().checked_part()
    }

    /// The elements of graph output `index`, as [`Model::output`].
    ///
    /// # Panics
    /// If there is no such output, or its dtype is another.
    pub fn output_elements<T: Element>(&self, index: usize) -> &[T] {
        self.image().output(index).require_dtype::<T>();
        <[T]>::ref_from_bytes(self.output(index).as_bytes()).ok().checked_part()
    }

    /// Graph output `index`, as the last run left it: the elements of an int8 value, the little-endian bytes of another.
    ///
    /// # Panics
    /// If there is no such output.
    pub fn output(&self, index: usize) -> &[i8] {
        self.bound.arena().get(self.image().output(index).range()).checked_part()
    }

    /// Resets all states to their start. The rest of the arena stays as it is.
    pub fn reset(&mut self) {
        self.bound.reset();
    }

    /// Runs all nodes.
    pub fn run(&mut self) {
        self.run_observed(|_, _, _| {});
    }

    /// Runs all nodes and calls `after(index, outputs, arena)` after each, to time, trace or compare layers. [`Value::pixels`] finds the bytes of
    /// an output in the arena.
    pub fn run_observed(&mut self, after: impl FnMut(usize, &'a [Value], &[i8])) {
        self.bound.run(after);
    }
}
