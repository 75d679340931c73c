//! `SgdHead` at the bounds of its numbers: nothing overflows, and every weight equals the definition's.
//!
//! `cargo test` checks overflow in the crate and here (`the_test_profile_checks_overflow`), but not errors of wrapping arithmetic and of casts: these
//! are found by comparison with [`Definition`], in int64 without a cast.

use std::hint::black_box;
use std::panic::catch_unwind;

use nano_core::train::{AnyHead, FeatureRing, Head, LARGEST_EPOCHS, Loss, Target, Training, Update, aggregate};

use crate::builder::{Aligned, Builder, place};
use crate::heads::with_any;

const HALVE_ABOVE: i64 = 32000;
const SATURATE_AT: i64 = 32639;

#[test]
fn the_test_profile_checks_overflow() {
    let overflow = catch_unwind(|| black_box(i32::MAX) + black_box(1));
    assert!(overflow.is_err(), "profile.test needs overflow-checks, or the tests that look for overflow see none");
}

/// The largest input of a bias that an image may hold.
const BIAS_INPUT: u32 = 128;

/// A head's settings; `constants` are multiplier, its shift, rate, its shift: any values that an image may hold.
#[derive(Clone, Copy, Debug)]
struct Setting {
    loss: Loss,
    classes: usize,
    features: u32,
    zero_point: i32,
    constants: [u32; 4],
}

impl Setting {
    /// Three outputs, or the one that squared error has, of six features.
    fn small(loss: Loss, zero_point: i32, constants: [u32; 4]) -> Self {
        let classes = if loss == Loss::Squared { 1 } else { 3 };
        Setting { loss, classes, features: 6, zero_point, constants }
    }

    /// The rate is halved after every epoch.
    fn image(&self) -> Aligned {
        let mut net = Builder::new(7);
        let input = net.input([1, 1, self.features]);
        let output = net.table(input);
        net.value(output).zero_point = self.zero_point;
        net.output(output);
        net.model.labels = vec![];
        let mut head = net.sgd(self.classes);
        (head.descent.loss, head.descent.halve_every) = (self.loss, 1);
        net.model.head = Some(nano_core::image::HeadDescription::Sgd(head));
        let mut image = net.image();
        let record = image.word(place::HEAD) as usize;
        let state = (image.word(place::CONSTANTS) + image.word(record + 4 * 12)) as usize;
        let rates = state + 2 * self.classes * (self.features as usize + 1);
        for rate in image.bytes_mut()[rates..][..2 * self.classes].chunks_exact_mut(2) {
            rate.copy_from_slice(&self.constants[2].to_le_bytes()[..2]);
        }
        for (index, constant) in self.constants.into_iter().enumerate() {
            image.patch(record + 4 * (3 + index), constant);
        }
        image.patch(record + 4 * (3 + 6), BIAS_INPUT);
        image
    }

    fn largest_exponent(&self) -> u32 {
        self.constants[1].min(30 - self.constants[3])
    }
}

/// The definition in `nano-core/src/train/sgd/mod.rs`, step by step.
struct Definition {
    setting: Setting,
    exponentials: Vec<i64>,
    exponent: u32,
    /// V of each row, its bias the last.
    rows: Vec<Vec<i64>>,
    /// The largest |V| so far.
    largest: i64,
}

impl Definition {
    fn new(setting: Setting, head: &AnyHead<'_>) -> Self {
        let exponentials = (0..256).map(|j| (32768.0 * (-f64::from(j) / 256.0).exp2()).round() as i64).collect();
        let mut definition = Definition { setting, exponentials, exponent: 0, rows: vec![], largest: 0 };
        definition.load(head.state());
        definition
    }

    fn load(&mut self, state: &[u8]) {
        self.exponent = u32::from_le_bytes(state[..4].try_into().unwrap());
        let stored = state[8..].chunks_exact(2).map(|bytes| i64::from(i16::from_le_bytes([bytes[0], bytes[1]])));
        let v: Vec<i64> = stored.map(|stored| stored - 128).collect();
        self.rows = v.chunks_exact(self.setting.features as usize + 1).map(<[i64]>::to_vec).collect();
    }

    /// As the head's state has it, without the random state.
    fn state(&self) -> (u32, Vec<i64>) {
        (self.exponent, self.rows.concat())
    }

    fn inputs(&self, features: &[i8]) -> Vec<i64> {
        features.iter().map(|&q| i64::from(q) - i64::from(self.setting.zero_point)).chain([BIAS_INPUT.into()]).collect()
    }

    fn logits(&self, features: &[i8]) -> Vec<i64> {
        let inputs = self.inputs(features);
        let dot = |row: &Vec<i64>| row.iter().zip(&inputs).map(|(v, x)| ((v + 128) >> 8) * x).sum();
        self.rows.iter().map(dot).collect()
    }

    fn power(&self, distance: i64) -> i64 {
        if distance >> 8 >= 63 { 0 } else { self.exponentials[(distance & 255) as usize] >> (distance >> 8) }
    }

    fn errors(&self, logits: &[i64], target: Target) -> Vec<i64> {
        let [multiplier, shift, ..] = self.setting.constants;
        let steps = |logit: i64| (logit * i64::from(multiplier)) >> (shift - self.exponent);
        match target {
            Target::Class(label) => {
                let largest = *logits.iter().max().unwrap();
                let p: Vec<i64> = logits.iter().map(|logit| self.power(steps(largest - logit))).collect();
                let reciprocal = (1 << 30) / p.iter().sum::<i64>();
                let is_label = |class: usize| i64::from(class == usize::from(label));
                p.iter().enumerate().map(|(class, p)| ((p * reciprocal) >> 15) - (is_label(class) << 15)).collect()
            }
            Target::Labels(labels) => {
                let error = |(class, logit): (usize, &i64)| {
                    let h = (1 << 30) / ((1 << 15) + self.power(steps(logit.abs())));
                    (if *logit < 0 { (1 << 15) - h } else { h }) - (i64::from(labels >> class & 1) << 15)
                };
                logits.iter().enumerate().map(error).collect()
            }
            Target::Value(value) => vec![(steps(logits[0]) - i64::from(value)).clamp(-(1 << 15), 1 << 15)],
        }
    }

    fn step(&mut self, features: &[i8], target: Target, halvings: u32) {
        let [_, _, rate, rate_shift] = self.setting.constants;
        let errors = self.errors(&self.logits(features), target);
        let left_alone = if self.setting.loss == Loss::Squared { 8 } else { 1024 };
        let shift = (u64::from(rate_shift) + u64::from(self.exponent) + u64::from(halvings)).min(30);
        let inputs = self.inputs(features);
        for (row, error) in self.rows.iter_mut().zip(errors) {
            if error.abs() <= left_alone {
                continue;
            }
            let gradient = (error * i64::from(rate) + (1 << 14)) >> 15;
            for (v, x) in row.iter_mut().zip(&inputs) {
                *v = (*v - ((gradient * x + (1 << (shift - 1))) >> shift)).clamp(-SATURATE_AT, SATURATE_AT);
                self.largest = self.largest.max(v.abs());
            }
        }
        let weights = || self.rows.iter().flatten();
        if weights().any(|v| v.abs() > HALVE_ABOVE) && self.exponent < self.setting.largest_exponent() {
            self.rows.iter_mut().flatten().for_each(|v| *v >>= 1);
            self.exponent += 1;
        }
    }
}

fn halves(state: &[u8]) -> (u32, Vec<i64>) {
    let exponent = u32::from_le_bytes(state[..4].try_into().unwrap());
    let stored = state[8..].chunks_exact(2).map(|bytes| i64::from(i16::from_le_bytes([bytes[0], bytes[1]])));
    (exponent, stored.map(|stored| stored - 128).collect())
}

/// Features at the ends of int8: all low, all high, in turn, at random.
fn ends(step: usize, count: u32) -> Vec<i8> {
    let mut random = fastrand::Rng::with_seed(step as u64);
    (0..count)
        .map(|index| match step % 5 {
            0 | 1 => 127,
            2 => -128,
            3 if index & 1 == 0 => 127,
            3 => -128,
            _ => random.choice([-128, 127]).unwrap(),
        })
        .collect()
}

/// The same target for a while, then the opposite, then always the target furthest from the logits.
fn target(loss: Loss, step: usize, patience: usize, logits: &[i32]) -> Target {
    let phase = step / patience % 3;
    match loss {
        Loss::CrossEntropy => {
            let least = (0..logits.len()).min_by_key(|&class| logits[class]).unwrap();
            Target::Class([0, logits.len() - 1, least][phase] as u16)
        }
        Loss::Binary => {
            let all = u32::MAX >> (32 - logits.len());
            let wrong = logits.iter().enumerate().map(|(class, &logit)| u32::from(logit < 0) << class).sum();
            Target::Labels([0, all, wrong][phase])
        }
        Loss::Squared => Target::Value([i32::MAX, i32::MIN, if logits[0] < 0 { i32::MAX } else { i32::MIN }][phase]),
    }
}

/// Learns extreme features in both, and compares; `patience`: see [`target`].
fn learn(head: &mut AnyHead<'_>, definition: &mut Definition, steps: usize, patience: usize) {
    let setting = definition.setting;
    for step in 0..steps {
        let features = ends(step, setting.features);
        let logits = head.logits(&features).unwrap().to_vec();
        assert!(logits.iter().map(|&logit| i64::from(logit)).eq(definition.logits(&features)), "{setting:?}, {step}");
        let target = target(setting.loss, step, patience, &logits);
        head.learn(&features, target).unwrap();
        definition.step(&features, target, 0);
        assert!(halves(head.state()) == definition.state(), "{setting:?}, step {step}");
    }
}

/// Loads weights at their bounds, of both signs, under the exponent that allows them.
fn load_largest(head: &mut AnyHead<'_>, definition: &mut Definition, exponent: u32, sign: impl Fn(usize) -> i16) {
    let largest = if exponent == definition.setting.largest_exponent() { SATURATE_AT } else { HALVE_ABOVE };
    let mut state = head.state().to_vec();
    state[..4].copy_from_slice(&exponent.to_le_bytes());
    for (index, weight) in
        state[8..].chunks_exact_mut(2).enumerate().take(definition.rows.len() * definition.rows[0].len())
    {
        weight.copy_from_slice(&(largest as i16 * sign(index) + 128).to_le_bytes());
    }
    head.load(&state).unwrap();
    definition.load(&state);
}

/// Every loss; the smallest, the largest and some other multipliers and rates that an image may hold, and their shifts.
fn settings() -> impl Iterator<Item = (Loss, i32, [u32; 4])> {
    let losses = [Loss::CrossEntropy, Loss::Binary, Loss::Squared];
    let pairs = losses.into_iter().flat_map(|loss| [-128, 127, 0].map(|zero_point| (loss, zero_point)));
    pairs.flat_map(|(loss, zero_point)| {
        [0, 5, 63].into_iter().flat_map(move |shift| {
            [1, 8, 20, 30].into_iter().flat_map(move |rate_shift| {
                [(1 << 15, 1 << 14), ((1 << 16) - 1, (1 << 15) - 1)]
                    .map(|(multiplier, rate)| (loss, zero_point, [multiplier, shift, rate, rate_shift]))
            })
        })
    })
}

#[test]
fn thousands_of_steps_towards_the_bounds_of_weights_do_not_overflow() {
    let (mut saturated, mut deepest, mut all_halvings) = (0, 0, 0);
    for (loss, zero_point, constants) in settings() {
        let setting = Setting::small(loss, zero_point, constants);
        with_any(&setting.image(), |head| {
            let mut definition = Definition::new(setting, head);
            learn(head, &mut definition, 2400, 800);
            saturated += usize::from(definition.largest == SATURATE_AT);
            deepest = deepest.max(definition.exponent);
            all_halvings +=
                usize::from(definition.exponent == setting.largest_exponent() && definition.exponent == constants[1]);
            let learnt = head.state().to_vec();
            aggregate(head, &[Update { state: &learnt, samples: u32::MAX }; 3], |_, error| Err(error)).unwrap();
            assert_eq!(head.state(), learnt);
            assert!(head.logit_scale().is_finite());
        });
    }
    assert!(saturated > 40 && deepest > 12 && all_halvings > 20, "{saturated}, {deepest}, {all_halvings}");
}

#[test]
fn weights_at_their_bounds_learn_on() {
    for (loss, zero_point, constants) in settings() {
        let setting = Setting::small(loss, zero_point, constants);
        with_any(&setting.image(), |head| {
            let mut definition = Definition::new(setting, head);
            for exponent in [0, setting.largest_exponent()] {
                load_largest(head, &mut definition, exponent, |index| if index % 5 == 0 { -1 } else { 1 });
                learn(head, &mut definition, 30, 5);
                load_largest(head, &mut definition, exponent, |_| -1);
                learn(head, &mut definition, 30, 5);
            }
        });
    }
}

#[test]
fn epochs_up_to_the_last_number_halve_the_rate_without_overflow() {
    for (loss, zero_point, constants) in settings() {
        let setting = Setting::small(loss, zero_point, constants);
        with_any(&setting.image(), |head| {
            let mut definition = Definition::new(setting, head);
            let (mut samples, mut labels) = ([0; 6], [0; 1]);
            for (number, epochs) in [0..4, 28..32, LARGEST_EPOCHS - 3..LARGEST_EPOCHS].into_iter().enumerate() {
                load_largest(head, &mut definition, 0, |index| if index % 2 == 0 { 1 } else { -1 });
                let features = ends(number, setting.features);
                let target = target(loss, 2, 1, head.logits(&features).unwrap());
                // Of one sample every order is the same.
                let mut ring = FeatureRing::new(6, &mut samples, &mut labels).unwrap();
                ring.push(&features, target).unwrap();
                let mut training = Training::new(&ring, epochs.start, epochs.len() as u32).unwrap();
                head.train(&ring, &mut training, u32::MAX).unwrap();
                epochs.clone().for_each(|epoch| definition.step(&features, target, epoch));
                assert!(halves(head.state()) == definition.state(), "{setting:?}, epochs {epochs:?}");
            }
        });
    }
}

/// 2^15 features: sums of almost 2^30, and differences of almost 2^31.
#[test]
fn the_widest_head_does_not_overflow() {
    for (loss, classes) in [(Loss::CrossEntropy, 2), (Loss::Binary, 2), (Loss::Squared, 1)] {
        for zero_point in [-128, 127, 0] {
            for constants in [[(1 << 16) - 1, 0, (1 << 15) - 1, 1], [(1 << 16) - 1, 63, (1 << 15) - 1, 29]] {
                let setting = Setting { loss, classes, features: 1 << 15, zero_point, constants };
                with_any(&setting.image(), |head| {
                    let mut definition = Definition::new(setting, head);
                    for sign in [1, -1] {
                        let width = (1 << 15) + 1;
                        let exponent = setting.largest_exponent();
                        load_largest(head, &mut definition, exponent, |index| if index < width { sign } else { -sign });
                        learn(head, &mut definition, 5, 1);
                    }
                });
            }
        }
    }
}

/// 2^15 classes: a sum of exponentials of 2^30. And all outputs that a binary target has.
#[test]
fn the_head_of_most_classes_does_not_overflow() {
    for (loss, classes) in [(Loss::CrossEntropy, 1 << 15), (Loss::Binary, 32)] {
        for shift in [0, 63] {
            let constants = [(1 << 16) - 1, shift, (1 << 15) - 1, 1];
            let setting = Setting { loss, classes, features: 1, zero_point: -128, constants };
            with_any(&setting.image(), |head| {
                let mut definition = Definition::new(setting, head);
                for sign in [1, -1] {
                    load_largest(head, &mut definition, setting.largest_exponent(), |_| sign);
                    learn(head, &mut definition, 6, 1);
                }
            });
        }
    }
}
