//! The inner loops of a linear head whose weights are int16 with the int8 weight as their high byte.
//!
//! What they cost on rv32imc decides their form. Five rows at once share an input: 4.2 instructions per weight in the loop, where one row
//! alone takes 8.4. Two rows of a descent that need not look at bounds take 7, where one row that does takes 13.

use zerocopy::IntoBytes;

use crate::Error;

/// A |V| above it asks for all to be halved.
pub(super) const HALVE_ABOVE: i32 = 32000;
/// No |V| is above it: V + 128 fits int16.
pub(super) const SATURATE_AT: i32 = i16::MAX as i32 - 128;
/// Right shifts up to this one leave `2^(shift - 1)` an int32.
pub(super) const LARGEST_SHIFT: i32 = 30;

/// Refuses a stored weight with `|V| > largest`.
pub(super) fn check_weight(stored: i16, largest: i32) -> Result<(), Error> {
    let v = i32::from(stored) - 128;
    if v.abs() <= largest { Ok(()) } else { Err(Error::Field { name: "head weight", value: v.into() }) }
}

/// V / 2, floored, of all weights: at twice their scale they are what they were.
pub(super) fn halve(rows: &mut [i16]) {
    for stored in rows {
        *stored = (((i32::from(*stored) - 128) >> 1) + 128) as i16;
    }
}

/// The constant input of a bias is at most this.
pub(super) const LARGEST_BIAS_INPUT: i32 = 128;

/// The constant input of a bias behind inputs of this scale: that whose real value is nearest to 1.
#[cfg(feature = "alloc")]
pub(super) fn bias_input(input_scale: f64) -> i32 {
    ((1.0 / input_scale).clamp(1.0, LARGEST_BIAS_INPUT.into()) + 0.5) as i32
}

/// `sum (high byte of w) * (q - zero_point)` of each row [features + 1]; the last weight, the bias, has the input `bias_input`.
pub(super) fn products(rows: &[i16], features: &[i8], zero_point: i32, bias_input: i32, sums: &mut [i32]) {
    let width = features.len() + 1;
    let mut rest = several::<5>(rows, features, zero_point, bias_input, sums);
    rest += several::<2>(&rows[rest * width..], features, zero_point, bias_input, &mut sums[rest..]);
    several::<1>(&rows[rest * width..], features, zero_point, bias_input, &mut sums[rest..]);
}

/// `sum (high byte of w) * error` of each column but the last, over the rows [sums + 1] with an error.
pub(super) fn transposed_products(rows: &[i16], errors: &[i32], sums: &mut [i32]) {
    sums.fill(0);
    for (row, &error) in rows.chunks_exact(sums.len() + 1).zip(errors) {
        if error != 0 {
            sums.iter_mut().zip(row).for_each(|(sum, &v)| *sum += error * i32::from(v >> 8));
        }
    }
}

/// `N` rows at a time, as often as there are so many; returns how many that were.
fn several<const N: usize>(rows: &[i16], features: &[i8], zero_point: i32, bias_input: i32, sums: &mut [i32]) -> usize {
    let width = features.len() + 1;
    let (groups, _) = sums.as_chunks_mut::<N>();
    for (sums, rows) in groups.iter_mut().zip(rows.chunks_exact(N * width)) {
        let rows: [&[i16]; N] = core::array::from_fn(|row| &rows[row * width..][..width]);
        let (pairs, few) = features.as_chunks::<2>();
        let weights = rows.map(|row| &row.as_bytes().as_chunks::<4>().0[..pairs.len()]);
        let mut total = rows.map(|row| i32::from(row[features.len()] >> 8) * bias_input);
        for (index, pair) in pairs.iter().enumerate() {
            let (first, second) = (i32::from(pair[0]) - zero_point, i32::from(pair[1]) - zero_point);
            for (total, weights) in total.iter_mut().zip(&weights) {
                *total += i32::from(weights[index][1] as i8) * first;
                *total += i32::from(weights[index][3] as i8) * second;
            }
        }
        for (index, &q) in (2 * pairs.len()..).zip(few) {
            for (total, row) in total.iter_mut().zip(&rows) {
                *total += i32::from(row[index] >> 8) * (i32::from(q) - zero_point);
            }
        }
        *sums = total;
    }
    groups.len() * N
}

/// `v -= (gradient * x + half) >> shift` in every row [features + 1] with a gradient, x being `q - zero_point` or the bias input, for
/// weights that cannot leave their bounds by it.
pub(super) fn descend(
    rows: &mut [i16],
    features: &[i8],
    zero_point: i32,
    bias_input: i32,
    gradients: &[i32],
    shift: u32,
) {
    let width = features.len() + 1;
    let constants = |gradient: i32| (1 << (shift - 1)) - gradient * zero_point;
    let bias_input = bias_input + zero_point;
    let mut waiting = None;
    for (class, &gradient) in gradients.iter().enumerate() {
        if gradient == 0 {
            continue;
        }
        let Some((first, other)) = waiting.take() else {
            waiting = Some((class, gradient));
            continue;
        };
        let (before, row) = rows.split_at_mut(class * width);
        let steps = [(other, constants(other)), (gradient, constants(gradient))];
        two([&mut before[first * width..][..width], &mut row[..width]], features, bias_input, steps, shift);
    }
    if let Some((class, gradient)) = waiting {
        one(&mut rows[class * width..][..width], features, bias_input, (gradient, constants(gradient)), shift);
    }
}

/// `v - ((gradient * q + constant) >> shift)`.
#[inline(always)]
fn moved(v: i16, q: i32, (gradient, constant): (i32, i32), shift: u32) -> i16 {
    v.wrapping_sub(((gradient * q + constant) >> shift) as i16)
}

/// One row of [`descend`]; `bias_input` is that of q.
fn one(row: &mut [i16], features: &[i8], bias_input: i32, step: (i32, i32), shift: u32) {
    let (bias, row) = row.split_last_mut().expect("a row has one weight more than features");
    *bias = moved(*bias, bias_input, step, shift);
    let (weights, few_weights) = row.as_chunks_mut::<4>();
    let (quads, few) = features.as_chunks::<4>();
    for (weights, features) in weights.iter_mut().zip(quads) {
        weights.iter_mut().zip(features).for_each(|(v, &q)| *v = moved(*v, q.into(), step, shift));
    }
    few_weights.iter_mut().zip(few).for_each(|(v, &q)| *v = moved(*v, q.into(), step, shift));
}

/// Two rows of [`descend`], which share the inputs. Not inlined, and no more at once: LLVM would spill.
#[inline(never)]
fn two(rows: [&mut [i16]; 2], features: &[i8], bias_input: i32, steps: [(i32, i32); 2], shift: u32) {
    let [first, second] = rows;
    let (first_bias, first) = first.split_last_mut().expect("a row has one weight more than features");
    let (second_bias, second) = second.split_last_mut().expect("a row has one weight more than features");
    *first_bias = moved(*first_bias, bias_input, steps[0], shift);
    *second_bias = moved(*second_bias, bias_input, steps[1], shift);
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

/// [`descend`], each weight kept within its bounds; returns the largest |V| of the rows with a gradient.
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
pub(super) fn largest(row: &[i16]) -> i32 {
    let (low, high) = row.iter().fold((i16::MAX, i16::MIN), |(low, high), &stored| (stored.min(low), stored.max(high)));
    (128 - i32::from(low)).max(i32::from(high) - 128)
}
