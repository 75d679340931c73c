//! GEMM micro-kernel of the convolution: a tile of four output channels by four output pixels, over im2col columns.

use crate::image::Element;
use crate::operator::CheckedPart;

/// Output channels of a packed block of weights, and output pixels of a tile: MR and NR of the GEMM.
pub(crate) const LANES: usize = 4;

/// The im2col matrix of one tile: `[position under the window][pixel]`.
pub(crate) type Columns<T = i8> = [[T; LANES]];

/// Copies the inputs of one pixel into its column of the im2col matrix.
#[inline]
pub(crate) fn fill_column<T: Element>(columns: &mut Columns<T>, pixel: usize, inputs: &[T]) {
    for (place, &x) in columns.iter_mut().filter_map(|column| column.get_mut(pixel)).zip(inputs) {
        *place = x;
    }
}

/// Copies the inputs of four pixels, which begin `pitch` elements apart, into their columns of the im2col matrix.
// Not inlined: the caller would load its own operands too early, and spill them.
#[inline(never)]
pub(crate) fn fill_columns<T: Element>(columns: &mut Columns<T>, inputs: &[T], pitch: usize) {
    let length = columns.len();
    let (columns, rest) = columns.as_chunks_mut::<4>();
    let fours = |pixel: usize| inputs.get(pixel * pitch..).checked_part().get(..length).checked_part().as_chunks::<4>();
    let [(a, rest_a), (b, rest_b), (c, rest_c), (d, rest_d)] = [fours(0), fours(1), fours(2), fours(3)];
    for ((((columns, a), b), c), d) in columns.iter_mut().zip(a).zip(b).zip(c).zip(d) {
        for (index, column) in columns.iter_mut().enumerate() {
            *column = [a[index], b[index], c[index], d[index]];
        }
    }
    for ((((column, &a), &b), &c), &d) in rest.iter_mut().zip(rest_a).zip(rest_b).zip(rest_c).zip(rest_d) {
        *column = [a, b, c, d];
    }
}

/// Accumulators `[channel][pixel]` of one tile: `bias` plus the products of `columns` with `weights`, one row of four channels per
/// position.
#[cfg(not(target_arch = "riscv32"))]
pub(crate) fn dot_4x4<T: Element>(
    bias: [i32; LANES],
    columns: &Columns<T>,
    weights: &[[i8; LANES]],
) -> [[i32; LANES]; LANES] {
    let mut sums = bias.map(|bias| [bias; LANES]);
    for (pixels, weights) in columns.iter().zip(weights) {
        for (sums, &weight) in sums.iter_mut().zip(weights) {
            for (sum, &x) in sums.iter_mut().zip(pixels) {
                *sum += x.into() * i32::from(weight);
            }
        }
    }
    sums
}

/// Instructions: four pixels times the weight of one channel, added to the sums `s<channel><pixel>`.
#[cfg(target_arch = "riscv32")]
macro_rules! channel {
    ($channel:literal, $weight:literal) => {
        concat!(
            concat!("mul {t}, {x0}, {", $weight, "}\n add {s", $channel, "0}, {s", $channel, "0}, {t}\n"),
            concat!("mul {t}, {x1}, {", $weight, "}\n add {s", $channel, "1}, {s", $channel, "1}, {t}\n"),
            concat!("mul {t}, {x2}, {", $weight, "}\n add {s", $channel, "2}, {s", $channel, "2}, {t}\n"),
            concat!("mul {t}, {x3}, {", $weight, "}\n add {s", $channel, "3}, {s", $channel, "3}, {t}\n"),
        )
    };
}

/// Instructions: four pixels, which `load` loads from `$at` and from `size` bytes each further on, times the four channels of the position `offset`
/// bytes on. Nothing is used by the instruction after its load, which would stall.
#[cfg(target_arch = "riscv32")]
macro_rules! position {
    ($load:literal, $size:literal, $offset:literal) => {
        concat!(
            concat!("lb {w}, ", $offset, "({weights})\n"),
            concat!($load, " {x0}, ", $size, "*", $offset, "({column})\n"),
            concat!($load, " {x1}, ", $size, "*(", $offset, "+1)({column})\n"),
            concat!($load, " {x2}, ", $size, "*(", $offset, "+2)({column})\n"),
            concat!($load, " {x3}, ", $size, "*(", $offset, "+3)({column})\n"),
            concat!("lb {v}, ", $offset, "+1({weights})\n"),
            channel!(0, "w"),
            concat!("lb {w}, ", $offset, "+2({weights})\n"),
            channel!(1, "v"),
            concat!("lb {v}, ", $offset, "+3({weights})\n"),
            channel!(2, "w"),
            channel!(3, "v"),
        )
    };
}

/// The same in rv32im assembly.
#[cfg(target_arch = "riscv32")]
#[inline(always)]
pub(crate) fn dot_4x4<T: Element>(
    bias: [i32; LANES],
    columns: &Columns<T>,
    weights: &[[i8; LANES]],
) -> [[i32; LANES]; LANES] {
    let mut sums = bias.map(|bias| [bias; LANES]);
    let columns = columns[..weights.len()].as_ptr_range();
    // With one position left over from the pairs, the loop begins in the middle of one.
    let before = weights.len() % 2;
    macro_rules! pairs {
        ($load:literal, $size:literal) => {
            core::arch::asm!(
                "bnez {t}, 3f",
                "beq {column}, {end}, 4f",
                // A jump to an instruction of four bytes takes a cycle more unless it is aligned.
                ".p2align 2",
                "2:",
                position!($load, $size, 0),
                "3:",
                position!($load, $size, 4),
                concat!("addi {column}, {column}, 8*", $size),
                "addi {weights}, {weights}, 8",
                "bne {column}, {end}, 2b",
                "4:",
                s00 = inout(reg) sums[0][0], s01 = inout(reg) sums[0][1], s02 = inout(reg) sums[0][2], s03 = inout(reg) sums[0][3],
                s10 = inout(reg) sums[1][0], s11 = inout(reg) sums[1][1], s12 = inout(reg) sums[1][2], s13 = inout(reg) sums[1][3],
                s20 = inout(reg) sums[2][0], s21 = inout(reg) sums[2][1], s22 = inout(reg) sums[2][2], s23 = inout(reg) sums[2][3],
                s30 = inout(reg) sums[3][0], s31 = inout(reg) sums[3][1], s32 = inout(reg) sums[3][2], s33 = inout(reg) sums[3][3],
                column = inout(reg) columns.start.wrapping_sub(before) => _,
                end = in(reg) columns.end,
                weights = inout(reg) weights.as_ptr().wrapping_sub(before) => _,
                x0 = out(reg) _, x1 = out(reg) _, x2 = out(reg) _, x3 = out(reg) _,
                w = out(reg) _, v = out(reg) _,
                t = inout(reg) before => _,
                options(pure, readonly, nostack),
            )
        };
    }
    // SAFETY: reads `weights.len()` rows of both slices. LLVM has no register to spare for this: its own loop, with each
    // multiply-accumulate held together, takes 3 % more instructions, and 45 % more once it is unrolled by two.
    unsafe {
        if size_of::<T>() == 1 {
            pairs!("lb", 1);
        } else {
            pairs!("lh", 2);
        }
    }
    sums
}
