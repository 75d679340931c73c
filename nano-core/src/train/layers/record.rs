//! The trained layers of a [`LayersHead`](super::LayersHead) in the image: a record for each, a word for each class, the weights.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Error;
use crate::image::HeadRecord;
use crate::train::linear::{HALVE_ABOVE, LARGEST_BIAS_INPUT, LARGEST_SHIFT, check_weight};
use crate::train::sizes::LayerSizes;

const LARGEST_INPUTS: u32 = 1 << 15;
/// t of a layer without halvings.
pub(super) const BACKWARD_SHIFT: i32 = 8;
/// Flag in the word of a class, beside its weight: its row does not learn.
pub(super) const FROZEN: i32 = 1 << 30;
/// The weight of a class that counts in full.
pub(super) const FULL_WEIGHT: i32 = 1 << 15;

/// A trained layer, in the image before the words of the classes and the initial weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct LayerRecord {
    /// The number of positions to which its weights apply in one sample.
    pub positions: u32,
    /// At one position.
    pub inputs: u32,
    /// At one position.
    pub outputs: u32,
    pub bias_input: i32,
    /// C and sh.
    pub rate: i32,
    pub rate_shift: i32,
    /// r; this and the following three are 0 in the last layer, which does not have them.
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
    /// The number of positions to which its weights apply in one sample.
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

    /// Number of inputs at one position: at least 1, as a chunk size must be.
    pub fn inputs(&self) -> usize {
        self.inputs.max(1) as usize
    }

    /// Number of outputs at one position: at least 1, as a chunk size must be.
    pub fn outputs(&self) -> usize {
        self.outputs.max(1) as usize
    }

    /// Number of outputs at all positions.
    pub fn values(&self) -> usize {
        self.positions as usize * self.outputs as usize
    }

    /// The largest error of an output of a hidden layer.
    pub fn limit(&self) -> i32 {
        ((1 << 23) / self.outputs.max(1)).min(i16::MAX as u32) as i32
    }

    /// Checks the rules that concern one layer alone.
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

/// [`LayerSizes`] of a head's record.
pub(super) const fn sizes(record: &HeadRecord) -> LayerSizes {
    let [_, _, _, _, count, weights, hidden, _] = record.constants;
    LayerSizes { count: count as u32 as usize, weights: weights as u32 as usize, hidden: hidden as u32 as usize }
}

/// Layers, words of the classes and initial weights.
type Parts<'a> = (&'a [LayerRecord], &'a [i32], &'a [i16]);

/// Splits a head's initial state by its record, and checks all of it.
pub(super) fn read<'a>(bytes: &'a [u8], record: &HeadRecord) -> Result<Parts<'a>, Error> {
    let field = |name, value: i64| Err(Error::Field { name, value });
    let (sizes, classes) = (self::sizes(record), record.classes as usize);
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
