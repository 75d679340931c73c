//! Federated averaging (McMahan et al. 2017, <https://arxiv.org/abs/1602.05629>) in integers: one head from those of many devices.
//!
//! In a round every device starts from one head and learns on. The updates are aggregated into the next head:
//!
//! - Heads of sums: the start plus what each device added to it, unless it has halved them since. To the byte that is the head which
//!   learnt all samples of all devices itself, including the weights that [`Head::commit`] makes of them.
//! - [`SgdHead`](super::SgdHead) and [`LayersHead`](super::LayersHead): the mean of the weights, weighted by the devices' numbers of samples,
//!   `n_d`. With the largest exponent E that any device has for the layer, and `N = sum n_d`, a weight becomes
//!   `floor(sum n_d V_d 2^(e_d) / (N 2^E) + 1/2)`: the exact mean, rounded once. The random state is the largest of all. Equal heads give
//!   the same head again. Devices without samples do not count.
//!
//! The order of the devices does not matter.
//!
//! Bounds: `n_d < 2^32`, `|V| < 2^15`, `e <= 30` and fewer than 2^48 devices: a sum is below 2^125, and twice that fits int128. A mean of
//! weights within their bounds is within them, and so is its rounding, because the bounds are integers.

use alloc::vec::Vec;

use super::AnyHead;
use super::aggregation::{Aggregation, Update, learnt_since, mean};
use super::head::Head;
use crate::Error;

/// Aggregates `updates`, which all started from `head`, into `head`; the module's documentation has the arithmetic.
///
/// Sums must only have grown: a device that forgot a class, or samples, of the start is refused. `refused` is called with the index of
/// each update that cannot be aggregated, and the reason; that update is left out, unless `refused` returns an error, which ends it all.
///
/// # Errors
/// That of `refused`; if no update is left, that of the last one refused; [`Error::Length`] without updates, or if none has samples.
/// The head is then unchanged.
pub fn aggregate(
    head: &mut AnyHead<'_>,
    updates: &[Update<'_>],
    refused: impl FnMut(usize, Error) -> Result<(), Error>,
) -> Result<(), Error> {
    let start = head.state().to_vec();
    let result = aggregate_from(&start, head, updates, refused);
    if result.is_err() {
        head.overwrite(|own| own.copy_from_slice(&start));
    }
    result
}

/// Checks that `state` can be aggregated with a start from `head`. The sums of several updates may still be of too many samples.
///
/// # Errors
/// Those of [`Head::check_state`], for the state and for what it has learnt since the start.
pub fn check_update(head: &AnyHead<'_>, state: &[u8]) -> Result<(), Error> {
    head.check_state(state)?;
    match head.aggregation() {
        Aggregation::Sum { words, halvings } => head.check_state(&learnt_since(head.state(), state, &words, halvings)?),
        Aggregation::Mean(_) => Ok(()),
    }
}

fn aggregate_from(
    start: &[u8],
    head: &mut AnyHead<'_>,
    updates: &[Update<'_>],
    mut refused: impl FnMut(usize, Error) -> Result<(), Error>,
) -> Result<(), Error> {
    let aggregation = head.aggregation();
    let mut taken = Vec::with_capacity(updates.len());
    let mut none_left = Error::Length { name: "updates of a head", needed: 1, given: 0 };
    for (index, update) in updates.iter().enumerate() {
        let result = head.check_state(update.state).and_then(|()| match &aggregation {
            Aggregation::Sum { words, halvings } => head.merge(&learnt_since(start, update.state, words, *halvings)?),
            Aggregation::Mean(_) => Ok(()),
        });
        match result {
            Ok(()) => taken.push(*update),
            Err(error) => {
                none_left = error;
                refused(index, error)?;
            }
        }
    }
    if taken.is_empty() {
        return Err(none_left);
    }
    match aggregation {
        Aggregation::Sum { .. } => head.commit(),
        Aggregation::Mean(weights) => head.load(&mean(&taken, &weights)?)?,
    }
    Ok(())
}
