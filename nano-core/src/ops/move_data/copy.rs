//! The copying kernel: copies runs that are contiguous in input and output as blocks, and all other elements with a stride.
//!
//! Constants: the operator's three tables, each as [`Strided`] parts. The packed tables may have other lengths than the attributes, with the same
//! product. Their entries count the bytes of the input's memory, so one kernel serves all dtypes, and they contain the pitch. If the output's pixels are not contiguous, the
//! last table has the entries of one pixel.

use super::OPERATOR;
use super::strided::{Strided, Table};
use crate::BrokenRule;
use crate::arena::Io;
use crate::node::Node;
use crate::operator::{ALIKE, CheckedPart, Kernel, Run, nonzero, require};

/// Kernel of data movement by copying.
pub const MOVE: Kernel = Kernel {
    id: 13,
    name: super::NAME,
    operator: &OPERATOR,
    inputs: ALIKE,
    outputs: ALIKE,
    pitched: true,
    forms: &[0],
    check,
    run: Run::Apart(run),
    #[cfg(feature = "alloc")]
    cost: |layer| match super::pack::tables(layer) {
        Ok(tables) => Some(crate::image::Cost::instructions(tables.cost())),
        // Wrong tables: `pack` returns the error.
        Err(_) if layer.inputs[0].is_dense() && layer.outputs[0].is_dense() => Some(crate::image::Cost::default()),
        Err(_) => None,
    },
    #[cfg(feature = "alloc")]
    pack: |layer| super::pack::tables(layer).map(super::pack::Tables::packed),
};

/// The packed tables: rows, columns, channels.
fn tables<'a>(node: &Node<'a>) -> Result<[&'a [Strided]; 3], BrokenRule> {
    Ok([node.constant(0)?, node.constant(1)?, node.constant(2)?])
}

fn check(node: &Node<'_>) -> Result<(), BrokenRule> {
    node.require_no_scratch()?;
    let output = node.output(0);
    let size = output.dtype().size();
    let expected = (output.len() * size) as u64;
    let mut bytes = 1u64;
    let mut bounds = Some([0, 0]);
    let mut line = 0;
    for parts in tables(node)? {
        let table = Table::check(parts)?;
        line = table.length;
        // No overflow: the factors are at most 2^30 and 2^28, as the check below has bounded the previous product.
        bytes *= table.length;
        require!(bytes <= expected, "the tables have more entries than the output", bytes as i64);
        bounds = bounds.zip(table.bounds).map(|([low, high], [lowest, highest])| [low + lowest, high + highest]);
    }
    require!(bytes == expected, "the tables have fewer entries than the output", bytes as i64);
    let fits = output.is_dense() || line == output.shape[2] as u64 * size as u64;
    require!(fits, "the last table is not one pixel of an output with a pitch, entries", line as i64);
    // If one table has only zero points, nothing is read.
    let [low, high] = bounds.unwrap_or([0, 0]);
    require!(low >= 0, "the lowest element that is read is below 0", low);
    let (_, length) = node.input(0).elements::<i8>();
    require!(high < length as i64, "the highest element that is read is not in the input", high);
    Ok(())
}

fn run(node: &Node<'_>, mut io: Io<'_>) {
    let [rows, columns, channels] = tables(node).ok().checked_part();
    let input = io.inputs.get::<i8>(0);
    // That of an int8 value fits into int8; that of others is 0, in each of their bytes.
    let zero_point = node.output(0).zero_point as i8;
    let length: usize = channels.iter().map(Strided::len).sum();
    let output = node.output(0);
    let pitch = if output.is_dense() { length } else { output.pitch as usize * output.dtype().size() };
    let lines = io.outputs.take::<i8>().chunks_mut(nonzero(pitch));
    let mut lines = lines.map(|line| line.get_mut(..length).checked_part());
    for row in rows {
        for row_start in row.entries() {
            for column in columns {
                for (column_start, line) in column.entries().zip(&mut lines) {
                    if row.is_zero() || column.is_zero() {
                        line.fill(zero_point);
                    } else {
                        gather(line, input, row_start.wrapping_add(column_start), channels, zero_point);
                    }
                }
            }
        }
    }
}

/// Fills `line` with the input's bytes `base + entry` for the entries of `channels`.
fn gather(mut line: &mut [i8], input: &[i8], base: i32, channels: &[Strided], zero_point: i8) {
    for part in channels {
        let (places, rest) = line.split_at_mut_checked(part.len()).checked_part();
        line = rest;
        if part.is_zero() {
            places.fill(zero_point);
            continue;
        }
        let inner = places.chunks_exact_mut(nonzero(part.inner as usize));
        for (a, places) in (0..part.outer).zip(inner) {
            // `check` has bounded the sum; single terms may be out of range.
            let start = base.wrapping_add(part.at(a)) as usize;
            match part.inner_step {
                1 => {
                    let bytes = input.get(start..).and_then(|rest| rest.get(..places.len()));
                    if let Some(bytes) = bytes {
                        places.copy_from_slice(bytes);
                    }
                }
                step => {
                    let mut at = start;
                    for place in places {
                        *place = input.get(at).copied().checked_part();
                        at = at.wrapping_add_signed(step as isize);
                    }
                }
            }
        }
    }
}
