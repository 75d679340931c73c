//! Fully connected micro-kernel (matrix-vector product): `N` output channels at a time.

use super::multiply_accumulate;
use crate::image::Element;
use crate::operator::CheckedPart;

/// Adds `inputs` times `weights` (`[input][channel]`) to the `N` channels' sums.
#[inline(always)]
pub(crate) fn add_rows<T: Element, const N: usize>(sums: &mut [i32; N], inputs: &[T], weights: &[[i8; N]]) {
    let (fours, rest) = inputs.as_chunks::<4>();
    let (weights_of_fours, weights_of_rest) = weights.split_at_checked(4 * fours.len()).checked_part();
    let mut add = |x: T, weights: &[i8; N]| {
        for (sum, &weight) in sums.iter_mut().zip(weights) {
            *sum = multiply_accumulate(*sum, x.into(), weight.into());
        }
    };
    for (inputs, weights) in fours.iter().zip(weights_of_fours.as_chunks::<4>().0) {
        add(inputs[0], &weights[0]);
        add(inputs[1], &weights[1]);
        add(inputs[2], &weights[2]);
        add(inputs[3], &weights[3]);
    }
    for (&x, weights) in rest.iter().zip(weights_of_rest) {
        add(x, weights);
    }
}
