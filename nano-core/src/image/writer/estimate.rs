//! What the kernels of a model's layers are estimated to take.

use alloc::vec::Vec;
use core::mem::size_of;

use super::flash::{CodeUse, FlashCache, Places};
use super::{Plan, planned, ram};
use crate::Kernel;
use crate::image::{CONSTANT_ALIGNMENT, ModelDescription, NodeHeader, Value, WriteError};

/// The kernels of one layer of an image.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerEstimate {
    /// Name of the chosen kernel.
    pub kernel: &'static str,
    /// All kernels that can compute the layer where its values lie, the chosen one among them.
    pub alternatives: Vec<KernelEstimate>,
}

/// What a kernel is estimated to take for a layer, in a run right after another one.
#[derive(Clone, Debug, PartialEq)]
pub struct KernelEstimate {
    /// Name of the kernel.
    pub kernel: &'static str,
    /// Instructions of one run.
    pub instructions: u64,
    /// Cycles of one run, with waiting for flash.
    pub cycles: u64,
    /// Bytes of constants.
    pub flash: usize,
    /// Bytes of scratch memory.
    pub scratch: usize,
}

/// What kernels could compute each layer of the image that [`write_with`](super::write_with) writes, and what each would take.
///
/// # Errors
/// Those of [`write()`](super::write()).
pub fn estimate(model: &ModelDescription, kernels: &[Kernel]) -> Result<Vec<LayerEstimate>, WriteError> {
    planned(model, kernels, of_plan)
}

fn of_plan(model: &ModelDescription, plan: &Plan<'_>) -> Result<Vec<LayerEstimate>, WriteError> {
    let in_ram = ram::choose(&plan.memory.layers, model);
    let mut cache = FlashCache::new(model.flash_timing);
    let mut estimates = Vec::new();
    let (mut linked, mut next): (Vec<(&str, u32)>, u32) = (Vec::new(), 0);
    // The second run finds in the cache what the first one has left there.
    for run in 0..2 {
        let mut start_of = |kernel: &'static str| match linked.iter().find(|(linked, _)| *linked == kernel) {
            Some(&(_, start)) => start,
            None => {
                let start = next;
                next += CodeUse::of(kernel).run;
                linked.push((kernel, start));
                start
            }
        };
        let (mut constants, mut records) = (0, 0..0);
        for ((layer, chosen), in_ram) in plan.layers.iter().zip(&plan.memory.layers).zip(&in_ram) {
            let words = layer.inputs.len() + layer.attributes.len() + 2 * chosen.packed.constants.len();
            let of_layer = size_of::<NodeHeader>() + 4 * words + layer.outputs.len() * size_of::<Value>();
            records = records.end..records.end + of_layer;
            let mut places = |kernel| Places {
                records: records.clone(),
                code: start_of(kernel),
                constants: (!in_ram).then_some(constants),
            };
            if run == 1 {
                let mut alternatives = Vec::new();
                for (kernel, cost) in layer.all_fitting(&plan.values) {
                    let packed = layer.pack(kernel, &plan.values)?;
                    let code = CodeUse::of(kernel.name);
                    let wait =
                        cache.clone().map_or(0, |mut cache| cache.wait(cost, &packed, code, &places(kernel.name)));
                    alternatives.push(KernelEstimate {
                        kernel: kernel.name,
                        instructions: cost.instructions,
                        cycles: cost.cycles().saturating_add(wait),
                        flash: packed.length(),
                        scratch: packed.scratch_length,
                    });
                }
                estimates.push(LayerEstimate { kernel: chosen.kernel.name, alternatives });
            }
            if let Some(cache) = &mut cache {
                let code = CodeUse::of(chosen.kernel.name);
                cache.wait(chosen.cost, &chosen.packed, code, &places(chosen.kernel.name));
            }
            constants += chosen.packed.length().next_multiple_of(CONSTANT_ALIGNMENT);
        }
        if let Some(cache) = &mut cache {
            cache.end_of_run();
        }
    }
    Ok(estimates)
}
