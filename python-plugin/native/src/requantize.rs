//! Requantization for training: converts torch's float accumulators to a layer's output with nano-core's rounding, in one pass.

use nano_core::fixed_point::{Multiplier, doubling_high_multiply, rounding_divide_by_power_of_two};
use numpy::{PyReadonlyArray1, PyReadwriteArray1};
use pyo3::prelude::*;

use crate::refuse;

/// The largest accumulator: float32 holds every integer up to it.
const LARGEST: f32 = 16_777_216.0;

/// 1.5 * 2^23: its sum with a small integer has the integer in its lowest bits. This conversion vectorizes.
const MAGIC: f32 = 12_582_912.0;

/// The minimum row length: on shorter rows the vectorized loop has no work.
const SHORTEST_ROW: usize = 64;

/// The clamp of the output, relative to its zero point.
#[derive(Clone, Copy)]
struct Bounds {
    low: i32,
    high: i32,
}

/// Requantizes integer-valued accumulators `[..., channels]` in place: `clamp(apply(real[channel], accumulator), low, high)`, the output
/// without its zero point.
///
/// `apply` is `Multiplier::apply`. There is one real multiplier for all channels, or one per channel.
#[pyfunction]
pub fn requantize_(
    py: Python<'_>,
    mut accumulators: PyReadwriteArray1<'_, f32>,
    reals: PyReadonlyArray1<'_, f64>,
    low: i32,
    high: i32,
) -> PyResult<()> {
    let numbers = accumulators.as_slice_mut()?;
    let multipliers = reals
        .as_slice()?
        .iter()
        .map(|&real| {
            Multiplier::from_real(real).ok_or_else(|| refuse(format!("the multiplier {real} is not in [0, 2^30)")))
        })
        .collect::<PyResult<Vec<_>>>()?;
    if multipliers.is_empty() || numbers.len() % multipliers.len() != 0 {
        return Err(refuse(format!(
            "{} accumulators are no multiple of {} channels",
            numbers.len(),
            multipliers.len()
        )));
    }
    let bounds = Bounds { low, high };
    let multipliers = multipliers.repeat(SHORTEST_ROW.div_ceil(multipliers.len()));
    py.detach(|| rounded(numbers, &multipliers, bounds));
    Ok(())
}

/// Runs on one thread: torch's threads wait in a busy loop after each convolution, so a second thread here would compete with them for the
/// processor (measured: 4 times as slow on two cores).
fn rounded(numbers: &mut [f32], multipliers: &[Multiplier], bounds: Bounds) {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor supports AVX2. Measured: 1.7 to 2 times as fast.
        return unsafe { rounded_avx2(numbers, multipliers, bounds) };
    }
    rows(numbers, multipliers, bounds);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn rounded_avx2(numbers: &mut [f32], multipliers: &[Multiplier], bounds: Bounds) {
    rows(numbers, multipliers, bounds);
}

#[inline(always)]
fn rows(numbers: &mut [f32], multipliers: &[Multiplier], bounds: Bounds) {
    let mantissas: Vec<i32> = multipliers.iter().map(|multiplier| multiplier.mantissa).collect();
    let shifts: Vec<i32> = multipliers.iter().map(|multiplier| multiplier.shift).collect();
    if shifts.iter().any(|&shift| shift > 0) {
        return each(numbers, &mantissas, &shifts, bounds, |accumulator, mantissa, shift| {
            Multiplier { mantissa, shift }.apply(accumulator)
        });
    }
    // `Multiplier::apply` for right shifts only, which vectorizes: measured twice as fast.
    each(numbers, &mantissas, &shifts, bounds, |accumulator, mantissa, shift| {
        rounding_divide_by_power_of_two(doubling_high_multiply(accumulator, mantissa), (-shift) as u32)
    });
}

#[inline(always)]
#[expect(clippy::manual_clamp, reason = "f32::clamp keeps NaN, max does not")]
fn each(numbers: &mut [f32], mantissas: &[i32], shifts: &[i32], bounds: Bounds, scaled: impl Fn(i32, i32, i32) -> i32) {
    for row in numbers.chunks_mut(mantissas.len()) {
        for ((number, &mantissa), &shift) in row.iter_mut().zip(mantissas).zip(shifts) {
            // Limited here, as the conversion that checks for NaN and range does not vectorize.
            let limited = number.max(-LARGEST).min(LARGEST);
            // SAFETY: `limited` is in range and not NaN: f32::max returns its other operand for NaN. Measured: 1.8 times as
            // fast.
            let accumulator = unsafe { limited.to_int_unchecked::<i32>() };
            *number = scaled(accumulator, mantissa, shift).clamp(bounds.low, bounds.high) as f32;
        }
    }
}

/// Looks up an operator of two inputs: `outputs[i] = table[256 * (a[i] + 128) + b[i] + 128] - zero_points[2]` for int8 numbers `a` and `b`. The
/// arrays hold all numbers minus their zero points.
#[pyfunction]
pub fn look_up_pairs(
    py: Python<'_>,
    a: PyReadonlyArray1<'_, f32>,
    b: PyReadonlyArray1<'_, f32>,
    mut outputs: PyReadwriteArray1<'_, f32>,
    table: PyReadonlyArray1<'_, i8>,
    zero_points: (i32, i32, i32),
) -> PyResult<()> {
    let (a, b, outputs) = (a.as_slice()?, b.as_slice()?, outputs.as_slice_mut()?);
    let table: &[i8; 1 << 16] = table
        .as_slice()?
        .try_into()
        .map_err(|_| refuse(format!("a table of {} entries, not 65536", table.len().unwrap_or(0))))?;
    if a.len() != outputs.len() || b.len() != outputs.len() {
        return Err(refuse(format!("{} and {} numbers for {} outputs", a.len(), b.len(), outputs.len())));
    }
    let (first, second, output) = zero_points;
    let (first, second) = (MAGIC + (first + 128) as f32, MAGIC + (second + 128) as f32);
    py.detach(|| {
        for ((&a, &b), y) in a.iter().zip(b).zip(outputs) {
            let (a, b) = ((a + first).to_bits() & 0xff, (b + second).to_bits() & 0xff);
            *y = (i32::from(table[(a << 8 | b) as usize]) - output) as f32;
        }
    });
    Ok(())
}

/// Looks up a function of one variable, or its derivative: `outputs[i] = table[x[i] + zero_point + 128]`, where `x` holds int8 numbers minus
/// their zero point.
#[pyfunction]
pub fn look_up(
    py: Python<'_>,
    x: PyReadonlyArray1<'_, f32>,
    mut outputs: PyReadwriteArray1<'_, f32>,
    table: PyReadonlyArray1<'_, f32>,
    zero_point: i32,
) -> PyResult<()> {
    let (x, outputs) = (x.as_slice()?, outputs.as_slice_mut()?);
    let table: &[f32; 1 << 8] = table
        .as_slice()?
        .try_into()
        .map_err(|_| refuse(format!("a table of {} entries, not 256", table.len().unwrap_or(0))))?;
    if x.len() != outputs.len() {
        return Err(refuse(format!("{} numbers for {} outputs", x.len(), outputs.len())));
    }
    let offset = MAGIC + (zero_point + 128) as f32;
    py.detach(|| {
        for (&x, y) in x.iter().zip(outputs) {
            *y = table[((x + offset).to_bits() & 0xff) as usize];
        }
    });
    Ok(())
}
