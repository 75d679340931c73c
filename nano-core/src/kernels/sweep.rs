//! One channel along a line of outputs: the depthwise 3x3 convolution.
//!
//! A line runs down a column or along a row. Each step of it brings three inputs, one for each of the window's lines, which are
//! multiplied with all weights that they will ever meet: no input is loaded twice, and the weights stay in registers.

use super::requantize::{Channel, OnePass, Requantization};
use super::tile::LANES;

/// Where a layer's lines have their inputs and outputs.
pub(crate) struct Lines {
    /// Steps from one output to the next: 1 or 2.
    pub(crate) stride: usize,
    /// Steps in the padding before the first input: 0 or 1.
    pub(crate) before: usize,
    /// Steps that have inputs, at least 3.
    pub(crate) inputs: usize,
    /// Bytes from one step's inputs to the next's.
    pub(crate) input_step: usize,
    /// Outputs of a line; the window of the last one alone may end in the padding, with one step.
    pub(crate) outputs: usize,
    /// Bytes from one output to the next.
    pub(crate) output_step: usize,
    /// What the padding counts as.
    pub(crate) zero: i32,
}

/// Packed weights of four channels, `[3 * step + line][channel]`.
pub(crate) type Block = [[i8; LANES]; 9];

impl Lines {
    /// Computes one line in all `channels`. The first channel's inputs begin at `starts` in `input` (`None`: a line in the padding),
    /// its outputs begin `output`.
    #[inline(never)]
    pub(crate) fn run(
        &self,
        channels: &[Channel],
        weights: &[Block],
        requantization: Requantization,
        input: &[i8],
        starts: [Option<usize>; 3],
        output: &mut [i8],
    ) {
        let last = (self.inputs - 1) * self.input_step + channels.len();
        let output = &mut output[..(self.outputs - 1) * self.output_step + channels.len()];
        // A line in the padding reads another, with weights of 0.
        let pointers = starts.map(|start| input[start.unwrap_or(0)..][..last].as_ptr());
        // Outputs that see only inputs, from their second (stride 2) or third step on.
        let count = (self.inputs + self.before - (3 - self.stride)) / self.stride;
        for (index, channel) in channels.iter().enumerate() {
            let block = &weights[index / LANES];
            let weight = |step: usize, line: usize| i32::from(block[3 * step + line][index % LANES]);
            let mut weights = [0, 1, 2].map(|step| [0, 1, 2].map(|line| weight(step, line)));
            let mut bias = channel.bias;
            for (line, start) in starts.iter().enumerate() {
                if start.is_none() {
                    for weights in &mut weights {
                        bias += self.zero * weights[line];
                        weights[line] = 0;
                    }
                }
            }
            let padding = |step: usize| self.zero * (weights[step][0] + weights[step][1] + weights[step][2]);
            let pointers = pointers.map(|pointer| pointer.wrapping_add(index));
            let dot = |position: usize, step: usize| {
                let [a, b, c] = pointers.map(|pointer| {
                    // SAFETY: position < inputs and index < channels.len(): inside the slice that the pointer begins. Checks cost
                    // 0.3 instructions per multiply-accumulate where lines have 6 outputs.
                    i32::from(unsafe { *pointer.wrapping_add(position * self.input_step) })
                });
                a * weights[step][0] + b * weights[step][1] + c * weights[step][2]
            };
            // The next output, and the one behind it, as far as their steps have been.
            let mut sums = [bias, bias];
            sums[0] += if self.before == 1 { padding(0) } else { dot(0, 0) };
            let mut position = 1 - self.before;
            if self.stride == 1 {
                sums = [sums[0] + dot(position, 1), bias + dot(position, 0)];
                position += 1;
            }
            let from = pointers.map(|pointer| pointer.wrapping_add(position * self.input_step));
            let to = output[index..].as_mut_ptr();
            // SAFETY: `position + count * stride` is at most `inputs`, and `count` at most `outputs`; see the slices above.
            let mut sum = unsafe { self.run_inside(count, sums, &weights, bias, channel, &requantization, from, to) };
            if count < self.outputs {
                sum += padding(2);
                if self.stride == 2 {
                    sum += dot(self.inputs - 1, 1);
                }
                output[count * self.output_step + index] = requantization.apply_as::<OnePass>(channel, sum);
            }
        }
    }

    /// `count` outputs from inputs alone; returns the next output, as far as its steps have been.
    ///
    /// # Safety
    /// The lines must have inputs for `count * stride` steps, at least one, from `input` on, and room for `count` outputs from `output` on.
    #[cfg(not(target_arch = "riscv32"))]
    #[allow(clippy::too_many_arguments, reason = "all that the loop has in registers")]
    unsafe fn run_inside(
        &self,
        count: usize,
        mut sums: [i32; 2],
        weights: &[[i32; 3]; 3],
        bias: i32,
        channel: &Channel,
        requantization: &Requantization,
        input: [*const i8; 3],
        output: *mut i8,
    ) -> i32 {
        let dot = |position: usize, step: usize| -> i32 {
            // SAFETY: position < count * stride.
            let inputs = input.map(|pointer| i32::from(unsafe { *pointer.add(position * self.input_step) }));
            inputs.iter().zip(weights[step]).map(|(x, weight)| x * weight).sum()
        };
        for index in 0..count {
            let sum = if self.stride == 1 {
                let sum = sums[0] + dot(index, 2);
                sums = [sums[1] + dot(index, 1), bias + dot(index, 0)];
                sum
            } else {
                let sum = sums[0] + dot(2 * index, 1) + dot(2 * index + 1, 2);
                sums[0] = bias + dot(2 * index + 1, 0);
                sum
            };
            // SAFETY: index < count.
            unsafe { *output.add(index * self.output_step) = requantization.apply_as::<OnePass>(channel, sum) };
        }
        sums[0]
    }

    /// The same in the chip's instructions.
    #[cfg(target_arch = "riscv32")]
    #[inline(always)]
    #[allow(clippy::too_many_arguments, reason = "all that the loop has in registers")]
    unsafe fn run_inside(
        &self,
        count: usize,
        [mut sum, next]: [i32; 2],
        weights: &[[i32; 3]; 3],
        bias: i32,
        channel: &Channel,
        requantization: &Requantization,
        input: [*const i8; 3],
        output: *mut i8,
    ) -> i32 {
        let end = input[0].wrapping_add(count * self.stride * self.input_step);
        macro_rules! sweep {
            ([$($steps:literal)+] [$($moves:literal)+] $($operands:tt)*) => {
                core::arch::asm!(
                    "2:",
                    $($steps,)+
                    "slli {sum}, {sum}, 1",
                    "mulhsu {sum}, {sum}, {multiplier}",
                    "slti {t}, {sum}, -1",
                    "slli {t}, {t}, 1",
                    "add {sum}, {sum}, {addend}",
                    "sub {sum}, {sum}, {t}",
                    "sra {sum}, {sum}, {shift}",
                    "bge {sum}, {min}, 3f",
                    "mv {sum}, {min}",
                    "3:",
                    "bge {max}, {sum}, 3f",
                    "mv {sum}, {max}",
                    "3:",
                    "sb {sum}, 0({output})",
                    "add {output}, {output}, {output_step}",
                    $($moves,)+
                    "bne {p0}, {end}, 2b",
                    sum = inout(reg) sum,
                    p0 = inout(reg) input[0] => _,
                    p1 = inout(reg) input[1] => _,
                    p2 = inout(reg) input[2] => _,
                    end = in(reg) end,
                    step = in(reg) self.input_step,
                    w00 = in(reg) weights[0][0], w01 = in(reg) weights[0][1], w02 = in(reg) weights[0][2],
                    w10 = in(reg) weights[1][0], w11 = in(reg) weights[1][1], w12 = in(reg) weights[1][2],
                    w20 = in(reg) weights[2][0], w21 = in(reg) weights[2][1], w22 = in(reg) weights[2][2],
                    bias = in(reg) bias,
                    multiplier = in(reg) channel.multiplier,
                    addend = in(reg) channel.addend,
                    shift = in(reg) channel.shift,
                    min = in(reg) requantization.min,
                    max = in(reg) requantization.max,
                    output = inout(reg) output => _,
                    output_step = in(reg) self.output_step,
                    x = out(reg) _,
                    t = out(reg) _,
                    $($operands)*
                    options(nostack),
                )
            };
        }
        // SAFETY: what the caller promises. From Rust, LLVM spills: 46 instructions per output instead of 38.
        unsafe {
            if self.stride == 1 {
                sweep!(
                    [
                        "lb {x}, 0({p0})\n add {p0}, {p0}, {step}"
                        "mul {t}, {x}, {w20}\n add {sum}, {sum}, {t}"
                        "mul {t}, {x}, {w10}\n add {next}, {next}, {t}"
                        "mul {t}, {x}, {w00}\n add {fresh}, {bias}, {t}"
                        "lb {x}, 0({p1})\n add {p1}, {p1}, {step}"
                        "mul {t}, {x}, {w21}\n add {sum}, {sum}, {t}"
                        "mul {t}, {x}, {w11}\n add {next}, {next}, {t}"
                        "mul {t}, {x}, {w01}\n add {fresh}, {fresh}, {t}"
                        "lb {x}, 0({p2})\n add {p2}, {p2}, {step}"
                        "mul {t}, {x}, {w22}\n add {sum}, {sum}, {t}"
                        "mul {t}, {x}, {w12}\n add {next}, {next}, {t}"
                        "mul {t}, {x}, {w02}\n add {fresh}, {fresh}, {t}"
                    ]
                    ["mv {sum}, {next}" "mv {next}, {fresh}"]
                    next = inout(reg) next => _,
                    fresh = out(reg) _,
                );
            } else {
                sweep!(
                    [
                        "lb {x}, 0({p0})\n add {p0}, {p0}, {step}"
                        "mul {t}, {x}, {w10}\n add {sum}, {sum}, {t}"
                        "lb {x}, 0({p1})\n add {p1}, {p1}, {step}"
                        "mul {t}, {x}, {w11}\n add {sum}, {sum}, {t}"
                        "lb {x}, 0({p2})\n add {p2}, {p2}, {step}"
                        "mul {t}, {x}, {w12}\n add {sum}, {sum}, {t}"
                        "lb {x}, 0({p0})\n add {p0}, {p0}, {step}"
                        "mul {t}, {x}, {w20}\n add {sum}, {sum}, {t}"
                        "mul {t}, {x}, {w00}\n add {next}, {bias}, {t}"
                        "lb {x}, 0({p1})\n add {p1}, {p1}, {step}"
                        "mul {t}, {x}, {w21}\n add {sum}, {sum}, {t}"
                        "mul {t}, {x}, {w01}\n add {next}, {next}, {t}"
                        "lb {x}, 0({p2})\n add {p2}, {p2}, {step}"
                        "mul {t}, {x}, {w22}\n add {sum}, {sum}, {t}"
                        "mul {t}, {x}, {w02}\n add {next}, {next}, {t}"
                    ]
                    ["mv {sum}, {next}"]
                    next = out(reg) _,
                );
            }
        }
        sum
    }
}
