//! The fully connected layer on a PC: a matrix product whose rows are samples.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::Attributes;
use super::rows::groups;
use crate::arena::{Io, Samples};
use crate::host::matrix::{Matrix, Rows};
use crate::host::processor::{Instructions, Processor, Task};
use crate::host::rows::size;
use crate::host::unpack::{from_blocks, from_channel_pairs};
use crate::host::{HostLayer, are_even};
use crate::kernels::{Channel, Requantization};
use crate::node::Node;

/// Prepares a fully connected layer.
pub(in crate::ops) fn prepare(node: &Node<'_>, kernel: &str, processor: Processor) -> Option<Box<dyn HostLayer>> {
    let Attributes { clamp_min, clamp_max } = Attributes::read(node.attributes()).ok()?;
    match kernel {
        "fully_connected" => {
            let (inputs, outputs) = (node.input(0).len(), node.output(0).len());
            let blocks = groups(outputs).map(|size| (size, size));
            let weights = from_blocks(node.constant(0).ok()?, blocks, inputs)?;
            prepare_with(node, &weights, node.constant(1).ok()?, (clamp_min, clamp_max), processor)
        }
        "fully_connected_pairs" => prepare_pairs(node, (clamp_min, clamp_max), processor),
        _ => None,
    }
}

/// Prepares a product of all elements of a node's input with weights of pairs of channels.
pub(in crate::ops) fn prepare_pairs(
    node: &Node<'_>,
    clamp: (i32, i32),
    processor: Processor,
) -> Option<Box<dyn HostLayer>> {
    let weights = from_channel_pairs(node.constant(0).ok()?, node.output(0).len(), node.input(0).len())?;
    let channels = super::ChannelPairs::read(node, clamp).ok()?.expanded(node.output(0).len());
    prepare_with(node, &weights, &channels, clamp, processor)
}

fn prepare_with(
    node: &Node<'_>,
    weights: &[i8],
    channels: &[Channel],
    (min, max): (i32, i32),
    processor: Processor,
) -> Option<Box<dyn HostLayer>> {
    let requantization = Requantization::new(node.form(), min, max);
    let inputs = node.input(0).len();
    if requantization.is_one_pass() && !are_even(channels.iter().map(|channel| &channel.multiplier)) {
        return None;
    }
    Some(processor.run(Prepare { weights, channels, requantization, inputs }))
}

struct Prepare<'a> {
    weights: &'a [i8],
    channels: &'a [Channel],
    requantization: Requantization,
    inputs: usize,
}

impl Task for Prepare<'_> {
    type Output = Box<dyn HostLayer>;

    #[inline(always)]
    unsafe fn run<I: Instructions>(self) -> Box<dyn HostLayer> {
        let Prepare { weights, channels, requantization, inputs } = self;
        let matrix = Matrix::<I>::new(channels, requantization, 1, inputs, weights);
        Box::new(Layer { matrix, inputs, outputs: channels.len() })
    }
}

/// A fully connected layer for a processor.
struct Layer<I: Instructions> {
    matrix: Matrix<I>,
    inputs: usize,
    outputs: usize,
}

impl<I: Instructions> HostLayer for Layer<I> {
    fn run(&self, _: &Node<'_>, samples: Samples<'_>, scratch: &mut Vec<u8>) {
        // SAFETY: the layer was prepared for these instructions.
        unsafe { I::run(Multiply { layer: self, samples, scratch }) }
    }
}

struct Multiply<'a, I: Instructions> {
    layer: &'a Layer<I>,
    samples: Samples<'a>,
    scratch: &'a mut Vec<u8>,
}

impl<I: Instructions> Task for Multiply<'_, I> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<J: Instructions>(self) {
        let Multiply { layer, mut samples, scratch } = self;
        let (length, outputs) = (layer.inputs.next_multiple_of(I::GROUP) * size::<I>(), layer.outputs);
        let of_inputs = length * samples.len();
        scratch.resize(scratch.len().max(of_inputs + outputs * samples.len()), 0);
        let (copies, results) = scratch.split_at_mut(of_inputs);
        samples.each(|sample, io| {
            let copy = &mut copies[sample * length..][..layer.inputs * size::<I>()];
            // SAFETY: the caller's.
            unsafe { I::convert(io.inputs.get(0), copy) };
        });
        let results: &mut [i8] = zerocopy::FromBytes::mut_from_bytes(results).expect("bytes lie anywhere");
        let starts: Vec<u32> = (0..samples.len()).map(|sample| (sample * length) as u32).collect();
        let rows = Rows {
            memory: copies,
            starts: &starts,
            segments: &[0],
            words_per_segment: layer.inputs.div_ceil(I::GROUP),
        };
        // SAFETY: the caller's.
        unsafe { layer.matrix.multiply(&rows, results, outputs) };
        samples.each(|sample, Io { outputs: mut output, .. }| {
            output.take().copy_from_slice(&results[sample * outputs..][..outputs]);
        });
    }
}
