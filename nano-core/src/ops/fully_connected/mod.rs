//! Fully connected layer: `y = clamp(requantize(bias + sum (x - z_x) * w) + z_y)` over all elements of the input.
//!
//! Tensors for the writer: `weights` int8 `[out, in]`, `bias` int32 `[out]` with scale `s_x * s_w`, int64 if the layer is of int16,
//! `weight_scales` float32 `[out]`. Bit-exact with TensorFlow Lite Micro's `FULLY_CONNECTED`, int8 and int16x8.

#[cfg(feature = "host")]
pub(super) mod host;
mod pairs;
mod rows;

use crate::operator::{Alias, Operator, Output, attributes};

pub use pairs::FULLY_CONNECTED_PAIRS;
pub(crate) use pairs::{ChannelPairs, FORMS};
#[cfg(feature = "alloc")]
pub(crate) use pairs::{cost, pack};
pub use rows::{FULLY_CONNECTED, FULLY_CONNECTED_INT16};

static OPERATOR: Operator = Operator {
    name: NAME,
    attributes: Attributes::NAMES,
    inputs: 1..=1,
    outputs: &[Output::OWN],
    alias: Alias::Never,
    shape: |node, _| Ok([1, 1, node.output(0).shape[2]]),
    macs: |node| node.input(0).len() as u64 * node.output(0).len() as u64,
};

const NAME: &str = "fully_connected";

attributes! {
    /// The clamp.
    struct Attributes { clamp_min, clamp_max }
}
