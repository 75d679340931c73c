//! im2col for the GEMM with two pixels per multiplication (`pixel_pairs.rs`): columns that hold the inputs of two pixels in one word.

use super::tile::LANES;
use crate::operator::unchecked;

/// The inputs of four pixels at one position under their windows.
#[cfg(target_arch = "riscv32")]
pub(crate) type PairedColumn = [i32; 2];
/// The inputs of four pixels at one position under their windows.
#[cfg(not(target_arch = "riscv32"))]
pub(crate) type PairedColumn = [i16; LANES];

/// The word after the last column, by which the assembly ends its loop: no word of two int8 has these lower 16 bits. It is also the rounding
/// of the upper half.
#[cfg(target_arch = "riscv32")]
pub(crate) const END: PairedColumn = [1 << 15; 2];
/// As on riscv32; not used here.
#[cfg(not(target_arch = "riscv32"))]
pub(crate) const END: PairedColumn = [0; LANES];

#[cfg(target_arch = "riscv32")]
#[inline(always)]
fn pair_up([a, b, c, d]: [i8; LANES]) -> PairedColumn {
    // Of a shift, LLVM would make two, and load the byte without its sign.
    let word = |low: i8, high: i8| super::multiply_accumulate(low.into(), high.into(), 1 << 16);
    [word(a, b), word(c, d)]
}

#[cfg(not(target_arch = "riscv32"))]
#[inline(always)]
fn pair_up(pixels: [i8; LANES]) -> PairedColumn {
    pixels.map(i16::from)
}

/// Copies the inputs of four pixels into their columns of the im2col matrix.
///
/// # Panics
/// If a pixel has fewer inputs than there are columns.
// Not inlined: the caller would load its own operands too early, and spill them.
#[inline(never)]
pub(crate) fn fill_pairs(columns: &mut [PairedColumn], inputs: [&[i8]; LANES]) {
    if inputs.iter().any(|inputs| inputs.len() < columns.len()) {
        unchecked();
    }
    // SAFETY: each pixel has one input per column.
    unsafe { fill_run(columns, inputs.map(<[i8]>::as_ptr)) };
}

/// [`fill_pairs`] of pixels that are `pixel_step` inputs apart: rows of `run` columns each, of inputs that lie `row_step` apart.
///
/// # Panics
/// If there are fewer inputs.
// One call for all rows: a call of `fill_pairs` for each takes 70 instructions more per row, half of a layer with three channels.
#[inline(never)]
pub(crate) fn fill_rows_of_pairs(
    columns: &mut [PairedColumn],
    run: usize,
    inputs: &[i8],
    pixel_step: usize,
    row_step: usize,
) {
    let mut inputs = inputs;
    for columns in columns.chunks_exact_mut(run) {
        let to_last = (LANES - 1) * pixel_step;
        if inputs.len() < to_last + run {
            unchecked();
        }
        let start = inputs.as_ptr();
        // SAFETY: the last pixel has as many inputs as the run has columns, see above.
        unsafe { fill_run(columns, [0, 1, 2, 3].map(|pixel| start.wrapping_add(pixel * pixel_step))) };
        inputs = inputs.get(row_step..).unwrap_or_default();
    }
}

/// Copies the inputs that begin at these places.
///
/// # Safety
/// From each place on there must be one input per column.
#[inline(always)]
unsafe fn fill_run(columns: &mut [PairedColumn], mut inputs: [*const i8; LANES]) {
    // SAFETY: an index below the number of columns. With iterators of slices, a call takes 60 instructions more.
    let column = |inputs: [*const i8; LANES], index| pair_up(inputs.map(|input| unsafe { *input.add(index) }));
    let (fours, rest) = columns.as_chunks_mut::<4>();
    for columns in fours {
        *columns = [0, 1, 2, 3].map(|index| column(inputs, index));
        inputs = inputs.map(|input| input.wrapping_add(4));
    }
    for (index, rest) in rest.iter_mut().enumerate() {
        *rest = column(inputs, index);
    }
}
