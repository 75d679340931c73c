//! The image's record and initial state of an [`SgdHead`], made from real weights.

use alloc::vec::Vec;

use super::rate::OCTAVE;
use super::{BALANCED, FROZEN, LARGEST_PRIOR, LEAST_PRIOR, NORMALIZED, PRIOR_AT, SgdHead};
use crate::fixed_point::normalize;
use crate::image::{HeadRecord, Value, WriteError};
use crate::train::descent::Descent;
use crate::train::linear::{bias_input, weight_scale};

/// Description of a linear layer that learns by stochastic gradient descent.
#[derive(Clone, Debug)]
pub struct SgdDescription {
    /// Initial weights, `[classes, features]`.
    pub weights: Vec<f32>,
    /// Initial biases, one for each class.
    pub biases: Vec<f32>,
    /// How it learns.
    pub descent: Descent,
    /// For a rate that the device makes of its samples: its logarithm (base 2), relative to three quarters of the largest stable one, for few samples of classes
    /// that the layer knows; -4 to 2.
    pub prior: f64,
}

/// Packs the head record and the initial state for a linear layer of real weights after `features`.
pub(in crate::train) fn pack(head: &SgdDescription, features: &Value) -> Result<(HeadRecord, Vec<u8>), WriteError> {
    let refused = |rule, value| WriteError::Refused { operator: "sgd head".into(), rule, value };
    let descent = &head.descent;
    let (width, classes) = (features.len(), head.biases.len());
    SgdHead::LIMITS.check_layer(classes, width)?;
    descent.check(classes)?;
    if classes == 0 || head.weights.len() != classes * width {
        return Err(refused("needs classes * features weights, has", head.weights.len() as f64));
    }
    let input_scale = f64::from(features.scale);
    let bias_input = bias_input(input_scale);
    let rows = head.weights.chunks_exact(width).zip(&head.biases);
    let real = rows.flat_map(|(row, &bias)| {
        row.iter().map(|&weight| f64::from(weight)).chain([f64::from(bias) / (f64::from(bias_input) * input_scale)])
    });
    let magnitude = real
        .clone()
        .fold(0.0f64, |largest, weight| if weight.abs() > largest || weight.is_nan() { weight.abs() } else { largest });
    if !magnitude.is_finite() {
        return Err(refused("the weights hold NaN or infinity", magnitude));
    }
    let weight_scale = weight_scale(magnitude, input_scale);
    let logit_scale = weight_scale * input_scale;
    let (multiplier, exponent) = normalize(logit_scale * descent.loss.logit_steps(), 16)
        .filter(|(_, exponent)| (-47..=16).contains(exponent))
        .ok_or_else(|| refused("the logit's scale is out of range", logit_scale))?;
    let multiplier_shift = 16 - exponent;
    let factor = input_scale * 256.0 / (weight_scale * descent.loss.one());
    let (rate, rate_shift) = match descent.learning_rate {
        Some(rate) => Descent::rates(rate, &[factor])?[0],
        None => descent.normalized_rate(factor, input_scale)?,
    };
    let state = real.map(|weight| {
        let v = weight * 256.0 / weight_scale;
        // Rounded half away from zero; core has no f64::round.
        (v + 0.5f64.copysign(v)) as i16 + 128
    });
    let rates = descent.class_words(classes, rate, FROZEN.into())?;
    if rates.iter().all(|rate| rate & i32::from(FROZEN) != 0) {
        let given = format_args!("{:?}", descent.frozen);
        return Err(WriteError::setting("frozen", given, "at least one class that learns"));
    }
    let halve_every = descent.halve_every()?;
    let prior = match descent.learning_rate {
        Some(_) => 0,
        // Rounded half up.
        None => (head.prior * f64::from(OCTAVE) + 4096.5) as i32 - 4096,
    };
    if !(LEAST_PRIOR..=LARGEST_PRIOR).contains(&prior) {
        let (least, most) = (LEAST_PRIOR / OCTAVE, LARGEST_PRIOR / OCTAVE);
        return Err(WriteError::setting("prior", head.prior, format_args!("{least} to {most}")));
    }
    let record = HeadRecord {
        trainer: SgdHead::TRAINER,
        classes: classes as u32,
        features: width as u32,
        constants: [
            multiplier as i32,
            multiplier_shift,
            rate,
            rate_shift,
            descent.loss as i32,
            halve_every,
            bias_input,
            i32::from(descent.learning_rate.is_none()) * NORMALIZED
                + i32::from(descent.balance) * BALANCED
                + (prior << PRIOR_AT),
        ],
        logit_scale: logit_scale as f32,
        guard: descent.guard()?,
        half_life: descent.half_life,
        ..HeadRecord::default()
    };
    let state = state.chain(rates.into_iter().map(|rate| rate as i16));
    Ok((record, state.flat_map(i16::to_le_bytes).collect()))
}
