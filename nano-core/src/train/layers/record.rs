//! The layers of a [`LayersHead`](super::LayersHead) in the image: a record for each, a word for each class, the weights.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::geometry;
use crate::Error;
use crate::image::HeadRecord;
use crate::train::linear::{HALVE_ABOVE, LARGEST_BIAS_INPUT, LARGEST_SHIFT, check_weight};
use crate::train::sizes::LayerSizes;

/// The most layers of a head, those without weights among them.
const MOST_LAYERS: usize = 64;
/// t of a layer without halvings.
pub(super) const BACKWARD_SHIFT: i32 = 8;
/// The largest left shift of a term of a sum, and of an error that skips layers.
pub(super) const LARGEST_SUM_SHIFT: i32 = 15;
/// Flag in the word of a class, beside its weight: its row does not learn.
pub(super) const FROZEN: i32 = 1 << 30;
/// The weight of a class that counts in full.
pub(super) const FULL_WEIGHT: i32 = 1 << 15;

/// What a layer computes; a record holds its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    /// A window over all channels: a convolution or, with a window as large as the input, a fully connected layer.
    Convolution,
    /// A window over each channel.
    Depthwise,
    /// The mean under a window.
    AveragePool,
    /// The maximum under a window.
    MaxPool,
    /// The sum of the layer before and an earlier one.
    Add,
}

/// A layer, in the image before the words of the classes and the initial weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct LayerRecord {
    /// [`Operation`]
    pub operation: u32,
    /// Height, width, channels.
    pub input: [u32; 3],
    pub output: [u32; 3],
    /// Height, width; for an [`Operation::Add`] 1, as the strides.
    pub kernel: [u32; 2],
    pub stride: [u32; 2],
    /// Above and to the left. What lies below and to the right of the input is padding, too.
    pub padding: [u32; 2],
    /// The other term of an [`Operation::Add`]: 0 for the features, else 1 + the number of the layer.
    pub other: u32,
    /// 1 if its weights learn; else they stay in the image.
    pub learns: u32,
    pub bias_input: i32,
    /// C and sh.
    pub rate: i32,
    pub rate_shift: i32,
    /// r; this and the following three are 0 in the last layer, which does not have them.
    pub output_shift: i32,
    pub zero_point: i32,
    pub low: i32,
    pub high: i32,
    /// Left shifts of the terms of an [`Operation::Add`], of which one is 0.
    pub term_shifts: [i32; 2],
    /// Right shift (if negative, left shift) of the error of an [`Operation::Add`] on its way to the other term.
    pub skip_shift: i32,
    /// Real step of one V / 256, and of one input.
    pub weight_scale: f32,
    pub input_scale: f32,
}

/// A layer with weights in real numbers.
#[cfg(feature = "alloc")]
pub struct RealLayer {
    /// The number of pixels under its window.
    pub taps: usize,
    /// Weights, outputs * inputs of them, inputs (height, width, channels; height, width of a depthwise layer) innermost.
    pub weights: alloc::vec::Vec<f32>,
    /// Biases, one for each output.
    pub biases: alloc::vec::Vec<f32>,
}

impl LayerRecord {
    /// What it computes; `check` has ensured that there is such an operation.
    pub fn operation(&self) -> Operation {
        match self.operation {
            0 => Operation::Convolution,
            1 => Operation::Depthwise,
            2 => Operation::AveragePool,
            3 => Operation::MaxPool,
            _ => Operation::Add,
        }
    }

    /// Whether it has weights.
    pub fn has_weights(&self) -> bool {
        matches!(self.operation(), Operation::Convolution | Operation::Depthwise)
    }

    /// Whether its weights are in RAM.
    pub fn learns(&self) -> bool {
        self.learns != 0 && self.has_weights()
    }

    /// Number of weights, biases among them.
    pub fn weights(&self) -> usize {
        if self.has_weights() { self.outputs() * self.row() } else { 0 }
    }

    /// Number of weights in RAM.
    pub fn learnt_weights(&self) -> usize {
        if self.learns() { self.weights() } else { 0 }
    }

    /// Number of pixels under its window.
    pub fn taps(&self) -> usize {
        geometry::area(self.kernel)
    }

    /// Number of inputs of one output, without the bias: at least 1, as a chunk size must be.
    pub fn inputs(&self) -> usize {
        match self.operation() {
            Operation::Convolution => (self.taps() * self.channels()).max(1),
            _ => self.taps().max(1),
        }
    }

    /// Number of weights of one output, with the bias: at least 1, as a chunk size must be.
    pub fn row(&self) -> usize {
        self.inputs().wrapping_add(1).max(1)
    }

    /// Number of input channels: at least 1, as a chunk size must be.
    pub fn channels(&self) -> usize {
        self.input[2].max(1) as usize
    }

    /// Number of output channels: at least 1, as a chunk size must be.
    pub fn outputs(&self) -> usize {
        self.output[2].max(1) as usize
    }

    /// Number of pixels of the output.
    pub fn positions(&self) -> usize {
        geometry::area([self.output[0], self.output[1]])
    }

    /// Number of outputs at all positions.
    pub fn values(&self) -> usize {
        self.positions() * self.outputs()
    }

    /// Whether the inputs of each position follow those of the one before: a product of matrices.
    pub fn is_matrix(&self) -> bool {
        let [height, width, _] = self.input;
        let whole = self.kernel == [height, width] && self.positions() == 1;
        let pixel = self.kernel == [1, 1] && self.stride == [1, 1] && self.output[..2] == self.input[..2];
        self.operation() == Operation::Convolution && self.padding == [0, 0] && (whole || pixel)
    }

    /// Words in which an update adds up the gradients of one output over the positions.
    pub fn sums(&self) -> usize {
        if self.learns() && (self.positions() > 1 || !self.is_matrix()) { self.row() } else { 0 }
    }

    /// The largest error of an output of a hidden layer.
    pub fn limit(&self) -> i32 {
        let positions = self.positions().max(1);
        let (readers, shared) = match self.operation() {
            Operation::Convolution => (self.taps().min(positions) * self.outputs(), positions),
            Operation::Depthwise => (self.taps().min(positions), positions),
            _ => (1, 1),
        };
        ((1 << 23) / readers.max(1)).min((1 << 22) / shared).min(i16::MAX as usize) as i32
    }

    /// Multiplications of a forward pass.
    pub fn macs(&self) -> u64 {
        if self.has_weights() { self.values() as u64 * self.inputs() as u64 } else { 0 }
    }

    /// Checks the rules that concern one layer alone.
    fn check(&self) -> Result<(), Error> {
        let field = |name, value: i64| Err(Error::Field { name, value });
        if self.operation > Operation::Add as u32 || self.learns > 1 {
            return field("trained layer's operation", self.operation.into());
        }
        geometry::check(self)?;
        if self.has_weights() && !(1..=LARGEST_BIAS_INPUT).contains(&self.bias_input) {
            return field("trained layer's bias input", self.bias_input.into());
        }
        if self.learns() && !((1 << 14..1 << 15).contains(&self.rate) && (1..=LARGEST_SHIFT).contains(&self.rate_shift))
        {
            return field("trained layer's learning rate", self.rate.into());
        }
        if !(0..=LARGEST_SHIFT).contains(&self.output_shift) {
            return field("trained layer's output shift", self.output_shift.into());
        }
        let int8 = |word: i32| i8::try_from(word).is_ok();
        if !(int8(self.zero_point) && int8(self.low) && int8(self.high) && self.low <= self.high) {
            return field("trained layer's output range", self.zero_point.into());
        }
        if !self.term_shifts.iter().all(|shift| (0..=LARGEST_SUM_SHIFT).contains(shift))
            || !(-LARGEST_SUM_SHIFT..=LARGEST_SHIFT).contains(&self.skip_shift)
        {
            return field("trained layer's shifts of a sum", self.skip_shift.into());
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
        let rows = || stored.chunks_exact(self.row());
        RealLayer {
            taps: self.taps(),
            weights: rows().flat_map(|row| row[..row.len() - 1].iter().map(|&v| real(v, step))).collect(),
            biases: rows().map(|row| real(row[row.len() - 1], bias_step)).collect(),
        }
    }
}

/// [`LayerSizes`] of a head's record.
pub(super) const fn sizes(record: &HeadRecord) -> LayerSizes {
    let [_, _, _, _, count, weights, hidden, sums] = record.constants;
    LayerSizes {
        count: count as u32 as usize,
        weights: weights as u32 as usize,
        hidden: hidden as u32 as usize,
        sums: sums as u32 as usize,
    }
}

/// [`LayerSizes`] of layers.
pub(super) fn sizes_of(layers: &[LayerRecord]) -> LayerSizes {
    let values: usize = layers.iter().map(LayerRecord::values).sum();
    LayerSizes {
        count: layers.len(),
        weights: layers.iter().map(LayerRecord::learnt_weights).sum(),
        hidden: values - layers.last().map_or(0, LayerRecord::values),
        sums: layers.iter().map(LayerRecord::sums).max().unwrap_or(0),
    }
}

/// Layers, words of the classes and initial weights.
type Parts<'a> = (&'a [LayerRecord], &'a [i32], &'a [i16]);

/// Splits a head's initial state by its record, and checks all of it.
pub(super) fn read<'a>(bytes: &'a [u8], record: &HeadRecord) -> Result<Parts<'a>, Error> {
    let field = |name, value: i64| Err(Error::Field { name, value });
    let (sizes, classes) = (self::sizes(record), record.classes as usize);
    if sizes.count > MOST_LAYERS {
        return field("trained layers", sizes.count as i64);
    }
    let wrong_length = Error::Field { name: "head state length", value: bytes.len() as i64 };
    let (layers, rest) = <[LayerRecord]>::ref_from_prefix_with_elems(bytes, sizes.count).map_err(|_| wrong_length)?;
    let (words, rest) = <[i32]>::ref_from_prefix_with_elems(rest, classes).map_err(|_| wrong_length)?;
    let initial = <[i16]>::ref_from_bytes(rest).map_err(|_| wrong_length)?;
    let Some((last, hidden)) = layers.split_last() else { return field("trained layers", 0) };
    let mut inputs = u64::from(record.features);
    for (index, layer) in layers.iter().enumerate() {
        layer.check()?;
        if inputs != geometry::volume(layer.input) {
            return field("trained layer's inputs", layer.input[2].into());
        }
        let other = match (layer.operation(), layer.other as usize) {
            (Operation::Add, 0) => u64::from(record.features),
            (Operation::Add, other) => layers[..index].get(other - 1).map_or(0, |other| other.values() as u64),
            (_, other) => inputs * u64::from(other == 0),
        };
        if other != inputs {
            return field("trained layer's other term", layer.other.into());
        }
        inputs = layer.values() as u64;
    }
    if (last.positions(), last.outputs(), last.operation()) != (1, classes, Operation::Convolution) {
        return field("trained layers' outputs", last.output[2].into());
    }
    if !last.learns() || !last.is_matrix() || hidden.first().is_some_and(|first| !first.learns()) {
        return field("trained layers' first and last", last.learns.into());
    }
    let weights: u64 = layers.iter().map(|layer| layer.weights() as u64).sum();
    if weights != initial.len() as u64 || sizes_of(layers) != sizes {
        return field("trained layers' weights", initial.len() as i64);
    }
    if let Some(&wrong) = words.iter().find(|&&word| !(0..=FULL_WEIGHT).contains(&(word & !FROZEN))) {
        return field("weight of a class", wrong.into());
    }
    initial.iter().try_for_each(|&stored| check_weight(stored, HALVE_ABOVE))?;
    Ok((layers, words, initial))
}
