//! Quantizes the weights and biases of a layer per output channel.

use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1};
use pyo3::prelude::*;

use crate::refuse;

const LARGEST: f64 = 127.0;
/// The largest quantized bias for inputs of 8 bits; the rest of the accumulator's range is for the products. Each further bit doubles it, as the
/// steps of the bias are half as large.
const LARGEST_BIAS: f64 = 4_194_304.0;

type Channels<'py> = (Bound<'py, PyArray1<i8>>, Bound<'py, PyArray1<i32>>, Bound<'py, PyArray1<f32>>);

/// Quantizes weights `[channels, ...]` and biases; returns int8 weights, int32 biases and float32 scales. See `torch_nano.arithmetic.weights`.
#[pyfunction]
#[pyo3(signature = (weights, biases, input_scale, input_bits=8))]
pub fn quantize_channels<'py>(
    py: Python<'py>,
    weights: PyReadonlyArray1<'py, f32>,
    biases: PyReadonlyArray1<'py, f32>,
    input_scale: f64,
    input_bits: i32,
) -> PyResult<Channels<'py>> {
    let largest_bias = LARGEST_BIAS * f64::from(input_bits - 8).exp2();
    let (weights, biases) = (weights.as_slice()?, biases.as_slice()?);
    if biases.is_empty() || !weights.len().is_multiple_of(biases.len()) {
        return Err(refuse(format!("{} weights are no multiple of {} channels", weights.len(), biases.len())));
    }
    let per_channel = (weights.len() / biases.len()).max(1);
    let rows = || weights.chunks(per_channel);
    refuse_non_finite("weight", rows().map(|row| row.iter().all(|weight| weight.is_finite())))?;
    refuse_non_finite("bias", biases.iter().map(|bias| bias.is_finite()))?;

    let mut steps: Vec<f64> =
        rows().map(|row| row.iter().fold(0.0f64, |most, &w| most.max(f64::from(w.abs()))) / LARGEST).collect();
    steps.resize(biases.len(), 0.0);
    let most = steps.iter().fold(0.0f64, |most, &step| most.max(step));
    let without_weights = if most > 0.0 { most } else { 1.0 };
    let scales: Vec<f32> = steps
        .iter()
        .zip(biases)
        .map(|(&step, &bias)| {
            let step = if step > 0.0 { step } else { without_weights };
            (step.max(f64::from(bias).abs() / (input_scale * largest_bias)) as f32).max(f32::MIN_POSITIVE)
        })
        .collect();

    let integers: Vec<i8> = rows()
        .zip(&scales)
        .flat_map(|(row, &scale)| {
            row.iter().map(move |&w| steps_of(w, f64::from(scale)).clamp(-LARGEST, LARGEST) as i8)
        })
        .collect();
    let bias_integers: Vec<i32> = biases
        .iter()
        .zip(&scales)
        .map(|(&bias, &scale)| steps_of(bias, input_scale * f64::from(scale)) as i32)
        .collect();
    Ok((integers.into_pyarray(py), bias_integers.into_pyarray(py), scales.into_pyarray(py)))
}

/// `real / scale` rounded to the nearest integer, ties to even.
fn steps_of(real: f32, scale: f64) -> f64 {
    // A sum with 1.5 * 2^52 has no bits for fractions. Unlike round_ties_even, this vectorizes.
    const WITHOUT_FRACTIONS: f64 = 6_755_399_441_055_744.0;
    f64::from(real) / scale + WITHOUT_FRACTIONS - WITHOUT_FRACTIONS
}

fn refuse_non_finite(what: &str, finite: impl Iterator<Item = bool>) -> PyResult<()> {
    let wrong: Vec<String> =
        finite.enumerate().filter(|&(_, finite)| !finite).map(|(channel, _)| channel.to_string()).collect();
    if wrong.is_empty() {
        return Ok(());
    }
    let more = if wrong.len() > 8 { ", ..." } else { "" };
    Err(refuse(format!(
        "the {what} holds NaN or infinity in output channels {}{more}",
        wrong[..wrong.len().min(8)].join(", ")
    )))
}

/// An upper bound of the magnitude of all partial sums of `bias + sum x * weight`, for all x from `low` to `high` and any order of summation.
#[pyfunction]
pub fn largest_partial_sum(
    weights: PyReadonlyArray1<'_, i8>,
    biases: PyReadonlyArray1<'_, i64>,
    low: i64,
    high: i64,
) -> PyResult<i64> {
    let biases = biases.as_slice()?;
    let weights = weights.as_slice()?;
    let per_channel = (weights.len() / biases.len().max(1)).max(1);
    let mut largest = 0;
    for (channel, &bias) in biases.iter().enumerate() {
        let row = weights.get(channel * per_channel..(channel + 1) * per_channel).unwrap_or_default();
        let positive: i64 = row.iter().map(|&w| i64::from(w.max(0))).sum();
        let negative: i64 = row.iter().map(|&w| -i64::from(w.min(0))).sum();
        let furthest = (positive * high - negative * low).max(negative * high - positive * low);
        largest = largest.max(furthest.saturating_add(bias.saturating_abs()));
    }
    Ok(largest)
}
