//! What recurrent layers share: the gates' pre-activations in one step, of the input and of the state before it.
//!
//! A layer with H hidden units and G gates has two matrices of int8 weights per output channel (gate and unit), `W` for the input and `R` for the
//! state. Of each product an accumulator `b + sum (x - z) w` becomes a fixed-point number in int32, with a multiplier of its channel. Its scale
//! does not depend on data: it is the one that the activation reads, so no range has to be observed, and nothing saturates before the
//! activation does.
//!
//! Tensors for the writer, with the gates one after the other: `weight_ih` int8 `[G H, F]`, `bias_ih` int32 `[G H]` of scale `s_x s_w`,
//! `scales_ih` float32 `[G H]`, s_w; and those for the state: `weight_hh` `[G H, H]`, `bias_hh` of scale `s_y s_w`, `scales_hh`.
//!
//! Constants: one multiplier; the weights of the input, `[block][gate][input][4]` with blocks of four units, the last one filled up with
//! zeros; those of the state; a [`Channel`] each, `[block][gate][4]`.

use core::slice::ChunksExact;

use crate::BrokenRule;
use crate::arena::{Inputs, Outputs};
use crate::fixed_point::Multiplier;
use crate::kernels::{Channel, Form, LANES, add_rows, clamp};
use crate::node::Node;
use crate::operator::{CheckedPart, nonzero, require};
use crate::ops::channels;

/// The exponent of the steps of the fixed-point numbers that sigmoid and tanh read.
pub(crate) const EXPONENT: i32 = -12;
/// Fractional bits of the numbers that they return.
pub(crate) const RESULT_BITS: u32 = 15;
/// The steps that they read.
#[cfg(feature = "alloc")]
pub(crate) const SCALE: f32 = 1.0 / (1u32 << -EXPONENT) as f32;
/// The steps that they return.
#[cfg(feature = "alloc")]
pub(crate) const ACTIVATION_SCALE: f64 = 1.0 / (1u32 << RESULT_BITS) as f64;

/// The sum, saturated to int16.
pub(crate) fn saturated_sum(a: i32, b: i32) -> i16 {
    clamp(a.saturating_add(b), i16::MIN.into(), i16::MAX.into()) as i16
}

/// The gates of one node, `G` of them.
pub(crate) struct Gates<'a, const G: usize> {
    of_input: Product<'a>,
    of_state: Product<'a>,
    /// From the activation to the output.
    pub(crate) multiplier: Multiplier,
}

struct Product<'a> {
    weights: &'a [[i8; LANES]],
    channels: &'a [Channel],
    /// Number of elements that a channel adds up.
    inputs: usize,
}

/// The gates' fixed-point numbers of a block of four units, of the input and of the state.
pub(crate) type Block<const G: usize> = [[[i32; LANES]; G]; 2];

/// The output's shape, that of a sequence with as many steps as the input.
pub(crate) fn shape(node: &Node<'_>) -> Result<[u32; 3], BrokenRule> {
    let [height, steps, _] = node.input(0).shape;
    require!(height == 1, "the input is not a sequence: its height", height);
    Ok([1, steps, node.output(0).shape[2]])
}

/// Multiply-accumulates of a layer of `gates` gates.
pub(crate) fn macs(node: &Node<'_>, gates: u64) -> u64 {
    let channels = u64::from(node.input(0).shape[2]) + u64::from(node.output(0).shape[2]);
    gates * node.output(0).len() as u64 * channels
}

impl<'a, const G: usize> Gates<'a, G> {
    pub(crate) fn read(node: &Node<'a>) -> Result<Self, BrokenRule> {
        let [multiplier] = node.multipliers()?;
        let product = |index: usize, inputs: u32| {
            let weights = node.constant(index)?;
            Ok(Product { weights, channels: node.constant(index + 1)?, inputs: nonzero(inputs as usize) })
        };
        let (of_input, of_state) = (product(1, node.input(0).shape[2])?, product(3, node.output(0).shape[2])?);
        Ok(Gates { of_input, of_state, multiplier })
    }

    /// Checks all constants; no accumulator can overflow then.
    pub(crate) fn check(node: &Node<'a>) -> Result<(), BrokenRule> {
        let gates = Self::read(node)?;
        let channels = node.output(0).shape[2].div_ceil(LANES as u32) as usize * LANES * G;
        for product in [gates.of_input, gates.of_state] {
            require!(product.channels.len() == channels, "wrong number of channels", product.channels.len() as i64);
            let weights = (channels / LANES) as u64 * product.inputs as u64;
            require!(product.weights.len() as u64 == weights, "wrong number of weights", product.weights.len() as i64);
            let weights = product.weights.as_flattened();
            channels::Check::new(node.form()).blocks(product.channels, weights, LANES, LANES * product.inputs)?;
        }
        Ok(())
    }

    /// Runs over the steps of the sequence; the int8 state before the first is zero, and is kept in `start`. `update` writes the outputs of up to
    /// four units: it gets them, the index of their block, and the gates' fixed-point numbers.
    #[inline(always)]
    pub(crate) fn run<F: Form>(
        &self,
        node: &Node<'_>,
        inputs: Inputs<'_>,
        mut outputs: Outputs<'_>,
        start: &mut [i8],
        mut update: impl FnMut(&mut [i8], usize, Block<G>),
    ) {
        let (input, output) = (node.input(0), node.output(0));
        let (features, units) = (input.shape[2] as usize, output.shape[2] as usize);
        start.fill(output.zero_point as i8);
        let mut before: &[i8] = start;
        let inputs = inputs.get::<i8>(0).chunks(nonzero(input.pitch as usize));
        for (x, y) in inputs.zip(outputs.take::<i8>().chunks_mut(nonzero(output.pitch as usize))) {
            let (x, y) = (x.get(..features).checked_part(), y.get_mut(..units).checked_part());
            let products = self.of_input.blocks::<G>().zip(self.of_state.blocks::<G>());
            for (index, (outputs, (of_input, of_state))) in y.chunks_mut(LANES).zip(products).enumerate() {
                update(outputs, index, [of_input.multiply::<F>(x), of_state.multiply::<F>(before)]);
            }
            before = y;
        }
    }
}

impl<'a> Product<'a> {
    fn blocks<const G: usize>(&self) -> impl Iterator<Item = ProductBlock<'a, G>> + use<'a, G> {
        let inputs = nonzero(self.inputs);
        let channels = self.channels.as_chunks::<LANES>().0.as_chunks::<G>().0;
        let weights = self.weights.chunks_exact(nonzero(G * inputs));
        channels
            .iter()
            .zip(weights)
            .map(move |(channels, weights)| ProductBlock { channels, weights: weights.chunks_exact(inputs) })
    }
}

struct ProductBlock<'a, const G: usize> {
    channels: &'a [[Channel; LANES]; G],
    weights: ChunksExact<'a, [i8; LANES]>,
}

impl<const G: usize> ProductBlock<'_, G> {
    fn multiply<F: Form>(mut self, inputs: &[i8]) -> [[i32; LANES]; G] {
        self.channels.each_ref().map(|channels| multiply::<F>(channels, inputs, self.weights.next().checked_part()))
    }
}

// Not inlined: a layer has up to six places that call it.
#[inline(never)]
fn multiply<F: Form>(channels: &[Channel; LANES], inputs: &[i8], weights: &[[i8; LANES]]) -> [i32; LANES] {
    let mut sums = channels.each_ref().map(|channel| channel.bias);
    add_rows(&mut sums, inputs, weights);
    let [a, b, c, d] = channels;
    let [of_a, of_b, of_c, of_d] = sums;
    [F::requantize(a, of_a), F::requantize(b, of_b), F::requantize(c, of_c), F::requantize(d, of_d)]
}

#[cfg(feature = "alloc")]
pub(crate) mod pack {
    use alloc::vec::Vec;

    use zerocopy::IntoBytes;

    use crate::fixed_point::Multiplier;
    use crate::image::{Layer, Packed, WriteError};
    use crate::kernels::LANES;
    use crate::ops::channels::pack::{Accumulator, requantizations};

    /// Packs a layer of `gates` gates whose fixed-point numbers have steps of `scale`, and whose activation has steps of `activation_scale`.
    pub(crate) fn gates(
        layer: &Layer<'_>,
        gates: usize,
        scale: f32,
        activation_scale: f64,
    ) -> Result<Packed, WriteError> {
        let (input, output) = (layer.inputs[0], layer.outputs[0]);
        let units = output.shape[2] as usize;
        let real = activation_scale / f64::from(output.scale);
        let multiplier = Multiplier::from_real(real)
            .ok_or_else(|| layer.refused("the activation's step / s_y is not in [0, 2^30)", real))?;
        let places = places(units, gates);
        let mut accumulators = Vec::new();
        let mut weights = Vec::new();
        let names = [("weight_ih", "bias_ih", "scales_ih"), ("weight_hh", "bias_hh", "scales_hh")];
        for (value, (weight, bias, scales)) in [input, output].into_iter().zip(names) {
            let mut fixed_point = output;
            (fixed_point.scale, fixed_point.zero_point) = (scale, 0);
            let part = layer.part(&[value], fixed_point, &[]);
            let inputs = value.shape[2] as usize;
            let channels = gates * units;
            let (matrix, biases, scales) = (
                layer.int8(weight, channels * inputs)?,
                layer.int32(bias, channels)?,
                layer.float32(scales, channels)?,
            );
            let row = |channel: usize| &matrix[channel * inputs..][..inputs];
            for &place in &places {
                accumulators.push(match place {
                    Some(channel) => Accumulator::fold(&part, row(channel), biases[channel], scales[channel])?,
                    // Any multiplier of both forms.
                    None => Accumulator { bias: 0, multiplier: Multiplier { mantissa: 1 << 30, shift: -1 }, bound: 0 },
                });
            }
            let lanes = places.chunks_exact(LANES);
            weights.push(
                lanes
                    .flat_map(|lanes| (0..inputs).flat_map(move |index| lanes.iter().map(move |&place| (place, index))))
                    .map(|(place, index)| place.map_or(0, |channel| row(channel)[index] as u8))
                    .collect::<Vec<u8>>(),
            );
        }
        let (form, channels) = requantizations(&accumulators, 0);
        let (of_input, of_state) = channels.split_at(places.len());
        let read = Some(weights.iter().map(Vec::len).sum::<usize>().saturating_mul(layer.inputs[0].shape[1] as usize));
        let mut packed = Packed { form, read, ..Packed::default() };
        packed.push_multipliers(&[multiplier]);
        for (weights, channels) in weights.into_iter().zip([of_input, of_state]) {
            packed.constants.push(weights);
            packed.constants.push(channels.as_bytes().to_vec());
        }
        Ok(packed)
    }

    /// The channel of each lane, `[block][gate][4]`; `None` for those after the last unit.
    fn places(units: usize, gates: usize) -> Vec<Option<usize>> {
        let lane = |unit: usize, gate: usize| (unit < units).then_some(gate * units + unit);
        let blocks = (0..units).step_by(LANES);
        blocks
            .flat_map(|first| (0..gates).flat_map(move |gate| (first..first + LANES).map(move |unit| lane(unit, gate))))
            .collect()
    }
}
