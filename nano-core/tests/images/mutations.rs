//! Tens of thousands of damaged images.

use std::panic::{AssertUnwindSafe, catch_unwind};

use nano_core::image::Image;
use nano_core::train::{FeatureRing, Head, HeadSizes, SgdHead, Target, Training};
use nano_core::{Error, Model, ops};

use crate::builder::{Aligned, head_net, nets, place};
use crate::mutate::mutate;

const MUTATIONS: u64 = 10_000;
/// Bytes of arena; a mutated image that needs more is refused, as by a device.
const LARGEST_ARENA: usize = 1 << 16;

/// Every other one with its constants in RAM.
fn images() -> [Aligned; 12] {
    let mut in_ram = false;
    nets().map(|mut net| {
        in_ram = !in_ram;
        net.model.weights_in_ram = if in_ram { usize::MAX } else { 0 };
        net.image()
    })
}

/// Loads `bytes` and uses the whole interface of the image.
fn exercise(bytes: &[u8], random: &mut fastrand::Rng) -> Result<(), Error> {
    let image = Image::new(bytes)?;
    let mut arena = vec![0; image.arena_length().min(LARGEST_ARENA)];
    let mut model = Model::new(bytes, &mut arena, ops::ALL)?;
    assert!(image.metadata("label").count() <= bytes.len() && image.metadata("name").count() <= bytes.len());
    for node in image.nodes() {
        let operator = node.kernel(ops::ALL).expect("Model::new knows the kernel").operator;
        assert!((operator.macs)(&node) < 1 << 40, "{}", operator.name);
    }
    for _ in 0..2 {
        for index in 0..image.input_count() {
            model.input(index).fill_with(|| random.i8(..));
        }
        let mut layers = 0;
        model.run_observed(|_, _, _| layers += 1);
        assert_eq!(layers, image.nodes().count());
        for index in 0..image.output_count() {
            let value = image.output(index);
            assert_eq!(model.output(index).len(), value.len() * value.dtype().size());
        }
    }
    let Some(record) = image.head() else { return Ok(()) };
    let (classes, features) = (record.classes.min(1 << 15) as usize, image.output(0).len());
    let words = HeadSizes::of(record).words();
    let mut ram = vec![0; if words < 1 << 24 { words } else { 0 }];
    let mut head = SgdHead::new(&image, &mut ram)?;
    let (mut samples, mut labels) = (vec![0; 8 * features], [0; 8]);
    let mut ring = FeatureRing::new(features, &mut samples, &mut labels)?;
    for _ in 0..8 {
        let sample: Vec<i8> = (0..features).map(|_| random.i8(..)).collect();
        let label = random.u16(..classes as u16);
        assert!(head.predict(&sample)? < classes);
        head.learn(&sample, Target::Class(label))?;
        ring.push(&sample, Target::Class(label))?;
    }
    head.train(&ring, &mut Training::new(&ring, 0, 4)?, u32::MAX)?;
    let saved = head.state().to_vec();
    head.load(&saved)
}

/// Calls `check(seed, mutated image)` for every seed, and names the seed at which it panics.
fn for_each_mutation(mut check: impl FnMut(&mut Aligned, &mut fastrand::Rng)) {
    let images = images();
    for seed in 0..MUTATIONS {
        let original = &images[seed as usize % images.len()];
        let mut random = fastrand::Rng::with_seed(seed);
        let mut image = original.clone();
        while image.bytes() == original.bytes() {
            mutate(&mut image, &mut random);
        }
        let result = catch_unwind(AssertUnwindSafe(|| check(&mut image, &mut random)));
        assert!(result.is_ok(), "mutation with seed {seed}: see the panic above");
    }
}

#[test]
fn the_images_themselves_run() {
    for (index, image) in images().iter().enumerate() {
        assert_eq!(exercise(image.bytes(), &mut fastrand::Rng::with_seed(0)), Ok(()), "image {index}");
    }
}

#[test]
fn a_changed_image_is_refused() {
    let mut checksums = 0;
    for_each_mutation(|image, random| {
        let error = exercise(image.bytes(), random).expect_err("the image was changed");
        assert!(!error.to_string().is_empty());
        checksums += u32::from(matches!(error, Error::Checksum { .. }));
    });
    // The others are refused for the first words of the header.
    assert!(checksums > 8_000, "{checksums} were refused for their checksum");
}

#[test]
fn a_changed_image_with_the_right_checksum_is_refused_or_runs() {
    let (mut ran, mut refused) = (0, 0);
    for_each_mutation(|image, random| {
        image.reseal();
        match exercise(image.bytes(), random) {
            Ok(()) => ran += 1,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                refused += 1;
            }
        }
    });
    assert!(ran > 500 && refused > 1_000, "{ran} ran, {refused} were refused: the mutations miss one side");
}

#[test]
fn an_image_cut_short_anywhere_is_refused() {
    for image in images() {
        let length = image.bytes().len();
        for cut in 0..length {
            let error = Model::new(&image.bytes()[..cut], &mut [0; LARGEST_ARENA], ops::ALL).err();
            let expected = match cut {
                0..4 => Error::NotAnImage,
                4..place::HEADER_LENGTH => Error::Truncated { offset: 0, needed: place::HEADER_LENGTH, given: cut },
                _ => Error::Truncated { offset: 0, needed: length, given: cut },
            };
            assert_eq!(error, Some(expected), "{cut} of {length} bytes");
        }
    }
}

#[test]
fn every_flipped_bit_is_refused() {
    let mut image = head_net().image();
    for bit in 0..8 * image.bytes().len() {
        image.bytes_mut()[bit / 8] ^= 1 << (bit % 8);
        let error = Image::new(image.bytes()).err();
        let expected = match bit / 8 {
            0..4 => matches!(error, Some(Error::NotAnImage)),
            4..6 => matches!(error, Some(Error::Version { expected: 9, .. })),
            6..8 => matches!(error, Some(Error::Field { name: "header length", .. })),
            12..16 => matches!(error, Some(Error::Truncated { .. } | Error::Field { .. } | Error::Checksum { .. })),
            _ => matches!(error, Some(Error::Checksum { .. })),
        };
        assert!(expected, "bit {bit} gives {error:?}");
        image.bytes_mut()[bit / 8] ^= 1 << (bit % 8);
    }
}
