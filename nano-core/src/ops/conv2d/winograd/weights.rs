//! The transform of weights: from a block of four output channels to int16, two output channels in a word.

use super::inputs::channel_at;
use super::transform::{HALF, Transform, both, separate};
use crate::operator::CheckedPart;

/// The transformed weights of four output channels, in the order 0, 2, 1, 3, as int16.
pub(super) type Weights = [u32; 2];

/// Transforms a block of weights, `[3][3][channels]` words of four output channels, to `[channels][SIDE * SIDE]`, with the input channels in the order of
/// [`channel_at`].
#[inline(never)]
pub(super) fn transform<T: Transform<SIDE, OUTPUTS>, const SIDE: usize, const OUTPUTS: usize>(
    block: &[u32],
    transformed: &mut [Weights],
) {
    let channels = block.len() / 9;
    for (index, points) in transformed.chunks_exact_mut(SIDE * SIDE).enumerate() {
        let first = channel_at(index, channels);
        let block = block.get(first..).checked_part();
        if 8 * channels >= block.len() {
            return;
        }
        // SAFETY: the last tap was checked above. A check of each costs 5 instructions per weight.
        let tap = |tap: usize| unsafe { *block.as_ptr().add(tap * channels) };
        let taps: [u32; 9] = core::array::from_fn(|index| u32::from_le(tap(index)) ^ 0x8080_8080);
        let points = points.as_chunks_mut().0;
        pair::<T, SIDE, OUTPUTS>(taps, points, 0);
        pair::<T, SIDE, OUTPUTS>(taps.map(|word| word >> 8), points, 1);
    }
}

/// Two output channels of one input channel: of each tap, bytes 0 and 2, plus 128.
#[inline(always)]
fn pair<T: Transform<SIDE, OUTPUTS>, const SIDE: usize, const OUTPUTS: usize>(
    taps: [u32; 9],
    points: &mut [[Weights; SIDE]],
    place: usize,
) {
    let [a, b, c, d, e, f, g, h, i] = taps.map(|word| (word & 0x00FF_00FF).wrapping_sub(both(128)));
    let columns = [[a, d, g], [b, e, h], [c, f, i]].map(|column| T::weights(column, 0));
    let rows: [[u32; 3]; SIDE] = core::array::from_fn(|row| columns.map(|column| column[row]));
    // As slices of a length that LLVM does not know: it would unroll the loop, and spill.
    for (&row, points) in core::hint::black_box(&rows[..]).iter().zip(points) {
        for (point, sum) in points.iter_mut().zip(T::weights(row, HALF)) {
            point[place] = separate(sum);
        }
    }
}
