//! Data movement: each element of the output is an element of the input or the zero point. Slices, transpositions, padding with zeros, flips,
//! repetition, nearest upsampling, channel shuffles and what any sequence of them makes are this one operator.
//!
//! The output's elements are numbered by three digits `(i, j, k)`, the last one fastest, and `y[i, j, k] = x[rows[i] + columns[j] + channels[k]]`,
//! or the zero point where one of the three entries is -1. The numbers of entries are the attributes: height, width and channels of the output
//! where the map is such a sum over its axes, or any other three numbers with this product.
//!
//! Tensors for the writer: `rows`, `columns` and `channels`, int32: numbers of elements of the input in height, width, channels order, or -1.
//! Bit-exact with TensorFlow Lite Micro's int8 `PAD`, `TRANSPOSE`, `STRIDED_SLICE`, `SPLIT` and `RESIZE_NEAREST_NEIGHBOR`.

mod copy;
#[cfg(feature = "alloc")]
mod pack;
mod strided;

use crate::operator::{Alias, Operator, Output, Quantization, attributes, require};

pub use copy::MOVE;

static OPERATOR: Operator = Operator {
    name: NAME,
    attributes: Attributes::NAMES,
    inputs: 1..=1,
    outputs: &[Output { quantization: Quantization::SameAs(0), reset: None }],
    alias: Alias::Never,
    shape: |node, _| {
        let Attributes { rows, columns, channels } = Attributes::read(node.attributes())?;
        let elements = [rows, columns, channels]
            .into_iter()
            .try_fold(1u32, |product, count| product.checked_mul(u32::try_from(count).ok()?));
        let same = elements == Some(node.output(0).len() as u32);
        require!(same, "rows times columns times channels is not the output's number of elements, rows", rows);
        Ok(node.output(0).shape)
    },
    macs: |_| 0,
};

const NAME: &str = "move";

attributes! {
    /// Numbers of entries of the three tensors.
    struct Attributes { rows, columns, channels }
}
