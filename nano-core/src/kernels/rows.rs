//! Some channels at one place: the fully connected layer.

/// Accumulators of some channels at one place.
pub(crate) trait Sums {
    /// Adds to each sum the products of `inputs` with its column of `weights`: one row, as long as the sums, per input.
    fn add_products(&mut self, inputs: &[i8], weights: &[i8]);
}

#[cfg(not(target_arch = "riscv32"))]
impl<const N: usize> Sums for [i32; N] {
    fn add_products(&mut self, inputs: &[i8], weights: &[i8]) {
        add_rows(self, inputs, weights);
    }
}

fn add_rows<const N: usize>(sums: &mut [i32; N], inputs: &[i8], weights: &[i8]) {
    for (&x, weights) in inputs.iter().zip(weights.as_chunks::<N>().0) {
        for (sum, &weight) in sums.iter_mut().zip(weights) {
            *sum += i32::from(x) * i32::from(weight);
        }
    }
}

/// The same in the chip's instructions, for one number of sums.
#[cfg(target_arch = "riscv32")]
macro_rules! sums {
    ($count:literal: $($sum:ident $index:literal),+) => {
        impl Sums for [i32; $count] {
            #[inline(always)]
            fn add_products(&mut self, inputs: &[i8], weights: &[i8]) {
                let (fours, rest) = inputs.as_chunks::<4>();
                let (weights, weights_of_rest) = weights.split_at(4 * $count * fours.len());
                let inputs = fours.as_ptr_range();
                // SAFETY: reads all of `fours`, and as many rows of weights as that has inputs. From Rust, LLVM spills 16 sums: 5.0
                // instructions per multiply-accumulate instead of 3.1.
                unsafe {
                    core::arch::asm!(
                        "beq {input}, {end}, 3f",
                        "2:",
                        "lb {x}, 0({input})",
                        $(concat!("lb {w}, 0*", $count, "+", $index, "({weights})\n mul {w}, {w}, {x}\n add {", stringify!($sum), "}, {", stringify!($sum), "}, {w}"),)+
                        "lb {x}, 1({input})",
                        $(concat!("lb {w}, 1*", $count, "+", $index, "({weights})\n mul {w}, {w}, {x}\n add {", stringify!($sum), "}, {", stringify!($sum), "}, {w}"),)+
                        "lb {x}, 2({input})",
                        $(concat!("lb {w}, 2*", $count, "+", $index, "({weights})\n mul {w}, {w}, {x}\n add {", stringify!($sum), "}, {", stringify!($sum), "}, {w}"),)+
                        "lb {x}, 3({input})",
                        $(concat!("lb {w}, 3*", $count, "+", $index, "({weights})\n mul {w}, {w}, {x}\n add {", stringify!($sum), "}, {", stringify!($sum), "}, {w}"),)+
                        "addi {input}, {input}, 4",
                        concat!("addi {weights}, {weights}, 4*", $count),
                        "bne {input}, {end}, 2b",
                        "3:",
                        $($sum = inout(reg) self[$index],)+
                        input = inout(reg) inputs.start => _,
                        end = in(reg) inputs.end,
                        weights = inout(reg) weights.as_ptr() => _,
                        x = out(reg) _,
                        w = out(reg) _,
                        options(pure, readonly, nostack),
                    );
                }
                add_rows(self, rest, weights_of_rest);
            }
        }
    };
}

#[cfg(target_arch = "riscv32")]
mod rows {
    use super::{Sums, add_rows};
    sums!(16: s0 0, s1 1, s2 2, s3 3, s4 4, s5 5, s6 6, s7 7, s8 8, s9 9, s10 10, s11 11, s12 12, s13 13, s14 14, s15 15);
    sums!(8: s0 0, s1 1, s2 2, s3 3, s4 4, s5 5, s6 6, s7 7);
    sums!(4: s0 0, s1 1, s2 2, s3 3);
    sums!(2: s0 0, s1 1);
    sums!(1: s0 0);
}
