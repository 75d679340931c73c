//! Operator fusion: two layers become one node where a kernel computes both at once.

use alloc::borrow::Cow;
use alloc::vec::Vec;

use crate::Kernel;
use crate::image::{LayerDescription, ModelDescription, ValueDescription};
use crate::operator::Operator;
use crate::ops::FUSIONS;

/// Two operators that another one computes at once.
pub(crate) struct Fusion {
    /// Names of the two. The second reads the output of the first, and one value more, the residual.
    pub(crate) parts: [&'static str; 2],
    /// The inputs are those of the first, then the residual.
    pub(crate) operator: &'static Operator,
    /// The attributes and tensors of the two in one; the rest of the description does not count.
    pub(crate) join: fn(&LayerDescription, &LayerDescription) -> LayerDescription,
}

impl Operator {
    /// The number of layers of a description that one node of this operator stands for: 2 if the writer makes it of two.
    pub fn described_layers(&self) -> usize {
        FUSIONS.iter().find(|fusion| fusion.operator.name == self.name).map_or(1, |fusion| fusion.parts.len())
    }
}

/// The model with each two layers in one that one kernel computes; `None` if there are none.
///
/// The value between the two exists no longer, and those after it have other ids. The output takes the place of the residual, which must not be
/// needed later.
pub(super) fn fuse(model: &ModelDescription, kernels: &[Kernel]) -> Option<ModelDescription> {
    let values = Values::of(model);
    let mut layers = Vec::with_capacity(model.layers.len());
    // By old id; a value that no longer exists has that of the next one.
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
    let ModelDescription { name, labels, inputs, head, .. } = model;
    let (name, labels, inputs, head) = (name.clone(), labels.clone(), inputs.clone(), head.clone());
    Some(ModelDescription { name, labels, inputs, layers, outputs, head })
}

/// What a model's values are, and who reads them, by id.
struct Values<'m> {
    described: Vec<&'m ValueDescription>,
    /// How often each is read.
    reads: Vec<usize>,
    /// The last layer that reads each; of a graph output, the number of layers.
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

    /// Layers `index` and `index + 1` in one, if a kernel computes them at once; the first writes value `between`.
    fn fused(
        &self,
        kernels: &[Kernel],
        index: usize,
        between: usize,
        [first, second]: [&LayerDescription; 2],
    ) -> Option<LayerDescription> {
        let fusion = FUSIONS.iter().find(|fusion| fusion.parts == [&first.operator, &second.operator])?;
        kernels.iter().find(|kernel| kernel.operator.name == fusion.operator.name)?;
        let residual = match second.inputs[..] {
            [a, residual] | [residual, a] if a == between && residual != between => residual,
            _ => return None,
        };
        let alone = first.outputs.len() == 1 && second.outputs.len() == 1 && self.reads[between] == 1;
        let free = self.last_reads[residual] == index + 1 && !first.inputs.contains(&residual);
        let layout = |value: &ValueDescription| (value.dtype, value.shape, value.state);
        let output = second.outputs.first()?;
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
