//! A history over the steps of a stream, in an arena with arbitrary contents.

use std::collections::VecDeque;

use nano_core::image::Tensor;
use nano_core::{CheckedImage, Error, ops};

use crate::builder::{Aligned, Builder, SCALE, Window, ZERO_POINT, place};

const ROWS: u32 = 3;
const START: [i8; 2] = [-128, 7];

/// A history of an input of this height and width.
fn image(height: u32, width: u32) -> Aligned {
    let mut net = Builder::new(0);
    let input = net.input([height, width, 2]);
    // The same elements, in a value that may have any pitch.
    let copied = net.max_pool2d(input, Window::new([1, 1]));
    let output = net.history(copied, ROWS);
    net.model.layers[1].tensors.insert("start".into(), Tensor::Int8(START.to_vec()));
    net.output(output);
    net.model.labels.clear();
    net.image()
}

#[test]
fn it_holds_the_rows_before_and_those_of_the_step() {
    for (height, width) in [(1, 1), (1, 2), (1, 9), (2, 1), (5, 4)] {
        let image = image(height, width);
        let checked = CheckedImage::new(image.bytes(), ops::ALL).unwrap();
        let mut arena = vec![0x5a; checked.image().arena_length()];
        let mut model = checked.bind(&mut arena).unwrap();
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..2 {
            let before = ROWS as usize * if height == 1 { 1 } else { width as usize };
            let mut rows: VecDeque<i8> = START.repeat(before).into();
            for step in 0..20 {
                let x: Vec<i8> = (0..height * width * 2).map(|_| random.i8(..)).collect();
                model.input(0).copy_from_slice(&x);
                model.run();
                rows.extend(&x);
                assert_eq!(rows, model.output(0), "{height} x {width}, step {step}");
                rows.drain(..x.len());
            }
            model.reset();
        }
    }
}

#[test]
fn its_input_may_be_interleaved_with_other_values() {
    let mut image = image(1, 4);
    let input = image.word(place::VALUES) as usize + place::VALUE_LENGTH;
    let end = image.word(place::ARENA_LENGTH);
    for (word, number) in [(place::VALUE_PITCH, 5), (place::VALUE_BYTES, 17), (place::VALUE_OFFSET, end)] {
        image.patch(input + word, number);
    }
    image.patch(place::ARENA_LENGTH, end + 17);
    let checked = CheckedImage::new(image.bytes(), ops::ALL).unwrap();
    let mut arena = vec![0; checked.image().arena_length()];
    let mut model = checked.bind(&mut arena).unwrap();
    let x: Vec<i8> = (0..8).collect();
    model.input(0).copy_from_slice(&x);
    model.run();
    assert_eq!(model.output(0)[2 * ROWS as usize..], x);
}

#[test]
fn an_output_of_another_quantization_is_refused() {
    let image = image(1, 4);
    let output = image.word(place::VALUES) as usize + 2 * place::VALUE_LENGTH;
    for (word, number) in
        [(place::VALUE_SCALE, (2.0 * SCALE).to_bits()), (place::VALUE_ZERO_POINT, (ZERO_POINT + 1) as u32)]
    {
        let mut image = image.clone();
        image.patch(output + word, number);
        let refused = CheckedImage::new(image.bytes(), ops::ALL).err();
        let rule = "an output has another scale or zero point than it must have";
        assert_eq!(refused, Some(Error::Layer { operator: "history", rule, value: 0 }));
    }
}
