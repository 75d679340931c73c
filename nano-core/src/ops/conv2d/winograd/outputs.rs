//! The transform of products: to accumulators, which are requantized, and their place in the output.

use core::cell::Cell;

use super::Add;
use super::transform::Transform;
use crate::image::Value;
use crate::kernels::{Channel, Form, LANES, Requantization, SumsOfPoint};
use crate::operator::CheckedPart;

/// The pixels of a tile, four output channels of each, `[row][column][output channel]`.
#[repr(align(4))]
pub(super) struct Tile<const OUTPUTS: usize>([[[i8; LANES]; OUTPUTS]; OUTPUTS]);

/// The pixels of the output under a tile.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// Elements before the first one.
    start: usize,
    /// Elements from one row to the next, and from one pixel to the next.
    row_step: usize,
    pitch: usize,
    /// Rows and columns inside the output.
    rows: usize,
    columns: usize,
    /// Output channels, up to four.
    channels: usize,
}

impl Place {
    /// The pixels from (`y`, `x`) on of a tile of `side` by `side`, and their channels from `channel` on.
    #[inline(always)]
    pub(super) fn new(output: &Value, (y, x): (usize, usize), side: usize, channel: usize, channels: usize) -> Self {
        let [height, width, _] = output.shape.map(|side| side as usize);
        let pitch = output.pitch as usize;
        Place {
            start: (y * width + x) * pitch + channel,
            row_step: width * pitch,
            pitch,
            rows: (height - y).min(side),
            columns: (width - x).min(side),
            channels,
        }
    }

    /// The elements of `output` under the tile, from its first to its last.
    #[inline(always)]
    fn of(self, output: &mut [i8]) -> &mut [i8] {
        let length = (self.rows - 1) * self.row_step + (self.columns - 1) * self.pitch + self.channels;
        output.get_mut(self.start..).checked_part().get_mut(..length).checked_part()
    }

    /// Whether all pixels have four channels in a word.
    #[inline(always)]
    fn is_in_words(self, output: &[i8]) -> bool {
        self.channels == LANES && (output.as_ptr().addr() | self.row_step | self.pitch).is_multiple_of(4)
    }
}

impl<const OUTPUTS: usize> Tile<OUTPUTS> {
    pub(super) fn new() -> Self {
        Tile([[[0; LANES]; OUTPUTS]; OUTPUTS])
    }

    /// Writes the pixels to `output`.
    #[inline(never)]
    pub(super) fn write(&self, output: &mut [i8], place: Place) {
        let output = place.of(output);
        if output.is_empty() {
            return;
        }
        let in_words = place.is_in_words(output);
        let mut row_start = output.as_mut_ptr();
        // Fast path: a tile that lies in the output as a whole.
        if in_words && place.rows == OUTPUTS && place.columns == OUTPUTS {
            for row in &self.0 {
                let mut to = row_start;
                for pixel in row {
                    // SAFETY: `Place::of` has checked that these channels lie in the output.
                    unsafe { *to.cast::<u32>() = *pixel.as_ptr().cast::<u32>() };
                    to = to.wrapping_add(place.pitch);
                }
                row_start = row_start.wrapping_add(place.row_step);
            }
            return;
        }
        for row in self.0.iter().take(place.rows) {
            let mut to = row_start;
            for pixel in row.iter().take(place.columns) {
                // SAFETY: `Place::of` has checked that these channels lie in the output. Slices cost 10 instructions more per pixel.
                unsafe {
                    if in_words {
                        *to.cast::<u32>() = *pixel.as_ptr().cast::<u32>();
                    } else {
                        for (channel, &y) in pixel.iter().take(place.channels).enumerate() {
                            *to.add(channel) = y;
                        }
                    }
                }
                to = to.wrapping_add(place.pitch);
            }
            row_start = row_start.wrapping_add(place.row_step);
        }
    }

    /// Adds the pixels to those of the residual in `output`.
    #[inline(never)]
    pub(super) fn add_to(&mut self, output: &mut [i8], place: Place, add: Add<'_>) {
        let mut sum = Tile::new();
        sum.read(output, place);
        let [convolved, residual] = [&mut *self, &mut sum]
            .map(|tile| Cell::from_mut(tile.0.as_flattened_mut().as_flattened_mut()).as_slice_of_cells());
        add(convolved, residual);
        sum.write(output, place);
    }

    /// Reads the pixels of `output`.
    #[inline(never)]
    fn read(&mut self, output: &mut [i8], place: Place) {
        let output = place.of(output);
        if output.is_empty() {
            return;
        }
        let in_words = place.is_in_words(output);
        let mut row_start = output.as_ptr();
        for row in self.0.iter_mut().take(place.rows) {
            let mut from = row_start;
            for pixel in row.iter_mut().take(place.columns) {
                // SAFETY: as in `write`.
                unsafe {
                    if in_words {
                        *pixel.as_mut_ptr().cast::<u32>() = *from.cast::<u32>();
                    } else {
                        for (channel, y) in pixel.iter_mut().take(place.channels).enumerate() {
                            *y = *from.add(channel);
                        }
                    }
                }
                from = from.wrapping_add(place.pitch);
            }
            row_start = row_start.wrapping_add(place.row_step);
        }
    }

    /// Transforms the products of `tile`, one of four, to up to four output channels. `rows` is memory for them.
    #[inline(never)]
    pub(super) fn fill<F: Form, T: Transform<SIDE, OUTPUTS>, const SIDE: usize>(
        &mut self,
        requantization: &Requantization,
        channels: &[Channel],
        products: &[SumsOfPoint],
        tile: usize,
        rows: &mut [[i32; SIDE]; OUTPUTS],
    ) {
        let Some(products) = products.as_chunks::<SIDE>().0.first_chunk::<SIDE>() else { return };
        let tile = tile % LANES;
        for (lane, channel) in channels.iter().take(LANES).enumerate() {
            // A number that LLVM does not know: it would transform all columns at once, and spill. The same for the rows.
            for column in 0..core::hint::black_box(SIDE).min(SIDE) {
                let mut points: [i32; SIDE] = core::array::from_fn(|row| products[row][column][lane][tile]);
                if column == 1 {
                    points[1] = points[1].wrapping_add(T::constant(channel.bias));
                }
                for (row, output) in rows.iter_mut().zip(T::outputs(points)) {
                    row[column] = output;
                }
            }
            for (&row, pixels) in core::hint::black_box(&rows[..]).iter().zip(&mut self.0) {
                for (pixel, output) in pixels.iter_mut().zip(T::outputs(row)) {
                    let clamp = (requantization.min, requantization.max);
                    pixel[lane] = T::requantize::<F>(channel, T::accumulator(output), clamp) as i8;
                }
            }
        }
    }
}
