//! Aggregation rules: a trainer names how its heads become one, [`aggregate`](super::aggregate()) applies it.

use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use crate::Error;

/// How the heads of a trainer become one.
pub(super) enum Aggregation {
    /// The sums of what each has learnt since the start, which these words of the state hold; `halvings` is the word that counts how often
    /// they were halved.
    Sum { words: Vec<Range<usize>>, halvings: usize },
    /// The mean of the weights, given each layer's number of them. The state is that of a head trained by gradient descent
    /// ([`Saved`](super::linear::Saved)).
    Mean(Vec<usize>),
}

/// A device's update: what it made of the head that a round started from.
#[derive(Clone, Copy, Debug)]
pub struct Update<'s> {
    /// Its state, as [`Head::state`](crate::train::Head::state).
    pub state: &'s [u8],
    /// The number of samples it learnt from, its weight. Heads of sums count their own.
    pub samples: u32,
}

/// Subtracts the sums of `start` from those of `state`, which must not have been halved since.
pub(super) fn learnt_since(
    start: &[u8],
    state: &[u8],
    sums: &[Range<usize>],
    halvings: usize,
) -> Result<Vec<u8>, Error> {
    let mut learnt = state.to_vec();
    let (start, words) = (start.as_chunks().0, learnt.as_chunks_mut().0);
    let [before, after] = [start[halvings], words[halvings]].map(u32::from_le_bytes);
    if before != after {
        let value = i64::from(after) - i64::from(before);
        return Err(Error::Field { name: "head halvings of its sums since the start", value });
    }
    words[halvings] = [0; 4];
    for index in sums.iter().cloned().flatten() {
        let (before, after) = (i32::from_le_bytes(start[index]), i32::from_le_bytes(words[index]));
        let less = Error::Field { name: "head sum since the start", value: i64::from(after) - i64::from(before) };
        words[index] = after.checked_sub(before).ok_or(less)?.to_le_bytes();
    }
    Ok(learnt)
}

/// The mean of checked states ([`Saved`](super::linear::Saved)) with the layers' numbers of weights.
pub(super) fn mean(updates: &[Update<'_>], weight_counts: &[usize]) -> Result<Vec<u8>, Error> {
    let heard: Vec<_> = updates.iter().filter(|update| update.samples > 0).collect();
    let word = |update: &Update<'_>, index: usize| u32::from_le_bytes(update.state.as_chunks().0[index]);
    let largest = |index| heard.iter().map(|update| word(update, index)).max();
    let (layers, samples) = (weight_counts.len(), heard.iter().map(|update| i128::from(update.samples)).sum::<i128>());
    let mut state = Vec::new();
    for index in 0..=layers {
        let nobody = Error::Length { name: "samples of all updates", needed: 1, given: 0 };
        state.extend(largest(index).ok_or(nobody)?.to_le_bytes());
    }
    for (layer, &count) in weight_counts.iter().enumerate() {
        let mut sums = vec![0i128; count];
        for update in &heard {
            let factor = i128::from(update.samples) << word(update, layer);
            let weights = &update.state[state.len()..][..2 * count];
            for (sum, &stored) in sums.iter_mut().zip(weights.as_chunks().0) {
                *sum += factor * (i128::from(i16::from_le_bytes(stored)) - 128);
            }
        }
        let whole = samples << largest(layer).unwrap_or(0);
        let rounded = sums.iter().map(|&sum| ((2 * sum + whole).div_euclid(2 * whole) + 128) as i16);
        state.extend(rounded.flat_map(i16::to_le_bytes));
    }
    Ok(state)
}
