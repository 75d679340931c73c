//! The state of an [`LdaHead`](super::LdaHead): its layout in RAM, its parts, and the check of a saved one.

use core::iter;
use core::num::NonZero;
use core::ops::RangeInclusive;

use zerocopy::little_endian::{I16, I32, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::start::LARGEST_FREEDOM;
use super::triangle;
use crate::Error;
use crate::image::HeadRecord;
use crate::operator::CheckedPart;
use crate::train::confidence::NO_LOGIT;

/// The largest number of features; larger triangles are refused.
pub(super) const LARGEST_FEATURES: usize = 256;
pub(super) const LARGEST_SAMPLES: u32 = 1 << 15;
pub(super) const LARGEST_PRODUCT: i64 = 255 * 255;
pub(super) const LARGEST_WEIGHT: u16 = 1 << 14;
pub(super) const LARGEST_BIAS: u32 = 1 << 30;
pub(super) const EXPONENTS: RangeInclusive<i32> = -16..=80;

/// Words of the state before the counts.
const PREFIX: usize = size_of::<Header>() / 4;
/// The index of [`Header::retired`] among them.
#[cfg(feature = "alloc")]
const RETIRED: usize = core::mem::offset_of!(Header, retired) / 4;
/// That of [`Header::halvings`].
#[cfg(feature = "alloc")]
pub(super) const HALVINGS: usize = core::mem::offset_of!(Header, halvings) / 4;

/// The beginning of the state.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Header {
    /// Number of classes in use.
    pub classes: U32,
    /// Samples whose class was forgotten, less one for each class.
    pub retired: U32,
    /// The number of times that the sums were halved.
    pub halvings: U32,
    /// Exponent of the weights.
    pub exponent: I32,
    /// Degrees of freedom of the weights.
    pub freedom: U32,
}

/// The state in RAM.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct State {
    pub header: Header,
    pub words: [i32],
}

/// Words of the state of a head of these sizes; `usize::MAX` for sizes beyond any memory.
pub(super) const fn words(classes: usize, features: usize) -> usize {
    let parameters = classes.saturating_mul(features);
    if parameters == usize::MAX || features > LARGEST_FEATURES {
        return usize::MAX;
    }
    PREFIX
        .saturating_add(parameters)
        .saturating_add(parameters.div_ceil(2))
        .saturating_add(classes.saturating_mul(2))
        .saturating_add(triangle::length(features))
}

/// Words of the state that learning adds to, and so does aggregation.
#[cfg(feature = "alloc")]
pub(super) fn added_words(record: &HeadRecord) -> alloc::vec::Vec<core::ops::Range<usize>> {
    let (classes, features) = (record.classes as usize, record.features as usize);
    let length = classes * (features + 1) + triangle::length(features);
    alloc::vec![RETIRED..HALVINGS, PREFIX..PREFIX + length]
}

/// The parts of the state.
pub(super) struct Parts<'s> {
    pub features: NonZero<usize>,
    pub header: &'s mut Header,
    pub classes: Classes<'s>,
    pub spread: &'s mut [i32],
}

/// The parts of the state with one entry per class.
pub(super) struct Classes<'s> {
    features: NonZero<usize>,
    pub counts: &'s mut [u32],
    pub sums: &'s mut [i32],
    pub biases: &'s mut [i32],
    /// With the padding of the last word.
    pub weights: &'s mut [i16],
}

/// One class's part of the state.
pub(super) struct Class<'s> {
    pub count: &'s mut u32,
    pub sums: &'s mut [i32],
    pub bias: &'s mut i32,
    pub weights: &'s mut [i16],
}

impl<'s> Parts<'s> {
    pub fn new(state: &'s mut State, record: &HeadRecord) -> Self {
        let features = width(record);
        let classes = record.classes as usize;
        let State { header, words } = state;
        let mut words = words;
        let mut take = |length| words.split_off_mut(..length).checked_part();
        let counts = take(classes);
        let sums = take(classes * features.get());
        let spread = take(triangle::length(features.get()));
        let biases = take(classes);
        let weights = <[i16]>::mut_from_bytes(words.as_mut_bytes()).ok().checked_part();
        let classes = Classes { features, counts: zerocopy::transmute_mut!(counts), sums, biases, weights };
        Parts { features, header, classes, spread }
    }
}

impl Classes<'_> {
    /// All classes, in order.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = Class<'_>> {
        let sums = self.sums.chunks_exact_mut(self.features.get());
        let weights = self.weights.chunks_exact_mut(self.features.get());
        let classes = self.counts.iter_mut().zip(sums).zip(&mut *self.biases).zip(weights);
        classes.map(|(((count, sums), bias), weights)| Class { count, sums, bias, weights })
    }

    /// One class.
    pub fn get_mut(&mut self, class: usize) -> Option<Class<'_>> {
        Some(Class {
            count: self.counts.get_mut(class)?,
            sums: self.sums.chunks_exact_mut(self.features.get()).nth(class)?,
            bias: self.biases.get_mut(class)?,
            weights: self.weights.chunks_exact_mut(self.features.get()).nth(class)?,
        })
    }
}

impl Class<'_> {
    /// Removes the weights: the class then has no logit.
    pub fn forget_weights(self) {
        *self.bias = NO_LOGIT;
        self.weights.fill(0);
    }
}

/// Number of features, as the length of a row.
fn width(record: &HeadRecord) -> NonZero<usize> {
    NonZero::new(record.features as usize).unwrap_or(NonZero::<usize>::MIN)
}

/// A saved state, to be checked.
pub(super) struct Saved<'s> {
    features: NonZero<usize>,
    pub header: &'s Header,
    pub counts: &'s [I32],
    pub sums: &'s [I32],
    pub spread: &'s [I32],
    biases: &'s [I32],
    /// With the padding of the last word.
    weights: &'s [I16],
}

impl<'s> Saved<'s> {
    /// Splits a state.
    pub fn read(state: &'s [u8], record: &HeadRecord) -> Result<Self, Error> {
        let (classes, features) = (record.classes as usize, width(record));
        let needed = 4 * words(classes, features.get());
        let wrong = Error::Length { name: "saved head", needed, given: state.len() };
        Error::check_length("saved head", needed, state.len())?;
        let (header, rest) = Header::ref_from_prefix(state).map_err(|_| wrong)?;
        let take = |bytes: &'s [u8], count| <[I32]>::ref_from_prefix_with_elems(bytes, count).map_err(|_| wrong);
        let (counts, rest) = take(rest, classes)?;
        let (sums, rest) = take(rest, classes * features.get())?;
        let (spread, rest) = take(rest, triangle::length(features.get()))?;
        let (biases, rest) = take(rest, classes)?;
        let weights = <[I16]>::ref_from_bytes(rest).map_err(|_| wrong)?;
        Ok(Saved { features, header, counts, sums, spread, biases, weights })
    }

    /// Samples of the classes in use: at most 2^12 classes of 2^15 samples.
    pub fn samples(&self) -> i32 {
        self.counts.iter().map(|count| count.get()).sum()
    }

    /// Refuses values that samples with inputs in `low..=high` cannot lead to.
    pub fn check(&self, least_classes: usize, low: i32, high: i32) -> Result<(), Error> {
        let field = |name, value: i32| Err(Error::Field { name, value: value.into() });
        let Header { classes, retired, exponent, freedom, .. } = self.header;
        let [classes, retired, freedom] = [classes, retired, freedom].map(|word| word.get() as i32);
        if !(least_classes as i64..=self.counts.len() as i64).contains(&classes.into()) {
            return field("head classes in use", classes);
        }
        let few = |count: i32| (0..=LARGEST_SAMPLES as i32).contains(&count);
        let wrong = |&(class, count): &(usize, i32)| !few(count) || class >= classes as usize && count > 0;
        if let Some((_, count)) = self.counts.iter().map(|count| count.get()).enumerate().find(wrong) {
            return field("head samples of a class", count);
        }
        let samples = i64::from(retired) + i64::from(self.samples());
        if retired < 0 || samples > LARGEST_SAMPLES.into() {
            return Err(Error::Field { name: "head samples", value: samples });
        }
        if !EXPONENTS.contains(&exponent.get()) {
            return field("head exponent", exponent.get());
        }
        if !(1..=(LARGEST_SAMPLES + LARGEST_FREEDOM) as i32).contains(&freedom) {
            return field("head degrees of freedom", freedom);
        }
        for (sums, n) in self.sums.chunks_exact(self.features.get()).zip(self.counts) {
            let possible = n.get() * low..=n.get() * high;
            if let Some(sum) = sums.iter().find(|sum| !possible.contains(&sum.get())) {
                return field("head sum", sum.get());
            }
        }
        let largest = (samples * LARGEST_PRODUCT) as u32;
        if let Some(sum) = self.spread.iter().find(|sum| sum.get().unsigned_abs() > largest) {
            return field("head sum of products", sum.get());
        }
        if let Some(sum) = triangle::diagonal(self.spread, self.features).find(|sum| sum.get() < 0) {
            return field("head sum of squares", sum.get());
        }
        let mut biases = self.biases.iter().map(|bias| bias.get());
        if let Some(bias) = biases.find(|&bias| bias != NO_LOGIT && bias.unsigned_abs() > LARGEST_BIAS) {
            return field("head bias", bias);
        }
        let limits = iter::repeat_n(LARGEST_WEIGHT, self.sums.len()).chain(iter::repeat(0));
        let mut weights = self.weights.iter().map(|weight| weight.get()).zip(limits);
        match weights.find(|(weight, limit)| weight.unsigned_abs() > *limit) {
            Some((weight, _)) => field("head weight", weight.into()),
            None => Ok(()),
        }
    }
}
