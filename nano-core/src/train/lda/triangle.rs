//! Packed storage of a symmetric matrix: its upper triangle, row by row.

use core::iter;
use core::num::NonZero;

use crate::operator::CheckedPart;

/// Number of elements.
pub(super) const fn length(side: usize) -> usize {
    side * (side + 1) / 2
}

/// The rows.
pub(super) fn rows<T>(mut triangle: &[T], side: NonZero<usize>) -> impl Iterator<Item = &[T]> {
    (1..=side.get()).rev().map_while(move |length| triangle.split_off(..length))
}

/// The rows, mutable.
pub(super) fn rows_mut<T>(mut triangle: &mut [T], side: NonZero<usize>) -> impl Iterator<Item = &mut [T]> {
    (1..=side.get()).rev().map_while(move |length| triangle.split_off_mut(..length))
}

/// The diagonal.
pub(super) fn diagonal<T>(triangle: &[T], side: NonZero<usize>) -> impl Iterator<Item = &T> {
    rows(triangle, side).filter_map(<[T]>::first)
}

/// The diagonal, mutable.
pub(super) fn diagonal_mut<T>(triangle: &mut [T], side: NonZero<usize>) -> impl Iterator<Item = &mut T> {
    rows_mut(triangle, side).filter_map(<[T]>::first_mut)
}

/// The dot product of a part of a row with as many numbers, four at a time: a loop's own instructions are half of a product's.
pub(super) fn dot(row: &[i32], numbers: &[i32]) -> i64 {
    let ((of_row, rest), (fours, others)) = (row.as_chunks::<4>(), numbers.as_chunks::<4>());
    let product = |(&element, &number): (&i32, &i32)| i64::from(element) * i64::from(number);
    let mut sum = 0;
    for (elements, numbers) in of_row.iter().zip(fours) {
        for pair in elements.iter().zip(numbers) {
            sum += product(pair);
        }
    }
    rest.iter().zip(others).fold(sum, |sum, pair| sum + product(pair))
}

/// The dot product of the first elements of column `index`, all of them above the diagonal, with these numbers, four at a time.
pub(super) fn dot_column(triangle: &[i32], side: NonZero<usize>, index: usize, numbers: &[i32]) -> i64 {
    let inside = numbers.len() <= index && index < side.get() && length(side.get()) <= triangle.len();
    let numbers = Some(numbers).filter(|_| inside).checked_part();
    // From an element to the one below it.
    let (mut place, mut step) = (triangle.as_ptr().wrapping_add(index), side.get());
    let mut product = |number: i32| {
        // SAFETY: a row before `index`, each of which has an element in that column, see above. A check per element is 6 % of a commit.
        let element = unsafe { *place };
        step = step.wrapping_sub(1);
        place = place.wrapping_add(step);
        i64::from(element) * i64::from(number)
    };
    let (fours, rest) = numbers.as_chunks::<4>();
    let mut sum = 0;
    for &[a, b, c, d] in fours {
        sum += product(a);
        sum += product(b);
        sum += product(c);
        sum += product(d);
    }
    rest.iter().fold(sum, |sum, &number| sum + product(number))
}

/// The factors of the outer product `x x'`, row by row: `x_i`, and the `x_j` of the row's columns.
pub(super) fn outer<T>(mut x: &[T]) -> impl Iterator<Item = (&T, &[T])> {
    iter::from_fn(move || {
        let columns = x;
        let (factor, rest) = columns.split_first()?;
        x = rest;
        Some((factor, columns))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_upper_half_of_a_symmetric_matrix() {
        for side in 1..12 {
            let matrix = |i: usize, j: usize| 100 * i.min(j) + i.max(j);
            let mut triangle: Vec<usize> = (0..side).flat_map(|i| (i..side).map(move |j| matrix(i, j))).collect();
            assert_eq!(triangle.len(), length(side));
            let nonzero = NonZero::new(side).unwrap();
            assert!(diagonal(&triangle, nonzero).copied().eq((0..side).map(|i| matrix(i, i))));
            for (i, row) in rows(&triangle, nonzero).enumerate() {
                let numbers: Vec<i32> = (0..side as i32).map(|j| 7 - 3 * j * j).collect();
                let signed: Vec<i32> = triangle.iter().map(|&element| element as i32).collect();
                let row: Vec<i32> = row.iter().map(|&element| element as i32).collect();
                let sum = dot_column(&signed, nonzero, i, &numbers[..i]) + dot(&row, &numbers[i..]);
                let expected: i64 = (0..side).map(|j| matrix(i, j) as i64 * i64::from(numbers[j])).sum();
                assert_eq!(sum, expected, "row {i} of {side}");
            }
            let x: Vec<usize> = (1..=side).collect();
            for (row, (&factor, columns)) in rows_mut(&mut triangle, nonzero).zip(outer(&x)) {
                row.iter_mut().zip(columns).for_each(|(element, column)| *element = factor * column);
            }
            let products: Vec<usize> = (1..=side).flat_map(|i| (i..=side).map(move |j| i * j)).collect();
            assert_eq!(triangle, products);
        }
    }
}
