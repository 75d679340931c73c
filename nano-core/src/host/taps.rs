//! Depthwise convolution of int8, requantized: rows of outputs, all channels of a pixel after each other.

use alloc::vec::Vec;

use super::processor::{Instructions, Lanes, MOST_LANES};
use super::rows::size;
use crate::kernels::{Channel, Requantization};

/// The weights of all taps for the outputs of a step: [`Taps::WIDTH`] consecutive elements of a row.
struct Step {
    /// `[group of taps][vector][word]`.
    words: Vec<i32>,
    /// For each vector, the biases of its lanes, their mantissas, addends and shifts.
    vectors: [[[i32; MOST_LANES]; 4]; 4],
    /// The channels, in the order of the elements.
    channels: Vec<usize>,
}

/// A depthwise convolution for the processor.
pub(crate) struct Taps<I: Instructions> {
    /// As many as differ: after those, the channels repeat.
    steps: Vec<Step>,
    channels: Vec<Channel>,
    /// Where the taps are, in bytes from the first; filled up to whole groups.
    offsets: Vec<usize>,
    requantization: Requantization,
    instructions: core::marker::PhantomData<I>,
}

impl<I: Instructions> Taps<I> {
    /// Elements of a step.
    const WIDTH: usize = I::GROUP * I::LANES;

    /// The convolution with `[channel][tap]` weights and the taps' offsets.
    pub(crate) fn new(
        channels: &[Channel],
        requantization: Requantization,
        weights: &[i8],
        mut offsets: Vec<usize>,
    ) -> Self {
        let (count, taps) = (channels.len(), offsets.len());
        offsets.resize(taps.next_multiple_of(I::GROUP), offsets[taps - 1]);
        let weight = |channel: usize, tap: usize| if tap < taps { weights[channel * taps + tap] } else { 0 };
        let steps = count / greatest_common_divisor(count, Self::WIDTH);
        let steps = (0..steps).map(|step| {
            let of_step: Vec<_> = (0..Self::WIDTH).map(|index| (step * Self::WIDTH + index) % count).collect();
            let mut words = Vec::with_capacity(offsets.len() / I::GROUP * Self::WIDTH);
            let mut vectors = [[[0; MOST_LANES]; 4]; 4];
            for group in (0..offsets.len()).step_by(I::GROUP) {
                for vector in 0..I::GROUP {
                    words.extend((0..I::LANES).map(|word| {
                        let channel = of_step[I::place(vector, word)];
                        I::word(|index| weight(channel, group + index))
                    }));
                }
            }
            for (vector, lanes) in vectors.iter_mut().enumerate().take(I::GROUP) {
                for word in 0..I::LANES {
                    let index = of_step[I::place(vector, word)];
                    let (channel, weights) = (&channels[index], &weights[index * taps..][..taps]);
                    let record = I::record(channel, weights);
                    for (lanes, number) in lanes.iter_mut().zip(record) {
                        lanes[word] = number;
                    }
                }
            }
            Step { words, vectors, channels: of_step }
        });
        Taps {
            steps: steps.collect(),
            channels: channels.to_vec(),
            offsets,
            requantization,
            instructions: core::marker::PhantomData,
        }
    }

    /// Bytes from a row's first input to where the last one read ends.
    fn reach(&self, outputs: usize) -> usize {
        let last = self.offsets.iter().copied().max().unwrap_or(0);
        last + outputs.next_multiple_of(Self::WIDTH) * size::<I>()
    }

    /// Computes a row of outputs from the inputs of its first tap on.
    ///
    /// # Safety
    /// The processor has the instructions.
    #[inline(always)]
    pub(crate) unsafe fn row(&self, inputs: &[u8], output: &mut [i8]) {
        assert!(self.reach(output.len()) <= inputs.len(), "the taps reach past the inputs");
        let mut steps = self.steps.iter().cycle();
        let mut first = 0;
        for output in output.chunks_mut(Self::WIDTH) {
            let Some(step) = steps.next() else { return };
            // SAFETY: all that is read was checked above.
            unsafe { self.step(step, inputs.as_ptr().wrapping_add(first * size::<I>()), output) };
            first += Self::WIDTH;
        }
    }

    #[inline(always)]
    unsafe fn step(&self, step: &Step, inputs: *const u8, output: &mut [i8]) {
        // SAFETY: the caller's.
        unsafe {
            let mut sums = [I::load(step.vectors[0][0].as_ptr()); 4];
            for (sum, [biases, ..]) in sums.iter_mut().zip(&step.vectors).take(I::GROUP) {
                *sum = I::load(biases.as_ptr());
            }
            let mut words = step.words.as_ptr();
            for group in self.offsets.chunks_exact(I::GROUP) {
                let rows = core::array::from_fn(|index| inputs.wrapping_add(group[index % I::GROUP]));
                let inputs = I::interleave(rows);
                for (sum, inputs) in sums.iter_mut().zip(inputs).take(I::GROUP) {
                    *sum = I::multiply_add(*sum, inputs, I::load(words));
                    words = words.wrapping_add(I::LANES);
                }
            }
            if self.requantization.is_one_pass() {
                // Not by `map`, which is not inlined, and knows no vectors.
                let [a, b, c, d] = &step.vectors;
                let lanes = [
                    Lanes::load([&a[1], &a[2], &a[3]]),
                    Lanes::load([&b[1], &b[2], &b[3]]),
                    Lanes::load([&c[1], &c[2], &c[3]]),
                    Lanes::load([&d[1], &d[2], &d[3]]),
                ];
                let clamp = self.requantization.clamp_of_int8();
                I::requantize_interleaved(sums, &lanes, clamp, output.as_mut_ptr(), output.len());
                return;
            }
            for (vector, sum) in sums.into_iter().enumerate().take(I::GROUP) {
                let mut words = [0; MOST_LANES];
                I::store(sum, words.as_mut_ptr());
                for (word, sum) in words.into_iter().enumerate().take(I::LANES) {
                    let place = I::place(vector, word);
                    if let Some(output) = output.get_mut(place) {
                        *output = self.requantization.apply(&self.channels[step.channels[place]], sum);
                    }
                }
            }
        }
    }
}

fn greatest_common_divisor(mut a: usize, mut b: usize) -> usize {
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a
}
