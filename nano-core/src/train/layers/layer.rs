//! Forward, backward and update of one layer of a [`LayersHead`](super::LayersHead); `layers/mod.rs` documents the arithmetic.

use core::slice;

use zerocopy::little_endian::U32;

use super::record::{BACKWARD_SHIFT, LayerRecord};
use crate::train::linear::{self, HALVE_ABOVE, LARGEST_SHIFT};

/// A layer with its share of the head's memory.
pub(super) struct Layer<'s> {
    pub record: &'s LayerRecord,
    /// The number of times it was halved.
    pub exponent: &'s mut U32,
    /// V + 128, `[outputs][inputs + 1]`.
    pub weights: &'s mut [i16],
    /// An upper bound of all |V|.
    pub bound: &'s mut i32,
    /// Per position and output: the sum a, then the error, then the gradient.
    pub errors: &'s mut [i32],
    /// The outputs; empty in the last layer, whose sums are the logits.
    pub values: &'s mut [i8],
}

impl Layer<'_> {
    /// Step 1, for inputs of this zero point.
    pub fn forward(&mut self, inputs: &[i8], input_zero_point: i32) {
        let LayerRecord { bias_input, output_shift, zero_point, low, high, .. } = *self.record;
        let positions =
            inputs.chunks_exact(self.record.inputs()).zip(self.errors.chunks_exact_mut(self.record.outputs()));
        for (inputs, sums) in positions {
            linear::products(self.weights, inputs, input_zero_point, bias_input, sums);
        }
        if self.values.is_empty() {
            return;
        }
        let shift = output_shift - self.exponent.get() as i32;
        let half = (1 << shift) >> 1;
        for (value, &sum) in self.values.iter_mut().zip(&*self.errors) {
            *value = (((sum + half) >> shift) + zero_point).max(low).min(high) as i8;
        }
    }

    /// Step 3: the errors of the layer below from those of this one.
    pub fn backward(&self, below: &mut Layer<'_>) {
        let shift = BACKWARD_SHIFT - self.exponent.get() as i32;
        let half = (1 << shift) >> 1;
        let positions =
            below.errors.chunks_exact_mut(self.record.inputs()).zip(self.errors.chunks_exact(self.record.outputs()));
        for (lower, errors) in positions {
            linear::transposed_products(self.weights, errors, lower);
        }
        let LayerRecord { low, high, .. } = *below.record;
        let limit = below.record.limit();
        for (error, &value) in below.errors.iter_mut().zip(&*below.values) {
            let flat = i32::from(value) == low || i32::from(value) == high;
            *error = if flat { 0 } else { ((*error + half) >> shift).clamp(-limit, limit) };
        }
    }

    /// Steps 4 and 5, at a rate halved `halvings` times; the layer can be halved at most `most` times.
    pub fn update(&mut self, inputs: &[i8], zero_point: i32, halvings: u32, most: u32) {
        let LayerRecord { bias_input, rate, rate_shift, .. } = *self.record;
        self.errors.iter_mut().for_each(|error| *error = (*error * rate + (1 << 14)) >> 15);
        let steepest = self.errors.iter().fold(0, |steepest, gradient| gradient.abs().max(steepest));
        let shift = halvings.saturating_add(rate_shift as u32 + self.exponent.get()).min(LARGEST_SHIFT as u32);
        let step = ((steepest * 255 + (1 << (shift - 1))) >> shift) + 1;
        let furthest = step.saturating_mul(self.record.positions as i32);
        if self.bound.saturating_add(furthest) > HALVE_ABOVE {
            self.measure();
        }
        let bounded = self.bound.saturating_add(furthest) <= HALVE_ABOVE;
        let gradients = self.errors.chunks_exact(self.record.outputs());
        for (inputs, gradients) in inputs.chunks_exact(self.record.inputs()).zip(gradients) {
            if bounded {
                linear::descend(self.weights, inputs, zero_point, bias_input, gradients, shift);
            } else {
                linear::descend_bounded(self.weights, inputs, zero_point, bias_input, gradients, shift);
            }
        }
        if bounded {
            *self.bound += furthest;
            return;
        }
        self.measure();
        if *self.bound > HALVE_ABOVE && self.exponent.get() < most {
            linear::halve(self.weights);
            self.measure();
            *self.exponent += 1;
        }
    }

    /// Sets the bound to the largest |V|.
    pub fn measure(&mut self) {
        *self.bound = linear::largest(self.weights);
    }
}

/// The layers of a head in order, each with its share of the head's memory.
pub(super) struct Layers<'s> {
    pub records: slice::Iter<'s, LayerRecord>,
    pub exponents: slice::IterMut<'s, U32>,
    pub weights: &'s mut [i16],
    pub bounds: slice::IterMut<'s, i32>,
    pub errors: &'s mut [i32],
    pub values: &'s mut [i8],
}

impl<'s> Iterator for Layers<'s> {
    type Item = Layer<'s>;

    fn next(&mut self) -> Option<Layer<'s>> {
        let record = self.records.next()?;
        let values = record.values().min(self.values.len());
        Some(Layer {
            record,
            exponent: self.exponents.next()?,
            weights: self.weights.split_off_mut(..record.weights())?,
            bound: self.bounds.next()?,
            errors: self.errors.split_off_mut(..record.values())?,
            values: self.values.split_off_mut(..values)?,
        })
    }
}

impl DoubleEndedIterator for Layers<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        let record = self.records.next_back()?;
        let weights = self.weights.len().checked_sub(record.weights())?;
        let values = self.errors.len().checked_sub(record.values())?;
        Some(Layer {
            record,
            exponent: self.exponents.next_back()?,
            weights: self.weights.split_off_mut(weights..)?,
            bound: self.bounds.next_back()?,
            errors: self.errors.split_off_mut(values..)?,
            values: self.values.split_off_mut(values..)?,
        })
    }
}
