//! The depthwise convolution on a PC: a padded copy of the image, and rows of outputs.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::lines::Layout;
use super::{Attributes, Blocks};
use crate::arena::{Io, Samples};
use crate::host::processor::{Instructions, Processor, Task};
use crate::host::rows::{Padded, size};
use crate::host::taps::Taps;
use crate::host::{HostLayer, are_even};
use crate::image::Value;
use crate::kernels::{Channel, ONE_PASS, Requantization};
use crate::node::Node;
use crate::ops::window::Window;

/// Prepares a depthwise convolution.
pub(in crate::ops) fn prepare(node: &Node<'_>, kernel: &str, processor: Processor) -> Option<Box<dyn HostLayer>> {
    let attributes = Attributes::read(node.attributes()).ok()?;
    let weights = weights(node, kernel, &attributes)?;
    let channels: &[Channel] = node.constant(1).ok()?;
    if node.form() == ONE_PASS && !are_even(channels.iter().map(|channel| &channel.multiplier)) {
        return None;
    }
    Some(processor.run(Prepare { node, attributes, channels, weights }))
}

/// The weights, `[channel][kernel_height][kernel_width]`.
fn weights(node: &Node<'_>, kernel: &str, attributes: &Attributes) -> Option<Vec<i8>> {
    let packed: &[i8] = node.constant(0).ok()?;
    let window = attributes.window();
    match kernel {
        "depthwise_conv2d" => Some(from_blocks(packed, node.output(0).shape[2] as usize, window.area())),
        "depthwise_conv2d_lines" => from_lines(packed, window, node.input(0), node.output(0)),
        _ => None,
    }
}

fn from_blocks(packed: &[i8], channels: usize, area: usize) -> Vec<i8> {
    let mut weights = alloc::vec![0; channels * area];
    let blocks = Blocks::new(channels);
    for (first, block) in blocks.firsts().zip(packed.chunks_exact(blocks.width * area)) {
        for (index, &weight) in block.iter().enumerate() {
            weights[(first + index % blocks.width) * area + index / blocks.width] = weight;
        }
    }
    weights
}

/// The weights of a line kernel; `None` if it has some beside the window.
pub(in crate::ops) fn from_lines(packed: &[i8], window: Window, input: &Value, output: &Value) -> Option<Vec<i8>> {
    let area = window.area();
    let mut weights = alloc::vec![0; output.shape[2] as usize * area];
    let layout = Layout::new(window, input, output)?;
    let (lines, taps) = layout.taps();
    for (weights, packed) in weights.chunks_exact_mut(area).zip(packed.chunks_exact(lines * taps)) {
        for (place, &weight) in packed.iter().enumerate() {
            match layout.weight(place / taps, place % taps) {
                Some(tap) => weights[tap] = weight,
                None if weight != 0 => return None,
                None => {}
            }
        }
    }
    Some(weights)
}

struct Prepare<'a> {
    node: &'a Node<'a>,
    attributes: Attributes,
    channels: &'a [Channel],
    weights: Vec<i8>,
}

/// A depthwise convolution for a processor.
struct Layer<I: Instructions> {
    padded: Padded,
    taps: Taps<I>,
    /// Bytes of the copy from the first tap of a row of outputs to that of the next.
    row_step: usize,
    rows: usize,
    /// Pixels in a row of outputs, their channels, and elements from one to the next.
    pixels: usize,
    channels: usize,
    pitch: usize,
}

impl Task for Prepare<'_> {
    type Output = Box<dyn HostLayer>;

    #[inline(always)]
    unsafe fn run<I: Instructions>(self) -> Box<dyn HostLayer> {
        let Prepare { node, attributes, channels, weights } = self;
        let (window, output) = (attributes.window(), node.output(0));
        let requantization = Requantization::new(node.form(), attributes.clamp_min, attributes.clamp_max);
        let (vertical, horizontal) = (window.vertical, window.horizontal);
        let padded = Padded::new(node.input(0), window).in_planes(horizontal.stride as usize);
        let row = padded.columns * padded.channels;
        let offsets = (0..vertical.kernel * vertical.dilation).step_by(vertical.dilation as usize).flat_map(|y| {
            let columns = (0..horizontal.kernel * horizontal.dilation).step_by(horizontal.dilation as usize);
            columns.map(move |x| (y as usize * row + padded.place(x as usize)) * size::<I>())
        });
        Box::new(Layer::<I> {
            padded,
            taps: Taps::new(channels, requantization, &weights, offsets.collect()),
            row_step: vertical.stride as usize * row * size::<I>(),
            rows: output.shape[0] as usize,
            pixels: output.shape[1] as usize,
            channels: channels.len(),
            pitch: output.pitch as usize,
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
        let length = layer.pixels * layer.channels;
        let dense = layer.pitch == layer.channels;
        let of_row = if dense { 0 } else { length };
        scratch.resize(scratch.len().max(of_row + layer.padded.bytes::<I>()), 0);
        let (row, copy) = scratch.split_at_mut(of_row);
        let row: &mut [i8] = zerocopy::FromBytes::mut_from_bytes(row).expect("bytes lie anywhere");
        // SAFETY: the caller's.
        unsafe { layer.padded.copy::<I>(input, copy) };
        for (y, output) in output.chunks_mut(layer.pixels * layer.pitch).enumerate().take(layer.rows) {
            let inputs = &copy[y * layer.row_step..];
            // SAFETY: the caller's.
            unsafe { layer.taps.row(inputs, if dense { &mut *output } else { &mut *row }) };
            if !dense {
                for (pixel, output) in row.chunks_exact(layer.channels).zip(output.chunks_mut(layer.pitch)) {
                    output[..layer.channels].copy_from_slice(pixel);
                }
            }
        }
    }
}
