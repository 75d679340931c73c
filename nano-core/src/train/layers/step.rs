//! The passes of one training step of a [`LayersHead`] over its layers: forward, backward, update.

use super::LayersHead;
use super::layer::{Input, Learnt};
use super::record::{LayerRecord, Operation};
use super::state::{parts, parts_mut, span, weights_of};
use crate::operator::CheckedPart;
use crate::train::linear;

/// The features (0), or the outputs of layer `number - 1`.
fn input<'s>(layers: &[LayerRecord], features: Input<'s>, values: &'s [i8], number: usize) -> Input<'s> {
    let Some(index) = number.checked_sub(1) else { return features };
    Input {
        values: values.get(span(layers, index, LayerRecord::values)).checked_part(),
        zero_point: layers.get(index).map_or(0, |layer| layer.zero_point),
    }
}

impl LayersHead<'_> {
    /// Step 1: sums of all layers, values of all but the last.
    pub(super) fn forward(&mut self, features: &[i8]) {
        let Self { layers, initial, state, values, errors, .. } = self;
        let features = Input { values: features, zero_point: self.input_zero_point };
        let (exponents, learnt) = parts(state, layers);
        for (index, (layer, exponent)) in layers.iter().zip(exponents).enumerate() {
            let weights = weights_of(layers, initial, learnt, index);
            let own = span(layers, index, LayerRecord::values);
            let sums = errors.get_mut(own.clone()).checked_part();
            let (before, rest) = values.split_at_mut_checked(own.start).checked_part();
            let input = |number| input(layers, features, before, number);
            layer.accumulate(weights, input(index), input(layer.other as usize), sums);
            if let Some(values) = rest.get_mut(..own.len()) {
                layer.activate(exponent.get(), sums, values);
            }
        }
    }

    /// Step 3.
    pub(super) fn backward(&mut self) {
        let Self { layers, initial, state, values, errors, .. } = self;
        let (exponents, learnt) = parts(state, layers);
        let pairs = layers.iter().zip(layers.iter().skip(1).zip(exponents.iter().skip(1)));
        for (index, (layer, (above, exponent))) in pairs.enumerate().rev() {
            let own = span(layers, index, LayerRecord::values);
            let (lower, upper) = errors.split_at_mut_checked(own.end).checked_part();
            let lower = lower.get_mut(own.start..).checked_part();
            let values = values.get(own.clone()).checked_part();
            let weights = weights_of(layers, initial, learnt, index + 1);
            above.backward(weights, exponent.get(), values, upper.get(..above.values()).checked_part(), lower);
            for (number, sum) in layers.iter().enumerate().skip(index + 1) {
                if sum.operation() == Operation::Add && sum.other as usize == index + 1 {
                    let place = span(layers, number, LayerRecord::values);
                    let errors = upper.get(place.start - own.end..place.end - own.end).checked_part();
                    layer.add_skipped(sum, errors, lower);
                }
            }
            layer.limit_errors(values, lower);
        }
    }

    /// Steps 4 and 5.
    pub(super) fn update(&mut self, features: &[i8], halvings: u32) {
        let largest_exponents = self.largest_exponents();
        let Self { layers, state, values, errors, bounds, sums, .. } = self;
        let features = Input { values: features, zero_point: self.input_zero_point };
        let (exponents, learnt) = parts_mut(state, layers);
        let words = exponents.iter_mut().zip(bounds.iter_mut()).zip(largest_exponents);
        for (index, (layer, ((exponent, bound), most))) in layers.iter().zip(words).enumerate() {
            if !layer.learns() {
                continue;
            }
            let weights = learnt.get_mut(span(layers, index, LayerRecord::learnt_weights)).checked_part();
            let errors = errors.get_mut(span(layers, index, LayerRecord::values)).checked_part();
            let input = input(layers, features, values, index);
            let learnt = Learnt { weights, bound, sums };
            if layer.update(learnt, exponent.get(), input, errors, halvings, most) {
                *exponent += 1;
            }
        }
    }

    /// Sets each layer's bound to its largest |V|.
    pub(super) fn measure(&mut self) {
        let (_, weights) = parts(self.state, self.layers);
        let layers = super::by_layer(self.layers, weights).zip(self.bounds.iter_mut());
        layers.for_each(|((_, weights), bound)| *bound = linear::largest(weights));
    }
}
