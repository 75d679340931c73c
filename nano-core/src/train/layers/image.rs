//! The image's record and initial state of a [`LayersHead`], made from real weights.

use alloc::vec::Vec;

use zerocopy::IntoBytes;

use super::LayersHead;
use super::record::{BACKWARD_SHIFT, FROZEN, FULL_WEIGHT, LayerRecord, read};
use crate::fixed_point::normalize;
use crate::image::{HeadRecord, Value, WriteError};
use crate::train::descent::Descent;
use crate::train::linear::{LARGEST_SHIFT, bias_input, weight_scale};

/// The range of a layer's outputs, relative to the largest output in calibration: outputs grow as layers learn.
const ROOM_TO_GROW: f64 = 2.0;

/// Description of the last layers of a network, which learn by stochastic gradient descent.
#[derive(Clone, Debug)]
pub struct LayersDescription {
    /// The layers, in order.
    pub layers: Vec<TrainedLayer>,
    /// How they learn.
    pub descent: Descent,
}

/// One of several trained layers.
#[derive(Clone, Debug)]
pub struct TrainedLayer {
    /// The number of positions to which the weights apply in one sample: 1, or the pixels of a 1x1 convolution.
    pub positions: usize,
    /// Initial weights, outputs * inputs of them, inputs innermost.
    pub weights: Vec<f32>,
    /// Initial biases, one for each output.
    pub biases: Vec<f32>,
    /// Lower bound of the activation after the layer, if it has one.
    pub clamp_low: Option<f32>,
    /// Upper bound of the activation after the layer, if it has one.
    pub clamp_high: Option<f32>,
    /// The smallest and the largest output in calibration; unused for the last layer.
    pub range: (f32, f32),
}

/// Packs the head record and the initial state for layers of real weights after `features`. The largest output in calibration becomes at most
/// half of int8's range, because outputs grow as layers learn.
pub(in crate::train) fn pack(head: &LayersDescription, features: &Value) -> Result<(HeadRecord, Vec<u8>), WriteError> {
    let refused = |rule, value| WriteError::Refused { operator: "trained layers".into(), rule, value };
    let descent = &head.descent;
    let rounded = |value: f64| (value + 0.5f64.copysign(value)) as i32;
    let mut input_scale = f64::from(features.scale);
    let mut layers: Vec<(LayerRecord, f64, f64)> = Vec::new();
    let mut initial = Vec::new();
    for (index, layer) in head.layers.iter().enumerate() {
        let outputs = layer.biases.len();
        if outputs == 0 || layer.weights.is_empty() || !layer.weights.len().is_multiple_of(outputs) {
            return Err(refused("needs outputs * inputs weights, has", layer.weights.len() as f64));
        }
        let inputs = layer.weights.len() / outputs;
        let bias_input = bias_input(input_scale);
        let bias_scale = f64::from(bias_input) * input_scale;
        let rows = layer.weights.chunks_exact(inputs).zip(&layer.biases);
        let real = rows
            .flat_map(|(row, &bias)| row.iter().map(|&weight| f64::from(weight)).chain([f64::from(bias) / bias_scale]));
        if real.clone().any(|weight| !weight.is_finite()) {
            return Err(refused("the weights hold NaN or infinity", f64::NAN));
        }
        let largest = real.clone().fold(0.0f64, |largest, weight| largest.max(weight.abs()));
        let weight_scale = weight_scale(largest, input_scale);
        initial.extend(real.map(|weight| rounded(weight * 256.0 / weight_scale) as i16 + 128));
        let mut record = LayerRecord {
            positions: layer.positions as u32,
            inputs: inputs as u32,
            outputs: outputs as u32,
            bias_input,
            weight_scale: weight_scale as f32,
            input_scale: input_scale as f32,
            ..LayerRecord::default()
        };
        layers.push((record, input_scale, weight_scale));
        if index + 1 == head.layers.len() {
            break;
        }
        let (low, high) = (f64::from(layer.range.0), f64::from(layer.range.1));
        let from_zero = layer.clamp_low == Some(0.0);
        let (steps, seen) = if from_zero { (255.0, high) } else { (127.0, high.abs().max(low.abs())) };
        if !seen.is_finite() {
            return Err(refused("the range of a layer's output is NaN or infinity", seen));
        }
        // Outputs cannot grow beyond the activation's upper bound.
        let room = layer.clamp_high.map_or(f64::INFINITY, f64::from).max(seen).min(seen * ROOM_TO_GROW);
        let mut output_scale = weight_scale * input_scale;
        while record.output_shift < LARGEST_SHIFT && output_scale * steps < room {
            (output_scale, record.output_shift) = (output_scale * 2.0, record.output_shift + 1);
        }
        record.zero_point = if from_zero { i8::MIN.into() } else { 0 };
        let end = |bound: Option<f32>, open: i8| match bound {
            Some(bound) => rounded((f64::from(bound) / output_scale).clamp(-512.0, 512.0))
                .saturating_add(record.zero_point)
                .clamp(i8::MIN.into(), i8::MAX.into()),
            None => open.into(),
        };
        (record.low, record.high) = (end(layer.clamp_low, i8::MIN), end(layer.clamp_high, i8::MAX));
        layers[index].0 = record;
        input_scale = output_scale;
    }
    let Some(&(last, input_scale, weight_scale)) = layers.last() else {
        return Err(refused("needs a layer, has", 0.0));
    };
    let logit_scale = weight_scale * input_scale;
    let (multiplier, exponent) = normalize(logit_scale * descent.loss.logit_steps(), 16)
        .filter(|(_, exponent)| (-47..=16).contains(exponent))
        .ok_or_else(|| refused("the logit's scale is out of range", logit_scale))?;
    let multiplier_shift = 16 - exponent;
    let mut one = descent.loss.one();
    let backwards = layers.iter().rev().map(|(_, input_scale, weight_scale)| {
        let factor = input_scale * 256.0 / (weight_scale * one);
        one /= weight_scale * f64::from(1 << BACKWARD_SHIFT);
        factor
    });
    let rate = descent.learning_rate.ok_or_else(|| {
        WriteError::setting("learning_rate", "\"auto\"", "a number: several layers that learn have no rate in common")
    })?;
    let rates = Descent::rates(rate, &backwards.collect::<Vec<_>>())?;
    for ((record, ..), rate) in layers.iter_mut().rev().zip(rates) {
        (record.rate, record.rate_shift) = rate;
    }
    let classes = last.outputs as usize;
    descent.check(classes)?;
    if descent.balance {
        return Err(WriteError::setting("balance", "True", "False for several layers that learn together"));
    }
    let words = descent.class_words(classes, FULL_WEIGHT, FROZEN)?;
    let halve_every = descent.halve_every()?;
    let hidden: usize = layers[..layers.len() - 1].iter().map(|(layer, ..)| layer.values()).sum();
    let record = HeadRecord {
        trainer: LayersHead::TRAINER,
        classes: classes as u32,
        features: features.len() as u32,
        constants: [
            multiplier as i32,
            multiplier_shift,
            descent.loss as i32,
            halve_every,
            layers.len() as i32,
            initial.len() as i32,
            hidden as i32,
            0,
        ],
        logit_scale: logit_scale as f32,
        guard: descent.guard()?,
        ..HeadRecord::default()
    };
    let records = layers.iter().flat_map(|(layer, ..)| layer.as_bytes()).copied();
    let bytes: Vec<u8> = records
        .chain(words.iter().flat_map(|word| word.to_le_bytes()))
        .chain(initial.iter().flat_map(|v| v.to_le_bytes()))
        .collect();
    read(&bytes, &record)?;
    Ok((record, bytes))
}
