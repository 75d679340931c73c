//! The memory plan: offsets of values and scratch memory in the arena, and the kernels that go with them.

use alloc::collections::BTreeMap;
use alloc::collections::btree_map::Entry;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::ops::RangeInclusive;

use super::Value;
use super::cost::Cost;
use super::layer::Packed;
use super::layout::{Graph, Layout, Link};
use super::plan::{Request, plan};
use super::prepared::Prepared;
use crate::image::{MOST_ALIVE, ModelDescription, WriteError};
use crate::operator::{Alias, Overlay};
use crate::{Error, Kernel};

/// A layer with its kernel.
#[derive(Clone)]
pub(super) struct Chosen<'k> {
    pub(super) kernel: &'k Kernel,
    pub(super) packed: Rc<Packed>,
    /// The kernel's estimate of one run.
    pub(super) cost: Cost,
}

/// A memory plan.
pub(super) struct Plan<'k> {
    pub(super) layers: Vec<Chosen<'k>>,
    /// Offset of each value in the arena, in bytes.
    offsets: Vec<u32>,
    /// Offset of each layer's scratch memory in the arena, in bytes.
    pub(super) scratch_offsets: Vec<u32>,
    /// Bytes of the arena.
    pub(super) length: u32,
    /// Bytes of values and scratch memory that are needed while each layer runs.
    pub(super) in_use: Vec<u32>,
}

/// Packed constants by layer, kernel id and pitches: packing takes most of the writer's time.
#[derive(Default)]
pub(super) struct Packings(BTreeMap<(usize, u16, Vec<u32>), Rc<Packed>>);

impl Packings {
    /// Those of a layer for a kernel.
    pub(super) fn get(
        &mut self,
        index: usize,
        layer: &Prepared<'_>,
        kernel: &Kernel,
        values: &[Value],
    ) -> Result<Rc<Packed>, WriteError> {
        let pitches = layer.values().map(|id| values[id].pitch).collect();
        Ok(match self.0.entry((index, kernel.id, pitches)) {
            Entry::Occupied(entry) => entry.get().clone(),
            Entry::Vacant(entry) => entry.insert(Rc::new(layer.pack(kernel, values)?)).clone(),
        })
    }
}

/// Sets every value's last use, pitch and offset in the arena, and chooses the layers' kernels.
///
/// Compares several plans: each value in its own memory; outputs in place of inputs where operators run in place; all sharing that operators allow;
/// and only the links that do not make the arena larger, found one by one, as the longer lifetimes of shared memory can make it larger. Returns the
/// plan with the smallest arena; among equals, the one that saves most copies.
pub(super) fn place<'k>(
    model: &ModelDescription,
    values: &mut Vec<Value>,
    layers: &[Prepared<'k>],
    packings: &mut Packings,
) -> Result<Plan<'k>, WriteError> {
    let lifetimes = set_last_uses(model, values, layers);
    check_alive(&lifetimes, layers.len())?;
    let mut dense: Vec<bool> = values.iter().map(Value::is_state).collect();
    dense[..model.inputs.len()].fill(true);
    model.outputs.iter().for_each(|output| dense[output.id] = true);
    let total: u64 = values.iter().map(|value| value.range().len() as u64 + 4).sum();
    if total > i32::MAX as u64 {
        return Err(TOO_LARGE);
    }
    let graph = Graph { layers, inputs: model.inputs.len(), dense };
    let mut planner = Planner { graph, lifetimes, packings };

    let apart = Layout::apart(&planner.graph, values);
    let mut best = planner.plan(&apart)?;
    let scratch: u64 = best.layers.iter().map(|layer| layer.packed.scratch_length as u64 + 4).sum();
    if total + scratch > i32::MAX as u64 {
        return Err(TOO_LARGE);
    }
    let (in_place, moves) = links(layers, values);
    let all = |layout: Layout<'k>, links: &[Link], graph: &Graph<'_, 'k>| {
        links.iter().fold(layout, |layout, &link| layout.linked(graph, link).unwrap_or(layout))
    };
    let mut layouts = alloc::vec![apart.clone().in_place(&planner.graph)];
    if !moves.is_empty() {
        let moved = all(apart.clone(), &moves.concat(), &planner.graph);
        layouts.push(all(moved, &in_place, &planner.graph));
        let mut layout = apart.clone();
        let mut length = best.length;
        let bundles = moves.iter().map(Vec::as_slice).chain(in_place.chunks(1));
        for bundle in bundles {
            // The links of one layer, together and then one by one.
            for links in core::iter::once(bundle).chain(bundle.chunks(1)) {
                let tried = all(layout.clone(), links, &planner.graph);
                let plan = planner.plan(&tried)?;
                if plan.length <= length {
                    (layout, length) = (tried, plan.length);
                }
            }
        }
        layouts.push(layout);
    }
    let mut chosen = apart;
    for layout in layouts {
        let plan = planner.plan(&layout)?;
        let rank = |plan: &Plan<'_>, layout: &Layout<'k>| (plan.length, Reverse(layout.saved(&planner.graph)));
        if rank(&plan, &layout) < rank(&best, &chosen) {
            (best, chosen) = (plan, layout);
        }
    }
    *values = chosen.values;
    values.iter_mut().zip(&best.offsets).for_each(|(value, &offset)| value.offset = offset);
    Ok(best)
}

const TOO_LARGE: WriteError = WriteError::TooLarge("the values have more than 2^31 bytes");

/// Returns the pairs of values that could share memory: the in-place links of elementwise operators, in order; and the links of each operator that
/// moves data. Among these, concatenations come from the last to the first, as an outer one determines the pitch of an inner one, and then views.
fn links(layers: &[Prepared<'_>], values: &[Value]) -> (Vec<Link>, Vec<Vec<Link>>) {
    let (mut in_place, mut parts, mut views) = (Vec::new(), Vec::new(), Vec::new());
    for (index, layer) in layers.iter().enumerate() {
        let links = (0..layer.inputs.len()).map(|input| Link { layer: index, input });
        match layer.operator.alias {
            Alias::Never => {}
            Alias::Elementwise => in_place.extend(links),
            Alias::Overlay(rule) => {
                let node = layer.node(values);
                let is_view =
                    |link: &Link| matches!((rule.place)(&node, link.input), Some(Overlay::OutputInside { .. }));
                let (of_views, of_parts): (Vec<Link>, Vec<Link>) = links.partition(is_view);
                views.push(of_views);
                parts.push(of_parts);
            }
        }
    }
    let moves = parts.into_iter().rev().chain(views).filter(|links| !links.is_empty()).collect();
    (in_place, moves)
}

struct Planner<'g, 'k, 'p> {
    graph: Graph<'g, 'k>,
    lifetimes: Vec<RangeInclusive<usize>>,
    packings: &'p mut Packings,
}

impl<'k> Planner<'_, 'k, '_> {
    fn plan(&mut self, layout: &Layout<'k>) -> Result<Plan<'k>, WriteError> {
        let layers = layout.kernels.iter().enumerate();
        let layers = layers.map(|(index, &kernel)| {
            let layer = &self.graph.layers[index];
            let packed = self.packings.get(index, layer, kernel, &layout.values)?;
            Ok(Chosen { kernel, packed, cost: layer.estimate(kernel, &layout.values) })
        });
        let layers: Vec<Chosen<'k>> = layers.collect::<Result<_, WriteError>>()?;
        let (lengths, places) = layout.extents();
        let mut requests: Vec<Request> = lengths.into_iter().map(|length| Request { length, live: 0..=0 }).collect();
        let mut found = alloc::vec![false; requests.len()];
        for (live, &group) in self.lifetimes.iter().zip(&layout.groups) {
            let request = &mut requests[group];
            request.live = match core::mem::replace(&mut found[group], true) {
                true => *request.live.start().min(live.start())..=*request.live.end().max(live.end()),
                false => live.clone(),
            };
        }
        let groups = requests.len();
        let scratch = layers.iter().enumerate();
        requests.extend(
            scratch.map(|(node, layer)| Request { length: layer.packed.scratch_length as u32, live: node..=node }),
        );
        let mut in_use = alloc::vec![0; layers.len()];
        for request in &requests {
            let last = in_use.len().min(request.live.end() + 1);
            in_use[*request.live.start().min(&last)..last].iter_mut().for_each(|bytes| *bytes += request.length);
        }
        let (mut starts, length) = plan(&requests);
        let scratch_offsets = starts.split_off(groups);
        let offsets = layout.groups.iter().zip(places).map(|(&group, place)| starts[group] + place).collect();
        Ok(Plan { layers, offsets, scratch_offsets, length, in_use })
    }
}

/// Sets every value's last use; returns each value's lifetime: the nodes during which it is alive.
fn set_last_uses(
    model: &ModelDescription,
    values: &mut [Value],
    layers: &[Prepared<'_>],
) -> Vec<RangeInclusive<usize>> {
    let end = layers.len();
    let mut first_uses = alloc::vec![0; values.len()];
    for (index, layer) in layers.iter().enumerate() {
        for id in layer.outputs.clone() {
            values[id].last_use = index as u32;
            first_uses[id] = index;
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

/// Refuses a model with more than [`MOST_ALIVE`] values alive at one node, the limit of the check at loading.
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
