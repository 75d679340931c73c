//! The inner loops of heads trained by gradient descent: int16 weights, whose high byte is the int8 weight of the forward pass.
//!
//! Their cost on rv32imc decides how they are unrolled. Five rows at a time share an input: 4.2 instructions per weight, 8.4 for one row
//! alone. Two rows of an update without bounds checks take 7, one row with them 13.

use core::slice::ChunksExact;

use zerocopy::FromBytes;
use zerocopy::little_endian::{I16, U32};

use crate::Error;
use crate::image::HeadRecord;

/// A |V| above it makes the layer halve all its weights.
pub(super) const HALVE_ABOVE: i32 = 32000;
/// No |V| is above it: V + 128 fits int16.
pub(super) const SATURATE_AT: i32 = i16::MAX as i32 - 128;
/// The largest right shift for which `2^(shift - 1)` fits int32.
pub(super) const LARGEST_SHIFT: i32 = 30;

/// The largest number of samples of which one is kept aside.
pub(super) const LARGEST_GUARD: u32 = 1 << 16;

/// A saved state of a head trained by gradient descent, to be checked: an exponent per layer (u32, its number of halvings), the random
/// state (u32), then each layer's weights V + 128 (int16).
pub(super) struct Saved<'s> {
    pub exponents: &'s [U32],
    pub weights: &'s [I16],
}

impl<'s> Saved<'s> {
    /// Splits a state of `length` bytes.
    pub fn read(state: &'s [u8], length: usize, layers: usize) -> Result<Self, Error> {
        let wrong = Error::Length { name: "saved head", needed: length, given: state.len() };
        Error::check_length("saved head", length, state.len())?;
        let (exponents, rest) = <[U32]>::ref_from_prefix_with_elems(state, layers).map_err(|_| wrong)?;
        let (random, weights) = U32::ref_from_prefix(rest).map_err(|_| wrong)?;
        if *random == 0 {
            return Err(Error::Field { name: "head random state", value: 0 });
        }
        Ok(Saved { exponents, weights: <[I16]>::ref_from_bytes(weights).map_err(|_| wrong)? })
    }
}

/// Checks what a record holds for every layer: the scale of a logit, the multiplier (mantissa, right shift) from a logit to the loss's unit,
/// the number of epochs after which the learning rate is halved, and the guard.
pub(super) fn check_record(record: &HeadRecord, multiplier: (i32, i32), halve_every: i32) -> Result<(), Error> {
    let (mantissa, shift) = multiplier;
    if !(1 << 15..1 << 16).contains(&mantissa) || !(0..64).contains(&shift) {
        return Err(Error::Field { name: "head logit multiplier", value: mantissa.into() });
    }
    record.check_logit_scale()?;
    if halve_every < 0 {
        return Err(Error::Field { name: "head epochs between halvings of the rate", value: halve_every.into() });
    }
    if record.guard == 1 || record.guard > LARGEST_GUARD {
        return Err(Error::Field { name: "head guard", value: record.guard.into() });
    }
    Ok(())
}

/// Checks a layer that was halved `exponent` times, of at most `most`, for weights that it cannot have.
pub(super) fn check_layer(weights: &[I16], exponent: u32, most: u32) -> Result<(), Error> {
    if exponent > most {
        return Err(Error::Field { name: "head exponent", value: exponent.into() });
    }
    let largest = if exponent < most { HALVE_ABOVE } else { SATURATE_AT };
    weights.iter().try_for_each(|stored| check_weight(stored.get(), largest))
}

/// Refuses a stored weight with `|V| > largest`.
pub(super) fn check_weight(stored: i16, largest: i32) -> Result<(), Error> {
    let v = i32::from(stored) - 128;
    if v.abs() <= largest { Ok(()) } else { Err(Error::Field { name: "head weight", value: v.into() }) }
}

/// Halves all weights (V / 2, floored), as their scale doubles.
pub(super) fn halve(rows: &mut [i16]) {
    for stored in rows {
        *stored = (((i32::from(*stored) - 128) >> 1) + 128) as i16;
    }
}

/// The largest constant input of a bias.
pub(super) const LARGEST_BIAS_INPUT: i32 = 128;

/// The constant input of a bias, for inputs of this scale: the one whose real value is nearest to 1.
#[cfg(feature = "alloc")]
pub(super) fn bias_input(input_scale: f64) -> i32 {
    ((1.0 / input_scale).clamp(1.0, LARGEST_BIAS_INPUT.into()) + 0.5) as i32
}

/// The scale (of one V / 256) of a new layer: its largest weight becomes V = 16000, half of int16's range. A layer of zeros has no such
/// scale: it gets one with which one step of one weight moves its output by at most 1/16.
#[cfg(feature = "alloc")]
pub(super) fn weight_scale(largest: f64, input_scale: f64) -> f64 {
    const LARGEST_INITIAL: f64 = 16000.0;
    if largest == 0.0 { 1.0 / (16.0 * 255.0 * input_scale) } else { largest * 256.0 / LARGEST_INITIAL }
}

/// Matrix-vector product: `sum (high byte of w) * (q - zero_point)` of each row `[features + 1]`; the last weight, the bias, has the input
/// `bias_input`.
pub(super) fn products(rows: &[i16], features: &[i8], zero_point: i32, bias_input: i32, sums: &mut [i32]) {
    let rows = rows.chunks_exact(features.len() + 1);
    let (rows, sums) = several::<5>(rows, features, zero_point, bias_input, sums);
    let (rows, sums) = several::<2>(rows, features, zero_point, bias_input, sums);
    for (sum, row) in sums.iter_mut().zip(rows) {
        let inputs = features.iter().map(|&q| i32::from(q) - zero_point).chain([bias_input]);
        *sum = inputs.zip(row).map(|(x, &v)| i32::from(v >> 8) * x).sum();
    }
}

/// Transposed matrix-vector product: `sum (high byte of w) * error` of each column but the last, over the rows `[sums + 1]` whose error is
/// not 0.
pub(super) fn transposed_products(rows: &[i16], errors: &[i32], sums: &mut [i32]) {
    sums.fill(0);
    for (row, &error) in rows.chunks_exact(sums.len() + 1).zip(errors) {
        if error != 0 {
            sums.iter_mut().zip(row).for_each(|(sum, &v)| *sum += error * i32::from(v >> 8));
        }
    }
}

/// [`products`] of `N` rows at a time; returns the rows and sums that are left.
fn several<'r, 's, const N: usize>(
    mut rows: ChunksExact<'r, i16>,
    features: &[i8],
    zero_point: i32,
    bias_input: i32,
    sums: &'s mut [i32],
) -> (ChunksExact<'r, i16>, &'s mut [i32]) {
    let (groups, rest) = sums.as_chunks_mut::<N>();
    let (pairs, odd) = features.as_chunks::<2>();
    for sums in groups {
        let Some(rows) = next_rows::<N>(&mut rows) else { break };
        let weights = rows.map(|(_, weights)| weights.as_chunks::<2>().0);
        let mut total = rows.map(|(&bias, _)| i32::from(bias >> 8) * bias_input);
        // Not `enumerate`: with a range, LLVM sees that the index is within every row.
        for (index, pair) in (0..pairs.len()).zip(pairs) {
            let (first, second) = (i32::from(pair[0]) - zero_point, i32::from(pair[1]) - zero_point);
            for (total, weights) in total.iter_mut().zip(&weights) {
                *total += i32::from(weights[index][0] >> 8) * first;
                *total += i32::from(weights[index][1] >> 8) * second;
            }
        }
        for &q in odd {
            for (total, (_, weights)) in total.iter_mut().zip(&rows) {
                *total += weights.last().map_or(0, |&v| i32::from(v >> 8)) * (i32::from(q) - zero_point);
            }
        }
        *sums = total;
    }
    (rows, rest)
}

/// The next `N` rows, each split into its bias and its other weights.
fn next_rows<'r, const N: usize>(rows: &mut ChunksExact<'r, i16>) -> Option<[(&'r i16, &'r [i16]); N]> {
    let mut next = [(&0, &[][..]); N];
    for row in &mut next {
        *row = rows.next()?.split_last()?;
    }
    Some(next)
}

/// Gradient descent step: `v -= (gradient * x + half) >> shift` in every row `[features + 1]` whose gradient is not 0, where x is
/// `q - zero_point` or the bias input. Only for steps that cannot take a weight out of its bounds.
pub(super) fn descend(
    rows: &mut [i16],
    features: &[i8],
    zero_point: i32,
    bias_input: i32,
    gradients: &[i32],
    shift: u32,
) {
    let mut waiting = None;
    let rows = rows.chunks_exact_mut(features.len() + 1).filter_map(<[i16]>::split_last_mut);
    for ((bias, row), &gradient) in rows.zip(gradients) {
        if gradient == 0 {
            continue;
        }
        let step = (gradient, (1 << (shift - 1)) - gradient * zero_point);
        *bias = moved(*bias, bias_input + zero_point, step, shift);
        match waiting.take() {
            Some((other, before)) => two([other, row], features, [before, step], shift),
            None => waiting = Some((row, step)),
        }
    }
    if let Some((row, step)) = waiting {
        one(row, features, step, shift);
    }
}

/// `v - ((gradient * q + constant) >> shift)`.
#[inline(always)]
fn moved(v: i16, q: i32, (gradient, constant): (i32, i32), shift: u32) -> i16 {
    v.wrapping_sub(((gradient * q + constant) >> shift) as i16)
}

/// One row of [`descend`], without its bias.
fn one(row: &mut [i16], features: &[i8], step: (i32, i32), shift: u32) {
    let (weights, few_weights) = row.as_chunks_mut::<4>();
    let (quads, few) = features.as_chunks::<4>();
    for (weights, features) in weights.iter_mut().zip(quads) {
        weights.iter_mut().zip(features).for_each(|(v, &q)| *v = moved(*v, q.into(), step, shift));
    }
    few_weights.iter_mut().zip(few).for_each(|(v, &q)| *v = moved(*v, q.into(), step, shift));
}

/// Two rows of [`descend`] that share the inputs, without their biases. Not inlined, and not more rows: LLVM would spill.
#[inline(never)]
fn two([first, second]: [&mut [i16]; 2], features: &[i8], steps: [(i32, i32); 2], shift: u32) {
    let (first, few_first) = first.as_chunks_mut::<4>();
    let (second, few_second) = second.as_chunks_mut::<4>();
    let (quads, few) = features.as_chunks::<4>();
    for ((features, first), second) in quads.iter().zip(first).zip(second) {
        for ((&q, v), w) in features.iter().zip(first).zip(second) {
            *v = moved(*v, q.into(), steps[0], shift);
            *w = moved(*w, q.into(), steps[1], shift);
        }
    }
    for ((&q, v), w) in few.iter().zip(few_first).zip(few_second) {
        *v = moved(*v, q.into(), steps[0], shift);
        *w = moved(*w, q.into(), steps[1], shift);
    }
}

/// [`descend`] with saturating weights; returns the largest |V| of the rows whose gradient is not 0.
pub(super) fn descend_bounded(
    rows: &mut [i16],
    features: &[i8],
    zero_point: i32,
    bias_input: i32,
    gradients: &[i32],
    shift: u32,
) -> i32 {
    let half = 1 << (shift - 1);
    let mut largest = 0;
    for (row, &gradient) in rows.chunks_exact_mut(features.len() + 1).zip(gradients) {
        if gradient == 0 {
            continue;
        }
        let inputs = features.iter().map(|&q| i32::from(q) - zero_point).chain([bias_input]);
        for (stored, x) in row.iter_mut().zip(inputs) {
            let v = i32::from(*stored) - 128 - ((gradient * x + half) >> shift);
            let v = v.clamp(-SATURATE_AT, SATURATE_AT);
            largest = v.abs().max(largest);
            *stored = (v + 128) as i16;
        }
    }
    largest
}

/// The largest |V|.
#[inline(never)]
pub(super) fn largest(row: &[i16]) -> i32 {
    let (low, high) = row.iter().fold((i16::MAX, i16::MIN), |(low, high), &stored| (stored.min(low), stored.max(high)));
    (128 - i32::from(low)).max(i32::from(high) - 128)
}
