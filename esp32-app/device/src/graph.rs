//! The inputs and outputs of the graph as messages carry them: the bytes of all of them, one after the other.

use nano_core::Model;
use nano_core::image::{ChannelScale, Image, Value};
use zerocopy::IntoBytes;

use crate::failure::Failure;
use crate::message::{GraphValue, Response};

/// Bytes of all inputs.
#[inline(never)]
pub(crate) fn input_length(image: &Image<'_>) -> usize {
    (0..image.input_count()).fold(0, |sum: usize, index| sum.saturating_add(length(image.input(index))))
}

/// Bytes of all outputs.
#[inline(never)]
pub(crate) fn output_length(image: &Image<'_>) -> usize {
    (0..image.output_count()).fold(0, |sum: usize, index| sum.saturating_add(length(image.output(index))))
}

fn length(value: &Value) -> usize {
    value.range().len()
}

/// Copies `bytes` into the inputs, from byte `offset` of all of them on; ignores bytes beyond the last input.
#[inline(never)]
pub(crate) fn write_inputs(model: &mut Model<'_>, mut offset: usize, mut bytes: &[u8]) {
    for index in 0..model.image().input_count() {
        let input = model.input(index).as_mut_bytes();
        let length = input.len();
        if let Some(rest) = input.get_mut(offset..) {
            let count = rest.len().min(bytes.len());
            let (now, later) = bytes.split_at_checked(count).unwrap_or((bytes, &[]));
            rest.iter_mut().zip(now).for_each(|(place, &byte)| *place = byte);
            bytes = later;
        }
        offset = offset.saturating_sub(length);
    }
}

/// The bytes of the outputs from byte `offset` of all of them on, up to the end of the output in which that lies.
pub(crate) fn read_outputs<'m>(model: &'m Model<'_>, mut offset: usize) -> Option<&'m [u8]> {
    for index in 0..model.image().output_count() {
        let output = model.output(index).as_bytes();
        match output.get(offset..) {
            Some(rest) if !rest.is_empty() => return Some(rest),
            _ => offset = offset.saturating_sub(output.len()),
        }
    }
    (offset == 0).then_some(&[])
}

/// Describes an input or output.
pub(crate) fn describe<'i>(image: &Image<'i>, wanted: GraphValue) -> Result<Response<'i>, Failure> {
    let (key, index, value, channels) = match wanted {
        GraphValue::Input(index) => {
            let index = index as usize;
            let channels = channels(image, index)?;
            ("input", index, image.input(index), channels)
        }
        GraphValue::Output(index) => {
            let (index, count) = (index as usize, image.output_count());
            if index >= count {
                return Err(Failure::GraphValue { count: count as u32 });
            }
            ("output", index, image.output(index), &[][..])
        }
    };
    Ok(Response::Description {
        name: image.metadata(key).nth(index).unwrap_or_default(),
        elements: value.dtype().into(),
        shape: value.shape,
        scale: value.scale,
        zero_point: value.zero_point,
        channels_length: size_of_val(channels) as u32,
    })
}

/// The channel scales of the input with this index.
pub(crate) fn channels<'i>(image: &Image<'i>, index: usize) -> Result<&'i [ChannelScale], Failure> {
    let count = image.input_count();
    if index < count { Ok(image.input_channels(index)) } else { Err(Failure::GraphValue { count: count as u32 }) }
}
