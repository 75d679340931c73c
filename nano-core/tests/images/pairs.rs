//! Kernels with two products per multiplication, and one for few channels: the bytes are those of the portable kernels.

use nano_core::image::{Image, write_with};
use nano_core::{CheckedImage, Error, Kernel, Model, ops};

use crate::builder::{Aligned, Builder, SCALE, Window};

fn image(net: &Builder, kernels: &[Kernel]) -> Option<Aligned> {
    write_with(&net.model, kernels).ok().map(|bytes| Aligned::new(&bytes))
}

/// The outputs for random inputs, extreme ones among them, in an arena at any address.
fn outputs(image: &Aligned, seed: u64) -> Vec<i8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let start = random.usize(..4);
    let mut arena = vec![0x5a; Image::new(image.bytes()).unwrap().arena_length() + start];
    let mut model = Model::new(image.bytes(), &mut arena[start..], ops::ALL).unwrap();
    for index in 0..model.image().input_count() {
        let extreme = random.bool();
        model.input(index).fill_with(|| if extreme { random.choice([-128, 127]).unwrap() } else { random.i8(..) });
    }
    model.run();
    model.output(0).to_vec()
}

/// Compares the images of two tables of kernels; returns false if the second table has no kernel for the layer, or chooses others.
fn compare(net: &Builder, plain: &[Kernel], other: &[Kernel], expected: &[&str], seed: u64) -> bool {
    let Some(two) = image(net, other) else { return false };
    if let Err(Error::Layer { rule: "not a window over the whole input, output pixels", .. }) =
        CheckedImage::new(two.bytes(), ops::ALL)
    {
        return false;
    }
    let names: Vec<_> =
        Image::new(two.bytes()).unwrap().nodes().map(|node| node.kernel(ops::ALL).unwrap().name).collect();
    if names != expected {
        return false;
    }
    let one = image(net, plain).unwrap();
    for inputs in 0..4 {
        assert_eq!(outputs(&two, inputs), outputs(&one, inputs), "seed {seed}, inputs {inputs}: {names:?}");
    }
    true
}

/// A random window and input of up to `largest` pixels and channels.
fn window(random: &mut fastrand::Rng, largest: u32) -> (Window, [u32; 3]) {
    let mut side = || {
        let (size, kernel, stride) = (random.u32(1..=largest), random.u32(1..5), random.u32(1..3));
        let (dilation, padding) = (random.u32(1..3), [random.u32(..3), random.u32(..3)]);
        (size.max(dilation * (kernel - 1) + 1), kernel, stride, dilation, padding)
    };
    let [(height, kh, sh, dh, [top, bottom]), (width, kw, sw, dw, [left, right])] = [side(), side()];
    let one_to_one = random.u32(..4) == 0;
    let window = Window { kernel: [kh, kw], stride: [sh, sw], dilation: [dh, dw], padding: [top, bottom, left, right] };
    (if one_to_one { Window::new([1, 1]) } else { window }, [height, width, random.u32(1..=largest)])
}

fn vary(net: &mut Builder, random: &mut fastrand::Rng) {
    // Above 1, the multipliers have the literal form.
    net.weight_scale = *random.choice(&[0.004, 1.5]).unwrap();
    net.model.labels.clear();
}

#[test]
fn convolutions_in_pairs_of_pixels_equal_the_portable_kernel() {
    let mut compared = 0;
    for seed in 0..1500 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut net = Builder::new(seed);
        vary(&mut net, &mut random);
        let (window, shape) = window(&mut random, 9);
        let input = net.input(shape);
        let output = net.conv2d(input, random.u32(1..14), 1, window);
        net.output(output);
        compared += usize::from(compare(&net, &[ops::CONV2D], &[ops::CONV2D_PAIRS], &["conv2d_pairs"], seed));
    }
    assert_eq!(compared, 1500);
}

/// More than one pass over the pixels: weights of several times 8 KiB.
#[test]
fn convolutions_of_several_passes_equal_the_portable_kernel() {
    for (seed, (inputs, outputs)) in [(96, 90), (7, 300), (700, 9), (2100, 5)].into_iter().enumerate() {
        let mut net = Builder::new(seed as u64);
        net.model.labels.clear();
        let input = net.input([3, 5, inputs]);
        let output = net.conv2d(input, outputs, 1, Window { padding: [1, 0, 0, 1], ..Window::new([2, 2]) });
        net.output(output);
        for in_ram in [0, 1 << 20] {
            net.model.weights_in_ram = in_ram;
            assert!(compare(&net, &[ops::CONV2D], &[ops::CONV2D_PAIRS], &["conv2d_pairs"], seed as u64));
        }
    }
}

#[test]
fn convolutions_with_a_sum_in_pairs_of_pixels_equal_the_portable_kernels() {
    const PAIRS: &[Kernel] = &[ops::CONV2D_ADD_PAIRS, ops::CONV2D, ops::ADD];
    let mut compared = 0;
    for seed in 0..1500 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut net = Builder::new(seed);
        vary(&mut net, &mut random);
        let (window, shape) = window(&mut random, 7);
        let channels = random.u32(1..9);
        let input = net.input(shape);
        let residual = net.input(window.output(shape, channels));
        let convolved = net.conv2d(input, channels, 1, window);
        for id in [residual, convolved] {
            (net.value(id).scale, net.value(id).zero_point) = (random.f32() + 0.01, random.i8(..).into());
        }
        let scale = *random.choice(&[SCALE, 20.0, 4000.0]).unwrap();
        let sum = net.add(convolved, residual, scale);
        net.output(sum);
        compared += usize::from(compare(&net, &[ops::CONV2D, ops::ADD], PAIRS, &["conv2d_add_pairs"], seed));
    }
    assert!(compared > 300, "{compared}");
}

#[test]
fn convolutions_with_one_output_pixel_equal_the_portable_kernel() {
    let mut compared = [0; 2];
    for seed in 0..4000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut net = Builder::new(seed);
        net.model.labels.clear();
        let (mut window, [height, width, channels]) = window(&mut random, 4);
        let [height, width] = [(height, 0), (width, 1)].map(|(side, axis)| side.min(window.kernel[axis]));
        // Padding up to the one window.
        for (axis, side) in [height, width].into_iter().enumerate() {
            let reach = window.dilation[axis] * (window.kernel[axis] - 1) + 1;
            let before = random.u32(..=reach - side);
            (window.padding[2 * axis], window.padding[2 * axis + 1]) = (before, reach - side - before);
        }
        let input = net.input([height, width, channels]);
        let output = net.conv2d(input, random.u32(1..40), 1, window);
        net.output(output);
        // A dilated window that skips inputs has no such kernel.
        let equal = compare(&net, &[ops::CONV2D], &[ops::CONV2D_ONE_PIXEL], &["conv2d_one_pixel"], seed);
        compared[usize::from(equal)] += 1;
    }
    assert!(compared[1] > 1500 && compared[0] > 200, "{compared:?}");
}

#[test]
fn convolutions_of_few_channels_equal_the_portable_kernel() {
    for seed in 0..1500 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut net = Builder::new(seed);
        vary(&mut net, &mut random);
        let input = net.input([random.u32(1..9), random.u32(1..9), random.u32(1..9)]);
        let output = net.conv2d(input, random.u32(1..14), 1, Window::new([1, 1]));
        net.output(output);
        assert!(compare(&net, &[ops::CONV2D], &[ops::CONV2D_NARROW], &["conv2d_narrow"], seed));
    }
}

#[test]
fn fully_connected_layers_in_pairs_of_channels_equal_the_portable_kernel() {
    for seed in 0..1500 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut net = Builder::new(seed);
        vary(&mut net, &mut random);
        let input = net.input([random.u32(1..4), random.u32(1..4), random.u32(1..12)]);
        let output = net.fully_connected(input, random.u32(1..60));
        net.output(output);
        let (plain, pairs) = ([ops::FULLY_CONNECTED], [ops::FULLY_CONNECTED_PAIRS]);
        // The literal form has no such kernel.
        assert_eq!(image(&net, &pairs).is_some(), net.weight_scale < 1.0, "seed {seed}");
        if net.weight_scale < 1.0 {
            assert!(compare(&net, &plain, &pairs, &["fully_connected_pairs"], seed));
        }
    }
}
