//! The inner loops: multiply-accumulate over packed weights, several pixels and channels at a time.
//!
//! Left alone, LLVM reassociates the accumulation, hoists the multiplications and spills. On the chip these loops are therefore
//! written in its instructions; the form for every other machine says what they compute. `just bench-device` prints what each
//! layer shape costs.

mod requantize;
mod rows;
mod sweep;
mod taps;
mod tile;

#[cfg(feature = "alloc")]
pub(crate) use requantize::one_pass_addend;
pub(crate) use requantize::{Channel, Form, LITERAL, Literal, ONE_PASS, OnePass, Requantization};
pub(crate) use rows::Sums;
pub(crate) use sweep::Lines;
pub(crate) use taps::{Taps, depthwise_4x2};
pub(crate) use tile::{Columns, LANES, dot_4x4, fill_column, fill_columns};
