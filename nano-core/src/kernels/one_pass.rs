//! The one-pass form of requantization ([`Channel`](super::Channel)) and the clamp in rv32im assembly.

/// Requantizes `$x`, twice the accumulator or more, in the one-pass form and clamps it. A sum that is neither negative nor clamped takes no branch,
/// which would cost 2 cycles; all else is out of line, after the function.
///
/// With `zero = addend >> shift`, a negative sum gives at most `zero`, as the form is monotone. So where `zero` is at most `min`, with a ReLU, the
/// result is `min`, without a multiplication. `$set_zero` computes it.
macro_rules! one_pass {
    ($x:ident, $channel:ident, $addend:expr, $shift:expr, $min:ident, $max:ident, $correction:expr, $set_zero:literal, $($zero:tt)+) => {
        // SAFETY: arithmetic on registers. LLVM takes more instructions and branches on every path.
        unsafe {
            core::arch::asm!(
                "bltz {x}, 3f",
                "mulhsu {x}, {x}, {multiplier}",
                "4:",
                "add {x}, {x}, {addend}",
                "sra {x}, {x}, {shift}",
                "blt {x}, {min}, 5f",
                "blt {max}, {x}, 6f",
                "2:",
                ".subsection 1",
                "3:",
                $set_zero,
                "bge {min}, {zero}, 5f",
                "mulhsu {x}, {x}, {multiplier}",
                "bgez {x}, 4b",
                "addi {x}, {x}, -{correction}",
                "j 4b",
                "5: mv {x}, {min}",
                "j 2b",
                "6: mv {x}, {max}",
                "j 2b",
                ".subsection 0",
                x = inout(reg) $x,
                zero = $($zero)+,
                multiplier = in(reg) $channel.multiplier,
                addend = in(reg) $addend,
                shift = in(reg) $shift,
                min = in(reg) $min,
                max = in(reg) $max,
                correction = const $correction,
                options(pure, nomem, nostack),
            );
        }
    };
}
pub(super) use one_pass;
