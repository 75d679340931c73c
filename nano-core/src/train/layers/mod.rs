//! Stochastic gradient descent on the last layers of a network, in integers: forward, backward, update.
//!
//! A layer is fully connected, a convolution, a depthwise convolution, a pool, or the sum of the layer before and an earlier one (residual).
//! Weights are those of [`SgdHead`](super::SgdHead): int16 V with one scale `s_w` per layer, `W = (V + 128) >> 8` in the products. The constant
//! input of the bias is `B`, the integer nearest to `1 / s_x` in 1 to 128, so that a bias moves at the learning rate of the weights. Some layers
//! may keep the weights of the image: those take no RAM, and errors pass through them. One step:
//!
//! 1. Forward: `a_j = sum W_ji (q_i - z) + W_jb B` at each position; an average pool has `a = sum (q - z)` and the scale `s_x / P` of `P` inputs,
//!    a max pool `a = max (q - z)`, a sum `a = ((q - z) << u) + ((q' - z') << u')`. Of a layer that is not the last
//!    `q_j = clamp(((a_j + 2^(r-1)) >> r) + z, low, high)`, which is the activation, too (ReLU: `z = low = -128`). The next layer's `s_x` is
//!    `s_w s_x 2^r`. If there are sums, every `s_w` is a power of two, so the scales of two terms differ by one.
//! 2. `e_k` of the last layer: steps 2 to 4 of `SgdHead`, and its other losses. `|e_k| <= 128` (1/256; squared error: 1) counts as 0; the others are
//!    weighted, `(e_k * weight + 2^14) >> 15` with a Q15 weight of the class. If all errors are 0, the step ends.
//! 3. Backward, from the last layer on: `d_i = sum_j e_j W_ji` over all positions that read i, then the layer below has
//!    `e_i = clamp((d_i + 2^(t-1)) >> t, -limit, limit)`, and 0 where its output is at a bound of its clamp, as the activation, or int8, is flat
//!    there (but not of a pool, whose small outputs round to 0). `t` starts at 8. Pools and sums pass errors on as they are, a max pool to
//!    the first maximum; a layer that a later sum reads adds that sum's error, shifted to its own unit.
//! 4. Update of all layers that learn: `g_j = (e_j * C + 2^14) >> 15`, `V_ji -= (sum g_j x_i + 2^(sh-1)) >> sh` with the sum over the positions, in
//!    rows with an error, with `C / 2^(15+sh) = lr s_x 2^8 / (s_w one)`. `one`, the e that stands for a gradient of 1, is 2^15 (squared error:
//!    2^12) in the last layer; below a layer with weights it is `one / (s_w 2^t)`, below an average pool `one P`.
//! 5. A layer with a `|V| > 32000` is halved as `SgdHead` is: r (in the last layer S) and t fall by 1, sh rises by 1, as often as they can.
//!
//! Frozen rows of the last layer skip step 4; the rate can be halved every `halve_every` epochs.
//!
//! Bounds. `|q - z| <= 255`, `|W| <= 128`, at most 2^15 inputs: `|a| <= 2^30 + 2^14`, and r is at most 30. The `|e_k|` add up to at most 2^17
//! (cross-entropy), 2^20 (binary: 32 outputs) or 2^15, and `limit = min(2^15 - 1, 2^23 / n, 2^22 / p)` for `n` outputs that read an input, and `p`
//! positions: `|d| <= 2^30`, and t is at most 8. The terms of step 4 add up to less than 2^30.

mod geometry;
#[cfg(feature = "alloc")]
mod image;
mod layer;
mod record;
mod state;
mod step;
mod window;

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, IntoBytes};

#[cfg(feature = "alloc")]
pub(super) use image::pack;
#[cfg(feature = "alloc")]
pub use image::{LayersDescription, TrainedLayer, TrainedOperation};
#[cfg(feature = "alloc")]
pub use record::RealLayer;
use record::{BACKWARD_SHIFT, FROZEN, LayerRecord};
use state::{by_layer, parts, parts_mut};

use crate::Error;
use crate::image::{HeadRecord, Image};
use crate::operator::CheckedPart;
#[cfg(feature = "alloc")]
use crate::train::aggregation::Aggregation;
use crate::train::guard::Score;
use crate::train::head::Head;
use crate::train::linear::{self, LARGEST_SHIFT, Saved, check_layer};
use crate::train::loss::{self, Loss};
use crate::train::order::{self, FIRST_RANDOM, Training};
use crate::train::ring::FeatureRing;
use crate::train::sizes::{HeadSizes, LayerSizes, Limits, Memory};
use crate::train::target::Target;

/// The last layers of a network in RAM, trained by stochastic gradient descent; the module's documentation has arithmetic and bounds.
///
/// Its state is, little-endian: each layer's number of halvings (u32), the random state (u32), and the weights V + 128 (int16) of each layer that
/// learns, `[outputs][inputs + 1]`.
pub struct LayersHead<'a> {
    record: &'a HeadRecord,
    layers: &'a [LayerRecord],
    /// Weight in Q15 of each class, and [`FROZEN`].
    classes: &'a [i32],
    initial: &'a [i16],
    loss: Loss,
    input_zero_point: i32,
    state: &'a mut [i16],
    /// All layers' sums a, then errors, then gradients.
    errors: &'a mut [i32],
    /// An upper bound of |V| per layer.
    bounds: &'a mut [i32],
    /// All layers' outputs, without the last layer's.
    values: &'a mut [i8],
    /// The sums of one output's gradients over the positions.
    sums: &'a mut [i32],
}

impl<'a> LayersHead<'a> {
    /// [`HeadRecord::trainer`] of this head.
    pub const TRAINER: u32 = 4;
    /// No limits: each layer's record is checked against limits of its own.
    pub(super) const LIMITS: Limits = Limits { classes: usize::MAX, features: usize::MAX };
    pub(super) const USES_RING: bool = true;

    pub(super) const fn sizes_of(record: &HeadRecord) -> HeadSizes {
        HeadSizes::with_layers(record, record::sizes(record))
    }

    pub(super) const fn memory(sizes: &HeadSizes) -> Memory {
        let layers = &sizes.layers;
        let words = layers.count.saturating_add(1).saturating_mul(4);
        let errors = layers.hidden.saturating_add(sizes.classes);
        Memory {
            state_bytes: words.saturating_add(layers.weights.saturating_mul(2)),
            scratch_words: errors
                .saturating_add(layers.count)
                .saturating_add(layers.sums)
                .saturating_add(layers.hidden.div_ceil(4)),
        }
    }

    #[cfg(feature = "alloc")]
    pub(super) fn aggregation(&self) -> Aggregation {
        Aggregation::Mean(self.layers.iter().map(LayerRecord::learnt_weights).collect())
    }

    /// The present weights of the layers that learn, as real numbers.
    #[cfg(feature = "alloc")]
    pub fn real_layers(&self) -> alloc::vec::Vec<RealLayer> {
        let (words, weights) = parts(self.state, self.layers);
        let layers = by_layer(self.layers, weights).zip(words).filter(|((layer, _), _)| layer.learns());
        layers.map(|((layer, stored), exponent)| layer.real(stored, exponent.get())).collect()
    }

    /// The number of times the last layer was halved.
    fn last_exponent(&self) -> u32 {
        let (words, _) = parts(self.state, self.layers);
        if let [.., exponent, _random] = words { exponent.get() } else { 0 }
    }

    /// The number of times each layer can be halved.
    fn largest_exponents(&self) -> impl Iterator<Item = u32> + use<'a> {
        let (layers, multiplier_shift) = (self.layers, self.record.constants[1]);
        layers.iter().enumerate().map(move |(index, layer)| {
            if !layer.learns() {
                return 0;
            }
            let forward = if index + 1 == layers.len() { multiplier_shift } else { layer.output_shift };
            let backward = if index == 0 { LARGEST_SHIFT } else { BACKWARD_SHIFT };
            forward.min(backward).min(LARGEST_SHIFT - layer.rate_shift) as u32
        })
    }

    fn random(&self) -> u32 {
        parts(self.state, self.layers).0.last().map_or(0, |random| random.get())
    }

    fn set_random(&mut self, random: u32) {
        if let ([.., word], _) = parts_mut(self.state, self.layers) {
            word.set(random);
        }
    }

    /// The last layer's sums, errors or gradients.
    fn outputs(&mut self) -> &mut [i32] {
        self.errors.get_mut(self.values.len()..).checked_part()
    }

    /// Step 2; returns whether there is an error to learn from.
    fn outputs_to_errors(&mut self, target: Target) -> bool {
        let [multiplier, multiplier_shift, ..] = self.record.constants;
        let shift = multiplier_shift as u32 - self.last_exponent();
        let (loss, classes) = (self.loss, self.classes);
        let outputs = self.outputs();
        loss::errors(outputs, target, multiplier as u64, shift);
        // A single label decides the weight of all errors.
        let label = match target {
            Target::Class(label) => classes.get(usize::from(label)),
            _ => None,
        };
        for (error, own) in outputs.iter_mut().zip(classes) {
            let weight = label.unwrap_or(own) & !FROZEN;
            *error = if error.abs() <= negligible(loss) { 0 } else { (*error * weight + (1 << 14)) >> 15 };
        }
        outputs.iter().any(|&error| error != 0)
    }

    /// One step, at a rate halved `halvings` times.
    fn step_towards(&mut self, features: &[i8], target: Target, halvings: u32) -> Result<(), Error> {
        self.check(target)?;
        self.logits(features)?;
        if self.outputs_to_errors(target) {
            self.backward();
            let classes = self.classes;
            let frozen = self.outputs().iter_mut().zip(classes).filter(|(_, class)| **class & FROZEN != 0);
            frozen.for_each(|(error, _)| *error = 0);
            self.update(features, halvings);
        }
        Ok(())
    }
}

impl<'a> Head<'a> for LayersHead<'a> {
    const NAME: &'static str = "LayersHead";
    const LARGE: bool = true;

    fn runs(trainer: u32) -> bool {
        trainer == Self::TRAINER
    }

    fn new(image: &Image<'a>, ram: &'a mut [u32]) -> Result<Self, Error> {
        let record = image.head().ok_or(Error::NoHead)?;
        let field = |name, value: i64| Err(Error::Field { name, value });
        if record.trainer != Self::TRAINER {
            return field("head trainer", record.trainer.into());
        }
        let sizes = Self::sizes_of(record);
        let (layers, classes, initial) = record::read(image.head_state(record), record)?;
        let [multiplier, multiplier_shift, loss, halve_every, ..] = record.constants;
        linear::check_record(record, (multiplier, multiplier_shift), halve_every)?;
        let loss = Loss::new(loss, record.classes)?;
        let memory = Self::memory(&sizes);
        let wrong_ram = memory.wrong_ram(ram.len());
        let (state, mut scratch) = memory.split(ram)?;
        let (state, _) =
            <[i16]>::mut_from_prefix_with_elems(state.as_mut_bytes(), memory.state_bytes / 2).map_err(|_| wrong_ram)?;
        let HeadSizes { classes: outputs, layers: LayerSizes { count, hidden, sums, .. }, .. } = sizes;
        let errors = scratch.split_off_mut(..hidden + outputs).ok_or(wrong_ram)?;
        let bounds = scratch.split_off_mut(..count).ok_or(wrong_ram)?;
        let sums = scratch.split_off_mut(..sums).ok_or(wrong_ram)?;
        let (values, _) = <[i8]>::mut_from_prefix_with_elems(scratch.as_mut_bytes(), hidden).map_err(|_| wrong_ram)?;
        let mut head = LayersHead {
            record,
            layers,
            classes,
            initial,
            loss,
            input_zero_point: image.output(0).zero_point,
            state,
            errors,
            bounds,
            values,
            sums,
        };
        head.reset();
        Ok(head)
    }

    fn sizes(&self) -> HeadSizes {
        Self::sizes_of(self.record)
    }

    fn classes(&self) -> usize {
        self.record.classes as usize
    }

    fn features(&self) -> usize {
        self.record.features as usize
    }

    fn macs(&self) -> u64 {
        self.layers.iter().map(LayerRecord::macs).sum()
    }

    fn logit_scale(&self) -> f32 {
        // Exact: a power of two no larger than 2^30.
        self.record.logit_scale * (1u64 << self.last_exponent()) as f32
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

    fn score(&mut self, features: &[i8], target: Target) -> Result<Score, Error> {
        self.check(target)?;
        self.logits(features)?;
        let [multiplier, multiplier_shift, ..] = self.record.constants;
        let shift = multiplier_shift as u32 - self.last_exponent();
        let outputs = self.outputs();
        loss::errors(outputs, target, multiplier as u64, shift);
        Ok(loss::score(outputs, target))
    }

    fn learn(&mut self, features: &[i8], target: Target) -> Result<(), Error> {
        self.step_towards(features, target, 0)
    }

    fn train(&mut self, ring: &FeatureRing<'_>, training: &mut Training, most: u32) -> Result<(), Error> {
        let halve_every = self.record.constants[3] as u32;
        let mut random = self.random();
        let result = order::visit(self.record.half_life, ring, training, most, &mut random, |features, word, epoch| {
            self.step_towards(features, self.target(word), epoch.checked_div(halve_every).unwrap_or(0))
        });
        self.set_random(random);
        result
    }

    fn state(&self) -> &[u8] {
        self.state.as_bytes()
    }

    fn check_state(&self, state: &[u8]) -> Result<(), Error> {
        let saved = Saved::read(state, self.state().len(), self.layers.len())?;
        let layers = by_layer(self.layers, saved.weights).zip(saved.exponents).zip(self.largest_exponents());
        for (((_, weights), exponent), most) in layers {
            check_layer(weights, exponent.get(), most)?;
        }
        Ok(())
    }

    fn overwrite(&mut self, write: impl FnOnce(&mut [u8])) {
        write(self.state.as_mut_bytes());
        self.measure();
    }

    fn reset(&mut self) {
        let (words, mut weights) = parts_mut(self.state, self.layers);
        words.fill(U32::ZERO);
        let mut initial = self.initial;
        for layer in self.layers {
            let initial = initial.split_off(..layer.weights()).checked_part();
            if layer.learns() {
                let own = weights.split_off_mut(..layer.weights()).checked_part();
                own.iter_mut().zip(initial).for_each(|(own, &initial)| *own = initial);
            }
        }
        self.set_random(FIRST_RANDOM);
        self.measure();
    }
}

/// The largest error that counts as 0: step 2.
const fn negligible(loss: Loss) -> i32 {
    match loss {
        Loss::CrossEntropy | Loss::Binary => 128,
        Loss::Squared => 1,
    }
}
