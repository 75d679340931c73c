//! The inverse of the transform of stored weights.

use alloc::vec;
use alloc::vec::Vec;

use zerocopy::{FromBytes, IntoBytes};

use super::f4::F4;
use super::inputs::channel_at;
use super::weights::{Weights, transform};
use crate::kernels::LANES;

const SIDE: usize = 6;
const POINTS: usize = SIDE * SIDE;

/// The weights, `[out][3][3][in]`, of stored ones of F(4x4, 3x3); `None` if no weights transform to them.
pub(crate) fn restored(stored: &[i8], outputs: usize, inputs: usize) -> Option<Vec<i8>> {
    let blocks = <[Weights]>::ref_from_bytes(stored.as_bytes()).ok()?.chunks_exact(POINTS * inputs);
    let mut weights = vec![0; outputs * 9 * inputs];
    for (index, stored) in blocks.enumerate() {
        let mut block = vec![0u32; 9 * inputs];
        for (index, points) in stored.chunks_exact(POINTS).enumerate() {
            let input = channel_at(index, inputs);
            for lane in 0..LANES {
                let value = |row: usize, column: usize| of_lane(points[row * SIDE + column], lane);
                for tap in 0..9 {
                    let along = |row: usize| untransformed(tap % 3, |column| value(row, column));
                    let weight = untransformed(tap / 3, along) as i8;
                    block[tap * inputs + input] |= u32::from(weight as u8) << (8 * lane);
                }
            }
        }
        let mut again = vec![Weights::default(); POINTS * inputs];
        transform::<F4, SIDE, 4>(&block.iter().map(|word| word.to_le()).collect::<Vec<_>>(), &mut again);
        if again != stored {
            return None;
        }
        for lane in 0..LANES.min(outputs.saturating_sub(LANES * index)) {
            let channel = (LANES * index + lane) * 9 * inputs;
            for (to, word) in weights[channel..][..9 * inputs].iter_mut().zip(&block) {
                *to = (word >> (8 * lane)) as i8;
            }
        }
    }
    Some(weights)
}

/// The transformed weight of output channel `lane` of the four.
fn of_lane(weights: Weights, lane: usize) -> i32 {
    let [word, half] = [[0, 0], [1, 0], [0, 1], [1, 1]][lane];
    i32::from((weights[word] >> (16 * half)) as i16)
}

/// Weight `index` of three, of their transform along one side: rows 0 and 5 are six times the first and the last, rows 1 and 2 the sum and the
/// alternating sum of all.
fn untransformed(index: usize, transformed: impl Fn(usize) -> i32) -> i32 {
    match index {
        0 => transformed(0) / 6,
        1 => (transformed(1) - transformed(2)) / 2,
        _ => transformed(5) / 6,
    }
}
