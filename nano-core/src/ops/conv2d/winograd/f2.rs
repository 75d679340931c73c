//! F(2x2, 3x3): 16 multiplications for 4 outputs instead of 36.
//!
//! Interpolates at 0, 1, -1 and infinity. All rows of `G` are multiplied by 2, so that a result is 4 times the accumulator, modulo 2^32: exact while the
//! accumulator is below 2^29. Bounds: |transformed weight| <= 9 * 127 = 1143; inputs 0 to 255 transform to at most 4 * 255 = 1020.

#[cfg(feature = "alloc")]
use super::transform::Costs;
use super::transform::Transform;
use crate::kernels::{Channel, Form, PairOfChannels, SumsOfPoint, WeightsOfPoint, dot_points};

pub(super) struct F2;

impl Transform<4, 2> for F2 {
    #[cfg(feature = "alloc")]
    const COSTS: Costs = Costs { weights: 400, inputs: 110, outputs: 130, tile: 130 };
    const ROW_SUM: i32 = 2;
    const SHIFT: u32 = 2;

    #[inline(always)]
    fn inputs([a, b, c, d]: [u32; 4], addend: u32) -> [u32; 4] {
        let c = c.wrapping_add(addend);
        let a = a.wrapping_add(addend << 1);
        [a.wrapping_sub(c), b.wrapping_add(c), c.wrapping_sub(b), b.wrapping_add(addend).wrapping_sub(d)]
    }

    #[inline(always)]
    fn weights([a, b, c]: [u32; 3], addend: u32) -> [u32; 4] {
        let outer = a.wrapping_add(c).wrapping_add(addend);
        let twice = |x: u32| (x << 1).wrapping_add(addend);
        [twice(a), outer.wrapping_add(b), outer.wrapping_sub(b), twice(c)]
    }

    #[inline(never)]
    fn multiply(inputs: &[PairOfChannels], weights: &[WeightsOfPoint], channels: usize, products: &mut [SumsOfPoint]) {
        if let Some(products) = products.first_chunk_mut() {
            dot_points::<16>(inputs, weights, channels, products);
        }
    }

    #[inline(always)]
    fn outputs([a, b, c, d]: [i32; 4]) -> [i32; 2] {
        let (add, sub) = (i32::wrapping_add, i32::wrapping_sub);
        [add(add(a, b), c), sub(sub(b, c), d)]
    }

    #[inline(always)]
    fn constant(bias: i32) -> i32 {
        bias.wrapping_mul(4)
    }

    #[inline(always)]
    fn accumulator(output: i32) -> i32 {
        output
    }

    #[inline(always)]
    fn requantize<F: Form>(channel: &Channel, accumulator: i32, (min, max): (i32, i32)) -> i32 {
        F::requantize_shifted_and_clamp::<{ Self::SHIFT }>(channel, accumulator, min, max)
    }
}
