//! The image's record and initial state of an [`LdaHead`].

use alloc::vec::Vec;

use zerocopy::IntoBytes;

use super::LdaHead;
use super::start::{LARGEST_FREEDOM, LARGEST_SPREAD};
use super::state::{EXPONENTS, LARGEST_BIAS, LARGEST_SAMPLES, LARGEST_WEIGHT};
use crate::image::{HeadRecord, Value, WriteError};
use crate::train::start::{StartDescription, rounded};
use crate::train::sums::SumsDescription;

/// Gauss-Seidel sweeps of a commit.
const SWEEPS: i32 = 30;

/// Description of a head that learns by linear discriminant analysis.
#[derive(Clone, Debug)]
pub struct LdaDescription {
    /// Its classes.
    pub sums: SumsDescription,
    /// lambda relative to the mean variance, in the limit of many samples; within [`LdaHead::SHRINKAGE`].
    pub shrinkage: f64,
}

/// Packs the head record and the initial state, without samples of the user, of a head after `features`.
pub(in crate::train) fn pack(head: &LdaDescription, features: &Value) -> Result<(HeadRecord, Vec<u8>), WriteError> {
    let LdaDescription { sums, shrinkage } = head;
    sums.check(&LdaHead::LIMITS, features, LARGEST_SAMPLES)?;
    if !LdaHead::SHRINKAGE.contains(shrinkage) {
        let (least, most) = (LdaHead::SHRINKAGE.start(), LdaHead::SHRINKAGE.end());
        let expected = format_args!("{least:?} to {most:?}");
        return Err(WriteError::setting("shrinkage", format_args!("{shrinkage:?}"), expected));
    }
    let ratio = shrinkage * 65536.0 + 0.5;
    let (start, state) = match &sums.start {
        None => ([0; 4], Vec::new()),
        Some(start) => pack_start(start, sums.classes, features)?,
    };
    let [strength, variance, freedom, exponent] = start;
    let record = HeadRecord {
        trainer: LdaHead::TRAINER,
        classes: sums.capacity as u32,
        features: features.len() as u32,
        constants: [sums.classes as i32, ratio as i32, SWEEPS, strength, variance, freedom, exponent, 0],
        half_life: sums.half_life,
        ..HeadRecord::default()
    };
    Ok((record, state))
}

/// Constants and state of a start: strength, variance, degrees of freedom, exponent.
fn pack_start(start: &StartDescription, classes: usize, features: &Value) -> Result<([i32; 4], Vec<u8>), WriteError> {
    let freedom = (start.spread_strength * classes as f64 + 0.5).clamp(1.0, LARGEST_FREEDOM.into()) as i32;
    let (exponent, scale) = exponent(start, f64::from(features.scale))?;
    let real = |value: &f32, scale: f64| rounded(f64::from(*value) * scale);
    let biases = start.biases.iter().map(|bias| real(bias, scale) as i32);
    let width = features.len();
    let largest = f64::from(LARGEST_SPREAD);
    let spread = start.covariance.chunks_exact(width).enumerate().flat_map(|(i, row)| {
        row.iter().enumerate().skip(i).map(move |(j, &covariance)| {
            // Samples have no larger variance; rounding must not exceed it.
            let most = if i == j { f64::from(freedom << 15) } else { largest };
            rounded(f64::from(covariance) * f64::from(freedom)).clamp(-most, most) as i32
        })
    });
    let mut state: Vec<u8> = biases.chain(spread).flat_map(i32::to_le_bytes).collect();
    let weight_scale = scale * f64::from(features.scale);
    let weights: Vec<i16> = start.weights.iter().map(|weight| real(weight, weight_scale) as i16).collect();
    state.extend_from_slice(start.packed_means(features).as_bytes());
    state.extend(weights.into_iter().flat_map(i16::to_le_bytes));
    let [strength, variance] = start.constants(width);
    Ok(([strength, variance, freedom, exponent], state))
}

/// The largest exponent with which weights and biases keep their bounds, and 2 to its power.
fn exponent(start: &StartDescription, input_scale: f64) -> Result<(i32, f64), WriteError> {
    let largest = |values: &[f32]| values.iter().fold(0.0f64, |most, &value| most.max(f64::from(value).abs()));
    let (weight, bias) = (largest(&start.weights) * input_scale, largest(&start.biases));
    // Biases keep their precision beside weights of zero.
    let (mut exponent, mut scale) = (32, (1u64 << 32) as f64);
    while weight * scale > f64::from(LARGEST_WEIGHT) || bias * scale > f64::from(LARGEST_BIAS) {
        (exponent, scale) = (exponent - 1, scale / 2.0);
    }
    if exponent < *EXPONENTS.start() {
        let rule = "the shipped layer's largest logit is too large, in units of its features";
        return Err(WriteError::Refused { operator: "lda head".into(), rule, value: weight.max(bias) });
    }
    Ok((exponent, scale))
}
