//! A fused convolution and addition: the bytes are those of the two layers, and the sum is in place of the residual.

use std::collections::HashMap;

use nano_core::image::{Image, write, write_with};
use nano_core::{CheckedImage, Error, Kernel, Model, ops};

use crate::builder::{Aligned, Builder, SCALE, Window, place};
use crate::checks::{refused, value_word};

/// The kernels that compute one layer each.
const SINGLE: &[Kernel] = &[ops::CONV2D, ops::ADD, ops::TABLE, ops::MAX_POOL2D];

fn kernels(image: &Aligned) -> Vec<&'static str> {
    Image::new(image.bytes()).unwrap().nodes().map(|node| node.kernel(ops::ALL).unwrap().name).collect()
}

/// A random convolution of value 0 that makes an output of the shape of value 1, to which it is added, in random order.
fn random_net(random: &mut fastrand::Rng) -> Builder {
    let mut net = Builder::new(random.u64(..));
    net.model.labels.clear();
    let mut side = || {
        let (size, kernel, stride) = (random.u32(1..8), random.u32(1..4), random.u32(1..3));
        let (dilation, padding) = (random.u32(1..3), [random.u32(..3), random.u32(..3)]);
        (size.max(dilation * (kernel - 1) + 1), kernel, stride, dilation, padding)
    };
    let [(height, kh, sh, dh, [top, bottom]), (width, kw, sw, dw, [left, right])] = [side(), side()];
    let (kernel, stride, dilation) = ([kh, kw], [sh, sw], [dh, dw]);
    let window = Window { kernel, stride, dilation, padding: [top, bottom, left, right] };
    let groups = random.u32(1..4);
    let [inputs, channels] = [random.u32(1..4), random.u32(1..7)].map(|channels| groups * channels);
    let input = net.input([height, width, inputs]);
    let residual = net.input(window.output([height, width, inputs], channels));
    // Above 1, the multipliers have the literal form.
    net.weight_scale = *random.choice(&[0.004, 1.5]).unwrap();
    let convolved = net.conv2d(input, channels, groups, window);
    for id in [residual, convolved] {
        (net.value(id).scale, net.value(id).zero_point) = (random.f32() + 0.01, random.i8(..).into());
    }
    let scale = *random.choice(&[SCALE, 20.0, 4000.0]).unwrap();
    let order = if random.bool() { [convolved, residual] } else { [residual, convolved] };
    let sum = net.add(order[0], order[1], scale);
    net.value(sum).zero_point = random.i8(..).into();
    for layer in &mut net.model.layers {
        layer.attributes.insert("clamp_min".into(), random.i64(-128..=-60));
        layer.attributes.insert("clamp_max".into(), random.i64(40..=127));
    }
    net.output(sum);
    net
}

fn outputs(image: &Aligned, seed: u64) -> Vec<i8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut arena = vec![0; Image::new(image.bytes()).unwrap().arena_length()];
    let mut model = Model::new(image.bytes(), &mut arena, ops::ALL).unwrap();
    for index in 0..model.image().input_count() {
        model.input(index).fill_with(|| random.i8(..));
    }
    model.run();
    model.output(0).to_vec()
}

#[test]
fn a_fused_layer_gives_the_bytes_of_the_two() {
    let mut found: HashMap<u8, usize> = HashMap::new();
    let mut apart = 0;
    for seed in 0..3000 {
        let net = random_net(&mut fastrand::Rng::with_seed(seed));
        let two = Aligned::new(&write_with(&net.model, SINGLE).unwrap());
        let one = net.image();
        let lengths = [&one, &two].map(|image| Image::new(image.bytes()).unwrap().arena_length());
        assert!(lengths[0] <= lengths[1], "seed {seed}: {lengths:?}");
        assert_eq!(kernels(&two), ["conv2d", "add"], "seed {seed}");
        if kernels(&one) != ["conv2d_add"] {
            assert_eq!(one.bytes(), two.bytes(), "seed {seed}");
            apart += 1;
            continue;
        }
        assert!(lengths[0] < lengths[1], "seed {seed}: {lengths:?}");
        let form = Image::new(one.bytes()).unwrap().nodes().next().unwrap().form();
        *found.entry(form).or_default() += 1;
        for inputs in 0..3 {
            assert_eq!(outputs(&one, inputs), outputs(&two, inputs), "seed {seed}, inputs {inputs}");
        }
    }
    assert!(found.len() == 4 && found.values().all(|&count| count > 50) && apart > 50, "{found:?}, {apart} apart");
}

/// A residual block whose convolution is the largest layer: input 0, values 1 (its first convolution), 2 (its second) and 3 (the sum).
fn block() -> (Builder, [usize; 4]) {
    let mut net = Builder::new(0);
    net.model.labels.clear();
    let padded = Window { padding: [1; 4], ..Window::new([3, 3]) };
    let input = net.input([6, 6, 4]);
    let first = net.conv2d(input, 4, 1, padded);
    let second = net.conv2d(first, 4, 1, padded);
    let sum = net.add(input, second, SCALE);
    (net, [input, first, second, sum])
}

#[test]
fn the_sum_takes_the_place_of_the_residual() {
    let (mut net, [.., sum]) = block();
    net.output(sum);
    let image = net.image();
    assert_eq!(kernels(&image), ["conv2d", "conv2d_add"]);
    let view = Image::new(image.bytes()).unwrap();
    assert_eq!(view.output(0).range(), view.input(0).range());
    // Two values, the columns of a tile, and its four pixels.
    assert_eq!(view.arena_length(), 2 * 6 * 6 * 4 + 4 * 9 * 4 + 4 * 4);
}

#[test]
fn layers_are_not_fused_where_a_value_is_needed_that_would_be_lost() {
    type Change = fn(&mut Builder, [usize; 4]);
    let changes: [(&str, Change); 5] = [
        ("the convolution's output is one of the graph's", |net, [.., second, _]| net.output(second)),
        ("the residual is an output of the graph", |net, [input, ..]| net.output(input)),
        ("the residual is read later", |net, [input, ..]| {
            let again = net.table(input);
            net.output(again);
        }),
        ("the convolution's output is read later", |net, [.., second, _]| {
            let again = net.table(second);
            net.output(again);
        }),
        ("the convolution reads the residual", |net, [input, ..]| net.model.layers[1].inputs = vec![input]),
    ];
    for (what, change) in changes {
        let (mut net, ids) = block();
        net.output(ids[3]);
        change(&mut net, ids);
        assert_eq!(kernels(&net.image())[..3], ["conv2d", "conv2d", "add"], "{what}");
    }
    // Twice the convolution's output, and a layer in between.
    let (mut net, [.., second, sum]) = block();
    net.model.layers[2].inputs = vec![second, second];
    net.output(sum);
    assert_eq!(kernels(&net.image()), ["conv2d", "conv2d", "add"]);
    let mut net = Builder::new(0);
    net.model.labels.clear();
    let (left, right) = (net.input([6, 6, 4]), net.input([6, 6, 4]));
    let convolved = net.conv2d(left, 4, 1, Window { padding: [1; 4], ..Window::new([3, 3]) });
    let between = net.table(right);
    let sum = net.add(convolved, between, SCALE);
    net.output(sum);
    assert_eq!(kernels(&net.image()), ["conv2d", "table", "add"]);
}

#[test]
fn values_after_a_fused_layer_have_other_ids() {
    let (mut net, [.., sum]) = block();
    let table = net.table(sum);
    let pooled = net.max_pool2d(table, Window::new([6, 6]));
    net.output(pooled);
    net.output(sum);
    let image = net.image();
    assert_eq!(kernels(&image), ["conv2d", "conv2d_add", "table", "max_pool2d"]);
    let view = Image::new(image.bytes()).unwrap();
    assert_eq!([0, 1].map(|index| view.output_id(index)), [4, 2]);
    let two = Aligned::new(&write_with(&net.model, SINGLE).unwrap());
    assert_eq!(outputs(&image, 1), outputs(&two, 1));
}

#[test]
fn a_program_without_the_kernel_gets_two_layers() {
    let (mut net, [.., sum]) = block();
    net.output(sum);
    assert_ne!(write_with(&net.model, SINGLE).unwrap(), write(&net.model).unwrap());
    let layers = ops::ALL.iter().map(|kernel| (kernel.name, kernel.operator.described_layers()));
    assert_eq!(
        layers.filter(|&(_, count)| count > 1).collect::<Vec<_>>(),
        [("conv2d_add", 2), ("conv2d_add_pairs", 2), ("conv2d_add_winograd4", 2), ("conv2d_add_winograd2", 2)]
    );
}

#[test]
fn a_sum_that_is_not_in_the_place_of_its_residual_is_refused() {
    let (mut net, [.., sum]) = block();
    net.output(sum);
    let image = net.image();
    // Values 0 (the input), 1 (the first convolution) and 2 (the sum).
    let elsewhere = |shift: u32| {
        let mut image = image.clone();
        image.patch(place::ARENA_LENGTH, 1 << 12);
        let sum = value_word(&image, 2, place::VALUE_OFFSET);
        image.patch(sum, image.word(sum) + shift);
        refused(&image)
    };
    for shift in [1, 4, 1 << 11] {
        let Error::Layer { operator: "conv2d_add", rule, .. } = elsewhere(shift) else {
            panic!("{}", elsewhere(shift))
        };
        assert_eq!(rule, "the output does not lie in the place of the last input, but at");
    }
    // The residual is needed later.
    let mut later = image.clone();
    later.patch(value_word(&image, 0, place::VALUE_LAST_USE), 2);
    assert_eq!(refused(&later), Error::Overlap { node: 1, value: 0 });
}

#[test]
fn a_residual_that_is_convolved_too_is_refused() {
    let mut net = Builder::new(0);
    net.model.labels.clear();
    let (input, residual) = (net.input([6, 6, 4]), net.input([6, 6, 4]));
    let convolved = net.conv2d(input, 4, 1, Window::new([1, 1]));
    let sum = net.add(convolved, residual, SCALE);
    net.output(sum);
    let mut image = net.image();
    assert_eq!(kernels(&image), ["conv2d_add"]);
    assert!(CheckedImage::new(image.bytes(), ops::ALL).is_ok());
    let first_input = image.word(place::NODES) as usize + place::NODE_HEADER;
    image.patch(first_input, residual as u32);
    assert_eq!(refused(&image), Error::Overlap { node: 0, value: residual });
}

#[test]
fn a_residual_of_another_shape_is_refused() {
    let (mut net, [.., sum]) = block();
    net.output(sum);
    let mut image = net.image();
    // As many elements, in another shape.
    for (word, side) in [12, 3, 4].into_iter().enumerate() {
        image.patch(value_word(&image, 0, 4 * word), side);
    }
    let error = refused(&image);
    assert!(matches!(error, Error::Layer { operator: "conv2d", .. }), "the first convolution reads it too: {error}");
    let mut net = Builder::new(0);
    net.model.labels.clear();
    let (input, residual) = (net.input([6, 6, 4]), net.input([6, 6, 4]));
    let convolved = net.conv2d(input, 4, 1, Window::new([1, 1]));
    let sum = net.add(convolved, residual, SCALE);
    net.output(sum);
    let mut image = net.image();
    for (word, side) in [12, 3, 4].into_iter().enumerate() {
        image.patch(value_word(&image, residual, 4 * word), side);
    }
    let rule = "the residual's size is not the output's, elements";
    assert_eq!(refused(&image), Error::Layer { operator: "conv2d_add", rule, value: 144 });
}

#[test]
fn the_zero_point_between_the_two_is_int8() {
    let (mut net, [.., sum]) = block();
    net.output(sum);
    let image = net.image();
    let record = image.word(place::NODES) as usize;
    let byte = |offset: usize| usize::from(image.bytes()[record + offset]);
    let words = byte(place::NODE_INPUTS) + byte(place::NODE_ATTRIBUTES) + 2 * byte(place::NODE_CONSTANTS);
    let attributes = record + place::NODE_HEADER + 4 * words + place::NODE_HEADER + 4 * 2;
    let index = ops::CONV2D_ADD.operator.attributes.iter().position(|name| name.ends_with("zero_point")).unwrap();
    for zero_point in [-129i32, 128, i32::MIN, i32::MAX] {
        let mut image = image.clone();
        image.patch(attributes + 4 * index, zero_point as u32);
        let rule = "the convolution's zero point is not int8";
        assert_eq!(refused(&image), Error::Layer { operator: "conv2d_add", rule, value: zero_point.into() });
    }
}
