//! What a layer takes, as kernels estimate it.

use core::ops::Add;

/// The estimate of one run of a layer on an rv32imc chip, without the time that it waits for flash: that follows from
/// [`Packed::read`](super::Packed::read).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Executed instructions.
    pub instructions: u64,
    /// Cycles beyond one per instruction: loads whose value is used at once, taken branches, jumps, high multiplications and divisions.
    pub stalls: u64,
}

impl Cost {
    /// A cost without stalls.
    pub const fn instructions(instructions: u64) -> Cost {
        Cost { instructions, stalls: 0 }
    }

    /// Cycles without waiting for flash.
    pub const fn cycles(self) -> u64 {
        self.instructions.saturating_add(self.stalls)
    }
}

impl Add for Cost {
    type Output = Cost;

    fn add(self, other: Cost) -> Cost {
        Cost {
            instructions: self.instructions.saturating_add(other.instructions),
            stalls: self.stalls.saturating_add(other.stalls),
        }
    }
}
