//! Packed storage of a symmetric matrix: its upper triangle, row by row.

use core::iter;
use core::num::NonZero;

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

/// Column `index` above the diagonal.
pub(super) fn column<T>(triangle: &[T], side: NonZero<usize>, index: usize) -> impl Iterator<Item = &T> {
    (1..side.get()).rev().scan(index, |place, step| {
        let element = triangle.get(*place);
        *place += step;
        element
    })
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
        for side in 1..6 {
            let matrix = |i: usize, j: usize| 10 * i.min(j) + i.max(j);
            let mut triangle: Vec<usize> = (0..side).flat_map(|i| (i..side).map(move |j| matrix(i, j))).collect();
            assert_eq!(triangle.len(), length(side));
            let nonzero = NonZero::new(side).unwrap();
            assert!(diagonal(&triangle, nonzero).copied().eq((0..side).map(|i| matrix(i, i))));
            for (i, row) in rows(&triangle, nonzero).enumerate() {
                let above = column(&triangle, nonzero, i).take(i).chain(row).copied();
                assert!(above.eq((0..side).map(|j| matrix(i, j))), "row {i} of {side}");
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
