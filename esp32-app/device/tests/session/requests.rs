//! The effect of every request, compared with direct calls of nano-core.

use nano_core::image::Image;
use nano_core::train::{FeatureRing, Head, HeadSizes, SgdHead, Target, Training, certainty};
use nano_core::{Model, ops};
use torch_nano_device::{Block, Failure, Request, Response, Settings, StorageError, TargetKind, UpdateState, frame};

use crate::builder::{Aligned, conv_net, head_net};
use crate::stream::{FRAME, RING, ask, class, encoded, head_state, input, ram, send_in_pieces, session, signed};

/// The model's output for one input.
fn output(image: &Aligned, input: &[u8]) -> Vec<i8> {
    let mut arena = vec![0; Image::new(image.bytes()).unwrap().arena_length()];
    let mut model = Model::new(image.bytes(), &mut arena, ops::ALL).unwrap();
    model.input(0).copy_from_slice(&signed(input));
    model.run();
    model.output(0).to_vec()
}

/// Calls `act` on a head of `image`.
fn with_head<T>(image: &Aligned, act: impl FnOnce(&mut SgdHead<'_>) -> T) -> T {
    let image = Image::new(image.bytes()).unwrap();
    let mut ram = vec![0; HeadSizes::of(image.head().unwrap()).words()];
    act(&mut SgdHead::new(&image, &mut ram).unwrap())
}

#[test]
fn info_says_what_the_image_says() {
    for (net, classes, ring) in [(head_net(), 3, RING as u32), (conv_net(), 0, 0)] {
        let image = net.image();
        let mut ram = ram(&image);
        let view = Image::new(image.bytes()).unwrap();
        let features = view.output(0).len() as u32;
        let expected = Response::Info {
            model_id: view.id(),
            name: "test",
            inputs: 1,
            outputs: 1,
            has_states: false,
            input_length: view.input(0).len() as u32,
            output_length: features,
            layers: (net.model.layers.len() + net.model.head.iter().len()) as u32,
            classes,
            class_capacity: classes,
            head_length: if classes == 0 { 0 } else { 8 + 2 * classes * (features + 1) },
            ring_capacity: ring,
            arena_length: view.arena_length() as u32,
            frame_length: FRAME as u32,
            settings: Settings::default(),
            saved: Err(StorageError::Empty),
            restored: false,
            target: (classes > 0).then_some(TargetKind::Class),
            update: UpdateState::default(),
        };
        ask(&mut session(&image, &mut ram), Request::Info, |response| assert_eq!(response, expected));
    }
}

#[test]
fn the_longest_name_fits_its_answer() {
    let mut net = conv_net();
    net.model.name = "n".repeat(64);
    let image = net.image();
    let mut ram = ram(&image);
    ask(&mut session(&image, &mut ram), Request::Info, |response| {
        assert!(matches!(response, Response::Info { name, .. } if name == net.model.name));
    });
}

#[test]
fn prediction_with_a_head_gives_features_and_logits() {
    let image = head_net().image();
    let mut ram = ram(&image);
    let mut session = session(&image, &mut ram);
    let mut classes = [0; 3];
    for number in 0..50 {
        let input = input(number);
        let features = output(&image, &input);
        let (logits, best, scale) = with_head(&image, |head| {
            (head.logits(&features).unwrap().to_vec(), head.predict(&features).unwrap(), head.logit_scale())
        });
        ask(&mut session, Request::Predict { input: &input }, |response| {
            let Response::Prediction { class, confidence: sure, margin, known, output, logits: sent, ticks, .. } =
                response
            else {
                panic!("{response:?}")
            };
            assert_eq!((class as usize, signed(output), ticks), (best, features, 5));
            let certainty = certainty(logits.iter().copied(), scale, 0);
            assert_eq!((sure, margin, known), (Some(certainty.confidence), Some(certainty.margin), true));
            assert_eq!(sent, logits.iter().flat_map(|logit| logit.to_le_bytes()).collect::<Vec<u8>>());
        });
        classes[best] += 1;
    }
    assert!(classes.iter().filter(|&&count| count > 0).count() > 1, "one class always wins: {classes:?}");
}

#[test]
fn prediction_without_a_head_gives_the_output_and_the_first_largest() {
    let net = conv_net();
    let image = net.image();
    let mut ram = ram(&image);
    let mut session = session(&image, &mut ram);
    for seed in 0..20 {
        let mut random = fastrand::Rng::with_seed(seed);
        let input: Vec<u8> = (0..7 * 6 * 3).map(|_| random.u8(..)).collect();
        let expected = output(&image, &input);
        let largest = expected.iter().max().unwrap();
        let first = expected.iter().position(|q| q == largest).unwrap();
        ask(&mut session, Request::Predict { input: &input }, |response| {
            let Response::Prediction { class, output, logits, .. } = response else { panic!("{response:?}") };
            assert_eq!((class as usize, signed(output), logits), (first, expected, &[][..]));
        });
    }
}

#[test]
fn a_profile_counts_each_layer_and_the_head() {
    for (net, counts) in [(conv_net(), conv_net().model.layers.len()), (head_net(), head_net().model.layers.len() + 1)]
    {
        let image = net.image();
        let mut ram = ram(&image);
        let input = vec![7; image_input(&image)];
        ask(&mut session(&image, &mut ram), Request::Profile { input: &input }, |response| {
            assert_eq!(response, Response::Profile { layers: &5u32.to_le_bytes().repeat(counts) });
        });
    }
}

/// Bytes of the input of an image.
fn image_input(image: &Aligned) -> usize {
    Image::new(image.bytes()).unwrap().input(0).len()
}

#[test]
fn stats_say_what_the_counter_was_when_the_session_was_ready() {
    let image = head_net().image();
    let mut ram = ram(&image);
    let mut session = session(&image, &mut ram);
    for _ in 0..2 {
        let stats = ask(&mut session, Request::Stats, |response| match response {
            Response::Stats(stats) => stats,
            other => panic!("{other:?}"),
        });
        assert_eq!(stats.startup_ticks, 5, "the counter was read once");
        ask(&mut session, Request::Predict { input: &input(0) }, |_| ());
    }
}

#[test]
fn learning_on_the_device_is_learning_on_the_host() {
    let image = head_net().image();
    let mut ram = ram(&image);
    let mut session = session(&image, &mut ram);
    let learnt = [(0u64, 0u16), (1, 1), (2, 2), (3, 0), (4, 1), (5, 2)];
    for (count, &(number, label)) in learnt.iter().enumerate() {
        ask(&mut session, Request::Learn { label: class(label), input: &input(number) }, |response| {
            let samples = (count + 1).min(RING) as u32;
            assert_eq!(response, Response::Learned { samples, ticks: 5 });
        });
    }
    ask(&mut session, Request::Train { first_epoch: 0, epochs: 3 }, |response| {
        assert_eq!(response, Response::Trained { steps: 3 * RING as u64, left: 0, ticks: 5, taken_back: false });
    });
    let expected = with_head(&image, |head| {
        let (mut features, mut labels) = (vec![0; RING * head.features()], [0; RING]);
        let mut ring = FeatureRing::new(head.features(), &mut features, &mut labels).unwrap();
        // The ring has replaced the first two.
        for &(number, label) in &learnt[2..] {
            ring.push(&output(&image, &input(number)), Target::Class(label)).unwrap();
        }
        head.train(&ring, &mut Training::new(&ring, 0, 3).unwrap(), u32::MAX).unwrap();
        head.state().to_vec()
    });
    assert_eq!(head_state(&mut session), expected);
    assert_ne!(expected, with_head(&image, |head| head.state().to_vec()), "nothing was learnt");

    ask(&mut session, Request::Reset, |response| assert_eq!(response, Response::Done));
    assert_eq!(head_state(&mut session), with_head(&image, |head| head.state().to_vec()));
    ask(&mut session, Request::Train { first_epoch: 0, epochs: 1 }, |response| {
        assert_eq!(response, Response::Refused(Failure::EmptyRing));
    });
}

#[test]
fn no_epochs_train_nothing() {
    let image = head_net().image();
    let mut ram = ram(&image);
    let mut session = session(&image, &mut ram);
    let before = head_state(&mut session);
    ask(&mut session, Request::Learn { label: class(1), input: &input(0) }, |_| ());
    ask(&mut session, Request::Train { first_epoch: 0, epochs: 0 }, |response| {
        assert_eq!(response, Response::Trained { steps: 0, left: 0, ticks: 5, taken_back: false });
    });
    assert_eq!(head_state(&mut session), before);
}

#[test]
fn the_sizes_of_the_pieces_do_not_matter() {
    let image = head_net().image();
    let conversation: Vec<u8> = [
        Request::Info,
        Request::Learn { label: class(0), input: &input(0) },
        Request::Learn { label: class(7), input: &input(1) },
        Request::Predict { input: &input(2) },
        Request::Learn { label: class(2), input: &input(3) },
        Request::Predict { input: &input(2)[1..] },
        Request::Train { first_epoch: 0, epochs: 5 },
        Request::Profile { input: &input(4) },
        Request::Read { block: Block::Head, offset: 0 },
    ]
    .into_iter()
    .flat_map(encoded)
    .collect();
    let answers = |mut piece: Box<dyn FnMut() -> usize>| {
        let mut ram = ram(&image);
        send_in_pieces(&mut session(&image, &mut ram), &conversation, &mut *piece)
    };
    let whole = answers(Box::new(|| usize::MAX));
    assert_eq!(whole.iter().filter(|&&byte| byte == frame::END).count(), 9);
    for size in [1, 2, 3, 7, 63, 64, 65, 127] {
        assert_eq!(answers(Box::new(move || size)), whole, "pieces of {size}");
    }
    for seed in 0..50 {
        let mut random = fastrand::Rng::with_seed(seed);
        assert_eq!(answers(Box::new(move || random.usize(1..100))), whole, "seed {seed}");
    }
}
