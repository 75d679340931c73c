//! In which order an epoch visits the samples of a ring.

use core::ops::Range;

use crate::Error;
use crate::train::FeatureRing;

/// What a fresh head's random state is.
pub(super) const FIRST_RANDOM: u32 = 0x9E37_79B9;

/// Has `step` take each sample of the ring, its target as a word, once in each epoch, until one is refused.
pub(super) fn visit(
    ring: &FeatureRing<'_>,
    epochs: Range<u32>,
    random: &mut u32,
    mut step: impl FnMut(&[i8], u32, u32) -> Result<(), Error>,
) -> Result<(), Error> {
    if ring.is_empty() {
        return Ok(());
    }
    for number in epochs {
        for index in epoch(ring.len() as u32, random) {
            let (features, target) = ring.get(index);
            step(features, target, number)?;
        }
    }
    Ok(())
}

/// The indices of one epoch over `count` samples, at least one: from a random one on, by a random stride coprime to their number. Draws twice.
fn epoch(count: u32, random: &mut u32) -> impl Iterator<Item = usize> + use<> {
    let range = (count - 1).max(1);
    let mut stride = 1 + next(random) % range;
    while greatest_common_divisor(stride, count) != 1 {
        stride = stride % range + 1;
    }
    let first = next(random) % count;
    core::iter::successors(Some(first), move |&index| Some((index + stride) % count))
        .take(count as usize)
        .map(|index| index as usize)
}

/// Marsaglia's xorshift32.
fn next(random: &mut u32) -> u32 {
    *random ^= *random << 13;
    *random ^= *random >> 17;
    *random ^= *random << 5;
    *random
}

fn greatest_common_divisor(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}
