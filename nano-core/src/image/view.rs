//! The checked, zero-copy view of an image.

use core::mem::size_of;
use core::ops::Range;

use zerocopy::{FromBytes, IntoBytes};

use super::checksum::checksum;
use super::{
    CHECKED_FROM, CONSTANT_ALIGNMENT, ChannelScale, Dtype, HeadRecord, Header, MAGIC, NodeHeader, Section, VERSION,
    Value, metadata,
};
use crate::operator::CheckedPart;
use crate::train::{HeadSizes, Rejection};
use crate::{Error, Node};

/// An image whose checksum, sections, records and names have been checked. What the nodes mean is checked by
/// [`CheckedImage::new`](crate::CheckedImage::new), which knows the kernels.
#[derive(Clone, Copy)]
pub struct Image<'a> {
    header: &'a Header,
    values: &'a [Value],
    /// The values after the inputs.
    node_outputs: &'a [Value],
    nodes: &'a [u32],
    inputs: &'a [Section],
    outputs: &'a [u32],
    head: Option<&'a HeadRecord>,
    metadata: &'a str,
    /// The sections of constants: those that stay in flash; and those that are copied to RAM, of a bound image the copy.
    constants: [&'a [u8]; 2],
}

impl<'a> Image<'a> {
    /// The image at the start of `bytes`; bytes after it are ignored, so that a whole flash partition can be given.
    ///
    /// # Errors
    /// [`Error::NotAnImage`], [`Error::Version`], [`Error::Truncated`], [`Error::Misaligned`], [`Error::Checksum`], or
    /// [`Error::Field`] with the first field that breaks the format.
    ///
    /// ```
    /// use nano_core::{Error, image::Image};
    /// assert_eq!(Image::new(b"GIF8").err(), Some(Error::NotAnImage));
    /// ```
    pub fn new(bytes: &'a [u8]) -> Result<Self, Error> {
        if bytes.get(..4) != Some(&MAGIC) {
            return Err(Error::NotAnImage);
        }
        if !bytes.as_ptr().addr().is_multiple_of(4) {
            return Err(Error::Misaligned);
        }
        let truncated = |needed| Error::Truncated { offset: 0, needed, given: bytes.len() };
        let (header, _) = Header::ref_from_prefix(bytes).map_err(|_| truncated(size_of::<Header>()))?;
        if header.version != VERSION {
            return Err(Error::Version { found: header.version, expected: VERSION });
        }
        if usize::from(header.header_length) != size_of::<Header>() {
            return Err(Error::Field { name: "header length", value: header.header_length.into() });
        }
        let length = header.length as usize;
        if length < size_of::<Header>() {
            return Err(Error::Field { name: "length", value: header.length.into() });
        }
        let bytes = bytes.get(..length).ok_or(truncated(length))?;
        let (words, rest) = <[u32]>::ref_from_prefix(&bytes[CHECKED_FROM..]).map_err(|_| Error::Misaligned)?;
        let computed = checksum(words, rest);
        if computed != header.checksum {
            return Err(Error::Checksum { stored: header.checksum, computed });
        }
        let values: &[Value] = table(bytes, header.values)?;
        let inputs: &[Section] = table(bytes, header.inputs)?;
        let node_outputs = values.get(inputs.len()..).filter(|_| !inputs.is_empty());
        let image = Image {
            header,
            values,
            node_outputs: node_outputs.ok_or(Error::Field { name: "number of inputs", value: inputs.len() as i64 })?,
            nodes: table(bytes, header.nodes)?,
            inputs,
            outputs: table(bytes, header.outputs)?,
            head: table::<HeadRecord>(bytes, header.head)?.first(),
            metadata: core::str::from_utf8(section(bytes, header.metadata)?)
                .map_err(|error| Error::Field { name: "metadata (not UTF-8 at)", value: error.valid_up_to() as i64 })?,
            constants: [section(bytes, header.constants)?, section(bytes, header.constants_in_ram)?],
        };
        image.check(table(bytes, header.label_order)?)?;
        Ok(image)
    }

    fn check(&self, label_order: &[u32]) -> Result<(), Error> {
        let field = |name, value: usize| Err(Error::Field { name, value: value as i64 });
        let arena = u64::from(self.header.arena_length);
        if arena + self.constants_in_ram() as u64 + CONSTANT_ALIGNMENT as u64 > i32::MAX as u64 {
            return field("arena length", self.header.arena_length as usize);
        }
        for value in self.values {
            value.check()?;
            if value.end() > arena {
                return field("value offset", value.offset as usize);
            }
        }
        self.check_inputs()?;
        let node_count = self.check_nodes()?;
        if let Some(value) = self.values.iter().find(|value| value.last_use as usize > node_count) {
            return field("value last use", value.last_use as usize);
        }
        if let Some(id) = self.outputs.iter().find(|&&id| id as usize >= self.values.len()) {
            return field("output value id", *id as usize);
        }
        if let Some((_, output)) = self.outputs().find(|(_, output)| !output.is_dense()) {
            return field("pitch of a graph's output", output.pitch as usize);
        }
        let Some((_, output)) = self.outputs().next() else { return field("number of outputs", 0) };
        let mut classes = output.most_classes();
        if let Some(head) = self.head {
            if self.part_in_flash(head.state_offset, head.state_length).is_none() {
                return field("head state offset", head.state_offset as usize);
            }
            if head.features as usize != output.len() {
                return field("head features", head.features as usize);
            }
            if !output.is_of(Dtype::Int8) {
                return field("bytes of a head's feature", output.dtype().size());
            }
            HeadSizes::of(head).check()?;
            Rejection::check(head)?;
            if self.part_in_flash(head.centres_offset, head.centres_length).is_none() {
                return field("head centres offset", head.centres_offset as usize);
            }
            classes = head.classes as usize;
        }
        metadata::check(self.metadata, [self.inputs.len(), self.outputs.len()], label_order, classes)
    }

    fn check_inputs(&self) -> Result<(), Error> {
        let field = |name, value: usize| Err(Error::Field { name, value: value as i64 });
        for (index, (value, &place)) in self.values.iter().zip(self.inputs).enumerate() {
            if value.is_state() {
                return field("place of a graph's input", index);
            }
            if !value.is_dense() {
                return field("pitch of a graph's input", value.pitch as usize);
            }
            let Ok(channels) = table::<ChannelScale>(self.in_flash(), place) else {
                return field("channel scales of a graph's input", index);
            };
            let complete = channels.is_empty() || channels.len() == value.shape[2] as usize;
            if !complete || !channels.iter().all(ChannelScale::is_valid) {
                return field("channel scales of a graph's input", index);
            }
        }
        Ok(())
    }

    /// Checks the nodes' records; returns the number of nodes.
    fn check_nodes(&self) -> Result<usize, Error> {
        let field = |name, value: usize| Err(Error::Field { name, value: value as i64 });
        let mut nodes = self.nodes();
        let mut count = 0;
        while !nodes.cursor.outputs.is_empty() {
            let whole = |node: &Node<'_>| node.inputs.iter().all(|&id| (id as usize) < self.values.len());
            let Some(node) = nodes.next().filter(whole) else {
                return field("node section (too short, or a value id is too large: node)", count);
            };
            let end = u64::from(node.header.scratch_offset) + u64::from(node.header.scratch_length);
            if end > u64::from(self.header.arena_length) {
                return field("scratch offset", node.header.scratch_offset as usize);
            }
            if node.header.constants_in_ram > 1 {
                return field("memory of a node's constants", node.header.constants_in_ram.into());
            }
            count += 1;
        }
        if !nodes.cursor.rest.is_empty() {
            return field("node section length", size_of_val(self.nodes));
        }
        Ok(count)
    }

    /// Bytes of the image.
    pub fn length(&self) -> usize {
        self.header.length as usize
    }

    /// Bytes of arena one run needs: values and scratch memory, then the copies of constants ([`Image::constants_in_ram`]).
    pub fn arena_length(&self) -> usize {
        // The arena may start anywhere, the constants not.
        let padding = if self.constants_in_ram() == 0 { 0 } else { CONSTANT_ALIGNMENT - 1 };
        self.values_length() + padding + self.constants_in_ram()
    }

    /// Bytes of constants that are copied to RAM.
    pub fn constants_in_ram(&self) -> usize {
        self.constants[1].len()
    }

    /// The constants that stay in flash.
    fn in_flash(&self) -> &'a [u8] {
        self.constants[0]
    }

    /// Bytes of values and scratch memory, at the start of the arena.
    pub(crate) fn values_length(&self) -> usize {
        self.header.arena_length as usize
    }

    /// The image with its constants in RAM read from there: `ram` is what follows the values in an arena of [`Image::arena_length`].
    pub(crate) fn with_constants_in(&self, ram: &'a mut [i8]) -> Self {
        let [in_flash, original] = self.constants;
        if original.is_empty() {
            return *self;
        }
        let ram = ram.as_mut_bytes();
        let start = ram.as_ptr().align_offset(CONSTANT_ALIGNMENT);
        let copy = ram.get_mut(start..start.saturating_add(original.len())).checked_part();
        if copy.len() == original.len() {
            copy.copy_from_slice(original);
        }
        Image { constants: [in_flash, copy], ..*self }
    }

    /// The model's identity: the checksum of the image. Heads are bound to it.
    pub fn id(&self) -> u32 {
        self.header.checksum
    }

    /// All values, by id.
    pub fn values(&self) -> &'a [Value] {
        self.values
    }

    /// Number of graph inputs.
    pub fn input_count(&self) -> usize {
        self.inputs.len()
    }

    /// The scale and offset of each channel of graph input `index`, if they differ between channels or the offset is not 0; empty if the
    /// value's own scale and zero point hold for all.
    ///
    /// # Panics
    /// If there is no such input.
    pub fn input_channels(&self, index: usize) -> &'a [ChannelScale] {
        // `check` has found them inside.
        table(self.in_flash(), *existing(self.inputs.get(index))).ok().checked_part()
    }

    /// Number of graph outputs.
    pub fn output_count(&self) -> usize {
        self.outputs.len()
    }

    /// Number of nodes.
    pub fn node_count(&self) -> usize {
        self.nodes().count()
    }

    /// Ids of the graph's outputs, and the values.
    pub(crate) fn outputs(&self) -> impl Iterator<Item = (&'a u32, &'a Value)> {
        self.outputs.iter().filter_map(|id| Some((id, self.values.get(*id as usize)?)))
    }

    /// Value id of graph output `index`.
    ///
    /// # Panics
    /// If there is no such output.
    pub fn output_id(&self, index: usize) -> usize {
        *existing(self.outputs.get(index)) as usize
    }

    /// Graph input `index`, which is value `index`.
    ///
    /// # Panics
    /// If there is no such input.
    pub fn input(&self, index: usize) -> &'a Value {
        existing(self.values.get(..self.input_count()).and_then(|inputs| inputs.get(index)))
    }

    /// Graph output `index`.
    ///
    /// # Panics
    /// If there is no such output.
    pub fn output(&self, index: usize) -> &'a Value {
        existing(self.values.get(self.output_id(index)))
    }

    /// The trainable head, if the model has one.
    pub fn head(&self) -> Option<&'a HeadRecord> {
        self.head
    }

    /// The head's initial state.
    pub(crate) fn head_state(&self, head: &HeadRecord) -> &'a [u8] {
        // `check` has found it inside.
        self.part_in_flash(head.state_offset, head.state_length).checked_part()
    }

    /// The class means of known inputs' features.
    pub(crate) fn head_centres(&self, head: &HeadRecord) -> &'a [i8] {
        let centres = self.part_in_flash(head.centres_offset, head.centres_length).checked_part();
        zerocopy::transmute_ref!(centres)
    }

    fn part_in_flash(&self, offset: u32, length: u32) -> Option<&'a [u8]> {
        self.in_flash().get(offset as usize..)?.get(..length as usize)
    }

    /// The metadata line values stored under `key`, in order: `name`, `input`, `output`, `label`.
    pub fn metadata(&self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.metadata.lines().filter_map(move |line| line.strip_prefix(key)?.strip_prefix('='))
    }

    /// The nodes in order of execution.
    pub fn nodes(&self) -> Nodes<'a> {
        Nodes { image: *self, cursor: self.first_node() }
    }

    /// The node that writes value `id`; none for a graph input.
    pub fn writer(&self, id: usize) -> Option<Node<'a>> {
        let value = self.values.get(id)?;
        self.nodes().find(|node| node.outputs.iter().any(|output| core::ptr::eq(output, value)))
    }

    /// The position before the first node.
    pub(crate) fn first_node(&self) -> Cursor<'a> {
        Cursor { rest: self.nodes, outputs: self.node_outputs }
    }

    /// Takes the node at the cursor.
    #[inline(always)]
    pub(crate) fn take_node(&self, cursor: &mut Cursor<'a>) -> Option<Node<'a>> {
        let (header, tail) = cursor.rest.split_first_chunk::<{ size_of::<NodeHeader>() / 4 }>()?;
        let header: &NodeHeader = zerocopy::transmute_ref!(header);
        let (inputs, attributes) = (usize::from(header.input_count), usize::from(header.attribute_count));
        let (record, tail) = tail.split_at_checked(inputs + attributes + 2 * usize::from(header.constant_count))?;
        let (inputs, record) = record.split_at_checked(inputs)?;
        let (attributes, constants) = record.split_at_checked(attributes)?;
        let (outputs, others) = cursor.outputs.split_at_checked(usize::from(header.output_count))?;
        *cursor = Cursor { rest: tail, outputs: others };
        let [mut constants_section, in_ram] = self.constants;
        if header.constants_in_ram != 0 {
            // Out of the way of the others: two instructions per node instead of ten.
            cold_path();
            constants_section = in_ram;
        }
        Some(Node {
            header,
            inputs,
            values: self.values,
            outputs,
            attributes: zerocopy::transmute_ref!(attributes),
            constants: constants.as_chunks().0,
            constants_section,
        })
    }
}

/// A position between an image's nodes.
#[derive(Clone)]
pub(crate) struct Cursor<'a> {
    /// The records of the nodes that follow.
    rest: &'a [u32],
    /// The values that they write.
    outputs: &'a [Value],
}

impl<'a> Cursor<'a> {
    /// The values written by the nodes between an earlier position and this one.
    #[inline(always)]
    pub(crate) fn outputs_since(&self, earlier: &Cursor<'a>) -> &'a [Value] {
        let count = earlier.outputs.len().wrapping_sub(self.outputs.len());
        earlier.outputs.get(..count).checked_part()
    }
}

/// Iterator over an image's nodes, in order of execution.
#[derive(Clone)]
pub struct Nodes<'a> {
    image: Image<'a>,
    cursor: Cursor<'a>,
}

impl<'a> Iterator for Nodes<'a> {
    type Item = Node<'a>;

    #[inline(never)]
    fn next(&mut self) -> Option<Node<'a>> {
        self.image.take_node(&mut self.cursor)
    }
}

/// An item that exists if the caller keeps to the counts.
fn existing<T>(found: Option<&T>) -> &T {
    found.expect("the graph has as many inputs and outputs as it says")
}

/// Marks the path that calls it as rarely taken. The standard library's needs a newer Rust than this crate.
#[cold]
fn cold_path() {}

fn section(bytes: &[u8], section: Section) -> Result<&[u8], Error> {
    let Range { start, end } =
        section.offset as usize..(section.offset as usize).saturating_add(section.length as usize);
    bytes.get(start..end).ok_or(Error::Truncated { offset: start, needed: section.length as usize, given: bytes.len() })
}

fn table<T: FromBytes + zerocopy::Immutable>(bytes: &[u8], place: Section) -> Result<&[T], Error> {
    let malformed = Error::Field { name: "section offset or length", value: place.offset.into() };
    <[T]>::ref_from_bytes(section(bytes, place)?).map_err(|_| malformed)
}
