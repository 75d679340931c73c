//! Micro-kernels: the inner loops of GEMM, depthwise convolution and fully connected layers over packed weights.
//!
//! LLVM reassociates the accumulation, hoists the multiplications and spills registers. [`multiply_accumulate`] prevents that; where
//! no register is left, the whole loop is rv32im assembly, and the portable version beside it is its definition. `just bench-device`
//! prints the cost of each layer shape.

mod accumulate;
pub(crate) mod channel_pairs;
mod direct;
mod lines;
#[cfg(target_arch = "riscv32")]
mod one_pass;
mod paired_columns;
mod pixel_pairs;
mod points;
mod requantize;
mod requantize_wide;
mod rows;
mod taps;
mod tile;
mod weight_sums;

pub(crate) use accumulate::{Accumulate, ChannelRecord};
pub(crate) use direct::{Runs, pixels_of};
pub(crate) use lines::{Lines, Side};
pub(crate) use paired_columns::{END, PairedColumn, fill_pairs, fill_rows_of_pairs};
pub(crate) use pixel_pairs::{dot_pairs, dot_pairs_4x4};
pub(crate) use points::{PairOfChannels, SumsOfPoint, WeightsOfPoint, dot_points};
#[cfg(feature = "alloc")]
pub(crate) use requantize::one_pass_addend;
pub(crate) use requantize::{
    Channel, CompactChannel, Form, LITERAL, Literal, ONE_PASS, OnePass, Requantization, TWO_PASS, TwoPass, clamp,
};
pub(crate) use requantize_wide::{PART, WideChannel};
pub(crate) use rows::add_rows;
pub(crate) use taps::Taps;
pub(crate) use tile::{Columns, LANES, dot_4x4, fill_column, fill_columns};
pub(crate) use weight_sums::{WeightSums, are_symmetric, are_zero_from, largest_sum};

/// `sum + a * b`.
#[inline(always)]
pub(crate) fn multiply_accumulate(sum: i32, a: i32, b: i32) -> i32 {
    #[cfg(target_arch = "riscv32")]
    {
        let mut sum = sum;
        // SAFETY: arithmetic on registers. As `sum + a * b`, the fully connected layer takes 4.7 instructions per
        // multiply-accumulate instead of 3.2.
        unsafe {
            core::arch::asm!(
                "mul {product}, {a}, {b}",
                "add {sum}, {sum}, {product}",
                product = lateout(reg) _,
                a = in(reg) a,
                b = in(reg) b,
                sum = inout(reg) sum,
                options(pure, nomem, nostack),
            );
        }
        sum
    }
    #[cfg(not(target_arch = "riscv32"))]
    {
        sum + a * b
    }
}
