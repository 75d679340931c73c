//! Memory layouts that the planner tries: which values share memory. Each candidate must pass the check that loading makes.

use alloc::vec::Vec;

use super::prepared::Prepared;
use crate::image::Value;
use crate::image::lifetimes::Alive;
use crate::operator::{Alias, Overlay};
use crate::{Kernel, Run};

/// An input of a layer that could share memory with the layer's output.
#[derive(Clone, Copy)]
pub(super) struct Link {
    pub(super) layer: usize,
    pub(super) input: usize,
}

/// The part of the model that is the same for all layouts.
pub(super) struct Graph<'g, 'k> {
    pub(super) layers: &'g [Prepared<'k>],
    /// Number of the graph's inputs, which are the first values.
    pub(super) inputs: usize,
    /// By value: true for the graph's inputs, outputs and states, whose pixels must be contiguous.
    pub(super) dense: Vec<bool>,
}

/// Groups of values that share memory. `values` holds their pitches, and offsets in an arena in which no two groups overlap.
#[derive(Clone)]
pub(super) struct Layout<'k> {
    pub(super) values: Vec<Value>,
    /// The group of each value.
    pub(super) groups: Vec<usize>,
    /// Position of each value in its group, in bytes.
    places: Vec<i64>,
    /// The kernel of each layer.
    pub(super) kernels: Vec<&'k Kernel>,
}

impl<'k> Layout<'k> {
    /// The layout with each value in its own group, except outputs that always replace an input in place ([`Run::Over`]).
    pub(super) fn apart(graph: &Graph<'_, 'k>, values: &[Value]) -> Self {
        let mut layout = Layout {
            values: values.to_vec(),
            groups: (0..values.len()).collect(),
            places: alloc::vec![0; values.len()],
            kernels: Vec::new(),
        };
        layout.spread();
        layout.kernels = graph.layers.iter().map(|layer| layer.cheapest(&layout.values)).collect();
        for (layer, kernel) in graph.layers.iter().zip(&layout.kernels) {
            if let (Run::Over(_), Some(&last)) = (kernel.run, layer.inputs.last()) {
                layout.groups[layer.outputs.start] = layout.groups[last as usize];
            }
        }
        layout.spread();
        layout
    }

    /// Puts outputs in place of inputs at their last use, in one pass. Expects the layout that [`Layout::apart`] returns.
    pub(super) fn in_place(mut self, graph: &Graph<'_, 'k>) -> Self {
        for (index, (layer, kernel)) in graph.layers.iter().zip(&self.kernels).enumerate() {
            let output = layer.outputs.start;
            let taken = match (kernel.run, kernel.alias()) {
                (Run::Over(_), _) => layer.inputs.last().copied(),
                (_, Alias::Elementwise) if layer.outputs.len() == 1 => {
                    let to = &self.values[output];
                    let fits = |&&id: &&u32| {
                        let from = &self.values[id as usize];
                        let alike = (from.shape, from.pitch, from.dtype()) == (to.shape, to.pitch, to.dtype());
                        alike && from.last_use as usize == index && !from.is_state() && !to.is_state()
                    };
                    layer.inputs.iter().find(fits).copied()
                }
                _ => None,
            };
            // All other values of the input's group are dead: each was replaced in place at its last use.
            if let Some(id) = taken {
                self.groups[output] = self.groups[id as usize];
            }
        }
        self.spread();
        self
    }

    /// Length of each group in bytes, and position of each value in its group.
    pub(super) fn extents(&self) -> (Vec<u32>, Vec<u32>) {
        let mut ends = alloc::vec![[i64::MAX, i64::MIN]; self.values.len()];
        for ((value, &group), &place) in self.values.iter().zip(&self.groups).zip(&self.places) {
            let [start, end] = ends[group];
            ends[group] = [start.min(place), end.max(place + value.range().len() as i64)];
        }
        let lengths = ends.iter().map(|[start, end]| if start < end { (end - start) as u32 } else { 0 }).collect();
        let place = |(&group, &place): (&usize, &i64)| (place - ends[group][0]) as u32;
        (lengths, self.groups.iter().zip(&self.places).map(place).collect())
    }

    /// Sets the offsets so that the groups follow each other.
    fn spread(&mut self) {
        let (lengths, places) = self.extents();
        let mut end = 0;
        let starts: Vec<u32> = lengths
            .into_iter()
            .map(|length| {
                let start = end;
                end += length.next_multiple_of(4);
                start
            })
            .collect();
        for ((value, &group), place) in self.values.iter_mut().zip(&self.groups).zip(places) {
            value.offset = starts[group] + place;
        }
    }

    /// The layout in which the two values of a link share memory; `None` if they cannot, or are already in one group.
    pub(super) fn linked(&self, graph: &Graph<'_, 'k>, link: Link) -> Option<Self> {
        let layer = &graph.layers[link.layer];
        let (input, output) = (layer.inputs[link.input] as usize, layer.outputs.start);
        if self.groups[input] == self.groups[output] || layer.outputs.len() != 1 {
            return None;
        }
        let pairs = match layer.operator.alias {
            Alias::Never => return None,
            Alias::Elementwise => {
                let alike = |value: &Value| (value.shape, value.dtype());
                if alike(&self.values[input]) != alike(&self.values[output]) {
                    return None;
                }
                [
                    self.moved(output, self.values[input].pitch, input, 0),
                    self.moved(input, self.values[output].pitch, output, 0),
                ]
            }
            Alias::Overlay(rule) => {
                let place = |values: &[Value]| (rule.place)(&layer.node(values), link.input);
                match place(&self.values)? {
                    Overlay::InputInside { .. } => self.overlaid(input, output, place),
                    Overlay::OutputInside { .. } => self.overlaid(output, input, place),
                }
            }
        };
        pairs.into_iter().flatten().find_map(|layout| layout.checked(graph, self))
    }

    /// Two candidates: `inner` moved into `outer`, and `outer` moved around `inner`.
    fn overlaid(&self, inner: usize, outer: usize, place: impl Fn(&[Value]) -> Option<Overlay>) -> [Option<Self>; 2] {
        let place = |values: &[Value]| match place(values)? {
            Overlay::InputInside { offset, pitch } | Overlay::OutputInside { offset, pitch } => {
                Some((i64::from(offset) * values[outer].dtype().size() as i64, pitch))
            }
        };
        let into = || {
            let (offset, pitch) = place(&self.values)?;
            self.moved(inner, pitch, outer, offset)
        };
        let around = || {
            let pitch = self.values[inner].pitch.max(self.values[outer].shape[2]);
            let mut values = self.values.clone();
            values[outer] = values[outer].at(values[outer].offset, pitch);
            let (offset, of_inner) = place(&values)?;
            let is_right = of_inner == self.values[inner].pitch || self.values[inner].is_dense();
            if is_right { self.moved(outer, pitch, inner, -offset) } else { None }
        };
        [into(), around()]
    }

    /// Merges the group of `value` into that of `other`, with `value` at `pitch`, `offset` bytes after `other`. `None` if the pitch of `value` would
    /// change and its group has other values.
    fn moved(&self, value: usize, pitch: u32, other: usize, offset: i64) -> Option<Self> {
        let (group, joined) = (self.groups[value], self.groups[other]);
        let mut layout = self.clone();
        if self.values[value].pitch != pitch {
            if self.groups.iter().filter(|&&other| other == group).count() > 1 {
                return None;
            }
            layout.values[value] = layout.values[value].at(0, pitch);
        }
        let shift = self.places[other] + offset - self.places[value];
        for (group, place) in layout.groups.iter_mut().zip(&mut layout.places).filter(|(of, _)| **of == group) {
            (*group, *place) = (joined, *place + shift);
        }
        layout.spread();
        Some(layout)
    }

    /// The layout with kernels for its pitches; `None` if no kernel takes them, or if loading would refuse it.
    fn checked(mut self, graph: &Graph<'_, 'k>, before: &Self) -> Option<Self> {
        let pitches = |layout: &Self, id: usize| layout.values[id].pitch;
        for (id, value) in self.values.iter().enumerate() {
            if pitches(&self, id) != pitches(before, id)
                && (value.check().is_err() || graph.dense[id] && !value.is_dense())
            {
                return None;
            }
        }
        for (layer, kernel) in graph.layers.iter().zip(&mut self.kernels) {
            let changes = layer.values().any(|id| self.values[id].pitch != before.values[id].pitch);
            if changes || matches!(layer.operator.alias, Alias::Overlay(_)) {
                *kernel = layer.fitting(&self.values)?;
            }
        }
        self.is_accepted(graph).then_some(self)
    }

    fn is_accepted(&self, graph: &Graph<'_, 'k>) -> bool {
        let check = || {
            let mut alive = Alive::new(&self.values, graph.inputs)?;
            let mut layers = graph.layers.iter().zip(&self.kernels).enumerate();
            layers.try_for_each(|(index, (layer, kernel))| alive.write(index, &layer.node(&self.values), kernel))
        };
        check().is_ok()
    }

    /// Bytes that layers need not copy because they already lie in the right place.
    pub(super) fn saved(&self, graph: &Graph<'_, 'k>) -> usize {
        let of_layer = |layer: &Prepared<'_>| {
            let Alias::Overlay(rule) = layer.operator.alias else { return 0 };
            let node = layer.node(&self.values);
            let output = node.output(0);
            let lies = |&(index, input): &(usize, &Value)| {
                (rule.place)(&node, index).is_some_and(|place| place.holds(input, output))
            };
            node.inputs().enumerate().filter(lies).map(|(_, input)| input.len().min(output.len())).sum()
        };
        graph.layers.iter().map(of_layer).sum()
    }
}
