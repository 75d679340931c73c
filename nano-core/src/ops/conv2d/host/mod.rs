//! The convolution on a PC: a padded copy of the image, and a matrix product whose rows are windows of it.

mod unpack;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cell::Cell;

use super::add::Parts;
use super::{Attributes, CONV2D_ONE_PIXEL, Conv2d};
use crate::arena::{Io, Samples};
use crate::host::HostLayer;
use crate::host::matrix::{Matrix, Rows};
use crate::host::processor::{Instructions, Processor, Task};
use crate::host::rows::{Padded, size};
use crate::image::Value;
use crate::kernels::Channel;
use crate::node::Node;
use crate::ops::fully_connected;
use crate::ops::sums::Addition;

/// Prepares a convolution.
pub(in crate::ops) fn prepare(node: &Node<'_>, kernel: &str, processor: Processor) -> Option<Box<dyn HostLayer>> {
    if kernel == CONV2D_ONE_PIXEL.name {
        let attributes = Attributes::read(node.attributes()).ok()?;
        return fully_connected::host::prepare_pairs(node, (attributes.clamp_min, attributes.clamp_max), processor);
    }
    let convolution = Conv2d::<Channel>::of(node).ok()?;
    let weights = unpack::weights(kernel, &convolution)?;
    Some(processor.run(Prepare { convolution, weights, addition: None }))
}

/// Prepares a convolution that is fused with a residual addition.
pub(in crate::ops) fn prepare_add(node: &Node<'_>, kernel: &str, processor: Processor) -> Option<Box<dyn HostLayer>> {
    let Parts { convolution, addition } = Parts::read(node).ok()?;
    let weights = unpack::weights(kernel, &convolution)?;
    Some(processor.run(Prepare { convolution, weights, addition: Some(addition) }))
}

struct Prepare<'a> {
    convolution: Conv2d<'a, Channel>,
    weights: Vec<i8>,
    addition: Option<Addition>,
}

/// A convolution for a processor.
struct Layer<I: Instructions> {
    padded: Padded,
    /// One per group.
    matrices: Vec<Matrix<I>>,
    windows: Windows,
    /// Bytes from a group's inputs to the next one's.
    group_step: usize,
    outputs_per_group: usize,
    pixels: usize,
    channels: usize,
    /// Of the output.
    pitch: usize,
    addition: Option<Addition>,
}

/// Where windows lie in the padded copy, in bytes.
struct Windows {
    starts: Vec<u32>,
    segments: Vec<u32>,
    /// Inputs of a segment.
    inputs: usize,
}

impl Windows {
    fn new(attributes: &Attributes, padded: &Padded, output: &Value, groups: usize, size: usize) -> Windows {
        let window = attributes.window();
        let (vertical, horizontal) = (window.vertical, window.horizontal);
        let places = |rows: u32, row_step: i32, columns: u32, column_step: i32| {
            let places = (0..rows).flat_map(|y| (0..columns).map(move |x| (y, x)));
            let places = places.map(|(y, x)| {
                let pixel = y as usize * row_step as usize * padded.columns + x as usize * column_step as usize;
                (pixel * padded.channels * size) as u32
            });
            places.collect()
        };
        // Taps without a gap between them are one segment.
        let (in_row, inputs) = match groups == 1 && horizontal.dilation == 1 {
            true => (1, horizontal.kernel as usize * padded.channels),
            false => (horizontal.kernel, padded.channels / groups),
        };
        Windows {
            starts: places(output.shape[0], vertical.stride, output.shape[1], horizontal.stride),
            segments: places(vertical.kernel as u32, vertical.dilation, in_row as u32, horizontal.dilation),
            inputs,
        }
    }
}

impl Task for Prepare<'_> {
    type Output = Box<dyn HostLayer>;

    #[inline(always)]
    unsafe fn run<I: Instructions>(self) -> Box<dyn HostLayer> {
        let Prepare { convolution, weights, addition } = self;
        let Conv2d { attributes, input, output, channels, groups, .. } = convolution;
        let padded = Padded::new(input, attributes.window());
        let windows = Windows::new(&attributes, &padded, output, groups, size::<I>());
        let per_group = channels.len() / groups;
        let matrices = (channels.chunks(per_group)).zip(weights.chunks(weights.len() / groups)).map(
            |(channels, weights): (&[Channel], &[i8])| {
                Matrix::new(channels, convolution.requantization, windows.segments.len(), windows.inputs, weights)
            },
        );
        Box::new(Layer::<I> {
            padded,
            matrices: matrices.collect(),
            group_step: padded.channels / groups * size::<I>(),
            outputs_per_group: per_group,
            pixels: windows.starts.len(),
            windows,
            channels: channels.len(),
            pitch: output.pitch as usize,
            addition,
        })
    }
}

impl<I: Instructions> HostLayer for Layer<I> {
    fn run(&self, _: &Node<'_>, mut samples: Samples<'_>, scratch: &mut Vec<u8>) {
        samples.each(|_, Io { inputs, mut outputs, .. }| {
            // SAFETY: the layer was prepared for these instructions.
            unsafe { I::run(Convolve { layer: self, input: inputs.get(0), output: outputs.take(), scratch }) }
        });
    }
}

/// The convolution of one sample.
struct Convolve<'a, I: Instructions> {
    layer: &'a Layer<I>,
    input: &'a [i8],
    output: &'a mut [i8],
    scratch: &'a mut Vec<u8>,
}

impl<I: Instructions> Task for Convolve<'_, I> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<J: Instructions>(self) {
        let Convolve { layer, input, output, scratch } = self;
        let convolved = if layer.addition.is_some() { layer.pixels * layer.channels } else { 0 };
        scratch.resize(scratch.len().max(convolved + layer.padded.bytes::<I>()), 0);
        let (convolved, copy) = scratch.split_at_mut(convolved);
        // SAFETY: the caller's.
        unsafe { layer.padded.copy::<I>(input, copy) };
        let convolved: &mut [i8] = zerocopy::FromBytes::mut_from_bytes(convolved).expect("bytes lie anywhere");
        let (to, pitch) = match &layer.addition {
            None => (&mut *output, layer.pitch),
            Some(_) => (&mut *convolved, layer.channels),
        };
        for (group, matrix) in layer.matrices.iter().enumerate() {
            let rows = Rows {
                memory: &copy[group * layer.group_step..],
                starts: &layer.windows.starts,
                segments: &layer.windows.segments,
                words_per_segment: layer.windows.inputs.div_ceil(I::GROUP),
            };
            // SAFETY: the caller's.
            unsafe { matrix.multiply(&rows, &mut to[group * layer.outputs_per_group..], pitch) };
        }
        let Some(addition) = &layer.addition else { return };
        let (length, step) = match layer.pitch == layer.channels {
            true => (convolved.len(), convolved.len()),
            false => (layer.channels, layer.pitch),
        };
        for (convolved, residual) in convolved.chunks_mut(length).zip(output.chunks_mut(step)) {
            let [convolved, sum] = [convolved, residual].map(|bytes| Cell::from_mut(bytes).as_slice_of_cells());
            // SAFETY: the caller's.
            unsafe { addition.run_on::<I>(convolved, sum, sum) };
        }
    }
}
