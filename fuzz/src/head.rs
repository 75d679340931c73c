//! All operations of a head, in any order.

use nano_core::Error;
use nano_core::image::{HeadRecord, Image};
use nano_core::train::{AnyHead, FeatureRing, Head, HeadSizes, Target, Training, Update, aggregate};
use serde::{Deserialize, Serialize};

use crate::mutation;
use crate::refusals;

/// The largest RAM of a head, in words; images that need more are skipped.
const LARGEST_RAM: usize = 1 << 18;
/// The largest number of features of a head of sums: the time of solving grows with its cube.
const MOST_FEATURES: usize = 128;
const RING: usize = 4;
/// Steps taken of a training.
const STEPS: u32 = 24;

/// An operation on a head.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Operation {
    Learn {
        target: Goal,
        sample: u16,
    },
    Unlearn {
        target: Goal,
        sample: u16,
    },
    Keep {
        target: Goal,
        sample: u16,
    },
    /// Takes some steps of a training, divided into pieces.
    Train {
        first_epoch: u32,
        epochs: u32,
        piece: u8,
    },
    Commit,
    AddClass,
    Forget {
        class: u16,
    },
    Reset,
    /// Loads the head's own state with some words changed.
    Load {
        changes: Vec<(u16, u32)>,
    },
    /// Exchanges, merges or aggregates a state that the head had.
    Again {
        which: u8,
    },
    Merge {
        which: u8,
    },
    Aggregate {
        which: u8,
        samples: u32,
    },
}

/// A serializable [`Target`].
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Goal {
    Class(u16),
    Labels(u32),
    Value(i32),
}

impl From<Goal> for Target {
    fn from(goal: Goal) -> Self {
        match goal {
            Goal::Class(class) => Target::Class(class),
            Goal::Labels(bits) => Target::Labels(bits),
            Goal::Value(value) => Target::Value(value),
        }
    }
}

/// Each operation once, and some whose order matters: the first scripts.
pub(crate) fn operations() -> Vec<Operation> {
    use Operation::*;
    let goals = [Goal::Class(0), Goal::Class(1), Goal::Labels(5), Goal::Value(i32::MIN)];
    let learn = goals.into_iter().flat_map(|target| {
        [
            Learn { target, sample: 0 },
            Learn { target, sample: 1 },
            Keep { target, sample: 2 },
            Unlearn { target, sample: 0 },
        ]
    });
    let others = [
        Train { first_epoch: 0, epochs: 2, piece: 3 },
        Train { first_epoch: u32::MAX, epochs: 200, piece: 0 },
        Commit,
        AddClass,
        Load { changes: vec![] },
        Load { changes: vec![(0, 0), (9, 0)] },
        Forget { class: 0 },
        Commit,
        Merge { which: 3 },
        Again { which: 1 },
        Aggregate { which: 4, samples: 7 },
        Reset,
    ];
    learn.chain(others).collect()
}

/// Scripts that set single words of the state to extreme numbers, and go on from the states that the head accepts.
pub(crate) fn hostile_states() -> Vec<Vec<Operation>> {
    let script = |number| {
        let (target, mut operations) = (Goal::Class(0), vec![]);
        for word in 0..24 {
            operations.push(Operation::Load { changes: vec![(word, number)] });
            operations.push(Operation::Learn { target, sample: word });
        }
        operations
    };
    [1 << 14, 1 << 16, i32::MAX as u32, i32::MIN as u32].into_iter().map(script).collect()
}

/// Whether a head is small enough: larger ones exercise no new code.
pub(crate) fn is_small(record: &HeadRecord) -> bool {
    let sizes = HeadSizes::of(record);
    sizes.words() <= LARGEST_RAM && (sizes.uses_ring() || sizes.features <= MOST_FEATURES)
}

/// Makes the head of `image` and runs `script` on it, with checks after each operation.
pub(crate) fn exercise(image: &Image<'_>, record: &HeadRecord, script: &[u8]) -> Result<(), Error> {
    let sizes = HeadSizes::of(record);
    sizes.check()?;
    let mut ram = vec![0xdead_beef; if is_small(record) { sizes.words() } else { 0 }];
    let mut head = AnyHead::new(image, &mut ram)?;
    let (mut samples, mut targets) = (vec![0; RING * head.features()], [0; RING]);
    let mut ring = FeatureRing::new(head.features(), &mut samples, &mut targets)?;
    let mut states = vec![head.state().to_vec()];
    check(&mut head, 0);

    for operation in read(script).iter().chain(&operations()) {
        let before = head.state().to_vec();
        let result = operate(&mut head, operation, &mut ring, &states);
        if let Err(error) = result {
            refusals::error(&error);
            // A training whose ring holds a sample that does not fit the head has learnt the ones before.
            let trains = matches!(operation, Operation::Train { .. });
            assert!(trains || head.state() == before, "{operation:?} was refused ({error}), and changed the head");
        }
        check(&mut head, states.len() as u16);
        if states.len() < 16 {
            states.push(head.state().to_vec());
        }
    }
    Ok(())
}

fn read(script: &[u8]) -> Vec<Operation> {
    let mut start = 0;
    let ends = mutation::ends::<Operation>(script);
    let operations = ends.iter().filter_map(|&end| {
        let operation = postcard::from_bytes(&script[start..end]).ok();
        start = end;
        operation
    });
    operations.take(64).collect()
}

fn operate(
    head: &mut AnyHead<'_>,
    operation: &Operation,
    ring: &mut FeatureRing<'_>,
    states: &[Vec<u8>],
) -> Result<(), Error> {
    let state = |which: u8| &states[usize::from(which) % states.len()];
    let features = |head: &AnyHead<'_>, sample| features(sample, head.features());
    match *operation {
        Operation::Learn { target, sample } => head.learn(&features(head, sample), target.into()),
        Operation::Unlearn { target, sample } => head.unlearn(&features(head, sample), target.into()),
        Operation::Keep { target, sample } => ring.push(&features(head, sample), target.into()),
        Operation::Train { first_epoch, epochs, piece } => {
            let whole = Training::new(ring, first_epoch, epochs)?;
            let before = head.state().to_vec();
            train(head, ring, whole.clone(), STEPS)?;
            let after = head.state().to_vec();
            head.load(&before).expect("a head takes a state that it had");
            train(head, ring, whole, 1 + u32::from(piece))?;
            assert_eq!(head.state(), after, "a training in pieces of {piece} ends with another head");
            Ok(())
        }
        Operation::Commit => {
            head.commit();
            Ok(())
        }
        Operation::AddClass => head.add_class().map(|class| assert_eq!(class + 1, head.classes())),
        Operation::Forget { class } => head.forget(class.into()),
        Operation::Reset => {
            head.reset();
            assert_eq!(head.state(), states[0], "the state after a reset is not that of the start");
            Ok(())
        }
        Operation::Load { ref changes } => {
            let mut state = head.state().to_vec();
            for &(place, word) in changes {
                let places = state.len() / 4;
                state[usize::from(place) % places * 4..][..4].copy_from_slice(&word.to_le_bytes());
            }
            head.load(&state)?;
            assert_eq!(head.state(), state, "a loaded state is another");
            Ok(())
        }
        Operation::Again { which } => {
            let (mut other, before) = (state(which).clone(), head.state().to_vec());
            head.exchange(&mut other).expect("a head takes a state that it had");
            assert_eq!(other, before, "an exchange left another state");
            Ok(())
        }
        Operation::Merge { which } => head.merge(state(which)),
        Operation::Aggregate { which, samples } => {
            let updates = [Update { state: state(which), samples }, Update { state: &states[0], samples: 1 }];
            aggregate(head, &updates, |_, error| {
                refusals::error(&error);
                Ok(())
            })
        }
    }
}

/// The first [`STEPS`] steps of a training, at most `piece` at a time.
fn train(head: &mut AnyHead<'_>, ring: &FeatureRing<'_>, mut training: Training, piece: u32) -> Result<(), Error> {
    let mut left = STEPS;
    while left > 0 && training.left() > 0 {
        let taken = training.taken();
        head.train(ring, &mut training, piece.min(left))?;
        let taken = (training.taken() - taken) as u32;
        assert!(taken > 0 && taken <= piece, "{taken} steps of a piece of {piece}");
        left -= taken;
    }
    Ok(())
}

/// Checks the invariants of a head.
fn check(head: &mut AnyHead<'_>, sample: u16) {
    let state = head.state().to_vec();
    head.check_state(&state).expect("the state that a head reached is one of its own");
    let features = features(sample, head.features());
    assert_eq!(head.logits(&features).expect("these are its features").len(), head.classes());
    assert!(head.predict(&features).expect("these are its features") < head.classes());
    assert_eq!(head.state(), state, "a prediction changed the head");
}

/// Features of a sample: the extremes, then random ones.
fn features(sample: u16, length: usize) -> Vec<i8> {
    let mut random = fastrand::Rng::with_seed(sample.into());
    let feature = |_| match sample % 4 {
        0 => i8::MIN,
        1 => i8::MAX,
        2 => random.choice([i8::MIN, i8::MAX]).unwrap_or(0),
        _ => random.i8(..),
    };
    (0..length).map(feature).collect()
}
