//! Where in the arena each value and each node's scratch memory lies.

use alloc::vec::Vec;
use core::ops::RangeInclusive;

use super::plan::{Request, plan};
use super::{Chosen, Value};
use crate::image::{MOST_ALIVE, ModelDescription, WriteError};
use crate::operator::Alias;
use crate::{Error, Run};

/// Memory that values have one after the other.
struct Storage {
    length: u32,
    live: RangeInclusive<usize>,
}

/// Gives every value its last use and its place in the arena; returns the layers' scratch offsets and the arena's length.
///
/// Values are planned twice: each with memory of its own, and with outputs in the place of inputs where operators run in place. The smaller plan
/// counts: longer lives can also be in the way.
pub(super) fn place(
    model: &ModelDescription,
    values: &mut [Value],
    layers: &[Chosen<'_>],
) -> Result<(Vec<u32>, u32), WriteError> {
    let lifetimes = set_last_uses(model, values, layers);
    check_alive(&lifetimes, layers.len())?;
    let total: u64 = values.iter().map(|value| value.range().len() as u64 + 4).sum::<u64>()
        + layers.iter().map(|layer| layer.packed.scratch_length as u64 + 4).sum::<u64>();
    if total > i32::MAX as u64 {
        return Err(WriteError::TooLarge("the values have more than 2^31 bytes"));
    }
    let plans = [false, true].map(|shared| {
        let (storages, of_value) = storages(values, &lifetimes, layers, shared);
        let values = storages.into_iter().map(|Storage { length, live }| Request { length, live });
        let scratch = layers.iter().enumerate();
        let scratch =
            scratch.map(|(node, layer)| Request { length: layer.packed.scratch_length as u32, live: node..=node });
        let scratch_from = values.len();
        let (mut offsets, length) = plan(&values.chain(scratch).collect::<Vec<_>>());
        let scratch_offsets = offsets.split_off(scratch_from);
        let offsets: Vec<u32> = of_value.into_iter().map(|storage| offsets[storage]).collect();
        (offsets, scratch_offsets, length)
    });
    let [apart, shared] = plans;
    let (offsets, scratch_offsets, length) = if shared.2 < apart.2 { shared } else { apart };
    for (value, offset) in values.iter_mut().zip(offsets) {
        value.offset = offset;
    }
    Ok((scratch_offsets, length))
}

/// Gives every value its last use; returns the nodes during which each is needed.
fn set_last_uses(model: &ModelDescription, values: &mut [Value], layers: &[Chosen<'_>]) -> Vec<RangeInclusive<usize>> {
    let end = layers.len();
    let mut first_uses = alloc::vec![0; model.inputs.len()];
    for (index, (description, layer)) in model.layers.iter().zip(layers).enumerate() {
        for _ in &description.outputs {
            values[first_uses.len()].last_use = index as u32;
            first_uses.push(index);
        }
        layer.inputs.iter().for_each(|&id| values[id as usize].last_use = index as u32);
    }
    model.outputs.iter().for_each(|output| values[output.id].last_use = end as u32);
    for (value, first) in values.iter_mut().zip(&mut first_uses) {
        if value.is_state() {
            (*first, value.last_use) = (0, end as u32);
        }
    }
    values.iter().zip(first_uses).map(|(value, first)| first..=value.last_use as usize).collect()
}

/// The storages, and that of each value.
fn storages(
    values: &[Value],
    lifetimes: &[RangeInclusive<usize>],
    layers: &[Chosen<'_>],
    shared: bool,
) -> (Vec<Storage>, Vec<usize>) {
    let mut storages: Vec<Storage> = Vec::with_capacity(values.len());
    let mut of_value: Vec<usize> = Vec::with_capacity(values.len());
    let writers = layers.iter().enumerate();
    let writers = writers.flat_map(|writer| core::iter::repeat_n(writer, writer.1.kernel.operator.outputs.len()));
    let inputs = values.len() - writers.clone().count();
    // Values are numbered in the order in which they are written, so that those of the inputs are known.
    let writers = core::iter::repeat_n(None, inputs).chain(writers.map(Some));
    for ((value, live), writer) in values.iter().zip(lifetimes).zip(writers) {
        let takes_the_last = writer.filter(|(_, layer)| matches!(layer.kernel.run, Run::Over(_)));
        let takes_a_place = writer.filter(|(_, layer)| {
            let is_elementwise = matches!(layer.kernel.alias(), Alias::Elementwise);
            shared && is_elementwise && layer.kernel.operator.outputs.len() == 1 && !value.is_state()
        });
        let taken = takes_a_place.and_then(|(node, layer)| {
            let fits = |&&id: &&u32| {
                let input = &values[id as usize];
                input.last_use as usize == node && !input.is_state() && is_alike(input, value)
            };
            layer.inputs.iter().find(fits).map(|&id| of_value[id as usize])
        });
        let last = takes_the_last.and_then(|(_, layer)| layer.inputs.last()).map(|&id| of_value[id as usize]);
        of_value.push(match last.or(taken) {
            Some(storage) => {
                storages[storage].live = *storages[storage].live.start()..=*live.end();
                storage
            }
            None => {
                storages.push(Storage { length: value.range().len() as u32, live: live.clone() });
                storages.len() - 1
            }
        });
    }
    (storages, of_value)
}

/// Whether two values have the same elements at the same distances.
fn is_alike(a: &Value, b: &Value) -> bool {
    (a.shape, a.pitch, a.dtype()) == (b.shape, b.pitch, b.dtype())
}

/// Refuses a model of which more values are needed at a node than loading keeps account of.
fn check_alive(lifetimes: &[RangeInclusive<usize>], end: usize) -> Result<(), Error> {
    let mut changes = alloc::vec![0isize; end + 2];
    for lifetime in lifetimes {
        changes[*lifetime.start()] += 1;
        changes[*lifetime.end() + 1] -= 1;
    }
    let alive = changes.iter().scan(0, |alive, change| {
        *alive += change;
        Some(*alive)
    });
    match alive.enumerate().find(|(_, alive)| *alive > MOST_ALIVE as isize) {
        Some((node, _)) => Err(Error::TooManyAlive { node, limit: MOST_ALIVE }),
        None => Ok(()),
    }
}
