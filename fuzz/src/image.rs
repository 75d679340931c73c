//! Target `image`: the bytes of an image, then operations on its head. An accepted image runs, and answers every request.

use nano_core::image::{Image, is_label};
use nano_core::{Error, Model, ops};
use rustix::time::{ClockId, clock_gettime};

use crate::builder::{Aligned, place};
use crate::mutation::{self, Mutate, encode};
use crate::{boards, conversation, head, refusals};

/// Bytes of arena; an image that needs more is refused, as by a device.
const LARGEST_ARENA: usize = 1 << 15;
/// The largest number of multiplications and pixel reads of one run; images that need more are not run.
const MOST_WORK: u64 = 1 << 24;
/// The limit of loading, in nanoseconds of processor time: a constant, and per byte of the image. Generous, for a slow, instrumented host.
const LOADING: (u64, u64) = (50_000_000, 2_000);
/// Offsets of the entries in the header that say where a section lies.
const SECTIONS: [usize; 8] = [
    place::VALUES,
    place::NODES,
    place::INPUTS,
    place::OUTPUTS,
    place::HEAD,
    place::METADATA,
    place::LABEL_ORDER,
    place::CONSTANTS,
];

/// Loads the image, as it is and with a corrected checksum, and uses all of its interface.
///
/// # Panics
/// At a finding.
pub fn run(data: &[u8]) {
    let mut image = Aligned::new(data);
    if let Err(error) = Image::new(image.bytes()) {
        refusals::error(&error);
    }
    if data.len() >= place::HEADER_LENGTH {
        image.reseal();
    }
    if let Err(error) = exercise(&image) {
        assert!(!error.to_string().is_empty());
        refusals::error(&error);
    }
}

fn exercise(image: &Aligned) -> Result<(), Error> {
    let bytes = image.bytes();
    let view = Image::new(bytes)?;
    let mut arena = vec![0; view.arena_length().min(LARGEST_ARENA)];
    let start = processor_time();
    let model = Model::new(bytes, &mut arena, ops::ALL);
    let (taken, most) = (processor_time() - start, LOADING.0 + LOADING.1 * bytes.len() as u64);
    assert!(taken < most, "loading {} bytes took {taken} ns, more than {most}", bytes.len());
    let mut model = model?;

    for name in view.metadata("label") {
        assert!(is_label(name), "the label {name:?} was accepted");
    }
    let mut work = 0u64;
    for node in view.nodes() {
        let operator = node.kernel(ops::ALL).expect("Model::new knows the kernel").operator;
        let looks = if operator.name.ends_with("pool2d") { node.input(0).len() as u64 } else { 1 };
        work = work.saturating_add((operator.macs)(&node)).saturating_add(looks * node.output(0).len() as u64);
    }
    if work > MOST_WORK {
        return Ok(());
    }
    let mut random = fastrand::Rng::with_seed(view.id().into());
    for _ in 0..2 {
        for index in 0..view.input_count() {
            model.input(index).fill_with(|| random.i8(..));
        }
        let mut layers = 0;
        model.run_observed(|_, _, _| layers += 1);
        assert_eq!(layers, view.nodes().count());
        for index in 0..view.output_count() {
            assert_eq!(model.output(index).len(), view.output(index).range().len());
        }
    }
    if let Some(record) = view.head() {
        head::exercise(&view, record, &bytes[view.length()..])?;
    }
    conversation::every_request(image)
}

/// The processor time of this thread, in nanoseconds.
fn processor_time() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Images of every operator, every trainer and every limit, with and without scripts for their heads.
pub fn seeds() -> Vec<Vec<u8>> {
    let hostile = head::hostile_states().into_iter().map(|script| script.iter().flat_map(encode).collect());
    let scripts: Vec<Vec<u8>> = [vec![], pool().concat()].into_iter().chain(hostile).collect();
    let images = boards::images().into_iter();
    images.flat_map(|image| scripts.iter().map(|script| [image.bytes(), script].concat()).collect::<Vec<_>>()).collect()
}

fn pool() -> Vec<Vec<u8>> {
    head::operations().iter().map(encode).collect()
}

/// Mutates a section of the image and moves the others accordingly, or a step of the script, or any bytes.
pub fn mutate(data: &mut [u8], size: usize, capacity: usize, seed: u32, engine: Mutate<'_>) -> usize {
    let mut random = fastrand::Rng::with_seed(seed.into());
    let parts = if random.u8(..4) > 0 { Parts::of(&data[..size]) } else { None };
    let Some(mut parts) = parts else { return engine(data, size, capacity) };
    match random.u8(..10) {
        0 | 1 => parts.script = mutation::steps::<head::Operation>(&parts.script, &pool(), &mut random, engine),
        2 => parts.header = mutation::engine_mutation(&parts.header, 0, engine),
        3 => parts.change_words(&mut random),
        4 => parts.change_nodes(&mut random),
        _ => {
            let section = &mut parts.sections[random.usize(..SECTIONS.len())];
            *section = mutation::engine_mutation(section, 64, engine);
        }
    }
    mutation::replace(data, size, capacity, &parts.joined())
}

/// The sections of an image, which can change their lengths.
struct Parts {
    header: Vec<u8>,
    sections: [Vec<u8>; SECTIONS.len()],
    script: Vec<u8>,
}

impl Parts {
    fn of(data: &[u8]) -> Option<Parts> {
        let header = data.get(..place::HEADER_LENGTH)?;
        let word = |at: usize| Some(u32::from_le_bytes(header.get(at..at + 4)?.try_into().ok()?) as usize);
        let section = |at: usize| Some(data.get(word(at)?..)?.get(..word(at + 4)?)?.to_vec());
        let sections: Vec<_> = SECTIONS.into_iter().map(section).collect::<Option<_>>()?;
        Some(Parts {
            header: header.to_vec(),
            sections: sections.try_into().ok()?,
            script: data.get(word(place::LENGTH)?..)?.to_vec(),
        })
    }

    fn joined(&self) -> Vec<u8> {
        let mut data = self.header.clone();
        data.resize(place::HEADER_LENGTH, 0);
        for (section, at) in self.sections.iter().zip(SECTIONS) {
            data.resize(data.len().next_multiple_of(16), 0);
            let start = if section.is_empty() { 0 } else { data.len() as u32 };
            data.extend(section);
            data[at..at + 4].copy_from_slice(&start.to_le_bytes());
            data[at + 4..at + 8].copy_from_slice(&(section.len() as u32).to_le_bytes());
        }
        let length = data.len() as u32;
        data[place::LENGTH..place::LENGTH + 4].copy_from_slice(&length.to_le_bytes());
        data.extend(&self.script);
        data
    }

    /// Overwrites words of a table with other words of it, or with extreme numbers.
    fn change_words(&mut self, random: &mut fastrand::Rng) {
        const INTERESTING: [u32; 12] =
            [0, 1, 2, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0x0001_0000, 0x7fff_ffff, 0x8000_0000, u32::MAX];
        let section = &mut self.sections[random.usize(..SECTIONS.len())];
        let Some(place) = random.choice(0..section.len() / 4) else { return };
        let old = section[4 * place..][..4].try_into().map_or(0, u32::from_le_bytes);
        let new = match random.u8(..5) {
            0 => old.wrapping_add(1),
            1 => old.wrapping_sub(1),
            2 => {
                let other = random.usize(..section.len() / 4);
                section[4 * other..][..4].try_into().map_or(0, u32::from_le_bytes)
            }
            3 => old ^ 1 << random.u32(..32),
            _ => INTERESTING[random.usize(..INTERESTING.len())],
        };
        section[4 * place..][..4].copy_from_slice(&new.to_le_bytes());
    }

    /// Drops, repeats or swaps nodes, and the values that they write.
    fn change_nodes(&mut self, random: &mut fastrand::Rng) {
        let inputs = self.sections[2].len() / place::INPUT_LENGTH;
        let (values, nodes) = (self.sections[0].clone(), nodes(&self.sections[1]));
        let mut records: Vec<&[u8]> = values.chunks(place::VALUE_LENGTH).collect();
        let inputs = records.drain(..inputs.min(records.len())).collect::<Vec<_>>().concat();
        let mut written = |node: &[u8]| {
            let outputs = usize::from(node[place::NODE_OUTPUTS]).min(records.len());
            records.drain(..outputs).collect::<Vec<_>>().concat()
        };
        let mut layers: Vec<_> = nodes.into_iter().map(|node| (written(&node), node)).collect();
        let Some(index) = random.choice(0..layers.len()) else { return };
        let place = random.usize(..layers.len());
        match random.u8(..4) {
            0 => drop(layers.remove(index)),
            1 => layers.swap(index, place),
            _ => {
                let layer = layers[index].clone();
                layers.splice(place..place, std::iter::repeat_n(layer, 1 << random.u32(..8)));
            }
        }
        let (values, nodes): (Vec<_>, Vec<_>) = layers.into_iter().unzip();
        self.sections[1] = nodes.concat();
        self.sections[0] = [inputs, values.concat()].concat();
        self.part_constants();
    }

    /// Gives each node constants of its own, in their order, and the head's state the place after them.
    fn part_constants(&mut self) {
        let (old, mut new) = (self.sections[6].clone(), vec![]);
        let mut place = |entry: &mut [u8]| {
            let [start, length] = [0, 4].map(|at| entry[at..at + 4].try_into().map_or(0, u32::from_le_bytes) as usize);
            let Some(bytes) = old.get(start..).and_then(|rest| rest.get(..length)) else { return };
            new.resize(usize::next_multiple_of(new.len(), 16), 0);
            entry[..4].copy_from_slice(&(new.len() as u32).to_le_bytes());
            new.extend_from_slice(bytes);
        };
        let nodes = nodes(&self.sections[1]).into_iter().map(|mut node| {
            let constants = 2 * 4 * usize::from(u16::from_le_bytes([node[6], node[7]]));
            let first = node.len() - constants;
            node[first..].chunks_exact_mut(8).for_each(&mut place);
            node
        });
        let nodes = nodes.collect::<Vec<_>>().concat();
        if let Some((_, state)) = self.sections[3].split_last_chunk_mut::<8>() {
            place(state);
        }
        self.sections[1][..nodes.len()].copy_from_slice(&nodes);
        self.sections[6] = new;
    }
}

/// The records of nodes in a section: a header with the number of inputs, outputs and attributes (u8) and of constants (u16), then a word for
/// each input and attribute, and two for each constant.
fn nodes(section: &[u8]) -> Vec<Vec<u8>> {
    let (mut nodes, mut rest) = (vec![], section);
    while let Some(header) = rest.get(..place::NODE_HEADER) {
        let &[inputs, _, attributes, low, high] =
            header[place::NODE_INPUTS..].first_chunk().expect("a header is longer");
        let constants = u16::from_le_bytes([low, high]);
        let words = usize::from(inputs) + usize::from(attributes) + 2 * usize::from(constants);
        let Some((node, after)) = rest.split_at_checked(place::NODE_HEADER + 4 * words) else { break };
        nodes.push(node.to_vec());
        rest = after;
    }
    nodes
}
