//! The host's kernels against the portable ones: all values of every test model, for several samples at once.

use nano_core::image::Value;
use nano_core::{Arenas, CheckedImage, Error, HostModel, Processor, ops};

use crate::builder::{Aligned, Builder, SCALE, Window, nets, value};

/// The elements of each node's outputs, of all samples.
type Trace = Vec<Vec<u8>>;

fn elements(values: &[Value], arena: &[i8]) -> Vec<u8> {
    values.iter().flat_map(|value| value.pixels(arena).flatten().map(|&byte| byte as u8)).collect()
}

/// What the portable kernels compute from `inputs`, `[sample][input]`.
fn portable(checked: &CheckedImage<'_>, inputs: &[Vec<Vec<i8>>]) -> Vec<Trace> {
    let mut memory = vec![0u32; checked.image().arena_length().div_ceil(4)];
    let mut model = checked.bind(zerocopy::transmute_mut!(&mut memory[..])).unwrap();
    let runs = inputs.iter().map(|inputs| {
        model.reset();
        for (index, input) in inputs.iter().enumerate() {
            model.input(index).copy_from_slice(input);
        }
        let mut trace = vec![];
        model.run_observed(|_, values, arena| trace.push(elements(values, arena)));
        trace
    });
    runs.collect()
}

fn on(processor: Option<Processor>, checked: &CheckedImage<'_>, inputs: &[Vec<Vec<i8>>]) -> Vec<Trace> {
    let model = HostModel::on(checked, processor);
    let mut memory = vec![0x5a5a_5a5au32; Arenas::length(checked, inputs.len()).div_ceil(4)];
    let mut arenas = Arenas::new(*checked, zerocopy::transmute_mut!(&mut memory[..]), inputs.len()).unwrap();
    for (sample, inputs) in inputs.iter().enumerate() {
        for (index, input) in inputs.iter().enumerate() {
            arenas.input(sample, index).copy_from_slice(input);
        }
    }
    let nodes: Vec<_> = checked.image().nodes().map(|node| node.outputs()).collect();
    let mut traces = vec![vec![]; inputs.len()];
    model.run(&mut arenas, &mut vec![], |index, arenas| {
        for (sample, trace) in traces.iter_mut().enumerate() {
            trace.push(elements(nodes[index], arenas.arena(sample)));
        }
    });
    traces
}

/// Compares all values of a model, for five samples.
fn compare(name: &str, image: &Aligned) {
    let checked = CheckedImage::new(image.bytes(), ops::ALL).unwrap();
    let mut random = fastrand::Rng::with_seed(41);
    let lengths: Vec<_> = (0..checked.image().input_count()).map(|index| checked.image().input(index)).collect();
    let input = |value: &Value, random: &mut fastrand::Rng| match value.holds_indices() {
        true => vec![0; value.len() * value.dtype().size()],
        false => (0..value.len() * value.dtype().size()).map(|_| random.i8(..)).collect(),
    };
    let inputs: Vec<Vec<_>> = (0..5).map(|_| lengths.iter().map(|value| input(value, &mut random)).collect()).collect();
    let expected = portable(&checked, &inputs);
    for processor in Processor::all().map(Some).chain([None]) {
        for (sample, (trace, expected)) in on(processor, &checked, &inputs).iter().zip(&expected).enumerate() {
            for (node, (outputs, expected)) in trace.iter().zip(expected).enumerate() {
                assert_eq!(outputs, expected, "{name}, seed 41, {processor:?}, sample {sample}, node {node}");
            }
        }
    }
}

#[test]
fn every_model_has_the_same_values_on_every_processor() {
    for (index, mut net) in nets().into_iter().enumerate() {
        compare(&format!("net {index}"), &net.image());
        net.kernels = ops::ALL.to_vec();
        compare(&format!("net {index} with all kernels"), &net.image());
        net.model.weights_in_ram = usize::MAX;
        compare(&format!("net {index} with constants in RAM"), &net.image());
    }
}

#[test]
fn layers_of_any_size_have_the_same_values_on_every_processor() {
    let mut random = fastrand::Rng::with_seed(42);
    for round in 0..150 {
        let mut side = |most: u32| random.u32(1..=most);
        let window = Window {
            kernel: [side(4), side(4)],
            stride: [side(3), side(3)],
            dilation: [side(2), side(2)],
            padding: [side(3) - 1, side(3) - 1, side(3) - 1, side(3) - 1],
        };
        let shape = [side(6) + 6, side(9) + 6, side(40)];
        let (outputs, others) = (side(69) + 1, side(3));
        let mut net = Builder::new(round);
        if round % 2 == 0 {
            net.kernels = ops::ALL.to_vec();
        }
        // Some multipliers exceed one half: the literal form.
        net.weight_scale = if round % 5 == 0 { 1.5 } else { 0.004 };
        let start = net.input(shape);
        let first = net.depthwise_conv2d(start, window);
        let [height, width, channels] = net.value(first).shape;
        let groups = if channels % others == 0 { others } else { 1 };
        let second = net.conv2d(first, outputs * groups, groups, Window::new([1, 1]));
        let third = net.conv2d(second, channels, 1, Window { padding: [1; 4], ..Window::new([3, 3]) });
        let sum = net.add(third, first, SCALE);
        let pooled = net.average_pool2d(sum, Window::new([height, width]), 0);
        let last = net.fully_connected(pooled, outputs);
        net.output(last);
        compare(&format!("round {round}"), &net.image());
    }
}

#[test]
fn too_little_memory_and_memory_at_an_odd_address_are_refused() {
    let mut net = Builder::new(1);
    let input = net.input([4, 4, 3]);
    let output = net.conv2d(input, 5, 1, Window::new([3, 3]));
    net.output(output);
    let image = net.image();
    let checked = CheckedImage::new(image.bytes(), ops::ALL).unwrap();
    let needed = Arenas::length(&checked, 3);
    let mut memory = vec![0u32; needed.div_ceil(4) + 1];
    let memory: &mut [i8] = zerocopy::transmute_mut!(&mut memory[..]);
    let error = Arenas::new(checked, &mut memory[..needed - 1], 3).err();
    assert_eq!(error, Some(Error::ArenaTooSmall { needed, given: needed - 1 }));
    let error = Arenas::new(checked, &mut memory[1..], 3).err();
    assert_eq!(error, Some(Error::ArenaMisaligned { alignment: 4 }));
    let arenas = Arenas::new(checked, memory, 3).unwrap();
    assert_eq!((arenas.count(), value([2, 2, 5]).shape), (3, arenas.checked().image().output(0).shape));
}
