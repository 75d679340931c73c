//! Data movement: each element of the output is an element of the input or the zero point. Slices, transpositions, padding with zeros, flips,
//! repetition, nearest upsampling, channel shuffles and any sequence of them are this one operator.
//!
//! The output's elements have indices `(i, j, k)`, the last one fastest, and `y[i, j, k] = x[rows[i] + columns[j] + channels[k]]`, or the zero
//! point where one of the three entries is -1. The attributes `rows`, `columns` and `channels` are the lengths of the three tables: height, width
//! and channels of the output where the map is such a sum over its axes, or any other three lengths with the same product.
//!
//! Where the output is a strided part of the input, `y[p, k] = x[first + p * pitch + k]` for channel `k` of pixel `p`, the attributes `first` and
//! `pitch` say so: the output can then be a view, which copies nothing, if the memory plan allows it.
//!
//! Tensors for the writer: `rows`, `columns` and `channels`, int32: indices of the input's elements in height, width, channels order, or -1.
//! Bit-exact with TensorFlow Lite Micro's `PAD`, `TRANSPOSE`, `STRIDED_SLICE`, `SPLIT` and `RESIZE_NEAREST_NEIGHBOR`.

mod copy;
#[cfg(feature = "alloc")]
mod pack;
mod strided;
mod view;

use crate::BrokenRule;
use crate::node::Node;
use crate::operator::{Alias, Operator, Output, Quantization, attributes, require};

pub use copy::MOVE;
pub use view::MOVE_VIEW;

static OPERATOR: Operator = Operator {
    name: NAME,
    attributes: Attributes::NAMES,
    inputs: 1..=1,
    outputs: &[Output { quantization: Quantization::SameAs(0), reset: None }],
    alias: Alias::overlay(|node, _| view::place(node.attributes(), node.input(0), node.output(0))),
    shape: |node, _| {
        let Attributes { rows, columns, channels, first, pitch } = Attributes::read(node.attributes())?;
        let elements = [rows, columns, channels]
            .into_iter()
            .try_fold(1u32, |product, count| product.checked_mul(u32::try_from(count).ok()?));
        let same = elements == Some(node.output(0).len() as u32);
        require!(same, "rows times columns times channels is not the output's number of elements, rows", rows);
        check_part(node, first, pitch)?;
        Ok(node.output(0).shape)
    },
    macs: |_| 0,
};

const NAME: &str = "move";

attributes! {
    /// Lengths of the three tensors, and the position of the output in the input if it is a part of it.
    struct Attributes {
        rows,
        columns,
        channels,
        /// Index in the input of the output's first element; 0 if the output is not a part of the input.
        first,
        /// Elements of the input from one pixel of the output to the next; 0 if the output is not a part of the input.
        pitch,
    }
}

/// Checks that the part of the input given by `first` and `pitch` lies inside the input.
fn check_part(node: &Node<'_>, first: i32, pitch: i32) -> Result<(), BrokenRule> {
    let [height, width, channels] = node.output(0).shape;
    require!(first >= 0, "the first element of the part is below 0: first", first);
    if pitch == 0 {
        require!(first == 0, "without a pitch there is no part that begins at first", first);
        return Ok(());
    }
    require!(pitch >= channels as i32, "the pitch of the part is below the output's channels: pitch", pitch);
    let last = i64::from(first) + i64::from(height * width - 1) * i64::from(pitch) + i64::from(channels - 1);
    require!(last < node.input(0).len() as i64, "the last element of the part is not in the input", last);
    Ok(())
}
