//! Every request, with extreme arguments, to every image that loads: no panic, and every answer can be decoded.

use std::panic::{AssertUnwindSafe, catch_unwind};

use nano_core::image::{HeadDescription, Image, LONGEST_NAME, LdaDescription, SumsDescription, Value};
use nano_core::train::{Descent, LARGEST_EPOCHS, Loss};
use nano_core::{CheckedImage, ops};
use torch_nano_device::{
    Block, Class, Failure, GraphValue, Label, MemoryFlash, Options, Request, Response, ResponseHeader, Session,
    Settings, Sizes, SpareCopy, frame,
};

use crate::builder::{Aligned, Builder, Window, conv_net, descent, head_net, layers_head, residual_net, two_by_two};
use crate::graph::passed_through;
use crate::mutate::mutate;
use crate::stream::{encoded, send_in_pieces};

const FRAME: usize = 64;
const RING: usize = 3;
const OPTIONS: Options =
    Options { ring: RING, frame: FRAME, copy: SpareCopy::Ram, settings: Settings { rejection: 0, save_interval: 2 } };
/// Words of RAM; images that need more are skipped.
const LARGEST_RAM: usize = 1 << 20;
const MUTATIONS: u64 = 10_000;

/// One input and one output, through every operator that `conv_net` lacks.
fn other_operators() -> Builder {
    let mut net = Builder::new(5);
    let input = net.input([1, 2, 8]);
    let hidden = net.fully_connected(input, 32);
    let sum = net.add(hidden, hidden, 20.0);
    let table = net.table(sum);
    let requantized = net.requantize(table, 0.07, 12);
    net.output(requantized);
    net
}

/// Images of every operator and trainer; names are absent, short or of the largest length.
fn images() -> Vec<Aligned> {
    let mut nets = vec![conv_net(), other_operators(), two_by_two(), residual_net(), passed_through()];
    let start = SumsDescription { classes: 2, capacity: 4, start: None, half_life: 0 };
    let mut heads = vec![
        HeadDescription::Lda(LdaDescription { sums: start.clone(), shrinkage: 0.2 }),
        HeadDescription::Prototype(start),
    ];
    for loss in Loss::ALL {
        let classes = if loss == Loss::Squared { 1 } else { 3 };
        let descent = Descent { halve_every: 1, ..descent(0.3, loss) };
        let mut sgd = head_net().sgd(classes);
        sgd.descent = descent.clone();
        heads.extend([HeadDescription::Sgd(sgd), layers_head(6, classes, descent)]);
    }
    for (number, head) in heads.into_iter().enumerate() {
        let mut net = head_net();
        net.model.head = Some(head);
        net.model.name = "n".repeat(if number % 2 == 0 { LONGEST_NAME } else { 0 });
        let label = |class: usize| format!("{class:02}{}", "\u{e9}".repeat(31));
        net.model.labels = (0..number % 2).map(label).collect();
        nets.push(net);
    }
    // Features of several layers, and of a softmax.
    let mut deep = Builder::new(6);
    let input = deep.input([6, 6, 2]);
    let conv = deep.conv2d(input, 4, 1, Window::new([3, 3]));
    let pooled = deep.average_pool2d(conv, Window::new([4, 4]), 0);
    let features = deep.softmax(pooled);
    deep.output(features);
    deep.head(5);
    nets.push(deep);
    nets.iter().map(Builder::image).collect()
}

/// Bytes of all inputs, or of all outputs.
fn length(view: &Image<'_>, inputs: bool) -> usize {
    let values: Vec<&Value> = if inputs {
        (0..view.input_count()).map(|index| view.input(index)).collect()
    } else {
        (0..view.output_count()).map(|index| view.output(index)).collect()
    };
    values.iter().map(|value| value.len() * value.dtype().size()).sum()
}

/// Lengths and offsets around `length`, and the largest.
fn around(length: usize) -> [usize; 6] {
    [0, 1, length.saturating_sub(1), length, length + 1, u32::MAX as usize]
}

/// A request of any kind; what it holds is in `bytes` and `names`.
fn any_request<'a>(view: &Image<'_>, bytes: &'a [u8], names: &'a [String], random: &mut fastrand::Rng) -> Request<'a> {
    let input_length = length(view, true);
    let classes = view.head().map_or(0, |head| head.classes as usize);
    let edge = |lengths: [usize; 6], random: &mut fastrand::Rng| lengths[random.usize(..6)];
    let name = &names[random.usize(..names.len())];
    let index = edge(around(classes), random).min(u16::MAX.into()) as u16;
    let class = if random.bool() { Class::Name(name) } else { Class::Index(index) };
    let label = match random.u8(..6) {
        0 => Label::Bits([0, 1, 7, u32::MAX][random.usize(..4)]),
        1 => Label::Value([i32::MIN, 0, 4096, i32::MAX][random.usize(..4)]),
        _ => Label::Class(class),
    };
    // Most inputs have the right length, so that the code after the check runs, too.
    let right = if random.u8(..4) > 0 { input_length } else { edge(around(input_length), random) };
    let input = &bytes[..right.min(FRAME).min(bytes.len())];
    let part = &bytes[..edge(around(FRAME), random).min(FRAME)];
    let epochs = [0, 1, 2, LARGEST_EPOCHS, u32::MAX][random.usize(..5)];
    match random.u8(..40) {
        0 => Request::Begin,
        1 => Request::Info,
        2 | 3 => Request::Predict { input },
        4 => Request::Features { input },
        5 => Request::Profile { input },
        6 => Request::Input { offset: [0, FRAME as u32, 1, u32::MAX][random.usize(..4)], bytes: part },
        7..=11 => Request::Learn { label, input },
        12 => Request::Train { first_epoch: [0, 1, LARGEST_EPOCHS, u32::MAX][random.usize(..4)], epochs },
        13 => Request::Train { first_epoch: 0, epochs },
        14 => Request::Continue,
        15 => Request::Stop,
        16 => Request::Commit,
        17 => Request::Undo,
        18 => Request::AddClass { name },
        19 => Request::Forget { class },
        20 => Request::ClassName { class: index },
        21 => Request::Reset,
        22 => Request::Save { replace: random.bool() },
        23 => Request::Load,
        24 | 25 => {
            let channels = Block::Channels(edge(around(view.input_count()), random) as u32);
            let block = [Block::Output, Block::Logits, Block::Layers, Block::Head, channels][random.usize(..5)];
            let length = [length(view, false), 4 * classes, 4 * view.nodes().count(), 200][random.usize(..4)];
            Request::Read { block, offset: edge(around(length), random) as u32 }
        }
        26 => Request::WriteHead { offset: [0, 1, FRAME as u32, u32::MAX][random.usize(..4)], bytes: part },
        27 => Request::ReplaceHead { checksum: random.u32(..) },
        28 => Request::ResetStates,
        29 => Request::Describe { value: GraphValue::Input(edge(around(view.input_count()), random) as u32) },
        30 => Request::Describe { value: GraphValue::Output(edge(around(view.output_count()), random) as u32) },
        31 => Request::Configure {
            settings: Settings { rejection: random.u16(..), save_interval: [0, 1, u32::MAX][random.usize(..3)] },
        },
        32 => Request::Label { label },
        33 => Request::BeginUpdate { length: random.u32(..), id: random.u32(..) },
        34 => Request::WriteUpdate { offset: [0, 1, u32::MAX][random.usize(..3)], bytes: part },
        35 => Request::FinishUpdate,
        36 => Request::ConfirmUpdate,
        37 => Request::Restart,
        38 => [Request::SendSamples, Request::StopSamples][random.usize(..2)],
        _ => Request::Stats,
    }
}

/// Sends an image this number of random requests; returns whether it loads.
fn interrogate(image: &Aligned, seed: u64, requests: usize) -> bool {
    let mut random = fastrand::Rng::with_seed(seed);
    let Ok(view) = Image::new(image.bytes()) else { return false };
    let words = Sizes::of(&view, RING, FRAME, SpareCopy::Ram).words();
    if words > LARGEST_RAM {
        return false;
    }
    let mut ram = vec![random.u32(..); words];
    let flash = MemoryFlash(vec![0xff; 64 * 4096]);
    let mut ticks = 0;
    let counter = || {
        ticks += 1;
        ticks
    };
    let session = CheckedImage::new(image.bytes(), ops::ALL)
        .and_then(|image| Session::<_, _>::new(image, &mut ram, OPTIONS, flash, counter));
    let Ok(mut session) = session else { return false };
    let mut names: Vec<String> =
        ["", "up", "sixteen bytes !!", "seventeen bytes .", "\0", "two\nlines"].map(str::to_owned).into();
    names.extend(view.metadata("label").take(4).map(str::to_owned));
    for number in 0..requests {
        let bytes: [u8; FRAME] = core::array::from_fn(|_| random.u8(..));
        let request = any_request(&view, &bytes, &names, &mut random);
        let sent = encoded(request);
        let place = format!("seed {seed}, request {number}: {request:?}");
        let answer = catch_unwind(AssertUnwindSafe(|| send_in_pieces(&mut session, &sent, || usize::MAX)));
        let mut answer = answer.unwrap_or_else(|_| panic!("{place}: see the panic above"));
        assert!(answer.len() <= frame::length(FRAME), "{place}: {} bytes", answer.len());
        assert_eq!(answer.pop(), Some(frame::END), "{place}");
        let decoded = frame::decode::<ResponseHeader, Response<'_>>(&mut answer);
        let (_, response) = decoded.unwrap_or_else(|| panic!("{place}: the answer is no response"));
        // These would mean that the device's own data are wrong.
        let own = [Failure::State, Failure::Other];
        let wrong = matches!(response, Response::Refused(failure) if own.contains(&failure));
        assert!(!wrong || matches!(request, Request::ReplaceHead { .. }), "{place}: {response:?}");
    }
    true
}

#[test]
fn every_request_of_every_image_is_answered() {
    for (number, image) in images().iter().enumerate() {
        for seed in 0..30 {
            assert!(interrogate(image, seed, 300), "image {number} does not load");
        }
    }
}

#[test]
fn every_request_of_a_mutated_image_that_loads_is_answered() {
    let images = images();
    let mut loaded = 0;
    for seed in 0..MUTATIONS {
        let mut image = images[seed as usize % images.len()].clone();
        let mut random = fastrand::Rng::with_seed(seed);
        mutate(&mut image, &mut random);
        image.reseal();
        loaded += usize::from(interrogate(&image, seed, 60));
    }
    assert!(loaded > MUTATIONS as usize / 10, "only {loaded} of {MUTATIONS} load");
}
