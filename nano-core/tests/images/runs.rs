//! Models that run: memory of exactly the needed size, several inputs and outputs, a value used twice, reduced operator tables.

use nano_core::image::Image;
use nano_core::{Error, Kernel, Model, ops};

use crate::builder::{Aligned, Builder, SCALE, ZERO_POINT, conv_net, nets, two_by_two};

/// The outputs for random inputs.
fn outputs(image: &[u8], arena: &mut [i8], kernels: &[Kernel]) -> Vec<Vec<i8>> {
    let mut random = fastrand::Rng::with_seed(7);
    let mut model = Model::new(image, arena, kernels).unwrap();
    for index in 0..model.image().input_count() {
        model.input(index).fill_with(|| random.i8(..));
    }
    model.run();
    (0..model.image().output_count()).map(|index| model.output(index).to_vec()).collect()
}

fn arena(image: &Aligned) -> Vec<i8> {
    vec![0; Image::new(image.bytes()).unwrap().arena_length()]
}

#[test]
fn an_arena_of_exactly_the_length_needed_suffices() {
    for net in nets() {
        let image = net.image();
        let mut exact = arena(&image);
        let needed = exact.len();
        let error = Model::new(image.bytes(), &mut exact[1..], ops::ALL).err();
        assert_eq!(error, Some(Error::ArenaTooSmall { needed, given: needed - 1 }));
        let in_exact = outputs(image.bytes(), &mut exact, ops::ALL);
        // Neither earlier contents of the memory nor its additional length have an effect.
        assert_eq!(in_exact, outputs(image.bytes(), &mut vec![-1; needed + 100], ops::ALL));
        assert!(in_exact.iter().flatten().any(|&q| q != in_exact[0][0]), "all outputs are equal: nothing is tested");
    }
}

#[test]
fn bytes_after_the_image_are_left_alone() {
    let image = conv_net().image();
    let mut partition = image.bytes().to_vec();
    partition.resize(image.bytes().len() + 4096, 0xff);
    let partition = Aligned::new(&partition);
    assert_eq!(Image::new(partition.bytes()).unwrap().length(), image.bytes().len());
    let expected = outputs(image.bytes(), &mut arena(&image), ops::ALL);
    assert_eq!(outputs(partition.bytes(), &mut arena(&image), ops::ALL), expected);
}

#[test]
fn an_image_may_lie_at_every_multiple_of_four_and_nowhere_else() {
    let image = conv_net().image();
    let mut room = Aligned::new(&vec![0; image.bytes().len() + 16]);
    let expected = outputs(image.bytes(), &mut arena(&image), ops::ALL);
    for offset in 0..16 {
        let place = offset..offset + image.bytes().len();
        room.bytes_mut()[place.clone()].copy_from_slice(image.bytes());
        let moved = &room.bytes()[place];
        if offset % 4 == 0 {
            assert_eq!(outputs(moved, &mut arena(&image), ops::ALL), expected, "at {offset}");
        } else {
            assert_eq!(Image::new(moved).err(), Some(Error::Misaligned), "at {offset}");
        }
    }
}

#[test]
fn several_inputs_and_outputs_keep_their_order() {
    let mut net = Builder::new(0);
    let inputs = [net.input([1, 2, 3]), net.input([1, 1, 2])];
    let left = net.requantize(inputs[0], SCALE, 5);
    let right = net.requantize(inputs[1], SCALE, -7);
    // An input may be an output as well, and a value may be two outputs.
    for id in [right, left, inputs[1], right] {
        net.output(id);
    }
    let image = net.image();
    let mut arena = arena(&image);
    let mut model = Model::new(image.bytes(), &mut arena, ops::ALL).unwrap();
    assert_eq!((model.image().input_count(), model.image().output_count()), (2, 4));
    model.input(0).copy_from_slice(&[1, 2, 3, 4, 5, 6]);
    model.input(1).copy_from_slice(&[40, 50]);
    model.run();
    let shifted = |q: i8, to: i32| (i32::from(q) - ZERO_POINT + to) as i8;
    assert_eq!(model.output(1), [1, 2, 3, 4, 5, 6].map(|q| shifted(q, 5)));
    for index in [0, 3] {
        assert_eq!(model.output(index), [40, 50].map(|q| shifted(q, -7)));
    }
    assert_eq!(model.output(2), [40, 50]);
}

#[test]
fn a_value_added_to_itself_is_doubled() {
    let mut net = Builder::new(0);
    let input = net.input([1, 1, 256]);
    // At twice the scale, the doubled value has the same integers.
    let twice = net.add(input, input, 2.0 * SCALE);
    let clamped = net.add(input, input, SCALE);
    net.output(twice);
    net.output(clamped);
    let image = net.image();
    let mut arena = arena(&image);
    let mut model = Model::new(image.bytes(), &mut arena, ops::ALL).unwrap();
    let all: Vec<i8> = (i8::MIN..=i8::MAX).collect();
    model.input(0).copy_from_slice(&all);
    model.run();
    assert_eq!(model.output(0), all);
    let doubled = all.iter().map(|&q| (2 * (i32::from(q) - ZERO_POINT) + ZERO_POINT).clamp(-128, 127) as i8);
    assert_eq!(model.output(1), doubled.collect::<Vec<i8>>());
}

#[test]
fn a_table_of_just_the_kernels_used_suffices_and_a_smaller_one_does_not() {
    let image = two_by_two().image();
    let used = [ops::CONV2D, ops::DEPTHWISE_CONV2D, ops::ADD, ops::TABLE, ops::REQUANTIZE];
    let expected = outputs(image.bytes(), &mut arena(&image), ops::ALL);
    assert_eq!(outputs(image.bytes(), &mut arena(&image), &used), expected);
    let reversed: Vec<Kernel> =
        [ops::REQUANTIZE, ops::TABLE, ops::ADD, ops::DEPTHWISE_CONV2D, ops::CONV2D].into_iter().collect();
    assert_eq!(outputs(image.bytes(), &mut arena(&image), &reversed), expected);
    let mut room = arena(&image);
    let mut refused = |table: &[Kernel]| Model::new(image.bytes(), &mut room, table).err();
    let unknown = |node, kernel: &Kernel| Some(Error::UnknownKernel { node, id: kernel.id });
    assert_eq!(refused(&used[1..]), unknown(0, &ops::CONV2D));
    assert_eq!(refused(&used[..4]), unknown(5, &ops::REQUANTIZE));
    assert_eq!(refused(&[]), unknown(0, &ops::CONV2D));
}

#[test]
fn every_operator_is_in_one_of_the_test_models() {
    let images = nets().map(|net| net.image());
    for operator in ops::ALL.iter().map(|kernel| kernel.operator) {
        let used = images.iter().flat_map(|image| Image::new(image.bytes()).unwrap().nodes());
        let used = used.into_iter().any(|node| node.kernel(ops::ALL).unwrap().operator.name == operator.name);
        assert!(used, "{} is in no test model: its images are not damaged", operator.name);
    }
}

#[test]
fn every_layer_is_observed_in_order() {
    let net = conv_net();
    let image = net.image();
    let mut arena = arena(&image);
    let mut model = Model::new(image.bytes(), &mut arena, ops::ALL).unwrap();
    let mut seen = vec![];
    model.run_observed(|index, outputs, _| seen.push((index, outputs[0].len())));
    let expected: Vec<_> =
        Image::new(image.bytes()).unwrap().nodes().map(|node| node.output(0).len()).enumerate().collect();
    assert_eq!(seen, expected);
}
