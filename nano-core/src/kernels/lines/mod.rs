//! Micro-kernel of depthwise convolutions with small windows: computes lines of outputs, rows or columns, one channel at a time, with all
//! weights in registers.
//!
//! The kernel is input-stationary: each step along the line loads one input from each of the window's lines, and accumulates its products with
//! all weights that use it. So no input is loaded twice for a line of outputs. Lines of the window in the padding are left out: their products
//! are the same for all outputs, and go into the bias. A dilation along the lines makes interleaved lines without dilation.
//!
//! Instructions per output of a 3x3 window, int8: 33.5, two lines at a time 31.5, for lines beside the padding 25.5; per line 30 and per channel
//! and call 60 more.

#[cfg(target_arch = "riscv32")]
#[macro_use]
mod instructions;
mod lane;
#[cfg(target_arch = "riscv32")]
mod rv32im;

use core::num::NonZero;
use core::ops::Range;

use super::accumulate::ChannelRecord;
use super::requantize::Requantization;
use crate::operator::{nonzero, unchecked};
use lane::Lane;

/// The convolution's geometry in one direction: along the lines, or across them.
#[derive(Clone, Copy)]
pub(crate) struct Side {
    /// Taps of the window.
    pub(crate) taps: usize,
    /// Inputs, and elements from one to the next.
    pub(crate) inputs: usize,
    pub(crate) input_step: usize,
    /// Outputs, and elements from one to the next.
    pub(crate) outputs: usize,
    pub(crate) output_step: usize,
    /// The stride, and the padding before the first input, both in inputs.
    pub(crate) stride: usize,
    pub(crate) before: usize,
    /// The dilation, in inputs.
    pub(crate) dilation: usize,
}

/// The geometry of a layer that is computed line by line.
pub(crate) struct Lines {
    /// [`Side::is_line`] holds.
    pub(crate) along: Side,
    /// [`Side::is_across_lines`] holds.
    pub(crate) across: Side,
    /// The value of the padding: the input's zero point.
    pub(crate) zero: i32,
}

impl Side {
    /// Whether there is an inner loop for this direction along the lines: 3 taps with stride 1 or 2, or 2 taps with stride 1; only the first and
    /// the last output may see the padding, by one tap.
    pub(crate) fn is_line(&self) -> bool {
        let shape = matches!((self.taps, self.stride), (3, 1 | 2) | (2, 1));
        shape
            && (self.stride == 1 || self.dilation == 1)
            && self.before <= self.dilation
            && (0..self.dilation.min(self.outputs)).all(|phase| {
                let side = self.phase(phase).1;
                // Of the last output: the inputs from the first one to its last tap, less those that exist.
                let after = ((side.outputs - 1) * side.stride + side.taps).saturating_sub(side.before + side.inputs);
                side.inputs >= 1 && side.before <= 1 && after <= 1
            })
    }

    /// Whether there is an inner loop for this direction across the lines: 1 to 3 taps, or 1 to 2 beside 2 taps along the lines; of which each
    /// output sees at least one.
    pub(crate) fn is_across_lines(&self, along: &Side) -> bool {
        // As taps are at most the input's length apart, no window between the first and the last skips the input.
        let dense = self.taps == 1 || self.dilation <= self.inputs;
        let covered = [0, self.outputs - 1].into_iter().all(|output| !self.inside(output).is_empty());
        (1..=along.taps).contains(&self.taps) && dense && covered
    }

    /// Every `dilation`-th output, from output `phase` on, as a side without dilation; with the index of its first input.
    fn phase(&self, phase: usize) -> (usize, Side) {
        let Side { dilation, before, .. } = *self;
        let dilation = nonzero(dilation);
        let missing = before.saturating_sub(phase).div_ceil(dilation);
        let first = phase + missing * dilation - before;
        let side = Side {
            inputs: self.inputs.saturating_sub(first).div_ceil(dilation),
            input_step: self.input_step * dilation,
            outputs: self.outputs.saturating_sub(phase).div_ceil(dilation),
            output_step: self.output_step * dilation,
            before: missing,
            dilation: 1,
            ..*self
        };
        (first, side)
    }

    /// The taps of an output's window that lie inside the input.
    fn inside(&self, output: usize) -> Range<usize> {
        let start = output * self.stride;
        let dilation = nonzero(self.dilation);
        let first = self.before.saturating_sub(start).div_ceil(dilation);
        let end = (self.inputs + self.before).saturating_sub(start).div_ceil(dilation);
        first..end.min(self.taps)
    }
}

impl Lines {
    /// Computes all channels of a layer, of which the `multiplier` next to each other read the same input channel, from their weights,
    /// `[channel][line][tap]`.
    ///
    /// # Panics
    /// If the lines do not lie inside `input` and `output`.
    #[inline(never)]
    pub(crate) fn run<C: ChannelRecord>(
        &self,
        (channels, multiplier): (&[C], NonZero<usize>),
        weights: &[i8],
        requantization: Requantization,
        input: &[C::Element],
        output: &mut [C::Element],
    ) {
        let (along, across) = (&self.along, &self.across);
        let last = (across.inputs - 1) * across.input_step + (along.inputs - 1) * along.input_step;
        let inputs = input.len() >= last + channels.len().div_ceil(multiplier.get());
        let last = (across.outputs - 1) * across.output_step + (along.outputs - 1) * along.output_step;
        let area = across.taps * along.taps;
        if !(inputs && output.len() >= last + channels.len() && weights.len() == channels.len() * area) {
            unchecked();
        }
        for phase in 0..along.dilation.min(along.outputs) {
            let (first, side) = along.phase(phase);
            let input = input.as_ptr().wrapping_add(first * along.input_step);
            let output = output.as_mut_ptr().wrapping_add(phase * along.output_step);
            // All channels at once, or one after the other.
            let together = if multiplier.get() == 1 { channels.len() } else { 1 };
            for (index, channels) in channels.chunks(nonzero(together)).enumerate() {
                let (input, output) = (input.wrapping_add(index / multiplier), output.wrapping_add(index));
                // SAFETY: the lines lie inside the slices, and each channel has its weights, see above.
                unsafe {
                    let weights = weights.as_ptr().add(index * area);
                    self.run_phase(&side, channels, weights, requantization, input, output);
                }
            }
        }
    }

    /// # Safety
    /// The lines, `along` of which has no dilation, must lie in memory that may be read and written.
    // Not inlined: the caller's operands would take registers, 6 instructions more per channel and call of an inner loop.
    #[inline(never)]
    unsafe fn run_phase<C: ChannelRecord>(
        &self,
        along: &Side,
        channels: &[C],
        weights: *const i8,
        requantization: Requantization,
        input: *const C::Element,
        output: *mut C::Element,
    ) {
        let across = &self.across;
        for Together { line, inside, calls, rows } in self.together(along) {
            let window = inside.len();
            let mut lane = Lane::new(along, across, (window, rows), requantization, self.zero);
            let start = (line * across.stride + inside.start * across.dilation).wrapping_sub(across.before);
            let from = input.wrapping_add(start * across.input_step);
            let to = output.wrapping_add(line * across.output_step);
            for (index, channel) in channels.iter().enumerate() {
                // SAFETY: `weights` has as many for each channel.
                unsafe {
                    lane.set(channel, weights.add(index * across.taps * along.taps), &inside, across.taps, along.taps)
                };
                let (from, to) = (from.wrapping_add(index), to.wrapping_add(index));
                // SAFETY: what the caller promises.
                unsafe {
                    match (window, along.taps, along.stride) {
                        (3, _, 1) if rows == 2 => lane.run_pairs(calls, from, to),
                        (3, _, 1) => lane.run::<3, 3, 1>(calls, from, to),
                        (2, 3, 1) => lane.run::<2, 3, 1>(calls, from, to),
                        (1, 3, 1) => lane.run::<1, 3, 1>(calls, from, to),
                        (3, _, _) => lane.run::<3, 3, 2>(calls, from, to),
                        (2, 3, _) => lane.run::<2, 3, 2>(calls, from, to),
                        (1, 3, _) => lane.run::<1, 3, 2>(calls, from, to),
                        (2, ..) => lane.run::<2, 2, 1>(calls, from, to),
                        _ => lane.run::<1, 2, 1>(calls, from, to),
                    }
                }
            }
        }
    }

    /// The parts of the lines that one call of an inner loop computes.
    fn together(&self, along: &Side) -> impl Iterator<Item = Together> {
        let (across, strides) = (self.across, along.stride * self.across.stride * self.across.dilation);
        let mut line = 0;
        core::iter::from_fn(move || {
            if line >= across.outputs {
                return None;
            }
            let inside = across.inside(line);
            let same = (line + 1..across.outputs).take_while(|&line| across.inside(line) == inside);
            let count = 1 + same.count();
            let rows = if inside.len() == 3 && strides == 1 && count > 1 { 2 } else { 1 };
            let together = Together { line, inside, calls: count / rows, rows };
            line += together.calls * rows;
            Some(together)
        })
    }

    /// The estimate for all channels, within 3 % of the emulator's count for layers of more than 100 outputs. Of an output's stalls, 4 are the high
    /// multiplication's, and a negative one of two takes two branches.
    #[cfg(feature = "alloc")]
    pub(crate) fn cost(&self, channels: usize) -> crate::image::Cost {
        let (mut instructions, mut stalls) = (0, 0);
        for phase in 0..self.along.dilation.min(self.along.outputs) {
            let (_, along) = self.along.phase(phase);
            for Together { inside, calls, rows, .. } in self.together(&along) {
                let (window, taps) = (inside.len(), along.taps);
                // In half instructions: inputs with their pointer, products, requantization, the loop.
                let output = match rows {
                    2 => 61,
                    _ => {
                        4 * window * along.stride
                            + 4 * window * taps
                            + 15
                            + if taps == 3 && along.stride == 1 { 1 } else { 2 }
                    }
                };
                let warm =
                    if taps == 3 && along.stride == 1 { 6 * window } else { 0 } + 4 * window * (1 - along.before);
                let partial = if window < self.across.taps { 12 } else { 0 };
                let outputs = calls * rows * along.outputs;
                instructions += outputs * output / 2 + calls * (37 + rows * warm) + 48 + 4 * window * taps + partial;
                stalls += outputs * 8 + calls * 15 + 20;
            }
        }
        let [instructions, stalls] = [instructions, stalls].map(|each| (each * channels) as u64);
        crate::image::Cost { instructions: instructions + 1000, stalls: stalls + 300 }
    }
}

/// Lines that one call computes: from line `line` on, `calls` times `rows` lines, whose windows have the taps `inside` inside the input.
struct Together {
    line: usize,
    inside: Range<usize>,
    calls: usize,
    rows: usize,
}
