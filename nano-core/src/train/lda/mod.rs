//! Linear discriminant analysis in integers: one pass over the samples, in any order.
//!
//! With `x_i = q_i - z_x`, learning adds to exact sums: `n_k += 1`, `s_ki += x_i`, `S_ij += x_i x_j` (i <= j). The same samples give the
//! same bytes in any order, on one device or added up from many.
//!
//! The logits are those of linear discriminant analysis with a shared covariance and equal priors (Hastie, Tibshirani, Friedman, The
//! Elements of Statistical Learning, 2nd ed., eq. 4.10), shrunk towards the identity, with all means taken relative to their mean c, which
//! changes no comparison: `A w_k = m_k - c`, `b_k = -(m_k + c) w_k / 2`, where `A = S - sum s_k s_k' / n_k + lambda I` and
//! `lambda = (ratio + (D / 2n)^2) trace / D` of what is before it, at least 1, with D features and n degrees of freedom: samples minus
//! classes, at least 1. A real logit is `n (w_k x + b_k)`.
//!
//! The fewer samples per feature, the larger the error of a covariance, and the more it must shrink: the error grows with D / n (Ledoit and
//! Wolf, A well-conditioned estimator for large-dimensional covariance matrices, 2004). The square is measured on frozen features of digits,
//! MNIST, MNIST-1D and a watch's recordings: with two samples per class, accuracy is 2.2, 4.5, 2.5 and 0.3 points higher than with the
//! ratio alone, with ten or more at most 0.3 lower. Other powers of D / n and that paper's estimate of lambda gained less. A prior term
//! `ln n_k` changed nothing.
//!
//! A head can start from what the factory knows (`start.rs`). Until a commit with samples it has the weights of the layer that was
//! shipped. A commit then moves the factory's means by the user's samples ([`crate::train::start`] has the formula), and adds to S the
//! factory's scatter within classes, P, which counts as a fixed number of degrees of freedom:
//! `S + r P`, with `r = min(1, (trace + C v) / ((n + C) v))`, where v is the factory's variance within a class, C its classes, and trace
//! that of the user's scatter within classes. So the factory says which directions vary together, and the user how much, once it has
//! shown that it varies less: without r, accuracy on digits of another kind than the factory's is 1.0 points lower with ten samples of
//! each class. Both are taken back exactly after the commit; the state holds the user's sums alone.
//!
//! [`Head::commit`] solves it in fixed point:
//!
//! 1. S is shifted left by e, the most (0 to 16) that int32 holds after k more bits, and `sum s_i s_j / n` is subtracted: its means have 22
//!    fraction bits and the difference is rounded once. The same correction is added back at the end, so S is restored to the bit.
//!    `ratio + (D / 2n)^2`, in 1/2^16 and the square rounded half up, has k integer bits: the bits that S loses are outweighed by lambda.
//! 2. A weight has g fraction bits, such that the largest possible one, `2 |m_k - c| / lambda`, is below 2^25 (less for more than 64
//!    features). Gauss-Seidel, 30 sweeps from zero: `w_i = (r_i - sum A_ij w_j) / A_ii`, sums in int64, the division by a 32-bit reciprocal of
//!    the diagonal. It converges for every positive definite matrix, and each step only shortens the error in the norm of A.
//! 3. Weights become int16, `|W| <= 2^14`, and biases int32, with one exponent for all classes.
//!
//! The right-hand sides' means have 7 fraction bits.
//!
//! Bounds: `|x| <= 255`, and samples are refused beyond 2^15 in all, so `|s| < 2^23` and `|S_ij| <= 65025 * 2^15 < 2^31 - 2^23`, and
//! `|P_ij| <= 2^23`. With at most 256 features: a correction's sum is below 2^22 2^8 2^8 2^15 = 2^53; `|A_ij| < 2^31`, `|w| < 2^min(25, 31 - log2 D)`, so sums of
//! products stay below 2^62; right sides, by the choice of g, below 2^55; `|sum W x|` below 2^30 and `|b|` at most 2^30, so logits fit int32.
//!
//! lambda is below 2^31, so A's diagonal fits uint32: shifted sums are below 2^(31 - k), and lambda below 2^k times their mean. Where S has
//! not k bits to spare, e is 0; n degrees of freedom give a diagonal of at most n 2^15, because c samples of a class give at most
//! `c 255^2 / 4 <= (c - 1) 2^15`, P is refused above that, and `(1 + (D / 2n)^2) n 2^15` is below 2^31 for n from 1 to 2^15 + 2^8.
//!
//! Samples fade. If a class has twice the half-life of its samples, or all have 2^15, the sums of all classes are halved before the next
//! sample: `n' = ceil(n / 2)`, `s' = floor(s n' / n + 1/2)`. The scatter within classes, `S - sum s_k s_k' / n_k`, is multiplied by the ratio
//! of its degrees of freedom, in 1/2^16 and rounded down; that product and the corrections before and after it are each rounded once,
//! half up. So means and covariance stay as they are, up to rounding, and what is learnt from then on counts for more. Halved sums are
//! no sums of whole samples: none is unlearnt from them, and they are not merged into another head.
//!
//! States that no samples lead to stay in the same range, because lambda and weights are clamped.

#[cfg(feature = "alloc")]
mod image;
mod solve;
mod start;
mod state;
mod triangle;

use core::num::NonZero;
use core::ops::RangeInclusive;

use zerocopy::{FromBytes, IntoBytes};

#[cfg(feature = "alloc")]
pub use image::LdaDescription;
#[cfg(feature = "alloc")]
pub(super) use image::pack;
use solve::{Scratch, Settings};
use start::LdaStart;
use state::{Header, LARGEST_FEATURES, LARGEST_PRODUCT, LARGEST_SAMPLES, Parts, Saved, State};

use crate::Error;
use crate::image::{HeadRecord, Image};
use crate::operator::CheckedPart;
#[cfg(feature = "alloc")]
use crate::train::aggregation::Aggregation;
use crate::train::confidence::NO_LOGIT;
use crate::train::head::Head;
use crate::train::sizes::{HeadSizes, LayerSizes, Limits, Memory};
use crate::train::sums::{self, SumsHead};
use crate::train::target::Target;

/// The largest number of sweeps: with it and the most features, a commit takes 100 * 2^16 multiplications per class.
const LARGEST_SWEEPS: i32 = 100;

/// A linear discriminant analysis classifier in RAM: exact sums, and the weights that [`Head::commit`] made of them; the module's
/// documentation has arithmetic and bounds.
///
/// State, little-endian words: classes in use; samples whose class was forgotten, less one for each class; halvings of the sums; exponent
/// and degrees of freedom of the weights; then `n_k`, `s_ki`, `S_ij` (i <= j, row by row), biases (int32) and weights (int16), for as many classes as
/// the image has room for.
pub struct LdaHead<'a> {
    record: &'a HeadRecord,
    start: Option<LdaStart<'a>>,
    input_zero_point: i32,
    state: &'a mut State,
    logits: &'a mut [i32],
    scratch: &'a mut [i32],
}

impl<'a> LdaHead<'a> {
    /// [`HeadRecord::trainer`] of this head.
    pub const TRAINER: u32 = 2;
    /// The range of the shrinkage setting: images hold it in 1/65536, rounded, and not 0.
    pub const SHRINKAGE: RangeInclusive<f64> = 0.5 / 65536.0..=1.0;
    pub(super) const LIMITS: Limits = Limits { classes: 1 << 12, features: LARGEST_FEATURES };
    pub(super) const USES_RING: bool = false;

    pub(super) const fn sizes_of(record: &HeadRecord) -> HeadSizes {
        HeadSizes::with_layers(record, LayerSizes::NONE)
    }

    pub(super) const fn memory(sizes: &HeadSizes) -> Memory {
        let HeadSizes { classes, features, .. } = *sizes;
        let state_bytes = state::words(classes, features).saturating_mul(4);
        Memory { state_bytes, scratch_words: classes.saturating_add(Scratch::words(classes, features)) }
    }

    #[cfg(feature = "alloc")]
    pub(super) fn aggregation(&self) -> Aggregation {
        Aggregation::Sum { words: state::added_words(self.record), halvings: state::HALVINGS }
    }

    /// Halves the sums of all classes; the module's documentation has the arithmetic.
    #[cold]
    fn halve(&mut self) {
        let before = self.freedom();
        let mut parts = Parts::new(self.state, self.record);
        solve::correct(&mut parts, self.logits, 0, |sum, between| sum.wrapping_sub(between));
        for class in parts.classes.iter_mut() {
            *class.count = sums::halve(*class.count, class.sums);
        }
        let Header { retired, halvings, .. } = parts.header;
        retired.set(retired.get() / 2);
        halvings.set(halvings.get().saturating_add(1));
        let (after, samples) = (self.freedom(), self.samples());
        let share = ((u64::from(after) << 16).div_euclid(u64::from(before).max(1))) as i64;
        let mut parts = Parts::new(self.state, self.record);
        for sum in parts.spread.iter_mut() {
            *sum = ((i64::from(*sum) * share + (1 << 15)) >> 16) as i32;
        }
        let largest = (i64::from(samples) * LARGEST_PRODUCT) as i32;
        solve::correct(&mut parts, self.logits, 0, |sum, between| {
            sum.saturating_add(between).max(-largest).min(largest)
        });
        triangle::diagonal_mut(parts.spread, parts.features).for_each(|square| *square = (*square).max(0));
    }

    fn parts(&mut self) -> Parts<'_> {
        Parts::new(self.state, self.record)
    }

    fn least_classes(&self) -> usize {
        self.record.constants[0] as usize
    }

    /// Checks that a state is one of this head.
    fn saved<'s>(&self, state: &'s [u8]) -> Result<Saved<'s>, Error> {
        let saved = Saved::read(state, self.record)?;
        saved.check(self.least_classes(), -128 - self.input_zero_point, 127 - self.input_zero_point)?;
        Ok(saved)
    }

    /// The number of samples in the sums: at most 2^15.
    fn samples(&self) -> u32 {
        let counts = self.state.words.iter().take(self.record.classes as usize);
        self.state.header.retired.get() + counts.map(|&count| count as u32).sum::<u32>()
    }

    /// The samples' degrees of freedom: less one for each class.
    fn freedom(&self) -> u32 {
        let counts = self.state.words.iter().take(self.record.classes as usize);
        self.samples() - counts.filter(|&&count| count > 0).count() as u32
    }
}

impl<'a> SumsHead<'a> for LdaHead<'a> {
    fn add(&mut self, features: &[i8], class: usize, times: i32) {
        let zero_point = self.input_zero_point;
        let x = |q: i8| i32::from(q) - zero_point;
        let mut parts = self.parts();
        if let Some(class) = parts.classes.get_mut(class) {
            *class.count = class.count.wrapping_add_signed(times);
            for (sum, &q) in class.sums.iter_mut().zip(features) {
                *sum += times * x(q);
            }
        }
        for (row, (&q, columns)) in triangle::rows_mut(parts.spread, parts.features).zip(triangle::outer(features)) {
            let factor = times * x(q);
            for (sum, &q) in row.iter_mut().zip(columns) {
                *sum += factor * x(q);
            }
        }
    }

    fn sums_of(&self, class: usize) -> Option<(u32, &[i32])> {
        let (counts, sums) = self.state.words.split_at_checked(self.record.classes as usize).checked_part();
        let width = self.record.features.max(1) as usize;
        Some((*counts.get(class)? as u32, sums.chunks_exact(width).nth(class)?))
    }

    fn halvings(&self) -> u32 {
        self.state.header.halvings.get()
    }

    fn make_room(&mut self, class: usize) {
        let count = self.sums_of(class).map_or(0, |(count, _)| count);
        if self.samples() == LARGEST_SAMPLES || sums::is_old(count, self.record.half_life) {
            self.halve();
        }
    }
}

impl<'a> Head<'a> for LdaHead<'a> {
    const NAME: &'static str = "LdaHead";

    fn runs(trainer: u32) -> bool {
        trainer == Self::TRAINER
    }

    fn new(image: &Image<'a>, ram: &'a mut [u32]) -> Result<Self, Error> {
        let record = image.head().ok_or(Error::NoHead)?;
        let field = |name, value: i64| Err(Error::Field { name, value });
        let [initial_classes, ratio, sweeps, ..] = record.constants;
        if record.trainer != Self::TRAINER {
            return field("head trainer", record.trainer.into());
        }
        let sizes = Self::sizes_of(record);
        Self::LIMITS.check(&sizes)?;
        sums::check_record(record, initial_classes, LARGEST_SAMPLES)?;
        let input_zero_point = image.output(0).zero_point;
        let bounds = (-128 - input_zero_point, 127 - input_zero_point);
        let start = LdaStart::read(record, image.head_state(record), bounds)?;
        if !(1..=1 << 16).contains(&ratio) {
            return field("head shrinkage", ratio.into());
        }
        if !(1..=LARGEST_SWEEPS).contains(&sweeps) {
            return field("head sweeps", sweeps.into());
        }
        let memory = Self::memory(&sizes);
        let wrong_ram = memory.wrong_ram(ram.len());
        let (state, scratch) = memory.split(ram)?;
        let state = State::mut_from_bytes(state.as_mut_bytes()).map_err(|_| wrong_ram)?;
        let (logits, scratch) = scratch.split_at_mut_checked(sizes.classes).ok_or(wrong_ram)?;
        let mut head = LdaHead { record, start, input_zero_point, state, logits, scratch };
        head.reset();
        Ok(head)
    }

    fn sizes(&self) -> HeadSizes {
        Self::sizes_of(self.record)
    }

    fn classes(&self) -> usize {
        self.state.header.classes.get() as usize
    }

    fn features(&self) -> usize {
        self.record.features as usize
    }

    fn logit_scale(&self) -> f32 {
        // 2^-exponent, built from the bits of a normal float.
        let scale = f32::from_bits(((127 - self.state.header.exponent.get()) as u32) << 23);
        scale * self.state.header.freedom.get() as f32
    }

    fn logits(&mut self, features: &[i8]) -> Result<&[i32], Error> {
        self.check_features(features)?;
        let (classes, zero_point) = (self.classes(), self.input_zero_point);
        let mut parts = Parts::new(self.state, self.record);
        for (logit, class) in self.logits.iter_mut().zip(parts.classes.iter_mut()) {
            let products =
                class.weights.iter().zip(features).map(|(&w, &q)| i32::from(w) * (i32::from(q) - zero_point));
            *logit = if *class.bias == NO_LOGIT { NO_LOGIT } else { *class.bias + products.sum::<i32>() };
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
        self.learn_sample(features, target)
    }

    fn unlearn(&mut self, features: &[i8], target: Target) -> Result<(), Error> {
        self.unlearn_sample(features, target)
    }

    fn commit(&mut self) {
        let [_, ratio, sweeps, ..] = self.record.constants;
        let freedom = self.freedom();
        let start = self.start;
        let mut parts = Parts::new(self.state, self.record);
        if let (Some(start), true) = (start, parts.classes.counts.iter().all(|&count| count == 0)) {
            start.restore(&mut parts);
            return;
        }
        let (classes, features) = (parts.classes.counts.len(), parts.features.get());
        let mut scratch = Scratch::new(self.scratch, classes, features);
        solve::average(&mut parts, start.map_or(0, |start| start.classes()));
        let (freedom, share) = match &start {
            None => (freedom.max(1), 0),
            Some(start) => start.combine(&mut parts, scratch.centre, freedom),
        };
        let shrinkage = solve::shrinkage(ratio as u32, features as u32, freedom);
        let settings = Settings { shrinkage, sweeps: sweeps as u32 };
        let exponent = solve::solve(&mut parts, &mut scratch, &settings);
        if let Some(start) = &start {
            start.add(&mut parts, share, -1);
        }
        parts.header.exponent.set(exponent);
        parts.header.freedom.set(freedom);
    }

    fn check_growth(&self) -> Result<(), Error> {
        Ok(())
    }

    fn add_class(&mut self) -> Result<usize, Error> {
        let class = self.next_class(self.record.classes as usize)?;
        self.state.header.classes += 1;
        Ok(class)
    }

    /// What the factory knew of the class is known again after the next commit. The class's share of the covariance stays: S is summed
    /// over all classes and cannot be separated. Unlearning the class's samples one by one removes it, too.
    ///
    /// S stays within the bounds of [`Head::check_state`]: it is clamped, which changes only accepted states that no samples lead to.
    fn forget(&mut self, class: usize) -> Result<(), Error> {
        self.check_class(class)?;
        let samples = self.samples();
        let mut parts = self.parts();
        let Some(class) = parts.classes.get_mut(class) else { return Ok(()) };
        if *class.count > 0 {
            let count = i64::from(*class.count);
            let largest = i64::from(samples - 1) * LARGEST_PRODUCT;
            let rows = triangle::rows_mut(parts.spread, parts.features);
            for (row, (&own, columns)) in rows.zip(triangle::outer(class.sums)) {
                for (product, &sum) in row.iter_mut().zip(columns) {
                    let twice = 2 * i64::from(own) * i64::from(sum) + count;
                    let left = i64::from(*product) - twice.div_euclid(2 * count);
                    *product = left.max(-largest).min(largest) as i32;
                }
                if let [square, ..] = row {
                    *square = (*square).max(0);
                }
            }
            parts.header.retired += *class.count - 1;
        }
        *class.count = 0;
        class.sums.fill(0);
        class.forget_weights();
        Ok(())
    }

    fn merge(&mut self, state: &[u8]) -> Result<(), Error> {
        Saved::read(state, self.record)
            .and_then(|saved| sums::check_merged(Self::NAME, saved.header.halvings.get()))?;
        let saved = self.saved(state)?;
        let Header { classes, retired, .. } = saved.header;
        if self.samples() + retired.get() + saved.samples() as u32 > LARGEST_SAMPLES {
            return Err(Error::Full { name: "samples", capacity: LARGEST_SAMPLES as usize });
        }
        let Parts { header, classes: own, spread, .. } = self.parts();
        header.classes.set(header.classes.get().max(classes.get()));
        header.retired += *retired;
        own.counts.iter_mut().zip(saved.counts).for_each(|(count, more)| *count += more.get() as u32);
        own.sums.iter_mut().zip(saved.sums).for_each(|(sum, more)| *sum += more.get());
        spread.iter_mut().zip(saved.spread).for_each(|(sum, more)| *sum += more.get());
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
    }

    fn reset(&mut self) {
        self.state.as_mut_bytes().fill(0);
        self.state.header.classes.set(self.least_classes() as u32);
        self.state.header.freedom.set(1);
        let start = self.start;
        let mut parts = self.parts();
        parts.classes.biases.fill(NO_LOGIT);
        if let Some(start) = start {
            start.restore(&mut parts);
        }
    }
}
