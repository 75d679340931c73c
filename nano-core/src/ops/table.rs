//! Lookup table of a function of one variable, computed on the host. Sigmoid, tanh, leaky ReLU and every other unary function are this
//! operator with another table.
//!
//! int8: `y = t[x + 128]`, 256 entries, each the function in float32 steps of the output, rounded once. Error bound of int8: half a step, and the
//! error of float32, below 2^-10 of a step in the function's own arithmetic.
//!
//! int16: 513 entries, one for every 128th input, and a straight line between two. With `i = floor(x / 128) + 256` and `f = x mod 128`,
//! `y = t[i] + floor((t[i + 1] - t[i]) f / 128 + 1/2)`. Bit-exact with TensorFlow Lite's int16 tables, which TensorFlow Lite Micro has in its
//! int16 `SOFTMAX`, as long as neighbouring entries differ by less than 2^15: its difference wraps there.
//!
//! An entry of int16 is TensorFlow Lite's, too. It is off by half of the line's error in the middle to the next entry, so that the line is off
//! by as much in the middle as at its ends: with the function F in steps of the output, at a distance u of 128 steps of the input,
//! `t_i = round(F_i) - round((round((round(F_i) + F_(i+1)) / 2) - round(F_(i+1/2))) / 2)`, clamped to int16.
//!
//! Error bound of int16: with `|F'| <= d` and `|F''| <= c` between the entries around x and up to the one after, per step of the input,
//! `|y - F(x)| <= 3072 c + d + 3`, where the output is not clamped. A line is off by at most `128^2 c / 8`, its ends by `128^2 c / 16`: 3072 c.
//! The entries are 65535/65536 of 128 steps apart, so they lie up to one step beside their inputs: d. They are 65536/65535 times as large, which
//! is up to 1/2; they are rounded four times, 13/8; the line is rounded, 1/2. Where the slope jumps by k, c counts as k / 128. A function that
//! jumps has no such table.
//!
//! Tensors for the writer: `table` int8 `[256]`, the output for every input from -128 to 127, or int16 `[513]`.

use crate::BrokenRule;
use crate::arena::Shared;
use crate::image::Element;
use crate::node::Node;
use crate::operator::{Alias, Checked, Kernel, Operator, Output, Run, require};
use crate::ops::unary;

/// Kernel of the lookup table of int8.
pub const TABLE: Kernel = Kernel {
    id: 7,
    name: NAME,
    operator: &OPERATOR,
    inputs: i8::DTYPES,
    outputs: i8::DTYPES,
    pitched: true,
    forms: &[0],
    check,
    run: Run::InPlace(run),
    #[cfg(feature = "alloc")]
    cost: |layer| Some(cost(layer, 8)),
    #[cfg(feature = "alloc")]
    pack,
};
/// Kernel of the lookup table of int16, with interpolation.
pub const TABLE_INT16: Kernel = Kernel {
    id: 37,
    name: "table_int16",
    operator: &OPERATOR,
    inputs: i16::DTYPES,
    outputs: i16::DTYPES,
    pitched: true,
    forms: &[0],
    check: check_int16,
    run: Run::InPlace(run_int16),
    #[cfg(feature = "alloc")]
    cost: |layer| Some(cost(layer, 17)),
    #[cfg(feature = "alloc")]
    pack: pack_int16,
};

static OPERATOR: Operator = Operator {
    name: NAME,
    attributes: &[],
    inputs: 1..=1,
    outputs: &[Output::OWN],
    alias: Alias::Elementwise,
    shape: |node, _| Ok(node.input(0).shape),
    macs: |_| 0,
};

const NAME: &str = "table";
const ENTRIES: usize = 256;
const ENTRIES_INT16: usize = 513;
/// Inputs of int16 from one entry to the next, as a power of two.
const SPACING: u32 = 7;

/// The table of a checked node. One function, so that the program has one place that can panic.
#[inline(always)]
fn table<'a, T: Element, const N: usize>(node: &Node<'a>) -> &'a [T; N] {
    node.constant(0).ok().and_then(|table| table.try_into().ok()).checked()
}

fn check(node: &Node<'_>) -> Result<(), BrokenRule> {
    node.require_no_scratch()?;
    let table = node.constant::<i8>(0)?;
    require!(table.len() == ENTRIES, "the table has not 256 entries", table.len() as i64);
    Ok(())
}

fn run(node: &Node<'_>, memory: Shared<'_>) {
    let table: &[i8; ENTRIES] = table(node);
    unary::run(node, memory, |x: i8| table[usize::from(x as u8 ^ 0x80)]);
}

/// The estimate of a table with so many instructions per look-up. A load is used at once, and the loop jumps back.
#[cfg(feature = "alloc")]
fn cost(layer: &crate::image::Layer<'_>, each: u64) -> crate::image::Cost {
    let outputs = layer.outputs[0].len() as u64;
    crate::image::Cost { instructions: each * outputs + 160, stalls: 3 * outputs + 40 }
}

#[cfg(feature = "alloc")]
fn pack(layer: &crate::image::Layer<'_>) -> Result<crate::image::Packed, crate::image::WriteError> {
    let mut packed = crate::image::Packed::default();
    packed.constants.push(layer.int8("table", ENTRIES)?.iter().map(|&entry| entry as u8).collect());
    Ok(packed)
}

fn check_int16(node: &Node<'_>) -> Result<(), BrokenRule> {
    node.require_no_scratch()?;
    let table = node.constant::<i16>(0)?;
    require!(table.len() == ENTRIES_INT16, "the table of int16 has not 513 entries", table.len() as i64);
    Ok(())
}

fn run_int16(node: &Node<'_>, memory: Shared<'_>) {
    let table: &[i16; ENTRIES_INT16] = table(node);
    unary::run(node, memory, |x: i16| interpolate(table, x));
}

#[inline(always)]
fn interpolate(table: &[i16; ENTRIES_INT16], x: i16) -> i16 {
    const PART: i32 = (1 << SPACING) - 1;
    let index = usize::from((x as u16 ^ 0x8000) >> SPACING);
    let [low, high] = [index, index + 1].map(|index| i32::from(table[index]));
    (low + (((high - low) * (i32::from(x) & PART) + (1 << (SPACING - 1))) >> SPACING)) as i16
}

#[cfg(feature = "alloc")]
fn pack_int16(layer: &crate::image::Layer<'_>) -> Result<crate::image::Packed, crate::image::WriteError> {
    use zerocopy::IntoBytes;
    let mut packed = crate::image::Packed::default();
    packed.constants.push(layer.int16("table", ENTRIES_INT16)?.as_bytes().to_vec());
    Ok(packed)
}
