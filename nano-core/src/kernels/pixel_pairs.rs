//! GEMM micro-kernel of the convolution with two pixels per multiplication (SWAR): a tile of four output pixels over im2col columns that hold
//! the inputs of two pixels in one word.
//!
//! A word is `a + (b << 16)` modulo 2^32, so its product with an int8 weight w is `a w + (b w << 16)`. The sum t of the products of two
//! positions has two halves of at most `2 * 128 * 127 < 2^15` in magnitude: both are exact, and `(t + 2^15) >> 16` is the upper one. The words
//! accumulate modulo 2^32 in `low`, the upper halves in `high`, which is the sum of pixel b; `low - (high << 16)` is that of pixel a.
//!
//! The portable form, which defines the result, has the four pixels in int16. `paired_columns.rs` has the columns.

#[cfg(target_arch = "riscv32")]
use super::paired_columns::END;
use super::paired_columns::PairedColumn;
use super::tile::LANES;
#[cfg(not(target_arch = "riscv32"))]
use super::tile::dot_4x4;
#[cfg(target_arch = "riscv32")]
use crate::operator::unchecked;

/// Accumulators `[channel][pixel]` of one tile: `bias` plus the products of `columns` with `weights`, one row of `N` channels per position. Those
/// of the pixels from `2 * PAIRS` on mean nothing.
#[cfg(not(target_arch = "riscv32"))]
pub(crate) fn dot_pairs<const N: usize, const PAIRS: usize>(
    bias: [i32; N],
    columns: &[PairedColumn],
    weights: &[[i8; N]],
) -> [[i32; LANES]; N] {
    let mut sums = bias.map(|bias| [bias; LANES]);
    for (pixels, weights) in columns.iter().zip(weights) {
        for (sums, &weight) in sums.iter_mut().zip(weights) {
            for (sum, &x) in sums.iter_mut().zip(pixels) {
                *sum += i32::from(x) * i32::from(weight);
            }
        }
    }
    sums
}

/// [`dot_pairs`] of four channels and four pixels. `columns` is followed by `END`.
#[cfg(not(target_arch = "riscv32"))]
pub(crate) fn dot_pairs_4x4(
    bias: [i32; LANES],
    columns: &[PairedColumn],
    weights: &[[i8; LANES]],
) -> [[i32; LANES]; LANES] {
    dot_4x4(bias, columns, weights)
}

/// The same for rv32im.
#[cfg(target_arch = "riscv32")]
#[inline(always)]
pub(crate) fn dot_pairs<const N: usize, const PAIRS: usize>(
    bias: [i32; N],
    columns: &[PairedColumn],
    weights: &[[i8; N]],
) -> [[i32; LANES]; N] {
    let mut sums = bias.map(|bias| [Halves::new(bias); 2]);
    let (columns, last) = columns.as_chunks::<2>();
    let (weights, last_weights) = weights.as_chunks::<2>();
    for ([first, second], [weights, others]) in columns.iter().zip(weights) {
        for ((sums, &weight), &other) in sums.iter_mut().zip(weights).zip(others) {
            for ((sum, &a), &b) in sums.iter_mut().zip(first).zip(second).take(PAIRS) {
                sum.add(super::multiply_accumulate(a.wrapping_mul(weight.into()), b, other.into()));
            }
        }
    }
    for (column, weights) in last.iter().zip(last_weights) {
        for (sums, &weight) in sums.iter_mut().zip(weights) {
            for (sum, &a) in sums.iter_mut().zip(column).take(PAIRS) {
                sum.add(a.wrapping_mul(weight.into()));
            }
        }
    }
    sums.map(|[first, second]| pixels(first.low, first.high, second.low, second.high))
}

/// The accumulators of two pixels.
#[cfg(target_arch = "riscv32")]
#[derive(Clone, Copy)]
struct Halves {
    low: i32,
    high: i32,
}

#[cfg(target_arch = "riscv32")]
impl Halves {
    #[inline(always)]
    fn new(bias: i32) -> Self {
        Halves { low: bias.wrapping_add(bias << 16), high: bias }
    }

    #[inline(always)]
    fn add(&mut self, products: i32) {
        let Halves { low, high } = self;
        // SAFETY: arithmetic on registers. Without it, LLVM reassociates the accumulation and spills.
        unsafe {
            core::arch::asm!(
                "add {low}, {low}, {products}",
                "add {products}, {products}, {half}",
                "srai {products}, {products}, 16",
                "add {high}, {high}, {products}",
                low = inout(reg) *low,
                high = inout(reg) *high,
                products = inout(reg) products => _,
                half = in(reg) END[0],
                options(pure, nomem, nostack),
            );
        }
    }
}

#[cfg(target_arch = "riscv32")]
#[inline(always)]
fn pixels(low: i32, high: i32, second_low: i32, second_high: i32) -> [i32; LANES] {
    [low.wrapping_sub(high << 16), high, second_low.wrapping_sub(second_high << 16), second_high]
}

/// Instructions: the products in `$low` and `$other` of both pairs of pixels, added to the sums of a channel.
#[cfg(target_arch = "riscv32")]
macro_rules! add_products {
    ($channel:literal, $first:literal, $second:literal) => {
        concat!(
            concat!("add {l", $channel, "0}, {l", $channel, "0}, {", $first, "}\n"),
            concat!("add {l", $channel, "1}, {l", $channel, "1}, {", $second, "}\n"),
            concat!("add {", $first, "}, {", $first, "}, {half}\n add {", $second, "}, {", $second, "}, {half}\n"),
            concat!("srai {", $first, "}, {", $first, "}, 16\n srai {", $second, "}, {", $second, "}, 16\n"),
            concat!("add {h", $channel, "0}, {h", $channel, "0}, {", $first, "}\n"),
            concat!("add {h", $channel, "1}, {h", $channel, "1}, {", $second, "}\n"),
        )
    };
}

/// Instructions: one position, whose words `x0` and `x1` hold, times the weight of each channel.
#[cfg(target_arch = "riscv32")]
macro_rules! position {
    ($($channel:literal)+) => {
        concat!($(concat!(
            concat!("lb {v}, ", $channel, "({weights})\n mul {t}, {x0}, {v}\n mul {v}, {x1}, {v}\n"),
            add_products!($channel, "t", "v"),
        )),+)
    };
}

/// Instructions: the positions `$at` and the next, the word `x0` of which is loaded already, times the weights of each channel; loads the next
/// word.
#[cfg(target_arch = "riscv32")]
macro_rules! two_positions {
    ($at:literal: $($channel:literal)+) => {
        concat!(
            concat!("lw {x1}, 8*", $at, "+4({column})\n lw {y0}, 8*", $at, "+8({column})\n"),
            concat!("lw {y1}, 8*", $at, "+12({column})\n"),
            $(concat!(
                concat!("lb {v}, 4*", $at, "+", $channel, "({weights})\n"),
                concat!("lb {w}, 4*", $at, "+4+", $channel, "({weights})\n"),
                "mul {t}, {x0}, {v}\n mul {v}, {x1}, {v}\n mul {u}, {y0}, {w}\n mul {w}, {y1}, {w}\n",
                "add {t}, {t}, {u}\n add {v}, {v}, {w}\n",
                add_products!($channel, "t", "v"),
            ),)+
            concat!("lw {x0}, 8*", $at, "+16({column})\n"),
        )
    };
}

/// The same in rv32im assembly.
///
/// # Panics
/// If there are fewer weights than columns.
#[cfg(target_arch = "riscv32")]
#[inline(always)]
pub(crate) fn dot_pairs_4x4(
    bias: [i32; LANES],
    columns: &[PairedColumn],
    weights: &[[i8; LANES]],
) -> [[i32; LANES]; LANES] {
    let (mut low, mut high) = (bias.map(|bias| [bias.wrapping_add(bias << 16); 2]), bias.map(|bias| [bias; 2]));
    let count = columns.len();
    if weights.len() < count {
        unchecked();
    }
    // SAFETY: reads the columns, the word after them, which the caller has there, and as many weights. LLVM has no register to spare for this
    // loop: it takes 2.2 instructions per multiply-accumulate, and 2.65 with one product each.
    unsafe {
        core::arch::asm!(
            "lw {x0}, 0({column})",
            "beqz {t}, 5f",
            "lw {x1}, 4({column})",
            position!(0 1 2 3),
            "addi {column}, {column}, 8",
            "addi {weights}, {weights}, 4",
            "lw {x0}, 0({column})",
            // With two positions left over from the fours, the loop begins in the middle.
            "5:",
            "beqz {u}, 6f",
            "addi {column}, {column}, -16",
            "addi {weights}, {weights}, -8",
            "j 3f",
            "6:",
            "beq {x0}, {half}, 4f",
            ".balign 4",
            "2:",
            two_positions!(0: 0 1 2 3),
            "3:",
            two_positions!(2: 0 1 2 3),
            "addi {column}, {column}, 32",
            "addi {weights}, {weights}, 16",
            "bne {x0}, {half}, 2b",
            "4:",
            l00 = inout(reg) low[0][0], l01 = inout(reg) low[0][1], h00 = inout(reg) high[0][0], h01 = inout(reg) high[0][1],
            l10 = inout(reg) low[1][0], l11 = inout(reg) low[1][1], h10 = inout(reg) high[1][0], h11 = inout(reg) high[1][1],
            l20 = inout(reg) low[2][0], l21 = inout(reg) low[2][1], h20 = inout(reg) high[2][0], h21 = inout(reg) high[2][1],
            l30 = inout(reg) low[3][0], l31 = inout(reg) low[3][1], h30 = inout(reg) high[3][0], h31 = inout(reg) high[3][1],
            column = inout(reg) columns.as_ptr() => _,
            weights = inout(reg) weights.as_ptr() => _,
            half = in(reg) END[0],
            x0 = out(reg) _, x1 = out(reg) _, y0 = out(reg) _, y1 = out(reg) _,
            v = out(reg) _, w = out(reg) _,
            t = inout(reg) count & 1 => _,
            u = inout(reg) count & 2 => _,
            options(pure, readonly, nostack),
        );
    }
    core::array::from_fn(|channel| pixels(low[channel][0], high[channel][0], low[channel][1], high[channel][1]))
}
