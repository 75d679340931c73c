//! The weights of each kernel, `[out][kernel_height][kernel_width][in / groups]`.

use alloc::vec::Vec;

use super::super::{Conv2d, direct, winograd};
use crate::host::are_even;
use crate::host::unpack::{blocks_of, from_blocks};
use crate::kernels::{Channel, LANES};
use crate::ops::depthwise_conv2d;

/// The weights of a convolution packed for a kernel; `None` if the kernel is not known here.
pub(super) fn weights(kernel: &str, convolution: &Conv2d<'_, Channel>) -> Option<Vec<i8>> {
    let &Conv2d { weights, groups, per_group, .. } = convolution;
    if convolution.requantization.is_one_pass()
        && !are_even(convolution.channels.iter().map(|channel| &channel.multiplier))
    {
        return None;
    }
    let positions = convolution.window_length();
    match kernel {
        "conv2d"
        | "conv2d_add"
        | "conv2d_winograd2"
        | "conv2d_winograd4"
        | "conv2d_add_winograd2"
        | "conv2d_add_winograd4" => {
            let blocks = (0..groups).flat_map(|_| blocks_of(per_group, LANES));
            from_blocks(weights, blocks, positions)
        }
        "conv2d_pairs" | "conv2d_add_pairs" => {
            let (full, rest) = (per_group / LANES, per_group % LANES);
            let blocks = core::iter::repeat_n((LANES, LANES), full).chain(core::iter::repeat_n((1, 1), rest));
            from_blocks(weights, blocks, positions)
        }
        "conv2d_direct" => direct::unpacked(weights, &convolution.attributes, convolution.input, convolution.output),
        "conv2d_lines" => depthwise_conv2d::host::from_lines(
            weights,
            convolution.attributes.window(),
            convolution.input,
            convolution.output,
        ),
        "conv2d_narrow" => Some(weights.to_vec()),
        "conv2d_winograd4_transformed" => winograd::restored(weights, per_group, convolution.inputs_per_group),
        _ => None,
    }
}
