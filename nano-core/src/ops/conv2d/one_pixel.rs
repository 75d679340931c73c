//! Convolution with one output pixel whose window covers the whole input: a fully connected layer
//! ([`FULLY_CONNECTED_PAIRS`](crate::ops::FULLY_CONNECTED_PAIRS)). Taps in the padding see the input's zero point, which adds nothing; they are
//! left out of the constants.

#[cfg(feature = "alloc")]
use alloc::vec::Vec;

use super::{Attributes, OPERATOR};
use crate::BrokenRule;
use crate::image::{Dtype, Value};
#[cfg(feature = "alloc")]
use crate::kernels::Channel;
use crate::node::Node;
use crate::operator::{Kernel, Run, require};
#[cfg(feature = "alloc")]
use crate::ops::channels;
#[cfg(feature = "alloc")]
use crate::ops::fully_connected;
use crate::ops::fully_connected::{ChannelPairs, FORMS};
use crate::ops::window::{Axis, Window};

/// Kernel of the convolution with one output pixel.
pub const CONV2D_ONE_PIXEL: Kernel = Kernel {
    id: 45,
    name: "conv2d_one_pixel",
    operator: &OPERATOR,
    inputs: &[Dtype::Int8],
    outputs: &[Dtype::Int8],
    pitched: false,
    forms: FORMS,
    check: |node| {
        let attributes = Attributes::read(node.attributes())?;
        let covered = covers(&attributes, node.input(0), node.output(0));
        require!(covered, "not a window over the whole input, output pixels", node.output(0).len() as i64);
        layer(node)?.check(node)
    },
    run: Run::Apart(|node, mut io| {
        ChannelPairs::of_checked(node, layer).run(io.inputs.get(0), io.outputs.take());
    }),
    #[cfg(feature = "alloc")]
    cost,
    #[cfg(feature = "alloc")]
    pack,
};

/// Whether the only window covers the whole input.
fn covers(attributes: &Attributes, input: &Value, output: &Value) -> bool {
    let Window { vertical, horizontal } = attributes.window();
    let [height, width, _] = input.shape;
    let covered = |axis: Axis, length: u32| axis.covered(0, length) == (0, length as usize);
    let pixels = output.shape[0] as u64 * u64::from(output.shape[1]);
    attributes.groups == 1 && pixels == 1 && covered(vertical, height) && covered(horizontal, width)
}

fn layer<'a>(node: &Node<'a>) -> Result<ChannelPairs<'a>, BrokenRule> {
    let attributes = Attributes::read(node.attributes())?;
    ChannelPairs::read(node, (attributes.clamp_min, attributes.clamp_max))
}

#[cfg(feature = "alloc")]
fn cost(layer: &crate::image::Layer<'_>) -> Option<crate::image::Cost> {
    let attributes = Attributes::read(&layer.attributes).ok()?;
    let (input, output) = (&layer.inputs[0], &layer.outputs[0]);
    let (form, channels, _) = covers(&attributes, input, output).then(|| product(layer, &attributes).ok())??;
    fully_connected::cost(form, &channels, input.len() as u64)
}

#[cfg(feature = "alloc")]
fn pack(layer: &crate::image::Layer<'_>) -> Result<crate::image::Packed, crate::image::WriteError> {
    let attributes = Attributes::read(&layer.attributes).map_err(|broken| broken.of(super::NAME))?;
    let (_, channels, weights) = product(layer, &attributes)?;
    Ok(fully_connected::pack(&channels, &weights, layer.inputs[0].len()))
}

/// The matrix-vector product: form and channels of its requantization, and its weights `[channel][input]`.
#[cfg(feature = "alloc")]
fn product(
    layer: &crate::image::Layer<'_>,
    attributes: &Attributes,
) -> Result<(u8, Vec<Channel>, Vec<i8>), crate::image::WriteError> {
    use channels::pack::{Accumulator, requantizations};
    let Window { vertical, horizontal } = attributes.window();
    let (input, output) = (&layer.inputs[0], &layer.outputs[0]);
    let [height, width, inputs] = input.shape.map(|side| side as usize);
    let outputs = output.len();
    let [kernel_height, kernel_width] = [vertical, horizontal].map(|axis| axis.kernel as usize);
    let [top, left] = [vertical, horizontal].map(|axis| (axis.before / axis.dilation) as usize);
    let taps = layer.int8("weights", outputs * kernel_height * kernel_width * inputs)?;
    let rows = taps.chunks_exact(kernel_width * inputs).enumerate();
    let inside = rows.filter(|(row, _)| (top..top + height).contains(&(row % kernel_height)));
    let weights: Vec<i8> = inside.flat_map(|(_, row)| &row[left * inputs..(left + width) * inputs]).copied().collect();
    let channels = weights.chunks_exact(input.len()).zip(layer.int32("bias", outputs)?);
    let channels = channels.zip(layer.float32("weight_scales", outputs)?);
    let folded = channels.map(|((weights, &bias), &scale)| Accumulator::fold(layer, weights, bias, scale));
    let (form, channels) = requantizations(&folded.collect::<Result<Vec<_>, _>>()?, output.zero_point);
    Ok((form, channels, weights))
}
