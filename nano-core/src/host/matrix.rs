//! Matrix products of int8, requantized: the loop of convolutions and fully connected layers.

use alloc::vec::Vec;

use super::processor::{Instructions, Lanes, MOST_LANES};
use crate::kernels::{Channel, Requantization};

/// Channels that are requantized alike, in blocks of lanes, and what their sums begin with.
pub(crate) struct Matrix<I: Instructions> {
    /// Chunks of up to [`Matrix::MOST_BLOCKS`] blocks of channels, each `[group of inputs][block][lane]`. A word is a lane's group of weights.
    words: Vec<i32>,
    /// For each block, the biases of its lanes, their mantissas, addends and shifts.
    blocks: Vec<[[i32; MOST_LANES]; 4]>,
    channels: Vec<Channel>,
    /// Words of each lane.
    groups: usize,
    requantization: Requantization,
    instructions: core::marker::PhantomData<I>,
}

/// The rows that a matrix is multiplied by: each is read from segments of memory.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    /// The memory, in the elements that the instructions multiply.
    pub(crate) memory: &'a [u8],
    /// Where each row starts, in bytes.
    pub(crate) starts: &'a [u32],
    /// Where each segment starts, in bytes from the row's start.
    pub(crate) segments: &'a [u32],
    /// Words of each segment.
    pub(crate) words_per_segment: usize,
}

impl Rows<'_> {
    /// Whether all that is read lies in the memory.
    fn lie_in_memory(&self) -> bool {
        let last = |starts: &[u32]| starts.iter().copied().max().unwrap_or(0) as usize;
        last(self.starts) + last(self.segments) + 4 * self.words_per_segment <= self.memory.len()
    }
}

impl<I: Instructions> Matrix<I> {
    /// Blocks of channels that are computed at once, so that their sums of several rows stay in registers.
    const MOST_BLOCKS: usize = if I::LANES == 16 { 4 } else { 2 };

    /// The matrix of `weights`, `[channel][segment][input]`. A segment takes whole words, filled up with zeros.
    pub(crate) fn new(
        channels: &[Channel],
        requantization: Requantization,
        segments: usize,
        inputs_per_segment: usize,
        weights: &[i8],
    ) -> Self {
        let words_per_segment = inputs_per_segment.div_ceil(I::GROUP);
        let inputs = segments * inputs_per_segment;
        let groups = segments * words_per_segment;
        let count = channels.len().div_ceil(I::LANES);
        let of_word = |channel: usize, group: usize| {
            let (segment, word) = (group / words_per_segment, group % words_per_segment);
            I::word(|index| match I::GROUP * word + index {
                input if input < inputs_per_segment && channel < channels.len() => {
                    weights[channel * inputs + segment * inputs_per_segment + input]
                }
                _ => 0,
            })
        };
        let mut words = Vec::with_capacity(count * groups * I::LANES);
        for first in (0..count).step_by(Self::MOST_BLOCKS) {
            let blocks = first..count.min(first + Self::MOST_BLOCKS);
            for group in 0..groups {
                let lanes = blocks.start * I::LANES..blocks.end * I::LANES;
                words.extend(lanes.map(|channel| of_word(channel, group)));
            }
        }
        let blocks = (0..count).map(|block| {
            let mut lanes = [[0; MOST_LANES]; 4];
            let first = block * I::LANES;
            for (lane, channel) in channels.iter().skip(first).take(I::LANES).enumerate() {
                let weights = &weights[(first + lane) * inputs..][..inputs];
                for (lanes, number) in lanes.iter_mut().zip(I::record(channel, weights)) {
                    lanes[lane] = number;
                }
            }
            lanes
        });
        Matrix {
            words,
            blocks: blocks.collect(),
            channels: channels.to_vec(),
            groups,
            requantization,
            instructions: core::marker::PhantomData,
        }
    }

    /// Multiplies all rows; of row r, the channels are written from `output[r * pitch]` on.
    ///
    /// # Safety
    /// The processor has the instructions.
    #[inline(always)]
    pub(crate) unsafe fn multiply(&self, rows: &Rows<'_>, output: &mut [i8], pitch: usize) {
        assert!(rows.segments.len() * rows.words_per_segment == self.groups, "rows of another length");
        assert!(rows.lie_in_memory(), "rows reach past their memory");
        let Some(last) = rows.starts.len().checked_sub(1) else { return };
        assert!(last * pitch + self.channels.len() <= output.len(), "the output is too short");
        let mut words = self.words.as_ptr();
        for (index, blocks) in self.blocks.chunks(Self::MOST_BLOCKS).enumerate() {
            let first = index * Self::MOST_BLOCKS * I::LANES;
            let chunk = Chunk { matrix: self, words, first, blocks };
            // SAFETY: all that is read and written was checked above.
            unsafe {
                match (I::LANES, blocks.len(), rows.starts.len()) {
                    (_, 1, 1) => chunk.multiply::<1, 1>(rows, output, pitch),
                    (_, 2, 1) => chunk.multiply::<1, 2>(rows, output, pitch),
                    (16, 3, 1) => chunk.multiply::<1, 3>(rows, output, pitch),
                    (16, 4, 1) => chunk.multiply::<1, 4>(rows, output, pitch),
                    (_, 1, _) => chunk.multiply::<8, 1>(rows, output, pitch),
                    (16, 2, _) => chunk.multiply::<8, 2>(rows, output, pitch),
                    (16, 3, _) => chunk.multiply::<8, 3>(rows, output, pitch),
                    (16, 4, _) => chunk.multiply::<6, 4>(rows, output, pitch),
                    _ => chunk.multiply::<4, 2>(rows, output, pitch),
                }
            }
            words = words.wrapping_add(self.groups * blocks.len() * I::LANES);
        }
    }
}

/// The next blocks of a matrix.
struct Chunk<'a, I: Instructions> {
    matrix: &'a Matrix<I>,
    words: *const i32,
    /// The first channel.
    first: usize,
    blocks: &'a [[[i32; MOST_LANES]; 4]],
}

impl<I: Instructions> Chunk<'_, I> {
    /// Multiplies by `R` rows at a time.
    #[inline(always)]
    unsafe fn multiply<const R: usize, const B: usize>(&self, rows: &Rows<'_>, output: &mut [i8], pitch: usize) {
        let count = rows.starts.len();
        let Matrix { channels, requantization, .. } = self.matrix;
        let outputs = (channels.len() - self.first).min(B * I::LANES);
        let clamp = if requantization.is_one_pass() { requantization.clamp_of_int8() } else { (0, 0) };
        let mut row = 0;
        while row < count {
            // After the last row it is computed again, and not written.
            let starts: [*const u8; R] = core::array::from_fn(|index| {
                let start = rows.starts[(row + index).min(count - 1)];
                rows.memory.as_ptr().wrapping_add(start as usize)
            });
            let output = output.as_mut_ptr().wrapping_add(row * pitch + self.first);
            // SAFETY: the caller's.
            let sums = unsafe { self.sums::<R, B>(rows, starts) };
            if !requantization.is_one_pass() {
                // SAFETY: the caller's.
                unsafe { self.write_literal(sums, output, count - row, pitch) };
                row += R;
                continue;
            }
            // Each sum by a number that the compiler knows, so that it stays in its register.
            macro_rules! write_each {
                ($block:literal: $($row:literal)*) => {
                    if $block < B {
                        let [_, mantissas, addends, shifts] = &self.blocks[$block % B];
                        let lanes = Lanes::load([mantissas, addends, shifts]);
                        let count_of_block = (outputs - $block * I::LANES).min(I::LANES);
                        $(if $row < R && row + $row < count {
                            let output = output.wrapping_add($row * pitch + $block * I::LANES);
                            I::requantize(sums[$row % R][$block % B], &lanes, clamp, output, count_of_block);
                        })*
                    }
                };
            }
            // SAFETY: the caller's.
            unsafe {
                write_each!(0: 0 1 2 3 4 5 6 7);
                write_each!(1: 0 1 2 3 4 5 6 7);
                write_each!(2: 0 1 2 3 4 5 6 7);
                write_each!(3: 0 1 2 3 4 5 6 7);
            }
            row += R;
        }
    }

    #[inline(always)]
    unsafe fn sums<const R: usize, const B: usize>(
        &self,
        rows: &Rows<'_>,
        starts: [*const u8; R],
    ) -> [[I::Vector; B]; R] {
        // SAFETY: the caller's.
        unsafe {
            let biases: [I::Vector; B] = core::array::from_fn(|block| I::load(self.blocks[block][0].as_ptr()));
            let mut sums = [biases; R];
            let mut words = self.words;
            for &segment in rows.segments {
                // Each row's start stays in a register, and one more has the place in all of them.
                let mut place = segment as usize;
                let end = place + 4 * rows.words_per_segment;
                while place < end {
                    let weights: [I::Vector; B] =
                        core::array::from_fn(|block| I::load(words.wrapping_add(block * I::LANES)));
                    words = words.wrapping_add(B * I::LANES);
                    for (sums, start) in sums.iter_mut().zip(starts) {
                        let inputs = I::splat(start.wrapping_add(place));
                        for (sum, weights) in sums.iter_mut().zip(weights) {
                            *sum = I::multiply_add(*sum, inputs, weights);
                        }
                    }
                    place += 4;
                }
            }
            sums
        }
    }

    /// Requantizes the sums of the first `count` rows in the literal form.
    unsafe fn write_literal<const R: usize, const B: usize>(
        &self,
        sums: [[I::Vector; B]; R],
        output: *mut i8,
        count: usize,
        pitch: usize,
    ) {
        let Matrix { channels, requantization, .. } = self.matrix;
        for (row, sums) in sums.iter().enumerate().take(count) {
            for (block, &sums) in sums.iter().enumerate() {
                let output = output.wrapping_add(row * pitch + block * I::LANES);
                let channels = channels[self.first + block * I::LANES..].iter().take(I::LANES);
                let mut words = [0; MOST_LANES];
                // SAFETY: the caller's.
                unsafe {
                    I::store(sums, words.as_mut_ptr());
                    for (lane, channel) in channels.enumerate() {
                        output.wrapping_add(lane).write(requantization.apply(channel, words[lane]));
                    }
                }
            }
        }
    }
}
