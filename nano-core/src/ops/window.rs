//! The sliding window of convolutions and pools: kernel size, stride, dilation and padding, their rules and the output size.

use crate::BrokenRule;
use crate::arena::Io;
use crate::image::{Element, Value};
use crate::node::Node;
use crate::operator::{Alias, Checked, CheckedPart, Operator, Output, Quantization, nonzero, refused, require};

/// One axis of a sliding window.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Axis {
    pub(crate) kernel: i32,
    pub(crate) stride: i32,
    pub(crate) dilation: i32,
    pub(crate) before: i32,
    pub(crate) after: i32,
}

impl Axis {
    pub(crate) const LARGEST: i32 = 1 << 15;

    /// The number of windows over `input` elements.
    fn outputs(&self, input: u32) -> Result<u32, BrokenRule> {
        let positive = 1..=Self::LARGEST;
        require!(positive.contains(&self.kernel), "the kernel is not 1 to 32768", self.kernel);
        require!(positive.contains(&self.stride), "the stride is not 1 to 32768", self.stride);
        require!(positive.contains(&self.dilation), "the dilation is not 1 to 32768", self.dilation);
        require!((0..Self::LARGEST).contains(&self.before), "the padding is not 0 to 32767", self.before);
        require!((0..Self::LARGEST).contains(&self.after), "the padding is not 0 to 32767", self.after);
        // No overflow: the input is at most 2^28, the padding below 2^16, and the window below 2^30.
        let room = input as i32 + self.before + self.after - self.dilation * (self.kernel - 1) - 1;
        require!(room >= 0, "the window is larger than the padded input, by", -room);
        Ok((room as u32).checked_div(self.stride as u32).unwrap_or(0) + 1)
    }

    /// The input position of the first tap of window `index`; negative in the padding.
    pub(crate) fn start(&self, index: usize) -> i32 {
        index as i32 * self.stride - self.before
    }

    /// Refuses windows that lie in the padding alone. Checking the first and the last is enough: as taps are at most the input's length
    /// apart, no window skips the input.
    fn check_covered(&self, input: u32, outputs: u32) -> Result<(), BrokenRule> {
        let dense = self.kernel == 1 || self.dilation as u32 <= input;
        require!(dense, "the dilation is larger than the input", self.dilation);
        for index in [0, outputs as usize - 1] {
            let (_, taps) = self.covered(index, input);
            require!(taps > 0, "a window lies in the padding alone", index as i64);
        }
        Ok(())
    }

    /// The taps of window `index` inside the input: the first one's position, and their number.
    pub(crate) fn covered(&self, index: usize, input: u32) -> (usize, usize) {
        let start = self.start(index);
        // The number of taps before the input, and before its end.
        let before = divide_up(-start, self.dilation);
        let end = divide_up(input as i32 - start, self.dilation).min(self.kernel);
        let count = (end - before).max(0);
        ((start + before * self.dilation) as usize, count as usize)
    }
}

/// `a / b`, rounded up; 0 for a negative `a`.
fn divide_up(a: i32, b: i32) -> i32 {
    (a.max(0) as u32 + b as u32 - 1).checked_div(b as u32).unwrap_or(0) as i32
}

/// The part of a window that lies inside the input: numbers of rows and columns, and elements from one to the next.
struct Patch {
    rows: usize,
    row_step: usize,
    columns: usize,
    step: usize,
}

impl Patch {
    /// Folds the elements of `N` channels; `input` begins with the patch's first element.
    #[inline(always)]
    fn fold<T: Element, const N: usize>(&self, input: &[T], start: i32, fold: impl Fn(i32, i32) -> i32) -> [i32; N] {
        let mut folded = [start; N];
        for row in 0..self.rows {
            let mut place = row * self.row_step;
            for _ in 0..self.columns {
                for (folded, &x) in folded.iter_mut().zip(input.get(place..place + N).checked()) {
                    *folded = fold(*folded, x.into());
                }
                place += self.step;
            }
        }
        folded
    }
}

/// The pool with this name and these attributes, which begin with the window's.
pub(crate) const fn pool_operator(name: &'static str, attributes: &'static [&'static str]) -> Operator {
    Operator {
        name,
        attributes,
        inputs: 1..=1,
        outputs: &[Output { quantization: Quantization::SameAs(0), reset: None }],
        alias: Alias::Never,
        shape: |node, _| Window::shape(node, node.input(0).shape[2]),
        macs: |_| 0,
    }
}

/// Checks that a convolution's number of groups divides its input and its output channels.
pub(crate) fn check_groups(node: &Node<'_>, groups: i32) -> Result<(), BrokenRule> {
    let divides = |value: &Value| groups >= 1 && value.shape[2].is_multiple_of(groups as u32);
    require!(divides(node.input(0)), "groups does not divide the input channels", groups);
    require!(divides(node.output(0)), "groups does not divide the output channels", groups);
    Ok(())
}

/// A window that slides over height and width.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) vertical: Axis,
    pub(crate) horizontal: Axis,
}

impl Window {
    /// The window that a node's attributes begin with.
    #[inline]
    pub(crate) fn read(words: &[i32]) -> Result<Window, BrokenRule> {
        let Some(&[kh, kw, sh, sw, dh, dw, top, bottom, left, right]) = words.first_chunk() else {
            return Err(refused("wrong number of attributes", words.len() as i64));
        };
        Ok(Window {
            vertical: Axis { kernel: kh, stride: sh, dilation: dh, before: top, after: bottom },
            horizontal: Axis { kernel: kw, stride: sw, dilation: dw, before: left, after: right },
        })
    }

    /// The shape of a node's output, if it has `channels`.
    pub(crate) fn shape(node: &Node<'_>, channels: u32) -> Result<[u32; 3], BrokenRule> {
        let Window { vertical, horizontal } = Window::read(node.attributes())?;
        let input = node.input(0);
        let height = vertical.outputs(input.shape[0])?;
        let width = horizontal.outputs(input.shape[1])?;
        // In 64 bits: the sizes of windows, scratch memory and packed blocks, at most 4 times this, then fit the 32 of a device.
        let padded = u64::from(input.shape[1]) + (horizontal.before + horizontal.after) as u64;
        let padded = padded * u64::from(input.shape[2]) * vertical.kernel as u64;
        let fits = padded <= Value::LARGEST;
        require!(fits, "the padded rows under a window have more than 2^28 elements", padded as i64);
        Ok([height, width, channels])
    }

    /// Checks that every window holds an element.
    #[inline(never)]
    pub(crate) fn check_pool(&self, input: &Value, output: &Value) -> Result<(), BrokenRule> {
        self.vertical.check_covered(input.shape[0], output.shape[0])?;
        self.horizontal.check_covered(input.shape[1], output.shape[1])
    }

    /// Pools: each output element is `finish(folded, count)`, a number of its dtype, folded over the `count` elements of its channel under its
    /// window.
    #[inline(always)]
    pub(crate) fn pool<T: Element>(
        &self,
        node: &Node<'_>,
        io: Io<'_>,
        start: i32,
        fold: impl Fn(i32, i32) -> i32,
        finish: impl Fn(i32, i32) -> i32,
    ) {
        let Io { inputs, mut outputs, .. } = io;
        let (value, result) = (node.input(0), node.output(0));
        let (input, output): (&[T], &mut [T]) = (inputs.get(0), outputs.take());
        let [height, width, channels] = value.shape;
        let pitch = value.pitch as usize;
        let output_pitch = nonzero(result.pitch as usize);
        // Where a step is used, it lies inside the input.
        let row_step = (self.vertical.dilation as usize).wrapping_mul(width as usize * pitch);
        let step = (self.horizontal.dilation as usize).wrapping_mul(pitch);
        for (row, output) in output.chunks_mut(nonzero(result.shape[1] as usize * output_pitch)).enumerate() {
            let (y, rows) = self.vertical.covered(row, height);
            let input = input.get(y * width as usize * pitch..).checked_part();
            for (column, output) in output.chunks_mut(output_pitch).enumerate() {
                let output = output.get_mut(..channels as usize).checked_part();
                let (x, columns) = self.horizontal.covered(column, width);
                let patch = Patch { rows, row_step, columns, step };
                let count = (rows * columns) as i32;
                let mut input = input.get(x * pitch..).checked_part();
                // Eight channels at a time: their sums stay in registers.
                let (eights, rest) = output.as_chunks_mut();
                for output in eights {
                    *output = patch.fold::<T, 8>(input, start, &fold).map(|folded| T::truncate(finish(folded, count)));
                    input = input.get(8..).checked_part();
                }
                for (output, channel) in rest.iter_mut().zip(0..) {
                    let [folded] = patch.fold::<T, 1>(input.get(channel..).checked_part(), start, &fold);
                    *output = T::truncate(finish(folded, count));
                }
            }
        }
    }

    /// Whether each window is exactly the input pixel at the output's place (1x1, stride 1, no padding).
    pub(crate) fn is_one_to_one(&self) -> bool {
        [self.vertical, self.horizontal]
            .iter()
            .all(|axis| axis.kernel == 1 && axis.stride == 1 && axis.before == 0 && axis.after == 0)
    }

    /// The number of taps.
    pub(crate) fn area(&self) -> usize {
        self.vertical.kernel as usize * self.horizontal.kernel as usize
    }

    /// Elements of scratch for [`Window::rows`]: the padded rows under one row of windows; none without padding.
    pub(crate) fn scratch_length(&self, input: &Value) -> usize {
        let padding = self.vertical.before | self.vertical.after | self.horizontal.before | self.horizontal.after;
        if padding == 0 { 0 } else { self.vertical.kernel as usize * self.padded_row(input) }
    }

    fn padded_row(&self, input: &Value) -> usize {
        (self.horizontal.before as usize + input.shape[1] as usize + self.horizontal.after as usize)
            * input.shape[2] as usize
    }

    /// The input rows under the windows of output row `y`, which follows the row of the last call. With padding they are copied to
    /// `scratch`, padded with the zero point, so that no inner loop checks for the edge.
    pub(crate) fn rows<'m, T: Element>(
        &self,
        y: usize,
        value: &Value,
        input: &'m [T],
        scratch: &'m mut [T],
    ) -> Rows<'m, T> {
        self.rows_of(y, y > 0 && self.vertical.dilation == 1, value, input, scratch)
    }

    /// [`Window::rows`] of any output row, whose first row is 0: all rows are copied.
    pub(crate) fn rows_in_order<'m, T: Element>(
        &self,
        y: usize,
        value: &Value,
        input: &'m [T],
        scratch: &'m mut [T],
    ) -> Rows<'m, T> {
        self.rows_of(y, false, value, input, scratch)
    }

    /// [`Window::rows`]; `continues` says that the scratch memory has those of the row before.
    #[inline(never)]
    fn rows_of<'m, T: Element>(
        &self,
        y: usize,
        continues: bool,
        value: &Value,
        input: &'m [T],
        scratch: &'m mut [T],
    ) -> Rows<'m, T> {
        let [height, width, channels] = value.shape.map(|side| side as usize);
        let pixel_pitch = value.pitch as usize;
        let row = width * pixel_pitch;
        let Axis { kernel, stride, dilation, .. } = self.vertical;
        if self.scratch_length(value) == 0 {
            let elements = input.get(y * stride as usize * row..).checked_part();
            return Rows { elements, pitch: dilation as usize * row, pixel_pitch, first: 0 };
        }
        let pitch = self.padded_row(value);
        let (kernel, stride) = (nonzero(kernel as usize), stride as usize);
        // The scratch is a ring buffer of rows: a row stays in place while windows cover it.
        let (first, new) = if continues { (y * stride % kernel, stride.min(kernel)) } else { (0, kernel) };
        let left = self.horizontal.before as usize * channels;
        let zero = T::truncate(value.zero_point);
        for tap in kernel - new..kernel {
            let padded =
                scratch.get_mut((first + tap) % kernel * pitch..).checked_part().get_mut(..pitch).checked_part();
            let y = self.vertical.start(y) + tap as i32 * dilation;
            if (0..height as i32).contains(&y) {
                let (before, rest) = padded.split_at_mut_checked(left).checked_part();
                let (inside, after) = rest.split_at_mut_checked(width * channels).checked_part();
                before.fill(zero);
                let input = input.get(y as usize * row..).checked_part();
                // Contiguous pixels are copied together.
                let (length, step) = if pixel_pitch == channels { (row, row) } else { (channels, pixel_pitch) };
                for (inside, input) in inside.chunks_exact_mut(nonzero(length)).zip(input.chunks(nonzero(step))) {
                    inside.copy_from_slice(input.get(..inside.len()).checked_part());
                }
                after.fill(zero);
            } else {
                padded.fill(zero);
            }
        }
        Rows { elements: scratch, pitch, pixel_pitch: channels, first }
    }
}

/// The input rows under a row of windows: `pitch` elements apart, their pixels `pixel_pitch`. A ring: the window begins with row `first`, and
/// row 0 follows the last.
pub(crate) struct Rows<'m, T> {
    pub(crate) elements: &'m [T],
    pub(crate) pitch: usize,
    pub(crate) pixel_pitch: usize,
    pub(crate) first: usize,
}

/// Declares the attributes of an operator with a window: the window's, then those named, in the image's order.
macro_rules! window_attributes {
    ($($extra:ident),* $(,)?) => {
        $crate::operator::attributes! {
            /// The window's attributes, then this operator's own, in the image's order.
            struct Attributes {
                kernel_height,
                kernel_width,
                stride_height,
                stride_width,
                dilation_height,
                dilation_width,
                padding_top,
                padding_bottom,
                padding_left,
                padding_right,
                $($extra),*
            }
        }

        impl Attributes {
            fn window(&self) -> $crate::ops::window::Window {
                use $crate::ops::window::{Axis, Window};
                Window {
                    vertical: Axis {
                        kernel: self.kernel_height,
                        stride: self.stride_height,
                        dilation: self.dilation_height,
                        before: self.padding_top,
                        after: self.padding_bottom,
                    },
                    horizontal: Axis {
                        kernel: self.kernel_width,
                        stride: self.stride_width,
                        dilation: self.dilation_width,
                        before: self.padding_left,
                        after: self.padding_right,
                    },
                }
            }
        }
    };
}
pub(crate) use window_attributes;
