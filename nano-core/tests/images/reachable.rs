//! After any operation a head's state is one that it accepts, even if it started from a hostile state that it accepted.

use nano_core::image::{HeadDescription, LdaDescription, StartDescription, SumsDescription};
use nano_core::train::{AnyHead, Descent, FeatureRing, Head, Loss, Target, Training};

use crate::builder::{Aligned, Builder, descent, layers_head};
use crate::heads::with_any;

const FEATURES: usize = 6;
const PLACES: usize = 5;

/// A head of each trainer and loss, with features of this zero point.
fn images(zero_point: i32) -> Vec<(String, Aligned)> {
    let start = SumsDescription { classes: 2, capacity: 4, start: None, half_life: 0 };
    let fading = SumsDescription { half_life: 2, ..start.clone() };
    let mut heads = vec![
        ("lda".into(), HeadDescription::Lda(LdaDescription { sums: start.clone(), shrinkage: 0.2 })),
        ("lda with a start".into(), HeadDescription::Lda(started(zero_point))),
        ("lda that fades".into(), HeadDescription::Lda(LdaDescription { sums: fading.clone(), shrinkage: 0.2 })),
        ("prototype that fades".into(), HeadDescription::Prototype(fading)),
        ("prototype".into(), HeadDescription::Prototype(start)),
        ("prototype with a start".into(), HeadDescription::Prototype(started(zero_point).sums)),
    ];
    for loss in Loss::ALL {
        let classes = if loss == Loss::Squared { 1 } else { 3 };
        // A rate at which weights reach their bounds.
        let descent = Descent { halve_every: 2, half_life: 2, ..descent(0.5, loss) };
        let mut builder = net(zero_point);
        let sgd = Descent { frozen: if classes > 1 { vec![1] } else { vec![] }, ..descent.clone() };
        heads.push((format!("sgd, {loss:?}"), HeadDescription::Sgd(with_descent(builder.sgd(classes), sgd))));
        heads.push((format!("layers, {loss:?}"), layers_head(FEATURES, classes, descent)));
    }
    let with = |head| {
        let mut net = net(zero_point);
        net.model.head = Some(head);
        net.image()
    };
    heads.into_iter().map(|(name, head)| (name, with(head))).collect()
}

/// A head that starts from means near the bounds of its features.
pub fn started(zero_point: i32) -> LdaDescription {
    let mean = |class: usize, i: usize| [-127.5, 127.5][(class + i) % 2] - zero_point as f32;
    let start = StartDescription {
        means: (0..2).flat_map(|class| (0..FEATURES).map(move |i| mean(class, i))).collect(),
        covariance: (0..FEATURES * FEATURES)
            .map(|place| if place % (FEATURES + 1) == 0 { 900.0 } else { 300.0 })
            .collect(),
        weights: (0..2 * FEATURES).map(|place| place as f32 - 5.0).collect(),
        biases: vec![-3.0, 3.0],
        mean_strength: 4.0,
        spread_strength: 8.0,
    };
    LdaDescription {
        sums: SumsDescription { classes: 2, capacity: 4, start: Some(start), half_life: 0 },
        shrinkage: 0.2,
    }
}

fn with_descent(mut sgd: nano_core::image::SgdDescription, descent: Descent) -> nano_core::image::SgdDescription {
    sgd.descent = descent;
    sgd
}

pub fn net(zero_point: i32) -> Builder {
    let mut net = Builder::new(7);
    net.model.labels.clear();
    let input = net.input([1, 1, FEATURES as u32]);
    let output = net.table(input);
    net.value(output).zero_point = zero_point;
    net.output(output);
    net
}

fn sample(random: &mut fastrand::Rng) -> [i8; FEATURES] {
    let extreme = random.bool();
    core::array::from_fn(|_| if extreme { random.choice([-128, 0, 127]).unwrap() } else { random.i8(..) })
}

/// A target of the kind that `head` learns from, not always one of its own.
fn target(head: &AnyHead<'_>, random: &mut fastrand::Rng) -> Target {
    match head.target(0) {
        Target::Class(_) => Target::Class(random.u16(..=head.classes() as u16)),
        Target::Labels(_) => Target::Labels(random.u32(..16)),
        Target::Value(_) => Target::Value(random.choice([i32::MIN, -4096, 0, 4096, i32::MAX]).unwrap()),
    }
}

/// Changes words of a state, one after the other, as long as `head` accepts it; returns the number of accepted changes.
fn distort(head: &AnyHead<'_>, state: &mut [u8], random: &mut fastrand::Rng) -> usize {
    let mut accepted = 0;
    for _ in 0..random.usize(1..200) {
        let place = random.usize(..state.len() - 3) & if random.bool() { !3 } else { !1 };
        let before: [u8; 4] = state[place..place + 4].try_into().unwrap();
        let old = i32::from_le_bytes(before);
        let new = match random.u8(..6) {
            0 => 0,
            1 => old.wrapping_neg(),
            2 => old ^ 1 << random.u32(..32),
            3 => old.wrapping_add(random.i32(-1..=1)),
            // Numbers of every magnitude: as large as possible is often too large.
            4 => random.i32(..) >> random.u32(..32),
            _ => i32::from_le_bytes(*random.choice(state.as_chunks::<4>().0).unwrap()),
        };
        state[place..place + 4].copy_from_slice(&new.to_le_bytes());
        if head.check_state(state).is_ok() {
            accepted += usize::from(new != old);
        } else {
            state[place..place + 4].copy_from_slice(&before);
        }
    }
    accepted
}

/// Calls random operations; after each, the head must accept its own state. Returns the number of words changed from outside.
fn live(head: &mut AnyHead<'_>, seed: u64, requests: usize) -> usize {
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut features, mut words) = ([0; PLACES * FEATURES], [0; PLACES]);
    let mut ring = FeatureRing::new(FEATURES, &mut features, &mut words).unwrap();
    let mut training = None;
    let (mut kept, mut distorted) = (head.state().to_vec(), 0);
    for number in 0..requests {
        let before = head.state().to_vec();
        let (features, target) = (sample(&mut random), target(head, &mut random));
        let request = random.usize(..14);
        let result = match request {
            0..=2 => head.learn(&features, target),
            3 => head.unlearn(&features, target),
            4 => {
                if head.check(target).is_ok() {
                    ring.push(&features, target).unwrap();
                    training = None;
                }
                Ok(())
            }
            5 | 6 => {
                let first = random.u32(..100);
                let training = training.get_or_insert_with(|| Training::new(&ring, first, 3).unwrap());
                head.train(&ring, training, random.u32(..20))
            }
            7 => {
                head.commit();
                Ok(())
            }
            8 => head.add_class().map(|_| ()),
            9 => head.forget(random.usize(..=head.classes())),
            10 => head.merge(&kept),
            11 => head.exchange(&mut kept),
            12 => {
                // A state that another program wrote, and this one accepts.
                let mut state = if random.bool() { kept.clone() } else { before.clone() };
                distorted += distort(head, &mut state, &mut random);
                head.load(&state)
            }
            _ => {
                if random.u8(..8) == 0 {
                    head.reset();
                }
                kept.copy_from_slice(head.state());
                Ok(())
            }
        };
        let place = format!("seed {seed}, request {number} ({request}): {result:?}");
        if let Err(error) = head.check_state(head.state()) {
            panic!("{place}: it does not accept its own state: {error}");
        }
        // Before it is refused, only a training whose ring does not fit the head may change it; no training runs here.
        assert!(result.is_ok() || head.state() == before, "{place}: refused, and changed");
        head.logits(&features).unwrap();
    }
    distorted
}

#[test]
fn every_reachable_state_is_accepted() {
    for zero_point in [-128, 0, 127] {
        for (name, image) in images(zero_point) {
            let mut distorted = 0;
            for seed in 0..300 {
                let live = |head: &mut AnyHead<'_>| live(head, seed, 120);
                let result = std::panic::catch_unwind(|| with_any(&image, live));
                distorted += result.unwrap_or_else(|_| panic!("{name}, zero point {zero_point}, seed {seed}"));
            }
            assert!(distorted > 10_000, "{name}: only {distorted} words were changed");
        }
    }
}

/// A feature whose sum of squares is 0 although its sum is not: no samples give it, and the check is of single numbers.
#[test]
fn forgetting_leaves_no_sum_of_squares_below_zero() {
    let (_, image) = images(0).swap_remove(0);
    with_any(&image, |head| {
        head.learn(&[100; FEATURES], Target::Class(0)).unwrap();
        let mut state = head.state().to_vec();
        // Classes, retired, halvings, exponent, freedom, 4 counts, 4 rows of sums; then S_11.
        let first_square = 4 * (5 + 4 + 4 * FEATURES);
        assert_eq!(state[first_square..first_square + 4], 10_000i32.to_le_bytes());
        state[first_square..first_square + 4].fill(0);
        head.load(&state).unwrap();
        head.forget(0).unwrap();
        let forgotten = head.state().to_vec();
        head.load(&forgotten).unwrap();
        head.commit();
        head.check_state(head.state()).unwrap();
    });
}
