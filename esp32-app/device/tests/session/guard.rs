//! Trainings that are judged by samples kept aside, and taken back unless they made the head better.

use nano_core::image::{HeadDescription, Image};
use nano_core::train::{AnyHead, FeatureRing, Head, HeadSizes, Target, Training, take_back_if_worse};
use nano_core::{Model, ops};
use torch_nano_device::{Failure, Request, Response, Session};

use crate::builder::{Aligned, head_net};
use crate::stream::{RING, ask, class, head_state, input, ram, session, signed};

/// Every second sample is kept aside.
const GUARD: u32 = 2;
/// Epochs that need more than one slice.
const LONG: u32 = 6000;

/// Sample `index` from `number` on: its input and class. From an odd number on, those kept aside are equal to those visited, so that training helps.
fn sample(number: u64, index: u64) -> (Vec<u8>, u16) {
    let index = if number.is_multiple_of(2) { index } else { index / 2 };
    (input(number + index), (index % 3) as u16)
}

fn guarded() -> Aligned {
    let mut net = head_net();
    let Some(HeadDescription::Sgd(head)) = &mut net.model.head else { panic!("another head") };
    head.descent.guard = GUARD;
    net.image()
}

/// The head on the host after `steps` steps of a training on the samples from `number` on, and whether it was taken back.
fn judged(image: &Aligned, number: u64, epochs: u32, steps: u64) -> (Vec<u8>, bool) {
    let view = Image::new(image.bytes()).unwrap();
    let mut arena = vec![0; view.arena_length()];
    let mut model = Model::new(image.bytes(), &mut arena, ops::ALL).unwrap();
    let mut memory = vec![0; HeadSizes::of(view.head().unwrap()).words()];
    let mut head = AnyHead::new(&view, &mut memory).unwrap();
    let (mut features, mut words) = (vec![0; RING * head.features()], [0; RING]);
    let mut ring = FeatureRing::new(head.features(), &mut features, &mut words).unwrap().guarded(GUARD);
    for index in 0..RING as u64 {
        let (input, class) = sample(number, index);
        model.input(0).copy_from_slice(&signed(&input));
        model.run();
        ring.push(model.output(0), Target::Class(class)).unwrap();
    }
    let mut before = head.state().to_vec();
    let mut training = Training::new(&ring, 0, epochs).unwrap();
    head.train(&ring, &mut training, steps.try_into().unwrap()).unwrap();
    let taken_back = take_back_if_worse(&mut head, &mut before, &ring).unwrap();
    (head.state().to_vec(), taken_back)
}

fn learn<C: FnMut() -> u64>(session: &mut Session<'_, C, torch_nano_device::NoFlash>, number: u64) {
    for index in 0..RING as u64 {
        let (input, label) = sample(number, index);
        let request = Request::Learn { label: class(label), input: &input };
        ask(session, request, |response| assert!(matches!(response, Response::Learned { .. }), "{response:?}"));
    }
}

/// Steps taken and left, and whether the training was taken back.
fn trained<C: FnMut() -> u64>(
    session: &mut Session<'_, C, torch_nano_device::NoFlash>,
    request: Request<'_>,
) -> (u64, u64, bool) {
    ask(session, request, |response| match response {
        Response::Trained { steps, left, taken_back, .. } => (steps, left, taken_back),
        other => panic!("{request:?}: {other:?}"),
    })
}

#[test]
fn a_training_that_makes_the_head_no_better_is_taken_back() {
    let image = guarded();
    let mut taken_back = 0;
    for number in 0..40 {
        let mut memory = ram(&image);
        let mut session = session(&image, &mut memory);
        learn(&mut session, number);
        let initial = head_state(&mut session);
        let visited = RING as u64 - RING as u64 / u64::from(GUARD);
        let made = trained(&mut session, Request::Train { first_epoch: 0, epochs: 40 });
        let (state, dropped) = judged(&image, number, 40, 40 * visited);
        assert_eq!(made, (40 * visited, 0, dropped), "samples from {number} on");
        assert_eq!(head_state(&mut session), state, "samples from {number} on");
        assert_eq!(state == initial, dropped);
        let undone = if dropped { Response::Refused(Failure::NothingToUndo) } else { Response::Done };
        ask(&mut session, Request::Undo, |response| assert_eq!(response, undone));
        assert_eq!(head_state(&mut session), initial);
        ask(&mut session, Request::Stats, |response| {
            let Response::Stats(stats) = response else { panic!("{response:?}") };
            assert_eq!(stats.taken_back, dropped.into());
        });
        taken_back += u32::from(dropped);
    }
    assert!((5..35).contains(&taken_back), "{taken_back} of 40");
}

#[test]
fn whatever_ends_a_training_it_is_judged() {
    let image = guarded();
    let again = Request::Train { first_epoch: 0, epochs: LONG };
    for number in 0..12 {
        let bytes = input(number);
        let ends =
            [Request::Stop, Request::Learn { label: class(0), input: &bytes }, Request::Commit, Request::Begin, again];
        for end in ends {
            let mut memory = ram(&image);
            let mut session = session(&image, &mut memory);
            learn(&mut session, number);
            let (steps, left, _) = trained(&mut session, again);
            assert!(left > 0, "nothing was left to end");
            ask(&mut session, end, |response| assert!(!matches!(response, Response::Refused(_)), "{end:?}"));
            let (state, dropped) = judged(&image, number, LONG, steps);
            if end != again {
                assert_eq!(head_state(&mut session), state, "{end:?}, samples from {number} on");
            }
            ask(&mut session, Request::Stats, |response| {
                let Response::Stats(stats) = response else { panic!("{response:?}") };
                assert_eq!(stats.taken_back, dropped.into(), "{end:?}, samples from {number} on");
            });
        }
    }
}
