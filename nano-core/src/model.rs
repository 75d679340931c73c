//! A model: a checked image, an arena, and the operators to run it with.

use crate::Error;
use crate::arena::{cut, overlap};
use crate::image::Image;
use crate::operator::Operator;

/// An image ready to run. Everything that could go wrong is checked by [`Model::new`]; after that [`Model::run`] cannot fail.
pub struct Model<'a> {
    image: Image<'a>,
    operators: &'a [Operator],
    arena: &'a mut [i8],
}

impl<'a> Model<'a> {
    /// Checks `bytes` once and binds it to an arena of at least [`Image::arena_length`] bytes.
    ///
    /// `operators` is the table of operators this program carries: [`ops::ALL`](crate::ops::ALL), or the shorter table that an export writes
    /// beside the image so that the linker drops the rest.
    ///
    /// # Errors
    /// Everything [`Image::new`] refuses, an operator that is not in the table, a layer that breaks a rule of its operator (shape,
    /// attribute, constant, accumulator bound), values that overlap while both are needed, and an arena that is too small.
    ///
    /// ```
    /// use nano_core::{Error, Model, ops};
    /// let mut arena = [0i8; 16];
    /// assert_eq!(Model::new(b"not an image", &mut arena, ops::ALL).err(), Some(Error::NotAnImage));
    /// ```
    pub fn new(bytes: &'a [u8], arena: &'a mut [i8], operators: &'a [Operator]) -> Result<Self, Error> {
        let image = Image::new(bytes)?;
        if arena.len() < image.arena_length() {
            return Err(Error::ArenaTooSmall { needed: image.arena_length(), given: arena.len() });
        }
        for (index, node) in image.nodes().enumerate() {
            let operator =
                node.operator(operators).ok_or(Error::UnknownOperator { node: index, code: node.header.operator })?;
            (operator.check)(&node)?;
        }
        check_order(&image)?;
        check_overlaps(&image)?;
        Ok(Model { image, operators, arena })
    }

    /// The checked image.
    pub fn image(&self) -> &Image<'a> {
        &self.image
    }

    /// The memory of graph input `index`, to be filled before [`Model::run`]. A run may overwrite it.
    ///
    /// # Panics
    /// If there is no such input.
    pub fn input(&mut self, index: usize) -> &mut [i8] {
        &mut self.arena[self.image.input(index).range()]
    }

    /// Graph output `index`, as the last run left it.
    ///
    /// # Panics
    /// If there is no such output.
    pub fn output(&self, index: usize) -> &[i8] {
        &self.arena[self.image.output(index).range()]
    }

    /// Runs all nodes.
    pub fn run(&mut self) {
        self.run_observed(|_, _| {});
    }

    /// Runs all nodes; `after(index, output bytes)` is called behind each, to time, trace or compare layers.
    pub fn run_observed(&mut self, mut after: impl FnMut(usize, &[i8])) {
        let mut rest = self.image.node_records();
        let mut index = 0;
        while let Some(output) = self.run_next(&mut rest) {
            after(index, output);
            index += 1;
        }
    }

    /// Runs the first node of `rest`; returns its output.
    // Not inlined: registers are free here, and taken where the caller counts, sends or compares.
    #[inline(never)]
    fn run_next(&mut self, rest: &mut &'a [u32]) -> Option<&[i8]> {
        let node = self.image.take_node(rest)?;
        let Some(operator) = node.operator(self.operators) else {
            unreachable!("Model::new has looked up every operator")
        };
        let mut io = cut(self.arena, &node);
        (operator.run)(&node, &mut io);
        Some(io.output)
    }
}

/// Every value has one writer, which comes before its readers; every graph output has one.
fn check_order(image: &Image<'_>) -> Result<(), Error> {
    let (graph_inputs, graph_outputs) = image.interface();
    let writer = |id: usize| image.nodes().position(|node| node.output_id() == id);
    let written_before = |id: usize, index: usize| {
        graph_inputs.contains(&(id as u32)) || writer(id).is_some_and(|writer| writer < index)
    };
    let mut count = 0;
    for (index, node) in image.nodes().enumerate() {
        let output = node.output_id();
        if graph_inputs.contains(&(output as u32)) || writer(output) != Some(index) {
            return Err(Error::Order { node: index, value: output });
        }
        if let Some(&id) = node.ids.iter().find(|&&id| !written_before(id as usize, index)) {
            return Err(Error::Order { node: index, value: id as usize });
        }
        count = index + 1;
    }
    match graph_outputs.iter().find(|&&id| !written_before(id as usize, count)) {
        Some(&id) => Err(Error::Order { node: count, value: id as usize }),
        None => Ok(()),
    }
}

/// What a node writes (output, scratch) overlaps no value that is still needed at that node or behind it.
fn check_overlaps(image: &Image<'_>) -> Result<(), Error> {
    let (graph_inputs, graph_outputs) = image.interface();
    for (position, &id) in graph_inputs.iter().enumerate() {
        let range = image.values()[id as usize].range();
        let mut before = graph_inputs[..position].iter();
        if let Some(&other) = before.find(|&&other| overlap(&image.values()[other as usize].range(), &range)) {
            return Err(Error::Overlap { node: 0, value: other as usize });
        }
    }
    for (index, node) in image.nodes().enumerate() {
        let (output, scratch) = (node.output.range(), node.header.scratch());
        if overlap(&output, &scratch) {
            return Err(Error::Overlap { node: index, value: node.output_id() });
        }
        for (id, value) in image.values().iter().enumerate() {
            if id == node.output_id() || !(overlap(&value.range(), &output) || overlap(&value.range(), &scratch)) {
                continue;
            }
            let written = graph_inputs.contains(&(id as u32))
                || image.nodes().take(index).any(|earlier| earlier.output_id() == id);
            let needed = graph_outputs.contains(&(id as u32))
                || image.nodes().skip(index).any(|later| later.ids.contains(&(id as u32)));
            if written && needed {
                return Err(Error::Overlap { node: index, value: id });
            }
        }
    }
    Ok(())
}
