//! F(4x4, 3x3): 36 multiplications for 16 outputs instead of 144.
//!
//! Interpolates at 0, -1, 1, 2, -2 and infinity. The rows of `G` are multiplied by 24, -6, -6, 24, 24 and 6 to integers (the first row is [1/4, 0, 0]), and `A'`
//! such that it returns 24 times an output. Over both sides a result is 576 times the accumulator, modulo 2^32. 954437177 is the inverse of 9 modulo 2^32, so
//! `result * 954437177` is 64 times the accumulator: exact while that is below 2^25. Bounds: transformed weights are at most 49 * 127 = 6223; inputs of 0 to
//! 255 transform to at most 68 * 255 = 17340; both fit int16, and their product int32.

#[cfg(feature = "alloc")]
use super::transform::Costs;
use super::transform::Transform;
use crate::kernels::{Channel, Form, PairOfChannels, SumsOfPoint, WeightsOfPoint, dot_points};

pub(super) struct F4;

impl Transform<6, 4> for F4 {
    #[cfg(feature = "alloc")]
    const COSTS: Costs = Costs { weights: 622, inputs: 230, outputs: 430, tile: 140 };
    const ROW_SUM: i32 = -6;
    const SHIFT: u32 = 6;

    #[inline(always)]
    fn inputs([a, b, c, d, e, f]: [u32; 6], addend: u32) -> [u32; 6] {
        let sub = u32::wrapping_sub;
        let (p, q) = (sub(e, c), sub(d, b));
        let (u, v) = (sub(e, c << 2), sub(d, b << 2));
        let (p, u) = (p.wrapping_add(addend), u.wrapping_add(addend));
        [
            p.wrapping_add(sub(a, c) << 2),
            u.wrapping_add(v),
            sub(u, v),
            p.wrapping_add(q << 1),
            sub(p, q << 1),
            sub(sub(f, d).wrapping_add(addend), q << 2),
        ]
    }

    #[inline(always)]
    fn weights([a, b, c]: [u32; 3], addend: u32) -> [u32; 6] {
        let add = u32::wrapping_add;
        let outer = add(add(a, c), addend);
        let even = add(add(a, c << 2), addend);
        let six = |x: u32| add(x.wrapping_mul(six()), addend);
        [six(a), add(outer, b), outer.wrapping_sub(b), add(even, b << 1), even.wrapping_sub(b << 1), six(c)]
    }

    #[inline(never)]
    fn multiply(inputs: &[PairOfChannels], weights: &[WeightsOfPoint], channels: usize, products: &mut [SumsOfPoint]) {
        if let Some(products) = products.first_chunk_mut() {
            dot_points::<36>(inputs, weights, channels, products);
        }
    }

    #[inline(always)]
    fn outputs([a, b, c, d, e, f]: [i32; 6]) -> [i32; 4] {
        let (add, sub) = (i32::wrapping_add, i32::wrapping_sub);
        let (s, t, u, v) = (add(b, c) << 2, sub(b, c) << 2, add(d, e), sub(d, e) << 1);
        [sub(add(a, u), s), sub(v, t), sub(u << 2, s), sub(add(f, v) << 2, t)]
    }

    #[inline(always)]
    fn constant(bias: i32) -> i32 {
        bias.wrapping_mul(36)
    }

    #[inline(always)]
    fn accumulator(output: i32) -> i32 {
        const INVERSE_OF_9: i32 = 954_437_177;
        output.wrapping_mul(INVERSE_OF_9)
    }

    #[inline(always)]
    fn requantize<F: Form>(channel: &Channel, accumulator: i32, (min, max): (i32, i32)) -> i32 {
        F::requantize_shifted_and_clamp::<{ Self::SHIFT }>(channel, accumulator, min, max)
    }
}

/// 6, as a number that LLVM does not know: it would make two shifts and an addition of each product.
#[inline(always)]
fn six() -> u32 {
    #[cfg(target_arch = "riscv32")]
    {
        let mut six = 6;
        // SAFETY: no instruction.
        unsafe { core::arch::asm!("/* {0} */", inout(reg) six, options(pure, nomem, nostack, preserves_flags)) };
        six
    }
    #[cfg(not(target_arch = "riscv32"))]
    {
        6
    }
}
