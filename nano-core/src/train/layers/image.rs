//! The image's record and initial state of a [`LayersHead`], made from real weights.

use alloc::vec::Vec;

use zerocopy::IntoBytes;

use super::LayersHead;
use super::geometry::volume;
use super::record::{BACKWARD_SHIFT, FROZEN, FULL_WEIGHT, LARGEST_SUM_SHIFT, LayerRecord, Operation, read, sizes_of};
use crate::fixed_point::normalize;
use crate::image::{HeadRecord, Value, WriteError};
use crate::train::descent::Descent;
use crate::train::linear::{LARGEST_SHIFT, bias_input, weight_scale};
use crate::train::sizes::{HeadSizes, LayerSizes};

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

/// What one of several trained layers computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum TrainedOperation {
    /// A window over all channels: a convolution, or a fully connected layer, whose window is its whole input.
    Convolution,
    /// A window over each channel.
    Depthwise,
    /// The mean under a window.
    AveragePool,
    /// The maximum under a window.
    MaxPool,
    /// The sum of the layer before and an earlier one: 0 for the features, else 1 + its number.
    Add(u32),
}

/// One of several trained layers.
#[derive(Clone, Debug)]
pub struct TrainedLayer {
    /// What it computes.
    pub operation: TrainedOperation,
    /// Height, width and channels of its input.
    pub input: [u32; 3],
    /// Height, width and channels of its output.
    pub output: [u32; 3],
    /// Height and width of the window.
    pub kernel: [u32; 2],
    /// Vertical and horizontal step of the window.
    pub stride: [u32; 2],
    /// Padding above and to the left.
    pub padding: [u32; 2],
    /// Whether its weights learn; if not, they take no RAM.
    pub learns: bool,
    /// Initial weights, outputs * inputs of them, inputs innermost (height, width, channels; height, width of a depthwise layer); none for a
    /// layer without weights.
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

impl TrainedLayer {
    /// A fully connected layer that learns.
    pub fn fully_connected(weights: Vec<f32>, biases: Vec<f32>) -> Self {
        let outputs = biases.len() as u32;
        let inputs = weights.len() as u32 / outputs.max(1);
        TrainedLayer {
            operation: TrainedOperation::Convolution,
            input: [1, 1, inputs],
            output: [1, 1, outputs],
            kernel: [1, 1],
            stride: [1, 1],
            padding: [0, 0],
            learns: true,
            weights,
            biases,
            clamp_low: None,
            clamp_high: None,
            range: (0.0, 0.0),
        }
    }

    /// The sizes of a head of these layers: what its memory depends on.
    pub fn head_sizes(layers: &[TrainedLayer]) -> HeadSizes {
        let records: Vec<LayerRecord> = layers.iter().map(TrainedLayer::record).collect();
        HeadSizes {
            trainer: LayersHead::TRAINER,
            classes: records.last().map_or(0, LayerRecord::outputs),
            features: layers.first().map_or(0, |first| volume(first.input)) as usize,
            layers: sizes_of(&records),
        }
    }

    /// Its record, without what depends on scales.
    fn record(&self) -> LayerRecord {
        let (operation, other) = match self.operation {
            TrainedOperation::Convolution => (Operation::Convolution, 0),
            TrainedOperation::Depthwise => (Operation::Depthwise, 0),
            TrainedOperation::AveragePool => (Operation::AveragePool, 0),
            TrainedOperation::MaxPool => (Operation::MaxPool, 0),
            TrainedOperation::Add(other) => (Operation::Add, other),
        };
        LayerRecord {
            operation: operation as u32,
            input: self.input,
            output: self.output,
            kernel: self.kernel,
            stride: self.stride,
            padding: self.padding,
            other,
            learns: self.learns.into(),
            weight_scale: 1.0,
            ..LayerRecord::default()
        }
    }
}

/// The scales of a layer while it is packed.
struct Scales {
    input: f64,
    /// Of an average pool the reciprocal of its number of inputs; 1 for other layers without weights.
    weight: f64,
    /// The scale and zero point of its outputs.
    output: (f64, i32),
}

/// Packs the head record and the initial state for layers of real weights after `features`. The largest output in calibration becomes at most
/// half of int8's range, because outputs grow as layers learn.
pub(in crate::train) fn pack(head: &LayersDescription, features: &Value) -> Result<(HeadRecord, Vec<u8>), WriteError> {
    let descent = &head.descent;
    let powers_of_two = head.layers.iter().any(|layer| matches!(layer.operation, TrainedOperation::Add(_)));
    let mut layers: Vec<(LayerRecord, Scales)> = Vec::new();
    let mut initial = Vec::new();
    for (index, layer) in head.layers.iter().enumerate() {
        let output = |number: usize| match number.checked_sub(1) {
            None => Some(f64::from(features.scale)),
            Some(index) => layers.get(index).map(|(_, scales)| scales.output.0),
        };
        let mut record = layer.record();
        let mut input_scale = output(index).unwrap_or(1.0);
        let weight_scale = match record.operation() {
            Operation::AveragePool => 1.0 / record.taps() as f64,
            Operation::MaxPool => 1.0,
            Operation::Add => {
                let other = output(record.other as usize)
                    .ok_or_else(|| refused("has a sum of a layer that is not before it", record.other.into()))?;
                let (base, shifts) = common(input_scale, other).ok_or_else(|| {
                    refused("has a sum of terms whose scales do not differ by a power of two", other / input_scale)
                })?;
                (input_scale, record.term_shifts) = (base, shifts);
                1.0
            }
            Operation::Convolution | Operation::Depthwise => {
                let (weights, scale) = quantize(layer, &mut record, input_scale, powers_of_two)?;
                initial.extend(weights);
                scale
            }
        };
        record.input_scale = input_scale as f32;
        let mut output = (weight_scale * input_scale, 0);
        if index + 1 < head.layers.len() {
            output = activation(layer, &mut record, output.0)?;
        }
        layers.push((record, Scales { input: input_scale, weight: weight_scale, output }));
    }
    let Some(&(last, Scales { output: (logit_scale, _), .. })) = layers.last() else {
        return Err(refused("needs a layer, has", 0.0));
    };
    let (multiplier, exponent) = normalize(logit_scale * descent.loss.logit_steps(), 16)
        .filter(|(_, exponent)| (-47..=16).contains(exponent))
        .ok_or_else(|| refused("the logit's scale is out of range", logit_scale))?;
    let multiplier_shift = 16 - exponent;
    set_rates(&mut layers, descent)?;
    let classes = last.outputs();
    descent.check(classes)?;
    if descent.balance {
        return Err(WriteError::setting("balance", "True", "False for several layers that learn together"));
    }
    let words = descent.class_words(classes, FULL_WEIGHT, FROZEN)?;
    let halve_every = descent.halve_every()?;
    let layers: Vec<LayerRecord> = layers.into_iter().map(|(layer, _)| layer).collect();
    let LayerSizes { count, weights, hidden, sums } = sizes_of(&layers);
    let record = HeadRecord {
        trainer: LayersHead::TRAINER,
        classes: classes as u32,
        features: features.len() as u32,
        constants: [
            multiplier as i32,
            multiplier_shift,
            descent.loss as i32,
            halve_every,
            count as i32,
            weights as i32,
            hidden as i32,
            sums as i32,
        ],
        logit_scale: logit_scale as f32,
        guard: descent.guard()?,
        half_life: descent.half_life,
        ..HeadRecord::default()
    };
    let records = layers.iter().flat_map(|layer| layer.as_bytes()).copied();
    let bytes: Vec<u8> = records
        .chain(words.iter().flat_map(|word| word.to_le_bytes()))
        .chain(initial.iter().flat_map(|v| v.to_le_bytes()))
        .collect();
    read(&bytes, &record)?;
    Ok((record, bytes))
}

fn refused(rule: &'static str, value: f64) -> WriteError {
    WriteError::Refused { operator: "trained layers".into(), rule, value }
}

/// Rounded, halves away from zero.
fn rounded(value: f64) -> i32 {
    (value + 0.5f64.copysign(value)) as i32
}

/// The stored initial weights of a layer, and their scale; sets what its record says of them.
fn quantize(
    layer: &TrainedLayer,
    record: &mut LayerRecord,
    input_scale: f64,
    power_of_two: bool,
) -> Result<(Vec<i16>, f64), WriteError> {
    let (outputs, inputs) = (record.outputs(), record.inputs());
    if layer.biases.len() != outputs || layer.weights.len() != outputs * inputs {
        return Err(refused("needs outputs * inputs weights, has", layer.weights.len() as f64));
    }
    record.bias_input = bias_input(input_scale);
    let bias_scale = f64::from(record.bias_input) * input_scale;
    let rows = layer.weights.chunks_exact(inputs).zip(&layer.biases);
    let real =
        rows.flat_map(|(row, &bias)| row.iter().map(|&weight| f64::from(weight)).chain([f64::from(bias) / bias_scale]));
    if real.clone().any(|weight| !weight.is_finite()) {
        return Err(refused("the weights hold NaN or infinity", f64::NAN));
    }
    let largest = real.clone().fold(0.0f64, |largest, weight| largest.max(weight.abs()));
    let mut scale = weight_scale(largest, input_scale);
    if power_of_two {
        // The next one above: between 8000 and 16000 becomes the largest |V|.
        let least = scale;
        scale = 1.0;
        while scale < least {
            scale *= 2.0;
        }
        while scale / 2.0 >= least {
            scale /= 2.0;
        }
    }
    record.weight_scale = scale as f32;
    Ok((real.map(|weight| rounded(weight * 256.0 / scale) as i16 + 128).collect(), scale))
}

/// Scale and zero point of a hidden layer's outputs, given the scale of its sums; sets what its record says of them.
fn activation(layer: &TrainedLayer, record: &mut LayerRecord, sums: f64) -> Result<(f64, i32), WriteError> {
    let (low, high) = (f64::from(layer.range.0), f64::from(layer.range.1));
    let from_zero = layer.clamp_low == Some(0.0);
    let (steps, seen) = if from_zero { (255.0, high) } else { (127.0, high.abs().max(low.abs())) };
    if !seen.is_finite() {
        return Err(refused("the range of a layer's output is NaN or infinity", seen));
    }
    // Outputs cannot grow beyond the activation's upper bound.
    let room = layer.clamp_high.map_or(f64::INFINITY, f64::from).max(seen).min(seen * ROOM_TO_GROW);
    let mut scale = sums;
    while record.output_shift < LARGEST_SHIFT && scale * steps < room {
        (scale, record.output_shift) = (scale * 2.0, record.output_shift + 1);
    }
    record.zero_point = if from_zero { i8::MIN.into() } else { 0 };
    let end = |bound: Option<f32>, open: i8| match bound {
        Some(bound) => rounded((f64::from(bound) / scale).clamp(-512.0, 512.0))
            .saturating_add(record.zero_point)
            .clamp(i8::MIN.into(), i8::MAX.into()),
        None => open.into(),
    };
    (record.low, record.high) = (end(layer.clamp_low, i8::MIN), end(layer.clamp_high, i8::MAX));
    Ok((scale, record.zero_point))
}

/// The smaller of two scales that differ by a power of two, and the left shifts that bring numbers of both to it.
fn common(first: f64, second: f64) -> Option<(f64, [i32; 2])> {
    let mut shifts = [0, 0];
    let (mut larger, base, index) = if first > second { (first, second, 0) } else { (second, first, 1) };
    while larger > base {
        (larger, shifts[index]) = (larger / 2.0, shifts[index] + 1);
    }
    (larger == base && shifts[index] <= LARGEST_SUM_SHIFT).then_some((base, shifts))
}

/// Sets what records say of the unit of their errors, from the last layer on: rates, and the shifts of errors that skip layers.
fn set_rates(layers: &mut [(LayerRecord, Scales)], descent: &Descent) -> Result<(), WriteError> {
    let mut one = descent.loss.one();
    let mut ones = Vec::new();
    for (layer, scales) in layers.iter().rev() {
        ones.push(one);
        one /= match layer.has_weights() {
            true => scales.weight * f64::from(1 << BACKWARD_SHIFT),
            false => scales.weight,
        };
    }
    ones.reverse();
    let rate = descent.learning_rate.ok_or_else(|| {
        WriteError::setting("learning_rate", "\"auto\"", "a number: several layers that learn have no rate in common")
    })?;
    let learning = || layers.iter().zip(&ones).filter(|((layer, _), _)| layer.learns());
    let factors: Vec<f64> = learning().map(|((_, scales), one)| scales.input * 256.0 / (scales.weight * one)).collect();
    let rates = Descent::rates(rate, &factors)?;
    let learning = layers.iter_mut().filter(|(layer, _)| layer.learns());
    for ((layer, _), rate) in learning.zip(rates) {
        (layer.rate, layer.rate_shift) = rate;
    }
    for index in 0..layers.len() {
        let layer = layers[index].0;
        if layer.operation() != Operation::Add || layer.other == 0 {
            continue;
        }
        let other = ones[layer.other as usize - 1];
        let (_, [left, right]) = common(other, ones[index])
            .ok_or_else(|| refused("has errors whose units do not differ by a power of two", other / ones[index]))?;
        layers[index].0.skip_shift = right - left;
    }
    Ok(())
}
