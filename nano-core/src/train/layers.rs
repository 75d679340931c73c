//! Stochastic gradient descent on the last layers of a network, in integers: forward, backward, update.
//!
//! Each layer is linear: a fully connected one, or a 1x1 convolution, which is a fully connected one at each of its positions. Its weights are
//! those of [`SgdHead`](super::SgdHead): int16 V with a scale `s_w` for the layer, `W = (V + 128) >> 8` in the products. The constant input of the
//! bias is `B`, the integer nearest to `1 / s_x` in 1 to 128: a bias then moves at the learning rate of the weights. One step:
//!
//! 1. Forward: `a_j = sum W_ji (q_i - z) + W_jb B`; of a layer that is not the last `q'_j = clamp(((a_j + 2^(r-1)) >> r) + z', low, high)`, which is
//!    the activation, too (ReLU: `z' = low = -128`). The next layer's `s_x` is `s_w s_x 2^r`.
//! 2. `e_k` of the last layer: steps 2 to 4 of `SgdHead`, and its other losses. `|e_k| <= 128` (1/256; squared error: 1) counts as 0; the others are
//!    weighted, `(e_k * weight + 2^14) >> 15` with a Q15 weight of the class. Without an error left nothing is learnt.
//! 3. Backward, from the last layer on: `d_i = sum_j e_j W_ji`, then the layer below has `e_i = clamp((d_i + 2^(t-1)) >> t, -limit, limit)`, and 0
//!    where its output is at one of its ends: there the activation, or int8, is flat. `t` is 8 at first.
//! 4. Update of all layers, position by position: `g_j = (e_j * C + 2^14) >> 15`, `V_ji -= (g_j x_i + 2^(sh-1)) >> sh` in rows with an error, with
//!    `C / 2^(15+sh) = lr s_x 2^8 / (s_w one)`. `one`, the e that stands for a gradient of 1, is 2^15 (squared error: 2^12) in the last layer and
//!    `one / (s_w 2^t)` of the layer above in the others.
//! 5. A layer with a `|V| > 32000` is halved as `SgdHead` is: r (in the last layer S) and t fall by 1, sh rises by 1, as often as they can.
//!
//! Frozen rows of the last layer skip step 4; the rate can be halved every so many epochs.
//!
//! Bounds. `|q - z| <= 255`, `|W| <= 128`, at most 2^15 inputs: `|a| <= 2^30 + 2^14`, and r is at most 30. The `|e_k|` add up to at most 2^17
//! (cross-entropy), 2^20 (binary: 32 outputs) or 2^15, and `limit = min(2^15 - 1, 2^23 / outputs)`: `|d| <= 2^30`, and t is at most 8.
//! Step 4 stays below 2^30 + 2^14 and `|g x| < 2^23`.

use zerocopy::{FromBytes, IntoBytes};

use crate::Error;
use crate::image::{HeadRecord, Image};
use crate::train::layers_image::{self, BACKWARD_SHIFT, FROZEN, LayerRecord};
use crate::train::linear::{self, HALVE_ABOVE, LARGEST_SHIFT, SATURATE_AT, check_weight};
use crate::train::loss::{self, Loss};
use crate::train::order::{self, FIRST_RANDOM};
use crate::train::{FeatureRing, Head, HeadSizes, LayerSizes, Target, Training};

/// The last layers of a network in RAM, trained by stochastic gradient descent; arithmetic and bounds: the module's text.
///
/// Its state is, little-endian: how often each layer was halved (u32 each), the random state (u32), and of layer after layer
/// `[outputs][inputs + 1]` weights V + 128 (int16).
pub struct LayersHead<'a> {
    record: &'a HeadRecord,
    layers: &'a [LayerRecord],
    /// Weight in Q15 of each class, and [`FROZEN`].
    classes: &'a [i32],
    initial: &'a [i16],
    loss: Loss,
    input_zero_point: i32,
    state: &'a mut [i16],
    /// Of layer after layer the sums a, then the errors, then the gradients.
    errors: &'a mut [i32],
    /// Of each layer: no |V| is above it.
    bounds: &'a mut [i32],
    /// The outputs of layer after layer, without the last.
    values: &'a mut [i8],
}

/// Where a layer's part of the state, of the errors and of the values begins.
#[derive(Clone, Copy, Default)]
struct Place {
    weights: usize,
    values: usize,
}

impl<'a> LayersHead<'a> {
    /// [`HeadRecord::trainer`] of this head.
    pub const TRAINER: u32 = 4;

    /// Bytes of its state.
    pub(super) const fn state_bytes(sizes: &LayerSizes) -> usize {
        let words = sizes.count.saturating_add(1).saturating_mul(4);
        words.saturating_add(sizes.weights.saturating_mul(2))
    }

    /// Words to work in.
    pub(super) const fn scratch_words(sizes: &LayerSizes, classes: usize) -> usize {
        let errors = sizes.hidden.saturating_add(classes);
        errors.saturating_add(sizes.count).saturating_add(sizes.hidden.div_ceil(4))
    }

    /// [`LayerSizes`] of its record.
    pub(super) const fn sizes_of(record: &HeadRecord) -> LayerSizes {
        let [_, _, _, _, count, weights, hidden, _] = record.constants;
        LayerSizes { count: count as u32 as usize, weights: weights as u32 as usize, hidden: hidden as u32 as usize }
    }

    /// The layers as they are now in real numbers.
    #[cfg(feature = "alloc")]
    pub fn real_layers(&self) -> alloc::vec::Vec<super::RealLayer> {
        let places = self.places().map(|(index, layer, place)| {
            let stored = &self.state[place.weights..][..layer.weights()];
            layer.real(stored, self.exponent(index))
        });
        places.collect()
    }

    /// Number of weights of each layer, biases among them.
    #[cfg(feature = "alloc")]
    pub(super) fn weight_counts(&self) -> alloc::vec::Vec<usize> {
        self.layers.iter().map(LayerRecord::weights).collect()
    }

    fn prefix(&self) -> usize {
        2 * (self.layers.len() + 1)
    }

    fn word(&self, index: usize) -> u32 {
        u32::from(self.state[2 * index] as u16) | u32::from(self.state[2 * index + 1] as u16) << 16
    }

    fn set_word(&mut self, index: usize, word: u32) {
        (self.state[2 * index], self.state[2 * index + 1]) = (word as i16, (word >> 16) as i16);
    }

    /// How often layer `index` was halved.
    fn exponent(&self, index: usize) -> i32 {
        self.word(index) as i32
    }

    fn largest_exponent(&self, index: usize) -> i32 {
        let layer = &self.layers[index];
        let last = index + 1 == self.layers.len();
        let forward = if last { self.record.constants[1] } else { layer.output_shift };
        let backward = if index == 0 { LARGEST_SHIFT } else { BACKWARD_SHIFT };
        forward.min(backward).min(LARGEST_SHIFT - layer.rate_shift)
    }

    /// The layers with their places, in order.
    fn places(&self) -> impl DoubleEndedIterator<Item = (usize, &'a LayerRecord, Place)> + use<'a> {
        let layers = self.layers;
        let prefix = self.prefix();
        (0..layers.len()).map(move |index| {
            let before = &layers[..index];
            let weights = prefix + before.iter().map(LayerRecord::weights).sum::<usize>();
            (index, &layers[index], Place { weights, values: before.iter().map(LayerRecord::values).sum() })
        })
    }

    /// Makes the bound of each layer's weights the largest of them.
    fn measure(&mut self) {
        for (index, layer, place) in self.places() {
            self.bounds[index] = linear::largest(&self.state[place.weights..][..layer.weights()]);
        }
    }

    /// Step 1: sums of all layers, values of all but the last.
    fn forward(&mut self, features: &[i8]) {
        let mut zero_point = self.input_zero_point;
        let mut start = 0;
        for (index, layer, place) in self.places() {
            let inputs = if index == 0 { features } else { &self.values[start..place.values] };
            let rows = &self.state[place.weights..][..layer.weights()];
            let sums = &mut self.errors[place.values..][..layer.values()];
            let positions =
                inputs.chunks_exact(layer.inputs as usize).zip(sums.chunks_exact_mut(layer.outputs as usize));
            for (inputs, sums) in positions {
                linear::products(rows, inputs, zero_point, layer.bias_input, sums);
            }
            if index + 1 < self.layers.len() {
                let shift = layer.output_shift - self.exponent(index);
                let half = (1 << shift) >> 1;
                for (value, &sum) in
                    self.values[place.values..].iter_mut().zip(&self.errors[place.values..][..layer.values()])
                {
                    *value = (((sum + half) >> shift) + layer.zero_point).clamp(layer.low, layer.high) as i8;
                }
            }
            (zero_point, start) = (layer.zero_point, place.values);
        }
    }

    fn outputs(&mut self) -> &mut [i32] {
        let hidden = self.values.len();
        &mut self.errors[hidden..]
    }

    /// Step 2: whether there is an error to learn from.
    fn outputs_to_errors(&mut self, target: Target) -> bool {
        let [multiplier, multiplier_shift, ..] = self.record.constants;
        let shift = multiplier_shift - self.exponent(self.layers.len() - 1);
        let (loss, classes) = (self.loss, self.classes);
        let outputs = self.outputs();
        loss::errors(outputs, target, multiplier as u64, shift as u32);
        for (class, error) in outputs.iter_mut().enumerate() {
            let counting = match target {
                Target::Class(label) => usize::from(label),
                _ => class,
            };
            let weight = classes[counting] & !FROZEN;
            *error = if error.abs() <= loss.negligible() { 0 } else { (*error * weight + (1 << 14)) >> 15 };
        }
        outputs.iter().any(|&error| error != 0)
    }

    /// Step 3.
    fn backward(&mut self) {
        for (index, layer, place) in self.places().rev() {
            let Some(below) = index.checked_sub(1).map(|below| &self.layers[below]) else { break };
            let shift = BACKWARD_SHIFT - self.exponent(index);
            let half = (1 << shift) >> 1;
            let (lower, upper) = self.errors.split_at_mut(place.values);
            let start = place.values - below.values();
            let lower = &mut lower[start..];
            let rows = &self.state[place.weights..][..layer.weights()];
            let positions =
                lower.chunks_exact_mut(layer.inputs as usize).zip(upper.chunks_exact(layer.outputs as usize));
            for (lower, errors) in positions {
                linear::transposed_products(rows, errors, lower);
            }
            let limit = below.limit();
            for (error, &value) in lower.iter_mut().zip(&self.values[start..place.values]) {
                let flat = i32::from(value) == below.low || i32::from(value) == below.high;
                *error = if flat { 0 } else { ((*error + half) >> shift).clamp(-limit, limit) };
            }
        }
    }

    /// Steps 4 and 5.
    fn update(&mut self, features: &[i8], halvings: u32) {
        let last = self.layers.len() - 1;
        let (mut zero_point, mut start) = (self.input_zero_point, 0);
        for (index, layer, place) in self.places() {
            let gradients = &mut self.errors[place.values..][..layer.values()];
            if index == last {
                let frozen = gradients.iter_mut().zip(self.classes).filter(|(_, class)| **class & FROZEN != 0);
                frozen.for_each(|(gradient, _)| *gradient = 0);
            }
            gradients.iter_mut().for_each(|error| *error = (*error * layer.rate + (1 << 14)) >> 15);
            let steepest = gradients.iter().fold(0, |steepest, gradient| gradient.abs().max(steepest));
            let exponent = self.exponent(index);
            let shift = halvings.saturating_add((layer.rate_shift + exponent) as u32).min(LARGEST_SHIFT as u32);
            let step = ((steepest * 255 + (1 << (shift - 1))) >> shift) + 1;
            let furthest = step.saturating_mul(layer.positions as i32);
            let rows = &mut self.state[place.weights..][..layer.weights()];
            let bound = &mut self.bounds[index];
            if bound.saturating_add(furthest) > HALVE_ABOVE {
                *bound = linear::largest(rows);
            }
            let bounded = bound.saturating_add(furthest) <= HALVE_ABOVE;
            let inputs = if index == 0 { features } else { &self.values[start..place.values] };
            let gradients = self.errors[place.values..][..layer.values()].chunks_exact(layer.outputs as usize);
            for (inputs, gradients) in inputs.chunks_exact(layer.inputs as usize).zip(gradients) {
                if bounded {
                    linear::descend(rows, inputs, zero_point, layer.bias_input, gradients, shift);
                } else {
                    linear::descend_bounded(rows, inputs, zero_point, layer.bias_input, gradients, shift);
                }
            }
            if bounded {
                *bound += furthest;
            } else {
                *bound = linear::largest(rows);
                if *bound > HALVE_ABOVE && exponent < self.largest_exponent(index) {
                    linear::halve(&mut self.state[place.weights..][..layer.weights()]);
                    self.bounds[index] = linear::largest(&self.state[place.weights..][..layer.weights()]);
                    self.set_word(index, exponent as u32 + 1);
                }
            }
            (start, zero_point) = (place.values, layer.zero_point);
        }
    }

    /// One step, at a rate halved `halvings` times.
    fn step_towards(&mut self, features: &[i8], target: Target, halvings: u32) -> Result<(), Error> {
        self.check(target)?;
        self.logits(features)?;
        if self.outputs_to_errors(target) {
            self.backward();
            self.update(features, halvings);
        }
        Ok(())
    }
}

impl<'a> Head<'a> for LayersHead<'a> {
    const NAME: &'static str = "LayersHead";

    fn new(image: &Image<'a>, ram: &'a mut [u32]) -> Result<Self, Error> {
        let record = image.head().ok_or(Error::NoHead)?;
        let field = |name, value: i64| Err(Error::Field { name, value });
        if record.trainer != Self::TRAINER {
            return field("head trainer", record.trainer.into());
        }
        let (sizes, head) = (Self::sizes_of(record), HeadSizes::of(record));
        let (layers, classes, initial) = layers_image::read(image.head_state(record), record)?;
        let [multiplier, multiplier_shift, loss, halve_every, ..] = record.constants;
        if !(1 << 15..1 << 16).contains(&multiplier) || !(0..64).contains(&multiplier_shift) {
            return field("head logit multiplier", multiplier.into());
        }
        if !(record.logit_scale.is_finite() && record.logit_scale > 0.0) {
            return field("head logit scale (bits)", record.logit_scale.to_bits().into());
        }
        let loss = Loss::new(loss, record.classes)?;
        if halve_every < 0 {
            return field("head epochs between halvings of the rate", halve_every.into());
        }
        Error::check_length("head RAM in words", head.words(), ram.len())?;
        let (state, scratch) = ram.split_at_mut(head.state_bytes().div_ceil(4));
        let (errors, scratch) = scratch.split_at_mut(sizes.hidden + head.classes);
        let (bounds, values) = scratch.split_at_mut(sizes.count);
        let mut head = LayersHead {
            record,
            layers,
            classes,
            initial,
            loss,
            input_zero_point: image.output(0).zero_point,
            state: &mut <[i16]>::mut_from_bytes(state.as_mut_bytes()).expect("words are aligned")
                [..head.state_bytes() / 2],
            errors: zerocopy::transmute_mut!(errors),
            bounds: zerocopy::transmute_mut!(bounds),
            values: &mut <[i8]>::mut_from_bytes(values.as_mut_bytes()).expect("bytes are aligned")[..sizes.hidden],
        };
        head.reset();
        Ok(head)
    }

    fn sizes(&self) -> HeadSizes {
        HeadSizes::of(self.record)
    }

    fn classes(&self) -> usize {
        self.record.classes as usize
    }

    fn features(&self) -> usize {
        self.record.features as usize
    }

    fn macs(&self) -> u64 {
        let macs = |layer: &LayerRecord| layer.values() as u64 * u64::from(layer.inputs);
        self.layers.iter().map(macs).sum()
    }

    fn logit_scale(&self) -> f32 {
        // Exact: a power of two no larger than 2^30.
        self.record.logit_scale * (1u64 << self.exponent(self.layers.len() - 1)) as f32
    }

    fn logits(&mut self, features: &[i8]) -> Result<&[i32], Error> {
        self.check_features(features)?;
        self.forward(features);
        Ok(self.outputs())
    }

    fn target(&self, word: u32) -> Target {
        self.loss.target(word)
    }

    fn check(&self, target: Target) -> Result<(), Error> {
        self.loss.check(target, self.classes(), Self::NAME)
    }

    fn learn(&mut self, features: &[i8], target: Target) -> Result<(), Error> {
        self.step_towards(features, target, 0)
    }

    fn train(&mut self, ring: &FeatureRing<'_>, training: &mut Training, most: u32) -> Result<(), Error> {
        let halve_every = self.record.constants[3] as u32;
        let place = self.layers.len();
        let mut random = self.word(place);
        let result = order::visit(ring, training, most, &mut random, |features, word, epoch| {
            self.step_towards(features, self.target(word), epoch.checked_div(halve_every).unwrap_or(0))
        });
        self.set_word(place, random);
        result
    }

    fn state(&self) -> &[u8] {
        self.state.as_bytes()
    }

    fn check_state(&self, state: &[u8]) -> Result<(), Error> {
        Error::check_length("saved head", self.state().len(), state.len())?;
        let word = |index: usize| u32::from_le_bytes(core::array::from_fn(|byte| state[4 * index + byte]));
        let random = word(self.layers.len());
        if random == 0 {
            return Err(Error::Field { name: "head random state", value: random.into() });
        }
        for (index, layer, place) in self.places() {
            let (exponent, most) = (word(index), self.largest_exponent(index) as u32);
            if exponent > most {
                return Err(Error::Field { name: "head exponent", value: exponent.into() });
            }
            let largest = if exponent < most { HALVE_ABOVE } else { SATURATE_AT };
            let weights = state[2 * place.weights..][..2 * layer.weights()].chunks_exact(2);
            weights.map(|bytes| i16::from_le_bytes([bytes[0], bytes[1]])).try_for_each(|v| check_weight(v, largest))?;
        }
        Ok(())
    }

    fn overwrite(&mut self, write: impl FnOnce(&mut [u8])) {
        write(self.state.as_mut_bytes());
        self.measure();
    }

    fn reset(&mut self) {
        let prefix = self.prefix();
        self.state[..prefix].fill(0);
        self.state[prefix..].copy_from_slice(self.initial);
        self.set_word(self.layers.len(), FIRST_RANDOM);
        self.measure();
    }
}
