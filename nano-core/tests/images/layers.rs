//! Heads of several layers in images: nothing overflows, and invalid records are refused.

use nano_core::Error;
use nano_core::image::{HeadDescription, Image, LayersDescription, TrainedLayer, TrainedOperation, WriteError, write};
use nano_core::train::{AnyHead, Head, HeadSizes, Loss, Target, Update, aggregate};

use crate::builder::{Aligned, descent, head_net, place};

const FEATURES: usize = 6;
/// Bytes of a layer's record.
const RECORD: usize = 108;

/// Three layers, the first at two positions, every weight one of three numbers.
fn net(zero_point: i32, learning_rate: f64, loss: Loss) -> Result<Aligned, WriteError> {
    written(dense(loss), zero_point, learning_rate, loss)
}

fn dense(loss: Loss) -> Vec<TrainedLayer> {
    let mut random = fastrand::Rng::with_seed(5);
    let mut layer = |positions: u32, inputs: u32, outputs: u32, clamp_low| TrainedLayer {
        input: [positions, 1, inputs],
        output: [positions, 1, outputs],
        clamp_low,
        range: (-0.5, 1.0),
        ..TrainedLayer::fully_connected(
            (0..inputs * outputs).map(|_| random.choice([-0.5, 0.25, 0.5]).unwrap()).collect(),
            vec![0.1; outputs as usize],
        )
    };
    vec![layer(2, 3, 40, Some(0.0)), layer(1, 80, 30, None), layer(1, 30, outputs(loss), None)]
}

/// One layer of each kind, and sums of the features and of an earlier layer, over an image of two pixels by one.
fn residual(loss: Loss) -> Vec<TrainedLayer> {
    let mut random = fastrand::Rng::with_seed(6);
    let mut layer = |operation, kernel, padding, output, rows: u32, inputs: u32| TrainedLayer {
        operation,
        input: [2, 1, 3],
        output,
        kernel,
        padding,
        range: (-0.5, 1.0),
        ..TrainedLayer::fully_connected(
            (0..rows * inputs).map(|_| random.choice([-0.5, 0.25, 0.5]).unwrap()).collect(),
            vec![0.1; rows as usize],
        )
    };
    let (image, window) = ([2, 1, 3], [3, 1]);
    let convolution = layer(TrainedOperation::Convolution, window, [1, 0], image, 3, 9);
    let depthwise = layer(TrainedOperation::Depthwise, window, [1, 0], image, 3, 3);
    let sum_of_features = layer(TrainedOperation::Add(0), [1, 1], [0, 0], image, 0, 0);
    let sum = layer(TrainedOperation::Add(1), [1, 1], [0, 0], image, 0, 0);
    let kept = TrainedLayer { learns: false, ..convolution.clone() };
    let maximum = layer(TrainedOperation::MaxPool, window, [1, 0], image, 0, 0);
    let mean = layer(TrainedOperation::AveragePool, [2, 1], [0, 0], [1, 1, 3], 0, 0);
    let rows = outputs(loss);
    let weights = (0..3 * rows).map(|_| random.choice([-0.5, 0.25, 0.5]).unwrap()).collect();
    let last = TrainedLayer::fully_connected(weights, vec![0.1; rows as usize]);
    vec![convolution, depthwise, sum_of_features, sum, kept, maximum, mean, last]
}

const fn outputs(loss: Loss) -> u32 {
    if matches!(loss, Loss::Squared) { 1 } else { 3 }
}

fn written(layers: Vec<TrainedLayer>, zero_point: i32, learning_rate: f64, loss: Loss) -> Result<Aligned, WriteError> {
    let mut net = head_net();
    net.model.labels.truncate(outputs(loss) as usize);
    for id in 0..net.model.inputs.len() + net.model.layers.len() {
        net.value(id).zero_point = zero_point;
    }
    net.model.head = Some(HeadDescription::Layers(LayersDescription { layers, descent: descent(learning_rate, loss) }));
    write(&net.model).map(|bytes| Aligned::new(&bytes))
}

fn with_any<T>(image: &Aligned, act: impl FnOnce(AnyHead<'_>) -> T) -> Result<T, Error> {
    let image = Image::new(image.bytes())?;
    // Some records have sizes beyond any memory; they must be refused for their contents.
    let words = HeadSizes::of(image.head().unwrap()).words();
    let mut ram = vec![0; if words < 1 << 24 { words } else { 0 }];
    AnyHead::new(&image, &mut ram).map(act)
}

#[test]
fn the_largest_numbers_do_not_overflow() {
    for zero_point in [-128, 127, 0] {
        for (loss, targets) in [
            (Loss::CrossEntropy, [Target::Class(0), Target::Class(2)]),
            (Loss::Binary, [Target::Labels(0), Target::Labels(7)]),
            (Loss::Squared, [Target::Value(i32::MIN), Target::Value(i32::MAX)]),
        ] {
            let mut accepted = 0;
            for (layers, exponent) in (0..24).flat_map(|exponent| [(dense(loss), exponent), (residual(loss), exponent)])
            {
                let rate = 2f64.powi(exponent - 20);
                let words = 4 * (layers.len() + 1);
                let image = match written(layers, zero_point, rate, loss) {
                    Ok(image) => image,
                    Err(WriteError::Setting { name: "learning_rate", .. }) => continue,
                    Err(error) => panic!("{error}"),
                };
                accepted += 1;
                with_any(&image, |mut head| {
                    let ends = [[-128; FEATURES], [127; FEATURES], [127, -128, 127, -128, 127, -128]];
                    for step in 0..60 {
                        head.learn(&ends[step % 3], targets[step / 7 % 2]).unwrap();
                    }
                    let learnt = head.state().to_vec();
                    aggregate(&mut head, &[Update { state: &learnt, samples: u32::MAX }; 3], |_, error| Err(error))
                        .unwrap();
                    assert_eq!(head.state(), learnt);
                    // Every weight at its bound, in both directions.
                    let mut state = head.state().to_vec();
                    for (index, weight) in state[words..].chunks_exact_mut(2).enumerate() {
                        let v: i16 = if index % 5 == 0 { -32000 } else { 32000 };
                        weight.copy_from_slice(&(v + 128).to_le_bytes());
                    }
                    head.load(&state).unwrap();
                    for step in 0..60 {
                        head.learn(&ends[step % 3], targets[step % 2]).unwrap();
                    }
                    let left = head.state().to_vec();
                    head.load(&left).unwrap();
                })
                .unwrap();
            }
            assert!(accepted > 16, "{accepted} rates");
        }
    }
}

#[test]
fn records_that_no_writer_leaves_are_refused() {
    let good = net(-128, 0.01, Loss::CrossEntropy).unwrap();
    let record = good.word(place::HEAD) as usize;
    // The head's record: trainer, classes, features, constants (here: multiplier, its shift, loss, halvings, layers, weights, hidden).
    for (word, value) in [
        (1, 4),
        (1, 0),
        (3, 0),
        (4, 64),
        (5, 3),
        (6, u32::MAX),
        (7, 2),
        (7, 0),
        (8, 7),
        (9, 7),
        (9, u32::MAX),
        (11, 0),
        (13, 8),
    ] {
        let mut image = good.clone();
        image.patch(record + 4 * word, value);
        let found = with_any(&image, |_| ());
        assert!(matches!(found, Err(Error::Field { .. })), "word {word} = {value}: {found:?}");
    }
    let state = good.word(place::CONSTANTS) as usize + good.word(record + 4 * 12) as usize;
    // A layer's record: operation, input, output, kernel, stride, padding, other term, learns, bias input, rate, its shift, output shift, zero
    // point, low, high, shifts of terms, shift of a skipped error, scales.
    for (word, value) in [
        (0, 1),
        (0, 5),
        (1, 0),
        (1, 3),
        (3, 2),
        (3, 0),
        (4, 0),
        (4, 3),
        (6, 0),
        (6, u32::MAX),
        (7, 0),
        (7, 1 << 16),
        (9, 0),
        (11, 1),
        (12, u32::MAX),
        (13, 1),
        (14, 0),
        (14, 2),
        (15, 0),
        (15, 129),
        (16, 0),
        (17, 0),
        (17, 31),
        (18, 31),
        (19, 128),
        (20, 200),
        (21, 128),
        (21, -128i32 as u32 - 1),
        (22, 16),
        (23, -1i32 as u32),
        (24, -16i32 as u32),
        (25, 0),
        (26, f32::NAN.to_bits()),
    ] {
        for layer in 0..2 {
            let mut image = good.clone();
            image.patch(state + layer * RECORD + 4 * word, value);
            let found = with_any(&image, |_| ());
            assert!(matches!(found, Err(Error::Field { .. })), "layer {layer}, word {word} = {value}: {found:?}");
        }
    }
    let mut image = good.clone();
    image.patch(state + 3 * RECORD, (1 << 15) + 1);
    assert!(matches!(with_any(&image, |_| ()), Err(Error::Field { name: "weight of a class", .. })));
}

#[test]
fn memory_of_another_size_is_refused() {
    let image = net(-128, 0.01, Loss::CrossEntropy).unwrap();
    let image = Image::new(image.bytes()).unwrap();
    let needed = HeadSizes::of(image.head().unwrap()).words();
    for given in [0, needed - 1, needed + 1] {
        let mut ram = vec![0; given];
        let found = AnyHead::new(&image, &mut ram).map(|_| ());
        assert_eq!(found, Err(Error::Length { name: "head RAM in words", needed, given }));
    }
}
