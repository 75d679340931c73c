//! A million frames that are damaged in transit: no panic, and no change of the head.

use std::panic::{AssertUnwindSafe, catch_unwind};

use torch_nano_device::{Failure, MemoryFlash, Request, RequestHeader, Response, frame};

use crate::builder::{Aligned, head_net};
use crate::frames::requests;
use crate::refusals::refusals;
use crate::stream::{OPTIONS, ask, class, encoded, every_head, head_state, input, ram, session_with};

const FRAMES: u64 = 1_000_000;
const BATCH: u64 = 1000;

/// Damages a frame, but not its end byte: flips bits; changes, removes, inserts or swaps bytes; ends it early.
fn damage(frame: &[u8], random: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = frame[..frame.len() - 1].to_vec();
    for _ in 0..random.usize(1..=4) {
        let place = random.usize(..bytes.len());
        match random.u8(..8) {
            0 | 1 => bytes[place] ^= 1 << random.u8(..8),
            2 => bytes[place] = random.u8(..),
            3 => bytes[place] = frame::END,
            4 => drop(bytes.remove(place)),
            5 => bytes.insert(place, random.u8(..)),
            6 => {
                let other = random.usize(..bytes.len());
                bytes.swap(place, other);
            }
            _ => bytes.truncate(place.max(1)),
        }
        if bytes.is_empty() {
            bytes.push(random.u8(..));
        }
    }
    bytes.push(frame::END);
    bytes
}

fn is_request(piece: &[u8]) -> bool {
    frame::decode::<RequestHeader, Request<'_>>(&mut piece.to_vec()).is_some()
}

/// Whether no piece between end bytes is a request.
fn corrupt(frame: &[u8], random: &mut fastrand::Rng) -> Vec<u8> {
    loop {
        let bytes = damage(frame, random);
        if !bytes.split(|&byte| byte == frame::END).any(is_request) {
            return bytes;
        }
    }
}

/// Sends all requests that change state and that this head supports, with `disturb` in the middle. Returns the head, the flash and the answers.
fn conversation(
    image: &Aligned,
    disturb: impl FnOnce(&mut dyn FnMut(&[u8]) -> Vec<Failure>),
) -> (Vec<u8>, Vec<u8>, String) {
    let mut ram = ram(image);
    let flash = MemoryFlash(vec![0xff; 8 * 4096]);
    let mut session = session_with(image, &mut ram, OPTIONS, flash);
    let mut answers = String::new();
    let mut say = |session: &mut _, request: Request<'_>| {
        ask(session, request, |response| answers.push_str(&format!("{response:?}\n")));
    };
    let whole = input(5);
    let (first, rest) = whole.split_at(whole.len() / 2);
    let in_epochs = ask(&mut session, Request::Info, |response| match response {
        Response::Info { ring_capacity, .. } => ring_capacity > 0,
        other => panic!("{other:?}"),
    });
    let train = |epochs| if in_epochs { Request::Train { first_epoch: 0, epochs } } else { Request::Commit };
    for number in 0..4 {
        say(&mut session, Request::Learn { label: class(number as u16 % 2), input: &input(number) });
    }
    say(&mut session, train(2));
    say(&mut session, Request::Save { replace: false });
    let state = head_state(&mut session);
    say(&mut session, train(2));
    // A head without a ring uses one copy for this and for Undo.
    if in_epochs {
        say(&mut session, Request::WriteHead { offset: 0, bytes: &state[..9] });
    } else {
        say(&mut session, Request::AddClass { name: "lower" });
    }
    // Learning replaces a sample of the ring, which Undo restores.
    say(&mut session, Request::Learn { label: class(1), input: &whole });
    say(&mut session, Request::Input { offset: 0, bytes: first });
    disturb(&mut |bytes| refusals(&mut session, bytes));
    say(&mut session, Request::Predict { input: rest });
    say(&mut session, Request::Undo);
    if in_epochs {
        say(&mut session, Request::WriteHead { offset: 9, bytes: &state[9..] });
        let checksum = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC).checksum(&state);
        say(&mut session, Request::ReplaceHead { checksum });
    } else {
        say(&mut session, Request::ClassName { class: 2 });
    }
    say(&mut session, train(1));
    say(&mut session, Request::Save { replace: false });
    let state = head_state(&mut session);
    let flash = session.device.flash().0.clone();
    (state, flash, answers)
}

#[test]
fn a_million_corrupted_frames_are_refused_and_change_nothing() {
    let whole = input(5);
    let frames: Vec<Vec<u8>> = requests(&whole, "raise").into_iter().map(encoded).collect();
    let heads = every_head();
    let batches = FRAMES / BATCH / heads.len() as u64;
    let mut pieces = 0;
    for ((name, image), first) in heads.iter().zip((0..).step_by(batches as usize)) {
        let undisturbed = conversation(image, |_| ());
        assert!(!undisturbed.2.contains("Refused"), "{name}: {}", undisturbed.2);
        let disturbed = conversation(image, |send| {
            for batch in first..first + batches {
                let result = catch_unwind(AssertUnwindSafe(|| {
                    let seeds = batch * BATCH..(batch + 1) * BATCH;
                    let bytes: Vec<u8> = seeds
                        .flat_map(|seed| {
                            corrupt(&frames[seed as usize % frames.len()], &mut fastrand::Rng::with_seed(seed))
                        })
                        .collect();
                    let expected = bytes.split(|&byte| byte == frame::END).filter(|piece| !piece.is_empty()).count();
                    let failures = send(&bytes);
                    let refused = |failure: &&Failure| matches!(failure, Failure::Frame | Failure::Protocol { .. });
                    assert_eq!((failures.len(), failures.iter().filter(refused).count()), (expected, expected));
                    expected
                }));
                pieces += result.unwrap_or_else(|_| panic!("{name}, a seed from {} on, in thousand", batch * BATCH));
            }
        });
        assert_eq!(disturbed, undisturbed, "{name}");
    }
    assert!(pieces as u64 > FRAMES, "{pieces} pieces");
}

/// Of damaged and intact frames in turn, exactly the intact ones are executed.
#[test]
fn between_damaged_frames_intact_ones_work() {
    let image = head_net().image();
    for seed in 0..200 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut heads = vec![];
        let mut stream = vec![];
        for number in 0..20 {
            let request = match random.u8(..3) {
                0 => Request::Train { first_epoch: 0, epochs: random.u32(..3) },
                1 => Request::Undo,
                _ => Request::Learn { label: class(random.u16(..3)), input: &input(number) },
            };
            let frame = encoded(request);
            let damaged = random.bool().then(|| corrupt(&frame, &mut random));
            stream.push((frame, damaged));
        }
        for with_damage in [false, true] {
            let mut ram = ram(&image);
            let mut session = session_with(&image, &mut ram, OPTIONS, MemoryFlash(vec![0xff; 8 * 4096]));
            for (frame, damaged) in &stream {
                if let (true, Some(damaged)) = (with_damage, damaged) {
                    refusals(&mut session, damaged);
                }
                crate::stream::send(&mut session, frame);
            }
            heads.push(head_state(&mut session));
        }
        assert_eq!(heads[0], heads[1], "seed {seed}");
    }
}

#[test]
fn a_request_that_comes_again_is_answered_again_and_not_executed_again() {
    let image = head_net().image();
    let mut ram = ram(&image);
    let mut session = session_with(&image, &mut ram, OPTIONS, MemoryFlash(vec![0xff; 8 * 4096]));
    let numbered = |sequence, request: Request<'_>| {
        let mut buffer = vec![0; 500];
        let header = RequestHeader { sequence, ..RequestHeader::default() };
        frame::encode(&header, &request, &mut buffer).unwrap().to_vec()
    };
    let learn = numbered(7, Request::Learn { label: class(1), input: &input(1) });
    let first = crate::stream::send(&mut session, &learn);
    // The answer was lost, then the request was damaged, then it arrived again.
    let damaged = corrupt(&learn, &mut fastrand::Rng::with_seed(1));
    assert!(!refusals(&mut session, &damaged).is_empty());
    assert_eq!(crate::stream::send(&mut session, &learn), first);
    let samples = |session: &mut _| {
        ask(session, Request::Learn { label: class(1), input: &input(2) }, |response| match response {
            Response::Learned { samples, .. } => samples,
            other => panic!("{other:?}"),
        })
    };
    assert_eq!(samples(&mut session), 2);
    // Another request with the same number, the same request with another number, and one without a number: all are executed.
    let train = |sequence| numbered(sequence, Request::Train { first_epoch: 0, epochs: 1 });
    let mut heads = vec![head_state(&mut session)];
    crate::stream::send(&mut session, &numbered(9, Request::Stats));
    for frame in [train(9), train(10), train(0), train(0)] {
        crate::stream::send(&mut session, &frame);
        heads.push(head_state(&mut session));
        assert_ne!(heads[heads.len() - 1], heads[heads.len() - 2]);
    }
    ask(&mut session, Request::Stats, |response| {
        let Response::Stats(stats) = response else { panic!("{response:?}") };
        assert_eq!((stats.repeated, stats.learned), (1, 2));
        assert!(stats.refused_frames > 0);
    });
}
