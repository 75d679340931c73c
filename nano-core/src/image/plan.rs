//! The memory plan: where in the arena each value and scratch buffer lives, made offline.

use alloc::vec::Vec;
use core::ops::RangeInclusive;

/// Offsets are multiples of a word, so that copies can go by words.
const ALIGNMENT: u32 = 4;

/// Something that needs `length` bytes while the nodes `live` run.
pub(super) struct Request {
    pub(super) length: u32,
    pub(super) live: RangeInclusive<usize>,
}

/// An offset for each request such that no two that are live together overlap, and the bytes needed in all.
/// Largest first, each at the lowest free place: never more than the sum, and in chains the sum of the two largest neighbours.
pub(super) fn plan(requests: &[Request]) -> (Vec<u32>, u32) {
    let mut order: Vec<usize> = (0..requests.len()).collect();
    order.sort_by_key(|&index| (core::cmp::Reverse(requests[index].length), index));
    let mut offsets = alloc::vec![0; requests.len()];
    let mut placed: Vec<usize> = Vec::new();
    for index in order {
        let request = &requests[index];
        let mut conflicts: Vec<(u32, u32)> = placed
            .iter()
            .filter(|&&other| live_together(&requests[other].live, &request.live))
            .map(|&other| (offsets[other], offsets[other] + requests[other].length))
            .collect();
        conflicts.sort_unstable();
        let free = conflicts.iter().fold(0u32, |free, &(start, end)| {
            if free + request.length <= start { free } else { free.max(end.next_multiple_of(ALIGNMENT)) }
        });
        offsets[index] = free;
        placed.push(index);
    }
    let length = requests.iter().zip(&offsets).map(|(request, offset)| offset + request.length).max().unwrap_or(0);
    (offsets, length)
}

fn live_together(a: &RangeInclusive<usize>, b: &RangeInclusive<usize>) -> bool {
    a.start().max(b.start()) <= a.end().min(b.end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_needs_its_two_largest_neighbours() {
        let lengths = [600, 1600, 800, 1600, 64];
        let requests: Vec<Request> = lengths
            .iter()
            .enumerate()
            .map(|(index, &length)| Request { length, live: index.saturating_sub(1)..=index })
            .collect();
        assert_eq!(plan(&requests).1, 2400);
    }

    #[test]
    fn nothing_that_lives_together_overlaps() {
        let mut state = 7u32;
        let mut random = |below: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) % below
        };
        for _ in 0..200 {
            let requests: Vec<Request> = (0..12)
                .map(|_| {
                    let start = random(8) as usize;
                    Request { length: 1 + random(300), live: start..=start + random(4) as usize }
                })
                .collect();
            let (offsets, length) = plan(&requests);
            for (i, a) in requests.iter().enumerate() {
                assert!(offsets[i] + a.length <= length);
                for (j, b) in requests.iter().enumerate().skip(i + 1) {
                    let apart = offsets[i] + a.length <= offsets[j] || offsets[j] + b.length <= offsets[i];
                    assert!(apart || !live_together(&a.live, &b.live), "{i} and {j} overlap");
                }
            }
        }
    }
}
