//! im2col for pairs of pixels: copies the inputs under the windows of four output pixels to their columns.

#[cfg(feature = "alloc")]
use crate::image::Value;
use crate::kernels::{Channel, LANES, PairedColumn, fill_pairs, fill_rows_of_pairs};
use crate::operator::{CheckedPart, nonzero};
#[cfg(feature = "alloc")]
use crate::ops::conv2d::Attributes;
use crate::ops::conv2d::Conv2d;
use crate::ops::window::Window;

/// im2col of four pixels at a time.
pub(super) struct Gather<'a> {
    window: Window,
    /// Whether each window is the pixel at the output's place; then all pixels count as one row.
    one_to_one: bool,
    /// The input's height and width.
    height: usize,
    width: usize,
    /// Elements from one input pixel to the next.
    pitch: usize,
    /// Output pixels in a row.
    pub(super) output_width: usize,
    /// The input channels of a pixel of padding.
    padding: &'a [i8],
    /// Positions in a row of a window that lie side by side in the input, and the number of such runs.
    run: usize,
    runs: usize,
}

impl<'a> Gather<'a> {
    pub(super) fn new(convolution: &Conv2d<'_, Channel>, padding: &'a [i8]) -> Self {
        let window = convolution.attributes.window();
        let [mut height, mut width, channels] = convolution.input.shape.map(|side| side as usize);
        let pitch = convolution.input.pitch as usize;
        let mut output_width = convolution.output.shape[1] as usize;
        let one_to_one = window.is_one_to_one();
        if one_to_one {
            // No tile spans two rows.
            (height, width, output_width) = (1, height * width, height * output_width);
        }
        let taps = window.horizontal.kernel as usize;
        let (run, runs) =
            if window.horizontal.dilation == 1 && pitch == channels { (taps * channels, 1) } else { (channels, taps) };
        let run = nonzero(run);
        Gather { window, one_to_one, height, width, pitch, output_width, padding, run, runs }
    }

    /// Copies the inputs under the windows of `pixels` output pixels, from (y, x) on.
    pub(super) fn fill(&self, columns: &mut [PairedColumn], pixels: usize, (y, x): (usize, usize), input: &[i8]) {
        if self.one_to_one && pixels == LANES {
            let inputs = input.get(x * self.pitch..).checked_part();
            return fill_rows_of_pairs(columns, self.run, inputs, self.pitch, 0);
        }
        let Window { vertical, horizontal } = self.window;
        let (top, left) = (vertical.start(y), horizontal.start(x));
        if !is_inside(self.window, [self.height, self.width], (y, x)) || x + LANES > self.output_width {
            return self.fill_by_tap(columns, pixels, (y, x), input);
        }
        let mut row = input.get((top as usize * self.width + left as usize) * self.pitch..).checked_part();
        let step = horizontal.stride as usize * self.pitch;
        let row_step = vertical.dilation as usize * self.width * self.pitch;
        if self.runs == 1 {
            return fill_rows_of_pairs(columns, self.run, row, step, row_step);
        }
        for columns in columns.chunks_exact_mut(nonzero(self.run * self.runs)) {
            fill_rows_of_pairs(columns, self.run, row, step, horizontal.dilation as usize * self.pitch);
            row = row.get(row_step..).unwrap_or_default();
        }
    }

    /// [`Gather::fill`] for tiles whose windows reach into the padding, or that end before or go on after the end of an output row.
    #[inline(never)]
    fn fill_by_tap(&self, columns: &mut [PairedColumn], pixels: usize, (mut y, mut x): (usize, usize), input: &[i8]) {
        let Window { vertical, horizontal } = self.window;
        let mut starts = [(0, 0); LANES];
        for start in starts.iter_mut().take(pixels) {
            *start = (vertical.start(y), horizontal.start(x));
            x += 1;
            if x == self.output_width {
                (y, x) = (y + 1, 0);
            }
        }
        let mut taps = columns.chunks_exact_mut(nonzero(self.padding.len()));
        for ky in 0..vertical.kernel {
            for kx in 0..horizontal.kernel {
                let Some(columns) = taps.next() else { return };
                let inputs = starts.map(|(top, left)| {
                    let (y, x) = ((top + ky * vertical.dilation) as usize, (left + kx * horizontal.dilation) as usize);
                    let inside = y < self.height && x < self.width;
                    if inside { input.get((y * self.width + x) * self.pitch..).checked_part() } else { self.padding }
                });
                fill_pairs(columns, inputs);
            }
        }
    }

    /// Number of tiles that [`Gather::fill`] fills tap by tap.
    #[cfg(feature = "alloc")]
    pub(super) fn edges(attributes: &Attributes, input: &Value, output: &Value) -> u64 {
        let window = attributes.window();
        if window.is_one_to_one() {
            return 0;
        }
        let ([height, width], [_, columns, _]) =
            ([input.shape[0], input.shape[1]].map(|side| side as usize), output.shape.map(|side| side as usize));
        let pixels = (output.shape[0] * output.shape[1]) as usize;
        let is_edge = |pixel: &usize| {
            let (y, x) = (pixel / nonzero(columns), pixel % nonzero(columns));
            x + LANES > columns || !is_inside(window, [height, width], (y, x))
        };
        (0..pixels).step_by(LANES).filter(is_edge).count() as u64
    }
}

/// Whether the windows of four pixels of a row, from (y, x) on, lie inside the input.
fn is_inside(Window { vertical, horizontal }: Window, [height, width]: [usize; 2], (y, x): (usize, usize)) -> bool {
    let (top, left) = (vertical.start(y), horizontal.start(x));
    let bottom = top + (vertical.kernel - 1) * vertical.dilation;
    let right = left + (LANES as i32 - 1) * horizontal.stride + (horizontal.kernel - 1) * horizontal.dilation;
    top >= 0 && left >= 0 && bottom < height as i32 && right < width as i32
}
