//! One channel's lines of outputs: the parameters that the inner loops read, and the portable inner loop, which defines the result.

use core::ops::Range;

use super::Side;
use crate::kernels::Requantization;
use crate::kernels::accumulate::ChannelRecord;

/// One channel's parameters, for lines whose windows have the same lines inside the input. Steps and lengths are in bytes.
pub(super) struct Lane<C> {
    /// From an input of one of the window's lines to that of its next line; and from its last line's to the first line's next input.
    pub(super) line: usize,
    pub(super) back: usize,
    /// From one output to the next; and, of two lines that are computed together, from the first line's output to the second's.
    pub(super) output_step: usize,
    pub(super) output_line: usize,
    /// Of the first line's inputs from the first to the last step that makes an output.
    pub(super) length: usize,
    /// From where a line ends to where the next begins.
    pub(super) next_input: usize,
    pub(super) next_output: usize,
    /// 1 if a line's first tap has inputs, 0 if it is in the padding.
    pub(super) inputs_before: usize,
    /// 1 if a line's last tap is in the padding, 0 if it has inputs.
    pub(super) padding_after: usize,
    /// 1 if the number of steps that make outputs is odd.
    #[cfg(target_arch = "riscv32")]
    pub(super) odd: usize,
    pub(super) requantization: Requantization,
    /// The value of the padding: the input's zero point.
    pub(super) zero: i32,
    /// The channel's bias plus the products of the window's lines in the padding.
    pub(super) bias: i32,
    pub(super) channel: C,
    /// `[line][tap]`, of the window's lines inside the input.
    pub(super) weights: *const i8,
}

impl<C: ChannelRecord> Lane<C> {
    /// The parameters of lines with `window` lines of inputs inside the input, `rows` of which are computed together.
    pub(super) fn new(
        along: &Side,
        across: &Side,
        (window, rows): (usize, usize),
        requantization: Requantization,
        zero: i32,
    ) -> Self {
        let size = size_of::<C::Element>();
        let Side { taps, inputs, input_step, outputs, output_step, stride, before, .. } = *along;
        let padding_after = usize::from((outputs - 1) * stride + taps > before + inputs);
        let inputs_before = 1 - before;
        let steps = (outputs - padding_after) * stride;
        // Before the steps that make outputs, and, with stride 2, after them.
        let others = inputs_before + (stride == 1) as usize * (taps - 2) + (stride - 1) * padding_after;
        let line = across.dilation * across.input_step;
        let next_input = (rows * across.stride * across.input_step).wrapping_sub((others + steps) * input_step);
        let next_output = (rows * across.output_step).wrapping_sub(outputs * output_step);
        Lane {
            line: size * line,
            back: input_step.wrapping_sub((window + rows - 2) * line).wrapping_mul(size),
            output_step: size * output_step,
            output_line: size * across.output_step,
            length: size * steps * input_step,
            next_input: next_input.wrapping_mul(size),
            next_output: next_output.wrapping_mul(size),
            inputs_before,
            padding_after,
            #[cfg(target_arch = "riscv32")]
            odd: steps % 2,
            requantization,
            zero,
            bias: 0,
            channel: C::default(),
            weights: core::ptr::null(),
        }
    }

    /// Selects a channel with its weights `[line][tap]`, of whose lines those of `inside` lie inside the input.
    ///
    /// # Safety
    /// `weights` must be readable.
    #[inline(always)]
    pub(super) unsafe fn set(
        &mut self,
        channel: &C,
        weights: *const i8,
        inside: &Range<usize>,
        lines: usize,
        taps: usize,
    ) {
        self.channel = *channel;
        self.bias = channel.narrow_bias();
        self.weights = weights.wrapping_add(inside.start * taps);
        if inside.len() < lines {
            // SAFETY: what the caller promises.
            let weight = |index: usize| i32::from(unsafe { *weights.add(index) });
            let padding = (0..inside.start * taps).chain(inside.end * taps..lines * taps);
            self.bias += self.zero * padding.map(weight).sum::<i32>();
        }
    }

    /// Computes `lines` lines one after the other, each from `LINES` lines of inputs and with `TAPS` taps along them. The first one's inputs
    /// begin at `input`, its outputs at `output`.
    ///
    /// # Safety
    /// All lines must lie in memory that may be read and written, and the weights must be readable.
    #[cfg(not(target_arch = "riscv32"))]
    pub(super) unsafe fn run<const LINES: usize, const TAPS: usize, const STRIDE: usize>(
        &self,
        lines: usize,
        mut input: *const C::Element,
        mut output: *mut C::Element,
    ) {
        // SAFETY: what the caller promises.
        let weights = |tap: usize, line: usize| i32::from(unsafe { *self.weights.add(line * TAPS + tap) });
        let sum_of = |tap: usize| (0..LINES).map(|line| weights(tap, line)).sum::<i32>();
        let first = self.bias + if self.inputs_before == 0 { self.zero * sum_of(0) } else { 0 };
        // The next step's inputs, times the weights of each tap.
        let step = self.back.wrapping_add((LINES - 1).wrapping_mul(self.line));
        let dots = |input: &mut *const C::Element| {
            let inputs: [i32; LINES] = core::array::from_fn(|line| {
                // SAFETY: a step that has inputs.
                unsafe { *input.wrapping_byte_add(line.wrapping_mul(self.line)) }.into()
            });
            *input = input.wrapping_byte_add(step);
            core::array::from_fn::<i32, TAPS, _>(|tap| {
                inputs.iter().enumerate().map(|(line, x)| x * weights(tap, line)).sum()
            })
        };
        let store = |output: &mut *mut C::Element, sum: i32| {
            // SAFETY: one of the line's outputs.
            unsafe { **output = self.requantization.apply_as::<C::OnePass>(&self.channel, sum) };
            *output = output.wrapping_byte_add(self.output_step);
        };
        for _ in 0..lines {
            // Partial sums of the next output and of those after it.
            let mut sums = [self.bias; TAPS];
            sums[0] = first;
            if self.inputs_before == 1 {
                sums[0] += dots(&mut input)[0];
            }
            if STRIDE == 1 {
                for known in 1..TAPS - 1 {
                    let dots = dots(&mut input);
                    (0..=known).for_each(|index| sums[index] += dots[known - index]);
                }
            }
            let end = input.wrapping_byte_add(self.length);
            while input != end {
                if STRIDE == 2 {
                    sums[0] += dots(&mut input)[1];
                }
                let dots = dots(&mut input);
                store(&mut output, sums[0] + dots[TAPS - 1]);
                if STRIDE == 2 {
                    sums[0] = self.bias + dots[0];
                } else {
                    for index in 1..TAPS {
                        sums[index - 1] = sums[index] + dots[TAPS - 1 - index];
                    }
                    sums[TAPS - 1] = self.bias;
                }
            }
            if self.padding_after == 1 {
                if STRIDE == 2 {
                    sums[0] += dots(&mut input)[1];
                }
                store(&mut output, sums[0] + self.zero * sum_of(TAPS - 1));
            }
            input = input.wrapping_byte_add(self.next_input);
            output = output.wrapping_byte_add(self.next_output);
        }
    }

    /// As [`Lane::run`] with 3 lines, 3 taps and stride 1, but two lines at a time, `pairs` times: four lines of inputs are loaded for both.
    ///
    /// # Safety
    /// As there.
    #[cfg(not(target_arch = "riscv32"))]
    pub(super) unsafe fn run_pairs(&self, pairs: usize, input: *const C::Element, output: *mut C::Element) {
        let step = self.back.wrapping_add(self.line.wrapping_mul(3));
        let single = Lane { back: step.wrapping_sub(self.line.wrapping_mul(2)), ..*self };
        let outputs = self.length.checked_div(step).unwrap_or(0) + self.padding_after;
        let walked = self.length.wrapping_add((1 + self.inputs_before).wrapping_mul(step));
        for pair in 0..pairs {
            let from = input.wrapping_byte_add(pair.wrapping_mul(walked.wrapping_add(self.next_input)));
            let line = outputs.wrapping_mul(self.output_step).wrapping_add(self.next_output);
            let to = output.wrapping_byte_add(pair.wrapping_mul(line));
            // SAFETY: what the caller promises.
            unsafe {
                single.run::<3, 3, 1>(1, from, to);
                single.run::<3, 3, 1>(1, from.wrapping_byte_add(self.line), to.wrapping_byte_add(self.output_line));
            }
        }
    }
}
