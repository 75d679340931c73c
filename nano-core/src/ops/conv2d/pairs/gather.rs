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
}

/// What [`Gather::fill`] copies for all tiles of a layer.
#[cfg(feature = "alloc")]
#[derive(Default)]
pub(in crate::ops::conv2d) struct Fills {
    /// Tiles that are copied tap by tap ([`Gather::fill_by_tap`]).
    pub(in crate::ops::conv2d) tiles_at_edges: u64,
    /// Runs of columns whose inputs lie side by side, and those that are a single tap of a tile at an edge.
    pub(in crate::ops::conv2d) runs: u64,
    pub(in crate::ops::conv2d) at_edges: u64,
    /// Four columns at a time, and columns left over.
    pub(in crate::ops::conv2d) fours: u64,
    pub(in crate::ops::conv2d) rest: u64,
}

#[cfg(feature = "alloc")]
impl Fills {
    pub(in crate::ops::conv2d) fn of(attributes: &Attributes, input: &Value, output: &Value) -> Fills {
        let window = attributes.window();
        let sides = [input.shape[0] as usize, input.shape[1] as usize];
        let (channels, pitch) = (u64::from(input.shape[2]), input.pitch);
        let [pixels, columns] = [output.shape[0] * output.shape[1], output.shape[1]].map(|number| number as usize);
        let [height, width] = [window.vertical, window.horizontal].map(|axis| axis.kernel as u64);
        let side_by_side = window.horizontal.dilation == 1 && pitch == input.shape[2];
        let mut fills = Fills::default();
        for pixel in (0..pixels).step_by(LANES) {
            let (y, x) = (pixel / nonzero(columns), pixel % nonzero(columns));
            let is_inside = match window.is_one_to_one() {
                true => pixel + LANES <= pixels,
                false => is_inside(window, sides, (y, x)) && x + LANES <= columns,
            };
            let (runs, length) = match (is_inside, side_by_side) {
                (true, true) => (height, width * channels),
                _ => (height * width, channels),
            };
            fills.runs += runs;
            if !is_inside {
                fills.tiles_at_edges += 1;
                fills.at_edges += runs;
            }
            fills.fours += runs * (length / 4);
            fills.rest += runs * (length % 4);
        }
        fills
    }
}

/// Whether the windows of four pixels of a row, from (y, x) on, lie inside the input.
fn is_inside(Window { vertical, horizontal }: Window, [height, width]: [usize; 2], (y, x): (usize, usize)) -> bool {
    let (top, left) = (vertical.start(y), horizontal.start(x));
    let bottom = top + (vertical.kernel - 1) * vertical.dilation;
    let right = left + (LANES as i32 - 1) * horizontal.stride + (horizontal.kernel - 1) * horizontal.dilation;
    top >= 0 && left >= 0 && bottom < height as i32 && right < width as i32
}
