//! Nearest class mean classifier, in integers: the cheapest head.
//!
//! With `x_i = q_i - z_x`, learning adds to exact sums, `n_k += 1` and `s_ki += x_i`, so the order of the samples does not change the
//! result. A logit is minus the squared distance to the class's mean, in sixteenths: `-floor(16 sum (n_k x_i - s_ki)^2 / n_k^2)`. Its
//! scale is `s_x^2 / 16`.
//!
//! A head can start from the means of the factory's classes, which the user's samples move ([`crate::train::start`]); the variance within
//! a class is then the factory's. The means of both, M, have 7 fraction bits, are in scratch memory, and are made anew when logits are
//! asked for after a change. A logit is `-floor(sum (2^7 x_i - M_i)^2 / 2^10)`: also in sixteenths.
//!
//! Samples fade. If a class has twice the half-life of its samples, or 2^16, its sums are halved before the next one: `n' = ceil(n / 2)`,
//! `s' = floor(s n' / n + 1/2)`. With a half-life, a sample that the head does not recognise first reduces its class to the weight of one sample.
//! The head then follows a sudden change of the user, and goes on averaging for a user who stays the same. (40 windows after a watch changes its
//! wearer it is 0.6 points below a new head; without this 1.9, with half the half-life 1.2.) Halved sums are no longer sums of whole samples: a
//! head with them refuses to unlearn, and cannot be merged into another head.
//!
//! Bounds: with a start, `|2^7 x - M| < 2^15`, so a logit is above -2^29. Else `|x| <= 255`, at most 2^16 samples of a class and 512 features: `|s| < 2^24`, `|n x - s| < 2^24`, so a sum of squares is below
//! 2^57, sixteen times that fits int64, and a logit is above -2^30.

#[cfg(feature = "alloc")]
mod image;
mod started;

use core::num::NonZero;

use zerocopy::little_endian::{I32, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

#[cfg(feature = "alloc")]
pub(super) use image::pack;
use started::Started;

use crate::Error;
use crate::image::{HeadRecord, Image};
use crate::operator::CheckedPart;
#[cfg(feature = "alloc")]
use crate::train::aggregation::Aggregation;
use crate::train::confidence::NO_LOGIT;
use crate::train::head::Head;
use crate::train::sizes::{HeadSizes, LayerSizes, Limits, Memory};
#[cfg(feature = "alloc")]
pub use crate::train::sums::SumsDescription;
use crate::train::sums::{self, SumsHead};
use crate::train::target::Target;

const LARGEST_SAMPLES: u32 = 1 << 16;
/// Words of the state before the counts.
const PREFIX: usize = 2;

/// The state in RAM.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct State {
    /// Number of classes in use.
    classes: u32,
    /// The number of times that the sums of a class were halved.
    halvings: u32,
    /// Counts and sums.
    words: [i32],
}

/// A saved state, to be checked.
struct Saved<'s> {
    classes: u32,
    halvings: u32,
    counts: &'s [U32],
    sums: &'s [I32],
}

/// A nearest class mean classifier in RAM; the module's documentation has arithmetic and bounds.
///
/// State, little-endian words: classes in use, halvings of a class's sums, then `n_k`, then `s_ki`, for as many classes as the image has room for.
pub struct PrototypeHead<'a> {
    record: &'a HeadRecord,
    input_zero_point: i32,
    state: &'a mut State,
    logits: &'a mut [i32],
    started: Option<Started<'a>>,
}

impl<'a> PrototypeHead<'a> {
    /// [`HeadRecord::trainer`] of this head.
    pub const TRAINER: u32 = 3;
    pub(super) const LIMITS: Limits = Limits { classes: 1 << 12, features: 512 };
    pub(super) const USES_RING: bool = false;

    pub(super) const fn sizes_of(record: &HeadRecord) -> HeadSizes {
        let parameters = (record.classes as usize).saturating_mul(record.features as usize);
        let weights = if record.constants[1] == 0 { 0 } else { parameters };
        HeadSizes::with_layers(record, LayerSizes { weights, ..LayerSizes::NONE })
    }

    pub(super) const fn memory(sizes: &HeadSizes) -> Memory {
        let words = sizes.classes.saturating_mul(sizes.features.saturating_add(1)).saturating_add(PREFIX);
        let started = match sizes.layers.weights {
            0 => 0,
            means => Started::words(means, sizes.features),
        };
        Memory { state_bytes: words.saturating_mul(4), scratch_words: sizes.classes.saturating_add(started) }
    }

    /// After a change of counts and sums.
    fn changed(&mut self) {
        if let Some(started) = &mut self.started {
            started.state_changed();
        }
    }

    #[cfg(feature = "alloc")]
    pub(super) fn aggregation(&self) -> Aggregation {
        Aggregation::Sum { words: alloc::vec![PREFIX..PREFIX + self.state.words.len()], halvings: 1 }
    }

    /// Counts and sums.
    fn parts(&mut self) -> (&mut [u32], &mut [i32]) {
        let (counts, sums) = self.state.words.split_at_mut_checked(self.record.classes as usize).checked_part();
        (zerocopy::transmute_mut!(counts), sums)
    }

    /// Count and sums of a class.
    fn class(&mut self, class: usize) -> Option<(&mut u32, &mut [i32])> {
        let width = self.width();
        let (counts, sums) = self.parts();
        Some((counts.get_mut(class)?, sums.chunks_exact_mut(width).nth(class)?))
    }

    /// Halves the sums of a class until they count as at most `most` samples, which is at least 1.
    fn fade(&mut self, class: usize, most: u32) {
        let mut halvings = 0;
        if let Some((count, sums)) = self.class(class) {
            while *count > most.max(1) {
                *count = sums::halve(*count, sums);
                halvings += 1;
            }
        }
        self.state.halvings = self.state.halvings.saturating_add(halvings);
        self.changed();
    }

    /// Number of features: at least 1, as a chunk size must be.
    fn width(&self) -> usize {
        self.record.features.max(1) as usize
    }

    fn least_classes(&self) -> usize {
        self.record.constants[0] as usize
    }

    /// Splits a state.
    fn read<'s>(&self, state: &'s [u8]) -> Result<Saved<'s>, Error> {
        let wrong = Error::Length { name: "saved head", needed: self.state().len(), given: state.len() };
        Error::check_length("saved head", self.state().len(), state.len())?;
        let ([classes, halvings], rest) = <[U32; PREFIX]>::ref_from_prefix(state).map_err(|_| wrong)?;
        let capacity = self.record.classes as usize;
        let (counts, sums) = <[U32]>::ref_from_prefix_with_elems(rest, capacity).map_err(|_| wrong)?;
        let sums = <[I32]>::ref_from_bytes(sums).map_err(|_| wrong)?;
        Ok(Saved { classes: classes.get(), halvings: halvings.get(), counts, sums })
    }

    /// Checks that a state is one of this head.
    fn saved<'s>(&self, state: &'s [u8]) -> Result<Saved<'s>, Error> {
        let saved = self.read(state)?;
        let Saved { classes, counts, sums, .. } = saved;
        if !(self.least_classes()..=counts.len()).contains(&(classes as usize)) {
            return Err(Error::Field { name: "head classes in use", value: classes.into() });
        }
        for (class, (count, sums)) in (0..).zip(counts.iter().zip(sums.chunks_exact(self.width()))) {
            let count = count.get();
            if count > LARGEST_SAMPLES || class >= classes && count > 0 {
                return Err(Error::Field { name: "head samples of a class", value: count.into() });
            }
            let (low, high) = (-128 - self.input_zero_point, 127 - self.input_zero_point);
            let possible = count as i32 * low..=count as i32 * high;
            if let Some(sum) = sums.iter().find(|sum| !possible.contains(&sum.get())) {
                return Err(Error::Field { name: "head sum", value: sum.get().into() });
            }
        }
        Ok(saved)
    }
}

impl<'a> SumsHead<'a> for PrototypeHead<'a> {
    fn add(&mut self, features: &[i8], class: usize, times: i32) {
        let zero_point = self.input_zero_point;
        if let Some((count, sums)) = self.class(class) {
            *count = count.wrapping_add_signed(times);
            for (sum, &q) in sums.iter_mut().zip(features) {
                *sum += times * (i32::from(q) - zero_point);
            }
        }
        self.changed();
    }

    fn sums_of(&self, class: usize) -> Option<(u32, &[i32])> {
        let (counts, sums) = self.state.words.split_at_checked(self.record.classes as usize).checked_part();
        let width = self.record.features.max(1) as usize;
        Some((*counts.get(class)? as u32, sums.chunks_exact(width).nth(class)?))
    }

    fn halvings(&self) -> u32 {
        self.state.halvings
    }

    fn make_room(&mut self, class: usize) {
        let count = self.class(class).map_or(0, |(&mut count, _)| count);
        if count == LARGEST_SAMPLES || sums::is_old(count, self.record.half_life) {
            self.fade(class, count - 1);
        }
    }
}

impl<'a> Head<'a> for PrototypeHead<'a> {
    const NAME: &'static str = "PrototypeHead";

    fn runs(trainer: u32) -> bool {
        trainer == Self::TRAINER
    }

    fn new(image: &Image<'a>, ram: &'a mut [u32]) -> Result<Self, Error> {
        let record = image.head().ok_or(Error::NoHead)?;
        let field = |name, value: i64| Err(Error::Field { name, value });
        let initial_classes = record.constants[0];
        if record.trainer != Self::TRAINER {
            return field("head trainer", record.trainer.into());
        }
        let sizes = Self::sizes_of(record);
        Self::LIMITS.check(&sizes)?;
        sums::check_record(record, initial_classes, LARGEST_SAMPLES)?;
        record.check_logit_scale()?;
        let memory = Self::memory(&sizes);
        let wrong_ram = memory.wrong_ram(ram.len());
        let (state, scratch) = memory.split(ram)?;
        let state = State::mut_from_bytes(state.as_mut_bytes()).map_err(|_| wrong_ram)?;
        let (logits, scratch) = scratch.split_at_mut_checked(sizes.classes).ok_or(wrong_ram)?;
        let input_zero_point = image.output(0).zero_point;
        let started = Started::read(image, record, input_zero_point, scratch)?;
        let mut head = PrototypeHead { record, input_zero_point, state, logits, started };
        head.reset();
        Ok(head)
    }

    fn sizes(&self) -> HeadSizes {
        Self::sizes_of(self.record)
    }

    fn classes(&self) -> usize {
        self.state.classes as usize
    }

    fn features(&self) -> usize {
        self.record.features as usize
    }

    fn logit_scale(&self) -> f32 {
        self.record.logit_scale
    }

    fn logits(&mut self, features: &[i8]) -> Result<&[i32], Error> {
        self.check_features(features)?;
        let (width, classes, zero_point) = (self.width(), self.classes(), self.input_zero_point);
        let (counts, sums) = self.state.words.split_at_checked(self.record.classes as usize).checked_part();
        let counts: &[u32] = zerocopy::transmute_ref!(counts);
        if let Some(started) = &mut self.started {
            started.update(counts, sums);
            started.logits(features, zero_point, counts, self.logits);
            return Ok(self.logits.get(..classes).checked_part());
        }
        for ((logit, &count), sums) in self.logits.iter_mut().zip(counts).zip(sums.chunks_exact(width)) {
            let squares = sums.iter().zip(features).map(|(&sum, &q)| {
                let difference = count as i32 * (i32::from(q) - zero_point) - sum;
                i64::from(difference) * i64::from(difference)
            });
            *logit = match u64::from(count) {
                0 => NO_LOGIT,
                // `count` is at most 2^16 and not 0, which LLVM does not know.
                count => -(((squares.sum::<i64>() as u64) << 4).div_euclid((count * count).max(1)) as i32),
            };
        }
        Ok(self.logits.get(..classes).checked_part())
    }

    fn distance(&self, features: &[i8], class: usize) -> Option<(u32, NonZero<u32>)> {
        self.distance_to_mean(features, class, self.input_zero_point)
    }

    fn target(&self, word: u32) -> Target {
        Target::Class(word as u16)
    }

    fn check(&self, target: Target) -> Result<(), Error> {
        target.class(self.classes(), Self::NAME).map(drop)
    }

    fn learn(&mut self, features: &[i8], target: Target) -> Result<(), Error> {
        let class = self.check_sample(features, target)?;
        if self.record.half_life > 0 && self.predict(features)? != class {
            self.fade(class, 1);
        }
        self.learn_sample(features, target)
    }

    fn unlearn(&mut self, features: &[i8], target: Target) -> Result<(), Error> {
        self.unlearn_sample(features, target)
    }

    fn check_growth(&self) -> Result<(), Error> {
        Ok(())
    }

    fn add_class(&mut self) -> Result<usize, Error> {
        let class = self.next_class(self.record.classes as usize)?;
        self.state.classes += 1;
        Ok(class)
    }

    fn forget(&mut self, class: usize) -> Result<(), Error> {
        self.check_class(class)?;
        if let Some((count, sums)) = self.class(class) {
            *count = 0;
            sums.fill(0);
        }
        self.changed();
        Ok(())
    }

    fn merge(&mut self, state: &[u8]) -> Result<(), Error> {
        sums::check_merged(Self::NAME, self.read(state)?.halvings)?;
        let saved = self.saved(state)?;
        let (counts, sums) = self.parts();
        if counts.iter().zip(saved.counts).any(|(count, more)| count + more.get() > LARGEST_SAMPLES) {
            return Err(Error::Full { name: "samples of a class", capacity: LARGEST_SAMPLES as usize });
        }
        counts.iter_mut().zip(saved.counts).for_each(|(count, more)| *count += more.get());
        sums.iter_mut().zip(saved.sums).for_each(|(sum, more)| *sum += more.get());
        self.state.classes = self.state.classes.max(saved.classes);
        self.changed();
        Ok(())
    }

    fn state(&self) -> &[u8] {
        self.state.as_bytes()
    }

    fn check_state(&self, state: &[u8]) -> Result<(), Error> {
        self.saved(state).map(|_| ())
    }

    fn overwrite(&mut self, write: impl FnOnce(&mut [u8])) {
        write(self.state.as_mut_bytes());
        self.changed();
    }

    fn reset(&mut self) {
        self.state.as_mut_bytes().fill(0);
        self.state.classes = self.least_classes() as u32;
        self.changed();
    }
}
