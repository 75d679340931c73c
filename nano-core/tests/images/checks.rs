//! One broken rule each: images whose checksum is right and whose meaning is not.

use nano_core::image::Image;
use nano_core::{Error, Model, ops};

use crate::builder::{Aligned, Builder, SCALE, Window, conv_net, head_net, place, two_by_two};

fn refused(image: &Aligned) -> Error {
    let mut arena = vec![0; 1 << 16];
    Model::new(image.bytes(), &mut arena, ops::ALL).err().expect("the image is wrong")
}

/// A chain of requantizations: input 0, then values 1, 2, 3.
fn chain() -> Builder {
    let mut net = Builder::new(0);
    let mut id = net.input([1, 1, 8]);
    for _ in 0..3 {
        id = net.requantize(id, SCALE, 0);
    }
    net.output(id);
    net
}

fn value_word(image: &Aligned, id: usize, offset: usize) -> usize {
    image.word(place::VALUES) as usize + id * place::VALUE_LENGTH + offset
}

/// Offset of the node record of index `node`: its operator (u16), variant (u16), output (u16) and counts (u8, u8).
fn node_word(image: &Aligned, node: usize) -> usize {
    let start = image.word(place::NODES) as usize;
    // In `chain` all records are equally long.
    start + node * (image.word(place::NODES + 4) as usize / image.word(place::NODE_COUNT) as usize)
}
/// Bytes of a node record before its input ids.
const NODE_HEADER: usize = 20;

#[test]
fn an_image_of_another_version_names_both() {
    let mut image = chain().image();
    image.bytes_mut()[place::VERSION] = 3;
    image.reseal();
    assert_eq!(refused(&image), Error::Version { found: 3, expected: 2 });
    assert_eq!(
        refused(&image).to_string(),
        "the image has format version 3, this build reads 2: export the model again"
    );
}

#[test]
fn a_damaged_image_shows_both_checksums() {
    let mut image = chain().image();
    let stored = image.word(place::CHECKSUM);
    *image.bytes_mut().last_mut().unwrap() ^= 1;
    let Error::Checksum { stored: found, computed } = refused(&image) else { panic!("{}", refused(&image)) };
    assert_eq!(found, stored);
    image.reseal();
    assert_eq!(image.word(place::CHECKSUM), computed);
}

#[test]
fn a_file_of_another_kind_is_no_image() {
    for bytes in [&b""[..], b"NAN", b"TFL3", &[0; 200]] {
        assert_eq!(refused(&Aligned::new(bytes)), Error::NotAnImage, "{bytes:?}");
    }
}

#[test]
fn an_output_over_the_input_it_is_made_from_is_refused() {
    let mut image = chain().image();
    let place = value_word(&image, 1, place::VALUE_OFFSET);
    let of_input = image.word(value_word(&image, 0, place::VALUE_OFFSET));
    image.patch(place, of_input + 4);
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
    let offsets = image.word(place::NODES) as usize + 12;
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
    let input_of_first = node_word(&image, 0) + NODE_HEADER;
    image.patch(input_of_first, 3);
    assert_eq!(refused(&image), Error::Order { node: 0, value: 3 });
    // Not even what the node writes itself.
    image.patch(input_of_first, 1);
    assert_eq!(refused(&image), Error::Order { node: 0, value: 1 });
}

#[test]
fn writing_twice_and_writing_an_input_are_refused() {
    for (output, node) in [(1, 1), (0, 1)] {
        let mut image = chain().image();
        let word = node_word(&image, 1) + 4;
        let counts = image.word(word) & 0xffff_0000;
        image.patch(word, counts | output);
        assert_eq!(refused(&image), Error::Order { node, value: output as usize });
    }
}

#[test]
fn an_output_that_no_layer_writes_is_refused() {
    let mut net = chain();
    let lost = net.value([1, 1, 8], SCALE, 0);
    net.output(lost);
    assert_eq!(refused(&net.image()), Error::Order { node: 3, value: 4 });
}

#[test]
fn ids_beyond_the_values_are_refused() {
    let image = chain().image();
    for (word, error) in [
        (node_word(&image, 1) + NODE_HEADER, Error::Field { name: "node count", value: 3 }),
        (image.word(place::INTERFACE) as usize, Error::Field { name: "interface value id", value: 4 }),
    ] {
        let mut image = image.clone();
        image.patch(word, 4);
        assert_eq!(refused(&image), error);
    }
}

#[test]
fn values_have_a_size_a_scale_and_a_zero_point() {
    let field = |name, value: u32| Error::Field { name, value: i64::from(value) };
    let nan = f32::NAN.to_bits();
    let negative = (-1.0f32).to_bits();
    for (offset, word, error) in [
        (0, 0, field("value shape", 0)),
        (0, 1 << 30, field("value shape", 1 << 30)),
        // The product is 2^32 * 8, which 32 bits would take for 0.
        (4, u32::MAX, field("value shape", 1)),
        (12, nan, field("value scale (bits)", nan)),
        (12, negative, field("value scale (bits)", negative)),
        (12, 0, field("value scale (bits)", 0)),
        (16, 128, field("value zero point", 128)),
        (20, 1, field("value location", 1)),
    ] {
        let mut image = chain().image();
        let place = value_word(&image, 1, offset);
        image.patch(place, word);
        assert_eq!(refused(&image), error);
    }
}

#[test]
fn sections_lie_inside_the_image() {
    for section in [place::VALUES, place::NODES, place::INTERFACE, place::HEAD, place::METADATA, place::CONSTANTS] {
        let image = head_net().image();
        let given = image.bytes().len();
        for (offset, length) in [(given as u32, 4), (u32::MAX, 4), (80, u32::MAX), (u32::MAX, u32::MAX)] {
            let mut image = image.clone();
            image.patch(section, offset);
            image.patch(section + 4, length);
            let needed = length as usize;
            assert_eq!(refused(&image), Error::Truncated { offset: offset as usize, needed, given });
        }
    }
}

#[test]
fn a_variant_that_this_build_lacks_is_refused() {
    let mut image = conv_net().image();
    let first = image.word(place::NODES) as usize;
    let word = image.word(first);
    image.patch(first, (word & 0xffff) | 9 << 16);
    assert_eq!(refused(&image), Error::UnknownVariant { operator: "conv2d", variant: 9 });
}

#[test]
fn a_name_longer_than_a_device_sends_is_refused() {
    let mut net = chain();
    net.model.name = "n".repeat(60);
    let mut image = net.image();
    let metadata = image.word(place::METADATA) as usize;
    // The line break between name and label gone, the name has 60 + 9 bytes.
    let line = b"name=".len() + 60;
    assert_eq!(image.bytes()[metadata + line], b'\n');
    image.bytes_mut()[metadata + line] = b' ';
    image.reseal();
    assert_eq!(refused(&image), Error::Field { name: "name length", value: 70 });
}

#[test]
fn windows_that_a_32_bit_address_cannot_span_are_refused() {
    // 65,535 padded columns of 2^20 channels: modulo 2^32 their bytes would pass for a few.
    let mut net = Builder::new(0);
    let input = net.input([1, 1, 1 << 20]);
    let window = Window { padding: [0, 0, 32767, 32767], stride: [1, 32768], ..Window::new([1, 1]) };
    let output = net.depthwise_conv2d(input, window);
    net.output(output);
    let Err(error) = nano_core::image::write(&net.model) else { panic!("the window is too large") };
    assert_eq!(
        error.to_string(),
        "depthwise_conv2d: the padded rows under a window have more than 2^28 elements (found 68718428160)"
    );
}

#[test]
fn the_view_alone_refuses_what_needs_no_operator() {
    let mut image = chain().image();
    image.patch(place::NODE_COUNT, 2);
    assert!(matches!(Image::new(image.bytes()), Err(Error::Field { name: "node section length", .. })));
    image.patch(place::NODE_COUNT, 4);
    assert!(matches!(Image::new(image.bytes()), Err(Error::Field { name: "node count", value: 4 })));
}
