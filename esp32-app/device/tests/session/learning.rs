//! Classes with names, undo, parts, confidence and rejection.

use nano_core::image::{HeadDescription, LdaDescription, SumsDescription};
use torch_nano_device::{Block, Class, Failure, Label, Options, Request, Response, Settings};

use crate::builder::{Aligned, conv_net, head_net};
use crate::stream::{OPTIONS, RING, ask, class, head_state, input, ram, session, session_with};

/// `head_net` with a head of sums: 2 classes with names, room for 4.
pub fn sums_net(discriminant: bool) -> Aligned {
    let mut net = head_net();
    let sums = SumsDescription { classes: 2, capacity: 4, start: None, half_life: 0 };
    net.model.head = Some(if discriminant {
        HeadDescription::Lda(LdaDescription { sums, shrinkage: 0.2 })
    } else {
        HeadDescription::Prototype(sums)
    });
    net.model.labels = vec!["left".into(), "right".into()];
    net.image()
}

fn named(name: &str) -> Label<'_> {
    Label::Class(Class::Name(name))
}

macro_rules! refused {
    ($session:expr, $request:expr, $failure:expr) => {
        ask($session, $request, |response| assert_eq!(response, Response::Refused($failure)))
    };
}

macro_rules! done {
    ($session:expr, $request:expr) => {
        ask($session, $request, |response| assert!(!matches!(response, Response::Refused(_)), "{response:?}"))
    };
}

#[test]
fn classes_have_names_and_are_added_by_name() {
    for discriminant in [false, true] {
        let image = sums_net(discriminant);
        let mut ram = ram(&image);
        let mut session = session(&image, &mut ram);
        let session = &mut session;
        refused!(session, Request::Learn { label: named("up"), input: &input(1) }, Failure::UnknownName);
        ask(session, Request::AddClass { name: "up" }, |response| {
            assert_eq!(response, Response::ClassAdded { class: 2 });
        });
        refused!(session, Request::AddClass { name: "up" }, Failure::NameTaken);
        refused!(session, Request::AddClass { name: "left" }, Failure::NameTaken);
        for name in ["", "zero\0", "two\nlines", "seventeen bytes .", "\u{1f600}\u{1f600}\u{1f600}\u{1f600}\u{1f600}"] {
            refused!(session, Request::AddClass { name }, Failure::Name { limit: 16 });
        }
        done!(session, Request::AddClass { name: "sixteen bytes !!" });
        refused!(session, Request::AddClass { name: "down" }, Failure::Full { capacity: 4 });
        for (index, name) in ["left", "right", "up", "sixteen bytes !!"].into_iter().enumerate() {
            ask(session, Request::ClassName { class: index as u16 }, |response| {
                assert_eq!(response, Response::ClassName { name });
            });
        }
        refused!(session, Request::ClassName { class: 4 }, Failure::Label { label: 4, classes: 4 });
        // A class can be given by name or by index.
        let before = head_state(session);
        done!(session, Request::Learn { label: named("up"), input: &input(1) });
        let by_name = head_state(session);
        assert_ne!(by_name, before);
        done!(session, Request::Undo);
        assert_eq!(head_state(session), before);
        done!(session, Request::Learn { label: class(2), input: &input(1) });
        assert_eq!(head_state(session), by_name);
        done!(session, Request::Forget { class: Class::Name("up") });
        assert_ne!(head_state(session), by_name);
        refused!(session, Request::Forget { class: Class::Name("down") }, Failure::UnknownName);
        // A reset removes the added classes and their names.
        done!(session, Request::Reset);
        refused!(session, Request::Learn { label: named("up"), input: &input(1) }, Failure::UnknownName);
        done!(session, Request::AddClass { name: "down" });
        ask(session, Request::ClassName { class: 2 }, |response| {
            assert_eq!(response, Response::ClassName { name: "down" });
        });
    }
}

#[test]
fn undo_takes_back_every_kind_of_change_once() {
    for image in [head_net().image(), sums_net(false), sums_net(true)] {
        for seed in 0..100 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut memory = ram(&image);
            let mut session = session(&image, &mut memory);
            let session = &mut session;
            refused!(session, Request::Undo, Failure::NothingToUndo);
            // A class needs two samples before a commit makes sense.
            for number in 0..8 {
                let request = Request::Learn { label: class(number % 2), input: &input(number.into()) };
                done!(session, request);
            }
            for _ in 0..6 {
                let number = random.u64(8..);
                let sample = input(number);
                let request = match random.u8(..6) {
                    0 | 1 => Request::Learn { label: class(random.u16(..2)), input: &sample },
                    2 => Request::Train { first_epoch: 0, epochs: random.u32(1..3) },
                    3 => Request::Commit,
                    4 => Request::Reset,
                    _ => Request::AddClass { name: "up" },
                };
                let before = head_state(session);
                let refused = ask(session, request, |response| matches!(response, Response::Refused(_)));
                if refused {
                    assert_eq!(head_state(session), before, "seed {seed}, {request:?}");
                    continue;
                }
                let after = head_state(session);
                done!(session, Request::Undo);
                assert_eq!(head_state(session), before, "seed {seed}, {request:?}");
                refused!(session, Request::Undo, Failure::NothingToUndo);
                // The ring is restored, too: the same request has the same result.
                done!(session, request);
                assert_eq!(head_state(session), after, "seed {seed}, {request:?}");
            }
        }
    }
}

#[test]
fn a_refused_request_keeps_undo_and_a_head_that_arrives() {
    for image in [head_net().image(), sums_net(false), sums_net(true)] {
        let mut memory = ram(&image);
        let mut session = session(&image, &mut memory);
        let session = &mut session;
        for name in ["up", "down", "in", "out"] {
            ask(session, Request::AddClass { name }, |_| ());
        }
        let sample = input(1);
        let refused = [
            Request::AddClass { name: "more" },
            Request::AddClass { name: "" },
            Request::Forget { class: Class::Index(4) },
            Request::Forget { class: Class::Name("nobody") },
            Request::Learn { label: class(4), input: &sample },
            Request::Learn { label: class(0), input: &sample[1..] },
            Request::Learn { label: Label::Value(1), input: &sample },
            Request::Load,
            Request::Save { replace: false },
            Request::Read { block: Block::Head, offset: u32::MAX },
            Request::WriteHead { offset: 7, bytes: &[0] },
            Request::ReplaceHead { checksum: 0 },
        ];
        let before = head_state(session);
        done!(session, Request::Learn { label: class(0), input: &sample });
        let training = ask(session, Request::Train { first_epoch: 0, epochs: 1 }, |answer| {
            !matches!(answer, Response::Refused(_))
        });
        for request in refused {
            ask(session, request, |answer| assert!(matches!(answer, Response::Refused(_)), "{request:?}"));
        }
        if training {
            // A head trained by gradient descent cannot forget.
            refused!(session, Request::Forget { class: Class::Index(0) }, Failure::Unsupported);
        } else {
            refused!(session, Request::Train { first_epoch: 0, epochs: 1 }, Failure::Unsupported);
        }
        let after = head_state(session);
        assert_ne!(after, before);
        done!(session, Request::Undo);
        assert_eq!(head_state(session), before);
        // The parts of a head that have been received are kept.
        let (first, rest) = after.split_at(10);
        done!(session, Request::WriteHead { offset: 0, bytes: first });
        for request in refused {
            ask(session, request, |answer| assert!(matches!(answer, Response::Refused(_)), "{request:?}"));
        }
        for (index, part) in rest.chunks(200).enumerate() {
            done!(session, Request::WriteHead { offset: (10 + 200 * index) as u32, bytes: part });
        }
        done!(session, Request::ReplaceHead { checksum: torch_nano_device::frame::checksum(&after) });
        assert_eq!(head_state(session), after);
    }
}

#[test]
fn undo_brings_back_the_sample_that_a_full_ring_lost() {
    let image = head_net().image();
    let train = |disturb: bool| {
        let mut ram = ram(&image);
        let mut session = session(&image, &mut ram);
        for number in 0..RING as u64 + 2 {
            done!(&mut session, Request::Learn { label: class(number as u16 % 3), input: &input(number) });
        }
        if disturb {
            done!(&mut session, Request::Learn { label: class(0), input: &input(77) });
            done!(&mut session, Request::Undo);
            done!(&mut session, Request::Reset);
            done!(&mut session, Request::Undo);
        }
        done!(&mut session, Request::Train { first_epoch: 0, epochs: 3 });
        head_state(&mut session)
    };
    assert_eq!(train(true), train(false));
}

#[test]
fn long_inputs_outputs_and_heads_are_sent_in_parts() {
    let mut net = conv_net();
    // The output of the first layer, which comes after the one input.
    net.model.outputs.clear();
    net.output(1);
    net.head(3);
    let image = net.image();
    let options = Options { frame: 64, ..OPTIONS };
    let (mut long, mut short) = (vec![0; 100_000], vec![0; 100_000]);
    let mut parts = session_with(&image, &mut short, options, torch_nano_device::NoFlash);
    let mut whole = session_with(&image, &mut long, Options { frame: 4096, ..OPTIONS }, torch_nano_device::NoFlash);
    let sample: Vec<u8> = (0..126u8).collect();
    let expected = ask(&mut whole, Request::Predict { input: &sample }, |response| match response {
        Response::Prediction { logits, output, .. } => (logits.to_vec(), output.to_vec()),
        other => panic!("{other:?}"),
    });
    let (first, rest) = sample.split_at(64);
    let parts = &mut parts;
    refused!(parts, Request::Read { block: Block::Output, offset: 0 }, Failure::NoRun);
    refused!(parts, Request::Input { offset: 5, bytes: first }, Failure::Order { needed: 0, given: 5 });
    ask(parts, Request::Input { offset: 0, bytes: first }, |response| {
        assert_eq!(response, Response::Received { length: 64 });
    });
    for offset in [0u32, 63, 65, u32::MAX] {
        if offset != 0 {
            refused!(parts, Request::Input { offset, bytes: rest }, Failure::Order { needed: 64, given: offset });
        }
        refused!(parts, Request::Predict { input: &rest[1..] }, Failure::Input { needed: 62, given: 61 });
    }
    refused!(parts, Request::Input { offset: 64, bytes: first }, Failure::Range { length: 126 });
    refused!(parts, Request::Read { block: Block::Output, offset: 0 }, Failure::NoRun);
    let start = ask(parts, Request::Predict { input: rest }, |response| match response {
        Response::Prediction { logits, output, .. } => (logits.to_vec(), output.to_vec()),
        other => panic!("{other:?}"),
    });
    assert_eq!((start.0, start.1.len()), (expected.0.clone(), 64 - 12));
    let mut read = |block, expected: &[u8]| {
        let mut found = vec![];
        while found.len() < expected.len() {
            ask(parts, Request::Read { block, offset: found.len() as u32 }, |response| {
                let Response::Part { length, bytes, .. } = response else { panic!("{response:?}") };
                assert_eq!((length as usize, bytes.len()), (expected.len(), 64.min(expected.len() - found.len())));
                found.extend_from_slice(bytes);
            });
        }
        assert_eq!(found, expected, "{block:?}");
    };
    read(Block::Output, &expected.1);
    read(Block::Logits, &expected.0);
    done!(&mut whole, Request::Learn { label: class(1), input: &sample });
    done!(&mut whole, Request::Train { first_epoch: 0, epochs: 2 });
    let trained = head_state(&mut whole);
    // The head is sent in parts.
    let initial = head_state(parts);
    assert_ne!(trained, initial);
    let checksum = torch_nano_device::frame::checksum(&trained);
    for (index, bytes) in trained.chunks(64).enumerate() {
        let offset = 64 * index as u32;
        refused!(
            parts,
            Request::WriteHead { offset: offset + 1, bytes },
            Failure::Order { needed: offset, given: offset + 1 }
        );
        let length = trained.len() as u32;
        refused!(parts, Request::ReplaceHead { checksum }, Failure::Order { needed: offset, given: length });
        done!(parts, Request::WriteHead { offset, bytes });
    }
    let (length, offset) = (trained.len() as u32, trained.len() as u32);
    refused!(parts, Request::WriteHead { offset, bytes: &[0] }, Failure::Range { length });
    refused!(parts, Request::ReplaceHead { checksum: !checksum }, Failure::Checksum { computed: checksum });
    assert_eq!(head_state(parts), initial);
    done!(parts, Request::ReplaceHead { checksum });
    assert_eq!(head_state(parts), trained);
    done!(parts, Request::Undo);
    assert_eq!(head_state(parts), initial);
}

#[test]
fn a_state_that_no_head_has_is_refused() {
    let image = head_net().image();
    let mut ram = ram(&image);
    let mut session = session(&image, &mut ram);
    let before = head_state(&mut session);
    // A random state of 0 is invalid.
    let wrong = [&before[..4], &[0; 4], &before[8..]].concat();
    done!(&mut session, Request::WriteHead { offset: 0, bytes: &wrong });
    let checksum = torch_nano_device::frame::checksum(&wrong);
    refused!(&mut session, Request::ReplaceHead { checksum }, Failure::State);
    assert_eq!(head_state(&mut session), before);
}

#[test]
fn below_the_threshold_no_class_is_known() {
    for image in [head_net().image(), conv_net().image()] {
        let length = nano_core::image::Image::new(image.bytes()).unwrap().input(0).len();
        let mut ram = ram(&image);
        let mut session = session(&image, &mut ram);
        let mut seen = [0; 2];
        for seed in 0..40 {
            let mut random = fastrand::Rng::with_seed(seed);
            let sample: Vec<u8> = (0..length).map(|_| random.u8(..)).collect();
            let rejection = random.u16(..=1 << 15);
            done!(&mut session, Request::Configure { settings: Settings { rejection, save_interval: 0 } });
            ask(&mut session, Request::Predict { input: &sample }, |response| {
                let Response::Prediction { confidence: Some(confidence), known, .. } = response else {
                    panic!("{response:?}")
                };
                assert_eq!(known, confidence >= rejection, "seed {seed}");
                assert!(confidence <= 1 << 15, "seed {seed}");
                seen[usize::from(known)] += 1;
            });
        }
        assert!(seen[0] > 3 && seen[1] > 3, "{seen:?}");
    }
}
