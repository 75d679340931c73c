//! Which kernel computes each layer: by modelled cycles, and the flash and the RAM that may be taken.

use alloc::rc::Rc;
use alloc::vec::Vec;

use super::code;
use super::cost::Cost;
use super::flash::CodeUse;
use super::layer::Packed;
use super::memory::{self, Packings};
use super::prepared::Prepared;
use crate::Kernel;
use crate::image::{CodeSize, FlashTiming, ModelDescription, Optimize, Value, WriteError};
use crate::operator::Alias;

/// A kernel that can compute a layer, with what it takes.
pub(super) struct Candidate<'k> {
    pub(super) kernel: &'k Kernel,
    /// Of one run, with waiting for flash.
    pub(super) cycles: u64,
    /// Bytes of constants.
    pub(super) flash: usize,
    /// Bytes of scratch memory.
    pub(super) scratch: usize,
}

impl<'k> Candidate<'k> {
    pub(super) fn new(kernel: &'k Kernel, cost: Cost, packed: &Packed, timing: FlashTiming) -> Self {
        let (flash, scratch) = (packed.length(), packed.scratch_length);
        Candidate { kernel, cycles: timing.cycles(cost, packed, CodeUse::of(kernel.name)), flash, scratch }
    }
}

/// The kernels among which each layer's is chosen, and the choice.
pub(super) struct Choice<'k> {
    /// Of each layer; the fastest first.
    candidates: Vec<Vec<Candidate<'k>>>,
    /// That of the chip, or none if all constants stay in its cache from run to run.
    pub(super) timing: FlashTiming,
    /// By layer, the index of its candidate.
    chosen: Vec<usize>,
}

impl<'k> Choice<'k> {
    pub(super) fn new(
        model: &ModelDescription,
        values: &[Value],
        layers: &[Prepared<'k>],
        code: &[CodeSize],
        packings: &mut Packings,
    ) -> Result<Self, WriteError> {
        let mut packed = Vec::with_capacity(layers.len());
        for (index, layer) in layers.iter().enumerate() {
            let mut of_layer: Vec<(&Kernel, Cost, Rc<Packed>)> = Vec::new();
            for (kernel, cost) in layer.all_fitting(values) {
                of_layer.push((kernel, cost, packings.get(index, layer, kernel, values)?));
            }
            packed.push(of_layer);
        }
        let most =
            |of_layer: &Vec<(&Kernel, Cost, Rc<Packed>)>| of_layer.iter().map(|(.., packed)| packed.length()).max();
        let total: usize = packed.iter().filter_map(most).sum();
        let timing = if total <= model.flash_timing.stays() { FlashTiming::default() } else { model.flash_timing };
        let mut candidates = Vec::with_capacity(layers.len());
        for of_layer in packed {
            let found =
                of_layer.into_iter().map(|(kernel, cost, packed)| Candidate::new(kernel, cost, &packed, timing));
            let mut found: Vec<Candidate<'k>> = found.collect();
            if model.optimize == Optimize::Flash && code.is_empty() {
                code::keep_smallest(&mut found);
            }
            found.sort_by_key(|candidate| (candidate.cycles, candidate.flash, candidate.scratch));
            candidates.push(found);
        }
        if !code.is_empty() {
            code::keep_worthwhile(&mut candidates, code, model.optimize);
        }
        let chosen = alloc::vec![0; layers.len()];
        Ok(Choice { candidates, timing, chosen })
    }

    /// Makes the layers prefer the chosen kernels. Where data is only moved, the places of the values decide: in some there is nothing to move.
    pub(super) fn apply(&self, layers: &mut [Prepared<'k>]) {
        for ((layer, candidates), &chosen) in layers.iter_mut().zip(&self.candidates).zip(&self.chosen) {
            let moves = matches!(layer.operator.alias, Alias::Overlay(_));
            layer.preferred = candidates.get(chosen).filter(|_| !moves).map(|candidate| candidate.kernel);
        }
    }

    /// Takes the kernels with the least scratch memory.
    pub(super) fn take_least_scratch(&mut self) {
        for (candidates, chosen) in self.candidates.iter().zip(&mut self.chosen) {
            let least = candidates.iter().enumerate().min_by_key(|(_, candidate)| candidate.scratch);
            *chosen = least.map_or(0, |(index, _)| index);
        }
    }

    /// The chosen kernels, for [`Choice::take`].
    pub(super) fn chosen(&self) -> Vec<usize> {
        self.chosen.clone()
    }

    /// Takes kernels that were chosen before.
    pub(super) fn take(&mut self, chosen: Vec<usize>) {
        self.chosen = chosen;
    }

    /// Takes the fastest kernels.
    pub(super) fn take_fastest(&mut self) {
        self.chosen.fill(0);
    }

    /// Takes kernels with smaller constants, those that lose the fewest cycles per byte first, until they are `excess` bytes smaller; returns whether
    /// anything has changed.
    pub(super) fn save_flash(&mut self, mut excess: usize) -> bool {
        let mut changed = false;
        while excess > 0 {
            let smaller = |(layer, candidates): (usize, &Vec<Candidate<'k>>)| {
                let now = candidates.get(self.chosen[layer])?;
                let others = candidates.iter().enumerate().filter(|(_, other)| other.flash < now.flash);
                let price = |(index, other): (usize, &Candidate<'k>)| {
                    let saved = now.flash - other.flash;
                    let lost = other.cycles.saturating_sub(now.cycles);
                    // In 1/1024 of a cycle per byte.
                    (lost.saturating_mul(1024) / saved as u64, layer, index, saved)
                };
                others.map(price).min()
            };
            let Some((_, layer, index, saved)) = self.candidates.iter().enumerate().filter_map(smaller).min() else {
                break;
            };
            self.chosen[layer] = index;
            excess = excess.saturating_sub(saved);
            changed = true;
        }
        changed
    }

    /// Takes a kernel with less scratch memory, and `no_more_flash` than now if that is so, for the layer that has the most memory in use; returns whether
    /// there is one.
    pub(super) fn save_scratch(&mut self, plan: &memory::Plan<'_>, no_more_flash: bool) -> bool {
        let smaller = |(layer, candidates): (usize, &Vec<Candidate<'k>>)| {
            let now = candidates.get(self.chosen[layer])?;
            let fits = |other: &Candidate<'k>| !no_more_flash || other.flash <= now.flash;
            let index = candidates.iter().position(|other| other.scratch < now.scratch && fits(other))?;
            Some((plan.in_use[layer], layer, index))
        };
        let Some((_, layer, index)) = self.candidates.iter().enumerate().filter_map(smaller).max() else {
            return false;
        };
        self.chosen[layer] = index;
        true
    }
}
