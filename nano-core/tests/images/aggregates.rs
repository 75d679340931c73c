//! Aggregation of the heads of many devices.

use nano_core::Error;
use nano_core::image::Image;
use nano_core::train::{AnyHead, Head, Target, Update, aggregate, check_update};

use crate::builder::{Aligned, head_net};
use crate::heads::{sums_net, with_any};

/// For an aggregation that takes all updates or none.
fn stop(_: usize, error: Error) -> Result<(), Error> {
    Err(error)
}

/// A state of [`head_net`]'s head: exponent, random state, 21 weights V.
fn sgd_state(exponent: u32, random: u32, v: impl Fn(usize) -> i32) -> Vec<u8> {
    let prefix = [exponent, random].into_iter().flat_map(u32::to_le_bytes);
    prefix.chain((0..21).flat_map(|index| ((v(index) + 128) as i16).to_le_bytes())).collect()
}

/// The largest exponent that a head of `image` takes.
fn largest_exponent(image: &Aligned) -> u32 {
    let [_, shift, _, rate_shift, ..] = Image::new(image.bytes()).unwrap().head().unwrap().constants;
    shift.min(30 - rate_shift) as u32
}

fn learn(head: &mut AnyHead<'_>, random: &mut fastrand::Rng, samples: usize) {
    let classes = head.classes() as u16;
    for _ in 0..samples {
        let features: Vec<i8> = (0..head.features()).map(|_| random.i8(..)).collect();
        head.learn(&features, Target::Class(random.u16(..classes))).unwrap();
    }
}

#[test]
fn means_are_rounded_once_and_half_up() {
    let image = head_net().image();
    assert!(largest_exponent(&image) >= 2);
    let mean = |updates: &[(Vec<u8>, u32)]| {
        with_any(&image, |head| {
            let updates: Vec<_> = updates.iter().map(|(state, samples)| Update { state, samples: *samples }).collect();
            aggregate(head, &updates, stop).unwrap();
            head.state().to_vec()
        })
    };
    let v = |index: usize| index as i32 - 10;
    // -5.5 -> -5 and 4.5 -> 5; the random state is the largest.
    let halves = mean(&[(sgd_state(0, 7, v), 3), (sgd_state(0, 9, |index| v(index) + 1), 3)]);
    assert_eq!(halves, sgd_state(0, 9, |index| v(index) + 1));
    // One sample of V 2^0, one of V 2^2: at the exponent 2 that is (V + 4 V) / 8.
    let aligned = mean(&[(sgd_state(0, 1, v), 1), (sgd_state(2, 1, v), 1)]);
    assert_eq!(aligned, sgd_state(2, 1, |index| (5 * v(index) + 4).div_euclid(8)));
    // A head without samples has no influence, not on exponent and random state either.
    let silent = mean(&[(sgd_state(0, 1, v), 5), (sgd_state(2, 8, |_| 31000), 0)]);
    assert_eq!(silent, sgd_state(0, 1, v));
}

/// Tests have overflow checks: the largest weights, exponents and numbers of samples.
#[test]
fn the_mean_of_the_largest_is_the_largest() {
    let image = head_net().image();
    let largest = largest_exponent(&image);
    for (exponent, v) in [(largest, 32639), (largest, -32639), (0, 32000), (largest - 1, -32000)] {
        let state = sgd_state(exponent, u32::MAX, |_| v);
        with_any(&image, |head| {
            aggregate(head, &[Update { state: &state, samples: u32::MAX }; 300], stop).unwrap();
            assert_eq!(head.state(), state);
        });
    }
}

#[test]
fn sums_of_all_are_those_of_one_that_learnt_all() {
    for lda in [true, false] {
        let image = sums_net(lda, -3);
        for seed in 0..50 {
            with_any(&image, |head| {
                let mut random = fastrand::Rng::with_seed(seed);
                learn(head, &mut random, 20);
                if seed % 2 == 0 {
                    head.add_class().unwrap();
                }
                if seed % 3 == 0 {
                    head.forget(0).unwrap();
                }
                let start = head.state().to_vec();
                let mut union = start.clone();
                let mut states = vec![];
                for device in 0..5 {
                    let shared = random.clone();
                    head.load(&start).unwrap();
                    learn(head, &mut random, 7 * device);
                    head.commit();
                    states.push(head.state().to_vec());
                    head.load(&union).unwrap();
                    learn(head, &mut shared.clone(), 7 * device);
                    union = head.state().to_vec();
                }
                head.commit();
                union = head.state().to_vec();
                for turn in 0..5 {
                    states.rotate_left(turn);
                    head.load(&start).unwrap();
                    let updates: Vec<_> = states.iter().map(|state| Update { state, samples: 0 }).collect();
                    aggregate(head, &updates, stop).unwrap();
                    assert_eq!(head.state(), union, "seed {seed}");
                }
            });
        }
    }
}

#[test]
fn wrong_updates_leave_the_head_as_it_was() {
    let image = head_net().image();
    with_any(&image, |head| {
        let start = head.state().to_vec();
        let refused = |head: &mut AnyHead<'_>, updates: &[Update<'_>]| {
            let error = aggregate(head, updates, stop).expect_err("these are no updates");
            assert_eq!(head.state(), start);
            error
        };
        let right = Update { state: &start, samples: 1 };
        assert!(matches!(refused(head, &[]), Error::Length { needed: 1, given: 0, .. }));
        let silent = Update { samples: 0, ..right };
        assert!(matches!(refused(head, &[silent; 2]), Error::Length { needed: 1, given: 0, .. }));
        let short = Update { state: &start[1..], ..right };
        assert!(matches!(refused(head, &[right, short]), Error::Length { name: "saved head", .. }));
        let state = sgd_state(200, 1, |_| 0);
        let wrong = Update { state: &state, ..right };
        assert_eq!(refused(head, &[right, wrong]), Error::Field { name: "head exponent", value: 200 });
    });
    with_any(&sums_net(true, 0), |head| {
        learn(head, &mut fastrand::Rng::with_seed(0), 9);
        let start = head.state().to_vec();
        head.forget(1).unwrap();
        let forgot = head.state().to_vec();
        head.load(&start).unwrap();
        let error = aggregate(head, &[Update { state: &forgot, samples: 1 }], stop).expect_err("it did not grow");
        assert!(matches!(error, Error::Field { name: "head samples of a class", .. }), "{error}");
        assert_eq!(head.state(), start);
        learn(head, &mut fastrand::Rng::with_seed(1), (1 << 14) - 9);
        let many = head.state().to_vec();
        head.load(&start).unwrap();
        let many = Update { state: &many, samples: 1 };
        assert!(matches!(aggregate(head, &[many; 3], stop), Err(Error::Full { .. })));
        assert_eq!(head.state(), start);
    });
}

/// Valid, damaged and shortened states: the result is that of the accepted ones alone.
#[test]
fn what_is_refused_changes_nothing() {
    let mut outcomes = [0; 2];
    for image in [head_net().image(), sums_net(true, -3), sums_net(false, 5)] {
        for seed in 0..300 {
            with_any(&image, |head| {
                let mut random = fastrand::Rng::with_seed(seed);
                learn(head, &mut random, 20);
                let start = head.state().to_vec();
                let states: Vec<_> = (0..4)
                    .map(|_| {
                        head.load(&start).unwrap();
                        learn(head, &mut random, 5);
                        let mut state = head.state().to_vec();
                        for _ in 0..random.usize(..3) {
                            let place = random.usize(..state.len());
                            state[place] ^= random.u8(1..);
                        }
                        state.truncate(state.len() - usize::from(random.u8(..8) == 0));
                        state
                    })
                    .collect();
                head.load(&start).unwrap();
                let updates: Vec<_> = states.iter().map(|state| Update { state, samples: 3 }).collect();
                let (mut refused, mut too_many) = (vec![], vec![]);
                let result = aggregate(head, &updates, |index, error| {
                    refused.push(index);
                    // Of a damaged count: only together with the others are they more than a head can hold.
                    if matches!(error, Error::Full { name: "samples", .. }) {
                        too_many.push(index);
                    }
                    Ok(())
                });
                let merged = head.state().to_vec();
                head.load(&start).unwrap();
                for (index, state) in states.iter().enumerate() {
                    let is_refused = check_update(head, state).is_err() || too_many.contains(&index);
                    assert_eq!(is_refused, refused.contains(&index), "seed {seed}, {index}");
                    assert_eq!(head.state(), start);
                }
                let kept: Vec<_> =
                    (0..4).filter(|index| !refused.contains(index)).map(|index| updates[index]).collect();
                outcomes[0] += refused.len();
                outcomes[1] += kept.len();
                if kept.is_empty() {
                    result.expect_err("no update is left");
                    assert_eq!(merged, start, "seed {seed}");
                } else {
                    aggregate(head, &kept, stop).unwrap();
                    assert_eq!(head.state(), merged, "seed {seed}");
                }
            });
        }
    }
    assert!(outcomes.iter().all(|&count| count > 500), "{outcomes:?}");
}

/// Sums accept heads in order, as long as their samples fit.
#[test]
fn sums_that_are_full_leave_out_what_does_not_fit() {
    with_any(&sums_net(true, 0), |head| {
        let states: Vec<_> = [20_000, 10_000, 3_000, 2_000]
            .map(|samples| {
                head.reset();
                learn(head, &mut fastrand::Rng::with_seed(samples as u64), samples);
                head.state().to_vec()
            })
            .into();
        let updates: Vec<_> = states.iter().map(|state| Update { state, samples: 1 }).collect();
        head.reset();
        assert!(states.iter().all(|state| check_update(head, state).is_ok()));
        let mut refused = vec![];
        aggregate(head, &updates, |index, error| {
            refused.push((index, error));
            Ok(())
        })
        .unwrap();
        assert_eq!(refused, [(2, Error::Full { name: "samples", capacity: 1 << 15 })]);
        let merged = head.state().to_vec();
        head.reset();
        aggregate(head, &[updates[0], updates[1], updates[3]], stop).unwrap();
        assert_eq!(head.state(), merged);
    });
}
