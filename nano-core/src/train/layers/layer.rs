//! Forward, backward and update of one layer of a [`LayersHead`](super::LayersHead); `layers/mod.rs` documents the arithmetic.

use super::record::{BACKWARD_SHIFT, LayerRecord, Operation};
use super::window;
use crate::train::linear::{self, HALVE_ABOVE, LARGEST_SHIFT};

/// int8 values, pixel by pixel.
#[derive(Clone, Copy)]
pub(super) struct Input<'s> {
    pub values: &'s [i8],
    pub zero_point: i32,
}

/// Weights that an update changes.
pub(super) struct Learnt<'s> {
    /// V + 128, `[outputs][inputs + 1]`.
    pub weights: &'s mut [i16],
    /// An upper bound of all |V|.
    pub bound: &'s mut i32,
    /// [`LayerRecord::sums`] words to work in.
    pub sums: &'s mut [i32],
}

impl LayerRecord {
    /// Step 1: the sums a.
    pub fn accumulate(&self, weights: &[i16], input: Input<'_>, other: Input<'_>, sums: &mut [i32]) {
        let Input { values, zero_point } = input;
        match self.operation() {
            Operation::Convolution if self.is_matrix() => {
                let positions = values.chunks_exact(self.inputs()).zip(sums.chunks_exact_mut(self.outputs()));
                for (values, sums) in positions {
                    linear::products(weights, values, zero_point, self.bias_input, sums);
                }
            }
            Operation::Convolution => window::products(self, weights, input, sums),
            Operation::Depthwise => window::depthwise_products(self, weights, input, sums),
            Operation::AveragePool => window::totals(self, input, sums),
            Operation::MaxPool => window::maxima(self, input, sums),
            Operation::Add => {
                let [own, skipped] = self.term_shifts;
                for ((sum, &a), &b) in sums.iter_mut().zip(values).zip(other.values) {
                    *sum = ((i32::from(a) - zero_point) << own) + ((i32::from(b) - other.zero_point) << skipped);
                }
            }
        }
    }

    /// Step 1: the outputs of a hidden layer from its sums.
    pub fn activate(&self, exponent: u32, sums: &[i32], values: &mut [i8]) {
        let LayerRecord { output_shift, zero_point, low, high, .. } = *self;
        let shift = output_shift - exponent as i32;
        let half = (1 << shift) >> 1;
        for (value, &sum) in values.iter_mut().zip(sums) {
            *value = (((sum + half) >> shift) + zero_point).max(low).min(high) as i8;
        }
    }

    /// Step 3: the errors of its inputs from those of its outputs, rounded but not yet limited.
    pub fn backward(&self, weights: &[i16], exponent: u32, input: &[i8], errors: &[i32], lower: &mut [i32]) {
        match self.operation() {
            Operation::Convolution if self.is_matrix() => {
                let positions = lower.chunks_exact_mut(self.inputs()).zip(errors.chunks_exact(self.outputs().max(1)));
                for (lower, errors) in positions {
                    linear::transposed_products(weights, errors, lower);
                }
            }
            Operation::Convolution => window::transposed_products(self, weights, errors, lower),
            Operation::Depthwise => window::transposed_depthwise_products(self, weights, errors, lower),
            Operation::AveragePool => window::spread(self, errors, lower),
            Operation::MaxPool => window::to_maxima(self, input, errors, lower),
            Operation::Add => lower.copy_from_slice(errors),
        }
        if self.has_weights() {
            let shift = BACKWARD_SHIFT - exponent as i32;
            let half = (1 << shift) >> 1;
            lower.iter_mut().for_each(|error| *error = (*error + half) >> shift);
        }
    }

    /// Step 3: adds the error of a sum that also reads this layer's outputs.
    pub fn add_skipped(&self, sum: &LayerRecord, errors: &[i32], own: &mut [i32]) {
        let limit = self.limit();
        let (right, left) = (sum.skip_shift.max(0), (-sum.skip_shift).max(0));
        let half = (1 << right) >> 1;
        for (own, &error) in own.iter_mut().zip(errors) {
            let skipped = ((error << left) + half) >> right;
            *own = ((*own).clamp(-limit, limit) + skipped).clamp(-limit, limit);
        }
    }

    /// Step 3: limits the errors of a hidden layer, which are 0 where its activation is flat.
    pub fn limit_errors(&self, values: &[i8], errors: &mut [i32]) {
        let limit = self.limit();
        let pools = matches!(self.operation(), Operation::AveragePool | Operation::MaxPool);
        for (error, &value) in errors.iter_mut().zip(values) {
            let flat = !pools && (i32::from(value) == self.low || i32::from(value) == self.high);
            *error = if flat { 0 } else { (*error).clamp(-limit, limit) };
        }
    }

    /// Steps 4 and 5, at a rate halved `halvings` times; the layer can be halved at most `most` times. Returns whether it is.
    pub fn update(
        &self,
        Learnt { weights, bound, sums }: Learnt<'_>,
        exponent: u32,
        input: Input<'_>,
        errors: &mut [i32],
        halvings: u32,
        most: u32,
    ) -> bool {
        let LayerRecord { bias_input, rate, rate_shift, .. } = *self;
        let Input { values, zero_point } = input;
        errors.iter_mut().for_each(|error| *error = (*error * rate + (1 << 14)) >> 15);
        let shift = halvings.saturating_add(rate_shift as u32 + exponent).min(LARGEST_SHIFT as u32);
        if self.positions() == 1 && self.is_matrix() {
            let steepest = errors.iter().fold(0, |steepest, gradient| gradient.abs().max(steepest));
            let furthest = ((steepest * 255 + (1 << (shift - 1))) >> shift) + 1;
            if bound.saturating_add(furthest) > HALVE_ABOVE {
                *bound = linear::largest(weights);
            }
            if bound.saturating_add(furthest) <= HALVE_ABOVE {
                linear::descend(weights, values, zero_point, bias_input, errors, shift);
                *bound += furthest;
                return false;
            }
            linear::descend_bounded(weights, values, zero_point, bias_input, errors, shift);
        } else {
            window::descend(self, weights, input, errors, shift, sums);
        }
        *bound = linear::largest(weights);
        let halves = *bound > HALVE_ABOVE && exponent < most;
        if halves {
            linear::halve(weights);
            *bound = linear::largest(weights);
        }
        halves
    }
}
