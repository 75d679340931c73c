//! Winograd convolutions: their bytes are those of im2col.

use nano_core::image::{Image, Optimize, Tensor, WriteError, write_with};
use nano_core::{CheckedImage, Kernel, Model, ops};

use crate::builder::{Aligned, Builder, SCALE, Window, place};

/// The kernels of a convolution, and those of one that is fused with an addition.
const KERNELS: [(&[Kernel], &str); 5] = [
    (&[ops::CONV2D_WINOGRAD4], "conv2d_winograd4"),
    (&[ops::CONV2D_WINOGRAD4_TRANSFORMED], "conv2d_winograd4_transformed"),
    (&[ops::CONV2D_WINOGRAD2], "conv2d_winograd2"),
    (&[ops::CONV2D_WINOGRAD4, ops::ADD, ops::CONV2D_ADD_WINOGRAD4], "conv2d_add_winograd4"),
    (&[ops::CONV2D_WINOGRAD2, ops::ADD, ops::CONV2D_ADD_WINOGRAD2], "conv2d_add_winograd2"),
];

const IM2COL: &[Kernel] = &[ops::CONV2D, ops::ADD];

/// A random 3x3 convolution of stride 1, which may be added to a second input.
fn random_net(random: &mut fastrand::Rng, added: bool) -> Builder {
    let mut net = Builder::new(random.u64(..));
    net.model.labels.clear();
    net.model.optimize = Optimize::Ram;
    let padding = [(); 4].map(|()| random.u32(..4));
    let largest = *random.choice(&[6, 12, 30]).unwrap();
    let mut side = |padding: u32| random.u32(1..largest).max(3u32.saturating_sub(padding));
    let (height, width) = (side(padding[0] + padding[1]), side(padding[2] + padding[3]));
    let (inputs, outputs) = (random.u32(1..20), random.u32(1..11));
    let input = net.input([height, width, inputs]);
    let window = Window { padding, ..Window::new([3, 3]) };
    let residual = added.then(|| net.input(window.output([height, width, inputs], outputs)));
    // Above 1, the multipliers have the literal form.
    net.weight_scale = *random.choice(&[0.004, 1.5]).unwrap();
    let convolved = net.conv2d(input, outputs, 1, window);
    for id in [Some(input), residual, Some(convolved)].into_iter().flatten() {
        (net.value(id).scale, net.value(id).zero_point) = (random.f32() + 0.01, random.i8(..).into());
    }
    let scale = *random.choice(&[SCALE, 20.0, 4000.0]).unwrap();
    let output = match residual {
        None => convolved,
        Some(residual) => net.add(convolved, residual, scale),
    };
    if residual.is_none() {
        net.value(output).scale = scale;
    }
    net.value(output).zero_point = random.i8(..).into();
    for layer in &mut net.model.layers {
        layer.attributes.insert("clamp_min".into(), random.i64(-128..=-60));
        layer.attributes.insert("clamp_max".into(), random.i64(40..=127));
    }
    net.output(output);
    net
}

/// The output in an arena that starts at any address and holds any bytes.
fn output(image: &Aligned, seed: u64) -> Vec<i8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut arena: Vec<i8> =
        (0..Image::new(image.bytes()).unwrap().arena_length() + 8).map(|_| fastrand::i8(..)).collect();
    let mut model = Model::new(image.bytes(), &mut arena[seed as usize % 4..], ops::ALL).unwrap();
    let extreme = random.bool();
    for index in 0..model.image().input_count() {
        let any = |random: &mut fastrand::Rng| random.i8(..);
        let ends = |random: &mut fastrand::Rng| *random.choice(&[-128, 127]).unwrap();
        model.input(index).fill_with(|| if extreme { ends(&mut random) } else { any(&mut random) });
    }
    model.run();
    model.output(0).to_vec()
}

fn kernel_of(image: &Aligned) -> &'static str {
    Image::new(image.bytes()).unwrap().nodes().next().unwrap().kernel(ops::ALL).unwrap().name
}

#[test]
fn every_kernel_gives_the_bytes_of_im2col() {
    let mut compared = [0; KERNELS.len()];
    for seed in 0..500 {
        for (&(kernels, name), compared) in KERNELS.iter().zip(&mut compared) {
            let net = random_net(&mut fastrand::Rng::with_seed(seed), kernels.len() > 1);
            let image = match write_with(&net.model, kernels) {
                Ok(image) => Aligned::new(&image),
                // Accumulators or stored weights that are too large: the writer takes another kernel.
                Err(WriteError::NoKernel(_)) => continue,
                Err(error) => panic!("{name}, seed {seed}: {error}"),
            };
            // Where it saves no memory, the writer does not fuse.
            if kernel_of(&image) != name {
                continue;
            }
            let im2col = Aligned::new(&write_with(&net.model, IM2COL).unwrap());
            for inputs in 0..4 {
                assert_eq!(output(&image, inputs), output(&im2col, inputs), "{name}, seed {seed}, inputs {inputs}");
            }
            *compared += 1;
        }
    }
    assert!(compared.iter().all(|&count| count > 300), "{compared:?}");
}

#[test]
fn accumulators_that_a_transform_does_not_restore_are_refused() {
    let mut net = Builder::new(1);
    net.model.labels.clear();
    let input = net.input([4, 4, 2]);
    let convolved = net.conv2d(input, 4, 1, Window { padding: [1; 4], ..Window::new([3, 3]) });
    net.output(convolved);
    // In the literal form the limits are 2^25 and 2^29, less what the weights add.
    for (kernel, limit) in [(ops::CONV2D_WINOGRAD4, 1 << 25), (ops::CONV2D_WINOGRAD2, 1 << 29)] {
        for scale in [0.004, 1.5] {
            net.model.layers[0].tensors.insert("weight_scales".into(), Tensor::Float32(vec![scale; 4]));
            let kernels = [Kernel { ..kernel }];
            let mut image = Aligned::new(&write_with(&net.model, &kernels).unwrap());
            let record = image.word(place::NODES) as usize;
            let byte = |offset: usize| usize::from(image.bytes()[record + offset]);
            let words = byte(place::NODE_INPUTS) + byte(place::NODE_ATTRIBUTES);
            let channels = record + place::NODE_HEADER + 4 * words + 8;
            let bias = (image.word(place::CONSTANTS) + image.word(channels)) as usize;
            for (bias_of_image, fits) in [(limit / 2, true), (-limit / 2, true), (limit, false), (-limit, false)] {
                image.patch(bias, bias_of_image as u32);
                let checked = CheckedImage::new(image.bytes(), ops::ALL).map(drop);
                assert_eq!(checked.is_ok(), fits, "{}, bias {bias_of_image}: {checked:?}", kernel.name);
                if let Err(error) = checked {
                    assert!(error.to_string().contains("too large for this Winograd transform"), "{error}");
                }
            }
        }
    }
}
