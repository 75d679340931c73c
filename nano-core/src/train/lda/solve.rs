//! The fixed-point Gauss-Seidel solver of [`LdaHead`](super::LdaHead); `lda/mod.rs` documents arithmetic and bounds.

use core::num::NonZero;

use super::state::Parts;
use super::triangle;
use crate::operator::CheckedPart;
use crate::train::confidence::NO_LOGIT;
use crate::train::start::FRACTION;

/// The largest number of bits of a weight before it is rounded to int16.
const LARGEST_WEIGHT_BITS: u32 = 25;
/// Fraction bits of a mean in a correction, and of the right-hand sides.
const MEAN: u32 = 22;
/// The largest left shift of S, for which its correction is still shifted right.
const LARGEST_SHIFT: u32 = 16;
/// Reached only by states that no samples lead to; a diagonal below it plus lambda fits 32 bits.
const LARGEST_LAMBDA: u64 = 1 << 31;
/// Fraction bits of a quotient before its last rounding.
const GUARD: u32 = 6;

/// Scratch memory of the solver: per class a column of means and a shift, per feature the rest.
pub(super) struct Scratch<'s> {
    column: &'s mut [i32],
    shifts: &'s mut [u32],
    weights: &'s mut [i32],
    reciprocals: &'s mut [u32],
    pub(super) centre: &'s mut [i32],
    right: &'s mut [i32],
}

impl<'s> Scratch<'s> {
    pub(super) const fn words(classes: usize, features: usize) -> usize {
        classes.saturating_mul(2).saturating_add(features.saturating_mul(4))
    }

    pub(super) fn new(mut words: &'s mut [i32], classes: usize, features: usize) -> Self {
        let mut take = |length| words.split_off_mut(..length).checked_part();
        Scratch {
            column: take(classes),
            shifts: zerocopy::transmute_mut!(take(classes)),
            weights: take(features),
            reciprocals: zerocopy::transmute_mut!(take(features)),
            centre: take(features),
            right: take(features),
        }
    }
}

/// Parameters of the solver.
pub(super) struct Settings {
    /// lambda over the mean of the diagonal, in 1/2^16: [`shrinkage`].
    pub(super) shrinkage: u32,
    /// Gauss-Seidel sweeps.
    pub(super) sweeps: u32,
}

/// `ratio + (D / 2n)^2` in 1/2^16, the square rounded half up, for a ratio of at most 2^16, D up to 2^8 and n from 1 to 2^15.
pub(super) fn shrinkage(ratio: u32, features: u32, freedom: u32) -> u32 {
    let square = (freedom * freedom).max(1);
    ratio + (((features * features) << 14) + square / 2) / square
}

/// Puts the means of the samples, with [`FRACTION`] bits, in place of the weights, and [`NO_LOGIT`] in place of the biases of classes
/// that are not known: those without samples, but for the first `known`.
pub(super) fn average(parts: &mut Parts<'_>, known: usize) {
    for (class, index) in parts.classes.iter_mut().zip(0..) {
        *class.bias = if *class.count > 0 || index < known { 0 } else { NO_LOGIT };
        for (mean, &sum) in class.weights.iter_mut().zip(&*class.sums) {
            *mean = shift_right(quotient(sum, *class.count).into(), MEAN - FRACTION) as i16;
        }
    }
}

/// The trace of S within classes, `sum S_ii - s_ki^2 / n_k`.
pub(super) fn trace_within(parts: &Parts<'_>) -> u64 {
    let Parts { features, classes, spread, .. } = parts;
    let within = triangle::diagonal(spread, *features).enumerate().map(|(i, &square)| {
        let sums = column(classes.sums, *features, i).zip(&*classes.counts);
        let between = sums.map(|(&sum, &count)| i64::from(quotient(sum, count)) * i64::from(sum)).sum::<i64>();
        (i64::from(square) - (between >> MEAN)).max(0) as u64
    });
    within.sum()
}

/// Solves for the weights of all known classes, whose means are in place of them ([`average`]), leaving the sums unchanged; returns the
/// weights' exponent.
pub(super) fn solve(parts: &mut Parts<'_>, scratch: &mut Scratch<'_>, settings: &Settings) -> i32 {
    let largest = parts.spread.iter().fold(0, |largest, sum| sum.unsigned_abs().max(largest));
    let whole = settings.shrinkage >> 16;
    let shift = largest.leading_zeros().saturating_sub(1 + bits(whole.into())).min(LARGEST_SHIFT);
    correct(parts, scratch.column, shift, |sum, correction| (sum << shift).wrapping_sub(correction));
    let exponent = solve_scaled(parts, scratch, settings, shift);
    correct(parts, scratch.column, shift, |sum, correction| sum.wrapping_add(correction) >> shift);
    exponent
}

/// Applies `change(S_ij, sum s_i s_j / n shifted left)` to every S_ij, the sum rounded half up. `means` has room for one number per class.
pub(super) fn correct(parts: &mut Parts<'_>, means: &mut [i32], shift: u32, change: impl Fn(i32, i32) -> i32) {
    let Parts { features, classes, spread, .. } = parts;
    for (i, row) in triangle::rows_mut(spread, *features).enumerate() {
        for ((mean, &sum), &count) in means.iter_mut().zip(column(classes.sums, *features, i)).zip(&*classes.counts) {
            *mean = quotient(sum, count);
        }
        for (j, sum) in (i..).zip(row) {
            let mut products = 1i64 << (MEAN - shift - 1);
            for (&mean, &sum) in means.iter().zip(column(classes.sums, *features, j)) {
                products += i64::from(mean) * i64::from(sum);
            }
            *sum = change(*sum, (products >> (MEAN - shift)) as i32);
        }
    }
}

/// `sum / count` in 1/2^22, rounded half up; 0 for a count of 0.
fn quotient(sum: i32, count: u32) -> i32 {
    if count == 0 {
        return 0;
    }
    let count = i64::from(count);
    (((i64::from(sum) << (MEAN + 1)) + count).div_euclid(2 * count)) as i32
}

fn solve_scaled(parts: &mut Parts<'_>, scratch: &mut Scratch<'_>, settings: &Settings, shift: u32) -> i32 {
    let Parts { features, classes, spread, .. } = parts;
    let Scratch { shifts, weights, reciprocals, centre, right, .. } = scratch;
    let limit = LARGEST_WEIGHT_BITS.min(31 - bits(features.get() as u64 - 1));

    let diagonal = || triangle::diagonal(spread, *features).map(|&sum| sum.max(0) as u32);
    let trace: u64 = diagonal().map(u64::from).sum();
    let lambda = (trace.saturating_mul(settings.shrinkage.into()) >> 16) / features.get() as u64;
    let lambda = lambda.max(1 << shift).min(LARGEST_LAMBDA) as u32;
    for (reciprocal, diagonal) in reciprocals.iter_mut().zip(diagonal()) {
        let divisor = divisor(diagonal, lambda);
        *reciprocal = ((1u64 << (62 - divisor.leading_zeros())) / NonZero::<u64>::from(divisor)) as u32;
    }

    let known = classes.biases.iter().filter(|&&bias| bias != NO_LOGIT).count() as i64;
    for (i, centre) in centre.iter_mut().enumerate() {
        let sum: i64 = column(classes.weights, *features, i).copied().map(i64::from).sum();
        *centre = match known {
            0 => 0,
            known => ((sum << (MEAN + 1 - FRACTION)) + known).div_euclid(2 * known) as i32,
        };
    }
    let mut longest = 0;
    for class in classes.iter_mut().filter(|class| *class.bias != NO_LOGIT) {
        right_side(class.weights, centre, right);
        longest = right.iter().map(|&mean| i64::from(mean >> 14).pow(2) as u64).sum::<u64>().max(longest);
    }
    // The norm of the longest right-hand side is below 2^length.
    let length = bits(longest).div_ceil(2) as i32 - 8;
    let exponent = limit as i32 - 1 + (bits(lambda.into()) as i32 - 1 - shift as i32) - length;

    let mut common = 0;
    for (class, class_shift) in classes.iter_mut().zip(&mut **shifts) {
        *class_shift = 0;
        if *class.bias == NO_LOGIT {
            continue;
        }
        right_side(class.weights, centre, right);
        let sweeps =
            Sweeps { lambda, right_shift: shift as i32 + exponent - MEAN as i32, limit, count: settings.sweeps };
        sweep(spread, *features, right, reciprocals, weights, &sweeps);
        let largest = weights.iter().fold(0, |largest, weight| weight.unsigned_abs().max(largest));
        let down = bits(largest.into()).saturating_sub(14);
        *class_shift = down;
        common = down.max(common);
        let mut twice = 0i64;
        for ((&right, &centre), &weight) in right.iter().zip(&**centre).zip(&**weights) {
            twice -= ((i64::from(right) + 2 * i64::from(centre)) >> 8) * i64::from(weight);
        }
        *class.bias = shift_right(twice, down + 15) as i32;
        for (short, &weight) in class.weights.iter_mut().zip(&**weights) {
            *short = shift_right(weight.into(), down) as i16;
        }
    }
    for (class, class_shift) in classes.iter_mut().zip(&**shifts) {
        let down = common - class_shift;
        if *class.bias != NO_LOGIT && down > 0 {
            *class.bias = shift_right((*class.bias).into(), down) as i32;
            for weight in class.weights {
                *weight = shift_right((*weight).into(), down) as i16;
            }
        }
    }
    exponent - common as i32
}

/// The right-hand side: a class's mean minus that of all classes.
fn right_side(means: &[i16], centre: &[i32], right: &mut [i32]) {
    for ((right, &mean), &centre) in right.iter_mut().zip(means).zip(centre) {
        *right = (i32::from(mean) << (MEAN - FRACTION)) - centre;
    }
}

/// Parameters of [`sweep`].
struct Sweeps {
    lambda: u32,
    /// Left shift of the right-hand side.
    right_shift: i32,
    /// Bits of the largest weight.
    limit: u32,
    /// The largest number of sweeps.
    count: u32,
}

/// Gauss-Seidel from zero: each weight in turn takes the value that satisfies its own equation.
fn sweep(
    spread: &[i32],
    features: NonZero<usize>,
    right: &[i32],
    reciprocals: &[u32],
    weights: &mut [i32],
    settings: &Sweeps,
) {
    let Sweeps { lambda, right_shift, limit, count } = *settings;
    let largest = (1i64 << limit) - 1;
    weights.fill(0);
    for _ in 0..count {
        let mut changed = false;
        let equations = triangle::rows(spread, features).zip(right).zip(reciprocals).enumerate();
        for (i, ((row, &right), &reciprocal)) in equations {
            let (Some((before, [weight, after @ ..])), [diagonal, row @ ..]) = (weights.split_at_mut_checked(i), row)
            else {
                break;
            };
            // sum A_ij w_j over all j but i.
            let others = triangle::dot_column(spread, features, i, before) + triangle::dot(row, after);
            let right = i64::from(right);
            let right = if right_shift < 0 { right >> -right_shift } else { right << right_shift };
            let residue = right - others;
            // residue / divisor in 1/2^GUARD is `short * reciprocal / 2^31`.
            let down = 31 - divisor((*diagonal).max(0) as u32, lambda).leading_zeros() as i32 - GUARD as i32;
            let short = if down < 0 { residue.saturating_mul(1 << -down) } else { residue >> down };
            let short = short.clamp(i32::MIN.into(), i32::MAX.into());
            let solution = shift_right(short * i64::from(reciprocal), 31 + GUARD);
            let solution = solution.max(-largest).min(largest) as i32;
            changed |= solution != *weight;
            *weight = solution;
        }
        if !changed {
            break;
        }
    }
}

/// A_ii, at least 1.
fn divisor(diagonal: u32, lambda: u32) -> NonZero<u32> {
    NonZero::new(diagonal + lambda).unwrap_or(NonZero::<u32>::MIN)
}

/// Element `i` of each row of `features`.
fn column<T>(rows: &[T], features: NonZero<usize>, i: usize) -> impl Iterator<Item = &T> {
    rows.get(i..).checked_part().iter().step_by(features.get())
}

/// Rounded half up.
fn shift_right(value: i64, down: u32) -> i64 {
    if down == 0 { value } else { (value + (1 << (down - 1))) >> down }
}

/// Bits of a number without leading zeros.
const fn bits(value: u64) -> u32 {
    u64::BITS - value.leading_zeros()
}
