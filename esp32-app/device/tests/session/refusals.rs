//! What is refused, and that a refusal changes nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};

use torch_nano_device::{Failure, Request, Response, Session, frame};

use crate::builder::{Aligned, conv_net, head_net};
use crate::stream::{ask, encoded, head_state, input, ram, send, session};

const CORRUPTED: u64 = 10_000;

/// The reasons of the refusals with which the device answers `bytes`.
fn refusals<C: FnMut() -> u64>(session: &mut Session<'_, C>, bytes: &[u8]) -> Vec<Failure> {
    let mut frames = send(session, bytes);
    let failure = |frame: &mut Vec<u8>| match frame::decode(frame) {
        Some(Response::Refused(failure)) => failure,
        other => panic!("not refused: {other:?}"),
    };
    frames.iter_mut().map(failure).collect()
}

/// Learns, lets `disturb` act, trains; the head then.
fn head_after(image: &Aligned, disturb: impl FnOnce(&mut Session<'_, &mut dyn FnMut() -> u64>)) -> Vec<u8> {
    let mut ram = ram(image);
    let mut counter = || 0;
    let counter: &mut dyn FnMut() -> u64 = &mut counter;
    let mut session = Session::new(image.bytes(), nano_core::ops::ALL, &mut ram, crate::stream::RING, counter).unwrap();
    for (number, label) in [(0, 0), (1, 1), (2, 2)] {
        let learned = Response::Learned { samples: number as u32 + 1 };
        ask(&mut session, Request::Learn { label, input: &input(number) }, |response| assert_eq!(response, learned));
    }
    ask(&mut session, Request::Train { epochs: 2 }, |response| assert!(matches!(response, Response::Trained { .. })));
    let before = head_state(&mut session);
    disturb(&mut session);
    assert_eq!(head_state(&mut session), before, "the head has changed");
    ask(&mut session, Request::Train { epochs: 2 }, |response| {
        assert!(matches!(response, Response::Trained { steps: 6, .. }), "the ring has changed: {response:?}");
    });
    head_state(&mut session)
}

#[test]
fn every_refusal_names_its_reason_and_changes_nothing() {
    let image = head_net().image();
    let undisturbed = head_after(&image, |_| ());
    let right = input(9);
    let needed = right.len() as u32;
    let short = Failure::Input { needed, given: needed - 1 };
    let long = [&right[..], &[0]].concat();
    let too_long = Failure::Input { needed, given: needed + 1 };
    let cases = [
        (Request::Predict { input: &right[1..] }, short),
        (Request::Predict { input: &long }, too_long),
        (Request::Predict { input: &[] }, Failure::Input { needed, given: 0 }),
        (Request::Profile { input: &right[1..] }, short),
        (Request::Learn { label: 1, input: &right[1..] }, short),
        (Request::Learn { label: 3, input: &right }, Failure::Label { label: 3, classes: 3 }),
        (Request::Learn { label: u16::MAX, input: &right }, Failure::Label { label: 65535, classes: 3 }),
    ];
    for (request, failure) in cases {
        let disturbed = head_after(&image, |session| {
            assert_eq!(refusals(session, &encoded(request)), [failure]);
        });
        assert_eq!(disturbed, undisturbed, "{request:?}");
    }
}

#[test]
fn without_a_head_there_is_nothing_to_learn() {
    let image = conv_net().image();
    let mut ram = ram(&image);
    let mut session = session(&image, &mut ram);
    let input = [0; 7 * 6 * 3];
    for request in [Request::Learn { label: 0, input: &input }, Request::Train { epochs: 1 }, Request::ReadHead] {
        assert_eq!(refusals(&mut session, &encoded(request)), [Failure::NoHead], "{request:?}");
    }
    ask(&mut session, Request::Reset, |response| assert_eq!(response, Response::Reset));
}

#[test]
fn an_empty_ring_trains_nothing() {
    let image = head_net().image();
    let mut ram = ram(&image);
    let mut session = session(&image, &mut ram);
    let before = head_state(&mut session);
    assert_eq!(refusals(&mut session, &encoded(Request::Train { epochs: 1 })), [Failure::EmptyRing]);
    assert_eq!(head_state(&mut session), before);
}

#[test]
fn a_frame_that_is_too_long_is_skipped_to_its_end() {
    let image = head_net().image();
    let mut ram = ram(&image);
    let mut session = session(&image, &mut ram);
    let limit = frame::length(input(0).len());
    for (length, failure) in [
        (limit - 1, Failure::Frame),
        (limit, Failure::Frame),
        (limit + 1, Failure::TooLong { limit: limit as u32 }),
        (100 * limit, Failure::TooLong { limit: limit as u32 }),
    ] {
        let mut bytes = vec![1; length];
        bytes.push(frame::END);
        bytes.extend(encoded(Request::Info));
        let mut answers = send(&mut session, &bytes);
        assert_eq!(answers.len(), 2, "{length} bytes, then a request");
        assert_eq!(frame::decode(&mut answers[0]), Some(Response::Refused(failure)), "{length} bytes");
        assert!(matches!(frame::decode(&mut answers[1]), Some(Response::Info { .. })), "behind {length} bytes");
    }
}

#[test]
fn a_frame_behind_garbage_is_understood_from_its_start_on() {
    let image = head_net().image();
    let mut ram = ram(&image);
    let mut session = session(&image, &mut ram);
    let info = encoded(Request::Info);
    let is_info = |frame: &mut Vec<u8>| matches!(frame::decode(frame), Some(Response::Info { .. }));
    let is_refused = |frame: &mut Vec<u8>| frame::decode(frame) == Some(Response::Refused(Failure::Frame));
    for seed in 0..200 {
        let mut random = fastrand::Rng::with_seed(seed);
        let garbage: Vec<u8> = (0..random.usize(1..100)).map(|_| random.u8(1..)).collect();
        // With an end byte between them the garbage alone is refused; without one it takes the next frame with it.
        let mut apart = send(&mut session, &[&garbage[..], &[frame::END], &info].concat());
        assert!(apart.len() == 2 && is_refused(&mut apart[0]) && is_info(&mut apart[1]), "seed {seed}");
        let mut together = send(&mut session, &[&garbage[..], &info, &info].concat());
        assert!(together.len() == 2 && is_refused(&mut together[0]) && is_info(&mut together[1]), "seed {seed}");
    }
    // Ends alone are no frames.
    let mut answers = send(&mut session, &[&[frame::END; 300][..], &info].concat());
    assert!(answers.len() == 1 && is_info(&mut answers[0]));
    assert_eq!(send(&mut session, &[frame::END; 10]), [] as [Vec<u8>; 0]);
}

#[test]
fn requests_that_this_version_does_not_know_are_refused() {
    let image = head_net().image();
    let mut ram = ram(&image);
    let mut session = session(&image, &mut ram);
    let mut buffer = vec![0; 200];
    // Sealed rightly, but of an unknown number, and of none.
    for frame in
        [frame::encode(&200u32, &mut buffer).unwrap().to_vec(), frame::encode(&(), &mut buffer).unwrap().to_vec()]
    {
        assert_eq!(refusals(&mut session, &frame), [Failure::Frame]);
    }
}

#[test]
fn bytes_behind_a_message_make_it_another_frame() {
    let image = head_net().image();
    let mut ram = ram(&image);
    let mut session = session(&image, &mut ram);
    for request in [Request::Info, Request::Predict { input: &input(0) }, Request::Reset] {
        let mut message = encoded(request);
        message.pop();
        let length = cobs::decode_in_place(&mut message).unwrap();
        message.truncate(length);
        let mut sealed = |message: &[u8]| {
            let mut frame = vec![0; cobs::max_encoding_length(message.len())];
            let length = cobs::encode(message, &mut frame);
            frame.truncate(length);
            frame.push(frame::END);
            send(&mut session, &frame).remove(0)
        };
        assert!(!matches!(frame::decode(&mut sealed(&message)), Some(Response::Refused(_))), "{request:?}");
        for extra in [0, 1, 255] {
            let longer = sealed(&[&message[..], &[extra]].concat());
            assert_eq!(frame::decode(&mut longer.clone()), Some(Response::Refused(Failure::Frame)), "{request:?}");
        }
    }
}

/// Damages a frame (its end byte stays) so that no piece between end bytes is a request.
fn corrupt(frame: &[u8], random: &mut fastrand::Rng) -> Vec<u8> {
    loop {
        let mut bytes = frame[..frame.len() - 1].to_vec();
        for _ in 0..random.usize(1..=4) {
            let place = random.usize(..bytes.len());
            match random.u8(..6) {
                0 => bytes[place] ^= 1 << random.u8(..8),
                1 => bytes[place] = random.u8(..),
                2 => bytes[place] = frame::END,
                3 => drop(bytes.remove(place)),
                4 => bytes.insert(place, random.u8(..)),
                _ => bytes.truncate(place.max(1)),
            }
            if bytes.is_empty() {
                bytes.push(random.u8(..));
            }
        }
        bytes.push(frame::END);
        let intact = bytes
            .split(|&byte| byte == frame::END)
            .any(|piece| frame::decode::<Request<'_>>(&mut piece.to_vec()).is_some());
        if !intact {
            return bytes;
        }
    }
}

#[test]
fn corrupted_frames_are_refused_and_change_nothing() {
    let image = head_net().image();
    let undisturbed = head_after(&image, |_| ());
    let frames: Vec<Vec<u8>> = [
        Request::Info,
        Request::Predict { input: &input(5) },
        Request::Profile { input: &input(6) },
        Request::Learn { label: 1, input: &input(7) },
        Request::Train { epochs: 100 },
        Request::ReadHead,
        Request::Reset,
    ]
    .map(encoded)
    .into();
    let mut answered = 0;
    let disturbed = head_after(&image, |session| {
        for seed in 0..CORRUPTED {
            let mut random = fastrand::Rng::with_seed(seed);
            let bytes = corrupt(&frames[seed as usize % frames.len()], &mut random);
            let result = catch_unwind(AssertUnwindSafe(|| {
                let pieces = bytes.split(|&byte| byte == frame::END).filter(|piece| !piece.is_empty()).count();
                assert_eq!(refusals(session, &bytes), vec![Failure::Frame; pieces]);
                pieces
            }));
            answered += result.unwrap_or_else(|_| panic!("frame with seed {seed}: see the panic above"));
        }
    });
    assert_eq!(disturbed, undisturbed);
    assert!(answered as u64 > CORRUPTED, "{answered} pieces");
}

#[test]
fn noise_is_refused_and_changes_nothing() {
    let image = head_net().image();
    let undisturbed = head_after(&image, |_| ());
    let disturbed = head_after(&image, |session| {
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut noise: Vec<u8> = (0..2000).map(|_| random.u8(..)).collect();
            noise.push(frame::END);
            let failures = refusals(session, &noise);
            let expected = |failure: &Failure| matches!(failure, Failure::Frame | Failure::TooLong { .. });
            assert!(!failures.is_empty() && failures.iter().all(expected), "seed {seed}: {failures:?}");
        }
    });
    assert_eq!(disturbed, undisturbed);
}
