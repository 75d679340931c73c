//! Refusals: their reasons, and that they change nothing.

use embedded_storage::nor_flash::NorFlash;
use nano_core::CheckedImage;
use torch_nano_device::{Block, Failure, NoFlash, PROTOCOL, Request, RequestHeader, Response, Session, frame};

use crate::builder::{Aligned, conv_net, head_net};
use crate::stream::{FRAME, OPTIONS, ask, class, encoded, head_state, input, ram, response, send, session};

/// The reasons of the refusals with which the device answers `bytes`.
pub fn refusals<C: FnMut() -> u64, F: NorFlash>(session: &mut Session<'_, C, F>, bytes: &[u8]) -> Vec<Failure> {
    let mut frames = send(session, bytes);
    let failure = |frame: &mut Vec<u8>| match response(frame) {
        Response::Refused(failure) => failure,
        other => panic!("not refused: {other:?}"),
    };
    frames.iter_mut().map(failure).collect()
}

/// Learns, calls `disturb`, trains; returns the head.
fn head_after(image: &Aligned, disturb: impl FnOnce(&mut Session<'_, &mut dyn FnMut() -> u64, NoFlash>)) -> Vec<u8> {
    let mut ram = ram(image);
    let mut counter = || 0;
    let counter: &mut dyn FnMut() -> u64 = &mut counter;
    let checked = CheckedImage::new(image.bytes(), nano_core::ops::ALL).unwrap();
    let mut session = Session::new(checked, &mut ram, OPTIONS, NoFlash, counter).unwrap();
    for (number, label) in [(0, 0), (1, 1), (2, 2)] {
        let learned = Response::Learned { samples: number as u32 + 1, ticks: 0 };
        ask(&mut session, Request::Learn { label: class(label), input: &input(number) }, |response| {
            assert_eq!(response, learned)
        });
    }
    ask(&mut session, Request::Train { first_epoch: 0, epochs: 2 }, |response| {
        assert!(matches!(response, Response::Trained { .. }))
    });
    let before = head_state(&mut session);
    disturb(&mut session);
    assert_eq!(head_state(&mut session), before, "the head has changed");
    ask(&mut session, Request::Train { first_epoch: 0, epochs: 2 }, |response| {
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
        (Request::Learn { label: class(1), input: &right[1..] }, short),
        (Request::Learn { label: class(3), input: &right }, Failure::Label { label: 3, classes: 3 }),
        (Request::Learn { label: class(u16::MAX), input: &right }, Failure::Label { label: 65535, classes: 3 }),
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
    for request in [
        Request::Learn { label: class(0), input: &input },
        Request::Train { first_epoch: 0, epochs: 1 },
        Request::Read { block: Block::Head, offset: 0 },
    ] {
        assert_eq!(refusals(&mut session, &encoded(request)), [Failure::NoHead], "{request:?}");
    }
    ask(&mut session, Request::Reset, |response| assert_eq!(response, Response::Done));
}

#[test]
fn an_empty_ring_trains_nothing() {
    let image = head_net().image();
    let mut ram = ram(&image);
    let mut session = session(&image, &mut ram);
    let before = head_state(&mut session);
    assert_eq!(refusals(&mut session, &encoded(Request::Train { first_epoch: 0, epochs: 1 })), [Failure::EmptyRing]);
    assert_eq!(head_state(&mut session), before);
}

#[test]
fn a_frame_that_is_too_long_is_skipped_to_its_end() {
    let image = head_net().image();
    let mut ram = ram(&image);
    let mut session = session(&image, &mut ram);
    let limit = frame::length(FRAME);
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
        assert_eq!(response(&mut answers[0]), Response::Refused(failure), "{length} bytes");
        assert!(matches!(response(&mut answers[1]), Response::Info { .. }), "after {length} bytes");
    }
}

#[test]
fn a_frame_after_garbage_is_understood() {
    let image = head_net().image();
    let mut ram = ram(&image);
    let mut session = session(&image, &mut ram);
    let info = encoded(Request::Info);
    let is_info = |frame: &mut Vec<u8>| matches!(response(frame), Response::Info { .. });
    let is_refused = |frame: &mut Vec<u8>| response(frame) == Response::Refused(Failure::Frame);
    for seed in 0..200 {
        let mut random = fastrand::Rng::with_seed(seed);
        let garbage: Vec<u8> = (0..random.usize(1..100)).map(|_| random.u8(1..)).collect();
        // With an end byte between them only the garbage is refused; without one, the frame that follows is refused with it.
        let mut apart = send(&mut session, &[&garbage[..], &[frame::END], &info].concat());
        assert!(apart.len() == 2 && is_refused(&mut apart[0]) && is_info(&mut apart[1]), "seed {seed}");
        let mut together = send(&mut session, &[&garbage[..], &info, &info].concat());
        assert!(together.len() == 2 && is_refused(&mut together[0]) && is_info(&mut together[1]), "seed {seed}");
    }
    // End bytes alone are not frames.
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
    let header = RequestHeader::default();
    // With a valid CRC, but an unknown request, or none.
    for frame in [
        frame::encode(&header, &200u32, &mut buffer).unwrap().to_vec(),
        frame::encode(&header, &(), &mut buffer).unwrap().to_vec(),
    ] {
        assert_eq!(refusals(&mut session, &frame), [Failure::Frame]);
    }
}

#[test]
fn another_protocol_and_another_model_are_refused_by_name() {
    let image = head_net().image();
    let undisturbed = head_after(&image, |_| ());
    let model_id = nano_core::image::Image::new(image.bytes()).unwrap().id();
    let disturbed = head_after(&image, |session| {
        let mut buffer = vec![0; 200];
        let mut send_with = |header: RequestHeader| {
            let bytes =
                frame::encode(&header, &Request::Train { first_epoch: 0, epochs: 9 }, &mut buffer).unwrap().to_vec();
            let frames = send(session, &bytes);
            frame::decode::<torch_nano_device::ResponseHeader, Response<'_>>(&mut frames[0].clone()).map(
                |(header, response)| match response {
                    Response::Refused(failure) => (header.sequence, failure),
                    other => panic!("{other:?}"),
                },
            )
        };
        for protocol in (0..=255).filter(|&protocol| protocol != PROTOCOL) {
            let header = RequestHeader { protocol, sequence: 5, ..RequestHeader::default() };
            assert_eq!(send_with(header), Some((0, Failure::Protocol { protocol: PROTOCOL })));
        }
        for other in [0, 1, !model_id] {
            let header = RequestHeader { sequence: 5, model_id: Some(other), ..RequestHeader::default() };
            assert_eq!(send_with(header), Some((5, Failure::Model { model_id })));
        }
    });
    assert_eq!(disturbed, undisturbed);
    // The right one is executed.
    let mut ram = ram(&image);
    let mut session = session(&image, &mut ram);
    let mut buffer = vec![0; 200];
    let header = RequestHeader { model_id: Some(model_id), ..RequestHeader::default() };
    let bytes = frame::encode(&header, &Request::Info, &mut buffer).unwrap().to_vec();
    assert!(matches!(response(&mut send(&mut session, &bytes)[0]), Response::Info { .. }));
}

#[test]
fn another_session_is_refused() {
    let image = head_net().image();
    let mut ram = ram(&image);
    let mut session = session(&image, &mut ram);
    let mut ask_in = |session_number, request| {
        let header = RequestHeader { session: session_number, sequence: 5, ..RequestHeader::default() };
        let bytes = frame::encode(&header, &request, &mut [0; 400]).unwrap().to_vec();
        let mut frames = send(&mut session, &bytes);
        let (header, response) =
            frame::decode::<torch_nano_device::ResponseHeader, Response<'_>>(&mut frames[0]).unwrap();
        assert_eq!(header.sequence, 5);
        response == Response::Refused(Failure::Session)
    };
    let learn = &input(1);
    let learn = Request::Learn { label: class(0), input: learn };
    // As after a restart.
    assert!(ask_in(7, learn) && ask_in(7, Request::Info));
    assert!(!ask_in(0, Request::Info));
    assert!(!ask_in(7, Request::Begin));
    assert!(!ask_in(7, learn) && !ask_in(0, learn) && ask_in(8, learn));
    // Another client begins.
    assert!(!ask_in(8, Request::Begin));
    assert!(ask_in(7, learn) && !ask_in(8, learn));
}

#[test]
fn a_message_with_bytes_after_it_is_refused() {
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
        assert!(!matches!(response(&mut sealed(&message)), Response::Refused(_)), "{request:?}");
        for extra in [0, 1, 255] {
            let longer = sealed(&[&message[..], &[extra]].concat());
            assert_eq!(response(&mut longer.clone()), Response::Refused(Failure::Frame), "{request:?}");
        }
    }
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
