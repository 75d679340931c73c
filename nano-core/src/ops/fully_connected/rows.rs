//! Fully connected layer (matrix-vector product): up to eight output channels in one pass over the inputs.
//!
//! Packed: groups of 8 output channels, then of 4, 2 and 1 for the rest, each `[in][channels of the group]`.

use super::{Attributes, NAME, OPERATOR};
use crate::BrokenRule;
use crate::arena::Io;
use crate::image::Element;
use crate::kernels::{Channel, LITERAL, ONE_PASS, Requantization, WideChannel};
use crate::node::Node;
use crate::operator::{Checked, CheckedPart, Kernel, Run, require};
use crate::ops::channels::{self, ChannelRules};

/// Kernel of the fully connected layer.
pub const FULLY_CONNECTED: Kernel = kernel::<Channel>(3, NAME);
/// Kernel of the fully connected layer of int16.
pub const FULLY_CONNECTED_INT16: Kernel = kernel::<WideChannel>(31, "fully_connected_int16");

const fn kernel<C: ChannelRules>(id: u16, name: &'static str) -> Kernel {
    Kernel {
        id,
        name,
        operator: &OPERATOR,
        inputs: <C::Element as Element>::DTYPES,
        outputs: <C::Element as Element>::DTYPES,
        pitched: false,
        forms: &[LITERAL, ONE_PASS],
        check: |node| FullyConnected::<C>::read(node)?.check(node),
        run: Run::Apart(run::<C>),
        #[cfg(feature = "alloc")]
        cost: |layer| Some(cost(layer.inputs[0].len() as u64, layer.outputs[0].len())),
        #[cfg(feature = "alloc")]
        pack: pack::<C>,
    }
}

struct FullyConnected<'a, C> {
    weights: &'a [i8],
    channels: &'a [C],
    requantization: Requantization,
}

/// Number of channels of each packed group.
pub(super) fn groups(outputs: usize) -> impl Iterator<Item = usize> {
    let mut rest = outputs;
    core::iter::from_fn(move || {
        let size = [8, 4, 2, 1].into_iter().find(|&size| size <= rest)?;
        rest -= size;
        Some(size)
    })
}

impl<'a, C: ChannelRules> FullyConnected<'a, C> {
    fn read(node: &Node<'a>) -> Result<Self, BrokenRule> {
        let attributes = Attributes::read(node.attributes())?;
        let requantization = Requantization::new(node.form(), attributes.clamp_min, attributes.clamp_max);
        let weights = node.constant(0)?;
        let channels = node.constant(1)?;
        Ok(FullyConnected { weights, channels, requantization })
    }

    fn check(&self, node: &Node<'_>) -> Result<(), BrokenRule> {
        let (inputs, outputs) = (node.input(0).len(), node.output(0).len());
        let weights = inputs as u64 * outputs as u64;
        require!(self.weights.len() as u64 == weights, "wrong number of weights", self.weights.len() as i64);
        require!(self.channels.len() == outputs, "wrong number of channels", self.channels.len() as i64);
        node.require_no_scratch()?;
        channels::check_clamp_of(C::Element::DTYPE, (self.requantization.min, self.requantization.max))?;
        let mut check = channels::Check::new(node.form());
        let (mut weights, mut channels) = (self.weights, self.channels);
        for size in groups(outputs) {
            let (block, other_weights) = weights.split_at_checked(size * inputs).checked_part();
            let (group, other_channels) = channels.split_at_checked(size).checked_part();
            check.blocks(group, block, size, block.len())?;
            (weights, channels) = (other_weights, other_channels);
        }
        Ok(())
    }
}

fn run<C: ChannelRules>(node: &Node<'_>, mut io: Io<'_>) {
    let FullyConnected::<C> { weights, channels, requantization } = FullyConnected::read(node).checked();
    let inputs = io.inputs.get(0);
    let mut rest = Rest { weights, channels, output: io.outputs.take(), requantization };
    while rest.output.len() >= 8 {
        rest.group::<8>(inputs);
    }
    if rest.output.len() >= 4 {
        rest.group::<4>(inputs);
    }
    if rest.output.len() >= 2 {
        rest.group::<2>(inputs);
    }
    if !rest.output.is_empty() {
        rest.group::<1>(inputs);
    }
}

/// The packed groups not yet computed.
struct Rest<'a, 'm, C: ChannelRules> {
    weights: &'a [i8],
    channels: &'a [C],
    output: &'m mut [C::Element],
    requantization: Requantization,
}

impl<C: ChannelRules> Rest<'_, '_, C> {
    /// Computes the next group, of `SIZE` channels.
    fn group<const SIZE: usize>(&mut self, inputs: &[C::Element]) {
        let (channels, other_channels) = self.channels.split_first_chunk::<SIZE>().checked();
        let (weights, other_weights) = self.weights.split_at_checked(SIZE * inputs.len()).checked_part();
        let (output, other_outputs) = core::mem::take(&mut self.output).split_first_chunk_mut::<SIZE>().checked();
        let sums = C::dot_rows(channels, inputs, weights.as_chunks().0);
        for ((output, channel), sum) in output.iter_mut().zip(channels).zip(sums) {
            *output = self.requantization.apply(channel, sum);
        }
        (self.channels, self.weights, self.output) = (other_channels, other_weights, other_outputs);
    }
}

/// The estimate: a multiply-accumulate takes 3 instructions, an input of a group of channels 1 and a quarter of the loop's 3 and its branch; an
/// output 18.
#[cfg(feature = "alloc")]
fn cost(inputs: u64, outputs: usize) -> crate::image::Cost {
    let groups = groups(outputs).count() as u64;
    let outputs = outputs as u64;
    crate::image::Cost {
        instructions: 3 * inputs * outputs + groups * inputs * 7 / 4 + 18 * outputs + 270,
        stalls: groups * inputs / 2 + 9 * outputs,
    }
}

#[cfg(feature = "alloc")]
fn pack<C: ChannelRules>(layer: &crate::image::Layer<'_>) -> Result<crate::image::Packed, crate::image::WriteError> {
    use alloc::vec;
    use zerocopy::IntoBytes;
    let (inputs, outputs) = (layer.inputs[0].len(), layer.outputs[0].len());
    let (form, channels) = C::pack(layer, outputs, inputs)?;
    let weights = layer.int8("weights", outputs * inputs)?;
    let mut next = 0;
    let packed = groups(outputs)
        .flat_map(|size| {
            let first = next;
            next += size;
            (0..inputs * size).map(move |index| weights[(first + index % size) * inputs + index / size] as u8)
        })
        .collect();
    let constants = vec![packed, channels.as_bytes().to_vec()];
    Ok(crate::image::Packed { form, constants, scratch_length: 0, read: None })
}
