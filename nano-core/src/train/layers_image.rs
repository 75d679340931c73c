//! The trained layers of a [`LayersHead`](super::LayersHead) as they lie in the image: a record for each, a word for each class, the weights.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Error;
use crate::image::HeadRecord;
use crate::train::LayersHead;
use crate::train::linear::{HALVE_ABOVE, LARGEST_BIAS_INPUT, LARGEST_SHIFT, check_weight};

const LARGEST_INPUTS: u32 = 1 << 15;
/// t of a layer without halvings.
pub(super) const BACKWARD_SHIFT: i32 = 8;
/// In the word of a class, beside its weight: its row does not learn.
pub(super) const FROZEN: i32 = 1 << 30;
/// The weight of a class that counts in full.
const FULL_WEIGHT: i32 = 1 << 15;

/// A trained layer, in the image before the words of the classes and the initial weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct LayerRecord {
    /// How often its weights apply to one sample.
    pub positions: u32,
    /// At one position.
    pub inputs: u32,
    /// At one position.
    pub outputs: u32,
    pub bias_input: i32,
    /// C and sh.
    pub rate: i32,
    pub rate_shift: i32,
    /// r; of the last layer, which has none of this and the following three, 0.
    pub output_shift: i32,
    pub zero_point: i32,
    pub low: i32,
    pub high: i32,
    /// Real step of one V / 256, and of one input.
    pub weight_scale: f32,
    pub input_scale: f32,
}

/// A trained layer in real numbers.
#[cfg(feature = "alloc")]
pub struct RealLayer {
    /// How often its weights apply to one sample.
    pub positions: usize,
    /// Weights, outputs * inputs of them, inputs innermost.
    pub weights: alloc::vec::Vec<f32>,
    /// Biases, one for each output.
    pub biases: alloc::vec::Vec<f32>,
}

impl LayerRecord {
    /// Number of weights, biases among them.
    pub fn weights(&self) -> usize {
        self.outputs as usize * (self.inputs as usize + 1)
    }

    /// Number of inputs at one position: at least 1, as a chunk has.
    pub fn inputs(&self) -> usize {
        self.inputs.max(1) as usize
    }

    /// Number of outputs at one position: at least 1, as a chunk has.
    pub fn outputs(&self) -> usize {
        self.outputs.max(1) as usize
    }

    /// Number of outputs at all positions.
    pub fn values(&self) -> usize {
        self.positions as usize * self.outputs as usize
    }

    /// The largest error of an output that is not the model's.
    pub fn limit(&self) -> i32 {
        ((1 << 23) / self.outputs.max(1)).min(i16::MAX as u32) as i32
    }

    /// The rules that hold for each layer by itself.
    fn check(&self) -> Result<(), Error> {
        let field = |name, value: i64| Err(Error::Field { name, value });
        if !(1..=LARGEST_INPUTS).contains(&self.inputs) || !(1..=LARGEST_INPUTS).contains(&self.outputs) {
            return field("trained layer's inputs or outputs", self.inputs.into());
        }
        if !(1..=1 << 20).contains(&self.positions) {
            return field("trained layer's positions", self.positions.into());
        }
        if !(1..=LARGEST_BIAS_INPUT).contains(&self.bias_input) {
            return field("trained layer's bias input", self.bias_input.into());
        }
        if !(1 << 14..1 << 15).contains(&self.rate) || !(1..=LARGEST_SHIFT).contains(&self.rate_shift) {
            return field("trained layer's learning rate", self.rate.into());
        }
        if !(0..=LARGEST_SHIFT).contains(&self.output_shift) {
            return field("trained layer's output shift", self.output_shift.into());
        }
        let int8 = |word: i32| i8::try_from(word).is_ok();
        if !(int8(self.zero_point) && int8(self.low) && int8(self.high) && self.low <= self.high) {
            return field("trained layer's output range", self.zero_point.into());
        }
        if ![self.weight_scale, self.input_scale].iter().all(|scale| scale.is_finite() && *scale > 0.0) {
            return field("trained layer's scale (bits)", self.weight_scale.to_bits().into());
        }
        Ok(())
    }

    /// The layer in real numbers, after it was halved `exponent` times.
    #[cfg(feature = "alloc")]
    pub fn real(&self, stored: &[i16], exponent: u32) -> RealLayer {
        let step = f64::from(self.weight_scale) / 256.0 * (1u64 << exponent) as f64;
        let bias_step = step * f64::from(self.input_scale) * f64::from(self.bias_input);
        let real = |stored: i16, step: f64| (f64::from(i32::from(stored) - 128) * step) as f32;
        let rows = || stored.chunks_exact(self.inputs as usize + 1);
        RealLayer {
            positions: self.positions as usize,
            weights: rows().flat_map(|row| row[..row.len() - 1].iter().map(|&v| real(v, step))).collect(),
            biases: rows().map(|row| real(row[row.len() - 1], bias_step)).collect(),
        }
    }
}

/// Layers, words of the classes and initial weights.
type Parts<'a> = (&'a [LayerRecord], &'a [i32], &'a [i16]);

/// Takes apart what a record says is its head's initial state, and checks all of it.
pub(super) fn read<'a>(bytes: &'a [u8], record: &HeadRecord) -> Result<Parts<'a>, Error> {
    let field = |name, value: i64| Err(Error::Field { name, value });
    let (sizes, classes) = (LayersHead::sizes_of(record), record.classes as usize);
    let wrong_length = Error::Field { name: "head state length", value: bytes.len() as i64 };
    let (layers, rest) = <[LayerRecord]>::ref_from_prefix_with_elems(bytes, sizes.count).map_err(|_| wrong_length)?;
    let (words, rest) = <[i32]>::ref_from_prefix_with_elems(rest, classes).map_err(|_| wrong_length)?;
    let initial = <[i16]>::ref_from_bytes(rest).map_err(|_| wrong_length)?;
    let Some((last, _)) = layers.split_last() else { return field("trained layers", 0) };
    let mut inputs = u64::from(record.features);
    let (mut weights, mut hidden) = (0, 0);
    for layer in layers {
        layer.check()?;
        if inputs != u64::from(layer.positions) * u64::from(layer.inputs) {
            return field("trained layer's inputs", layer.inputs.into());
        }
        inputs = u64::from(layer.positions) * u64::from(layer.outputs);
        (weights, hidden) = (weights + layer.weights() as u64, hidden + inputs);
    }
    if (last.positions, last.outputs) != (1, record.classes) {
        return field("trained layers' outputs", last.outputs.into());
    }
    if weights != sizes.weights as u64 || weights != initial.len() as u64 || hidden - inputs != sizes.hidden as u64 {
        return field("trained layers' weights", initial.len() as i64);
    }
    if let Some(&wrong) = words.iter().find(|&&word| !(0..=FULL_WEIGHT).contains(&(word & !FROZEN))) {
        return field("weight of a class", wrong.into());
    }
    initial.iter().try_for_each(|&stored| check_weight(stored, HALVE_ABOVE))?;
    Ok((layers, words, initial))
}

/// Head record and initial state for layers of real weights behind `features`. The largest weight of a layer becomes V = 16000, half of what
/// int16 holds; the largest output that was seen at most half of what int8 holds, for outputs grow as layers learn.
#[cfg(feature = "alloc")]
pub(crate) fn pack(
    head: &crate::image::LayersDescription,
    features: &crate::image::Value,
) -> Result<(HeadRecord, alloc::vec::Vec<u8>), crate::image::WriteError> {
    use crate::fixed_point::normalize;
    use crate::image::WriteError;
    use alloc::vec::Vec;
    const LARGEST_INITIAL: f64 = 16000.0;
    const ROOM_TO_GROW: f64 = 2.0;
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
        let bias_input = crate::train::linear::bias_input(input_scale);
        let bias_scale = f64::from(bias_input) * input_scale;
        let rows = layer.weights.chunks_exact(inputs).zip(&layer.biases);
        let real = rows
            .flat_map(|(row, &bias)| row.iter().map(|&weight| f64::from(weight)).chain([f64::from(bias) / bias_scale]));
        if real.clone().any(|weight| !weight.is_finite()) {
            return Err(refused("the weights hold NaN or infinity", f64::NAN));
        }
        let largest = real.clone().fold(0.0f64, |largest, weight| largest.max(weight.abs()));
        // A layer of zeros has no scale of its own: one step of one weight then moves its output by at most 1/16.
        let weight_scale =
            if largest == 0.0 { 1.0 / (16.0 * 255.0 * input_scale) } else { largest * 256.0 / LARGEST_INITIAL };
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
        // What an activation lets through at most needs no room.
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
    let rates = descent.rates(&backwards.collect::<Vec<_>>())?;
    for ((record, ..), rate) in layers.iter_mut().rev().zip(rates) {
        (record.rate, record.rate_shift) = rate;
    }
    let classes = last.outputs as usize;
    descent.check(classes)?;
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
