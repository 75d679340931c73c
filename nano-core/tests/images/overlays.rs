//! Views and other values that have the elements of a part of another, with places by hand: right ones, and one mistake each.

use nano_core::image::Image;
use nano_core::{CheckedImage, Error, Kernel};

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
