//! 1x1 convolution with at most eight input channels: channel by channel, over all pixels, with the channel's weights in registers. A tile of four
//! pixels ([`CONV2D_PAIRS`](super::CONV2D_PAIRS)) costs more than it saves where a pixel has so few products.
//!
//! Packed: the weights `[out][in]`. No scratch memory. On rv32imc, an output takes 3 instructions per input and 13 more; less if a ReLU clamps it.

#[cfg(feature = "alloc")]
use super::{Attributes, NAME};
use super::{Conv2d, OPERATOR};
use crate::BrokenRule;
use crate::arena::Io;
use crate::image::Dtype;
use crate::kernels::{Channel, LITERAL, Literal, ONE_PASS, OnePass, multiply_accumulate};
use crate::operator::{Kernel, Run, nonzero, require, unchecked};
use crate::ops::channels;

/// Kernel of the 1x1 convolution with few input channels.
pub const CONV2D_NARROW: Kernel = Kernel {
    id: 47,
    name: "conv2d_narrow",
    operator: &OPERATOR,
    inputs: &[Dtype::Int8],
    outputs: &[Dtype::Int8],
    pitched: true,
    forms: &[LITERAL, ONE_PASS],
    check: |node| {
        node.require_no_scratch()?;
        check(&Conv2d::of(node)?)
    },
    run: Run::Apart(|node, io| {
        let convolution = Conv2d::<Channel>::of_checked(node);
        let Io { inputs, mut outputs, .. } = io;
        if convolution.requantization.is_one_pass() {
            run(&convolution, inputs.get(0), outputs.take());
        } else {
            run_literally(&convolution, inputs.get(0), outputs.take());
        }
    }),
    #[cfg(feature = "alloc")]
    cost,
    #[cfg(feature = "alloc")]
    pack,
};

/// The most input channels.
const MOST: usize = 8;

fn check(convolution: &Conv2d<'_, Channel>) -> Result<(), BrokenRule> {
    let Conv2d { attributes, weights, channels, groups, inputs_per_group: inputs, .. } = convolution;
    let outputs = convolution.output.shape[2] as usize;
    let fits = *groups == 1 && attributes.window().is_one_to_one() && *inputs <= MOST;
    require!(fits, "not a 1x1 convolution of at most 8 channels, input channels", *inputs as i64);
    require!(weights.len() as u64 == *inputs as u64 * outputs as u64, "wrong number of weights", weights.len() as i64);
    require!(channels.len() == outputs, "wrong number of channels", channels.len() as i64);
    channels::check_clamp((attributes.clamp_min, attributes.clamp_max))?;
    channels::Check::new(convolution.requantization.form()).blocks(channels, weights, 1, *inputs)
}

/// Computes a layer in the literal form.
// One function for any number of inputs: the form is rare, and code for each number takes 2 KB.
#[cold]
#[inline(never)]
fn run_literally(convolution: &Conv2d<'_, Channel>, input: &[i8], output: &mut [i8]) {
    let &Conv2d { weights, channels, pitch, requantization, inputs_per_group: inputs, .. } = convolution;
    let input_pitch = convolution.input.pitch as usize;
    for (from, to) in input.chunks(nonzero(input_pitch)).zip(output.chunks_mut(nonzero(pitch))) {
        for ((output, channel), weights) in to.iter_mut().zip(channels).zip(weights.chunks_exact(nonzero(inputs))) {
            let products = weights.iter().zip(from).map(|(&weight, &x)| i32::from(weight) * i32::from(x));
            *output = requantization.apply_as::<Literal>(channel, channel.bias + products.sum::<i32>());
        }
    }
}

fn run(convolution: &Conv2d<'_, Channel>, input: &[i8], output: &mut [i8]) {
    match convolution.inputs_per_group {
        1 => run_of::<1>(convolution, input, output),
        2 => run_of::<2>(convolution, input, output),
        3 => run_of::<3>(convolution, input, output),
        4 => run_of::<4>(convolution, input, output),
        5 => run_of::<5>(convolution, input, output),
        6 => run_of::<6>(convolution, input, output),
        7 => run_of::<7>(convolution, input, output),
        _ => run_of::<MOST>(convolution, input, output),
    }
}

#[inline(never)]
fn run_of<const N: usize>(convolution: &Conv2d<'_, Channel>, input: &[i8], output: &mut [i8]) {
    let &Conv2d { weights, channels, pitch, requantization, .. } = convolution;
    let [from, to] = [convolution.input, convolution.output].map(|value| value.shape);
    let (pixels, input_pitch) = ((to[0] * to[1]) as usize, convolution.input.pitch as usize);
    let before_last = nonzero(pixels) - 1;
    if from[2] as usize != N
        || input.len() < before_last * input_pitch + N
        || output.len() < before_last * pitch + channels.len()
    {
        unchecked();
    }
    for (index, (channel, weights)) in channels.iter().zip(weights.as_chunks::<N>().0).enumerate() {
        let weights = weights.map(i32::from);
        let (mut input, mut output) = (input.as_ptr(), output.as_mut_ptr().wrapping_add(index));
        for _ in 0..pixels {
            let mut sum = channel.bias;
            for (place, &weight) in weights.iter().enumerate() {
                // SAFETY: one of the `N` inputs of a pixel, whose places were checked above. As an array, LLVM loads them as one word from any
                // address, byte by byte, and takes it apart: 2 instructions more per input.
                let x = unsafe { *input.add(place) };
                sum = multiply_accumulate(sum, x.into(), weight);
            }
            // SAFETY: as above.
            unsafe { *output = requantization.apply_as::<OnePass>(channel, sum) };
            (input, output) = (input.wrapping_add(input_pitch), output.wrapping_add(pitch));
        }
    }
}

#[cfg(feature = "alloc")]
fn cost(layer: &crate::image::Layer<'_>) -> Option<crate::image::Cost> {
    let attributes = Attributes::read(&layer.attributes).ok()?;
    let inputs = layer.inputs[0].shape[2];
    let fits = attributes.groups == 1 && attributes.window().is_one_to_one() && inputs as usize <= MOST;
    let outputs = layer.outputs[0].len() as u64;
    fits.then_some(crate::image::Cost {
        instructions: outputs * (3 * u64::from(inputs) + 13) + 30 * u64::from(layer.outputs[0].shape[2]) + 600,
        stalls: 8 * outputs,
    })
}

#[cfg(feature = "alloc")]
fn pack(layer: &crate::image::Layer<'_>) -> Result<crate::image::Packed, crate::image::WriteError> {
    use zerocopy::IntoBytes;
    let attributes = Attributes::read(&layer.attributes).map_err(|broken| broken.of(NAME))?;
    let (inputs, outputs) = (layer.inputs[0].shape[2] as usize, layer.outputs[0].shape[2] as usize);
    let per_output = attributes.window().area() * inputs;
    let (form, channels) = channels::pack::channels(layer, outputs, per_output)?;
    let weights = layer.int8("weights", outputs * per_output)?;
    let constants = alloc::vec![weights.as_bytes().to_vec(), channels.as_bytes().to_vec()];
    Ok(crate::image::Packed { form, constants, scratch_length: 0, read: None })
}
