//! Constants that are copied to RAM: which, where, and the same bytes as from flash.

use nano_core::image::Image;
use nano_core::{CheckedImage, Error, ops};

use crate::builder::{Aligned, Builder, SCALE, Window, nets, place};
use crate::checks::refused;

/// The outputs for random inputs, in an arena that starts `offset` bytes after a multiple of 16.
fn outputs(image: &Aligned, offset: usize) -> Vec<Vec<i8>> {
    let checked = CheckedImage::new(image.bytes(), ops::ALL).unwrap();
    let mut memory = vec![0x5a5a_5a5a_5a5a_5a5au128; checked.image().arena_length().div_ceil(16) + 1];
    let arena = zerocopy::IntoBytes::as_mut_bytes(&mut memory[..]);
    let arena = zerocopy::FromBytes::mut_from_bytes(arena).unwrap();
    let arena: &mut [i8] = arena;
    let mut model = checked.bind(&mut arena[offset..][..checked.image().arena_length()]).unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    for index in 0..model.image().input_count() {
        model.input(index).fill_with(|| random.i8(..));
    }
    model.run();
    (0..model.image().output_count()).map(|index| model.output(index).to_vec()).collect()
}

/// The nodes whose constants are copied.
fn in_ram(image: &Aligned) -> Vec<usize> {
    let view = Image::new(image.bytes()).unwrap();
    let nodes = view.nodes().enumerate();
    nodes.filter(|(_, node)| node.has_constants_in_ram()).map(|(index, _)| index).collect()
}

#[test]
fn a_run_gives_the_same_bytes_whichever_constants_are_in_ram() {
    let mut random = fastrand::Rng::with_seed(3);
    for (index, mut net) in nets().into_iter().enumerate() {
        let from_flash = net.image();
        let expected = outputs(&from_flash, 0);
        let without = Image::new(from_flash.bytes()).unwrap().arena_length();
        net.model.weights_in_ram = usize::MAX;
        let all = Image::new(net.image().bytes()).unwrap().constants_in_ram();
        assert!(all > 0, "net {index}");
        for budget in [all, all - 1, random.usize(..all), random.usize(..all)] {
            net.model.weights_in_ram = budget;
            let image = net.image();
            let view = Image::new(image.bytes()).unwrap();
            assert!(view.constants_in_ram() <= budget, "net {index}, budget {budget}");
            let copied = view.constants_in_ram();
            let padding = if copied == 0 { 0 } else { 15 };
            assert_eq!(view.arena_length(), without + padding + copied, "net {index}, budget {budget}");
            // The copies need no alignment of the arena beyond that of the values.
            for offset in [0, 4, 8, 12] {
                assert_eq!(outputs(&image, offset), expected, "net {index}, budget {budget}, offset {offset}");
            }
            // What is copied is also the smallest budget that copies it.
            net.model.weights_in_ram = copied;
            assert_eq!(net.image().bytes(), image.bytes(), "net {index}, budget {budget}");
        }
    }
}

#[test]
fn a_bound_node_reads_its_copy() {
    for mut net in nets() {
        net.model.weights_in_ram = usize::MAX;
        let image = net.image();
        let checked = CheckedImage::new(image.bytes(), ops::ALL).unwrap();
        let mut words = vec![0u32; checked.image().arena_length().div_ceil(4)];
        let arena: &mut [i8] =
            zerocopy::FromBytes::mut_from_bytes(zerocopy::IntoBytes::as_mut_bytes(&mut words[..])).unwrap();
        let range = arena.as_ptr_range();
        let ram = range.start.addr()..range.end.addr();
        let model = checked.bind(arena).unwrap();
        let mut copied = 0;
        for (node, original) in model.image().nodes().zip(checked.image().nodes()) {
            for index in 0.. {
                let Ok(constant) = node.constant::<u8>(index) else { break };
                assert_eq!(constant, original.constant::<u8>(index).unwrap());
                assert_eq!(node.has_constants_in_ram(), ram.contains(&constant.as_ptr().addr()));
                assert!(!ram.contains(&original.constant::<u8>(index).unwrap().as_ptr().addr()));
                copied += usize::from(node.has_constants_in_ram());
            }
        }
        assert!(copied > 0);
    }
}

/// A fully connected layer, an embedding of which a run reads two rows, and a convolution whose constants exceed the cache: they are walked for each of
/// four tiles.
fn unequal() -> Builder {
    let mut net = Builder::new(0);
    let pixels = net.input([4, 4, 32]);
    let small = net.input([1, 1, 100]);
    let indices = net.indices(2);
    let connected = net.fully_connected(small, 40);
    let rows = net.embedding(indices, 1000, 8);
    let convolved = net.conv2d(pixels, 64, 1, Window { padding: [1; 4], ..Window::new([3, 3]) });
    [connected, rows, convolved].into_iter().for_each(|id| net.output(id));
    net
}

#[test]
fn what_saves_most_reads_of_flash_per_byte_comes_first() {
    let mut net = unequal();
    net.model.weights_in_ram = usize::MAX;
    let image = net.image();
    assert_eq!(in_ram(&image), [0, 1, 2]);
    let bytes: Vec<usize> = Image::new(image.bytes()).unwrap().nodes().map(|node| node.constant_bytes()).collect();
    for (budget, expected) in [
        (bytes[2], vec![2]),
        (bytes[0] + bytes[1], vec![0, 1]),
        (bytes[0] + bytes[1] - 1, vec![0]),
        (bytes[2] + bytes[0], vec![0, 2]),
        (bytes[0] - 1, vec![]),
        (0, vec![]),
    ] {
        net.model.weights_in_ram = budget;
        assert_eq!(in_ram(&net.image()), expected, "budget {budget}, constants {bytes:?}");
    }
}

#[test]
fn damaged_places_of_constants_in_ram_are_refused() {
    let mut net = Builder::new(0);
    let mut id = net.input([1, 1, 8]);
    for _ in 0..3 {
        id = net.requantize(id, SCALE / 2.0, 3);
    }
    net.output(id);
    net.model.weights_in_ram = usize::MAX;
    let image = net.image();
    assert_eq!(in_ram(&image), [0, 1, 2]);
    let node = |image: &Aligned, index: usize| {
        image.word(place::NODES) as usize + index * (image.word(place::NODES + 4) as usize / 3)
    };
    let field = |name, value| Error::Field { name, value };

    let mut unknown = image.clone();
    let first = node(&unknown, 0);
    unknown.bytes_mut()[first + place::NODE_CONSTANTS_IN_RAM] = 2;
    unknown.reseal();
    assert_eq!(refused(&unknown), field("memory of a node's constants", 2));

    // The constants of two nodes at one place.
    let mut shared = image.clone();
    // After its input and two attributes.
    let second = node(&shared, 1) + place::NODE_HEADER + 12;
    assert_eq!(shared.word(second), 16);
    shared.patch(second, 0);
    assert_eq!(refused(&shared), field("constant offset (inside the constant before)", 0));

    // In the section of flash, which holds nothing.
    let mut empty = image.clone();
    empty.bytes_mut()[first + place::NODE_CONSTANTS_IN_RAM] = 0;
    empty.reseal();
    let Error::Layer { operator, .. } = refused(&empty) else { panic!("{}", refused(&empty)) };
    assert_eq!(operator, "requantize");

    let mut large = image.clone();
    large.patch(place::ARENA_LENGTH, i32::MAX as u32 - 62);
    assert_eq!(refused(&large), field("arena length", i64::from(i32::MAX) - 62));
    let mut bytes = vec![0; Image::new(image.bytes()).unwrap().arena_length() - 1];
    let needed = bytes.len() + 1;
    let checked = CheckedImage::new(image.bytes(), ops::ALL).unwrap();
    assert_eq!(checked.bind(&mut bytes).err(), Some(Error::ArenaTooSmall { needed, given: needed - 1 }));
}
