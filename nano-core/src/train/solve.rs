//! The fixed-point solution of [`LdaHead`](super::LdaHead)'s equations; arithmetic and bounds are in the text of `lda.rs`.

use super::confidence::NO_LOGIT;
use super::lda::{LARGEST_WEIGHT_BITS, Parts};

/// Fraction bits of a mean.
const MEAN: u32 = 22;
/// Left shifts of S up to this one leave a right shift of its correction.
const LARGEST_SHIFT: u32 = 16;
/// Only states that no samples give reach it; with a diagonal below it, the sum fits 32 bits.
const LARGEST_LAMBDA: u64 = 1 << 31;
/// Fraction bits of a quotient before its last rounding.
const GUARD: u32 = 6;

/// Memory of one solution: per class a column of means and a shift, per feature the rest.
pub(super) struct Scratch<'s> {
    column: &'s mut [i32],
    shifts: &'s mut [i32],
    weights: &'s mut [i32],
    reciprocals: &'s mut [u32],
    centre: &'s mut [i32],
    right: &'s mut [i32],
}

impl<'s> Scratch<'s> {
    pub(super) const fn words(classes: usize, features: usize) -> usize {
        classes.saturating_mul(2).saturating_add(features.saturating_mul(4))
    }

    pub(super) fn new(words: &'s mut [i32], classes: usize, features: usize) -> Self {
        let (column, words) = words.split_at_mut(classes);
        let (shifts, words) = words.split_at_mut(classes);
        let (weights, words) = words.split_at_mut(features);
        let (reciprocals, words) = words.split_at_mut(features);
        let (centre, right) = words.split_at_mut(features);
        Scratch { column, shifts, weights, reciprocals: zerocopy::transmute_mut!(reciprocals), centre, right }
    }
}

/// What decides the solution besides the sums.
pub(super) struct Settings {
    /// lambda over the mean of the diagonal, in 1/2^16: [`shrinkage`].
    pub(super) shrinkage: u32,
    /// Gauss-Seidel sweeps.
    pub(super) sweeps: u32,
}

/// `ratio + (D / 2n)^2` in 1/2^16, the square rounded half up, for a ratio of at most 2^16, D up to 2^8 and n from 1 to 2^15.
pub(super) const fn shrinkage(ratio: u32, features: u32, freedom: u32) -> u32 {
    let square = freedom * freedom;
    ratio + (((features * features) << 14) + square / 2) / square
}

/// Solves for the weights of all classes that have samples, and leaves the sums as they were. Returns the weights' exponent.
pub(super) fn solve(parts: &mut Parts<'_>, scratch: &mut Scratch<'_>, settings: &Settings) -> i32 {
    let largest = parts.spread.iter().fold(0, |largest, sum| sum.unsigned_abs().max(largest));
    let whole = settings.shrinkage >> 16;
    let shift = largest.leading_zeros().saturating_sub(1 + bits(whole.into())).min(LARGEST_SHIFT);
    correct(parts, scratch.column, shift, |sum, correction| (sum << shift).wrapping_sub(correction));
    let exponent = solve_scaled(parts, scratch, settings, shift);
    correct(parts, scratch.column, shift, |sum, correction| sum.wrapping_add(correction) >> shift);
    exponent
}

/// Every S_ij with its `sum s_i s_j / n`, shifted left.
fn correct(parts: &mut Parts<'_>, column: &mut [i32], shift: u32, change: impl Fn(i32, i32) -> i32) {
    let features = parts.features;
    let mut spread = &mut *parts.spread;
    for i in 0..features {
        for (class, mean) in column.iter_mut().enumerate() {
            *mean = quotient(parts.sums[class * features + i], parts.counts[class]);
        }
        let (row, rest) = spread.split_at_mut(features - i);
        spread = rest;
        for (offset, sum) in row.iter_mut().enumerate() {
            let mut products = 1i64 << (MEAN - shift - 1);
            let sums = parts.sums[i + offset..].iter().step_by(features);
            for (&mean, &sum) in column.iter().zip(sums) {
                products += i64::from(mean) * i64::from(sum);
            }
            *sum = change(*sum, (products >> (MEAN - shift)) as i32);
        }
    }
}

/// `sum / count` in 1/2^22, rounded half up; 0 of nothing.
fn quotient(sum: i32, count: u32) -> i32 {
    if count == 0 {
        return 0;
    }
    let count = i64::from(count);
    (((i64::from(sum) << (MEAN + 1)) + count).div_euclid(2 * count)) as i32
}

fn solve_scaled(parts: &mut Parts<'_>, scratch: &mut Scratch<'_>, settings: &Settings, shift: u32) -> i32 {
    let features = parts.features;
    let samples: u32 = parts.counts.iter().sum();
    let limit = LARGEST_WEIGHT_BITS.min(31 - bits(features as u64 - 1));

    let diagonal = || (0..features).map(|i| parts.spread[place(features, i)].max(0) as u32);
    let trace: u64 = diagonal().map(u64::from).sum();
    let lambda = (trace.saturating_mul(settings.shrinkage.into()) >> 16) / features as u64;
    let lambda = lambda.clamp(1 << shift, LARGEST_LAMBDA) as u32;
    for (reciprocal, diagonal) in scratch.reciprocals.iter_mut().zip(diagonal()) {
        let divisor = diagonal + lambda;
        *reciprocal = ((1u64 << (62 - divisor.leading_zeros())) / u64::from(divisor)) as u32;
    }

    for (i, centre) in scratch.centre.iter_mut().enumerate() {
        let total = parts.sums[i..].iter().step_by(features).sum();
        *centre = quotient(total, samples);
    }
    let mut longest = 0;
    for class in 0..parts.counts.len() {
        if parts.counts[class] > 0 {
            right_side(parts, class, scratch.centre, scratch.right);
            longest = scratch.right.iter().map(|&mean| i64::from(mean >> 14).pow(2) as u64).sum::<u64>().max(longest);
        }
    }
    // The longest right side is shorter than 2^length.
    let length = bits(longest).div_ceil(2) as i32 - 8;
    let exponent = limit as i32 - 1 + (bits(lambda.into()) as i32 - 1 - shift as i32) - length;

    let mut common = 0;
    for class in 0..parts.counts.len() {
        scratch.shifts[class] = 0;
        if parts.counts[class] == 0 {
            parts.biases[class] = NO_LOGIT;
            parts.weights[class * features..][..features].fill(0);
            continue;
        }
        right_side(parts, class, scratch.centre, scratch.right);
        sweep(parts.spread, scratch, lambda, shift as i32 + exponent - MEAN as i32, limit, settings.sweeps);
        let largest = scratch.weights.iter().fold(0, |largest, weight| weight.unsigned_abs().max(largest));
        let down = bits(largest.into()).saturating_sub(14);
        scratch.shifts[class] = down as i32;
        common = down.max(common);
        let mut twice = 0i64;
        for ((&right, &centre), &weight) in scratch.right.iter().zip(&*scratch.centre).zip(&*scratch.weights) {
            twice -= ((i64::from(right) + 2 * i64::from(centre)) >> 8) * i64::from(weight);
        }
        parts.biases[class] = shift_right(twice, down + 15) as i32;
        for (short, &weight) in parts.weights[class * features..].iter_mut().zip(&*scratch.weights) {
            *short = shift_right(weight.into(), down) as i16;
        }
    }
    for class in 0..parts.counts.len() {
        let down = common - scratch.shifts[class] as u32;
        if parts.counts[class] > 0 && down > 0 {
            parts.biases[class] = shift_right(parts.biases[class].into(), down) as i32;
            for weight in &mut parts.weights[class * features..][..features] {
                *weight = shift_right((*weight).into(), down) as i16;
            }
        }
    }
    exponent - common as i32
}

/// A class's mean minus that of all samples.
fn right_side(parts: &Parts<'_>, class: usize, centre: &[i32], right: &mut [i32]) {
    let sums = &parts.sums[class * centre.len()..];
    for ((right, &sum), &centre) in right.iter_mut().zip(sums).zip(centre) {
        *right = quotient(sum, parts.counts[class]) - centre;
    }
}

/// Gauss-Seidel from zero: each weight in turn takes the value that satisfies its own equation.
fn sweep(spread: &[i32], scratch: &mut Scratch<'_>, lambda: u32, right_shift: i32, limit: u32, sweeps: u32) {
    let features = scratch.weights.len();
    let largest = (1i64 << limit) - 1;
    scratch.weights.fill(0);
    for _ in 0..sweeps {
        let mut changed = false;
        let mut row = 0;
        for i in 0..features {
            let right = i64::from(scratch.right[i]);
            let right = if right_shift < 0 { right >> -right_shift } else { right << right_shift };
            let residue = right - others(spread, scratch.weights, row, i);
            let divisor = spread[row].max(0) as u32 + lambda;
            // residue / divisor in 1/2^GUARD is `short * reciprocal / 2^31`.
            let down = 31 - divisor.leading_zeros() as i32 - GUARD as i32;
            let short = if down < 0 { residue.saturating_mul(1 << -down) } else { residue >> down };
            let short = short.clamp(i32::MIN.into(), i32::MAX.into());
            let weight = shift_right(short * i64::from(scratch.reciprocals[i]), 31 + GUARD);
            let weight = weight.clamp(-largest, largest) as i32;
            changed |= weight != scratch.weights[i];
            scratch.weights[i] = weight;
            row += features - i;
        }
        if !changed {
            break;
        }
    }
}

/// `sum A_ij w_j` over all j but i, where A_ii lies at `row`.
fn others(spread: &[i32], weights: &[i32], row: usize, i: usize) -> i64 {
    let features = weights.len();
    let mut sum = 0i64;
    let mut place = i;
    for (j, &weight) in weights[..i].iter().enumerate() {
        sum += i64::from(spread[place]) * i64::from(weight);
        place += features - 1 - j;
    }
    for (&element, &weight) in spread[row + 1..].iter().zip(&weights[i + 1..]) {
        sum += i64::from(element) * i64::from(weight);
    }
    sum
}

/// Where S_ii lies in the triangle.
pub(super) const fn place(features: usize, i: usize) -> usize {
    i * (2 * features + 1 - i) / 2
}

/// Rounded half up.
fn shift_right(value: i64, down: u32) -> i64 {
    if down == 0 { value } else { (value + (1 << (down - 1))) >> down }
}

/// Bits of a number without leading zeros.
const fn bits(value: u64) -> u32 {
    u64::BITS - value.leading_zeros()
}
