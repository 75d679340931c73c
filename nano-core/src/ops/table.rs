//! A function of one variable: `y = table[x + 128]`, 256 entries made on the host. Sigmoid, tanh, leaky ReLU and every other
//! unary operator is this one, with another table.
//!
//! Tensors for the writer: `table` int8 [256], the output for every input from -128 to 127.

use crate::Error;
use crate::operator::{Checked, Io, Node, Operator, require};

/// Table entry of the unary function.
pub const TABLE: Operator = Operator {
    name: NAME,
    code: 7,
    attributes: &[],
    check,
    run,
    macs: |_| 0,
    #[cfg(feature = "alloc")]
    pack,
};

const NAME: &str = "table";
const ENTRIES: usize = 256;

fn check(node: &Node<'_>) -> Result<(), Error> {
    node.require_plain(NAME, 1)?;
    let table = node.constant::<i8>(NAME, 0)?;
    require!(NAME, table.len() == ENTRIES, "the table has not 256 entries", table.len() as i64);
    let (input, output) = (node.input(0), node.output());
    require!(NAME, input.shape == output.shape, "the shape changes to a size of", output.len() as i64);
    Ok(())
}

fn run(node: &Node<'_>, io: &mut Io<'_>) {
    let table: &[i8; ENTRIES] = node.constant(NAME, 0).checked().try_into().checked();
    for (output, &input) in io.output.iter_mut().zip(io.inputs[0]) {
        *output = table[usize::from(input as u8 ^ 0x80)];
    }
}

#[cfg(feature = "alloc")]
fn pack(layer: &crate::image::Layer<'_>) -> Result<crate::image::Packed, crate::image::WriteError> {
    let mut packed = crate::image::Packed::plain(layer, &[])?;
    packed.constants.push(layer.int8("table", ENTRIES)?.iter().map(|&entry| entry as u8).collect());
    Ok(packed)
}
