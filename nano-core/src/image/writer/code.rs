//! The code of kernels: a program links only those that its image names, so a kernel that saves a model little time is not worth its code.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::choice::Candidate;
use crate::image::{CodeSize, Optimize};

/// The part of a run's cycles that a byte of code must save, as a divisor: 0.05 % for a KiB.
const SHARE: u64 = 2000 * 1024;

/// As [`SHARE`] where the image is made small, and of a byte of constants, too: 2 % for a KiB.
const SHARE_FOR_FLASH: u64 = 50 * 1024;

/// The constants may be this much larger than the smallest where the image is made small: a hundredth.
const TOLERANCE: usize = 100;

/// Of the kernels that could compute each layer, the fastest first, keeps those whose code is worth its bytes. Each layer keeps at least one.
pub(super) fn keep_worthwhile(candidates: &mut [Vec<Candidate<'_>>], code: &[CodeSize], optimize: Optimize) {
    let total: u64 = candidates.iter().filter_map(|of_layer| of_layer.first()).map(|fastest| fastest.cycles).sum();
    let (mut worth, mut limit) = (total / SHARE, usize::MAX);
    if optimize == Optimize::Flash {
        let smallest = |of_layer: &Vec<Candidate<'_>>| of_layer.iter().map(|one| one.flash).min();
        let smallest: usize = candidates.iter().filter_map(smallest).sum();
        (worth, limit) = (total / SHARE_FOR_FLASH, smallest + smallest / TOLERANCE);
        candidates.iter_mut().for_each(|of_layer| of_layer.sort_by_key(|one| one.cycles + worth * one.flash as u64));
        let all = candidates.iter().flatten().map(|one| one.kernel.name).collect();
        if Kernels::among(candidates, &all).is_none_or(|best| best.flash > limit) {
            candidates.iter_mut().for_each(keep_smallest);
        }
    }
    let kept = worthwhile(candidates, code, worth, limit);
    for of_layer in candidates {
        of_layer.retain(|one| kept.contains(one.kernel.name));
    }
}

/// Of the kernels that could compute a layer, keeps those with constants of about the smallest size.
pub(super) fn keep_smallest(candidates: &mut Vec<Candidate<'_>>) {
    let smallest = candidates.iter().map(|candidate| candidate.flash).min().unwrap_or(0);
    candidates.retain(|candidate| candidate.flash <= smallest + smallest / TOLERANCE);
}

/// The kernels of the least cycles and bytes, each of these at the price of `worth` cycles, with at most `limit` bytes of constants.
fn worthwhile(
    candidates: &[Vec<Candidate<'_>>],
    code: &[CodeSize],
    worth: u64,
    limit: usize,
) -> BTreeSet<&'static str> {
    let all: BTreeSet<&'static str> = candidates.iter().flatten().map(|one| one.kernel.name).collect();
    let Some(fastest) = Kernels::among(candidates, &all) else { return all };
    let price = |kernels: &Kernels| {
        let is_linked = |group: &&CodeSize| group.kernels.iter().any(|kernel| kernels.used.contains(kernel.as_str()));
        let code: usize = code.iter().filter(is_linked).map(|group| group.bytes).sum();
        kernels.cycles.saturating_add(worth * (kernels.flash + code) as u64)
    };
    let (mut best, mut kept) = (price(&fastest), fastest.used);
    // Leaves one kernel out, or puts another one in its place, until nothing is saved.
    loop {
        let mut found = None;
        for without in &kept {
            for other in &all {
                let allowed = kept.iter().filter(|&kernel| kernel != without).chain([other]).copied().collect();
                let Some(kernels) = Kernels::among(candidates, &allowed) else { continue };
                let price = price(&kernels);
                if price < best && kernels.flash <= limit {
                    (best, found) = (price, Some(kernels.used));
                }
            }
        }
        let Some(better) = found else { return kept };
        kept = better;
    }
}

/// Kernels that compute all layers, each by the first of them.
struct Kernels {
    used: BTreeSet<&'static str>,
    /// Cycles of one run.
    cycles: u64,
    /// Bytes of constants.
    flash: usize,
}

impl Kernels {
    /// Those among `allowed`; `None` if a layer has none of them.
    fn among(candidates: &[Vec<Candidate<'_>>], allowed: &BTreeSet<&'static str>) -> Option<Self> {
        let mut kernels = Kernels { used: BTreeSet::new(), cycles: 0, flash: 0 };
        for of_layer in candidates.iter().filter(|of_layer| !of_layer.is_empty()) {
            let first = of_layer.iter().find(|one| allowed.contains(one.kernel.name))?;
            kernels.used.insert(first.kernel.name);
            kernels.cycles = kernels.cycles.saturating_add(first.cycles);
            kernels.flash += first.flash;
        }
        Some(kernels)
    }
}
