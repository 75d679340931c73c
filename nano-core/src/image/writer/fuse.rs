//! Operator fusion: two consecutive layers become one node where one kernel computes both.

use alloc::borrow::Cow;
use alloc::vec::Vec;

use crate::Kernel;
use crate::image::{LayerDescription, ModelDescription, ValueDescription};
use crate::operator::Operator;
use crate::ops::FUSIONS;

/// A fusion rule: two operators, and the operator that computes both.
pub(crate) struct Fusion {
    /// Names of the two operators. The second one reads the output of the first one, and one other value, the residual.
    pub(crate) parts: [&'static str; 2],
    /// The fused operator. Its inputs are those of the first operator, then the residual.
    pub(crate) operator: &'static Operator,
    /// Joins the attributes and tensors of the two layers; the rest of the returned description is ignored.
    pub(crate) join: fn(&LayerDescription, &LayerDescription) -> LayerDescription,
}

impl Operator {
    /// The number of described layers that one node of this operator represents: 2 for a fused operator, else 1.
    pub fn described_layers(&self) -> usize {
        FUSIONS.iter().find(|fusion| fusion.operator.name == self.name).map_or(1, |fusion| fusion.parts.len())
    }
}

/// The model with all possible fusions applied; `None` if no layers can be fused.
///
/// The value between two fused layers no longer exists, and later values have new ids. The output replaces the residual in place, so the residual
/// must not be needed later.
pub(super) fn fuse(model: &ModelDescription, kernels: &[Kernel]) -> Option<ModelDescription> {
    let values = Values::of(model);
    let mut layers = Vec::with_capacity(model.layers.len());
    // New ids by old id; a value that no longer exists has the id of the next one.
    let mut ids: Vec<usize> = (0..model.inputs.len()).collect();
    let mut next = ids.len();
    let mut rest = &model.layers[..];
    while let [first, after @ ..] = rest {
        let index = model.layers.len() - rest.len();
        let fused = after.first().and_then(|second| values.fused(kernels, index, ids.len(), [first, second]));
        rest = if let Some(layer) = fused {
            layers.push(Cow::Owned(layer));
            ids.extend([next; 2]);
            next += 1;
            &after[1..]
        } else {
            layers.push(Cow::Borrowed(first));
            ids.extend((next..).take(first.outputs.len()));
            next += first.outputs.len();
            after
        };
    }
    if layers.len() == model.layers.len() {
        return None;
    }
    let mut layers: Vec<LayerDescription> = layers.into_iter().map(Cow::into_owned).collect();
    layers.iter_mut().flat_map(|layer| &mut layer.inputs).for_each(|id| *id = ids[*id]);
    let mut outputs = model.outputs.clone();
    outputs.iter_mut().for_each(|output| output.id = ids[output.id]);
    let ModelDescription { name, labels, inputs, head, rejection, code, .. } = model;
    let (name, labels, inputs) = (name.clone(), labels.clone(), inputs.clone());
    let (head, rejection) = (head.clone(), rejection.clone());
    let &ModelDescription { weights_in_ram, optimize, budget, flash_timing, .. } = model;
    Some(ModelDescription {
        name,
        labels,
        inputs,
        layers,
        outputs,
        head,
        rejection,
        weights_in_ram,
        optimize,
        budget,
        flash_timing,
        code: code.clone(),
    })
}

/// A model's values and their readers, by id.
struct Values<'m> {
    described: Vec<&'m ValueDescription>,
    /// Number of reads of each value; a graph output counts as one.
    reads: Vec<usize>,
    /// The last layer that reads each value; for a graph output, the number of layers.
    last_reads: Vec<usize>,
}

impl<'m> Values<'m> {
    fn of(model: &'m ModelDescription) -> Self {
        let described: Vec<&ValueDescription> = model.values().collect();
        let (mut reads, mut last_reads) = (alloc::vec![0; described.len()], alloc::vec![0; described.len()]);
        let layers =
            model.layers.iter().enumerate().flat_map(|(index, layer)| layer.inputs.iter().map(move |id| (index, *id)));
        for (reader, id) in layers.chain(model.outputs.iter().map(|output| (model.layers.len(), output.id))) {
            reads[id] += 1;
            last_reads[id] = reader;
        }
        Values { described, reads, last_reads }
    }

    /// Layers `index` and `index + 1` as one, if a kernel computes both; the first one writes value `between`.
    fn fused(
        &self,
        kernels: &[Kernel],
        index: usize,
        between: usize,
        [first, second]: [&LayerDescription; 2],
    ) -> Option<LayerDescription> {
        let fusion = FUSIONS.iter().find(|fusion| fusion.parts == [&first.operator, &second.operator])?;
        let residual = match second.inputs[..] {
            [a, residual] | [residual, a] if a == between && residual != between => residual,
            _ => return None,
        };
        let alone = first.outputs.len() == 1 && second.outputs.len() == 1 && self.reads[between] == 1;
        let free = self.last_reads[residual] == index + 1 && !first.inputs.contains(&residual);
        let layout = |value: &ValueDescription| (value.dtype, value.shape, value.state);
        let output = second.outputs.first()?;
        kernels
            .iter()
            .find(|kernel| kernel.operator.name == fusion.operator.name && kernel.outputs == [output.dtype])?;
        let alike = [between, residual].iter().all(|&id| layout(self.described[id]) == layout(output));
        let inputs = first.inputs.iter().copied().chain([residual]).collect();
        (alone && free && alike && !output.state).then(|| LayerDescription {
            operator: fusion.operator.name.into(),
            inputs,
            outputs: second.outputs.clone(),
            ..(fusion.join)(first, second)
        })
    }
}
