//! Embedding: rows of a table by their indices. Pixel i of the output has the channels of row `x[i]`. Bit-exact with TensorFlow Lite Micro's
//! `GATHER` along the first dimension of an int8 table. An index outside of the table, which TensorFlow Lite Micro does not check, reads the
//! nearest row.
//!
//! Indices are int32, as those that an argmax makes: four bytes each, and no limit of the vocabulary but the flash of its table.
//!
//! Tensors for the writer: `table` int8 `[rows, channels]`, in the quantization of the output.

use crate::BrokenRule;
use crate::arena::Io;
use crate::image::Dtype;
use crate::node::Node;
use crate::operator::{Alias, Checked, CheckedPart, Kernel, Operator, Output, Run, attributes, nonzero, require};

/// Kernel of the embedding.
pub const EMBEDDING: Kernel = Kernel {
    id: 43,
    name: NAME,
    operator: &OPERATOR,
    inputs: &[Dtype::Int32],
    outputs: &[Dtype::Int8],
    pitched: true,
    forms: &[0],
    check,
    run: Run::Apart(run),
    #[cfg(feature = "alloc")]
    cost: |layer| Some(crate::image::Cost::instructions(2 * layer.outputs[0].len() as u64)),
    #[cfg(feature = "alloc")]
    pack,
};

static OPERATOR: Operator = Operator {
    name: NAME,
    attributes: Attributes::NAMES,
    inputs: 1..=1,
    outputs: &[Output::OWN],
    alias: Alias::Never,
    shape: |node, _| {
        let [height, width, indices] = node.input(0).shape;
        require!(height == 1 && width == 1, "the indices are not a vector", i64::from(height.max(width)));
        Ok([1, indices, node.output(0).shape[2]])
    },
    macs: |_| 0,
};

const NAME: &str = "embedding";

attributes! {
    struct Attributes {
        /// Number of rows of the table.
        rows
    }
}

fn check(node: &Node<'_>) -> Result<(), BrokenRule> {
    let Attributes { rows } = Attributes::read(node.attributes())?;
    node.require_no_scratch()?;
    require!(rows >= 1, "the table has no rows", i64::from(rows));
    require!(node.input(0).holds_indices(), "the input does not hold indices, whose scale is 1", 0);
    let table = node.constant::<i8>(0)?.len();
    let needed = u64::from(rows.unsigned_abs()) * u64::from(node.output(0).shape[2]);
    require!(table as u64 == needed, "wrong length of the table", table as i64);
    Ok(())
}

fn run(node: &Node<'_>, mut io: Io<'_>) {
    let Attributes { rows } = Attributes::read(node.attributes()).checked();
    let table: &[i8] = node.constant(0).ok().checked_part();
    let output = node.output(0);
    let channels = output.shape[2] as usize;
    let pixels = io.outputs.take::<i8>().chunks_mut(nonzero(output.pitch as usize));
    for (&index, pixel) in io.inputs.get::<i32>(0).iter().zip(pixels) {
        let first = index.min(rows - 1).max(0) as usize * channels;
        let row = table.get(first..first + channels).checked_part();
        pixel.get_mut(..row.len()).checked_part().copy_from_slice(row);
    }
}

#[cfg(feature = "alloc")]
fn pack(layer: &crate::image::Layer<'_>) -> Result<crate::image::Packed, crate::image::WriteError> {
    let Attributes { rows } = Attributes::read(&layer.attributes).map_err(|broken| broken.of(NAME))?;
    let entries = rows.max(0) as usize * layer.outputs[0].shape[2] as usize;
    // The rows of its indices.
    let read = Some(layer.outputs[0].len());
    let mut packed = crate::image::Packed { read, ..Default::default() };
    packed.constants.push(layer.int8("table", entries)?.iter().map(|&entry| entry as u8).collect());
    Ok(packed)
}
