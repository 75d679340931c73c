//! Direct convolution micro-kernel, for few output channels per input channel: a tile of one to four output channels by two or four pixels,
//! whose inputs are read where they are. im2col would copy each input for so few products only.

use super::accumulate::{Accumulate, ChannelRecord};
use super::requantize::Requantization;
use crate::image::Element;
use crate::operator::unchecked;

/// The inputs under a row of windows: rows of runs of positions (a tap's input channel), by the strides of the input.
#[derive(Clone, Copy)]
pub(crate) struct Runs {
    /// Rows of the window, and elements from one to the next.
    pub(crate) rows: usize,
    pub(crate) pitch: usize,
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

/// The loops over rows, runs and their positions: `tile` multiplies one position, and moves the `pointers` to the next.
#[cfg(target_arch = "riscv32")]
macro_rules! runs {
    ([$($tile:expr),+] [$($pointer:literal),+] $weights:ident, $walk:ident, $($operands:tt)*) => {
        core::arch::asm!(
            "4:\n add {row_end}, {weights}, {row}",
            "3:\n add {run_end}, {weights}, {run}",
            ".p2align 2\n 2:",
            $($tile,)+
            "bne {weights}, {run_end}, 2b",
            $(concat!("add {", $pointer, "}, {", $pointer, "}, {next_run}"),)+
            "bne {weights}, {row_end}, 3b",
            $(concat!("add {", $pointer, "}, {", $pointer, "}, {next_row}"),)+
            "bne {weights}, {end}, 4b",
            weights = inout(reg) $weights => _, end = in(reg) $weights.wrapping_add($walk.all), row = in(reg) $walk.row,
            run = in(reg) $walk.run, step = in(reg) $walk.step, next_run = in(reg) $walk.next_run, next_row = in(reg) $walk.next_row,
            row_end = out(reg) _, run_end = out(reg) _, x = out(reg) _, y = out(reg) _, t = out(reg) _, w = out(reg) _,
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
    ($load:literal, $sums:ident, $inputs:ident, $weights:ident, $walk:ident) => {
        runs!(
            [
                concat!($load, " {x}, 0({a})\n ", $load, " {y}, 0({b})\n lb {w}, 0({weights})\n lb {v}, 1({weights})"),
                concat!(products!("w", "x" "s00", "y" "s01"), "lb {w}, 2({weights})"),
                concat!(products!("v", "x" "s10", "y" "s11"), "lb {v}, 3({weights})"),
                products!("w", "x" "s20", "y" "s21"), products!("v", "x" "s30", "y" "s31"),
                "addi {weights}, {weights}, 4\n add {a}, {a}, {step}\n add {b}, {b}, {step}"
            ]
            ["a", "b"] $weights, $walk,
            v = out(reg) _, a = inout(reg) $inputs[0] => _, b = inout(reg) $inputs[1] => _,
            s00 = inout(reg) $sums[0][0], s01 = inout(reg) $sums[0][1], s10 = inout(reg) $sums[1][0], s11 = inout(reg) $sums[1][1],
            s20 = inout(reg) $sums[2][0], s21 = inout(reg) $sums[2][1], s30 = inout(reg) $sums[3][0], s31 = inout(reg) $sums[3][1],
        )
    };
}

/// [`runs!`] of two channels and four pixels: 28 instructions for 8 products.
#[cfg(target_arch = "riscv32")]
macro_rules! two_by_four {
    ($load:literal, $sums:ident, $inputs:ident, $weights:ident, $walk:ident) => {
        runs!(
            [
                concat!($load, " {x}, 0({a})\n ", $load, " {y}, 0({b})\n lb {w}, 0({weights})\n lb {v}, 1({weights})"),
                "add {a}, {a}, {step}\n add {b}, {b}, {step}",
                products!("w", "x" "s00", "y" "s01"), products!("v", "x" "s10", "y" "s11"),
                concat!($load, " {x}, 0({c})\n ", $load, " {y}, 0({d})\n add {c}, {c}, {step}\n add {d}, {d}, {step}"),
                products!("w", "x" "s02", "y" "s03"), products!("v", "x" "s12", "y" "s13"),
                "addi {weights}, {weights}, 2"
            ]
            ["a", "b", "c", "d"] $weights, $walk,
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
    ($load:literal, $sums:ident, $inputs:ident, $weights:ident, $walk:ident) => {
        runs!(
            [
                concat!("lb {w}, 0({weights})\n ", $load, " {x}, 0({a})\n ", $load, " {y}, 0({b})"),
                "add {a}, {a}, {step}\n add {b}, {b}, {step}",
                products!("w", "x" "s00", "y" "s01"),
                concat!($load, " {x}, 0({c})\n ", $load, " {y}, 0({d})\n add {c}, {c}, {step}\n add {d}, {d}, {step}"),
                products!("w", "x" "s02", "y" "s03"),
                "addi {weights}, {weights}, 1"
            ]
            ["a", "b", "c", "d"] $weights, $walk,
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
        let positions = self.rows > 0 && self.runs > 0 && self.length > 0;
        let inputs = input.len() > (self.pixels - 1) * self.pixel_step + last;
        let outputs = output.len() >= (self.pixels - 1) * output_step + channels.len();
        let right = positions && inputs && outputs && channels.len() <= WIDTH;
        if !(right && weights.len() == self.rows * self.runs * self.length) {
            unchecked();
        }
        let mut lanes = [A::Channel::default(); WIDTH];
        lanes.iter_mut().zip(channels).for_each(|(lane, channel)| *lane = *channel);
        // Of fewer pixels than a tile has, the last one is computed again.
        let places: [usize; PIXELS] = core::array::from_fn(|index| index.min(self.pixels - 1));
        let (starts, stores) = (places.map(|place| place * self.pixel_step), places.map(|place| place * output_step));
        let last = self.pixels.saturating_sub(PIXELS);
        for pixel in (0..self.pixels).step_by(PIXELS) {
            // The last tile ends with the last pixel.
            let pixel = pixel.min(last);
            let mut sums = lanes.each_ref().map(|channel| [channel.narrow_bias(); PIXELS]);
            let input = input.as_ptr().wrapping_add(pixel * self.pixel_step);
            // SAFETY: the windows of all pixels lie inside the input, and there are weights for each position, see above.
            unsafe { self.add(&mut sums, starts.map(|start| input.wrapping_add(start)), weights.as_ptr()) };
            let output = output.as_mut_ptr().wrapping_add(pixel * output_step);
            for (lane, (channel, sums)) in lanes.iter().zip(sums).enumerate() {
                if lane >= channels.len() {
                    break;
                }
                for (place, sum) in stores.into_iter().zip(sums) {
                    // SAFETY: the pixel and the channel exist, see above. A check per element costs 3 instructions per output.
                    unsafe { *output.add(place + lane) = requantization.apply_as::<A>(channel, sum.into()) };
                }
            }
        }
    }

    /// Adds the products of the inputs under the windows that begin at `inputs` with their weights.
    ///
    /// # Safety
    /// All inputs must be readable, and `weights` must have one row for each position.
    #[cfg(not(target_arch = "riscv32"))]
    unsafe fn add<T: Element, const WIDTH: usize, const PIXELS: usize>(
        &self,
        sums: &mut [[i32; PIXELS]; WIDTH],
        inputs: [*const T; PIXELS],
        weights: *const [i8; WIDTH],
    ) {
        let row_length = self.runs * self.length;
        // SAFETY: what the caller promises.
        let of_rows = unsafe { core::slice::from_raw_parts(weights, self.rows * row_length) };
        for (index, weights) in of_rows.iter().enumerate() {
            let (row, run, position) = (index / row_length, index % row_length / self.length, index % self.length);
            for (pixel, input) in inputs.iter().enumerate() {
                let place = row * self.pitch + run * self.run_step + position * self.step;
                // SAFETY: one of the row's inputs.
                let x: i32 = unsafe { *input.wrapping_add(place) }.into();
                for (sums, &weight) in sums.iter_mut().zip(weights) {
                    sums[pixel] += x * i32::from(weight);
                }
            }
        }
    }

    /// The same in rv32im assembly.
    #[cfg(target_arch = "riscv32")]
    #[inline(always)]
    unsafe fn add<T: Element, const WIDTH: usize, const PIXELS: usize>(
        &self,
        sums: &mut [[i32; PIXELS]; WIDTH],
        inputs: [*const T; PIXELS],
        weights: *const [i8; WIDTH],
    ) {
        // Rows of one run each are runs, a row apart.
        let (rows, runs, run_step) =
            if self.runs == 1 { (1, self.rows, self.pitch) } else { (self.rows, self.runs, self.run_step) };
        let (size, run, row) = (size_of::<T>(), self.length * WIDTH, runs * self.length * WIDTH);
        let walk = Walk {
            all: rows * row,
            row,
            run,
            step: size * self.step,
            next_run: size.wrapping_mul(run_step.wrapping_sub(self.length * self.step)),
            next_row: size.wrapping_mul(self.pitch.wrapping_sub(runs * run_step)),
        };
        let weights = weights.cast::<i8>();
        // SAFETY: what the caller promises; the numbers of pixels and channels say which sums there are. LLVM spills them: see `Taps`.
        unsafe {
            match (WIDTH, size) {
                (4, 1) => four_by_two!("lb", sums, inputs, weights, walk),
                (4, _) => four_by_two!("lh", sums, inputs, weights, walk),
                (2, 1) => two_by_four!("lb", sums, inputs, weights, walk),
                (2, _) => two_by_four!("lh", sums, inputs, weights, walk),
                (_, 1) => one_by_four!("lb", sums, inputs, weights, walk),
                _ => one_by_four!("lh", sums, inputs, weights, walk),
            }
        }
    }
}

/// The bytes of weights of all rows, of a row and of a run, and the bytes of inputs from a position to the next, from a run's end to the next run,
/// and from a row's end to the next row.
#[cfg(target_arch = "riscv32")]
struct Walk {
    all: usize,
    row: usize,
    run: usize,
    step: usize,
    next_run: usize,
    next_row: usize,
}
