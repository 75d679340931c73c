//! Random memory plans: values that overlap, follow each other in one place, or lie between each other's pixels. Loading accepts every valid plan,
//! and an accepted plan has the outputs of the plan in which each value has its own memory.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use nano_core::image::{Image, Value, ValueDescription};
use nano_core::{Alias, CheckedImage, Error, Node, Run};

use crate::builder::{Aligned, Builder, SCALE, Window, place};
use crate::part::{COPY, KERNELS, VIEW};

/// Bytes of the arena of the random plans.
const ARENA: usize = 600;
/// Bytes from one pixel to the next of values that have others between their pixels.
const PITCH: usize = 11;

/// Some layers, each on values made before it. Kernels of most of them read and write values of any pitch.
fn random_net(random: &mut fastrand::Rng) -> Builder {
    let mut net = Builder::new(random.u64(..));
    net.model.labels.clear();
    let shape = [random.u32(1..4), random.u32(1..4), random.u32(1..6)];
    let mut ids: Vec<usize> = (0..random.usize(1..3)).map(|_| net.input(shape)).collect();
    for _ in 0..random.usize(2..8) {
        let &input = random.choice(&ids).unwrap();
        let shape = net.value(input).shape;
        let padded = Window { padding: [1; 4], ..Window::new([3, 3]) };
        let random_window = if random.bool() { padded } else { Window::new([1, 1]) };
        let channels = random.u32(1..6);
        ids.push(match random.u8(..21) {
            0 | 1 => net.conv2d(input, channels, 1, padded),
            2 | 3 => net.conv2d(input, channels, 1, Window::new([1, 1])),
            4 => net.depthwise_conv2d(input, padded),
            5 => net.depthwise_conv2d(input, Window { padding: [0, 0, 1, 0], ..Window::new([1, 2]) }),
            6 => {
                let pooled = net.max_pool2d(input, Window { padding: [1, 0, 0, 0], ..Window::new([2, 1]) });
                let ValueDescription { scale, zero_point, .. } = *net.value(input);
                (net.value(pooled).scale, net.value(pooled).zero_point) = (scale, zero_point);
                pooled
            }
            7 => net.table(input),
            8 => {
                let mut fits = |&id: &usize| {
                    let other = net.value(id).shape;
                    (0..3).all(|axis| shape[axis] == other[axis] || shape[axis] == 1 || other[axis] == 1)
                };
                let others: Vec<usize> = ids.iter().copied().filter(&mut fits).collect();
                net.add(input, *random.choice(&others).unwrap(), 2.0 * SCALE)
            }
            9 => net.softmax(input),
            // Fused with the convolution, if nothing else reads its output or needs the other input.
            10..14 => {
                let &residual = random.choice(&ids).unwrap();
                let [height, width, channels] = net.value(residual).shape;
                let same = ids.iter().copied().filter(|&id| net.value(id).shape[..2] == [height, width]);
                let input = *random.choice(&same.collect::<Vec<_>>()).unwrap();
                let convolved = net.conv2d(input, channels, 1, random_window);
                net.add(residual, convolved, 2.0 * SCALE)
            }
            14..18 => {
                let axis = random.usize(..3);
                let key = |value: &ValueDescription| {
                    let [height, width, channels] = value.shape;
                    let beside = [[width, channels], [height, channels], [height, width]][axis];
                    (beside, value.scale.to_bits(), value.zero_point)
                };
                let of_input = key(net.value(input));
                let alike: Vec<usize> = ids.iter().copied().filter(|&id| key(net.value(id)) == of_input).collect();
                let count = random.usize(1..4);
                let mut inputs: Vec<usize> = (0..count).map(|_| *random.choice(&alike).unwrap()).collect();
                let sizes = [24 / shape[1], 24 / shape[0], 15].map(|size| size.max(1));
                while inputs.iter().map(|&id| net.value(id).shape[axis]).sum::<u32>() > sizes[axis] && inputs.len() > 1
                {
                    inputs.pop();
                }
                net.concat(&inputs, axis)
            }
            _ => {
                let start = random.u32(..shape[2]);
                let mut part = *net.value(input);
                part.shape[2] = random.u32(1..=shape[2] - start);
                net.layer("part", &[input], part, [("start", start.into())], [])
            }
        });
    }
    net.output(*ids.last().unwrap());
    if random.bool() {
        net.output(*random.choice(&ids).unwrap());
    }
    net
}

fn value_word(image: &Aligned, id: usize, offset: usize) -> usize {
    image.word(place::VALUES) as usize + id * place::VALUE_LENGTH + offset
}

/// Offset of the record of each node.
pub fn records(image: &Aligned) -> Vec<usize> {
    let count = Image::new(image.bytes()).unwrap().node_count();
    let mut start = image.word(place::NODES) as usize;
    let mut records = vec![];
    for _ in 0..count {
        records.push(start);
        let byte = |offset: usize| usize::from(image.bytes()[start + offset]);
        let words = byte(place::NODE_INPUTS) + byte(place::NODE_ATTRIBUTES) + 2 * byte(place::NODE_CONSTANTS);
        start += place::NODE_HEADER + 4 * words;
    }
    records
}

/// Where a value or scratch memory lies.
#[derive(Clone, Copy, Debug)]
struct Place {
    offset: usize,
    pitch: usize,
    /// Pixels, and channels of each.
    count: usize,
    channels: usize,
}

impl Place {
    fn bytes(&self) -> HashSet<usize> {
        let pixel = |index: usize| self.offset + index * self.pitch..self.offset + index * self.pitch + self.channels;
        (0..self.count).flat_map(pixel).collect()
    }

    fn span(&self) -> Range<usize> {
        self.offset..self.offset + (self.count - 1) * self.pitch + self.channels
    }

    fn is_dense(&self) -> bool {
        self.pitch == self.channels || self.count == 1
    }

    /// Whether the two share a byte. At two different pitches what lies between the pixels counts, as in the check.
    fn overlaps(&self, other: &Place) -> bool {
        if !self.is_dense() && !other.is_dense() && self.pitch != other.pitch {
            return self.spans_overlap(other);
        }
        !self.bytes().is_disjoint(&other.bytes())
    }

    fn spans_overlap(&self, other: &Place) -> bool {
        self.span().start < other.span().end && other.span().start < self.span().end
    }
}

/// Properties of the plans so far.
#[derive(Default, Debug)]
struct Found {
    accepted: usize,
    in_place: usize,
    views: usize,
    over: usize,
    in_parts: usize,
    interleaved: usize,
    refused: usize,
}

/// A plan of an image's memory under construction.
struct Plan<'r> {
    random: &'r mut fastrand::Rng,
    /// For each value planned so far, its place and the last node that needs it.
    values: Vec<(Place, usize)>,
    /// For concatenations whose inputs were placed in their output before it is planned: its id, its place, and the last node that needs it.
    reserved: Vec<(usize, Place, usize)>,
    found: Found,
    /// A place was taken at random.
    wild: bool,
}

impl Plan<'_> {
    /// The values that are needed at `node` or after it.
    fn alive(&self, node: usize) -> impl Iterator<Item = usize> {
        (0..self.values.len()).filter(move |&id| self.values[id].1 >= node)
    }

    /// A place for value `id` in the output of a concatenation that reads it later, which gets its own place now.
    fn find_part(&mut self, id: usize, node: usize, view: &Image<'_>, last_uses: &[usize]) -> Option<Place> {
        let (index, concat) = view.nodes().enumerate().find(|(_, node)| {
            node.kernel(KERNELS).unwrap().operator.name == "concat" && node.input_ids().contains(&(id as u32))
        })?;
        let output = view.input_count() + index;
        let place = match self.reserved.iter().find(|reserved| reserved.0 == output) {
            Some(&(_, place, _)) => place,
            None => {
                let channels = concat.output(0).shape[2] as usize;
                let pitch = if is_pitched(view, output) && self.random.bool() { PITCH.max(channels) } else { channels };
                let place = self.find(size_of(concat.output(0), pitch), node, &[]);
                self.reserved.push((output, place, last_uses[output].max(index)));
                place
            }
        };
        let position = concat.input_ids().iter().position(|&input| input as usize == id)?;
        // It can have another pitch than the whole, at which overlaps are not exact.
        let is_free = |part: &Place| {
            let is_inside = |other: &Place| part.bytes().is_subset(&other.bytes());
            self.reserved.iter().all(|(_, other, _)| is_inside(other) || !part.overlaps(other))
        };
        // If one input has no such part, the whole output is written.
        let parts: Option<Vec<Place>> = (0..concat.input_ids().len()).map(|at| part_of(&concat, at, place)).collect();
        let part = parts.map(|parts| parts[position]).filter(|part| part.is_dense() || is_pitched(view, id));
        part.filter(is_free)
    }

    /// A free place of this size while `node` runs; sometimes a random one.
    ///
    /// Values of `own` are in the way with what lies between their pixels, too.
    fn find(&mut self, size: Place, node: usize, own: &[usize]) -> Place {
        let alive: Vec<usize> = self.alive(node).collect();
        let pitched: Vec<Place> =
            alive.iter().map(|&id| self.values[id].0).filter(|other| other.pitch > other.channels).collect();
        for _ in 0..200 {
            let offset = match self.random.choice(&pitched) {
                // Between the pixels of another.
                Some(other) if self.random.bool() => {
                    other.offset + self.random.usize(..other.count) * other.pitch + self.random.usize(..other.pitch)
                }
                _ => self.random.usize(..ARENA),
            };
            let place = Place { offset, ..size };
            let in_the_way = |&&id: &&usize| {
                let other = &self.values[id].0;
                if own.contains(&id) { place.spans_overlap(other) } else { place.overlaps(other) }
            };
            let reserved = self.reserved.iter().any(|(_, other, last)| *last >= node && place.overlaps(other));
            if place.span().end <= ARENA && alive.iter().find(in_the_way).is_none() && !reserved {
                let between = |&id: &usize| place.spans_overlap(&self.values[id].0);
                self.found.interleaved += usize::from(alive.iter().any(between));
                return place;
            }
        }
        self.wild = true;
        Place { offset: self.random.usize(..ARENA.saturating_sub(size.span().len())), ..size }
    }
}

/// Where the output of the tests' own operator is in its input.
fn place_of_part(node: &Node<'_>, values: &[(Place, usize)]) -> Option<Place> {
    (node.kernel(KERNELS).unwrap().operator.name == "part").then(|| {
        let input = values[node.input_ids()[0] as usize].0;
        let offset = input.offset + node.attributes()[0] as usize;
        Place { offset, pitch: input.pitch, ..size_of(node.output(0), 0) }
    })
}

fn size_of(value: &Value, pitch: usize) -> Place {
    let [height, width, channels] = value.shape.map(|side| side as usize);
    Place { offset: 0, pitch, count: height * width, channels }
}

fn kernel_is_elementwise(node: &Node<'_>) -> bool {
    let kernel = node.kernel(KERNELS).unwrap();
    matches!((kernel.run, kernel.operator.alias), (Run::InPlace(_), Alias::Elementwise))
}

fn runs_over(node: &Node<'_>) -> bool {
    matches!(node.kernel(KERNELS).unwrap().run, Run::Over(_))
}

/// Ids of values that lie where a residual does, and of those residuals.
fn over(view: &Image<'_>) -> impl Iterator<Item = (usize, usize)> {
    let ids = view.input_count()..;
    let written = ids.zip(view.nodes()).filter(|(_, node)| runs_over(node));
    written.map(|(id, node)| (id, *node.input_ids().last().unwrap() as usize))
}

/// Whether all nodes that write and read a value support any pitch, and so do those of the sums in its place.
fn is_pitched(view: &Image<'_>, id: usize) -> bool {
    let of_kernel = |node: Node<'_>| node.kernel(KERNELS).unwrap().pitched;
    let over: HashMap<usize, usize> = over(view).map(|(sum, residual)| (residual, sum)).collect();
    std::iter::successors(Some(id), |id| over.get(id).copied()).all(|id| {
        let is_output = (0..view.output_count()).any(|index| view.output_id(index) == id);
        let mut users = view.nodes().filter(|node| node.input_ids().contains(&(id as u32)));
        view.writer(id).is_some_and(of_kernel) && users.all(of_kernel) && !is_output
    })
}

/// Where in a concatenation's output an input belongs, if its pixels have one pitch there.
fn part_of(concat: &Node<'_>, position: usize, output: Place) -> Option<Place> {
    let axis = concat.attributes()[0] as usize;
    let mut start = [0; 3];
    start[axis] = concat.inputs().take(position).map(|input| input.shape[axis] as usize).sum();
    let [height, width, channels] = concat.input(position).shape.map(|size| size as usize);
    let of_row = concat.output(0).shape[1] as usize;
    let address = |index: usize| {
        let (row, column) = (index / width + start[0], index % width + start[1]);
        output.offset + (row * of_row + column) * output.pitch + start[2]
    };
    let count = height * width;
    let pitch = if count == 1 { channels } else { address(1) - address(0) };
    let place = Place { offset: address(0), pitch, count, channels };
    (0..count).all(|index| address(index) == place.offset + index * pitch).then_some(place)
}

/// Gives each value and each node's scratch memory a random place.
fn replan(image: &mut Aligned, random: &mut fastrand::Rng) -> (Found, bool) {
    let original = image.clone();
    let view = Image::new(original.bytes()).unwrap();
    let last_uses: Vec<usize> =
        (0..view.values().len()).map(|id| image.word(value_word(image, id, place::VALUE_LAST_USE)) as usize).collect();
    let mut plan = Plan { random, values: vec![], reserved: vec![], found: Found::default(), wild: false };
    let (mut scratch_offsets, mut views) = (vec![], vec![]);
    for (value, &last_use) in view.values().iter().zip(&last_uses).take(view.input_count()) {
        let id = plan.values.len();
        let part = if plan.random.bool() { plan.find_part(id, 0, &view, &last_uses) } else { None };
        plan.found.in_parts += usize::from(part.is_some());
        let place = part.unwrap_or_else(|| plan.find(size_of(value, value.shape[2] as usize), 0, &[]));
        plan.values.push((place, last_use));
    }
    for (index, node) in view.nodes().enumerate() {
        let id = plan.values.len();
        let value = node.output(0);
        let channels = value.shape[2] as usize;
        let pitch = if is_pitched(&view, id) && plan.random.u8(..4) > 0 { PITCH.max(channels) } else { channels };
        let inputs: Vec<usize> = node.input_ids().iter().map(|&id| id as usize).collect();
        let takes = inputs.iter().copied().find(|&input| {
            let is_alike = view.values()[input].shape == value.shape;
            let may_be_pitched = is_pitched(&view, id) || plan.values[input].0.pitch == channels;
            kernel_is_elementwise(&node) && last_uses[input] == index && is_alike && may_be_pitched
        });
        let part = place_of_part(&node, &plan.values).filter(|place| place.is_dense() || is_pitched(&view, id));
        let residual = runs_over(&node).then(|| inputs[inputs.len() - 1]);
        let own = if kernel_is_elementwise(&node) { vec![] } else { inputs };
        let mut is_view = false;
        let in_output = if plan.random.u8(..3) > 0 { plan.find_part(id, index, &view, &last_uses) } else { None };
        let in_output = in_output.filter(|place| {
            let apart = own.iter().all(|&input| !place.spans_overlap(&plan.values[input].0));
            // It can have another pitch than the whole, at which overlaps are not exact.
            apart && plan.alive(index).all(|id| !place.overlaps(&plan.values[id].0))
        });
        let reserved = plan.reserved.iter().position(|reserved| reserved.0 == id);
        let reserved = reserved.map(|index| plan.reserved.swap_remove(index).1);
        let place = match (takes, part) {
            _ if residual.is_some() => {
                plan.found.over += 1;
                let (taken, others) = (residual.unwrap(), plan.alive(index).filter(|&id| Some(id) != residual));
                let taken = plan.values[taken].0;
                let in_the_way = |id: usize| {
                    let other = &plan.values[id].0;
                    if own.contains(&id) { taken.spans_overlap(other) } else { taken.overlaps(other) }
                };
                let is_shared = others.into_iter().any(in_the_way);
                plan.wild |= is_shared;
                taken
            }
            _ if reserved.is_some() && plan.random.u8(..8) > 0 => reserved.unwrap(),
            _ if in_output.is_some() => {
                plan.found.in_parts += 1;
                in_output.unwrap()
            }
            (Some(input), _) if plan.random.bool() => {
                plan.found.in_place += 1;
                let taken = plan.values[input].0;
                // A view of it may be needed for longer.
                let is_shared = plan.alive(index).any(|id| id != input && plan.values[id].0.overlaps(&taken));
                plan.wild |= is_shared;
                taken
            }
            (_, Some(part)) if plan.random.bool() => {
                plan.found.views += 1;
                is_view = true;
                part
            }
            _ => plan.find(size_of(value, pitch), index, &own),
        };
        views.push(is_view);
        plan.values.push((place, last_uses[id].max(index)));
        let length = node.scratch_length();
        scratch_offsets.push(if length == 0 {
            0
        } else {
            let size = Place { offset: 0, pitch: length, count: 1, channels: length };
            let own: Vec<usize> = own.into_iter().chain([id]).collect();
            plan.find(size, index, &own).offset
        });
    }
    // A mistake in a valid plan.
    if plan.random.u8(..3) == 0 {
        plan.wild = true;
        let id = plan.random.usize(..plan.values.len());
        let place = &mut plan.values[id].0;
        if is_pitched(&view, id) && plan.random.bool() {
            place.pitch = plan.random.usize(place.channels..=place.channels.max(PITCH) + 1);
        } else {
            place.offset = (place.offset + plan.random.usize(..9)).saturating_sub(4);
        }
        place.offset = place.offset.min(ARENA - place.span().len());
    }
    let Plan { values, found, wild, .. } = plan;
    for (id, (place, _)) in values.iter().enumerate() {
        image.patch(value_word(image, id, place::VALUE_OFFSET), place.offset as u32);
        image.patch(value_word(image, id, place::VALUE_PITCH), place.pitch as u32);
        image.patch(value_word(image, id, place::VALUE_BYTES), place.span().len() as u32);
    }
    for ((record, offset), is_view) in records(&original).into_iter().zip(scratch_offsets).zip(views) {
        image.patch(record + place::NODE_SCRATCH, offset as u32);
        make_view(image, record, is_view);
    }
    image.patch(place::ARENA_LENGTH, ARENA as u32);
    (found, wild)
}

/// Changes the kernel of a node that selects channels: to the one that makes a view, or the one that copies.
fn make_view(image: &mut Aligned, record: usize, is_view: bool) {
    let word = image.word(record);
    if [COPY, VIEW].contains(&(word as u16)) {
        image.patch(record, word >> 16 << 16 | u32::from(if is_view { VIEW } else { COPY }));
    }
}

/// The same image with a separate place for each value.
fn apart(original: &Aligned) -> Aligned {
    let mut image = original.clone();
    let view = Image::new(original.bytes()).unwrap();
    let over: HashMap<usize, usize> = over(&view).collect();
    let mut end = 0;
    for (id, value) in view.values().iter().enumerate() {
        let offset = over.get(&id).map(|&residual| image.word(value_word(&image, residual, place::VALUE_OFFSET)));
        image.patch(value_word(&image, id, place::VALUE_OFFSET), offset.unwrap_or(end));
        image.patch(value_word(&image, id, place::VALUE_PITCH), value.shape[2]);
        image.patch(value_word(&image, id, place::VALUE_BYTES), value.len() as u32);
        end += value.len() as u32;
    }
    for (record, length) in records(original).into_iter().zip(view.nodes().map(|node| node.scratch_length())) {
        make_view(&mut image, record, false);
        image.patch(record + place::NODE_SCRATCH, end);
        end += length as u32;
    }
    image.patch(place::ARENA_LENGTH, end);
    image
}

/// The output of each node, and the outputs at the end, for inputs of this seed.
fn run(checked: &CheckedImage<'_>, seed: u64) -> Vec<Vec<i8>> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut arena = vec![0; checked.image().arena_length()];
    let mut model = checked.bind(&mut arena).unwrap();
    for index in 0..checked.image().input_count() {
        model.input(index).fill_with(|| random.i8(..));
    }
    let mut written = vec![];
    model.run_observed(|_, outputs, arena| {
        written.extend(outputs.iter().map(|value| value.pixels(arena).flatten().copied().collect::<Vec<i8>>()));
    });
    written.extend((0..checked.image().output_count()).map(|index| model.output(index).to_vec()));
    written
}

#[test]
fn accepted_plans_give_the_bytes_of_separate_memory() {
    let (mut all, mut wrong_in_place, mut wrong_views, mut wrong_over) = (Found::default(), 0, 0, 0);
    for seed in 0..8_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let net = random_net(&mut random);
        let original = net.image_with(KERNELS);
        let oracle = apart(&original);
        let oracle = CheckedImage::new(oracle.bytes(), KERNELS).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let planned =
            CheckedImage::new(original.bytes(), KERNELS).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert_eq!(run(&planned, seed), run(&oracle, seed), "seed {seed}: the writer's plan changes what is computed");
        let mut image = original.clone();
        let (found, wild) = replan(&mut image, &mut random);
        match CheckedImage::new(image.bytes(), KERNELS) {
            Ok(checked) => {
                for inputs in 0..2 {
                    assert_eq!(
                        run(&checked, inputs),
                        run(&oracle, inputs),
                        "seed {seed}: an accepted plan changes what is computed"
                    );
                }
                all.accepted += 1;
                all.in_place += found.in_place;
                all.views += found.views;
                all.over += found.over;
                all.in_parts += found.in_parts;
                all.interleaved += found.interleaved;
            }
            Err(error) => {
                assert!(wild, "seed {seed}: a right plan is refused: {error}");
                let is_view = matches!(error, Error::Layer { operator: "part", .. });
                let is_over = matches!(error, Error::Layer { operator: "conv2d_add", .. });
                assert!(is_view || is_over || matches!(error, Error::Overlap { .. }), "seed {seed}: {error}");
                all.refused += 1;
                wrong_in_place += found.in_place;
                wrong_views += usize::from(is_view);
                wrong_over += usize::from(is_over);
            }
        }
    }
    let enough = [
        all.accepted > 1500,
        all.in_place > 500,
        all.views > 500,
        all.interleaved > 300,
        all.in_parts > 500,
        all.refused > 500,
    ];
    let enough = enough.into_iter().all(|enough| enough) && wrong_in_place > 100 && wrong_views > 50;
    let enough = enough && all.over > 150 && wrong_over > 15;
    let refused = format!("{wrong_in_place} in place, {wrong_views} views and {wrong_over} over residuals");
    assert!(enough, "{all:?}; of plans that were refused {refused}");
}
