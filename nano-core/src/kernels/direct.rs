//! Direct convolution micro-kernel, for few output channels per input channel: a tile of one to four output channels by two or four pixels,
//! whose inputs are read where they are. im2col would copy each input for so few products only.

use super::accumulate::{Accumulate, ChannelRecord};
use super::requantize::Requantization;
use crate::image::Element;
use crate::operator::unchecked;

/// The inputs under a row of windows: rows of runs of positions (a tap's input channel), by the strides of the input.
#[derive(Clone, Copy)]
pub(crate) struct Runs {
    /// Rows of the window, and elements from one to the next. They are a ring: the window begins with row `first`, and row 0 follows the
    /// last.
    pub(crate) rows: usize,
    pub(crate) pitch: usize,
    pub(crate) first: usize,
    /// Runs in one row of the window, and elements from one to the next.
    pub(crate) runs: usize,
    pub(crate) run_step: usize,
    /// Positions in one run, and elements from one to the next.
    pub(crate) length: usize,
    pub(crate) step: usize,
    /// Output pixels, and elements from one pixel's window to the next pixel's.
    pub(crate) pixels: usize,
    pub(crate) pixel_step: usize,
}

/// The loops over runs and their positions: `tile` multiplies one position, and moves the `pointers` to the next.
#[cfg(target_arch = "riscv32")]
macro_rules! runs {
    ([$($tile:expr),+] [$($pointer:literal),+] $weights:ident, $last:ident, $row:ident, $step:ident, $back:ident, $($operands:tt)*) => {
        core::arch::asm!(
            "3:\n add {end}, {weights}, {row}",
            ".p2align 2\n 2:",
            $($tile,)+
            "bne {weights}, {end}, 2b",
            $(concat!("add {", $pointer, "}, {", $pointer, "}, {back}"),)+
            "bne {weights}, {last}, 3b",
            weights = inout(reg) $weights, last = in(reg) $last, row = in(reg) $row, step = in(reg) $step, back = in(reg) $back,
            end = out(reg) _, x = out(reg) _, y = out(reg) _, t = out(reg) _, w = out(reg) _,
            $($operands)*
            options(readonly, nostack),
        )
    };
}

/// Instructions: a weight times the inputs of two pixels.
#[cfg(target_arch = "riscv32")]
macro_rules! products {
    ($weight:literal, $x:literal $sum:literal, $y:literal $other:literal) => {
        concat!(
            "mul {t}, {",
            $x,
            "}, {",
            $weight,
            "}\n add {",
            $sum,
            "}, {",
            $sum,
            "}, {t}\n",
            "mul {t}, {",
            $y,
            "}, {",
            $weight,
            "}\n add {",
            $other,
            "}, {",
            $other,
            "}, {t}\n",
        )
    };
}

/// [`runs!`] of four channels and two pixels: 26 instructions for 8 products.
#[cfg(target_arch = "riscv32")]
macro_rules! four_by_two {
    ($load:literal, $sums:ident, $inputs:ident, $($given:ident),+) => {
        runs!(
            [
                concat!($load, " {x}, 0({a})\n ", $load, " {y}, 0({b})\n lb {w}, 0({weights})\n lb {v}, 1({weights})"),
                concat!(products!("w", "x" "s00", "y" "s01"), "lb {w}, 2({weights})"),
                concat!(products!("v", "x" "s10", "y" "s11"), "lb {v}, 3({weights})"),
                products!("w", "x" "s20", "y" "s21"), products!("v", "x" "s30", "y" "s31"),
                "addi {weights}, {weights}, 4\n add {a}, {a}, {step}\n add {b}, {b}, {step}"
            ]
            ["a", "b"] $($given),+,
            v = out(reg) _, a = inout(reg) $inputs[0] => _, b = inout(reg) $inputs[1] => _,
            s00 = inout(reg) $sums[0][0], s01 = inout(reg) $sums[0][1], s10 = inout(reg) $sums[1][0], s11 = inout(reg) $sums[1][1],
            s20 = inout(reg) $sums[2][0], s21 = inout(reg) $sums[2][1], s30 = inout(reg) $sums[3][0], s31 = inout(reg) $sums[3][1],
        )
    };
}

/// [`runs!`] of two channels and four pixels: 28 instructions for 8 products.
#[cfg(target_arch = "riscv32")]
macro_rules! two_by_four {
    ($load:literal, $sums:ident, $inputs:ident, $($given:ident),+) => {
        runs!(
            [
                concat!($load, " {x}, 0({a})\n ", $load, " {y}, 0({b})\n lb {w}, 0({weights})\n lb {v}, 1({weights})"),
                "add {a}, {a}, {step}\n add {b}, {b}, {step}",
                products!("w", "x" "s00", "y" "s01"), products!("v", "x" "s10", "y" "s11"),
                concat!($load, " {x}, 0({c})\n ", $load, " {y}, 0({d})\n add {c}, {c}, {step}\n add {d}, {d}, {step}"),
                products!("w", "x" "s02", "y" "s03"), products!("v", "x" "s12", "y" "s13"),
                "addi {weights}, {weights}, 2"
            ]
            ["a", "b", "c", "d"] $($given),+,
            v = out(reg) _, a = inout(reg) $inputs[0] => _, b = inout(reg) $inputs[1] => _,
            c = inout(reg) $inputs[2] => _, d = inout(reg) $inputs[3] => _,
            s00 = inout(reg) $sums[0][0], s01 = inout(reg) $sums[0][1], s02 = inout(reg) $sums[0][2], s03 = inout(reg) $sums[0][3],
            s10 = inout(reg) $sums[1][0], s11 = inout(reg) $sums[1][1], s12 = inout(reg) $sums[1][2], s13 = inout(reg) $sums[1][3],
        )
    };
}

/// [`runs!`] of one channel and four pixels: 19 instructions for 4 products.
#[cfg(target_arch = "riscv32")]
macro_rules! one_by_four {
    ($load:literal, $sums:ident, $inputs:ident, $($given:ident),+) => {
        runs!(
            [
                concat!("lb {w}, 0({weights})\n ", $load, " {x}, 0({a})\n ", $load, " {y}, 0({b})"),
                "add {a}, {a}, {step}\n add {b}, {b}, {step}",
                products!("w", "x" "s00", "y" "s01"),
                concat!($load, " {x}, 0({c})\n ", $load, " {y}, 0({d})\n add {c}, {c}, {step}\n add {d}, {d}, {step}"),
                products!("w", "x" "s02", "y" "s03"),
                "addi {weights}, {weights}, 1"
            ]
            ["a", "b", "c", "d"] $($given),+,
            a = inout(reg) $inputs[0] => _, b = inout(reg) $inputs[1] => _,
            c = inout(reg) $inputs[2] => _, d = inout(reg) $inputs[3] => _,
            s00 = inout(reg) $sums[0][0], s01 = inout(reg) $sums[0][1], s02 = inout(reg) $sums[0][2], s03 = inout(reg) $sums[0][3],
        )
    };
}

/// Output pixels per tile of `width` channels: as many as the registers hold.
pub(crate) const fn pixels_of(width: usize) -> usize {
    if width == 4 { 2 } else { 4 }
}

impl Runs {
    /// Computes up to `WIDTH` channels of a row of output pixels, which are `output_step` elements apart, from weights `[position][WIDTH]`;
    /// `PIXELS` is [`pixels_of`] `WIDTH`.
    ///
    /// # Panics
    /// If inputs, weights or outputs lie outside their slices.
    #[inline(never)]
    pub(crate) fn run<A: Accumulate, const WIDTH: usize, const PIXELS: usize>(
        &self,
        requantization: Requantization,
        channels: &[A::Channel],
        weights: &[[i8; WIDTH]],
        input: &[A::Element],
        output: &mut [A::Element],
        output_step: usize,
    ) {
        let last = (self.rows - 1) * self.pitch + (self.runs - 1) * self.run_step + (self.length - 1) * self.step;
        let positions = self.first < self.rows && self.runs > 0 && self.length > 0;
        let inputs = input.len() > (self.pixels - 1) * self.pixel_step + last;
        let outputs = output.len() >= (self.pixels - 1) * output_step + channels.len();
        let right = positions && inputs && outputs && channels.len() <= WIDTH;
        if !(right && weights.len() == self.rows * self.runs * self.length) {
            unchecked();
        }
        for pixel in (0..self.pixels).step_by(PIXELS) {
            // The last tile begins where it ends with the last pixel; of fewer pixels than a tile has, the last one is computed again.
            let start = pixel.min(self.pixels.saturating_sub(PIXELS));
            let pixels: [usize; PIXELS] = core::array::from_fn(|index| (start + index).min(self.pixels - 1));
            let mut sums = [[0; PIXELS]; WIDTH];
            for (sums, channel) in sums.iter_mut().zip(channels) {
                *sums = [channel.narrow_bias(); PIXELS];
            }
            let starts = pixels.map(|pixel| input.as_ptr().wrapping_add(pixel * self.pixel_step));
            // SAFETY: the windows of all pixels lie inside the input, and there are weights for each position, see above.
            unsafe { self.add(&mut sums, starts, weights.as_ptr()) };
            for (lane, (channel, sums)) in channels.iter().zip(sums).enumerate() {
                for (pixel, sum) in pixels.into_iter().zip(sums) {
                    // SAFETY: pixel < pixels and lane < channels, see above. A check per element costs 3 instructions per output.
                    unsafe {
                        *output.as_mut_ptr().add(pixel * output_step + lane) =
                            requantization.apply_as::<A>(channel, sum.into());
                    }
                }
            }
        }
    }

    /// Adds the products of the inputs under the windows that begin at `starts` with their weights.
    ///
    /// # Safety
    /// All inputs must be readable, and `weights` must have as many rows as there are positions.
    #[inline(always)]
    unsafe fn add<T: Element, const WIDTH: usize, const PIXELS: usize>(
        &self,
        sums: &mut [[i32; PIXELS]; WIDTH],
        starts: [*const T; PIXELS],
        mut weights: *const [i8; WIDTH],
    ) {
        // Rows of one run each are runs, a row apart.
        let one_run = self.runs == 1;
        let step = if one_run { self.pitch } else { self.run_step };
        for (first, rows) in [(self.first, self.rows - self.first), (0, self.first)] {
            let (rows, runs) = if one_run { (rows.min(1), rows) } else { (rows, self.runs) };
            for row in first..first + rows {
                let inputs = starts.map(|start| start.wrapping_add(row * self.pitch));
                // SAFETY: what the caller promises.
                weights = unsafe { self.add_runs((runs, step), sums, inputs, weights) };
            }
        }
    }

    /// Adds the products of `runs` runs, the first of which begin at `inputs`; returns where the next weights are.
    ///
    /// # Safety
    /// As [`Runs::add`].
    #[cfg(not(target_arch = "riscv32"))]
    unsafe fn add_runs<T: Element, const WIDTH: usize, const PIXELS: usize>(
        &self,
        (runs, run_step): (usize, usize),
        sums: &mut [[i32; PIXELS]; WIDTH],
        inputs: [*const T; PIXELS],
        weights: *const [i8; WIDTH],
    ) -> *const [i8; WIDTH] {
        // SAFETY: what the caller promises.
        let rows = unsafe { core::slice::from_raw_parts(weights, runs * self.length) };
        for (run, weights) in rows.chunks_exact(self.length).enumerate() {
            for (position, weights) in weights.iter().enumerate() {
                for (pixel, input) in inputs.iter().enumerate() {
                    // SAFETY: one of the run's inputs.
                    let x: i32 = unsafe { *input.wrapping_add(run * run_step + position * self.step) }.into();
                    for (sums, &weight) in sums.iter_mut().zip(weights) {
                        sums[pixel] += x * i32::from(weight);
                    }
                }
            }
        }
        weights.wrapping_add(rows.len())
    }

    /// The same in rv32im assembly.
    #[cfg(target_arch = "riscv32")]
    #[inline(always)]
    unsafe fn add_runs<T: Element, const WIDTH: usize, const PIXELS: usize>(
        &self,
        (runs, run_step): (usize, usize),
        sums: &mut [[i32; PIXELS]; WIDTH],
        inputs: [*const T; PIXELS],
        weights: *const [i8; WIDTH],
    ) -> *const [i8; WIDTH] {
        let row = self.length * WIDTH;
        let (mut weights, last) = (weights.cast::<i8>(), weights.cast::<i8>().wrapping_add(runs * row));
        let step = self.step * size_of::<T>();
        let back = run_step.wrapping_sub(self.length * self.step).wrapping_mul(size_of::<T>());
        // SAFETY: what the caller promises; the numbers of pixels and channels say which sums there are. LLVM spills them: see `Taps`.
        unsafe {
            match (WIDTH, size_of::<T>()) {
                (4, 1) => four_by_two!("lb", sums, inputs, weights, last, row, step, back),
                (4, _) => four_by_two!("lh", sums, inputs, weights, last, row, step, back),
                (2, 1) => two_by_four!("lb", sums, inputs, weights, last, row, step, back),
                (2, _) => two_by_four!("lh", sums, inputs, weights, last, row, step, back),
                (_, 1) => one_by_four!("lb", sums, inputs, weights, last, row, step, back),
                _ => one_by_four!("lh", sums, inputs, weights, last, row, step, back),
            }
        }
        weights.cast()
    }
}
