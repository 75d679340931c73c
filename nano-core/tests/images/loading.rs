//! Loading takes time in proportion to an image's length, for bytes of every kind.

use nano_core::image::MOST_ALIVE;
use nano_core::{CheckedImage, ops};
use rustix::time::{ClockId, clock_gettime};

use crate::builder::{Aligned, Builder, SCALE, Window};

/// An image of `size` layers, outputs or labels.
type Family = (&'static str, fn(u32) -> Builder);

const FAMILIES: [Family; 6] = [
    ("a chain", |size| {
        let mut net = Builder::new(0);
        let input = net.input([1, 1, 8]);
        let end = (0..size).fold(input, |id, _| net.requantize(id, SCALE, 0));
        net.output(end);
        net
    }),
    ("values kept to the end", |size| {
        let mut net = Builder::new(0);
        let mut id = net.input([1, 1, 8]);
        for layer in 0..size {
            id = net.requantize(id, SCALE, 0);
            if layer < MOST_ALIVE as u32 - 2 || layer + 1 == size {
                net.output(id);
            }
        }
        net
    }),
    ("outputs of one layer", |size| {
        let mut net = Builder::new(0);
        let input = net.input([1, 1, 7]);
        let output = net.fully_connected(input, size);
        net.output(output);
        net
    }),
    ("groups of one layer", |size| {
        let mut net = Builder::new(0);
        let input = net.input([1, 1, size]);
        let output = net.conv2d(input, size, size, Window::new([1, 1]));
        net.output(output);
        net
    }),
    ("pools of windows in the padding", |size| {
        // Windows of 32,768 with stride 2, over as many elements and padding on both sides: the output is as long as the input.
        let window = Window { stride: [1, 2], padding: [0, 0, 32767, 32767], ..Window::new([1, 32768]) };
        let mut net = Builder::new(0);
        let input = net.input([1, 32768, 1]);
        let end = (0..size).fold(input, |id, _| net.max_pool2d(id, window));
        net.output(end);
        net
    }),
    ("labels", |size| {
        let mut net = Builder::new(0);
        let input = net.input([1, 1, size]);
        net.output(input);
        net.model.labels =
            (0..size).map(|label| format!("{:064}", u64::from(label) * 2_654_435_761 % 1_000_003)).collect();
        net
    }),
];

/// The processor time of this thread in nanoseconds, which excludes other programs.
fn processor_time() -> i64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as i64 * 1_000_000_000 + time.tv_nsec as i64
}

/// The shortest of several times to load, in nanoseconds.
fn time(image: &Aligned) -> i64 {
    let load = |_| {
        let start = processor_time();
        assert_eq!(CheckedImage::new(image.bytes(), ops::ALL).err(), None);
        processor_time() - start
    };
    (0..7).map(load).min().unwrap()
}

/// In an image 16 times as long, a byte costs the same; it would cost 16 times as much in quadratic time. Weights are the cheapest bytes; the
/// most expensive are those of nodes at which the most values are live. The limits allow for a processor whose cache others use.
#[test]
fn no_byte_costs_much_more_than_another() {
    const SMALL: u32 = 400;
    const LARGER: u32 = 16;
    let costs = FAMILIES.map(|(name, net)| {
        let cost = |size| {
            let image = net(size).image();
            time(&image) as f64 / image.bytes().len() as f64
        };
        (name, cost(SMALL), cost(LARGER * SMALL))
    });
    let cheapest = costs.iter().fold(f64::INFINITY, |cheapest, (_, _, large)| cheapest.min(*large));
    for (name, small, large) in costs {
        assert!(
            large < 8.0 * small,
            "{name}: {small:.1} ns for a byte, {large:.1} ns where there are {LARGER} times as many"
        );
        assert!(large < 80.0 * cheapest, "{name}: {large:.1} ns for a byte, others take {cheapest:.1} ns");
    }
}
