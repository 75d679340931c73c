//! In which order an epoch visits the samples of a ring.

/// What a fresh head's random state is.
pub(super) const FIRST_RANDOM: u32 = 0x9E37_79B9;

/// The indices of one epoch over `count` samples, at least one: from a random one on, by a random stride coprime to their number. Draws twice.
pub(super) fn epoch(count: u32, random: &mut u32) -> impl Iterator<Item = usize> + use<> {
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
