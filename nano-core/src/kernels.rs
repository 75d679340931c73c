//! The inner loops: multiply-accumulate over packed weights, several pixels and channels at a time.
//!
//! Left alone, LLVM reassociates the accumulation, hoists the multiplications and spills. [`barrier`] around each accumulation
//! stops that at no cost. `just bench-device` prints what each layer shape costs.

/// Keeps `value` in a register here: an empty instruction the optimiser cannot look through.
#[inline(always)]
fn barrier(value: i32) -> i32 {
    #[cfg(target_arch = "riscv32")]
    {
        let mut value = value;
        // SAFETY: no instruction is emitted; the register comes back as it went in. Without it the 3x3 convolution takes
        // half as many instructions again.
        unsafe {
            core::arch::asm!("/* {0} */", inlateout(reg) value, options(pure, nomem, nostack, preserves_flags));
        }
        value
    }
    #[cfg(not(target_arch = "riscv32"))]
    value
}

/// How the input bytes under one window lie in memory: `rows` rows, in each `per_row` runs of `length` bytes, `step` bytes
/// from start to start.
pub(crate) struct Runs {
    pub(crate) rows: usize,
    pub(crate) per_row: usize,
    pub(crate) length: usize,
    pub(crate) step: usize,
}

/// Accumulators `[channel][pixel]` of four channels at four pixels: `bias` plus the products of the runs that begin at `starts`,
/// in rows `pitch` bytes apart, with `weights`, four channels at a time.
///
/// # Panics
/// If a run lies outside `rows`, or `weights` is shorter than four times the runs.
#[inline]
pub(crate) fn dot_4x4(
    bias: [i32; 4],
    rows: &[i8],
    pitch: usize,
    starts: [usize; 4],
    runs: &Runs,
    mut weights: &[i8],
) -> [[i32; 4]; 4] {
    let mut sums = bias.map(|bias| [bias; 4]);
    for row in 0..runs.rows {
        for run in 0..runs.per_row {
            let offset = row * pitch + run * runs.step;
            let pixels = starts.map(|start| &rows[start + offset..][..runs.length]);
            let (these, rest) = weights.split_at(4 * runs.length);
            weights = rest;
            accumulate_4x4(&mut sums, pixels, these);
        }
    }
    sums
}

macro_rules! accumulate {
    ($sums:ident, $weight:ident, [$($lane:literal)+], $pixels:tt) => { $( accumulate!(@lane $sums, $weight, $lane, $pixels); )+ };
    (@lane $sums:ident, $weight:ident, $lane:literal, [$($pixel:literal $x:ident),+]) => {
        let weight = i32::from($weight[$lane]);
        $( $sums[$lane][$pixel] = barrier($sums[$lane][$pixel] + $x * weight); )+
    };
}

#[inline(always)]
fn accumulate_4x4(sums: &mut [[i32; 4]; 4], pixels: [&[i8]; 4], weights: &[i8]) {
    let [p0, p1, p2, p3] = pixels;
    let pixels = p0.iter().zip(p1).zip(p2).zip(p3);
    for ((((&x0, &x1), &x2), &x3), weight) in pixels.zip(weights.chunks_exact(4)) {
        let (x0, x1, x2, x3) = (i32::from(x0), i32::from(x1), i32::from(x2), i32::from(x3));
        accumulate!(sums, weight, [0 1 2 3], [0 x0, 1 x1, 2 x2, 3 x3]);
    }
}

/// Adds to `LANES` sums the products of `inputs` with `weights`, stored `LANES` per input.
#[inline(always)]
pub(crate) fn dot_rows<const LANES: usize>(sums: &mut [i32; LANES], inputs: &[i8], weights: &[i8]) {
    for (&x, weights) in inputs.iter().zip(weights.as_chunks::<LANES>().0) {
        let x = i32::from(x);
        for (sum, &weight) in sums.iter_mut().zip(weights) {
            *sum = barrier(*sum + x * i32::from(weight));
        }
    }
}

/// Accumulators `[channel][pixel]` of up to four channels (`taps.length`) at two pixels, each channel with its own weights:
/// `bias` plus the products of the taps that begin at `starts`, in rows `pitch` bytes apart.
///
/// # Panics
/// If a tap lies outside `rows`, or `weights` is shorter than four times the taps.
#[inline]
pub(crate) fn depthwise_4x2(
    bias: [i32; 4],
    rows: &[i8],
    pitch: usize,
    starts: [usize; 2],
    taps: &Runs,
    weights: &[i8],
) -> [[i32; 2]; 4] {
    let mut sums = bias.map(|bias| [bias; 2]);
    let mut weights = weights.as_chunks::<4>().0.iter();
    for row in 0..taps.rows {
        let pixels = starts.map(|start| &rows[start + row * pitch..]);
        for (tap, weights) in (0..taps.per_row).zip(&mut weights) {
            let [p0, p1] = pixels.map(|pixel| &pixel[tap * taps.step..]);
            for lane in 0..taps.length {
                let weight = i32::from(weights[lane]);
                sums[lane][0] = barrier(sums[lane][0] + i32::from(p0[lane]) * weight);
                sums[lane][1] = barrier(sums[lane][1] + i32::from(p1[lane]) * weight);
            }
        }
    }
    sums
}
