//! GEMM micro-kernel of the Winograd convolution: at one point of the transform, four tiles by four output channels.

use super::LANES;

/// The transformed inputs of four tiles at one point: each word holds two input channels, the first one in its lower half.
pub(crate) type PairOfChannels = [u32; LANES];

/// The transformed weights of one input channel and four output channels at one point, in the order 0, 2, 1, 3.
pub(crate) type WeightsOfPoint = [i16; LANES];

/// Sums of products at one point, `[output channel][tile]`.
pub(crate) type SumsOfPoint = [[i32; LANES]; LANES];

/// Writes the sums `[output channel][tile]` of the products of transformed inputs and transformed weights, modulo 2^32, to `sums` for each of its points.
///
/// The elements of inputs and weights are `[channel][point]`, with `POINTS` points: of `weights` for each of the input channels, of `inputs` for each pair
/// of them. Of an odd number of channels, the first pair holds only the lower one.
pub(crate) fn dot_points<const POINTS: usize>(
    inputs: &[PairOfChannels],
    weights: &[WeightsOfPoint],
    channels: usize,
    sums: &mut [SumsOfPoint; POINTS],
) {
    let fits = channels > 0 && weights.len() >= channels * POINTS && inputs.len() >= channels.div_ceil(2) * POINTS;
    debug_assert!(fits, "inputs or weights that were checked are absent");
    if !fits {
        return;
    }
    // As a slice of a length that LLVM does not know: it would unroll the loop.
    for (point, sums) in core::hint::black_box(&mut sums[..]).iter_mut().take(POINTS).enumerate() {
        // SAFETY: `point` is below `POINTS`, and the lengths were checked above.
        unsafe { dot_point::<POINTS>(inputs.as_ptr().add(point), weights.as_ptr().add(point), channels, sums) };
    }
}

/// The sums of one point.
///
/// # Safety
/// `inputs` and `weights` point to as many elements as in [`dot_points`], `POINTS` from one to the next.
#[cfg(not(target_arch = "riscv32"))]
unsafe fn dot_point<const POINTS: usize>(
    inputs: *const PairOfChannels,
    weights: *const WeightsOfPoint,
    channels: usize,
    sums: &mut SumsOfPoint,
) {
    *sums = [[0; LANES]; LANES];
    for channel in 0..channels {
        let place = if channel == 0 { 0 } else { channel + channels % 2 };
        // SAFETY: the caller's.
        let (pairs, weights) = unsafe { (*inputs.add(place / 2 * POINTS), *weights.add(channel * POINTS)) };
        let [a, c, b, d] = weights;
        for (sums, weight) in sums.iter_mut().zip([a, b, c, d]) {
            for (sum, pair) in sums.iter_mut().zip(pairs) {
                let x = (pair >> (16 * (place % 2))) as i16;
                *sum = sum.wrapping_add(i32::from(x) * i32::from(weight));
            }
        }
    }
}

/// Instructions: the product of a tile and the weight of an output channel, added to their sum or as their first one.
#[cfg(target_arch = "riscv32")]
macro_rules! product {
    (add $channel:literal $tile:literal $weight:literal) => {
        concat!(
            concat!("mul {t}, {x", $tile, "}, {", $weight, "}\n"),
            concat!("add {s", $channel, $tile, "}, {s", $channel, $tile, "}, {t}\n"),
        )
    };
    (first $channel:literal $tile:literal $weight:literal) => {
        concat!("mul {s", $channel, $tile, "}, {x", $tile, "}, {", $weight, "}\n")
    };
}

/// Instructions: the products of four tiles and the weight of an output channel.
#[cfg(target_arch = "riscv32")]
macro_rules! output_channel {
    ($kind:ident $channel:literal $weight:literal) => {
        concat!(
            product!($kind $channel 0 $weight),
            product!($kind $channel 1 $weight),
            product!($kind $channel 2 $weight),
            product!($kind $channel 3 $weight),
        )
    };
}

/// Instructions: the products of one input channel, whose inputs lie `$inputs` bytes and whose weights `$weights` bytes on. Nothing is used by the
/// instruction after its load, which would stall.
#[cfg(target_arch = "riscv32")]
macro_rules! input_channel {
    ($kind:ident $inputs:literal $weights:literal) => {
        concat!(
            concat!("lh {w}, ", $weights, "({weights})\n"),
            concat!("lh {x0}, ", $inputs, "({inputs})\n"),
            concat!("lh {x1}, 4+", $inputs, "({inputs})\n"),
            concat!("lh {x2}, 8+", $inputs, "({inputs})\n"),
            concat!("lh {x3}, 12+", $inputs, "({inputs})\n"),
            concat!("lh {v}, 4+", $weights, "({weights})\n"),
            output_channel!($kind 0 "w"),
            concat!("lh {w}, 2+", $weights, "({weights})\n"),
            output_channel!($kind 1 "v"),
            concat!("lh {v}, 6+", $weights, "({weights})\n"),
            output_channel!($kind 2 "w"),
            output_channel!($kind 3 "v"),
        )
    };
}

/// Instructions: stores the sums of an output channel.
#[cfg(target_arch = "riscv32")]
macro_rules! store {
    ($channel:literal $offset:literal) => {
        concat!(
            concat!("sw {s", $channel, "0}, ", $offset, "({sums})\n"),
            concat!("sw {s", $channel, "1}, 4+", $offset, "({sums})\n"),
            concat!("sw {s", $channel, "2}, 8+", $offset, "({sums})\n"),
            concat!("sw {s", $channel, "3}, 12+", $offset, "({sums})\n"),
        )
    };
}

/// The same in rv32im assembly.
#[cfg(target_arch = "riscv32")]
#[inline(always)]
unsafe fn dot_point<const POINTS: usize>(
    inputs: *const PairOfChannels,
    weights: *const WeightsOfPoint,
    channels: usize,
    sums: &mut SumsOfPoint,
) {
    let step = POINTS * size_of::<WeightsOfPoint>();
    // SAFETY: reads the elements that the caller has promised. LLVM has no register to spare for this: it would spill the sums.
    unsafe {
        core::arch::asm!(
            input_channel!(first 0 "0"),
            // Of an odd number of input channels, the first one is alone.
            "bnez {t}, 3f",
            ".p2align 2",
            "2:",
            input_channel!(add 2 "{weights_step}"),
            "addi {weights}, {weights}, {step}",
            "addi {inputs}, {inputs}, {step}",
            "beq {weights}, {end}, 4f",
            input_channel!(add 0 "0"),
            "j 2b",
            "3:",
            "addi {weights}, {weights}, {weights_step}",
            "addi {inputs}, {inputs}, {step}",
            "beq {weights}, {end}, 4f",
            input_channel!(add 0 "0"),
            "j 2b",
            "4:",
            store!(0 0),
            store!(1 16),
            store!(2 32),
            store!(3 48),
            s00 = out(reg) _, s01 = out(reg) _, s02 = out(reg) _, s03 = out(reg) _,
            s10 = out(reg) _, s11 = out(reg) _, s12 = out(reg) _, s13 = out(reg) _,
            s20 = out(reg) _, s21 = out(reg) _, s22 = out(reg) _, s23 = out(reg) _,
            s30 = out(reg) _, s31 = out(reg) _, s32 = out(reg) _, s33 = out(reg) _,
            inputs = inout(reg) inputs => _,
            weights = inout(reg) weights => _,
            end = in(reg) weights.wrapping_byte_add(channels * step),
            sums = in(reg) sums.as_mut_ptr(),
            x0 = out(reg) _, x1 = out(reg) _, x2 = out(reg) _, x3 = out(reg) _,
            w = out(reg) _, v = out(reg) _,
            t = inout(reg) channels % 2 => _,
            weights_step = const POINTS * size_of::<WeightsOfPoint>(),
            step = const POINTS * size_of::<PairOfChannels>(),
            options(nostack),
        );
    }
}
