//! Wrong memory plans, and values that share memory: one change of a place or of a last use each.

use nano_core::image::{MOST_ALIVE, WriteError, write};
use nano_core::{CheckedImage, Error, ops};

use crate::builder::{Builder, SCALE, head_net, place, two_by_two};
use crate::checks::{chain, node_word, refused, value_word};

#[test]
fn an_output_over_the_input_it_is_made_from_is_refused() {
    let mut net = Builder::new(0);
    let input = net.input([1, 1, 8]);
    let output = net.softmax(input);
    net.output(output);
    let mut image = net.image();
    let place = value_word(&image, 1, place::VALUE_OFFSET);
    let of_input = image.word(value_word(&image, 0, place::VALUE_OFFSET));
    for shift in [0, 4] {
        image.patch(place, of_input + shift);
        assert_eq!(refused(&image), Error::Overlap { node: 0, value: 0 }, "{shift}");
    }
}

#[test]
fn elementwise_an_output_takes_the_place_of_an_input_or_lies_apart_from_it() {
    let mut image = chain().image();
    let places = [0, 1].map(|id| value_word(&image, id, place::VALUE_OFFSET));
    assert_eq!(image.word(place::ARENA_LENGTH), 8);
    image.patch(place::ARENA_LENGTH, 16);
    for shift in 0..=8 {
        image.patch(places[1], image.word(places[0]) + shift);
        let checked = CheckedImage::new(image.bytes(), ops::ALL).err();
        // The third value is in the place of the first.
        let node = if shift % 8 == 0 { None } else { Some(Error::Overlap { node: 0, value: 0 }) };
        assert_eq!(checked, node, "{shift}");
    }
    // The input is still needed, so its place is not free.
    let mut image = chain().image();
    let last_use = value_word(&image, 0, place::VALUE_LAST_USE);
    image.patch(last_use, 1);
    assert_eq!(refused(&image), Error::Overlap { node: 0, value: 0 });
}

#[test]
fn a_value_over_another_that_is_needed_later_is_refused() {
    let mut image = two_by_two().image();
    // Value 4, the sum, is read by the last node; value 6, the table's output, is written before.
    let place = value_word(&image, 6, place::VALUE_OFFSET);
    let of_sum = image.word(value_word(&image, 4, place::VALUE_OFFSET));
    image.patch(place, of_sum);
    assert_eq!(refused(&image), Error::Overlap { node: 4, value: 4 });
}

#[test]
fn two_graph_inputs_in_one_place_are_refused() {
    let mut image = two_by_two().image();
    let place = value_word(&image, 1, place::VALUE_OFFSET);
    let of_left = image.word(value_word(&image, 0, place::VALUE_OFFSET));
    image.patch(place, of_left);
    assert_eq!(refused(&image), Error::Overlap { node: 0, value: 0 });
}

#[test]
fn scratch_memory_over_the_input_or_the_output_is_refused() {
    let image = head_net().image();
    let offsets = image.word(place::NODES) as usize + place::NODE_SCRATCH;
    for id in [0, 1] {
        let mut image = image.clone();
        image.patch(place::ARENA_LENGTH, 1 << 12);
        let over = image.word(value_word(&image, id, place::VALUE_OFFSET));
        image.patch(offsets, over);
        assert_eq!(refused(&image), Error::Overlap { node: 0, value: id });
    }
}

#[test]
fn a_value_outside_the_arena_is_refused() {
    let mut image = chain().image();
    let (place, arena) = (value_word(&image, 2, place::VALUE_OFFSET), image.word(place::ARENA_LENGTH));
    image.patch(place, arena - 7);
    assert_eq!(refused(&image), Error::Field { name: "value offset", value: i64::from(arena - 7) });
    image.patch(place, u32::MAX);
    assert_eq!(refused(&image), Error::Field { name: "value offset", value: i64::from(u32::MAX) });
}

#[test]
fn reading_before_writing_is_refused() {
    let mut image = chain().image();
    let input_of_first = node_word(&image, 0) + place::NODE_HEADER;
    image.patch(input_of_first, 3);
    assert_eq!(refused(&image), Error::Order { node: 0, value: 3 });
    // Not even what the node writes itself.
    image.patch(input_of_first, 1);
    assert_eq!(refused(&image), Error::Order { node: 0, value: 1 });
}

#[test]
fn reading_after_the_last_use_is_refused() {
    let image = two_by_two().image();
    // Value 4, the sum, is read by nodes 3 and 5; value 7 is an output; there are 6 nodes.
    for (id, last_use, node) in [(4, 4, 5), (4, 0, 3), (7, 5, 6), (7, 0, 6), (0, u32::MAX, 0)] {
        let mut image = image.clone();
        image.patch(value_word(&image, id, place::VALUE_LAST_USE), last_use);
        let expected = match last_use {
            u32::MAX => Error::Field { name: "value last use", value: i64::from(u32::MAX) },
            _ => Error::Lifetime { node, value: id },
        };
        assert_eq!(refused(&image), expected, "value {id}, last use {last_use}");
    }
}

#[test]
fn a_last_use_that_is_too_late_only_keeps_the_value() {
    let mut image = two_by_two().image();
    let place = value_word(&image, 1, place::VALUE_LAST_USE);
    assert_eq!(image.word(place), 1);
    // If the input is needed to the end, no other value can have its place.
    image.patch(place, 6);
    assert!(matches!(refused(&image), Error::Overlap { value: 1, .. }));
}

#[test]
fn more_live_values_than_loading_tracks_are_refused() {
    let net = |outputs: usize| {
        let mut net = Builder::new(0);
        let input = net.input([1, 1, 8]);
        for _ in 0..outputs {
            let id = net.requantize(input, SCALE, 0);
            net.output(id);
        }
        net
    };
    // All outputs, and at the last node its input.
    let image = net(MOST_ALIVE - 1).image();
    assert!(CheckedImage::new(image.bytes(), ops::ALL).is_ok());
    let Err(error) = write(&net(MOST_ALIVE).model) else { panic!("too many are alive") };
    let expected = Error::TooManyAlive { node: MOST_ALIVE - 1, limit: MOST_ALIVE };
    assert_eq!(error, WriteError::Layer(expected));
    assert_eq!(
        error.to_string(),
        "at layer 127, counted from 0, more than 128 intermediate results are needed at the same time: use results soon after they \
         are made (long skip connections keep them), or give the model fewer inputs and outputs"
    );
    // An image of another writer: a chain in which each value is kept to the end in a place of its own.
    let mut net = Builder::new(0);
    let mut id = net.input([1, 1, 8]);
    for _ in 0..MOST_ALIVE {
        id = net.requantize(id, SCALE, 0);
    }
    net.output(id);
    let mut image = net.image();
    image.patch(place::ARENA_LENGTH, 8 * (MOST_ALIVE as u32 + 1));
    for id in 0..=MOST_ALIVE {
        image.patch(value_word(&image, id, place::VALUE_LAST_USE), MOST_ALIVE as u32);
        image.patch(value_word(&image, id, place::VALUE_OFFSET), 8 * id as u32);
    }
    assert_eq!(refused(&image), expected);
}
