//! Images with a valid checksum that break one rule each.

use nano_core::image::Image;
use nano_core::{CheckedImage, Error, Model, ops};

use crate::builder::{Aligned, Builder, SCALE, Window, conv_net, head_net, place};

pub fn refused(image: &Aligned) -> Error {
    let mut arena = vec![0; 1 << 16];
    Model::new(image.bytes(), &mut arena, ops::ALL).err().expect("the image is wrong")
}

/// A chain of requantizations: input 0, then values 1, 2, 3.
pub fn chain() -> Builder {
    let mut net = Builder::new(0);
    let mut id = net.input([1, 1, 8]);
    for _ in 0..3 {
        id = net.requantize(id, SCALE, 0);
    }
    net.output(id);
    net
}

pub fn value_word(image: &Aligned, id: usize, offset: usize) -> usize {
    image.word(place::VALUES) as usize + id * place::VALUE_LENGTH + offset
}

/// Offset of the node record of index `node`: its kernel (u16), form (u8) and counts (u8, u8, u8, u16).
pub fn node_word(image: &Aligned, node: usize) -> usize {
    let start = image.word(place::NODES) as usize;
    // In `chain` all records are equally long.
    start + node * (image.word(place::NODES + 4) as usize / 3)
}

#[test]
fn an_image_of_another_version_names_both() {
    let mut image = chain().image();
    image.bytes_mut()[place::VERSION] = 2;
    image.reseal();
    assert_eq!(refused(&image), Error::Version { found: 2, expected: 9 });
    assert_eq!(
        refused(&image).to_string(),
        "the image has format version 2, this build reads 9: export the model again"
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
fn ids_beyond_the_values_are_refused() {
    let image = chain().image();
    for (word, error) in [
        (
            node_word(&image, 1) + place::NODE_HEADER,
            Error::Field { name: "node section (too short, or a value id is too large: node)", value: 1 },
        ),
        (image.word(place::OUTPUTS) as usize, Error::Field { name: "output value id", value: 4 }),
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
        // The product is 2^32 * 8, which is 0 in 32 bits.
        (4, u32::MAX, field("value shape", 1)),
        (place::VALUE_PITCH, 7, field("value pitch", 7)),
        (place::VALUE_PITCH, u32::MAX, field("value pitch", u32::MAX)),
        (place::VALUE_SCALE, nan, field("value scale (bits)", nan)),
        (place::VALUE_SCALE, negative, field("value scale (bits)", negative)),
        (place::VALUE_SCALE, 0, field("value scale (bits)", 0)),
        (place::VALUE_ZERO_POINT, 128, field("value zero point", 128)),
        (place::VALUE_BYTES, 9, field("value length", 9)),
        (place::VALUE_DTYPE, 3, field("value dtype", 3)),
        (place::VALUE_DTYPE, 2 << 8, field("value place", 2)),
        (place::VALUE_DTYPE, 1 << 16, field("value place", 0)),
        // The zero point of another dtype is 0.
        (place::VALUE_DTYPE, 1, field("value zero point", 12)),
    ] {
        let mut net = chain();
        net.value(1).zero_point = 12;
        let mut image = net.image();
        let place = value_word(&image, 1, offset);
        image.patch(place, word);
        assert_eq!(refused(&image), error);
    }
}

#[test]
fn sections_beyond_the_image_are_refused() {
    for section in [
        place::VALUES,
        place::NODES,
        place::INPUTS,
        place::OUTPUTS,
        place::HEAD,
        place::METADATA,
        place::LABEL_ORDER,
        place::CONSTANTS,
        place::CONSTANTS_IN_RAM,
    ] {
        let image = head_net().image();
        let given = image.bytes().len();
        for (offset, length) in [(given as u32, 4), (u32::MAX, 4), (92, u32::MAX), (u32::MAX, u32::MAX)] {
            let mut image = image.clone();
            image.patch(section, offset);
            image.patch(section + 4, length);
            let needed = length as usize;
            assert_eq!(refused(&image), Error::Truncated { offset: offset as usize, needed, given });
        }
    }
}

#[test]
fn a_form_that_this_build_lacks_is_refused() {
    let mut image = conv_net().image();
    let first = image.word(place::NODES) as usize;
    image.bytes_mut()[first + place::NODE_FORM] = 9;
    image.reseal();
    assert_eq!(refused(&image), Error::UnknownForm { operator: "conv2d", form: 9 });
}

const INTERFACE: &str = "input=input 0\noutput=output 0\n";

/// Puts bytes into the metadata of a chain, from `offset` on; the lines of [`INTERFACE`] do not count.
fn with_metadata(name: &str, labels: &[&str], offset: usize, bytes: &[u8]) -> Error {
    let mut net = chain();
    net.model.name = name.into();
    net.model.labels = labels.iter().map(|&label| label.into()).collect();
    let mut image = net.image();
    // The names of input and output stand between the model's and the labels.
    let offset = if offset < b"name=\n".len() + name.len() { offset } else { offset + INTERFACE.len() };
    let place = image.word(place::METADATA) as usize + offset;
    image.bytes_mut()[place..place + bytes.len()].copy_from_slice(bytes);
    image.reseal();
    refused(&image)
}

#[test]
fn a_name_longer_than_a_device_sends_is_refused() {
    // Without the line break after it, the name has 60 + 14 bytes.
    let error = with_metadata(&"n".repeat(60), &["yes"], b"name=".len() + 60, b" ");
    assert_eq!(error, Error::Field { name: "metadata line (not the model's name)", value: 0 });
}

#[test]
fn names_and_labels_that_no_writer_would_write_are_refused() {
    let name = Error::Field { name: "metadata line (not the model's name)", value: 0 };
    let label = |line| Error::Field { name: "metadata line (not the name of a class)", value: line };
    let order = |offset| {
        let value = offset + INTERFACE.len() as i64;
        Error::Field { name: "label order (two alike, or not sorted, at)", value }
    };
    // "name=x\nlabel=aa\nlabel=ab\n"
    let labels = ["aa", "ab"];
    for (offset, bytes, error) in [
        (0, &b"n4me"[..], name),
        (5, b"\r", name),
        (5, b"\0", name),
        (7, b"lapel", label(1)),
        (13, b"\0a", label(1)),
        (13, b"a\n", label(2)),
        (13, b"\na", label(1)),
        // One label of both lines, and an order of two.
        (15, b" ", Error::Field { name: "label order length", value: 2 }),
        (24, b"b", label(2)),
        (13, b"ab", order(22)),
        (13, b"ac", order(22)),
    ] {
        assert_eq!(with_metadata("x", &labels, offset, bytes), error, "{offset} {bytes:?}");
    }
    // Longer than 64 bytes: two labels of 30, joined.
    let error = with_metadata("x", &[&"a".repeat(30), &"b".repeat(30)], 43, b" ");
    assert_eq!(error, label(1));
    assert_eq!(
        with_metadata("x", &["é"], 13, b"\xff"),
        Error::Field { name: "metadata (not UTF-8 at)", value: 13 + INTERFACE.len() as i64 }
    );
}

#[test]
fn the_order_of_the_labels_holds_each_once() {
    let mut net = chain();
    net.model.labels = ["b", "a", "c"].map(String::from).into();
    let image = net.image();
    let order = image.word(place::LABEL_ORDER) as usize;
    let offsets = [0, 1, 2].map(|index| image.word(order + 4 * index));
    assert!(offsets[1] < offsets[0] && offsets[0] < offsets[2], "sorted: {offsets:?}");
    // Twice, swapped, in the middle of a label, at the name, outside.
    for (index, offset) in [(1, offsets[0]), (0, offsets[2]), (2, offsets[2] - 1), (0, 5), (2, 1 << 20), (2, u32::MAX)]
    {
        let mut image = image.clone();
        image.patch(order + 4 * index, offset);
        assert!(matches!(refused(&image), Error::Field { name: "label order (two alike, or not sorted, at)", .. }));
    }
    for length in [8, 0] {
        let mut image = image.clone();
        image.patch(place::LABEL_ORDER + 4, length);
        assert_eq!(refused(&image), Error::Field { name: "label order length", value: i64::from(length / 4) });
    }
}

#[test]
fn more_labels_than_classes_are_refused() {
    let mut net = chain();
    net.model.labels = (0..8).map(|class| class.to_string()).collect();
    let mut image = net.image();
    // The output has 8 elements; those of one with 7 have no eighth class.
    let output = value_word(&image, 3, 8);
    let expected = Error::Full { name: "names of classes", capacity: 7 };
    image.patch(output, 7);
    image.patch(value_word(&image, 3, place::VALUE_BYTES), 7);
    assert_eq!(refused(&image), expected);
}

#[test]
fn heads_that_no_trainer_has_are_refused_at_load() {
    let image = head_net().image();
    let record = image.word(place::HEAD) as usize;
    for (offset, word, error) in [
        (0, 99, Error::Field { name: "head trainer", value: 99 }),
        (4, 0, Error::Field { name: "head classes", value: 0 }),
        (4, 1 << 20, Error::Field { name: "head classes", value: 1 << 20 }),
        (8, 7, Error::Field { name: "head features", value: 7 }),
        (4, 1, Error::Full { name: "names of classes", capacity: 1 }),
    ] {
        let mut image = image.clone();
        image.patch(record + offset, word);
        assert_eq!(refused(&image), error);
    }
}

#[test]
fn windows_that_a_32_bit_address_cannot_span_are_refused() {
    // 65,535 padded columns of 2^20 channels: modulo 2^32 these are few bytes.
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

/// The count is the same on 32 bits, where a product of sizes can exceed usize.
#[test]
fn multiplications_are_counted_in_64_bits() {
    let mut net = Builder::new(0);
    let input = net.input([1 << 12, 1 << 14, 1]);
    let output = net.depthwise_conv2d(input, Window { padding: [7, 8, 7, 8], ..Window::new([16, 16]) });
    net.output(output);
    let image = net.image();
    let node = Image::new(image.bytes()).unwrap().nodes().next().unwrap();
    assert_eq!((node.kernel(ops::ALL).unwrap().operator.macs)(&node), 1 << 34);
}

/// Constants shared by many nodes would be checked for each of them.
#[test]
fn a_constant_inside_another_is_refused() {
    let constant = |image: &Aligned, node| node_word(image, node) + place::NODE_HEADER + 4 * (1 + 2);
    let mut image = chain().image();
    let first = image.word(constant(&image, 0));
    image.patch(constant(&image, 1), first);
    let error = Error::Field { name: "constant offset (inside the constant before)", value: first.into() };
    assert_eq!(refused(&image), error);
}

/// Pools with an empty window: the first, the last, or one in between whose dilation skips the whole input.
#[test]
fn windows_without_an_element_are_refused() {
    let refused = |window: Window| {
        let mut net = Builder::new(0);
        let input = net.input([1, 4, 2]);
        let output = net.max_pool2d(input, window);
        net.output(output);
        CheckedImage::new(net.image().bytes(), ops::ALL).err()
    };
    let rule = |rule, value| Some(Error::Layer { operator: "max_pool2d", rule, value });
    let window = |kernel, dilation, left, right| Window {
        dilation: [1, dilation],
        padding: [0, 0, left, right],
        ..Window::new([1, kernel])
    };
    assert_eq!(refused(window(2, 1, 1, 1)), None);
    assert_eq!(refused(window(2, 1, 2, 1)), rule("a window lies in the padding alone", 0));
    assert_eq!(refused(window(2, 1, 1, 2)), rule("a window lies in the padding alone", 5));
    assert_eq!(refused(window(2, 4, 3, 3)), None);
    assert_eq!(refused(window(2, 5, 3, 3)), rule("the dilation is larger than the input", 5));
    assert_eq!(refused(window(1, 5, 0, 0)), None);
}

#[test]
fn the_view_checks_everything_that_needs_no_operator() {
    let mut image = chain().image();
    let nodes = image.word(place::NODES + 4);
    image.patch(place::NODES + 4, nodes - 4);
    let name = "node section (too short, or a value id is too large: node)";
    assert_eq!(Image::new(image.bytes()).err(), Some(Error::Field { name, value: 2 }));
    // The head section is empty, so that there is room after the nodes.
    image.patch(place::NODES + 4, nodes + 4);
    assert_eq!(
        Image::new(image.bytes()).err(),
        Some(Error::Field { name: "node section length", value: i64::from(nodes + 4) })
    );
    for count in [0, 5] {
        let mut image = chain().image();
        image.patch(place::INPUTS + 4, place::INPUT_LENGTH as u32 * count);
        let expected = Error::Field { name: "number of inputs", value: i64::from(count) };
        assert_eq!(Image::new(image.bytes()).err(), Some(expected));
    }
    let mut image = chain().image();
    let values = image.word(place::VALUES + 4);
    image.patch(place::VALUES + 4, values + place::VALUE_LENGTH as u32);
    let first = node_word(&image, 0);
    // The fifth value would be the first node's record.
    assert_eq!(first, (image.word(place::VALUES) + values) as usize);
    assert!(matches!(Image::new(image.bytes()).err(), Some(Error::Field { .. })));
    let mut image = chain().image();
    image.patch(place::OUTPUTS + 4, 0);
    assert_eq!(Image::new(image.bytes()).err(), Some(Error::Field { name: "number of outputs", value: 0 }));
}
