//! The layers whose constants are copied to RAM.

use alloc::vec::Vec;
use core::cmp::Reverse;

use super::CONSTANT_ALIGNMENT;
use super::flash::CodeUse;
use super::memory::Chosen;
use crate::image::ModelDescription;

/// The constants of one layer.
struct Candidate {
    layer: usize,
    /// Bytes of RAM for a copy.
    size: usize,
    /// What one run waits for flash without it: cycles, or bytes where the flash's timing is not known.
    wait: u64,
}

/// Returns for each layer whether its constants are copied to RAM.
///
/// Takes the layers in the order of waiting for flash per byte of RAM, and leaves out what exceeds the rest of the budget. Among equals the largest is first,
/// as smaller ones may fill the rest.
pub(super) fn choose(layers: &[Chosen<'_>], model: &ModelDescription) -> Vec<bool> {
    let candidates = layers.iter().enumerate().map(|(layer, chosen)| {
        let size =
            chosen.packed.constants.iter().map(|constant| constant.len().next_multiple_of(CONSTANT_ALIGNMENT)).sum();
        let timing = model.flash_timing;
        let wait = match timing.cycles_per_line {
            0 => chosen.packed.read.unwrap_or(size) as u64,
            _ => timing.wait(chosen.cost, &chosen.packed, CodeUse::of(chosen.kernel.name)),
        };
        Candidate { layer, size, wait }
    });
    let mut candidates: Vec<Candidate> = candidates.filter(|candidate| candidate.size > 0).collect();
    // In 1/256: finer differences are below what the estimate knows.
    let gain = |candidate: &Candidate| candidate.wait.saturating_mul(256) / candidate.size as u64;
    candidates.sort_by_key(|candidate| (Reverse(gain(candidate)), Reverse(candidate.size), candidate.layer));
    let (mut chosen, mut left) = (alloc::vec![false; layers.len()], model.weights_in_ram);
    for Candidate { layer, size, .. } in candidates {
        if let Some(rest) = left.checked_sub(size) {
            (chosen[layer], left) = (true, rest);
        }
    }
    chosen
}
