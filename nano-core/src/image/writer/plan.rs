//! Static memory planning: an offset in the arena for each value and each scratch buffer.

use alloc::vec::Vec;
use core::cmp::Reverse;
use core::ops::{Range, RangeInclusive};

/// Offsets are multiples of a 32-bit word, so that copies can go by words.
const ALIGNMENT: u32 = 4;

/// A buffer of `length` bytes, needed while the nodes `live` run.
pub(super) struct Request {
    pub(super) length: u32,
    pub(super) live: RangeInclusive<usize>,
}

/// Returns an offset for each request, such that no two that are live together overlap, and the total length: at most the sum of all
/// lengths, each rounded up to [`ALIGNMENT`].
///
/// Plans greedily (first fit) in two orders and keeps the smaller plan: longest first, as TensorFlow Lite Micro's
/// `GreedyMemoryPlanner`, and largest product of length and lifetime first.
pub(super) fn plan(requests: &[Request]) -> (Vec<u32>, u32) {
    let by_length = plan_in_order(requests, |request| u64::from(request.length));
    let by_area = plan_in_order(requests, |request| {
        u64::from(request.length) * (request.live.end() - request.live.start() + 1) as u64
    });
    if by_area.1 < by_length.1 { by_area } else { by_length }
}

/// First fit: places the requests one after the other, the greatest `key` first, each at the lowest free offset.
fn plan_in_order(requests: &[Request], key: impl Fn(&Request) -> u64) -> (Vec<u32>, u32) {
    let mut order: Vec<usize> = (0..requests.len()).filter(|&index| requests[index].length > 0).collect();
    order.sort_by_key(|&index| (Reverse(key(&requests[index])), index));
    let end = requests.iter().map(|request| request.live.end() + 1).max().unwrap_or(0);
    // The places taken while each node runs. At most `MOST_ALIVE` values and one scratch buffer: the time does not grow with the square
    // of the number of nodes.
    let mut taken: Vec<Vec<Range<u32>>> = alloc::vec![Vec::new(); end];
    let mut offsets = alloc::vec![0; requests.len()];
    let mut length = 0;
    for index in order {
        let request = &requests[index];
        let mut conflicts: Vec<&Range<u32>> = taken[request.live.clone()].iter().flatten().collect();
        conflicts.sort_unstable_by_key(|conflict| (conflict.start, conflict.end));
        let free = conflicts.iter().fold(0u32, |free, conflict| {
            if free + request.length <= conflict.start {
                free
            } else {
                free.max(conflict.end.next_multiple_of(ALIGNMENT))
            }
        });
        let place = free..free + request.length;
        length = length.max(place.end);
        taken[request.live.clone()].iter_mut().for_each(|taken| taken.push(place.clone()));
        offsets[index] = free;
    }
    (offsets, length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random_requests(seed: u64) -> Vec<Request> {
        let mut random = fastrand::Rng::with_seed(seed);
        let (count, nodes) = (random.usize(1..40), random.usize(1..12));
        let request = |_| {
            let start = random.usize(..nodes);
            Request { length: random.u32(..300), live: start..=start + random.usize(..nodes) }
        };
        (0..count).map(request).collect()
    }

    fn live_together(a: &RangeInclusive<usize>, b: &RangeInclusive<usize>) -> bool {
        a.start().max(b.start()) <= a.end().min(b.end())
    }

    #[test]
    fn requests_that_are_live_together_do_not_overlap() {
        for seed in 0..1000 {
            let requests = random_requests(seed);
            let (offsets, length) = plan(&requests);
            for (i, a) in requests.iter().enumerate() {
                assert!(offsets[i] + a.length <= length, "seed {seed}");
                assert!(offsets[i].is_multiple_of(ALIGNMENT), "seed {seed}");
                for (j, b) in requests.iter().enumerate().skip(i + 1) {
                    let apart = offsets[i] + a.length <= offsets[j] || offsets[j] + b.length <= offsets[i];
                    assert!(apart || !live_together(&a.live, &b.live), "seed {seed}: {i} and {j} overlap");
                }
            }
        }
    }

    #[test]
    fn the_smaller_of_the_two_plans_is_kept() {
        let mut better = [0; 2];
        for seed in 0..1000 {
            let requests = random_requests(seed);
            let by_length = plan_in_order(&requests, |request| request.length.into()).1;
            let lifetime = |request: &Request| request.live.clone().count() as u64;
            let by_area = plan_in_order(&requests, |request| u64::from(request.length) * lifetime(request)).1;
            assert_eq!(plan(&requests).1, by_length.min(by_area), "seed {seed}");
            better[0] += usize::from(by_length < by_area);
            better[1] += usize::from(by_area < by_length);
        }
        assert!(better.iter().all(|&count| count > 50), "one order is always better: {better:?}");
    }

    /// The plan is greedy, not optimal: in a chain each value is live at two nodes only.
    #[test]
    fn a_chain_can_need_more_than_its_two_largest_neighbours() {
        let chain = |lengths: &[u32]| -> Vec<Request> {
            let live = |index: usize| index.saturating_sub(1)..=index;
            lengths.iter().enumerate().map(|(index, &length)| Request { length, live: live(index) }).collect()
        };
        assert_eq!(plan(&chain(&[600, 1600, 800, 1600, 64])).1, 2400);
        let found = (0..1000).any(|seed| {
            let mut random = fastrand::Rng::with_seed(seed);
            let lengths: Vec<u32> = (0..12).map(|_| 4 * random.u32(1..100)).collect();
            let neighbours = lengths.windows(2).map(|pair| pair[0] + pair[1]).max().unwrap();
            plan(&chain(&lengths)).1 > neighbours
        });
        assert!(found);
    }
}
