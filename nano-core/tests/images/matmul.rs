//! Matrix products by their definition, also of values whose rows do not follow each other in memory.

use nano_core::fixed_point::Multiplier;
use nano_core::{CheckedImage, ops};

use crate::builder::{Builder, SCALE, ZERO_POINT};

/// Elements of one value, and its sides.
struct Matrices {
    shape: [u32; 3],
    elements: Vec<i8>,
}

impl Matrices {
    fn random(shape: [u32; 3], random: &mut fastrand::Rng) -> Self {
        let extreme = random.u8(..4) == 0;
        let element = |_| if extreme { random.choice([-128, 127]).unwrap() } else { random.i8(..) };
        Matrices { shape, elements: (0..shape.iter().product()).map(element).collect() }
    }

    fn at(&self, matrix: u32, row: u32, column: u32) -> i64 {
        let [_, rows, columns] = self.shape;
        i64::from(self.elements[((matrix * rows + row) * columns + column) as usize])
    }
}

fn product(a: &Matrices, b: &Matrices, transpose_b: bool, zero_points: [i32; 3], real: f64) -> Vec<i8> {
    let ([batch, rows, inner], [_, width, channels]) = (a.shape, b.shape);
    let columns = if transpose_b { width } else { channels };
    let multiplier = Multiplier::from_real(real).unwrap();
    let [of_a, of_b, of_output] = zero_points.map(i64::from);
    let mut output = vec![];
    for (matrix, row) in (0..batch).flat_map(|matrix| (0..rows).map(move |row| (matrix, row))) {
        for column in 0..columns {
            let of_b_at = |k| if transpose_b { b.at(matrix, column, k) } else { b.at(matrix, k, column) };
            let sum: i64 = (0..inner).map(|k| (a.at(matrix, row, k) - of_a) * (of_b_at(k) - of_b)).sum();
            let scaled = i64::from(multiplier.apply(sum.try_into().unwrap()));
            output.push((scaled + of_output).clamp(-128, 127) as i8);
        }
    }
    output
}

#[test]
fn products_are_those_of_the_definition() {
    for seed in 0..400 {
        let random = &mut fastrand::Rng::with_seed(seed);
        let [batch, rows, inner, columns] = [4, 10, 30, 40].map(|most| random.u32(1..most));
        let transpose_b = random.bool();
        let a = Matrices::random([batch, rows, inner], random);
        let of_b = if transpose_b { [batch, columns, inner] } else { [batch, inner, columns] };
        let b = Matrices::random(of_b, random);
        let any = i32::from(random.i8(..));
        let zero_points = [0, 1, 2].map(|_| random.choice([-128, 127, 0, ZERO_POINT, any]).unwrap());
        // Of multipliers above and below 1.
        let scale = SCALE * SCALE / random.choice([3.0, 0.05, 0.001, 0.00001]).unwrap();

        let mut net = Builder::new(seed);
        let inputs = [a.shape, b.shape].map(|shape| net.input(shape));
        let output = net.matmul(inputs[0], inputs[1], transpose_b, scale);
        for (id, zero_point) in inputs.into_iter().chain([output]).zip(zero_points) {
            net.value(id).zero_point = zero_point;
        }
        net.output(output);
        net.model.labels.clear();
        let image = net.image();
        let checked = CheckedImage::new(image.bytes(), ops::ALL).unwrap();
        let mut arena = vec![0x5a; checked.image().arena_length()];
        let mut model = checked.bind(&mut arena).unwrap();
        model.input(0).copy_from_slice(&a.elements);
        model.input(1).copy_from_slice(&b.elements);
        model.run();
        let real = f64::from(SCALE) * f64::from(SCALE) / f64::from(scale);
        let expected = product(&a, &b, transpose_b, zero_points, real);
        assert_eq!(model.output(0), expected, "seed {seed}: {:?} times {:?}", a.shape, b.shape);
    }
}

#[test]
fn rows_may_lie_apart_in_memory() {
    for seed in 0..100 {
        let random = &mut fastrand::Rng::with_seed(seed);
        let [rows, inner, columns] = [10, 9, 24].map(|most| random.u32(1..most));
        let (transpose_b, parts) = (random.bool(), 2);
        let of_b = if transpose_b { [1, columns, inner] } else { [1, inner, columns] };
        // Two products side by side, of the two halves of each input's channels.
        let wide = |[height, width, channels]: [u32; 3]| [height, width, parts * channels];
        let whole = [[1, rows, inner], of_b].map(|shape| Matrices::random(wide(shape), random));
        let halves = |whole: &Matrices, part: u32| {
            let [height, width, channels] = whole.shape;
            let channels = channels / parts;
            let elements = whole.elements.chunks(channels as usize).skip(part as usize).step_by(parts as usize);
            Matrices { shape: [height, width, channels], elements: elements.flatten().copied().collect() }
        };
        let mut net = Builder::new(seed);
        let inputs = [0, 1].map(|index: usize| net.input(whole[index].shape));
        let mut products = vec![];
        for part in 0..parts {
            let of_part = [0, 1].map(|index: usize| {
                let [height, width, channels] = whole[index].shape;
                let (pitch, channels) = (i64::from(channels), channels / parts);
                let tables = [height * width, 1, channels].map(|length| (0..length as i32).collect::<Vec<_>>());
                let [pixels, column, mut of_channels] = tables;
                let pixels = pixels.into_iter().map(|pixel| pixel * pitch as i32).collect();
                of_channels.iter_mut().for_each(|channel| *channel += (part * channels) as i32);
                let first = i64::from(part * channels);
                net.part(inputs[index], [height, width, channels], [pixels, column, of_channels], [first, pitch])
            });
            products.push(net.matmul(of_part[0], of_part[1], transpose_b, 0.07));
        }
        net.value(products[1]).scale = 0.07;
        let output = net.concat(&products, 2);
        net.output(output);
        net.model.labels.clear();
        let image = net.image();
        let checked = CheckedImage::new(image.bytes(), ops::ALL).unwrap();
        let pitched = |value: &nano_core::image::Value| value.pitch != value.shape[2];
        assert!(checked.image().values().iter().any(pitched) || rows * inner * columns == 1, "seed {seed}");
        let mut arena = vec![0x5a; checked.image().arena_length()];
        let mut model = checked.bind(&mut arena).unwrap();
        whole.iter().enumerate().for_each(|(index, whole)| model.input(index).copy_from_slice(&whole.elements));
        model.run();
        let real = f64::from(SCALE) * f64::from(SCALE) / f64::from(0.07f32);
        let [first, second] = [0, 1].map(|part| {
            product(&halves(&whole[0], part), &halves(&whole[1], part), transpose_b, [ZERO_POINT; 3], real)
        });
        let columns = columns as usize;
        let expected: Vec<i8> =
            first.chunks(columns).zip(second.chunks(columns)).flat_map(|(a, b)| [a, b].concat()).collect();
        assert_eq!(model.output(0), expected, "seed {seed}");
    }
}
