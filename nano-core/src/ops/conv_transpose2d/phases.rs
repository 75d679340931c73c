//! The phases of a transposed convolution: the outputs whose positions are equal modulo the stride.

use crate::operator::nonzero;
use crate::ops::window::{Axis, Window};

/// One phase along one axis: the outputs `first + stride * index`, and the taps that reach them.
#[derive(Clone, Copy)]
pub(super) struct Phase {
    pub(super) first: usize,
    /// The first tap, and the distance from one tap to the next. A phase without taps has one tap, after the kernel's end.
    #[cfg(feature = "alloc")]
    pub(super) first_tap: usize,
    #[cfg(feature = "alloc")]
    pub(super) tap_step: usize,
    pub(super) taps: usize,
    /// The input that the first output reads under the first tap, and the distance back to that of the next tap.
    pub(super) input: i32,
    pub(super) input_step: i32,
}

impl Phase {
    pub(super) fn new(axis: &Axis, first: usize) -> Phase {
        let &Axis { kernel, stride, dilation, before, .. } = axis;
        let divisor = greatest_common_divisor(stride as u32, dilation as u32) as i32;
        let divided = |number: i32| number.checked_div(divisor).unwrap_or(0);
        let tap_step = divided(stride);
        let place = first as i32 + before;
        let reaches = |&tap: &i32| (place - tap * dilation).checked_rem(stride) == Some(0);
        let first_tap = (0..tap_step.min(kernel)).find(reaches);
        let tap = first_tap.unwrap_or(kernel);
        Phase {
            first,
            #[cfg(feature = "alloc")]
            first_tap: tap as usize,
            #[cfg(feature = "alloc")]
            tap_step: tap_step as usize,
            taps: ((kernel - tap) as usize).div_ceil(nonzero(tap_step as usize)).max(1),
            input: (place - tap * dilation).div_euclid(stride.max(1)),
            input_step: divided(dilation),
        }
    }

    /// The largest number of taps of a phase of the axis: that of a phase that has the first tap.
    pub(super) fn most_taps(axis: &Axis) -> usize {
        let divisor = greatest_common_divisor(axis.stride as u32, axis.dilation as u32);
        let tap_step = (axis.stride as u32).checked_div(divisor).unwrap_or(1);
        (axis.kernel as usize).div_ceil(nonzero(tap_step as usize))
    }

    /// Outputs of the phase, of `all` along the axis.
    pub(super) fn outputs(&self, all: usize, stride: i32) -> usize {
        all.saturating_sub(self.first).div_ceil(nonzero(stride as usize))
    }

    /// The input that output `first + stride * index` reads under tap number `tap` of the phase; outside the input where no input reaches the tap.
    pub(super) fn input_at(&self, index: usize, tap: usize) -> i32 {
        index as i32 + self.input - tap as i32 * self.input_step
    }
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    match a.checked_rem(b) {
        None => a,
        Some(rest) => greatest_common_divisor(b, rest),
    }
}

/// The phases of both axes, row-major.
pub(super) fn phases(window: Window) -> impl Iterator<Item = [Phase; 2]> {
    let (rows, columns) = (window.vertical.stride as usize, window.horizontal.stride as usize);
    (0..rows).flat_map(move |y| {
        let vertical = Phase::new(&window.vertical, y);
        (0..columns).map(move |x| [vertical, Phase::new(&window.horizontal, x)])
    })
}
