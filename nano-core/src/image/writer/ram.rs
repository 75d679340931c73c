//! The layers whose constants are copied to RAM.

use alloc::vec::Vec;
use core::cmp::Reverse;

use super::CONSTANT_ALIGNMENT;
use super::memory::Chosen;

/// Bytes of the smallest flash cache of the chips: constants that fit are read from flash once per run, others once per walk.
const CACHE: usize = 16 * 1024;

/// The constants of one layer.
struct Candidate {
    layer: usize,
    /// Bytes of RAM for a copy.
    size: usize,
    /// Bytes that one run reads from flash without it.
    read: usize,
}

/// Returns for each layer whether its constants are copied to RAM.
///
/// Takes the layers in the order of bytes read from flash per byte of RAM, and leaves out what exceeds the rest of `budget`. Among equals the largest is first,
/// as smaller ones may fill the rest. Waiting for flash costs about the same for each byte read, so this order is that of cycles won.
pub(super) fn choose(layers: &[Chosen<'_>], budget: usize) -> Vec<bool> {
    let candidates = layers.iter().enumerate().map(|(layer, chosen)| {
        let size =
            chosen.packed.constants.iter().map(|constant| constant.len().next_multiple_of(CONSTANT_ALIGNMENT)).sum();
        let read = chosen.packed.read.unwrap_or(size);
        Candidate { layer, size, read: if size <= CACHE { read.min(size) } else { read } }
    });
    let mut candidates: Vec<Candidate> = candidates.filter(|candidate| candidate.read > 0).collect();
    // In 1/256: finer differences are below what the estimate knows.
    let gain = |candidate: &Candidate| (candidate.read as u64).saturating_mul(256) / candidate.size as u64;
    candidates.sort_by_key(|candidate| (Reverse(gain(candidate)), Reverse(candidate.size), candidate.layer));
    let (mut chosen, mut left) = (alloc::vec![false; layers.len()], budget);
    for Candidate { layer, size, .. } in candidates {
        if let Some(rest) = left.checked_sub(size) {
            (chosen[layer], left) = (true, rest);
        }
    }
    chosen
}
