//! Operators that no other program has: two outputs, a state, int16 and int32. Their bytes are those of a reference that shares nothing with the
//! crate. With the environment variable `TORCH_NANO_CASES`, the cases are left in that folder, for the emulated board (tests/device/test_operators.py).

#[path = "../images/builder/mod.rs"]
mod builder;
mod case;
mod kernels;
#[allow(clippy::needless_range_loop, reason = "a reference reads index by index")]
mod reference;

use builder::{Aligned, Builder, value};
use case::Steps;
use kernels::KERNELS;
use nano_core::image::{Dtype, LayerDescription, Tensor, ValueDescription, write_with};
use nano_core::{CheckedImage, Error, Model};
use reference::{Gru, Wide};

const INPUTS: u32 = 12;
const UNITS: u32 = 7;

fn of(dtype: Dtype, channels: u32) -> ValueDescription {
    ValueDescription { dtype, zero_point: 0, ..value([1, 1, channels]) }
}

/// Adds a layer of the test's own operators; returns the id of its first output.
fn layer(
    net: &mut Builder,
    operator: &str,
    input: usize,
    outputs: Vec<ValueDescription>,
    attribute: (&str, i64),
    (weights, bias): (Vec<i8>, Vec<i32>),
) -> usize {
    net.model.layers.push(LayerDescription {
        operator: operator.into(),
        inputs: vec![input],
        outputs,
        attributes: [(attribute.0.into(), attribute.1)].into(),
        tensors: [("weights".into(), Tensor::Int8(weights)), ("bias".into(), Tensor::Int32(bias))].into(),
    });
    let values = net.model.layers.iter().map(|layer| layer.outputs.len());
    net.model.inputs.len() + values.sum::<usize>() - net.model.layers.last().unwrap().outputs.len()
}

fn tensors(random: &mut fastrand::Rng, weights: u32, biases: u32, bias: i32) -> (Vec<i8>, Vec<i32>) {
    let weights = (0..weights).map(|_| random.i8(-127..=127)).collect();
    (weights, (0..biases).map(|_| random.i32(-bias..=bias)).collect())
}

fn gru(net: &mut Builder, random: &mut fastrand::Rng, input: usize) -> (usize, Gru) {
    let inputs = net.value(input).shape[2];
    let tensors = tensors(random, 2 * UNITS * (inputs + UNITS), 2 * UNITS, 1 << 13);
    let outputs = vec![of(Dtype::Int8, UNITS), ValueDescription { state: true, ..of(Dtype::Int16, UNITS) }];
    let reference = Gru::new(&tensors, inputs as usize, UNITS as usize);
    (layer(net, "gru", input, outputs, ("units", UNITS.into()), tensors), reference)
}

/// Two units in a row with a table between them, whose output takes the place of its input; outputs: the last units' steps, and the first's state.
struct Recurrent {
    net: Builder,
    units: [Gru; 2],
    table: Vec<i8>,
}

impl Recurrent {
    fn new(seed: u64) -> Self {
        let (mut net, mut random) = (Builder::new(seed), fastrand::Rng::with_seed(seed));
        let input = net.input([1, 1, INPUTS]);
        let (first, reference) = gru(&mut net, &mut random, input);
        let between = net.table(first);
        let Tensor::Int8(table) = net.model.layers[1].tensors["table"].clone() else { panic!("a table is int8") };
        let (second, other) = gru(&mut net, &mut random, between);
        net.model.labels.clear();
        net.output(second);
        net.output(first + 1);
        Recurrent { net, units: [reference, other], table }
    }

    fn step(&mut self, x: &[i64]) -> [Vec<i64>; 2] {
        let first = self.units[0].step(x);
        let between: Vec<i64> = first.iter().map(|&y| self.table[(y + 128) as usize].into()).collect();
        [self.units[1].step(&between), self.units[0].state.clone()]
    }
}

fn image(net: &Builder) -> Aligned {
    Aligned::new(&write_with(&net.model, KERNELS).expect("the test's model is a valid one"))
}

fn arena(image: &CheckedImage<'_>) -> Vec<u32> {
    vec![0x5a5a_5a5a; image.image().arena_length().div_ceil(4)]
}

fn signed(words: &mut [u32]) -> &mut [i8] {
    zerocopy::FromBytes::mut_from_bytes(zerocopy::IntoBytes::as_mut_bytes(words)).unwrap()
}

fn push(bytes: &mut Vec<u8>, elements: &[i64], dtype: Dtype) {
    bytes.extend(elements.iter().flat_map(|element| element.to_le_bytes().into_iter().take(dtype.size())));
}

/// Compares the model with the steps, and leaves both for the board.
fn compare(name: &str, image: &Aligned, steps: &[u8]) {
    let checked = CheckedImage::new(image.bytes(), KERNELS).unwrap();
    let mut memory = arena(&checked);
    let mut model = checked.bind(signed(&mut memory)).unwrap();
    assert!(Steps(steps).run(&mut model) > 500);
    if let Some(folder) = std::env::var_os("TORCH_NANO_CASES") {
        let mut bytes = image.bytes().to_vec();
        bytes.extend(steps);
        std::fs::write(std::path::Path::new(&folder).join(name), bytes).expect("the folder takes files");
    }
}

#[test]
fn an_operator_with_a_state_and_two_outputs_equals_the_reference() {
    const STEPS: u32 = 60;
    let mut net = Recurrent::new(11);
    let mut random = fastrand::Rng::with_seed(12);
    let mut steps = STEPS.to_le_bytes().to_vec();
    for step in 0..STEPS {
        let restart = step == STEPS / 2;
        if restart {
            net.units.iter_mut().for_each(Gru::reset);
        }
        steps.push(restart.into());
        let x: Vec<i64> = (0..INPUTS).map(|_| random.i8(..).into()).collect();
        push(&mut steps, &x, Dtype::Int8);
        let [y, state] = net.step(&x);
        push(&mut steps, &y, Dtype::Int8);
        push(&mut steps, &state, Dtype::Int16);
    }
    compare("recurrent", &image(&net.net), &steps);
}

#[test]
fn int16_activations_and_int32_outputs_equal_the_reference() {
    const STEPS: u32 = 40;
    let (mut net, mut random) = (Builder::new(21), fastrand::Rng::with_seed(21));
    net.model.labels.clear();
    let input = net.input([2, 3, 5]);
    *net.value(input) = ValueDescription { dtype: Dtype::Int16, zero_point: 0, ..value([2, 3, 5]) };
    let weights = [tensors(&mut random, 9 * 30, 9, 1 << 20), tensors(&mut random, 4 * 9, 4, 1 << 20)];
    let references = [Wide::new(&weights[0], 30), Wide::new(&weights[1], 9)];
    let [first, second] = weights;
    let hidden = layer(&mut net, "wide", input, vec![of(Dtype::Int16, 9)], ("shift", 7), first);
    let sums = layer(&mut net, "wide", hidden, vec![of(Dtype::Int32, 4)], ("shift", 0), second);
    net.output(sums);
    net.output(hidden);
    let mut steps = STEPS.to_le_bytes().to_vec();
    for step in 0..STEPS {
        // Every other step at the ends of int16, where all accumulators are largest.
        let x: Vec<i64> = (0..30)
            .map(|_| if step % 2 == 0 { random.i16(..) } else { [i16::MIN, i16::MAX][random.usize(..2)] }.into())
            .collect();
        let hidden = references[0].int16(&x, 7);
        steps.push(0);
        push(&mut steps, &x, Dtype::Int16);
        push(&mut steps, &references[1].sums(&hidden), Dtype::Int32);
        push(&mut steps, &hidden, Dtype::Int16);
    }
    compare("wide", &image(&net), &steps);
}

/// A layer of `split_bits`; returns the ids of its outputs.
fn split_bits(net: &mut Builder, input: usize, shift: i64) -> [usize; 2] {
    let value = ValueDescription { dtype: Dtype::Int16, zero_point: 0, ..*net.value(input) };
    let high = layer(net, "split_bits", input, vec![value; 2], ("shift", shift), Default::default());
    net.model.layers.last_mut().unwrap().tensors.clear();
    [high, high + 1]
}

/// Layers of two outputs in random networks: read, unread, and outputs of the graph.
#[test]
fn two_outputs_of_one_layer_equal_the_reference() {
    let mut unread = 0;
    for seed in 0..200 {
        let (mut net, mut random) = (Builder::new(seed), fastrand::Rng::with_seed(seed));
        net.model.labels.clear();
        let input = net.input([1, random.u32(1..5), random.u32(1..7)]);
        let value = *net.value(input);
        *net.value(input) = ValueDescription { dtype: Dtype::Int16, zero_point: 0, ..value };
        let x: Vec<i16> = (0..value.shape.iter().product::<u32>()).map(|_| random.i16(..)).collect();
        let mut expected = vec![x.clone()];
        for _ in 0..random.usize(1..7) {
            let (from, shift) = (random.usize(..expected.len()), random.u32(..16));
            split_bits(&mut net, from, shift.into());
            let high: Vec<i16> = expected[from].iter().map(|x| x >> shift).collect();
            let low = expected[from].iter().zip(&high).map(|(&x, &y)| (i32::from(x) - (i32::from(y) << shift)) as i16);
            let low = low.collect();
            expected.extend([high, low]);
        }
        let outputs: Vec<usize> = (1..expected.len()).filter(|_| random.u8(..3) == 0).collect();
        let outputs = if outputs.is_empty() { vec![expected.len() - 1] } else { outputs };
        outputs.iter().for_each(|&id| net.output(id));
        let read = |id: &usize| outputs.contains(id) || net.model.layers.iter().any(|layer| layer.inputs.contains(id));
        unread += (1..expected.len()).filter(|id| !read(id)).count();
        let image = image(&net);
        let checked = CheckedImage::new(image.bytes(), KERNELS).unwrap();
        let mut memory = arena(&checked);
        let mut model = checked.bind(signed(&mut memory)).unwrap();
        model.input_elements(0).copy_from_slice(&x);
        model.run();
        for (index, &id) in outputs.iter().enumerate() {
            assert_eq!(model.output_elements::<i16>(index), expected[id], "seed {seed}, value {id}");
        }
    }
    assert!(unread > 100, "{unread} outputs are read by nothing");
}

#[test]
fn one_of_two_outputs_in_the_place_of_another_value_is_refused() {
    use builder::place::{VALUE_LENGTH, VALUE_OFFSET, VALUES};
    // Values 0, 1 and 2; nothing reads value 1.
    let mut net = Builder::new(1);
    net.model.labels.clear();
    let input = net.input([1, 2, 3]);
    let value = *net.value(input);
    *net.value(input) = ValueDescription { dtype: Dtype::Int16, zero_point: 0, ..value };
    let [_, low] = split_bits(&mut net, input, 4);
    net.output(low);
    let image = image(&net);
    let offset = |id: usize| image.word(VALUES) as usize + id * VALUE_LENGTH + VALUE_OFFSET;
    for [id, other] in [[1, 2], [2, 1], [1, 0], [2, 0]] {
        let mut image = image.clone();
        image.patch(offset(id), image.word(offset(other)));
        let error = CheckedImage::new(image.bytes(), KERNELS).err();
        assert!(matches!(error, Some(Error::Overlap { node: 0, .. })), "{id} at {other}: {error:?}");
    }
}

/// int16 through what moves data and keeps it: a history, a permutation, a concatenation, in their memory's layouts.
#[test]
fn int16_is_moved_and_kept() {
    const STEPS: u32 = 20;
    let mut random = fastrand::Rng::with_seed(31);
    let mut net = Builder::new(31);
    net.model.labels.clear();
    let wide = |shape| ValueDescription { dtype: Dtype::Int16, zero_point: 0, ..value(shape) };
    let input = net.input([1, 2, 3]);
    *net.value(input) = wide([1, 2, 3]);
    let mut add =
        |operator: &str, inputs: &[usize], output, attributes: &[(&str, i64)], tensors: Vec<(&str, Tensor)>| {
            net.model.layers.push(LayerDescription {
                operator: operator.into(),
                inputs: inputs.to_vec(),
                outputs: vec![output],
                attributes: attributes.iter().map(|&(name, number)| (name.into(), number)).collect(),
                tensors: tensors.into_iter().map(|(name, tensor)| (name.into(), tensor)).collect(),
            });
            net.model.layers.len()
        };
    let start = Tensor::Int16(vec![-30000, 300, 5]);
    let kept = ValueDescription { state: true, ..wide([1, 5, 3]) };
    let kept = add("history", &[input], kept, &[("rows", 3)], vec![("start", start)]);
    // Width and channels exchanged, the last row dropped, and a zero in place of a channel of each.
    let tables = [("rows", vec![0]), ("columns", vec![0, 1, 2]), ("channels", vec![0, 3, -1, 9])];
    let lengths: Vec<(&str, i64)> = tables.iter().map(|(name, table)| (*name, table.len() as i64)).collect();
    let moved = add(
        "move",
        &[kept],
        wide([1, 3, 4]),
        &[&lengths[..], &[("first", 0), ("pitch", 0)]].concat(),
        tables.map(|(name, table)| (name, Tensor::Int32(table))).to_vec(),
    );
    let joined = add("concat", &[moved, moved], wide([1, 3, 8]), &[("axis", 2)], vec![]);
    net.output(joined);
    net.output(kept);
    let mut rows = vec![vec![-30000, 300, 5]; 3];
    let mut steps = STEPS.to_le_bytes().to_vec();
    for _ in 0..STEPS {
        steps.push(0);
        let x: Vec<i64> = (0..6).map(|_| random.i16(..).into()).collect();
        push(&mut steps, &x, Dtype::Int16);
        rows = rows[rows.len() - 3..].to_vec();
        rows.extend(x.chunks(3).map(<[i64]>::to_vec));
        let kept = rows.concat();
        let moved = (0..3).map(|column| [kept[column], kept[column + 3], 0, kept[column + 9]]);
        let joined: Vec<i64> = moved.flat_map(|pixel| [pixel, pixel].concat()).collect();
        push(&mut steps, &joined, Dtype::Int16);
        push(&mut steps, &kept, Dtype::Int16);
    }
    compare("moved", &image(&net), &steps);
}

#[test]
fn two_models_of_one_image_share_no_state() {
    let mut references = [Recurrent::new(3), Recurrent::new(3)];
    let image = image(&references[0].net);
    let checked = CheckedImage::new(image.bytes(), KERNELS).unwrap();
    let mut memory = [arena(&checked), arena(&checked)];
    let mut models = memory.each_mut().map(|memory| checked.bind(signed(memory)).unwrap());
    let mut random = fastrand::Rng::with_seed(4);
    for _ in 0..100 {
        let which = random.usize(..2);
        let (reference, model) = (&mut references[which], &mut models[which]);
        if random.u8(..10) == 0 {
            reference.units.iter_mut().for_each(Gru::reset);
            model.reset();
        }
        let x: Vec<i8> = (0..INPUTS).map(|_| random.i8(..)).collect();
        model.input(0).copy_from_slice(&x);
        model.run();
        let [y, _] = reference.step(&x.into_iter().map(i64::from).collect::<Vec<_>>());
        assert_eq!(model.output(0).iter().map(|&y| i64::from(y)).collect::<Vec<_>>(), y);
    }
}

#[test]
fn a_reset_leaves_the_input() {
    let net = Recurrent::new(5);
    let image = image(&net.net);
    let checked = CheckedImage::new(image.bytes(), KERNELS).unwrap();
    let mut memory = arena(&checked);
    let mut model = checked.bind(signed(&mut memory)).unwrap();
    let x: Vec<i8> = (0..INPUTS as i8).collect();
    model.input(0).copy_from_slice(&x);
    model.reset();
    assert_eq!(model.input(0), x);
}

#[test]
fn an_arena_that_is_not_aligned_is_refused() {
    let net = Recurrent::new(6);
    let image = image(&net.net);
    let length = CheckedImage::new(image.bytes(), KERNELS).unwrap().image().arena_length();
    let mut words = vec![0; length / 4 + 2];
    let memory = &mut signed(&mut words)[1..];
    let error = Model::new(image.bytes(), memory, KERNELS).err();
    assert_eq!(error, Some(Error::ArenaMisaligned { alignment: 2 }));
}

#[test]
fn what_must_be_a_state_is_one_and_nothing_else() {
    for index in [0, 1] {
        let mut net = Recurrent::new(7);
        let output = &mut net.net.model.layers[0].outputs[index];
        output.state = !output.state;
        let error = write_with(&net.net.model, KERNELS).unwrap_err().to_string();
        assert_eq!(error, format!("gru: an output is a state and must not be, or must be and is not (found {index})"));
    }
}

#[test]
fn a_kernel_of_another_dtype_is_not_taken() {
    let mut net = Recurrent::new(8);
    net.net.value(0).dtype = Dtype::Int16;
    net.net.value(0).zero_point = 0;
    let error = write_with(&net.net.model, KERNELS).unwrap_err().to_string();
    assert_eq!(error, "gru: a value has another dtype than the kernel's, value (found 0)");
}

#[test]
fn a_state_in_the_place_of_another_value_is_refused() {
    use builder::place::{ARENA_LENGTH, VALUE_LAST_USE, VALUE_LENGTH, VALUE_OFFSET, VALUES};
    let image = image(&Recurrent::new(9).net);
    let word = |id: usize, offset: usize| image.word(VALUES) as usize + id * VALUE_LENGTH + offset;
    let refused = |image: &Aligned| CheckedImage::new(image.bytes(), KERNELS).err();
    // Value 2 is the first unit's state; the others, but for value 5, live only for a while.
    for id in [0, 1, 3, 4, 5] {
        let mut image = image.clone();
        image.patch(ARENA_LENGTH, 1 << 10);
        let state = image.word(word(2, VALUE_OFFSET));
        image.patch(word(id, VALUE_OFFSET), state);
        assert!(matches!(refused(&image), Some(Error::Overlap { .. })), "{id}: {:?}", refused(&image));
    }
    let mut image = image.clone();
    image.patch(word(2, VALUE_LAST_USE), 1);
    assert_eq!(refused(&image), Some(Error::Lifetime { node: 3, value: 2 }));
}
