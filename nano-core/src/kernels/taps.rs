//! Depthwise convolution micro-kernel for any window: a tile of four channels by two output pixels.

use super::accumulate::{Accumulate, ChannelRecord};
use super::requantize::Requantization;
use super::tile::LANES;
use crate::image::Element;
use crate::operator::unchecked;

/// Output pixels per tile.
const PIXELS: usize = 2;

/// Instructions: the weight of one channel times its inputs of `size` bytes at both pixels, which `load` loads.
#[cfg(target_arch = "riscv32")]
macro_rules! channel {
    ($load:literal, $size:literal, $channel:literal) => {
        concat!(
            concat!("lb {w}, ", $channel, "({weights})\n"),
            concat!($load, " {x}, ", $size, "*", $channel, "({a})\n"),
            concat!($load, " {y}, ", $size, "*", $channel, "({b})\n mul {x}, {x}, {w}\n mul {y}, {y}, {w}\n"),
            concat!(
                "add {s",
                $channel,
                "0}, {s",
                $channel,
                "0}, {x}\n add {s",
                $channel,
                "1}, {s",
                $channel,
                "1}, {y}\n"
            ),
        )
    };
}

/// The taps of a row of depthwise windows, by the strides of the input. A tap is one position of the kernel.
pub(crate) struct Taps {
    /// Rows of the window, and elements from one to the next. They are a ring: the window begins with row `first`, and row 0 follows the
    /// last.
    pub(crate) rows: usize,
    pub(crate) pitch: usize,
    pub(crate) first: usize,
    /// Taps in one row of the window, and elements of input from one to the next.
    pub(crate) per_row: usize,
    pub(crate) step: usize,
    /// Output pixels, and elements of input from one pixel's window to the next pixel's.
    pub(crate) pixels: usize,
    pub(crate) pixel_step: usize,
}

impl Taps {
    /// Computes four channels of a row of output pixels, which are `output_step` elements apart.
    ///
    /// # Panics
    /// If inputs, weights or outputs lie outside their slices.
    #[inline(never)]
    pub(crate) fn run<A: Accumulate>(
        &self,
        requantization: Requantization,
        channels: &[A::Channel; LANES],
        weights: &[[i8; LANES]],
        input: &[A::Element],
        output: &mut [A::Element],
        output_step: usize,
    ) {
        let last = (self.rows - 1) * self.pitch + (self.per_row - 1) * self.step + LANES;
        let taps = self.first < self.rows && self.per_row > 0 && weights.len() == self.rows * self.per_row;
        let inputs = input.len() >= (self.pixels - 1) * self.pixel_step + last;
        let outputs = output.len() >= (self.pixels - 1) * output_step + LANES;
        if !(taps && inputs && outputs) {
            unchecked();
        }
        for pixel in (0..self.pixels).step_by(PIXELS) {
            // With an odd number of pixels, the last tile computes the last but one again.
            let second = (pixel + 1).min(self.pixels - 1);
            let pixels = [second.saturating_sub(1), second];
            // SAFETY: the windows of both pixels lie inside the input, and there is a weight for each tap, see above.
            let sums = unsafe {
                let starts = pixels.map(|pixel| input.as_ptr().add(pixel * self.pixel_step));
                self.dot(channels.each_ref().map(ChannelRecord::narrow_bias), starts, weights.as_ptr())
            };
            for (lane, (channel, sums)) in channels.iter().zip(sums).enumerate() {
                for (pixel, sum) in pixels.into_iter().zip(sums) {
                    // SAFETY: pixel < pixels and lane < LANES, see above. A check per element costs 3 instructions per output.
                    unsafe {
                        *output.as_mut_ptr().add(pixel * output_step + lane) =
                            requantization.apply_as::<A>(channel, sum.into());
                    }
                }
            }
        }
    }

    /// Accumulators `[channel][pixel]`: `bias` plus the products of the inputs under the windows that begin at `starts`.
    ///
    /// # Safety
    /// Every tap's four elements must be readable at both pixels, and `weights` must have as many rows as there are taps.
    #[inline(always)]
    unsafe fn dot<T: Element>(
        &self,
        bias: [i32; LANES],
        starts: [*const T; PIXELS],
        mut weights: *const [i8; LANES],
    ) -> [[i32; PIXELS]; LANES] {
        let mut sums = bias.map(|bias| [bias; PIXELS]);
        for (first, rows) in [(self.first, self.rows - self.first), (0, self.first)] {
            if rows > 0 {
                let inputs = starts.map(|start| start.wrapping_add(first * self.pitch));
                // SAFETY: what the caller promises.
                weights = unsafe { self.add_rows(rows, &mut sums, inputs, weights) };
            }
        }
        sums
    }

    /// Adds the products of the taps of `rows` rows, at least one, which begin at `inputs`; returns where the next row's weights are.
    ///
    /// # Safety
    /// As [`Taps::dot`].
    #[cfg(not(target_arch = "riscv32"))]
    unsafe fn add_rows<T: Element>(
        &self,
        rows: usize,
        sums: &mut [[i32; PIXELS]; LANES],
        inputs: [*const T; PIXELS],
        weights: *const [i8; LANES],
    ) -> *const [i8; LANES] {
        // SAFETY: what the caller promises.
        let weights_of_taps = unsafe { core::slice::from_raw_parts(weights, rows * self.per_row) };
        for (row, weights) in weights_of_taps.chunks_exact(self.per_row).enumerate() {
            for (tap, weights) in weights.iter().enumerate() {
                for (pixel, input) in inputs.iter().enumerate() {
                    let input = input.wrapping_add(row * self.pitch + tap * self.step);
                    // SAFETY: one of the row's taps.
                    let taps = unsafe { *input.cast::<[T; LANES]>() };
                    for ((sums, x), &weight) in sums.iter_mut().zip(taps).zip(weights) {
                        sums[pixel] += x.into() * i32::from(weight);
                    }
                }
            }
        }
        weights.wrapping_add(weights_of_taps.len())
    }

    /// The same in rv32im assembly.
    #[cfg(target_arch = "riscv32")]
    #[inline(always)]
    unsafe fn add_rows<T: Element>(
        &self,
        rows: usize,
        sums: &mut [[i32; PIXELS]; LANES],
        inputs: [*const T; PIXELS],
        mut weights: *const [i8; LANES],
    ) -> *const [i8; LANES] {
        let [[s00, s01], [s10, s11], [s20, s21], [s30, s31]] = sums;
        macro_rules! taps {
            ($load:literal, $size:literal) => {
                core::arch::asm!(
                    "3:\n add {end}, {weights}, {row}",
                    ".p2align 2\n 2:",
                    channel!($load, $size, 0),
                    channel!($load, $size, 1),
                    channel!($load, $size, 2),
                    channel!($load, $size, 3),
                    "addi {weights}, {weights}, 4",
                    "add {a}, {a}, {step}\n add {b}, {b}, {step}",
                    "bne {weights}, {end}, 2b",
                    "add {a}, {a}, {back}\n add {b}, {b}, {back}",
                    "bne {weights}, {last}, 3b",
                    s00 = inout(reg) *s00, s01 = inout(reg) *s01, s10 = inout(reg) *s10, s11 = inout(reg) *s11,
                    s20 = inout(reg) *s20, s21 = inout(reg) *s21, s30 = inout(reg) *s30, s31 = inout(reg) *s31,
                    a = inout(reg) inputs[0] => _,
                    b = inout(reg) inputs[1] => _,
                    weights = inout(reg) weights,
                    row = in(reg) self.per_row * LANES,
                    last = in(reg) weights.wrapping_add(rows * self.per_row),
                    step = in(reg) self.step * size_of::<T>(),
                    back = in(reg) self.pitch.wrapping_sub(self.per_row * self.step).wrapping_mul(size_of::<T>()),
                    end = out(reg) _, w = out(reg) _, x = out(reg) _, y = out(reg) _,
                    options(readonly, nostack),
                )
            };
        }
        // SAFETY: what the caller promises. LLVM loads all of a tap's inputs and weights before it multiplies, and spills around the loop: 0.4
        // instructions per multiply-accumulate more in a 5x5 layer.
        unsafe {
            if size_of::<T>() == 1 {
                taps!("lb", 1);
            } else {
                taps!("lh", 2);
            }
        }
        weights
    }
}
