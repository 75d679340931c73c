//! The inner loops of [`Lane`] in rv32im assembly. LLVM spills the weights: 46 instructions per output of a 3x3 window instead of 33.
//!
//! A step loads an input of each of the window's lines and accumulates its products with the weights of all taps, which stay in registers.
//! `sum` is the next output's, `next` that of the output after it. The last tap completes `sum`; the output after `next` takes its register
//! over, so both change places from step to step, and two steps make one round of the loop. The sums of int8 layers, and so the weights and
//! the bias, are doubled, as the one-pass requantization needs them: modulo 2^32 this is the portable loop's `accumulator << 1`.

use core::mem::offset_of;

use super::lane::Lane;
use crate::kernels::accumulate::ChannelRecord;
use crate::kernels::{Channel, WideChannel};

/// The assembly of the lines. `setup` reads parameters of the lane in `sum`, and `end` the end of the steps; `before` is a line's first step, unless it
/// lies in the padding, and `warm` what follows before the loop; `round` are the steps of the loop, of which the second has the label 9, and
/// `swap` exchanges the sums for an odd number of steps; `after` makes the last output if its last tap lies in the padding.
macro_rules! lines {
    (
        $lane:ident, $lines:ident, $input:ident, $output:ident, $record:ident $dtype:ident [$window:tt $taps:tt $last:literal]
        setup [$($setup:expr),+] end [$set_end:expr, $until_end:expr] first [$($first:expr)?] before [$($before:expr),+] warm [$($warm:expr),*]
        round [$($round:expr),+] swap [$($swap:expr)?] after [$($after:expr),+] out_of_line [$($place:literal $sum:literal),+]
        $($operands:tt)*
    ) => {
        core::arch::asm!(
            // On the stack: the lane, the lines left, the first sum of a line, what its padding after adds.
            "addi sp, sp, -32\n sw {t}, 0(sp)\n sw {x0}, 4(sp)\n mv {sum}, {t}",
            "lw {t}, {at_weights}({sum})\n lw {back}, {at_back}({sum})",
            weights!($dtype, $window, $taps),
            "lw {t}, {at_zero}({sum})\n lw {min}, {at_min}({sum})\n lw {max}, {at_max}({sum})",
            "lw {multiplier}, {at_multiplier}({sum})\n lw {shift}, {at_shift}({sum})",
            "lw {bias}, {at_bias}({sum})",
            $($setup,)+
            concat!(padding!($window, $last), "sw {x0}, 12(sp)"),
            padding!($window, "0"),
            "lw {t}, {at_inputs_before}({sum})\n add {x0}, {x0}, {bias}\n beqz {t}, 3f\n mv {x0}, {bias}\n 3:\n sw {x0}, 8(sp)",
            "2:",
            "lw {t}, 0(sp)\n lw {sum}, 8(sp)\n lw {x0}, {at_inputs_before}({t})",
            $($first,)?
            "beqz {x0}, 3f",
            $($before,)+
            "3:",
            $($warm,)*
            "lw {t}, 0(sp)",
            $set_end,
            $(concat!("lw {x0}, {at_odd}({t})\n beqz {x0}, 4f\n"), $swap, "j 9f",)?
            ".p2align 2\n 4:",
            $($round,)+
            $until_end,
            "5:",
            "lw {t}, 0(sp)\n lw {x0}, {at_padding_after}({t})\n beqz {x0}, 5f",
            $($after,)+
            "5:",
            "lw {t}, 0(sp)\n lw {sum}, 4(sp)\n lw {x0}, {at_next_input}({t})\n lw {t}, {at_next_output}({t})",
            "addi {sum}, {sum}, -1\n sw {sum}, 4(sp)\n add {p}, {p}, {x0}\n add {o}, {o}, {t}\n bnez {sum}, 2b",
            "addi sp, sp, 32\n j 5f",
            $(out_of_line!($dtype, $place, $sum),)+
            "5:",
            t = inout(reg) core::ptr::from_ref($lane) => _, x0 = inout(reg) $lines => _,
            p = inout(reg) $input => _, o = inout(reg) $output => _,
            sum = out(reg) _, back = out(reg) _, min = out(reg) _, max = out(reg) _, multiplier = out(reg) _, shift = out(reg) _, bias = out(reg) _,
            at_weights = const offset_of!(Lane<$record>, weights),
            at_back = const offset_of!(Lane<$record>, back),
            at_zero = const offset_of!(Lane<$record>, zero),
            at_min = const offset_of!(Lane<$record>, requantization.min),
            at_max = const offset_of!(Lane<$record>, requantization.max),
            at_multiplier = const offset_of!(Lane<$record>, channel.multiplier),
            at_shift = const offset_of!(Lane<$record>, channel.shift),
            at_bias = const offset_of!(Lane<$record>, bias),
            at_output_step = const offset_of!(Lane<$record>, output_step),
            at_inputs_before = const offset_of!(Lane<$record>, inputs_before),
            at_padding_after = const offset_of!(Lane<$record>, padding_after),
            at_length = const offset_of!(Lane<$record>, length),
            at_next_input = const offset_of!(Lane<$record>, next_input),
            at_next_output = const offset_of!(Lane<$record>, next_output),
            $($operands)*
        )
    };
}

/// [`lines!`] of one line of outputs at a time, by the stride and the numbers of the window's lines and taps.
macro_rules! single {
    ($stride:tt, $taps:tt, $window:tt, $load:literal, $given:tt, [$($setup:expr),*] $($operands:tt)*) => {
        single!(
            @$stride $taps $window $load $given
            ["lw {output_step}, {at_output_step}({sum})" $(, $setup)*]
            output_step = out(reg) _, end = out(reg) _, $($operands)*
        )
    };
    (@1 3 $window:tt $load:literal ($lane:ident, $lines:ident, $input:ident, $output:ident, $record:ident $dtype:ident) [$($setup:expr),+] $($operands:tt)*) => {
        lines!(
            $lane, $lines, $input, $output, $record $dtype [$window 3 "2"] setup [$($setup),+]
            end ["lw {end}, {at_length}({t})\n add {end}, {end}, {p}\n beq {end}, {p}, 5f", "bne {p}, {end}, 4b"] first []
            before [load!($window, $load), tap!($window, "0", "{sum}", "{sum}")]
            warm [load!($window, $load), tap!($window, "1", "{sum}", "{sum}"), tap!($window, "0", "{bias}", "{next}")]
            round [
                load!($window, $load),
                tap!($window, "2", "{sum}", "{sum}"), finish!($dtype, "1", "{sum}", "add {o}, {o}, {output_step}\n"),
                tap!($window, "1", "{next}", "{next}"), tap!($window, "0", "{bias}", "{sum}"),
                "9:",
                load!($window, $load),
                tap!($window, "2", "{next}", "{next}"), finish!($dtype, "2", "{next}", "add {o}, {o}, {output_step}\n"),
                tap!($window, "1", "{sum}", "{sum}"), tap!($window, "0", "{bias}", "{next}")
            ]
            swap ["mv {x0}, {sum}\n mv {sum}, {next}\n mv {next}, {x0}\n"]
            after ["lw {t}, 12(sp)\n add {sum}, {sum}, {t}", finish!($dtype, "3", "{sum}", "add {o}, {o}, {output_step}\n")]
            out_of_line ["1" "{sum}", "2" "{next}", "3" "{sum}"]
            next = out(reg) _, at_odd = const offset_of!(Lane<$record>, odd), $($operands)*
        )
    };
    (@2 3 $window:tt $load:literal ($lane:ident, $lines:ident, $input:ident, $output:ident, $record:ident $dtype:ident) [$($setup:expr),+] $($operands:tt)*) => {
        lines!(
            $lane, $lines, $input, $output, $record $dtype [$window 3 "2"] setup [$($setup),+]
            end ["lw {end}, {at_length}({t})\n add {end}, {end}, {p}\n beq {end}, {p}, 5f", "bne {p}, {end}, 4b"] first []
            before [load!($window, $load), tap!($window, "0", "{sum}", "{sum}")]
            warm []
            round [
                load!($window, $load), tap!($window, "1", "{sum}", "{sum}"),
                load!($window, $load), tap!($window, "2", "{sum}", "{sum}"),
                finish!($dtype, "1", "{sum}", "add {o}, {o}, {output_step}\n"),
                tap!($window, "0", "{bias}", "{sum}")
            ]
            swap []
            after [
                load!($window, $load), tap!($window, "1", "{sum}", "{sum}"),
                "lw {t}, 12(sp)\n add {sum}, {sum}, {t}", finish!($dtype, "2", "{sum}", "add {o}, {o}, {output_step}\n")
            ]
            out_of_line ["1" "{sum}", "2" "{sum}"]
            $($operands)*
        )
    };
    (@1 2 $window:tt $load:literal ($lane:ident, $lines:ident, $input:ident, $output:ident, $record:ident $dtype:ident) [$($setup:expr),+] $($operands:tt)*) => {
        lines!(
            $lane, $lines, $input, $output, $record $dtype [$window 2 "1"] setup [$($setup),+]
            end ["lw {end}, {at_length}({t})\n add {end}, {end}, {p}\n beq {end}, {p}, 5f", "bne {p}, {end}, 4b"] first []
            before [load!($window, $load), tap!($window, "0", "{sum}", "{sum}")]
            warm []
            round [
                load!($window, $load), tap!($window, "1", "{sum}", "{sum}"),
                finish!($dtype, "1", "{sum}", "add {o}, {o}, {output_step}\n"),
                tap!($window, "0", "{bias}", "{sum}")
            ]
            swap []
            after ["lw {t}, 12(sp)\n add {sum}, {sum}, {t}", finish!($dtype, "2", "{sum}", "add {o}, {o}, {output_step}\n")]
            out_of_line ["1" "{sum}", "2" "{sum}"]
            $($operands)*
        )
    };
}

/// [`single!`] with the registers of the weights and of the window's lines.
macro_rules! window {
    ($stride:tt, 3, 1, $load:literal, $given:tt, $setup:tt $($operands:tt)*) => {
        single!($stride, 3, 1, $load, $given, $setup w00 = out(reg) _, w10 = out(reg) _, w20 = out(reg) _, $($operands)*)
    };
    ($stride:tt, 3, 2, $load:literal, $given:tt, [$($setup:expr),*] $($operands:tt)*) => {
        single!(
            $stride, 3, 2, $load, $given, ["lw {line}, {at_line}({sum})" $(, $setup)*]
            w00 = out(reg) _, w10 = out(reg) _, w20 = out(reg) _, w01 = out(reg) _, w11 = out(reg) _, w21 = out(reg) _,
            x1 = out(reg) _, line = out(reg) _, $($operands)*
        )
    };
    ($stride:tt, 3, 3, $load:literal, $given:tt, [$($setup:expr),*] $($operands:tt)*) => {
        single!(
            $stride, 3, 3, $load, $given, ["lw {line}, {at_line}({sum})" $(, $setup)*]
            w00 = out(reg) _, w10 = out(reg) _, w20 = out(reg) _, w01 = out(reg) _, w11 = out(reg) _, w21 = out(reg) _,
            w02 = out(reg) _, w12 = out(reg) _, w22 = out(reg) _,
            x1 = out(reg) _, x2 = out(reg) _, line = out(reg) _, $($operands)*
        )
    };
    ($stride:tt, 2, 1, $load:literal, $given:tt, $setup:tt $($operands:tt)*) => {
        single!($stride, 2, 1, $load, $given, $setup w00 = out(reg) _, w10 = out(reg) _, $($operands)*)
    };
    ($stride:tt, 2, 2, $load:literal, $given:tt, [$($setup:expr),*] $($operands:tt)*) => {
        single!(
            $stride, 2, 2, $load, $given, ["lw {line}, {at_line}({sum})" $(, $setup)*]
            w00 = out(reg) _, w10 = out(reg) _, w01 = out(reg) _, w11 = out(reg) _, x1 = out(reg) _, line = out(reg) _, $($operands)*
        )
    };
}

impl<C: ChannelRecord> Lane<C> {
    /// The same as the portable loop.
    #[inline(always)]
    pub(super) unsafe fn run<const LINES: usize, const TAPS: usize, const STRIDE: usize>(
        &self,
        lines: usize,
        input: *const C::Element,
        output: *mut C::Element,
    ) {
        macro_rules! by_dtype {
            ($stride:tt, $taps:tt, $window:tt $(, $operand:ident $at:ident)?) => {
                if size_of::<C::Element>() == 1 {
                    window!(
                        $stride, $taps, $window, "lb", (self, lines, input, output, Channel int8),
                        ["lw {addend}, {at_addend}({sum})", "slli {bias}, {bias}, 1"]
                        addend = out(reg) _, at_addend = const offset_of!(Lane<Channel>, channel.addend),
                        $($at = const offset_of!(Lane<Channel>, $operand),)?
                    )
                } else {
                    window!(
                        $stride, $taps, $window, "lh", (self, lines, input, output, WideChannel int16), []
                        $($at = const offset_of!(Lane<WideChannel>, $operand),)?
                    )
                }
            };
        }
        // SAFETY: what the caller promises; sp is restored, and the elements say which record a channel is.
        unsafe {
            match (LINES, TAPS, STRIDE) {
                (1, 3, 1) => by_dtype!(1, 3, 1),
                (2, 3, 1) => by_dtype!(1, 3, 2, line at_line),
                (3, 3, 1) => by_dtype!(1, 3, 3, line at_line),
                (1, 3, 2) => by_dtype!(2, 3, 1),
                (2, 3, 2) => by_dtype!(2, 3, 2, line at_line),
                (3, 3, 2) => by_dtype!(2, 3, 3, line at_line),
                (1, 2, 1) => by_dtype!(1, 2, 1),
                (2, 2, 1) => by_dtype!(1, 2, 2, line at_line),
                _ => unreachable!("a window without an inner loop"),
            }
        }
    }

    /// The same as the portable loop.
    #[inline(always)]
    pub(super) unsafe fn run_pairs(&self, pairs: usize, input: *const C::Element, output: *mut C::Element) {
        // A step of both lines: the first one's output, then the second one's, whose sums are `below` and `below_next`.
        macro_rules! step {
            ($dtype:ident, $load:literal, $place:literal $sum:literal, $next:literal, $below_place:literal $below:literal, $below_next:literal) => {
                concat!(
                    load!(lines, $load),
                    $load,
                    " {x2}, 0({p})\n add {p}, {p}, {line}\n",
                    tap!(3, "2", $sum, $sum),
                    finish!($dtype, $place, $sum, "add {o}, {o}, {output_line}\n"),
                    tap!(3, "1", $next, $next),
                    tap!(3, "0", "{bias}", $sum),
                    $load,
                    " {x0}, 0({p})\n add {p}, {p}, {back}\n",
                    tap!(second, "2", $below, $below),
                    "lw {t}, 20(sp)\n",
                    finish!($dtype, $below_place, $below, "add {o}, {o}, {t}\n"),
                    tap!(second, "1", $below_next, $below_next),
                    tap!(second, "0", "{bias}", $below),
                )
            };
        }
        macro_rules! pairs {
            ($record:ident $dtype:ident $load:literal [$($setup:expr),*] $($operands:tt)*) => {
                lines!(
                    self, pairs, input, output, $record $dtype [3 3 "2"]
                    setup [
                        "lw {x1}, {at_output_step}({sum})\n lw {output_line}, {at_output_line}({sum})",
                        "lw {line}, {at_line}({sum})\n sub {x1}, {x1}, {output_line}\n sw {x1}, 20(sp)" $(, $setup)*
                    ]
                    end [
                        "lw {x0}, {at_length}({t})\n add {x0}, {x0}, {p}\n sw {x0}, 16(sp)\n beq {x0}, {p}, 5f",
                        "lw {t}, 16(sp)\n bne {p}, {t}, 4b"
                    ]
                    first ["mv {below}, {sum}"]
                    before [
                        load!(first, $load), tap!(3, "0", "{sum}", "{sum}"),
                        load!(second, $load), tap!(second, "0", "{below}", "{below}")
                    ]
                    warm [
                        load!(first, $load), tap!(3, "1", "{sum}", "{sum}"), tap!(3, "0", "{bias}", "{next}"),
                        load!(second, $load), tap!(second, "1", "{below}", "{below}"), tap!(second, "0", "{bias}", "{below_next}")
                    ]
                    round [
                        step!($dtype, $load, "1" "{sum}", "{next}", "2" "{below}", "{below_next}"),
                        "9:",
                        step!($dtype, $load, "3" "{next}", "{sum}", "4" "{below_next}", "{below}")
                    ]
                    swap [concat!(
                        "mv {x0}, {sum}\n mv {sum}, {next}\n mv {next}, {x0}\n",
                        "mv {x0}, {below}\n mv {below}, {below_next}\n mv {below_next}, {x0}\n",
                    )]
                    after [
                        "lw {t}, 12(sp)\n add {sum}, {sum}, {t}\n add {below}, {below}, {t}",
                        finish!($dtype, "5", "{sum}", "add {o}, {o}, {output_line}\n"),
                        concat!("lw {t}, 20(sp)\n", finish!($dtype, "6", "{below}", "add {o}, {o}, {t}\n"))
                    ]
                    out_of_line [
                        "1" "{sum}", "2" "{below}", "3" "{next}", "4" "{below_next}", "5" "{sum}", "6" "{below}"
                    ]
                    w00 = out(reg) _, w10 = out(reg) _, w20 = out(reg) _, w01 = out(reg) _, w11 = out(reg) _, w21 = out(reg) _,
                    w02 = out(reg) _, w12 = out(reg) _, w22 = out(reg) _, x1 = out(reg) _, x2 = out(reg) _, line = out(reg) _,
                    next = out(reg) _, below = out(reg) _, below_next = out(reg) _, output_line = out(reg) _,
                    at_odd = const offset_of!(Lane<$record>, odd), at_line = const offset_of!(Lane<$record>, line),
                    at_output_line = const offset_of!(Lane<$record>, output_line),
                    $($operands)*
                )
            };
        }
        // SAFETY: as in `run`.
        unsafe {
            if size_of::<C::Element>() == 1 {
                pairs!(
                    Channel int8 "lb" ["lw {addend}, {at_addend}({sum})", "slli {bias}, {bias}, 1"]
                    addend = out(reg) _, at_addend = const offset_of!(Lane<Channel>, channel.addend),
                )
            } else {
                pairs!(WideChannel int16 "lh" [])
            }
        }
    }
}
