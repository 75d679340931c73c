//! Views, and other values whose elements are a part of another value's, in places set by hand: valid plans, and plans with one mistake each.

use nano_core::image::{Image, write};
use nano_core::{CheckedImage, Error, Kernel, ops};

use crate::builder::{Aligned, Builder, Window, place};
use crate::checks::value_word;
use crate::part::{KERNELS, VIEW};
use crate::places::records;

/// Puts value `id` at an offset and a pitch.
fn lay(image: &mut Aligned, id: usize, offset: u32, pitch: u32) {
    let shape = Image::new(image.bytes()).unwrap().values()[id].shape;
    let length = (shape[0] * shape[1] - 1) * pitch + shape[2];
    for (word, content) in [(place::VALUE_OFFSET, offset), (place::VALUE_PITCH, pitch), (place::VALUE_BYTES, length)] {
        image.patch(value_word(image, id, word), content);
    }
}

/// An image with places: offset and pitch of each value.
fn laid(net: &Builder, kernels: &[Kernel], places: &[(u32, u32)]) -> Aligned {
    let mut image = net.image_with(kernels);
    image.patch(place::ARENA_LENGTH, 1 << 10);
    places.iter().enumerate().for_each(|(id, &(offset, pitch))| lay(&mut image, id, offset, pitch));
    records(&image).into_iter().for_each(|record| image.patch(record + place::NODE_SCRATCH, 700));
    image
}

fn refusal(image: &Aligned, kernels: &[Kernel]) -> Option<Error> {
    CheckedImage::new(image.bytes(), kernels).err()
}

/// Value 0, the input, of 2x3x4; value 1 of six channels, by node 0; value 2, three of them from the third on; value 3, the output.
fn viewed() -> (Builder, [(u32, u32); 4]) {
    let mut net = Builder::new(40);
    net.model.labels.clear();
    let input = net.input([2, 3, 4]);
    let six = net.conv2d(input, 6, 1, Window::new([1, 1]));
    let mut part = *net.value(six);
    part.shape[2] = 3;
    let part = net.layer("part", &[six], part, [("start", 2)], []);
    let output = net.conv2d(part, 5, 1, Window::new([1, 1]));
    net.output(output);
    (net, [(0, 4), (100, 6), (102, 6), (200, 5)])
}

fn with_view(net: &Builder, places: &[(u32, u32)]) -> Aligned {
    let mut image = laid(net, KERNELS, places);
    let record = records(&image)[1];
    let word = image.word(record);
    image.patch(record, word >> 16 << 16 | u32::from(VIEW));
    image
}

#[test]
fn a_view_lies_in_its_input_and_nowhere_else() {
    let (net, places) = viewed();
    assert_eq!(refusal(&with_view(&net, &places), KERNELS), None);
    let elsewhere = Error::Layer { operator: "part", rule: "a view lies elsewhere than in its input, node", value: 1 };
    for wrong in [(101, 6), (103, 6), (102, 5), (102, 7), (102, 3), (300, 6)] {
        let mut places = places;
        places[2] = wrong;
        assert_eq!(refusal(&with_view(&net, &places), KERNELS), Some(elsewhere), "{wrong:?}");
    }
}

#[test]
fn a_view_needs_its_bytes_after_the_end_of_its_input() {
    let (net, places) = viewed();
    // Node 2 is the first after the end of value 1, whose other bytes are free: 100, 101 and 105 of each six.
    let mut places = places;
    places[3] = (102, 5);
    assert_eq!(refusal(&with_view(&net, &places), KERNELS), Some(Error::Overlap { node: 2, value: 2 }));
}

#[test]
fn an_elementwise_operator_does_not_overwrite_what_a_view_still_needs() {
    let (mut net, places) = viewed();
    // Node 3 reads value 1 for the last time, node 4 the view.
    let table = net.table(1);
    let sum = net.conv2d(2, 5, 1, Window::new([1, 1]));
    net.output(table);
    net.output(sum);
    let places = |table| [&places[..], &[(table, 6), (400, 5)]].concat();
    assert_eq!(refusal(&with_view(&net, &places(300)), KERNELS), None);
    assert_eq!(refusal(&with_view(&net, &places(100)), KERNELS), Some(Error::Overlap { node: 3, value: 2 }));
}

/// Value 0, the input, of 2x3x4; values 1 and 2 of five and six channels; value 3 has both; value 4, the output.
fn joined() -> (Builder, Vec<(u32, u32)>) {
    let mut net = Builder::new(41);
    net.model.labels.clear();
    let input = net.input([2, 3, 4]);
    let parts = [5, 6].map(|channels| net.conv2d(input, channels, 1, Window::new([1, 1])));
    let both = net.concat(&parts, 2);
    let output = net.conv2d(both, 3, 1, Window::new([1, 1]));
    net.output(output);
    (net, vec![(0, 4), (100, 11), (105, 11), (100, 11), (200, 3)])
}

#[test]
fn an_input_of_a_concatenation_lies_in_its_part_or_apart_from_the_output() {
    let (net, places) = joined();
    let with = |changes: &[(usize, (u32, u32))]| {
        let mut places = places.clone();
        changes.iter().for_each(|&(id, place)| places[id] = place);
        refusal(&laid(&net, ops::ALL, &places), ops::ALL)
    };
    for right in [&[][..], &[(1, (300, 5))], &[(2, (300, 6))], &[(1, (300, 11)), (2, (305, 11))], &[(3, (300, 11))]] {
        assert_eq!(with(right), None, "{right:?}");
    }
    // At another offset, at another pitch, one in the part of the other.
    let over = |value| Some(Error::Overlap { node: 2, value });
    assert_eq!(with(&[(2, (300, 6)), (1, (101, 11))]), over(1));
    assert_eq!(with(&[(2, (300, 6)), (1, (100, 10))]), over(1));
    assert_eq!(with(&[(1, (300, 5)), (2, (104, 11))]), over(2));
    assert_eq!(with(&[(1, (300, 5)), (2, (105, 12))]), over(2));
    assert_eq!(with(&[(1, (106, 11)), (2, (100, 11))]), over(2));
}

#[test]
fn a_concatenation_writes_its_parts_over_nothing_that_is_needed() {
    let mut net = Builder::new(45);
    net.model.labels.clear();
    let input = net.input([2, 3, 4]);
    let [other, first, second] = [2, 5, 6].map(|channels| net.conv2d(input, channels, 1, Window::new([1, 1])));
    let both = net.concat(&[first, second], 2);
    for value in [other, both] {
        let output = net.conv2d(value, 3, 1, Window::new([1, 1]));
        net.output(output);
    }
    // The first input lies elsewhere, so its part is written: channels 100 to 104 of each 11.
    let with = |other: (u32, u32)| {
        let places = [(0, 4), other, (300, 5), (105, 11), (100, 11), (400, 3), (500, 3)];
        refusal(&laid(&net, ops::ALL, &places), ops::ALL)
    };
    assert_eq!(with((200, 2)), None);
    for offset in [99, 100, 102, 104] {
        // At the two ends it reaches into the part that the convolution of node 2 writes.
        let node = if [99, 104].contains(&offset) { 2 } else { 3 };
        assert_eq!(with((offset, 11)), Some(Error::Overlap { node, value: 1 }), "{offset}");
    }
}

#[test]
fn an_elementwise_operator_does_not_overwrite_an_input_that_a_concatenation_still_reads() {
    let mut net = Builder::new(42);
    net.model.labels.clear();
    let input = net.input([1, 1, 4]);
    let first = net.table(input);
    let second = net.table(first);
    let both = net.concat(&[first, second], 2);
    net.output(both);
    let places = |second| [(0, 4), (100, 4), (second, 4), (100, 8)];
    assert_eq!(refusal(&laid(&net, ops::ALL, &places(104)), ops::ALL), None);
    assert_eq!(refusal(&laid(&net, ops::ALL, &places(100)), ops::ALL), Some(Error::Overlap { node: 1, value: 1 }));
}

#[test]
fn an_elementwise_operator_overwrites_a_concatenation_only_after_the_end_of_its_inputs() {
    let mut net = Builder::new(43);
    net.model.labels.clear();
    let input = net.input([1, 1, 4]);
    let first = net.table(input);
    let both = net.concat(&[first, input], 2);
    let changed = net.table(both);
    net.output(changed);
    let places = [(104, 4), (100, 4), (100, 8), (100, 8)];
    assert_eq!(refusal(&laid(&net, ops::ALL, &places), ops::ALL), None);
    net.output(first);
    let overlap = Error::Overlap { node: 2, value: 1 };
    assert_eq!(refusal(&laid(&net, ops::ALL, &places), ops::ALL), Some(overlap));
}

#[test]
fn a_concatenation_of_sizes_that_differ_or_along_no_axis_is_refused() {
    let refused = |axis: i64, second: [u32; 3]| {
        let mut net = Builder::new(44);
        let inputs = [[2, 3, 4], second].map(|shape| net.input(shape));
        let output = net.concat(&inputs, axis.clamp(0, 2) as usize);
        net.model.layers[0].attributes.insert("axis".into(), axis);
        net.output(output);
        write(&net.model).err().map(|error| error.to_string())
    };
    assert_eq!(refused(1, [2, 5, 4]), None);
    let axis = |axis| Some(format!("concat: the axis is not 0 (height), 1 (width) or 2 (channels) (found {axis})"));
    assert_eq!(refused(3, [2, 3, 4]), axis(3));
    assert_eq!(refused(-1, [2, 3, 4]), axis(-1));
    let sizes = "concat: an input's sizes differ from the first's beside the axis, input (found 1)";
    for (axis, second) in [(0, [2, 4, 4]), (0, [2, 3, 5]), (1, [3, 3, 4]), (2, [2, 1, 4])] {
        assert_eq!(refused(axis, second).as_deref(), Some(sizes), "{axis}, {second:?}");
    }
}
