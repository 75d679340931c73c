//! Four channels at two pixels, each channel with its own weights: the depthwise convolution of any window.

use super::multiply_accumulate;

/// How the taps of one depthwise window lie in memory: `rows` rows, `pitch` bytes apart, of `per_row` taps, `step` bytes apart.
pub(crate) struct Taps {
    pub(crate) rows: usize,
    pub(crate) pitch: usize,
    pub(crate) per_row: usize,
    pub(crate) step: usize,
}

/// Accumulators `[channel][pixel]` of four channels at two pixels, each channel with its own weights: `bias` plus the products of the
/// taps that begin at `starts` in `input`.
///
/// # Panics
/// If a tap's four bytes do not lie inside `input`.
#[inline(always)]
pub(crate) fn depthwise_4x2(
    bias: [i32; 4],
    input: &[i8],
    starts: [usize; 2],
    taps: &Taps,
    weights: &[[i8; 4]],
) -> [[i32; 2]; 4] {
    let mut sums = bias.map(|bias| [bias; 2]);
    let last = (taps.rows - 1) * taps.pitch + (taps.per_row - 1) * taps.step + 4;
    let [mut row0, mut row1] = starts.map(|start| input[start..][..last].as_ptr());
    let mut weights = weights[..taps.rows * taps.per_row].as_ptr();
    for _ in 0..taps.rows {
        let (mut p0, mut p1) = (row0, row1);
        let end = weights.wrapping_add(taps.per_row);
        while weights != end {
            // SAFETY: tap i of row r is read at r * pitch + i * step, and the slices above have the last of these and four bytes;
            // `weights` goes once through rows * per_row of them. A slice for each row costs the 5x5 layer 0.4 instructions per
            // multiply-accumulate more, one for each tap 2.
            let (a, b, w) = unsafe { (&*p0.cast::<[i8; 4]>(), &*p1.cast::<[i8; 4]>(), &*weights) };
            accumulate_pair(&mut sums[0], a[0], b[0], w[0]);
            accumulate_pair(&mut sums[1], a[1], b[1], w[1]);
            accumulate_pair(&mut sums[2], a[2], b[2], w[2]);
            accumulate_pair(&mut sums[3], a[3], b[3], w[3]);
            (p0, p1) = (p0.wrapping_add(taps.step), p1.wrapping_add(taps.step));
            weights = weights.wrapping_add(1);
        }
        (row0, row1) = (row0.wrapping_add(taps.pitch), row1.wrapping_add(taps.pitch));
    }
    sums
}

#[inline(always)]
fn accumulate_pair(sums: &mut [i32; 2], a: i8, b: i8, weight: i8) {
    sums[0] = multiply_accumulate(sums[0], i32::from(a), i32::from(weight));
    sums[1] = multiply_accumulate(sums[1], i32::from(b), i32::from(weight));
}
