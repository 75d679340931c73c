//! The loops of layers that slide a window over height, width and channels.
//!
//! No patch is copied (im2col): the pixels of a row that lie under a window are contiguous, as are their weights. Padding has the real value 0,
//! so it is left out.

use super::geometry::Segment;
use super::layer::Input;
use super::record::{LayerRecord, Operation};
use crate::operator::CheckedPart;
use crate::train::linear::SATURATE_AT;

/// The pixels of a segment, `channels` values each, with their taps.
fn pixels<'s>(
    segment: &Segment,
    values: &'s [i8],
    channels: usize,
) -> impl Iterator<Item = (usize, &'s [i8])> + use<'s> {
    (segment.tap..).zip(values.get(segment.pixels(channels)).checked_part().chunks_exact(channels))
}

/// [`pixels`] of errors.
fn pixels_mut<'s>(
    segment: &Segment,
    errors: &'s mut [i32],
    channels: usize,
) -> impl Iterator<Item = (usize, &'s mut [i32])> + use<'s> {
    (segment.tap..).zip(errors.get_mut(segment.pixels(channels)).checked_part().chunks_exact_mut(channels))
}

/// Each row's weight of one tap of a depthwise layer.
fn of_tap<'w>(layer: &LayerRecord, weights: &'w [i16], tap: usize) -> impl Iterator<Item = i32> + use<'w> {
    weights.iter().skip(tap).step_by(layer.row()).map(|&v| i32::from(v >> 8))
}

/// Convolution: `sum (high byte of w) * (q - zero_point)` of each position and row `[inputs + 1]`.
pub(super) fn products(layer: &LayerRecord, weights: &[i16], input: Input<'_>, sums: &mut [i32]) {
    let (channels, length) = (layer.channels(), layer.row());
    for (position, sums) in sums.chunks_exact_mut(layer.outputs()).enumerate() {
        let biases = of_tap(layer, weights, length - 1);
        sums.iter_mut().zip(biases).for_each(|(sum, bias)| *sum = bias * layer.bias_input);
        for segment in layer.window(position) {
            let values = input.values.get(segment.pixels(channels)).checked_part();
            for (sum, row) in sums.iter_mut().zip(weights.chunks_exact(length)) {
                let row = row.get(segment.taps(channels)).checked_part();
                let product = |(&v, &q): (&i16, &i8)| i32::from(v >> 8) * (i32::from(q) - input.zero_point);
                *sum += row.iter().zip(values).map(product).sum::<i32>();
            }
        }
    }
}

/// Depthwise convolution: [`products`] of each channel with its own row.
pub(super) fn depthwise_products(layer: &LayerRecord, weights: &[i16], input: Input<'_>, sums: &mut [i32]) {
    let channels = layer.outputs();
    for (position, sums) in sums.chunks_exact_mut(channels).enumerate() {
        let biases = of_tap(layer, weights, layer.inputs());
        sums.iter_mut().zip(biases).for_each(|(sum, bias)| *sum = bias * layer.bias_input);
        for (tap, values) in layer.window(position).flat_map(|segment| pixels(&segment, input.values, channels)) {
            for ((sum, w), &q) in sums.iter_mut().zip(of_tap(layer, weights, tap)).zip(values) {
                *sum += w * (i32::from(q) - input.zero_point);
            }
        }
    }
}

/// The sum under each window, of each channel.
pub(super) fn totals(layer: &LayerRecord, input: Input<'_>, sums: &mut [i32]) {
    let channels = layer.outputs();
    for (position, sums) in sums.chunks_exact_mut(channels).enumerate() {
        sums.fill(0);
        for (_, values) in layer.window(position).flat_map(|segment| pixels(&segment, input.values, channels)) {
            sums.iter_mut().zip(values).for_each(|(sum, &q)| *sum += i32::from(q) - input.zero_point);
        }
    }
}

/// The maximum under each window, of each channel.
pub(super) fn maxima(layer: &LayerRecord, input: Input<'_>, sums: &mut [i32]) {
    let channels = layer.outputs();
    for (position, sums) in sums.chunks_exact_mut(channels).enumerate() {
        sums.fill(i32::MIN);
        for (_, values) in layer.window(position).flat_map(|segment| pixels(&segment, input.values, channels)) {
            sums.iter_mut().zip(values).for_each(|(sum, &q)| *sum = (*sum).max(i32::from(q) - input.zero_point));
        }
    }
}

/// Transposed convolution of the errors: for each input the sum over the outputs that read it.
pub(super) fn transposed_products(layer: &LayerRecord, weights: &[i16], errors: &[i32], lower: &mut [i32]) {
    let channels = layer.channels();
    lower.fill(0);
    for (position, errors) in errors.chunks_exact(layer.outputs()).enumerate() {
        for segment in layer.window(position) {
            let lower = lower.get_mut(segment.pixels(channels)).checked_part();
            for (row, &error) in weights.chunks_exact(layer.row()).zip(errors) {
                if error != 0 {
                    let row = row.get(segment.taps(channels)).checked_part();
                    lower.iter_mut().zip(row).for_each(|(sum, &v)| *sum += error * i32::from(v >> 8));
                }
            }
        }
    }
}

/// [`transposed_products`] of a depthwise convolution.
pub(super) fn transposed_depthwise_products(layer: &LayerRecord, weights: &[i16], errors: &[i32], lower: &mut [i32]) {
    let channels = layer.outputs();
    lower.fill(0);
    for (position, errors) in errors.chunks_exact(channels).enumerate() {
        for segment in layer.window(position) {
            for (tap, lower) in pixels_mut(&segment, lower, channels) {
                for ((sum, w), &error) in lower.iter_mut().zip(of_tap(layer, weights, tap)).zip(errors) {
                    *sum += w * error;
                }
            }
        }
    }
}

/// The error of each mean, for all inputs under its window.
pub(super) fn spread(layer: &LayerRecord, errors: &[i32], lower: &mut [i32]) {
    let channels = layer.outputs();
    lower.fill(0);
    for (position, errors) in errors.chunks_exact(channels).enumerate() {
        for segment in layer.window(position) {
            for (_, lower) in pixels_mut(&segment, lower, channels) {
                lower.iter_mut().zip(errors).for_each(|(sum, &error)| *sum += error);
            }
        }
    }
}

/// The error of each maximum, for the first input under its window that has it.
pub(super) fn to_maxima(layer: &LayerRecord, input: &[i8], errors: &[i32], lower: &mut [i32]) {
    let channels = layer.outputs();
    lower.fill(0);
    for (position, errors) in errors.chunks_exact(channels).enumerate() {
        for (channel, &error) in errors.iter().enumerate() {
            let places = layer.window(position).flat_map(|segment| segment.pixels(channels)).skip(channel);
            let mut largest = None;
            for place in places.step_by(channels) {
                let value = input.get(place).copied().checked_part();
                if largest.is_none_or(|(_, most)| value > most) {
                    largest = Some((place, value));
                }
            }
            if let Some(sum) = largest.and_then(|(place, _)| lower.get_mut(place)) {
                *sum += error;
            }
        }
    }
}

/// Gradient descent step on every row, whose products of gradients and inputs are added up over the positions before they are rounded.
pub(super) fn descend(
    layer: &LayerRecord,
    weights: &mut [i16],
    input: Input<'_>,
    gradients: &[i32],
    shift: u32,
    sums: &mut [i32],
) {
    let outputs = layer.outputs();
    let depthwise = layer.operation() == Operation::Depthwise;
    let channels = layer.channels();
    let half = 1 << (shift - 1);
    let sums = sums.get_mut(..layer.row()).checked_part();
    for (output, row) in weights.chunks_exact_mut(layer.row()).enumerate() {
        sums.fill(0);
        let own = gradients.iter().skip(output).step_by(outputs).enumerate().filter(|(_, gradient)| **gradient != 0);
        for (position, &gradient) in own {
            for segment in layer.window(position) {
                let values = input.values.get(segment.pixels(channels)).checked_part();
                let product = |q: i8| gradient * (i32::from(q) - input.zero_point);
                if depthwise {
                    let sums = sums.get_mut(segment.taps(1)).checked_part();
                    let values = values.iter().skip(output).step_by(channels);
                    sums.iter_mut().zip(values).for_each(|(sum, &q)| *sum += product(q));
                } else {
                    let sums = sums.get_mut(segment.taps(channels)).checked_part();
                    sums.iter_mut().zip(values).for_each(|(sum, &q)| *sum += product(q));
                }
            }
            if let Some(sum) = sums.last_mut() {
                *sum += gradient * layer.bias_input;
            }
        }
        for (stored, &sum) in row.iter_mut().zip(&*sums) {
            let v = i32::from(*stored) - 128 - ((sum + half) >> shift);
            *stored = (v.clamp(-SATURATE_AT, SATURATE_AT) + 128) as i16;
        }
    }
}
