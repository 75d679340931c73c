//! Micro-kernel of the depthwise 3x3 convolution: computes a line of outputs, a row or a column, one channel at a time, with the nine weights in
//! registers.
//!
//! The kernel is input-stationary: each step along the line loads three inputs, one from each of the window's three lines, and accumulates their
//! products with all weights that use them. So no input is loaded twice for a line of outputs.

#[cfg(target_arch = "riscv32")]
use core::mem::offset_of;
use core::ops::Range;

use super::accumulate::ChannelRecord;
use super::requantize::Requantization;
use super::tile::LANES;
#[cfg(target_arch = "riscv32")]
use super::{Channel, WideChannel};
use crate::operator::{Checked, unchecked};

/// The convolution's geometry in one direction: along the lines, or across them.
pub(crate) struct Side {
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
    /// At least 3 inputs, stride 1 or 2, before 0 or 1, dilation 1; only the last output's window may reach into the padding after the
    /// line, by one step.
    pub(crate) along: Side,
    pub(crate) across: Side,
    /// The value of the padding: the input's zero point.
    pub(crate) zero: i32,
}

/// Packed weights of four channels, `[3 * step + line][channel]`.
pub(crate) type Block = [[i8; LANES]; 9];

/// Instructions: loads the next input of one line by `load`; each sum `to` becomes `from` plus the input times a weight.
#[cfg(target_arch = "riscv32")]
macro_rules! step {
    ($load:literal, $pointer:literal, $($weight:literal $from:literal $to:literal),+) => {
        concat!(
            $load, " {x}, 0({", $pointer, "})\n add {", $pointer, "}, {", $pointer, "}, {step}\n",
            $("mul {t}, {x}, {", $weight, "}\n add {", $to, "}, {", $from, "}, {t}\n"),+
        )
    };
}

/// Instructions: the next output of int8 or int16 is [`ChannelRecord::OnePass`] of `sum`.
#[cfg(target_arch = "riscv32")]
macro_rules! requantize {
    (int8) => {
        concat!(
            "slli {sum}, {sum}, 1\n mulhsu {sum}, {sum}, {multiplier}\n",
            "bgez {sum}, 8f\n addi {sum}, {sum}, -2\n 8:\n",
            "add {sum}, {sum}, {addend}\n sra {sum}, {sum}, {shift}\n",
            requantize!(clamp),
            "sb {sum}, 0({output})\n",
        )
    };
    (int16) => {
        concat!(
            "mulh {sum}, {sum}, {multiplier}\n sra {sum}, {sum}, {shift}\n",
            "addi {sum}, {sum}, 1\n srai {sum}, {sum}, 1\n",
            requantize!(clamp),
            "sh {sum}, 0({output})\n",
        )
    };
    (clamp) => {
        concat!("bge {sum}, {min}, 6f\n mv {sum}, {min}\n 6:\n", "bge {max}, {sum}, 7f\n mv {sum}, {max}\n 7:\n",)
    };
}

/// One channel's parameters, for lines whose windows have the same rows (or columns) in the padding.
struct Lane<C> {
    input_step: usize,
    output_step: usize,
    /// Bytes from the first input of the steps that make outputs to the end of the last.
    length: usize,
    /// Bytes from there to the next line's first input, and from the end of the outputs that see no padding after the line to the next
    /// line's first output.
    next_input: usize,
    next_output: usize,
    /// 1 if a line's first step has inputs, 0 if it is in the padding.
    inputs_before: usize,
    /// 1 if a line's last step is in the padding, 0 if it has inputs.
    padding_after: usize,
    requantization: Requantization,
    channel: C,
    /// `[step][line]`
    weights: [[i32; 3]; 3],
    /// The channel's bias plus the products of the window's lines in the padding.
    bias: i32,
    /// The first sum of a line, and the products of its last step if that is in the padding.
    first: i32,
    last: i32,
}

impl<C: ChannelRecord> Lane<C> {
    /// Selects a channel of a block. The weights of the window's lines in the padding become 0, their products go into the bias.
    #[inline(never)]
    fn set(&mut self, channel: &C, block: &Block, index: usize, padding: [bool; 3], zero: i32) {
        let [mut first, mut last, mut all] = [0; 3];
        for (line, padding) in padding.into_iter().enumerate() {
            let mut weights = [0, 3, 6].map(|step| i32::from(block[step + line][index]));
            if padding {
                all += weights.iter().sum::<i32>();
                weights = [0; 3];
            }
            (first, last) = (first + weights[0], last + weights[2]);
            for (lane, weight) in self.weights.iter_mut().zip(weights) {
                lane[line] = weight;
            }
        }
        self.channel = *channel;
        self.bias = channel.narrow_bias() + zero * all;
        self.first = self.bias + if self.inputs_before == 0 { zero * first } else { 0 };
        self.last = zero * last;
    }

    /// Computes `lines` lines. The first one's inputs begin at `input`, its outputs at `output`.
    ///
    /// # Safety
    /// All lines must lie in memory that may be read and written.
    #[cfg(not(target_arch = "riscv32"))]
    unsafe fn run<const STRIDE: usize>(
        &self,
        lines: usize,
        mut input: [*const C::Element; 3],
        mut output: *mut C::Element,
    ) {
        // The next step's inputs, times the weights of each of the window's steps.
        let dots = |input: &mut [*const C::Element; 3]| {
            // SAFETY: a step that has inputs.
            let inputs: [i32; 3] = input.map(|pointer| unsafe { *pointer }.into());
            *input = input.map(|pointer| pointer.wrapping_byte_add(self.input_step));
            self.weights.map(|weights| inputs.iter().zip(weights).map(|(x, weight)| x * weight).sum::<i32>())
        };
        let store = |output: *mut C::Element, sum: i32| {
            // SAFETY: one of the line's outputs.
            unsafe { *output = self.requantization.apply_as::<C::OnePass>(&self.channel, sum) };
        };
        for _ in 0..lines {
            // Partial sums of the next output and of the one after it.
            let (mut sum, mut next) = (self.first, self.bias);
            if self.inputs_before == 1 {
                sum += dots(&mut input)[0];
            }
            let end = input[0].wrapping_byte_add(self.length);
            if STRIDE == 1 {
                let [first, second, _] = dots(&mut input);
                (sum, next) = (sum + second, next + first);
            }
            while input[0] != end {
                if STRIDE == 2 {
                    sum += dots(&mut input)[1];
                }
                let [first, second, third] = dots(&mut input);
                store(output, sum + third);
                output = output.wrapping_byte_add(self.output_step);
                (sum, next) = if STRIDE == 1 { (next + second, self.bias + first) } else { (next + first, next) };
            }
            if self.padding_after == 1 {
                if STRIDE == 2 {
                    sum += dots(&mut { input })[1];
                }
                store(output, sum + self.last);
            }
            input = input.map(|pointer| pointer.wrapping_byte_add(self.next_input));
            output = output.wrapping_byte_add(self.next_output);
        }
    }

    /// The same in rv32im assembly.
    #[cfg(target_arch = "riscv32")]
    #[inline(always)]
    unsafe fn run<const STRIDE: usize>(&self, lines: usize, input: [*const C::Element; 3], output: *mut C::Element) {
        macro_rules! lines {
            (
                $record:ty, $dtype:ident [$($addend:expr),*] [$($second:expr),*] [$($steps:expr),+] [$($moves:expr),+] [$($last:expr),*]
                $load:literal $($operands:tt)*
            ) => {
                core::arch::asm!(
                    // On the stack: the lane, whose register the bias takes, and the lines left.
                    "addi sp, sp, -16",
                    "sw {bias}, 0(sp)",
                    "sw {t}, 4(sp)",
                    "lw {step}, {at_step}({bias})",
                    "lw {output_step}, {at_output_step}({bias})",
                    "lw {min}, {at_min}({bias})",
                    "lw {max}, {at_max}({bias})",
                    "lw {multiplier}, {at_multiplier}({bias})",
                    $($addend,)*
                    "lw {shift}, {at_shift}({bias})",
                    "lw {w00}, {at_weights}+0({bias})\n lw {w01}, {at_weights}+4({bias})\n lw {w02}, {at_weights}+8({bias})",
                    "lw {w10}, {at_weights}+12({bias})\n lw {w11}, {at_weights}+16({bias})\n lw {w12}, {at_weights}+20({bias})",
                    "lw {w20}, {at_weights}+24({bias})\n lw {w21}, {at_weights}+28({bias})\n lw {w22}, {at_weights}+32({bias})",
                    "lw {bias}, {at_bias}({bias})",
                    "2:",
                    "lw {t}, 0(sp)",
                    "lw {sum}, {at_first}({t})",
                    "lw {x}, {at_inputs_before}({t})",
                    "lw {end}, {at_length}({t})",
                    "beqz {x}, 3f",
                    step!($load, "p0", "w00" "sum" "sum"),
                    step!($load, "p1", "w01" "sum" "sum"),
                    step!($load, "p2", "w02" "sum" "sum"),
                    "3:",
                    "add {end}, {end}, {p0}",
                    $($second,)*
                    "4:",
                    $($steps,)+
                    requantize!($dtype),
                    "add {output}, {output}, {output_step}",
                    $($moves,)+
                    "bne {p0}, {end}, 4b",
                    "lw {end}, 0(sp)",
                    "lw {t}, {at_padding_after}({end})",
                    "beqz {t}, 5f",
                    "lw {t}, {at_last}({end})\n add {sum}, {sum}, {t}",
                    $($last,)*
                    requantize!($dtype),
                    "5:",
                    "lw {x}, {at_next_input}({end})",
                    "lw {t}, {at_next_output}({end})",
                    "add {p0}, {p0}, {x}\n add {p1}, {p1}, {x}\n add {p2}, {p2}, {x}",
                    "add {output}, {output}, {t}",
                    "lw {t}, 4(sp)",
                    "addi {t}, {t}, -1",
                    "sw {t}, 4(sp)",
                    "bnez {t}, 2b",
                    "addi sp, sp, 16",
                    bias = inout(reg) core::ptr::from_ref(self) => _,
                    t = inout(reg) lines => _,
                    p0 = inout(reg) input[0] => _, p1 = inout(reg) input[1] => _, p2 = inout(reg) input[2] => _,
                    output = inout(reg) output => _,
                    at_step = const offset_of!(Lane<$record>, input_step),
                    at_output_step = const offset_of!(Lane<$record>, output_step),
                    at_length = const offset_of!(Lane<$record>, length),
                    at_next_input = const offset_of!(Lane<$record>, next_input),
                    at_next_output = const offset_of!(Lane<$record>, next_output),
                    at_inputs_before = const offset_of!(Lane<$record>, inputs_before),
                    at_padding_after = const offset_of!(Lane<$record>, padding_after),
                    at_min = const offset_of!(Lane<$record>, requantization.min),
                    at_max = const offset_of!(Lane<$record>, requantization.max),
                    at_multiplier = const offset_of!(Lane<$record>, channel.multiplier),
                    at_shift = const offset_of!(Lane<$record>, channel.shift),
                    at_weights = const offset_of!(Lane<$record>, weights),
                    at_bias = const offset_of!(Lane<$record>, bias),
                    at_first = const offset_of!(Lane<$record>, first),
                    at_last = const offset_of!(Lane<$record>, last),
                    step = out(reg) _, output_step = out(reg) _, end = out(reg) _,
                    multiplier = out(reg) _, shift = out(reg) _, min = out(reg) _, max = out(reg) _,
                    w00 = out(reg) _, w01 = out(reg) _, w02 = out(reg) _,
                    w10 = out(reg) _, w11 = out(reg) _, w12 = out(reg) _,
                    w20 = out(reg) _, w21 = out(reg) _, w22 = out(reg) _,
                    sum = out(reg) _, next = out(reg) _, x = out(reg) _,
                    $($operands)*
                )
            };
        }
        macro_rules! strides {
            ($record:ty, $dtype:ident, $load:literal, [$($addend:expr),*] $($operands:tt)*) => {
                if STRIDE == 1 {
                    lines!(
                        $record, $dtype
                        [$($addend),*]
                        [
                            step!($load, "p0", "w10" "sum" "sum", "w00" "bias" "next"),
                            step!($load, "p1", "w11" "sum" "sum", "w01" "next" "next"),
                            step!($load, "p2", "w12" "sum" "sum", "w02" "next" "next")
                        ]
                        [
                            step!($load, "p0", "w20" "sum" "sum", "w10" "next" "next", "w00" "bias" "fresh"),
                            step!($load, "p1", "w21" "sum" "sum", "w11" "next" "next", "w01" "fresh" "fresh"),
                            step!($load, "p2", "w22" "sum" "sum", "w12" "next" "next", "w02" "fresh" "fresh")
                        ]
                        ["mv {sum}, {next}\n mv {next}, {fresh}"]
                        []
                        $load fresh = out(reg) _, $($operands)*
                    );
                } else {
                    lines!(
                        $record, $dtype
                        [$($addend),*]
                        []
                        [
                            step!($load, "p0", "w10" "sum" "sum"),
                            step!($load, "p1", "w11" "sum" "sum"),
                            step!($load, "p2", "w12" "sum" "sum"),
                            step!($load, "p0", "w20" "sum" "sum", "w00" "bias" "next"),
                            step!($load, "p1", "w21" "sum" "sum", "w01" "next" "next"),
                            step!($load, "p2", "w22" "sum" "sum", "w02" "next" "next")
                        ]
                        ["mv {sum}, {next}"]
                        [
                            concat!($load, " {x}, 0({p0})\n mul {t}, {x}, {w10}\n add {sum}, {sum}, {t}"),
                            concat!($load, " {x}, 0({p1})\n mul {t}, {x}, {w11}\n add {sum}, {sum}, {t}"),
                            concat!($load, " {x}, 0({p2})\n mul {t}, {x}, {w12}\n add {sum}, {sum}, {t}")
                        ]
                        $load $($operands)*
                    );
                }
            };
        }
        // SAFETY: what the caller promises; sp is restored, and the elements say which record a channel is. Compiled from Rust, it spills: 46
        // instructions per output instead of 38. With only the inner loop in assembly, a line of 6 has an overhead of 110 instructions instead
        // of 50.
        unsafe {
            if size_of::<C::Element>() == 1 {
                strides!(
                    Channel, int8, "lb", ["lw {addend}, {at_addend}({bias})"]
                    addend = out(reg) _, at_addend = const offset_of!(Lane<Channel>, channel.addend),
                );
            } else {
                strides!(WideChannel, int16, "lh", []);
            }
        }
    }
}

impl Lines {
    /// Computes all `channels` of a layer.
    ///
    /// # Panics
    /// If the lines do not lie inside `input` and `output`.
    #[inline(never)]
    pub(crate) fn run<C: ChannelRecord>(
        &self,
        channels: &[C],
        weights: &[Block],
        requantization: Requantization,
        input: &[C::Element],
        output: &mut [C::Element],
    ) {
        let (along, across) = (&self.along, &self.across);
        let last = (across.inputs - 1) * across.input_step + (along.inputs - 1) * along.input_step;
        let inputs = input.len() >= last + channels.len();
        let last = (across.outputs - 1) * across.output_step + (along.outputs - 1) * along.output_step;
        if !(inputs && output.len() >= last + channels.len()) {
            unchecked();
        }
        // Outputs of a line whose windows do not reach into the padding after it.
        let count = (along.inputs + along.before - (3 - along.stride)).checked_div(along.stride).checked();
        let steps = count * along.stride + (2 - along.stride);
        let inputs_before = 1 - along.before;
        let line = (across.stride * across.input_step).wrapping_sub((inputs_before + steps) * along.input_step);
        let size = size_of::<C::Element>();
        let mut lane = Lane {
            input_step: size * along.input_step,
            output_step: size * along.output_step,
            length: size * steps * along.input_step,
            next_input: line.wrapping_mul(size),
            next_output: across.output_step.wrapping_sub(count * along.output_step).wrapping_mul(size),
            inputs_before,
            padding_after: along.outputs - count,
            requantization,
            channel: C::default(),
            weights: [[0; 3]; 3],
            bias: 0,
            first: 0,
            last: 0,
        };
        let inside = self.inside();
        let mut line = 0;
        while line < across.outputs {
            // The lines that one `Lane` serves: all windows inside the input together, any other line alone.
            let together = if inside.contains(&line) { inside.end - line } else { 1 };
            let first = (line * across.stride).wrapping_sub(across.before);
            let lines = [0, across.dilation, 2 * across.dilation].map(|line| first.wrapping_add(line));
            // A negative line wraps to a large usize. For a line in the padding, line 0 is read, with weights of 0.
            let padding = lines.map(|line| line >= across.inputs);
            let lines = [0, 1, 2].map(|index| if padding[index] { 0 } else { lines[index] * across.input_step });
            for (index, channel) in channels.iter().enumerate() {
                lane.set(channel, &weights[index / LANES], index % LANES, padding, self.zero);
                let from = lines.map(|line| input.as_ptr().wrapping_add(line + index));
                let to = output.as_mut_ptr().wrapping_add(line * across.output_step + index);
                // SAFETY: the lines lie inside the slices, see above.
                unsafe {
                    if along.stride == 1 {
                        lane.run::<1>(together, from, to);
                    } else {
                        lane.run::<2>(together, from, to);
                    }
                }
            }
            line += together;
        }
    }

    /// The lines of outputs whose windows lie inside the input, across the lines.
    fn inside(&self) -> Range<usize> {
        let Side { inputs, outputs, stride, before, dilation, .. } = self.across;
        let last = (inputs + before).checked_sub(2 * dilation + 1);
        let end = last.and_then(|last| last.checked_div(stride)).map_or(0, |last| last + 1);
        (before + stride - 1).checked_div(stride).checked()..end.min(outputs)
    }
}
