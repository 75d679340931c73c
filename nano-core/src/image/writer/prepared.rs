//! A layer before memory planning: what does not depend on the values' offsets, and the kernels that could run it.

use alloc::vec::Vec;
use core::ops::Range;

use super::cost::Cost;
use super::layer::{self, Layer, Packed};
use crate::image::{LayerDescription, NodeHeader, Value, WriteError};
use crate::operator::Operator;
use crate::{Kernel, Node};

/// A layer whose description its operator has accepted.
pub(super) struct Prepared<'k> {
    pub(super) description: &'k LayerDescription,
    pub(super) operator: &'static Operator,
    /// The kernels of the operator.
    kernels: Vec<&'k Kernel>,
    /// The one that is taken where it supports the pitches and offsets.
    pub(super) preferred: Option<&'k Kernel>,
    /// Ids of the input values.
    pub(super) inputs: Vec<u32>,
    /// Ids of the output values.
    pub(super) outputs: Range<usize>,
    pub(super) attributes: Vec<i32>,
    macs: u64,
}

impl<'k> Prepared<'k> {
    /// Prepares a layer that writes the values `outputs`.
    pub(super) fn new(
        description: &'k LayerDescription,
        values: &[Value],
        outputs: Range<usize>,
        kernels: &'k [Kernel],
    ) -> Result<Self, WriteError> {
        let of_operator = |kernel: &&Kernel| kernel.operator.name == description.operator;
        let kernels: Vec<&Kernel> = kernels.iter().filter(of_operator).collect();
        let unknown = || WriteError::UnknownOperator(description.operator.clone());
        let operator = kernels.first().ok_or_else(unknown)?.operator;
        let attributes = layer::attributes(operator, description)?;
        let inputs = description.inputs.iter().map(|&id| id as u32).collect();
        let mut layer =
            Prepared { description, operator, kernels, preferred: None, inputs, outputs, attributes, macs: 0 };
        let node = layer.node(values);
        operator.check(&node).map_err(|broken| broken.of(operator.name))?;
        layer.macs = (operator.macs)(&node);
        if layer.fitting(values).is_none() {
            // If no kernel takes the dtypes, the refusal of one of them is the error.
            layer.cheapest(values).accept(&layer.node(values)).map_err(|broken| broken.of(operator.name))?;
            return Err(WriteError::NoKernel(description.operator.clone()));
        }
        Ok(layer)
    }

    /// The layer's node without its kernel, constants and scratch memory.
    pub(super) fn node<'a>(&'a self, values: &'a [Value]) -> Node<'a> {
        const HEADER: &NodeHeader = &NodeHeader {
            kernel: 0,
            form: 0,
            input_count: 0,
            output_count: 0,
            attribute_count: 0,
            constant_count: 0,
            constants_in_ram: 0,
            scratch_offset: 0,
            scratch_length: 0,
        };
        Node {
            header: HEADER,
            inputs: &self.inputs,
            values,
            outputs: &values[self.outputs.clone()],
            attributes: &self.attributes,
            constants: &[],
            constants_section: &[],
        }
    }

    /// Ids of the values that it reads and writes.
    pub(super) fn values(&self) -> impl Iterator<Item = usize> {
        self.inputs.iter().map(|&id| id as usize).chain(self.outputs.clone())
    }

    fn layer(&self, values: &[Value]) -> Layer<'k> {
        Layer {
            inputs: self.inputs.iter().map(|&id| values[id as usize]).collect(),
            outputs: values[self.outputs.clone()].to_vec(),
            attributes: self.attributes.clone(),
            macs: self.macs,
            description: self.description,
        }
    }

    /// The preferred kernel, or the cheapest one that supports these pitches and offsets; an arbitrary kernel of the operator if none does.
    pub(super) fn cheapest(&self, values: &[Value]) -> &'k Kernel {
        let (node, layer) = (self.node(values), self.layer(values));
        if let Some(preferred) = self.preferred.filter(|kernel| self.cost(kernel, &node, &layer).is_some()) {
            return preferred;
        }
        let cost = |kernel: &&&Kernel| self.cost(kernel, &node, &layer).map_or(u64::MAX, Cost::cycles);
        self.kernels.iter().min_by_key(cost).expect("`new` has found one")
    }

    /// All kernels that support these pitches and offsets, with their estimates.
    pub(super) fn all_fitting(&self, values: &[Value]) -> Vec<(&'k Kernel, Cost)> {
        let (node, layer) = (self.node(values), self.layer(values));
        let kernels = self.kernels.iter().copied();
        kernels.filter_map(|kernel| self.cost(kernel, &node, &layer).map(|cost| (kernel, cost))).collect()
    }

    /// The cheapest kernel that supports these pitches and offsets; `None` if none does.
    pub(super) fn fitting(&self, values: &[Value]) -> Option<&'k Kernel> {
        let kernel = self.cheapest(values);
        self.cost(kernel, &self.node(values), &self.layer(values)).map(|_| kernel)
    }

    fn cost(&self, kernel: &Kernel, node: &Node<'_>, layer: &Layer<'_>) -> Option<Cost> {
        let fits = kernel.accept(node).is_ok() && !kernel.is_misplaced_view(node);
        (kernel.cost)(layer).filter(|_| fits)
    }

    /// A kernel's estimate of one run.
    pub(super) fn estimate(&self, kernel: &Kernel, values: &[Value]) -> Cost {
        (kernel.cost)(&self.layer(values)).unwrap_or(Cost::instructions(u64::MAX))
    }

    /// Packs the constants for a kernel.
    pub(super) fn pack(&self, kernel: &Kernel, values: &[Value]) -> Result<Packed, WriteError> {
        (kernel.pack)(&self.layer(values))
    }
}
