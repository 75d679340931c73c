//! A QEMU TCG plugin that counts the cycles which a chip with an in-order RISC-V core and a flash cache would take for what the emulated board
//! executes.
//!
//! It is a model: each instruction takes one cycle; loads whose result is needed at once, taken branches, jumps, high multiplications and divisions
//! take more; and the core waits for each line of the flash that is not in the cache. The costs come from the table of chips
//! (`torch_nano/chips/chips.toml`). Conflicts of code and data in one bank of RAM and the timing of peripherals are left out.
//!
//! The program reads its instruction counter before and after what it measures, as it would read a cycle counter on a chip. At each such read the
//! plugin writes its counts as one row of a CSV file. The difference of two rows is what the part between them took. Who empties
//! the file leaves out what is executed until the next read, as if the last read before and that one followed each other.

mod arguments;
mod cache;
mod instruction;
mod model;
#[cfg(not(test))]
mod qemu;
#[cfg(test)]
mod tests;
