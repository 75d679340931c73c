//! The transforms of Winograd's minimal filtering in integers.
//!
//! A tile of output pixels is `A' [(G g G') * (B' d B)] A` (Winograd 1980; Lavin and Gray 2016): `d` are the inputs under the tile, `g` a filter, `*` multiplies
//! element by element. `G` has fractions. Here its rows are multiplied by integers, so that the result is a known multiple of the tile, modulo 2^32, from
//! which [`Transform::accumulator`] restores the accumulator.
//!
//! Transforms of inputs and weights are linear, and none of their numbers exceeds int16: a word transforms two channels at once, as `low + 2^16 high`.

use crate::kernels::{Channel, Form, PairOfChannels, SumsOfPoint, WeightsOfPoint};

/// Adds 2^15 to the lower half of a word of two channels, so that nothing is borrowed from the upper one.
pub(super) const HALF: u32 = 0x8000;

/// The two channels of `low + 2^16 high + HALF` as two int16.
#[inline(always)]
pub(super) fn separate(sum: u32) -> u32 {
    sum ^ HALF
}

/// A constant for both channels of a word.
pub(super) const fn both(x: i32) -> u32 {
    (x as u32).wrapping_mul(0x1_0001)
}

/// The transforms along one side of tiles of `OUTPUTS` by `OUTPUTS` pixels under windows of 3 by 3, whose inputs are `SIDE` by `SIDE`.
pub(super) trait Transform<const SIDE: usize, const OUTPUTS: usize> {
    /// The sum of row 1 of `B'`; those of the other rows are 0.
    const ROW_SUM: i32;

    /// `B' d + addend`, of pairs of channels.
    fn inputs(d: [u32; SIDE], addend: u32) -> [u32; SIDE];

    /// `G g + addend`, of pairs of channels.
    fn weights(g: [u32; 3], addend: u32) -> [u32; SIDE];

    /// The products of a group at all points: [`dot_points`](crate::kernels::dot_points).
    fn multiply(inputs: &[PairOfChannels], weights: &[WeightsOfPoint], channels: usize, products: &mut [SumsOfPoint]);

    /// `A' m`, times a power of two.
    fn outputs(m: [i32; SIDE]) -> [i32; OUTPUTS];

    /// What the products at point (1, 1) are for a tile whose accumulators are all `bias`, the others being 0.
    fn constant(bias: i32) -> i32;

    /// The accumulator times `2^SHIFT`, modulo 2^32, from what [`Transform::outputs`] over both sides returns for its pixel.
    fn accumulator(output: i32) -> i32;

    /// Exponent of the factor of [`Transform::accumulator`]: accumulators below `2^(31 - SHIFT)` are exact.
    const SHIFT: u32;

    /// Requantizes an accumulator times `2^SHIFT`, and clamps it.
    fn requantize<F: Form>(channel: &Channel, accumulator: i32, clamp: (i32, i32)) -> i32;

    /// Instructions that the transforms take.
    #[cfg(feature = "alloc")]
    const COSTS: Costs;
}

/// Instructions of a transform, as counted by `just bench-device`.
#[cfg(feature = "alloc")]
pub(super) struct Costs {
    /// For an input channel and a block of output channels.
    pub(super) weights: usize,
    /// For an input channel of a tile.
    pub(super) inputs: usize,
    /// For an output channel of a tile.
    pub(super) outputs: usize,
    /// For a tile and a block of output channels.
    pub(super) tile: usize,
}
