//! The transform of inputs: from the pixels under tiles to int16, two channels in a word.
//!
//! Pixels are read four channels at a time, as words where they are aligned. Channels a, b, c, d become the pairs (a, c) and (b, d). If the number of channels
//! is no multiple of four, the first ones come alone: of one to three channels x, y, z the pairs are (x, -), or (x, y), or (x, -) and (y, z).

use super::transform::{HALF, Transform, both, separate};
use crate::image::Value;
use crate::kernels::{LANES, PairOfChannels};
use crate::operator::CheckedPart;

/// The most columns of pixels under adjacent tiles of a group.
const COLUMNS: usize = 18;

/// An input value, and a pixel of its zero point that stands for all pixels of the padding.
#[derive(Clone, Copy)]
pub(super) struct Pixels<'m> {
    input: &'m [i8],
    padding: &'m [i8],
    height: usize,
    width: usize,
    /// Elements from one pixel to the next.
    pitch: usize,
    pub(super) channels: usize,
    /// Whether all pixels are aligned to words.
    aligned: bool,
}

impl<'m> Pixels<'m> {
    /// The pixels of `value`.
    pub(super) fn new(input: &'m [i8], value: &Value, padding: &'m [i8]) -> Self {
        let [height, width, channels] = value.shape.map(|side| side as usize);
        let pitch = value.pitch as usize;
        let aligned = (input.as_ptr().addr() | pitch).is_multiple_of(size_of::<u32>());
        Pixels { input, padding, height, width, pitch, channels, aligned }
    }
}

/// The pixels under one to four tiles side by side: the first channel of each, `[column][row]`.
pub(super) struct Patch<const SIDE: usize> {
    pixels: [[*const i8; SIDE]; COLUMNS],
    /// The first tile's place in its group.
    pub(super) first: usize,
    pub(super) tiles: usize,
    /// Pairs of channels of these pixels, transformed along the columns: `[pair][row][column]`.
    rows: Rows<SIDE>,
}

type Rows<const SIDE: usize> = [[[u32; COLUMNS]; SIDE]; 2];

/// The index of the input channel that is `index`-th in the order of the pairs.
#[inline(always)]
pub(super) fn channel_at(index: usize, channels: usize) -> usize {
    match index.checked_sub(channels % 4) {
        // Swaps the second and the third of four.
        Some(of_four) => index - of_four % 4 + ((of_four % 2) << 1 | (of_four / 2 % 2)),
        None => index,
    }
}

impl<const SIDE: usize> Patch<SIDE> {
    pub(super) fn new() -> Self {
        let (pixels, rows) = ([[core::ptr::null(); SIDE]; COLUMNS], [[[0; COLUMNS]; SIDE]; 2]);
        Patch { pixels, first: 0, tiles: 0, rows }
    }

    fn columns(&self) -> usize {
        (self.tiles * (SIDE - 2) + 2).min(COLUMNS)
    }

    /// Points to `input` from (`top`, `left`) on.
    #[inline(never)]
    pub(super) fn point_to(&mut self, input: &Pixels<'_>, top: isize, left: isize) {
        let columns = self.columns();
        let step = input.width * input.pitch;
        let start = (top * input.width as isize + left) * input.pitch as isize;
        let mut pixel = input.input.as_ptr().wrapping_offset(start);
        let (bottom, right) = (top + SIDE as isize, left + columns as isize);
        let inside = top >= 0 && left >= 0 && bottom <= input.height as isize && right <= input.width as isize;
        for (x, column) in self.pixels.iter_mut().take(columns).enumerate() {
            let x_inside = ((left + x as isize) as usize) < input.width;
            let mut row = pixel;
            for (y, there) in column.iter_mut().enumerate() {
                *there = row;
                let is_padding = !x_inside || ((top + y as isize) as usize) >= input.height;
                if !inside && is_padding {
                    *there = input.padding.as_ptr();
                }
                row = row.wrapping_add(step);
            }
            pixel = pixel.wrapping_add(input.pitch);
        }
    }

    /// Transforms all channels to `pairs`: `SIDE * SIDE` elements for each pair.
    #[inline(always)]
    pub(super) fn transform<T: Transform<SIDE, OUTPUTS>, const OUTPUTS: usize>(
        &mut self,
        input: &Pixels<'_>,
        mut pairs: &mut [PairOfChannels],
    ) {
        let alone = input.channels % 4;
        if alone > 0 {
            self.first_channels::<T, OUTPUTS>(alone);
            pairs = self.along_rows::<T, OUTPUTS>(0, pairs);
            if alone == 3 {
                pairs = self.along_rows::<T, OUTPUTS>(1, pairs);
            }
        }
        let mut first = alone;
        while first < input.channels {
            if input.aligned {
                self.four_aligned_channels::<T, OUTPUTS>(first);
            } else {
                self.four_channels::<T, OUTPUTS>(first);
            }
            for pair in 0..2 {
                pairs = self.along_rows::<T, OUTPUTS>(pair, pairs);
            }
            first += 4;
        }
    }

    /// Transforms along the columns the four channels that `load` returns for a pixel, as bytes that are the inputs plus 128.
    #[inline(always)]
    fn along_columns<T: Transform<SIDE, OUTPUTS>, const OUTPUTS: usize>(&mut self, load: impl Fn(*const i8) -> u32) {
        let columns = self.columns();
        for (column, pixels) in self.pixels.iter().take(columns).enumerate() {
            let words = pixels.map(&load);
            for (rows, shift) in self.rows.iter_mut().zip([0, 8]) {
                let mut transformed = T::inputs(words.map(|word| (word >> shift) & 0x00FF_00FF), 0);
                transformed[1] = transformed[1].wrapping_sub(both(128 * T::ROW_SUM));
                for (row, element) in rows.iter_mut().zip(transformed) {
                    row[column] = element;
                }
            }
        }
    }

    #[inline(never)]
    fn four_aligned_channels<T: Transform<SIDE, OUTPUTS>, const OUTPUTS: usize>(&mut self, first: usize) {
        // SAFETY: `point_to` has pointed to pixels that have these four channels, aligned to words.
        self.along_columns::<T, OUTPUTS>(|pixel| {
            u32::from_le(unsafe { pixel.add(first).cast::<u32>().read() }) ^ SIGNS
        });
    }

    #[inline(never)]
    fn four_channels<T: Transform<SIDE, OUTPUTS>, const OUTPUTS: usize>(&mut self, first: usize) {
        // SAFETY: `point_to` has pointed to pixels that have these four channels.
        self.along_columns::<T, OUTPUTS>(|pixel| {
            u32::from_le(unsafe { pixel.add(first).cast::<u32>().read_unaligned() }) ^ SIGNS
        });
    }

    /// The first `count` channels, 1 to 3, of pixels that have no multiple of four.
    #[inline(never)]
    fn first_channels<T: Transform<SIDE, OUTPUTS>, const OUTPUTS: usize>(&mut self, count: usize) {
        // SAFETY: `point_to` has pointed to pixels that have `count` channels.
        let channel = |pixel: *const i8, index: usize| u32::from(unsafe { pixel.add(index).read() } as u8);
        if count == 3 {
            self.along_columns::<T, OUTPUTS>(|pixel| {
                (channel(pixel, 0) | channel(pixel, 1) << 8 | channel(pixel, 2) << 24) ^ SIGNS
            });
        } else {
            self.along_columns::<T, OUTPUTS>(|pixel| (channel(pixel, 0) | channel(pixel, count - 1) << 16) ^ SIGNS);
        }
    }

    /// Transforms a pair of channels along the rows, to the first elements of `pairs`; returns the elements after them.
    #[inline(never)]
    fn along_rows<'p, T: Transform<SIDE, OUTPUTS>, const OUTPUTS: usize>(
        &self,
        pair: usize,
        pairs: &'p mut [PairOfChannels],
    ) -> &'p mut [PairOfChannels] {
        let (points, rest) = pairs.split_at_mut_checked(SIDE * SIDE).checked_part();
        for tile in 0..self.tiles.min(LANES) {
            let place = (self.first + tile) % LANES;
            // As a slice of a length that LLVM does not know: it would unroll the loop, and spill.
            let rows = core::hint::black_box(&self.rows[pair % 2][..]);
            for (row, points) in rows.iter().zip(points.as_chunks_mut::<SIDE>().0) {
                let Some(row) = row.get(tile * OUTPUTS..).checked_part().first_chunk() else { continue };
                for (point, sum) in points.iter_mut().zip(T::inputs(*row, HALF)) {
                    point[place] = separate(sum);
                }
            }
        }
        rest
    }
}

const SIGNS: u32 = 0x8080_8080;
