//! Stochastic gradient descent on a linear head, in integers.
//!
//! A weight is an int16 in RAM whose high byte is the int8 weight of the forward pass: `V + 128` is stored, `W = (V + 128) >> 8`,
//! and the real weight is `s_w * V / 256`. The inputs are `x_i = q_i - z_x` and one constant for the bias: `B`, the integer nearest to `1 / s_x` in
//! 1 to 128. Its real value is 1, so a bias moves at the learning rate of the weights. (On MNIST-1D with one or two samples per class,
//! accuracy is 0.1 points below float SGD; with a constant input of 128 it was 1.0 to 1.5 points below.) One step:
//!
//! 1. `a_k = sum W_ki x_i` (the real logit is `s_w s_x a_k`).
//! 2. `u_k = ((a_max - a_k) * M) >> S`, with `M / 2^S = s_w s_x log2(e) 256`: the distance to the largest logit, base 2, in 1/256.
//! 3. `p_k = LUT[u_k & 255] >> (u_k >> 8)`, with `LUT[j] = round(2^15 * 2^(-j/256))`.
//! 4. `e_k = (p_k * floor(2^30 / sum p) >> 15) - 2^15 [k = label]`: softmax minus target, in Q15.
//! 5. A row with `|e_k| <= 1024` (1/32) is skipped.
//! 6. `g_k = (e_k * C_label + 2^14) >> 15` and `V_ki -= (g_k x_i + 2^(sh-1)) >> sh`, with `C / 2^(15+sh) = lr s_x 2^8 / (s_w 2^15)`;
//!    `C_label` is C times the weight of the class, at most C. V saturates at 32639, so that `V + 128` fits int16.
//! 7. If any `|V| > 32000`, every V is halved (floored) and `s_w` doubles: S falls by 1 and sh rises by 1. After as many halvings as
//!    S and sh allow, V only saturates. (A state with a V above 32000 before that is refused: no training leads to it.)
//!
//! Steps 2 to 4 are those of softmax cross-entropy. Other losses have other errors:
//!
//! - Sigmoid cross-entropy, for several labels at once: `u_k = (|a_k| * M) >> S` and `p_k` as above,
//!   `h = floor(2^30 / (2^15 + p_k))`, which is the sigmoid of `|a_k|`; `e_k = (h or 2^15 - h) - 2^15 [k is right]`. Step 6 takes `C_k`.
//! - Squared error, one output: `e = ((a * M) >> S) - target` in 1/4096, with `M / 2^S = s_w s_x 4096`, clamped to `|e| <= 2^15`, which is
//!   a real error of 8. Step 5 skips `|e| <= 8`, and `C / 2^(15+sh) = lr s_x 2^8 / (s_w 2^12)`.
//!
//! The rate can be normalized, by the size of the features and the agreement of the samples' gradients: the device makes it of its own samples
//! (`rate.rs` has formula and bounds). It then has a factor of 2^(-j/256), j below 256, beside the shift.
//!
//! With balanced classes a training weighs them by how rarely the ring has them: `C_label` is multiplied by `m / n_label`, at most 1, where
//! n counts the samples of a class in the ring and m is the least n above 0, but at least a sixteenth of the largest. So the rarest class
//! learns at the full rate. (Weights of mean 1, as in "balanced" of scikit-learn, give steps of up to several times the rate, and on
//! streams with a tenth of the samples of every second class 0.3 to 1.5 points less balanced accuracy.)
//!
//! Old samples of the ring can fade: with a half-life of h samples, a training visits the newest h in every epoch, the h before them in every
//! second one, and so on. Such a training begins with the shipped weights, so what has left the ring is forgotten.
//!
//! Frozen rows skip step 6. The rate can be halved every `halve_every` epochs of a training: sh rises by 1, up to 30.
//!
//! Bounds: `|x| <= 255`, `|W| <= 128`, at most 2^15 features: `|a_k| <= 2^30 + 2^14`, the differences fit u32, their product with M 48 bits.
//! `sum p >= 2^15`, so `p_k * floor(2^30 / sum p) <= 2^30`. `|e_k| <= 2^15` and `C < 2^15`, so step 6 stays below 2^30 + 2^14 and
//! `|g_k x_i| < 2^23`.

#[cfg(feature = "alloc")]
mod image;
mod rate;

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

#[cfg(feature = "alloc")]
pub use image::SgdDescription;
#[cfg(feature = "alloc")]
pub(super) use image::pack;

use crate::Error;
use crate::image::{HeadRecord, Image};
#[cfg(feature = "alloc")]
use crate::train::aggregation::Aggregation;
use crate::train::guard::Score;
use crate::train::head::Head;
use crate::train::linear::{self, HALVE_ABOVE, LARGEST_BIAS_INPUT, LARGEST_SHIFT, Saved, check_layer, check_weight};
use crate::train::loss::{self, Loss};
use crate::train::order::{self, FIRST_RANDOM, Training};
use crate::train::ring::FeatureRing;
use crate::train::sizes::{HeadSizes, LayerSizes, Limits, Memory};
use crate::train::target::Target;

/// Samples of a ring, at most, that a normalized rate is made of.
const MEASURED_SAMPLES: usize = 64;

/// Bits of the record's last constant: the rate is normalized; classes are balanced.
const NORMALIZED: i32 = 1;
const BALANCED: i32 = 2;
/// The first bit of the logarithm of a normalized rate before its samples say more, in 1/256, and its bounds.
const PRIOR_AT: u32 = 2;
const LEAST_PRIOR: i32 = -4 * rate::OCTAVE;
const LARGEST_PRIOR: i32 = 2 * rate::OCTAVE;
/// The rarest class counts as at least this part of the most frequent one.
const LARGEST_IMBALANCE: u32 = 16;

/// Flag in [`SgdHead::rates`]: this row does not learn.
const FROZEN: u16 = 1 << 15;

/// The state in RAM.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct State {
    /// The number of times the weights were halved.
    exponent: U32,
    random: U32,
    /// V + 128, `[classes][features + 1]`.
    weights: [i16],
}

/// A linear layer in RAM that learns by stochastic gradient descent; the module's documentation has arithmetic and bounds.
///
/// Its state is, little-endian: the exponent (u32), the random state (u32), `[classes][features + 1]` weights V + 128 (int16).
pub struct SgdHead<'a> {
    record: &'a HeadRecord,
    initial: &'a [i16],
    /// C of each class, and [`FROZEN`].
    rates: &'a [u16],
    loss: Loss,
    input_zero_point: i32,
    state: &'a mut State,
    /// An upper bound of all |V|: steps that cannot reach the bounds of steps 6 and 7 do not check them.
    bound: i32,
    /// One word per class: logits, then errors, then gradients.
    scratch: &'a mut [i32],
    /// Samples of each class in the ring, during a training of balanced classes.
    counts: &'a mut [i32],
    /// The number of samples of a class that learns at the full rate; 0: all do.
    full_rate_at: u32,
}

impl<'a> SgdHead<'a> {
    /// [`HeadRecord::trainer`] of this head.
    pub const TRAINER: u32 = 1;
    pub(super) const LIMITS: Limits = Limits { classes: 1 << 15, features: 1 << 15 };
    pub(super) const USES_RING: bool = true;

    pub(super) const fn sizes_of(record: &HeadRecord) -> HeadSizes {
        HeadSizes::with_layers(record, LayerSizes::NONE)
    }

    pub(super) const fn memory(sizes: &HeadSizes) -> Memory {
        let weights = Self::weights(sizes.classes, sizes.features);
        let state_bytes = weights.saturating_mul(2).saturating_add(2 * size_of::<U32>());
        Memory { state_bytes, scratch_words: sizes.classes.saturating_mul(2) }
    }

    #[cfg(feature = "alloc")]
    pub(super) fn aggregation(&self) -> Aggregation {
        Aggregation::Mean(alloc::vec![self.state.weights.len()])
    }

    const fn weights(classes: usize, features: usize) -> usize {
        classes.saturating_mul(features.saturating_add(1))
    }

    fn bias_input(&self) -> i32 {
        self.record.constants[6]
    }

    /// Sets the bound to the largest |V|.
    fn measure(&mut self) {
        self.bound = linear::largest(&self.state.weights);
    }

    /// One step, with a rate that is lowered by this logarithm.
    fn step_towards(&mut self, features: &[i8], target: Target, lowered: i32) -> Result<(), Error> {
        self.check(target)?;
        self.logits(features)?;
        self.errors(target);
        let exponent = self.state.exponent.get();
        let (lowered, factor) = rate::shift_and_factor(lowered);
        let rate_shift = self.record.constants[3].saturating_add(lowered).saturating_add_unsigned(exponent);
        let shift = rate_shift.clamp(1, LARGEST_SHIFT) as u32;
        let steepest = self.errors_to_gradients(target, factor);
        let furthest = ((steepest * 255 + (1 << (shift - 1))) >> shift) + 1;
        if self.bound + furthest > HALVE_ABOVE {
            self.measure();
        }
        let bias_input = self.bias_input();
        let rows = &mut self.state.weights;
        if self.bound + furthest <= HALVE_ABOVE {
            self.bound += furthest;
            linear::descend(rows, features, self.input_zero_point, bias_input, self.scratch, shift);
            return Ok(());
        }
        let largest = linear::descend_bounded(rows, features, self.input_zero_point, bias_input, self.scratch, shift);
        self.bound = self.bound.max(largest);
        if largest > HALVE_ABOVE && exponent < self.largest_exponent() {
            self.halve();
        }
        Ok(())
    }

    /// Steps 2 to 4: replaces the logits by the errors.
    fn errors(&mut self, target: Target) {
        let [multiplier, multiplier_shift, ..] = self.record.constants;
        loss::errors(self.scratch, target, multiplier as u64, multiplier_shift as u32 - self.state.exponent.get());
    }

    /// Step 5 and the first half of step 6: replaces the errors by `g_k`, 0 for a skipped row; returns the largest |g|. `factor` is
    /// that of all rates, in Q15.
    fn errors_to_gradients(&mut self, target: Target, factor: i32) -> i32 {
        let left_alone = left_alone(self.loss);
        // A single label decides the rate of all rows.
        let label = match target {
            Target::Class(label) => self.rates.get(usize::from(label)).map(|rate| self.weighed(rate & !FROZEN, label)),
            _ => None,
        };
        let mut steepest = 0;
        for (error, own) in self.scratch.iter_mut().zip(self.rates) {
            let rate = (i32::from(label.unwrap_or(own & !FROZEN)) * factor) >> 15;
            let learns = error.abs() > left_alone && own & FROZEN == 0;
            *error = if learns { (*error * rate + (1 << 14)) >> 15 } else { 0 };
            steepest = error.abs().max(steepest);
        }
        steepest
    }

    fn largest_exponent(&self) -> u32 {
        let [_, multiplier_shift, _, rate_shift, ..] = self.record.constants;
        multiplier_shift.min(LARGEST_SHIFT - rate_shift.max(1)) as u32
    }

    fn halve(&mut self) {
        linear::halve(&mut self.state.weights);
        self.state.exponent += 1;
        self.measure();
    }
}

impl<'a> Head<'a> for SgdHead<'a> {
    const NAME: &'static str = "SgdHead";

    fn runs(trainer: u32) -> bool {
        trainer == Self::TRAINER
    }

    fn new(image: &Image<'a>, ram: &'a mut [u32]) -> Result<Self, Error> {
        let record = image.head().ok_or(Error::NoHead)?;
        let field = |name, value: i64| Err(Error::Field { name, value });
        let [multiplier, multiplier_shift, rate, rate_shift, loss, halve_every, bias_input, flags] = record.constants;
        if record.trainer != Self::TRAINER {
            return field("head trainer", record.trainer.into());
        }
        let sizes = Self::sizes_of(record);
        Self::LIMITS.check(&sizes)?;
        linear::check_record(record, (multiplier, multiplier_shift), halve_every)?;
        let prior = flags >> PRIOR_AT;
        if !(LEAST_PRIOR..=LARGEST_PRIOR).contains(&prior) || prior != 0 && flags & NORMALIZED == 0 {
            return field("head flags of its rate", flags.into());
        }
        let least_shift = if flags & NORMALIZED != 0 { -LARGEST_SHIFT } else { 1 };
        if !(1 << 14..1 << 15).contains(&rate) || !(least_shift..=LARGEST_SHIFT).contains(&rate_shift) {
            return field("head learning rate", rate.into());
        }
        let loss = Loss::new(loss, record.classes)?;
        if loss != Loss::CrossEntropy && flags & BALANCED != 0 {
            return field("head flags of its rate", flags.into());
        }
        if !(1..=LARGEST_BIAS_INPUT).contains(&bias_input) {
            return field("head bias input", bias_input.into());
        }
        let initial = image.head_state(record);
        let weights = Self::weights(sizes.classes, sizes.features);
        let wrong_length = Error::Field { name: "head state length", value: initial.len() as i64 };
        let (initial, rates) = <[i16]>::ref_from_prefix_with_elems(initial, weights).map_err(|_| wrong_length)?;
        let rates = <[u16]>::ref_from_bytes_with_elems(rates, sizes.classes).map_err(|_| wrong_length)?;
        if let Some(&wrong) = rates.iter().find(|&&rate_of| i32::from(rate_of & !FROZEN) > rate) {
            return field("head learning rate of a class", wrong.into());
        }
        initial.iter().try_for_each(|&stored| check_weight(stored, HALVE_ABOVE))?;
        let memory = Self::memory(&sizes);
        let wrong_ram = memory.wrong_ram(ram.len());
        let (state, scratch) = memory.split(ram)?;
        let (state, _) = State::mut_from_prefix_with_elems(state.as_mut_bytes(), weights).map_err(|_| wrong_ram)?;
        let input_zero_point = image.output(0).zero_point;
        let (scratch, counts) = scratch.split_at_mut_checked(sizes.classes).ok_or(wrong_ram)?;
        let full_rate_at = 0;
        let mut head =
            SgdHead { record, initial, rates, loss, input_zero_point, state, bound: 0, scratch, counts, full_rate_at };
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

    fn logit_scale(&self) -> f32 {
        // Exact: a power of two no larger than 2^63.
        self.record.logit_scale * (1u64 << self.state.exponent.get()) as f32
    }

    fn logits(&mut self, features: &[i8]) -> Result<&[i32], Error> {
        self.check_features(features)?;
        linear::products(&self.state.weights, features, self.input_zero_point, self.bias_input(), self.scratch);
        Ok(self.scratch)
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
        self.errors(target);
        Ok(loss::score(self.scratch, target))
    }

    fn learn(&mut self, features: &[i8], target: Target) -> Result<(), Error> {
        self.check_features(features)?;
        self.step_towards(features, target, self.lowered_for(features))
    }

    fn train(&mut self, ring: &FeatureRing<'_>, training: &mut Training, most: u32) -> Result<(), Error> {
        let halve_every = self.record.constants[5] as u32;
        let lowered = match training.lowered {
            Some(lowered) => lowered,
            None => {
                if self.record.half_life > 0 && training.is_at_start() {
                    self.reset();
                }
                *training.lowered.insert(self.lowered_for_ring(ring))
            }
        };
        self.count(ring);
        let mut random = self.state.random.get();
        let result = order::visit(self.record.half_life, ring, training, most, &mut random, |features, word, epoch| {
            let halvings = epoch.checked_div(halve_every).unwrap_or(0);
            let halvings = (halvings as i32).saturating_mul(rate::OCTAVE);
            self.step_towards(features, self.target(word), lowered.saturating_add(halvings))
        });
        self.full_rate_at = 0;
        self.state.random.set(random);
        result
    }

    fn state(&self) -> &[u8] {
        self.state.as_bytes()
    }

    fn check_state(&self, state: &[u8]) -> Result<(), Error> {
        let saved = Saved::read(state, self.state().len(), 1)?;
        let most = self.largest_exponent();
        saved.exponents.iter().try_for_each(|exponent| check_layer(saved.weights, exponent.get(), most))
    }

    fn overwrite(&mut self, write: impl FnOnce(&mut [u8])) {
        write(self.state.as_mut_bytes());
        self.measure();
    }

    fn reset(&mut self) {
        self.state.exponent.set(0);
        self.state.random.set(FIRST_RANDOM);
        self.state.weights.iter_mut().zip(self.initial).for_each(|(own, &initial)| *own = initial);
        self.measure();
    }
}

/// The largest error that a row does not learn from: step 5.
const fn left_alone(loss: Loss) -> i32 {
    match loss {
        Loss::CrossEntropy | Loss::Binary => 1024,
        Loss::Squared => 8,
    }
}
