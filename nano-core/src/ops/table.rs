//! Lookup table of a function of one variable: `y = table[x + 128]`, 256 entries computed on the host. Sigmoid, tanh, leaky ReLU and
//! every other unary function are this operator with another table.
//!
//! Tensors for the writer: `table` int8 `[256]`, the output for every input from -128 to 127.

use crate::BrokenRule;
use crate::arena::Shared;
use crate::image::Dtype;
use crate::node::Node;
use crate::operator::{Alias, Checked, Kernel, Operator, Output, Run, require};
use crate::ops::unary;

/// Kernel of the lookup table.
pub const TABLE: Kernel = Kernel {
    id: 7,
    name: NAME,
    operator: &OPERATOR,
    inputs: &[Dtype::Int8],
    outputs: &[Dtype::Int8],
    pitched: true,
    forms: &[0],
    check,
    run: Run::InPlace(run),
    #[cfg(feature = "alloc")]
    cost: |layer| Some(8 * layer.outputs[0].len() as u64),
    #[cfg(feature = "alloc")]
    pack,
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

fn check(node: &Node<'_>) -> Result<(), BrokenRule> {
    node.require_no_scratch()?;
    let table = node.constant::<i8>(0)?;
    require!(table.len() == ENTRIES, "the table has not 256 entries", table.len() as i64);
    Ok(())
}

fn run(node: &Node<'_>, memory: Shared<'_>) {
    let table: &[i8; ENTRIES] = node.constant(0).checked().try_into().checked();
    unary::run(node, memory, |x: i8| table[usize::from(x as u8 ^ 0x80)]);
}

#[cfg(feature = "alloc")]
fn pack(layer: &crate::image::Layer<'_>) -> Result<crate::image::Packed, crate::image::WriteError> {
    let mut packed = crate::image::Packed::default();
    packed.constants.push(layer.int8("table", ENTRIES)?.iter().map(|&entry| entry as u8).collect());
    Ok(packed)
}
