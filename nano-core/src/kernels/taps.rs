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
    let span = (taps.per_row - 1) * taps.step + 4;
    for (row, weights) in weights.chunks_exact(taps.per_row).take(taps.rows).enumerate() {
        let [mut p0, mut p1] = starts.map(|start| input[start + row * taps.pitch..][..span].as_ptr());
        for weights in weights {
            // SAFETY: tap number i of a row is read at i * step, and the slices above have (per_row - 1) * step + 4 bytes; `weights`
            // has per_row rows. Slicing each tap instead costs 2 instructions per multiply-accumulate more.
            let (a, b) = unsafe { (&*p0.cast::<[i8; 4]>(), &*p1.cast::<[i8; 4]>()) };
            accumulate_pair(&mut sums[0], a[0], b[0], weights[0]);
            accumulate_pair(&mut sums[1], a[1], b[1], weights[1]);
            accumulate_pair(&mut sums[2], a[2], b[2], weights[2]);
            accumulate_pair(&mut sums[3], a[3], b[3], weights[3]);
            p0 = p0.wrapping_add(taps.step);
            p1 = p1.wrapping_add(taps.step);
        }
    }
    sums
}

#[inline(always)]
fn accumulate_pair(sums: &mut [i32; 2], a: i8, b: i8, weight: i8) {
    sums[0] = multiply_accumulate(sums[0], i32::from(a), i32::from(weight));
    sums[1] = multiply_accumulate(sums[1], i32::from(b), i32::from(weight));
}
