//! The sliding window that convolutions and pools share: its attributes' rules and its output size.

use crate::Error;
use crate::image::Value;
use crate::operator::{Io, Node, require};

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
    const LARGEST: i32 = 1 << 15;

    fn check(&self, operator: &'static str, input: u32, output: u32) -> Result<(), Error> {
        let positive = 1..=Self::LARGEST;
        require!(operator, positive.contains(&self.kernel), "the kernel is not 1 to 32768", self.kernel);
        require!(operator, positive.contains(&self.stride), "the stride is not 1 to 32768", self.stride);
        require!(operator, positive.contains(&self.dilation), "the dilation is not 1 to 32768", self.dilation);
        require!(operator, (0..Self::LARGEST).contains(&self.before), "the padding is not 0 to 32767", self.before);
        require!(operator, (0..Self::LARGEST).contains(&self.after), "the padding is not 0 to 32767", self.after);
        let room = i64::from(input) + i64::from(self.before) + i64::from(self.after)
            - i64::from(self.dilation) * (i64::from(self.kernel) - 1)
            - 1;
        require!(operator, room >= 0, "the window is larger than the padded input, by", -room);
        let expected = room / i64::from(self.stride) + 1;
        require!(operator, i64::from(output) == expected, "the output's side does not follow from the window", output);
        Ok(())
    }

    /// The input position of the first tap of window `index`; negative in the padding.
    pub(crate) fn start(&self, index: usize) -> i32 {
        index as i32 * self.stride - self.before
    }

    /// The input positions under window `index`, without those in the padding.
    pub(crate) fn covered(&self, index: usize, input: u32) -> impl Iterator<Item = usize> + Clone {
        let start = self.start(index);
        let positions = (0..self.kernel).map({
            let dilation = self.dilation;
            move |tap| start + tap * dilation
        });
        positions.filter(move |position| (0..input as i32).contains(position)).map(|position| position as usize)
    }
}

/// A window that slides over height and width.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) vertical: Axis,
    pub(crate) horizontal: Axis,
}

impl Window {
    /// Checks both axes against the height and width of the layer's input and output.
    pub(crate) fn check(&self, operator: &'static str, input: &Value, output: &Value) -> Result<(), Error> {
        self.vertical.check(operator, input.shape[0], output.shape[0])?;
        self.horizontal.check(operator, input.shape[1], output.shape[1])?;
        // In 64 bits: the sizes of windows, scratch memory and packed blocks, at most 4 times this, then fit the 32 of a device.
        let width = u64::from(input.shape[1]) + (self.horizontal.before + self.horizontal.after) as u64;
        let padded = width * u64::from(input.shape[2]) * self.vertical.kernel as u64;
        let rule = "the padded rows under a window have more than 2^28 elements";
        require!(operator, padded <= Value::LARGEST, rule, padded as i64);
        Ok(())
    }

    /// [`Window::check`], and what pooling adds: the channels stay, scale and zero point stay, and every window holds an element.
    pub(crate) fn check_pool(&self, operator: &'static str, input: &Value, output: &Value) -> Result<(), Error> {
        self.check(operator, input, output)?;
        require!(operator, input.shape[2] == output.shape[2], "the number of channels changes to", output.shape[2]);
        require!(operator, input.scale == output.scale, "the scale changes to (bits)", output.scale.to_bits());
        require!(operator, input.zero_point == output.zero_point, "the zero point changes to", output.zero_point);
        for (axis, input, output) in
            [(self.vertical, input.shape[0], output.shape[0]), (self.horizontal, input.shape[1], output.shape[1])]
        {
            let mut windows = 0..output as usize;
            let empty = windows.find(|&index| axis.covered(index, input).next().is_none());
            require!(operator, empty.is_none(), "a window lies in the padding alone", empty.unwrap_or(0) as i64);
        }
        Ok(())
    }

    /// Makes each output element `finish(fold over the input elements of its channel under its window, their number)`.
    #[inline]
    pub(crate) fn pool(
        &self,
        node: &Node<'_>,
        io: &mut Io<'_>,
        start: i32,
        fold: impl Fn(i32, i32) -> i32,
        finish: impl Fn(i32, i32) -> i8,
    ) {
        let [height, width, channels] = node.input(0).shape;
        let outputs_per_row = node.output().shape[1] as usize;
        let pixels = io.output.chunks_exact_mut(channels as usize);
        for (pixel, output) in pixels.enumerate() {
            let rows = self.vertical.covered(pixel / outputs_per_row, height);
            let columns = self.horizontal.covered(pixel % outputs_per_row, width);
            let positions = rows.flat_map(|y| columns.clone().map(move |x| y * width as usize + x));
            let starts = positions.map(|position| position * channels as usize);
            for (channel, output) in output.iter_mut().enumerate() {
                let (folded, count) = starts.clone().fold((start, 0), |(folded, count), start| {
                    (fold(folded, i32::from(io.inputs[0][start + channel])), count + 1)
                });
                *output = finish(folded, count);
            }
        }
    }

    /// Positions under the window.
    pub(crate) fn area(&self) -> usize {
        self.vertical.kernel as usize * self.horizontal.kernel as usize
    }

    /// Bytes of scratch for [`Window::rows`]: the padded rows under one row of windows; none without padding.
    pub(crate) fn scratch_length(&self, input: &Value) -> usize {
        let padding = self.vertical.before | self.vertical.after | self.horizontal.before | self.horizontal.after;
        if padding == 0 { 0 } else { self.vertical.kernel as usize * self.padded_row(input) }
    }

    fn padded_row(&self, input: &Value) -> usize {
        (self.horizontal.before as usize + input.shape[1] as usize + self.horizontal.after as usize)
            * input.shape[2] as usize
    }

    /// The input rows under the windows of output row `y`, and the distance in bytes from one to the next. With padding
    /// they are copied to `scratch`, with the zero point around them; so no inner loop asks where the edge is.
    pub(crate) fn rows<'m>(
        &self,
        y: usize,
        value: &Value,
        input: &'m [i8],
        scratch: &'m mut [i8],
    ) -> (&'m [i8], usize) {
        let [height, width, channels] = value.shape.map(|side| side as usize);
        let row = width * channels;
        if self.scratch_length(value) == 0 {
            return (&input[y * self.vertical.stride as usize * row..], self.vertical.dilation as usize * row);
        }
        let left = self.horizontal.before as usize * channels;
        let zero = value.zero_point as i8;
        let top = self.vertical.start(y);
        for (ky, padded) in (0..).zip(scratch.chunks_exact_mut(self.padded_row(value))) {
            let y: i32 = top + ky * self.vertical.dilation;
            if (0..height as i32).contains(&y) {
                padded[..left].fill(zero);
                padded[left..left + row].copy_from_slice(&input[y as usize * row..][..row]);
                padded[left + row..].fill(zero);
            } else {
                padded.fill(zero);
            }
        }
        (scratch, self.padded_row(value))
    }
}

/// Declares the attributes of an operator with a window, and those named behind them, in the image's order.
macro_rules! window_attributes {
    ($($extra:ident),* $(,)?) => {
        $crate::operator::attributes! {
            /// The window, then what this operator adds to it, in the image's order.
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
