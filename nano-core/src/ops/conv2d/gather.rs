//! im2col: copies the inputs under the windows of a tile of output pixels, one column for each window.

use super::Conv2d;
use crate::image::Element;
use crate::kernels::{self, Columns, LANES};
use crate::operator::{CheckedPart, nonzero};
use crate::ops::channels::ChannelRules;
use crate::ops::window::Window;

/// im2col for one convolution: the memory layout of a tile's inputs.
pub(super) struct Gather<T> {
    window: Window,
    /// The input's height and width.
    height: usize,
    width: usize,
    /// Elements from one input pixel to the next.
    pitch: usize,
    /// Output pixels in a row.
    pub(super) output_width: usize,
    /// Input channels of a group.
    length: usize,
    /// Number of runs of contiguous taps (kernel positions) in one row of a window; elements of one run, and from one run to the next.
    runs: usize,
    run_length: usize,
    run_step: usize,
    /// Elements from one of a window's rows to the next.
    row_step: usize,
    zero: T,
}

impl<T: Element> Gather<T> {
    /// The layout for a convolution.
    pub(super) fn new<C: ChannelRules<Element = T>>(convolution: &Conv2d<'_, C>) -> Gather<T> {
        let window = convolution.attributes.window();
        let [mut height, mut width, channels] = convolution.input.shape.map(|side| side as usize);
        let pitch = convolution.input.pitch as usize;
        let mut output_width = convolution.output.shape[1] as usize;
        if window.is_one_to_one() {
            // 1x1: treats all pixels as one row, so that no tile spans two rows.
            (height, width, output_width) = (1, height * width, height * output_width);
        }
        let kernel_width = window.horizontal.kernel as usize;
        // Contiguous taps are copied in one call.
        let side_by_side = window.horizontal.dilation == 1 && convolution.groups == 1 && pitch == channels;
        let together = if side_by_side { kernel_width } else { 1 };
        Gather {
            window,
            height,
            width,
            pitch,
            output_width,
            length: convolution.inputs_per_group,
            runs: kernel_width / nonzero(together),
            run_length: together * convolution.inputs_per_group,
            run_step: window.horizontal.dilation as usize * pitch,
            row_step: window.vertical.dilation as usize * width * pitch,
            zero: T::truncate(convolution.input.zero_point),
        }
    }

    /// Copies the inputs under the windows of `pixels` output pixels, starting at (y, x), in the channels of `group`, one column for each window.
    pub(super) fn fill(
        &self,
        columns: &mut Columns<T>,
        pixels: usize,
        (y, x): (usize, usize),
        group: usize,
        input: &[T],
    ) {
        let Window { vertical, horizontal } = self.window;
        let (top, left) = (vertical.start(y), horizontal.start(x));
        let bottom = top + (vertical.kernel - 1) * vertical.dilation;
        let right = left + (LANES as i32 - 1) * horizontal.stride + (horizontal.kernel - 1) * horizontal.dilation;
        let inside = top >= 0 && left >= 0 && bottom < self.height as i32 && right < self.width as i32;
        if !inside || x + LANES > self.output_width {
            self.fill_by_tap(columns, pixels, (y, x), group, input);
            return;
        }
        let mut row = (top as usize * self.width + left as usize) * self.pitch + group * self.length;
        let pitch = horizontal.stride as usize * self.pitch;
        let mut rest = columns;
        for _ in 0..vertical.kernel {
            let mut start = row;
            for _ in 0..self.runs {
                let (run, after) = rest.split_at_mut_checked(self.run_length).checked_part();
                kernels::fill_columns(run, input.get(start..).checked_part(), pitch);
                (rest, start) = (after, start + self.run_step);
            }
            row += self.row_step;
        }
    }

    /// [`Gather::fill`] for tiles whose windows reach into the padding, or that end before or go on after the end of an output row.
    #[inline(never)]
    fn fill_by_tap(
        &self,
        columns: &mut Columns<T>,
        pixels: usize,
        (mut y, mut x): (usize, usize),
        group: usize,
        input: &[T],
    ) {
        let Window { vertical, horizontal } = self.window;
        for pixel in 0..pixels {
            let (top, left) = (vertical.start(y), horizontal.start(x));
            let mut taps = columns.chunks_exact_mut(nonzero(self.length));
            for ky in 0..vertical.kernel {
                let y = top + ky * vertical.dilation;
                for kx in 0..horizontal.kernel {
                    let Some(columns) = taps.next() else { return };
                    let x = left + kx * horizontal.dilation;
                    if (y as usize) < self.height && (x as usize) < self.width {
                        let start = (y as usize * self.width + x as usize) * self.pitch + group * self.length;
                        kernels::fill_column(
                            columns,
                            pixel,
                            input.get(start..).checked_part().get(..self.length).checked_part(),
                        );
                    } else {
                        columns.iter_mut().filter_map(|column| column.get_mut(pixel)).for_each(|x| *x = self.zero);
                    }
                }
            }
            x += 1;
            if x == self.output_width {
                (y, x) = (y + 1, 0);
            }
        }
    }
}
