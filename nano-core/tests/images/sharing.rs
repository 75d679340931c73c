//! Networks that move data, split and concatenate: the writer's memory plan gives the bytes of a plan in which nothing is shared.

use nano_core::image::Image;
use nano_core::{CheckedImage, ops};

use crate::builder::{Builder, Window};

/// Tables of the part of a value that begins at `start` and has this shape, with its first element and its pitch in the value.
fn part(net: &mut Builder, input: usize, start: [u32; 3], shape: [u32; 3]) -> usize {
    let [_, width, channels] = net.value(input).shape;
    let steps = [width * channels, channels, 1];
    let axis = |axis: usize, offset: u32| (0..shape[axis]).map(|i| (offset + i * steps[axis]) as i32).collect();
    let first: u32 = (0..3).map(|axis| start[axis] * steps[axis]).sum();
    let tables: [Vec<i32>; 3] = [axis(0, first), axis(1, 0), axis(2, 0)];
    let pixels: Vec<i32> = tables[0].iter().flat_map(|row| tables[1].iter().map(move |column| row + column)).collect();
    let pitch = pixels.get(1).map_or(shape[2] as i32, |second| second - pixels[0]);
    let is_part = pixels.iter().zip(0..).all(|(&pixel, index)| pixel == pixels[0] + index * pitch);
    let place = if is_part && pitch >= shape[2] as i32 { [first.into(), pitch.into()] } else { [0, 0] };
    moved(net, input, shape, tables, place)
}

/// A move of a value, whatever its quantization.
fn moved(net: &mut Builder, input: usize, shape: [u32; 3], tables: [Vec<i32>; 3], place: [i64; 2]) -> usize {
    let output = net.part(input, shape, tables, place);
    let before = *net.value(input);
    (net.value(output).scale, net.value(output).zero_point) = (before.scale, before.zero_point);
    output
}

/// The channels in groups, transposed.
fn shuffle(net: &mut Builder, input: usize, groups: u32) -> usize {
    let [height, width, channels] = net.value(input).shape;
    let table = |count: u32, step: u32| (0..count).map(|index| (index * step) as i32).collect();
    let line = (0..channels).map(|k| (k % groups * (channels / groups) + k / groups) as i32).collect();
    let tables = [table(height, width * channels), table(width, channels), line];
    moved(net, input, [height, width, channels], tables, [0, 0])
}

/// Mostly layers that move data, each on values of earlier ones.
fn random_net(random: &mut fastrand::Rng) -> Builder {
    let mut net = Builder::new(random.u64(..));
    net.model.labels.clear();
    let shape = [random.u32(1..4), random.u32(1..5), random.u32(1..9)];
    let input = net.input(shape);
    let mut ids = vec![net.conv2d(input, shape[2], 1, Window::new([1, 1]))];
    for _ in 0..random.usize(3..10) {
        // Chains are more frequent than by chance.
        let &input = if random.bool() { ids.last().unwrap() } else { random.choice(&ids).unwrap() };
        let shape = net.value(input).shape;
        let [height, width, channels] = shape;
        ids.push(match random.u8(..16) {
            0 => net.conv2d(input, random.u32(1..6), 1, Window { padding: [1; 4], ..Window::new([3, 3]) }),
            1 => net.conv2d(input, random.u32(1..6), 1, Window::new([1, 1])),
            2 => net.table(input),
            3 => net.requantize(input, 0.1, 5),
            4 => net.softmax(input),
            5..9 => {
                let mut start = [0; 3];
                let mut shape = shape;
                for axis in [2, random.usize(..3)] {
                    start[axis] = random.u32(..shape[axis]);
                    shape[axis] -= start[axis];
                    shape[axis] = random.u32(1..=shape[axis]);
                }
                part(&mut net, input, start, shape)
            }
            9 => {
                let divisors: Vec<u32> = (1..=channels).filter(|groups| channels % groups == 0).collect();
                let &groups = random.choice(&divisors).unwrap();
                shuffle(&mut net, input, groups)
            }
            10 => {
                // Any numbers of elements, in any shape of as many: a table of pixels does for some outputs only.
                let line: Vec<i32> = match random.bool() {
                    true => (0..height * width * channels).rev().map(|index| index as i32).collect(),
                    false => (0..channels * height * width)
                        .map(|_| random.i32(-1..(shape.iter().product::<u32>()) as i32))
                        .collect(),
                };
                moved(&mut net, input, [1, height * width, channels], [vec![0], vec![0], line], [0, 0])
            }
            _ => {
                let axis = random.usize(..3);
                let key = |net: &mut Builder, id: usize| {
                    let mut value = *net.value(id);
                    value.shape[axis] = 0;
                    (value.shape, value.scale.to_bits(), value.zero_point)
                };
                let of_input = key(&mut net, input);
                let alike: Vec<usize> = ids.iter().copied().filter(|&id| key(&mut net, id) == of_input).collect();
                let count = random.usize(1..4);
                let mut inputs: Vec<usize> = (1..count).map(|_| *random.choice(&alike).unwrap()).collect();
                inputs.push(input);
                while inputs.iter().map(|&id| net.value(id).shape[axis]).sum::<u32>() > 24 && inputs.len() > 1 {
                    inputs.pop();
                }
                net.concat(&inputs, axis)
            }
        });
    }
    let last = *ids.last().unwrap();
    let output = net.conv2d(last, 3, 1, Window::new([1, 1]));
    net.output(output);
    net
}

/// Counts of what the writer's plans have.
#[derive(Default, Debug)]
struct Found {
    views: usize,
    views_of_views: usize,
    pitched_inputs: usize,
    pitched_outputs: usize,
    tables: usize,
}

fn written(net: &Builder, seed: u64, found: &mut Found) -> Vec<Vec<i8>> {
    let image = net.image();
    let checked = CheckedImage::new(image.bytes(), ops::ALL).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    let view = checked.image();
    let is_view = |name: &str| name == "move_view";
    let writers: Vec<&str> = view.nodes().map(|node| node.kernel(ops::ALL).unwrap().name).collect();
    for node in view.nodes() {
        let name = node.kernel(ops::ALL).unwrap().name;
        let pitched = [node.input(0), node.output(0)].map(|value| !value.is_dense());
        let before = (node.input_ids()[0] as usize).checked_sub(view.input_count());
        found.views += usize::from(is_view(name));
        found.views_of_views += usize::from(is_view(name) && before.is_some_and(|index| is_view(writers[index])));
        found.pitched_inputs += usize::from(name == "move" && pitched[0]);
        found.pitched_outputs += usize::from(name == "move" && pitched[1]);
        found.tables += usize::from(["table", "requantize"].contains(&name) && pitched[1]);
    }
    let mut arena = vec![0; view.arena_length()];
    let mut model = checked.bind(&mut arena).unwrap();
    let mut random = fastrand::Rng::with_seed(seed);
    model.input(0).fill_with(|| random.i8(..));
    let mut written = vec![];
    model.run_observed(|_, outputs, arena| {
        written.extend(outputs.iter().map(|value| value.pixels(arena).flatten().copied().collect::<Vec<i8>>()));
    });
    written
}

#[test]
fn shared_memory_gives_the_bytes_of_separate_memory() {
    let mut found = Found::default();
    for seed in 0..3_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut net = random_net(&mut random);
        let shared = written(&net, seed, &mut found);
        // Outputs are contiguous and live to the end: nothing is in place, and no value is a part of another.
        let values = net.model.inputs.len() + net.model.layers.len();
        (1..values - 1).for_each(|id| net.output(id));
        let mut of_separate = Found::default();
        let separate = written(&net, seed, &mut of_separate);
        assert_eq!(shared, separate, "seed {seed}");
    }
    let Found { views, views_of_views, pitched_inputs, pitched_outputs, tables } = found;
    let enough = [views > 500, views_of_views > 100, pitched_inputs > 50, pitched_outputs > 100, tables > 100];
    assert!(enough.into_iter().all(|enough| enough), "{found:?}");
}

/// Names of the kernels, by node.
fn kernels(net: &Builder) -> Vec<&'static str> {
    let image = net.image();
    Image::new(image.bytes()).unwrap().nodes().map(|node| node.kernel(ops::ALL).unwrap().name).collect()
}

/// A network whose largest values come before the others, so that sharing does not enlarge the arena.
fn roomy(build: impl FnOnce(&mut Builder, usize) -> Vec<usize>) -> Builder {
    let mut net = Builder::new(50);
    net.model.labels.clear();
    let input = net.input([4, 6, 3]);
    let wide = net.conv2d(input, 60, 1, Window::new([1, 1]));
    let narrow = net.conv2d(wide, 4, 1, Window::new([1, 1]));
    let eight = net.conv2d(narrow, 8, 1, Window::new([1, 1]));
    for value in build(&mut net, eight) {
        let output = net.conv2d(value, 2, 1, Window::new([1, 1]));
        net.output(output);
    }
    net
}

#[test]
fn views_of_views_are_views() {
    let nested = roomy(|net, eight| {
        let channels = part(net, eight, [0, 0, 2], [4, 6, 6]);
        let rows = part(net, channels, [1, 0, 0], [2, 6, 6]);
        let fewer = part(net, rows, [0, 0, 1], [2, 6, 3]);
        let row = part(net, fewer, [1, 2, 0], [1, 4, 3]);
        vec![eight, channels, rows, fewer, row]
    });
    assert_eq!(kernels(&nested)[3..7], ["move_view"; 4]);
    let of_a_reshape = roomy(|net, eight| {
        let line = moved(net, eight, [1, 48, 4], [vec![0], (0..48).map(|x| 4 * x).collect(), (0..4).collect()], [0, 4]);
        let half = part(net, line, [0, 8, 1], [1, 24, 2]);
        let channel = part(net, half, [0, 0, 1], [1, 24, 1]);
        vec![line, half, channel]
    });
    assert_eq!(kernels(&of_a_reshape)[3..6], ["move_view"; 3]);
    let of_a_concatenation = roomy(|net, eight| {
        let half = part(net, eight, [0, 0, 4], [4, 6, 4]);
        // Not the layer that reads the half: its output must not lie between the pixels of its input.
        let inner = net.conv2d(half, 2, 1, Window::new([1, 1]));
        let other = net.conv2d(inner, 6, 1, Window::new([1, 1]));
        let both = net.concat(&[half, other], 2);
        let inner = part(net, both, [0, 0, 2], [4, 6, 7]);
        let part = part(net, inner, [0, 0, 1], [4, 6, 3]);
        vec![half, inner, part]
    });
    let names = kernels(&of_a_concatenation);
    assert_eq!([names[3], names[7], names[8]], ["move_view"; 3]);
}

#[test]
fn moved_elements_are_written_into_their_part_of_a_concatenation() {
    let shuffled = roomy(|net, eight| {
        let left = shuffle(net, eight, 2);
        let [flipped, last] = [2, 4].map(|groups| shuffle(net, left, groups));
        let table = net.table(left);
        let requantized = net.requantize(last, 0.05, -3);
        vec![net.concat(&[flipped, table, requantized], 2)]
    });
    let image = shuffled.image();
    let view = Image::new(image.bytes()).unwrap();
    let concat = view.nodes().find(|node| node.kernel(ops::ALL).unwrap().name == "concat").unwrap();
    let start = concat.output(0).range().start;
    let places: Vec<(usize, u32)> = concat.inputs().map(|part| (part.range().start - start, part.pitch)).collect();
    assert_eq!(places, [(0, 24), (8, 24), (16, 24)]);
}
