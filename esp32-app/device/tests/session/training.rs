//! Trainings that are longer than a slice: their result, the requests that end them, and those that do not.

use nano_core::image::Image;
use nano_core::train::{AnyHead, FeatureRing, Head, HeadSizes, LARGEST_EPOCHS, Target, Training};
use nano_core::{Model, ops};
use torch_nano_device::{
    Block, Class, Failure, Label, MemoryFlash, NoFlash, Options, Request, RequestHeader, Response, ResponseHeader,
    Session, Settings, frame,
};

use crate::builder::Aligned;
use crate::stream::{
    OPTIONS, RING, ask, class, every_head, head_state, input, ram, send, session, session_with, signed,
};

/// Epochs over a full ring for which these small heads need more than two slices.
const EPOCHS: u32 = 2500;
const STEPS: u64 = EPOCHS as u64 * RING as u64;
const TRAIN: Request<'_> = Request::Train { first_epoch: 7, epochs: EPOCHS };

/// The images whose heads learn in epochs.
fn images() -> Vec<(&'static str, Aligned)> {
    every_head().into_iter().filter(|(name, _)| ["sgd", "layers"].contains(name)).collect()
}

/// Fills the ring with the samples from `number` on.
fn learn<C: FnMut() -> u64, F: embedded_storage::nor_flash::NorFlash>(session: &mut Session<'_, C, F>, number: u64) {
    for sample in 0..RING as u64 {
        ask(session, Request::Learn { label: class(sample as u16 % 3), input: &input(number + sample) }, |response| {
            assert!(matches!(response, Response::Learned { .. }), "{response:?}");
        });
    }
}

/// Steps taken and left.
fn trained<C: FnMut() -> u64, F: embedded_storage::nor_flash::NorFlash>(
    session: &mut Session<'_, C, F>,
    request: Request<'_>,
) -> (u64, u64) {
    ask(session, request, |response| match response {
        Response::Trained { steps, left, .. } => (steps, left),
        other => panic!("{request:?}: {other:?}"),
    })
}

fn refused<C: FnMut() -> u64, F: embedded_storage::nor_flash::NorFlash>(
    session: &mut Session<'_, C, F>,
    request: Request<'_>,
) -> Failure {
    ask(session, request, |response| match response {
        Response::Refused(failure) => failure,
        other => panic!("{request:?}: {other:?}"),
    })
}

/// The state of a head that takes so many steps of the training [`TRAIN`] in one piece, on the host.
fn in_one_piece(image: &Aligned, number: u64, steps: u64) -> Vec<u8> {
    let view = Image::new(image.bytes()).unwrap();
    let mut arena = vec![0; view.arena_length()];
    let mut model = Model::new(image.bytes(), &mut arena, ops::ALL).unwrap();
    let mut memory = vec![0; HeadSizes::of(view.head().unwrap()).words()];
    let mut head = AnyHead::new(&view, &mut memory).unwrap();
    let (mut features, mut words) = (vec![0; RING * head.features()], [0; RING]);
    let mut ring = FeatureRing::new(head.features(), &mut features, &mut words).unwrap();
    for sample in 0..RING as u64 {
        model.input(0).copy_from_slice(&signed(&input(number + sample)));
        model.run();
        ring.push(model.output(0), Target::Class(sample as u16 % 3)).unwrap();
    }
    let mut training = Training::new(&ring, 7, EPOCHS).unwrap();
    head.train(&ring, &mut training, steps.try_into().unwrap()).unwrap();
    assert_eq!((training.taken(), training.left()), (steps, STEPS - steps));
    head.state().to_vec()
}

#[test]
fn slices_make_the_training_in_one_piece() {
    for (name, image) in images() {
        let mut memory = ram(&image);
        let mut session = session(&image, &mut memory);
        learn(&mut session, 0);
        let initial = head_state(&mut session);
        let (mut slices, mut before) = (1, 0);
        let mut progress = trained(&mut session, TRAIN);
        while progress.1 > 0 {
            let slice = progress.0 - before;
            assert!((1..=4096).contains(&slice), "{name}: a slice of {slice} steps");
            assert_eq!(progress.0 + progress.1, STEPS);
            assert_eq!(head_state(&mut session), in_one_piece(&image, 0, progress.0), "{name}, slice {slices}");
            before = progress.0;
            progress = trained(&mut session, Request::Continue);
            slices += 1;
        }
        assert!(slices > 2, "{name}: {slices}");
        assert_eq!(head_state(&mut session), in_one_piece(&image, 0, STEPS), "{name}");
        // The training has ended.
        assert_eq!(refused(&mut session, Request::Continue), Failure::NoTraining);
        assert_eq!(refused(&mut session, Request::Stop), Failure::NoTraining);
        // One Undo takes all of it back.
        ask(&mut session, Request::Undo, |response| assert_eq!(response, Response::Done));
        assert_eq!(head_state(&mut session), initial);
    }
}

#[test]
fn a_stopped_training_has_taken_the_steps_that_it_says() {
    for (name, image) in images() {
        for slices in 1..3 {
            let mut memory = ram(&image);
            let mut session = session(&image, &mut memory);
            learn(&mut session, 40);
            let initial = head_state(&mut session);
            let mut progress = trained(&mut session, TRAIN);
            for _ in 1..slices {
                progress = trained(&mut session, Request::Continue);
            }
            assert_eq!(trained(&mut session, Request::Stop), progress);
            assert!(progress.1 > 0, "{name}: nothing was left to stop");
            assert_eq!(head_state(&mut session), in_one_piece(&image, 40, progress.0), "{name}");
            assert_eq!(refused(&mut session, Request::Continue), Failure::NoTraining);
            ask(&mut session, Request::Undo, |response| assert_eq!(response, Response::Done));
            assert_eq!(head_state(&mut session), initial);
        }
    }
}

#[test]
fn a_training_of_too_many_epochs_is_refused_and_changes_nothing() {
    let (_, image) = images().swap_remove(0);
    let mut memory = ram(&image);
    let mut session = session(&image, &mut memory);
    learn(&mut session, 0);
    let limit = Failure::Epochs { limit: LARGEST_EPOCHS };
    for (first_epoch, epochs) in [(0, LARGEST_EPOCHS + 1), (0, u32::MAX), (u32::MAX, u32::MAX), (LARGEST_EPOCHS, 1)] {
        assert_eq!(refused(&mut session, Request::Train { first_epoch, epochs }), limit);
    }
    // Undo still takes back the latest sample.
    ask(&mut session, Request::Undo, |response| assert_eq!(response, Response::Done));
    assert_eq!(trained(&mut session, Request::Train { first_epoch: 0, epochs: 1 }), (RING as u64 - 1, 0));
}

/// Requests that change no head, and refused ones, do not affect an open training.
#[test]
fn other_requests_leave_an_open_training_alone() {
    for (name, image) in images() {
        let sample = input(3);
        let others = [
            Request::Info,
            Request::Stats,
            Request::Predict { input: &sample },
            Request::Features { input: &sample },
            Request::Profile { input: &sample },
            Request::Input { offset: 0, bytes: &sample[..5] },
            Request::Read { block: Block::Head, offset: 8 },
            Request::Save { replace: false },
            Request::Configure { settings: Settings { rejection: 5, save_interval: 0 } },
            Request::ClassName { class: 0 },
            Request::Learn { label: class(9), input: &sample },
            Request::Learn { label: class(0), input: &sample[1..] },
            Request::Learn { label: Label::Value(1), input: &sample },
            Request::AddClass { name: "more" },
            Request::Forget { class: Class::Index(0) },
            Request::WriteHead { offset: 1, bytes: &[0] },
            Request::ReplaceHead { checksum: 0 },
            Request::Train { first_epoch: 0, epochs: LARGEST_EPOCHS + 1 },
        ];
        let mut memory = ram(&image);
        let mut session = session_with(&image, &mut memory, OPTIONS, MemoryFlash(vec![0xff; 8 * 4096]));
        learn(&mut session, 0);
        let initial = head_state(&mut session);
        let mut progress = trained(&mut session, TRAIN);
        while progress.1 > 0 {
            for request in others {
                ask(&mut session, request, |_| ());
            }
            progress = trained(&mut session, Request::Continue);
        }
        assert_eq!(head_state(&mut session), in_one_piece(&image, 0, STEPS), "{name}");
        ask(&mut session, Request::Undo, |response| assert_eq!(response, Response::Done));
        assert_eq!(head_state(&mut session), initial, "{name}");
    }
}

#[test]
fn whatever_changes_head_or_samples_ends_an_open_training_where_it_is() {
    let (_, image) = images().swap_remove(0);
    let sample = input(3);
    let enders = [
        Request::Begin,
        Request::Train { first_epoch: 0, epochs: 1 },
        Request::Learn { label: class(0), input: &sample },
        Request::Commit,
        Request::Undo,
        Request::Load,
        Request::WriteHead { offset: 0, bytes: &[0] },
        Request::Reset,
        Request::Stop,
    ];
    for request in enders {
        let mut memory = ram(&image);
        let mut session = session_with(&image, &mut memory, OPTIONS, MemoryFlash(vec![0xff; 8 * 4096]));
        ask(&mut session, Request::Save { replace: false }, |_| ());
        learn(&mut session, 0);
        let initial = head_state(&mut session);
        let (steps, left) = trained(&mut session, TRAIN);
        assert!(left > 0);
        let trained = head_state(&mut session);
        assert_eq!(trained, in_one_piece(&image, 0, steps));
        ask(&mut session, request, |response| assert!(!matches!(response, Response::Refused(_)), "{request:?}"));
        assert_eq!(refused(&mut session, Request::Continue), Failure::NoTraining, "{request:?}");
        assert_eq!(refused(&mut session, Request::Stop), Failure::NoTraining, "{request:?}");
        let state = head_state(&mut session);
        match request {
            Request::Undo | Request::Load | Request::Reset => assert_eq!(state, initial, "{request:?}"),
            Request::Train { .. } => assert_ne!(state, trained),
            _ => assert_eq!(state, trained, "{request:?}"),
        }
    }
}

#[test]
fn a_repeated_slice_is_answered_again_and_not_taken_again() {
    let (_, image) = images().swap_remove(0);
    let mut memory = ram(&image);
    let mut session = session(&image, &mut memory);
    learn(&mut session, 0);
    let mut numbered = |sequence: u16, request| {
        let header = RequestHeader { sequence, ..RequestHeader::default() };
        let bytes = frame::encode(&header, &request, &mut [0; 100]).unwrap().to_vec();
        let mut answer = send(&mut session, &bytes).remove(0);
        match frame::decode::<ResponseHeader, Response<'_>>(&mut answer) {
            Some((_, Response::Trained { steps, left, .. })) => (steps, left),
            other => panic!("{other:?}"),
        }
    };
    for (sequence, request) in [(1, TRAIN), (2, Request::Continue), (3, Request::Stop)] {
        let first = numbered(sequence, request);
        assert_eq!(numbered(sequence, request), first);
    }
}

#[test]
fn a_training_is_one_change_which_is_saved_at_its_end() {
    let (_, image) = images().swap_remove(0);
    for stopped in [false, true] {
        let mut memory = ram(&image);
        let options = Options { settings: Settings { rejection: 0, save_interval: 1 }, ..OPTIONS };
        let mut session = session_with(&image, &mut memory, options, MemoryFlash(vec![0xff; 8 * 4096]));
        let saved = |session: &mut Session<'_, _, MemoryFlash<Vec<u8>>>| {
            let mut memory = ram(&image);
            head_state(&mut session_with(&image, &mut memory, OPTIONS, session.device.flash().clone()))
        };
        learn(&mut session, 0);
        let initial = head_state(&mut session);
        let mut progress = trained(&mut session, TRAIN);
        while progress.1 > 0 {
            // A power cut now loses the training.
            assert_eq!(saved(&mut session), initial);
            let request = if stopped { Request::Stop } else { Request::Continue };
            progress = trained(&mut session, request);
            if stopped {
                break;
            }
        }
        assert_eq!(saved(&mut session), head_state(&mut session));
        ask(&mut session, Request::Stats, |response| match response {
            Response::Stats(stats) => assert_eq!((stats.saves, u64::from(stats.steps)), (1, progress.0)),
            other => panic!("{other:?}"),
        });
        assert_eq!(progress.0, if stopped { STEPS - progress.1 } else { STEPS });
    }
}

/// A new sample, or a part of another head, ends a training as Stop does.
#[test]
fn a_training_that_another_request_ends_is_saved_too() {
    let (_, image) = images().swap_remove(0);
    let sample = input(3);
    let enders = [
        Request::Begin,
        Request::Learn { label: class(0), input: &sample },
        Request::Commit,
        Request::WriteHead { offset: 0, bytes: &[0] },
    ];
    for request in enders {
        let mut memory = ram(&image);
        let options = Options { settings: Settings { rejection: 0, save_interval: 1 }, ..OPTIONS };
        let mut session = session_with(&image, &mut memory, options, MemoryFlash(vec![0xff; 8 * 4096]));
        learn(&mut session, 0);
        assert!(trained(&mut session, TRAIN).1 > 0);
        let head = head_state(&mut session);
        ask(&mut session, request, |response| assert!(!matches!(response, Response::Refused(_)), "{request:?}"));
        let mut memory = ram(&image);
        let saved = head_state(&mut session_with(&image, &mut memory, OPTIONS, session.device.flash().clone()));
        assert_eq!(saved, head, "{request:?}");
    }
}

/// Parts of a head that is read during a training belong to different states, as their counters of changes show.
#[test]
fn each_slice_counts_as_a_change_for_readers_of_the_head() {
    let (_, image) = images().swap_remove(0);
    let mut memory = ram(&image);
    let mut session = session_with(&image, &mut memory, OPTIONS, NoFlash);
    learn(&mut session, 0);
    let mut changes = vec![];
    let mut left = trained(&mut session, TRAIN).1;
    while left > 0 {
        ask(&mut session, Request::Read { block: Block::Head, offset: 0 }, |response| match response {
            Response::Part { changes: now, .. } => changes.push(now),
            other => panic!("{other:?}"),
        });
        left = trained(&mut session, Request::Continue).1;
    }
    assert_eq!(changes, (1..=changes.len() as u32).collect::<Vec<_>>());
    assert!(changes.len() > 1);
}
