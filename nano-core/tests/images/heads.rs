//! Heads in images: the records and states that trainers refuse.

use nano_core::Error;
use nano_core::image::{HeadDescription, Image, LdaDescription, RejectionDescription, SumsDescription, write};
use nano_core::train::{AnyHead, FeatureRing, Head, HeadSizes, SgdHead, Target, Training};

use crate::builder::{Aligned, conv_net, head_net, place};

const CLASSES: usize = 3;
const FEATURES: usize = 6;

/// Words of RAM of the head of [`head_net`]: exponent, random state, parameters, and room for the logits and the
/// numbers of samples.
const WORDS: usize = 2 + (CLASSES * (FEATURES + 1)).div_ceil(2) + 2 * CLASSES;

/// Makes the head of `image` in memory of the right size and passes it to `act`.
fn with_head<T>(image: &Aligned, act: impl FnOnce(SgdHead<'_>) -> T) -> Result<T, Error> {
    let mut ram = [0; WORDS];
    SgdHead::new(&Image::new(image.bytes())?, &mut ram).map(act)
}

fn features(seed: u64) -> [i8; FEATURES] {
    let mut random = fastrand::Rng::with_seed(seed);
    core::array::from_fn(|_| random.i8(..))
}

#[test]
fn an_image_without_a_head_has_none() {
    let image = conv_net().image();
    assert_eq!(with_head(&image, |_| ()).err(), Some(Error::NoHead));
}

#[test]
fn memory_of_another_size_is_refused() {
    let image = head_net().image();
    let image = Image::new(image.bytes()).unwrap();
    for given in [0, WORDS - 1, WORDS + 1] {
        let error = Error::Length { name: "head RAM in words", needed: WORDS, given };
        assert_eq!(SgdHead::new(&image, &mut vec![0; given]).err(), Some(error));
    }
}

#[test]
fn a_record_that_the_trainer_cannot_run_is_refused() {
    // The record: trainer, classes, features, eight constants, scale, offset and length of the initial state, guard,
    // half-life, temperature, offset and length of the centres.
    for (word, value, name) in [
        (0, 2, "head trainer"),
        (1, 0, "head classes"),
        (1, u32::MAX, "head classes"),
        (1, 4, "head state length"),
        (2, 7, "head features"),
        (3, 1 << 16, "head logit multiplier"),
        (3, 0, "head logit multiplier"),
        (4, 64, "head logit multiplier"),
        (5, 1 << 15, "head learning rate"),
        (6, 0, "head learning rate"),
        (6, 31, "head learning rate"),
        (7, 3, "head loss"),
        (7, u32::MAX, "head loss"),
        (7, 2, "head outputs for its loss"),
        (8, u32::MAX, "head epochs between halvings of the rate"),
        (9, 0, "head bias input"),
        (9, 129, "head bias input"),
        (10, 4, "head flags of its rate"),
        (10, 1 << 31, "head flags of its rate"),
        (10, (1 << 30) + 1, "head flags of its rate"),
        (11, f32::NAN.to_bits(), "head logit scale (bits)"),
        (11, 0, "head logit scale (bits)"),
        (12, u32::MAX, "head state offset"),
        (13, 2, "head state length"),
        (16, 513, "head temperature"),
        (16, -513_i32 as u32, "head temperature"),
        (17, u32::MAX, "head centres offset"),
        (18, 5, "head centres length"),
        (18, 4 * FEATURES as u32, "head centres length"),
    ] {
        let mut image = head_net().image();
        let record = image.word(place::HEAD) as usize;
        image.patch(record + 4 * word, value);
        let error = with_head(&image, |_| ()).expect_err("the record is wrong");
        assert!(matches!(error, Error::Field { name: found, .. } if found == name), "word {word}: {error}");
    }
}

#[test]
fn weights_that_no_training_leaves_are_refused() {
    let image = head_net().image();
    let record = image.word(place::HEAD) as usize;
    let initial = (image.word(place::CONSTANTS) + image.word(record + 48)) as usize;
    for (stored, allowed) in
        [(32000 + 128, true), (-32000 + 128, true), (32129, false), (-31873, false), (i16::MIN, false)]
    {
        let mut image = image.clone();
        image.bytes_mut()[initial + 2..initial + 4].copy_from_slice(&i16::to_le_bytes(stored));
        image.reseal();
        let expected = (!allowed).then_some(Error::Field { name: "head weight", value: i64::from(stored) - 128 });
        assert_eq!(with_head(&image, |_| ()).err(), expected, "{stored}");
    }
}

#[test]
fn refused_steps_and_states_leave_the_head_as_it_was() {
    with_head(&head_net().image(), |mut head| {
        head.learn(&features(0), Target::Class(1)).unwrap();
        let before = head.state().to_vec();
        let length = Error::Length { name: "features", needed: FEATURES, given: FEATURES - 1 };
        assert_eq!(head.learn(&features(0)[1..], Target::Class(1)), Err(length));
        assert_eq!(head.predict(&features(0)[1..]), Err(length));
        assert_eq!(head.logits(&[]).err(), Some(Error::Length { name: "features", needed: FEATURES, given: 0 }));
        assert_eq!(
            head.learn(&features(0), Target::Class(CLASSES as u16)),
            Err(Error::Label { label: CLASSES, classes: CLASSES })
        );

        let mut state = before.clone();
        let refused = |head: &mut SgdHead<'_>, state: &[u8]| head.load(state).expect_err("no head has this state");
        let needed = before.len();
        let shorter = Error::Length { name: "saved head", needed, given: needed - 1 };
        assert_eq!(refused(&mut head, &before[1..]), shorter);
        state[0] = 200;
        assert_eq!(refused(&mut head, &state), Error::Field { name: "head exponent", value: 200 });
        state[0] = 0;
        state[4..8].fill(0);
        assert_eq!(refused(&mut head, &state), Error::Field { name: "head random state", value: 0 });
        state[4..8].fill(1);
        state[8..10].copy_from_slice(&i16::MAX.to_le_bytes());
        assert_eq!(refused(&mut head, &state), Error::Field { name: "head weight", value: 32639 });
        assert_eq!(head.state(), before);
    })
    .unwrap();
}

#[test]
fn a_head_goes_on_from_a_saved_state() {
    let image = head_net().image();
    let steps = |head: &mut SgdHead<'_>, seeds: core::ops::Range<u64>| {
        for seed in seeds {
            head.learn(&features(seed), Target::Class(seed as u16 % CLASSES as u16)).unwrap();
        }
    };
    let (saved, expected) = with_head(&image, |mut head| {
        let start = head.state().to_vec();
        steps(&mut head, 0..20);
        let saved = head.state().to_vec();
        assert_ne!(saved, start);
        steps(&mut head, 20..40);
        (saved, head.state().to_vec())
    })
    .unwrap();
    with_head(&image, |mut head| {
        let start = head.state().to_vec();
        head.load(&saved).unwrap();
        steps(&mut head, 20..40);
        assert_eq!(head.state(), expected);
        head.reset();
        assert_eq!(head.state(), start);
    })
    .unwrap();
}

#[test]
fn training_on_an_empty_ring_changes_nothing_and_a_wrong_ring_is_refused() {
    with_head(&head_net().image(), |mut head| {
        let before = head.state().to_vec();
        let (mut samples, mut labels) = ([0; 2 * FEATURES], [0; 2]);
        let mut ring = FeatureRing::new(FEATURES, &mut samples, &mut labels).unwrap();
        head.train(&ring, &mut Training::new(&ring, 0, 1000).unwrap(), u32::MAX).unwrap();
        assert_eq!(head.state(), before);
        ring.push(&features(0), Target::Class(CLASSES as u16)).unwrap();
        let one_epoch = |ring: &FeatureRing<'_>| Training::new(ring, 0, 1).unwrap();
        let refused = head.train(&ring, &mut one_epoch(&ring), u32::MAX);
        assert_eq!(refused, Err(Error::Label { label: CLASSES, classes: CLASSES }));

        let (mut samples, mut labels) = ([0; 2], [0; 1]);
        let mut narrow = FeatureRing::new(2, &mut samples, &mut labels).unwrap();
        narrow.push(&[1, 2], Target::Class(0)).unwrap();
        let refused = head.train(&narrow, &mut one_epoch(&narrow), u32::MAX);
        assert_eq!(refused, Err(Error::Length { name: "features", needed: FEATURES, given: 2 }));
        let mut training = one_epoch(&ring);
        ring.push(&features(1), Target::Class(0)).unwrap();
        let refused = head.train(&ring, &mut training, u32::MAX);
        assert_eq!(refused, Err(Error::Length { name: "ring of the training", needed: 1, given: 2 }));
        assert_eq!(narrow.push(&[1], Target::Class(0)), Err(Error::Length { name: "features", needed: 2, given: 1 }));
    })
    .unwrap();
    for (features, labels) in [(0, 0), (5, 2), (6, 0)] {
        let (mut features, mut labels) = (vec![0; features], vec![0; labels]);
        assert!(matches!(
            FeatureRing::new(3, &mut features, &mut labels),
            Err(Error::Length { name: "ring features", .. })
        ));
    }
}

/// An image whose head learns sums over samples of 5 features.
pub fn sums_net(lda: bool, zero_point: i32) -> Aligned {
    wide_sums_net(lda, zero_point, 5)
}

fn wide_sums_net(lda: bool, zero_point: i32, features: u32) -> Aligned {
    let mut net = crate::builder::Builder::new(7);
    let input = net.input([1, 1, features]);
    net.value(input).zero_point = zero_point;
    let output = net.table(input);
    net.value(output).zero_point = zero_point;
    net.output(output);
    let start = SumsDescription { classes: 2, capacity: 3, start: None, half_life: 0 };
    net.model.head = Some(if lda {
        HeadDescription::Lda(LdaDescription { sums: start, shrinkage: 1.0 / 65536.0 })
    } else {
        HeadDescription::Prototype(start)
    });
    net.image()
}

/// Makes the head of `image`, of any trainer, and passes it to `act`.
pub fn with_any<T>(image: &Aligned, act: impl FnOnce(&mut AnyHead<'_>) -> T) -> T {
    let image = Image::new(image.bytes()).unwrap();
    let mut ram = vec![0xdead_beef; HeadSizes::of(image.head().unwrap()).words()];
    act(&mut AnyHead::new(&image, &mut ram).unwrap())
}

/// Learning, solving and scoring with sums at their bounds: the test profile checks overflow.
#[test]
fn sums_at_their_bounds_do_not_overflow() {
    for zero_point in [-128, 127, 0] {
        for lda in [true, false] {
            let image = sums_net(lda, zero_point);
            with_any(&image, |head| {
                let samples = if lda { 1 << 14 } else { 1 << 16 };
                let ends = [[-128; 5], [127; 5], [127, -128, 127, -128, 127]];
                for count in 0..samples {
                    head.learn(&ends[2 * (count & 1)], Target::Class(0)).unwrap();
                    head.learn(&ends[1], Target::Class(1)).unwrap();
                }
                head.commit();
                for features in &ends {
                    head.logits(features).unwrap();
                }
                let state = head.state().to_vec();
                assert!(matches!(head.merge(&state), Err(Error::Full { .. })));
                head.load(&state).unwrap();
                // The next sample halves the sums.
                head.learn(&ends[0], Target::Class(0)).unwrap();
                let halved = head.state().to_vec();
                head.check_state(&halved).unwrap();
                head.commit();
                let other = if lda {
                    "unlearn samples after its sums were halved"
                } else {
                    "merge a head whose sums were halved"
                };
                let refused = if lda { head.unlearn(&ends[0], Target::Class(0)) } else { head.merge(&halved) };
                assert!(matches!(refused, Err(Error::Unsupported { request, .. }) if request == other), "{refused:?}");
                head.forget(0).unwrap();
                head.commit();
                assert_eq!(head.predict(&ends[0]).unwrap(), 1);
            });
        }
    }
}

/// A state whose numbers are each valid, but that no samples lead to.
#[test]
fn states_that_no_samples_give_do_not_overflow() {
    for seed in 0..300 {
        solve_nonsense::<5>(seed, 1 << 14);
    }
    // One degree of freedom for many features: the largest lambda.
    for seed in 0..30 {
        solve_nonsense::<256>(seed, 2);
    }
}

/// Solves such a state of two classes, with at most this number of samples each.
fn solve_nonsense<const FEATURES: usize>(seed: u64, most_of_a_class: i32) {
    let mut random = fastrand::Rng::with_seed(seed);
    with_any(&wide_sums_net(true, 0, FEATURES as u32), |head| {
        let counts: [i32; 3] = [random.i32(0..=most_of_a_class), random.i32(0..=most_of_a_class), 0];
        let largest = (counts.iter().sum::<i32>() as i64 * 65025) as i32;
        let mut words = vec![2, 0, 0, random.i32(-16..=80), random.i32(1..=1 << 15)];
        words.extend(counts);
        words.extend(
            counts.iter().flat_map(|&count| [count * -128; FEATURES].map(|low| low + random.i32(0..=count * 255))),
        );
        for i in 0..FEATURES {
            words.push(random.choice([0, largest, random.clone().i32(0..=largest)]).unwrap());
            words.extend((i + 1..FEATURES).map(|_| random.choice([-largest, 0, largest]).unwrap()));
        }
        words.extend([i32::MIN, 1 << 30, -(1 << 30)]);
        words.extend([0x4000_4000, 0xc000_c000_u32 as i32]);
        words.resize(words.len() - 2 + (3 * FEATURES).div_ceil(2), 0);
        *words.last_mut().unwrap() = 0x4000;
        let state: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        head.load(&state).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let features = core::array::from_fn::<i8, FEATURES, _>(|_| random.choice([-128, 127]).unwrap());
        head.logits(&features).unwrap();
        head.commit();
        head.logits(&features).unwrap();
        let after = head.state().to_vec();
        head.load(&after).unwrap_or_else(|error| panic!("seed {seed}, after: {error}"));
        let sums = 20..20 + 4 * (3 + 3 * FEATURES + FEATURES * (FEATURES + 1) / 2);
        assert_eq!(after[sums.clone()], state[sums], "seed {seed}");
    });
}

#[test]
fn records_that_sums_cannot_run_are_refused() {
    for (lda, word, value, name) in [
        (true, 1, 0, "head classes"),
        (true, 1, 1 << 13, "head classes"),
        (true, 3, 0, "head classes at the start"),
        (true, 3, 4, "head classes at the start"),
        (true, 4, 0, "head shrinkage"),
        (true, 4, 65537, "head shrinkage"),
        (true, 5, 0, "head sweeps"),
        (true, 5, 101, "head sweeps"),
        (true, 13, 4, "head state length"),
        (false, 1, 1 << 13, "head classes"),
        (true, 15, (1 << 14) + 1, "head half-life"),
        (false, 15, (1 << 15) + 1, "head half-life"),
        (false, 3, 0, "head classes at the start"),
        (false, 11, 0, "head logit scale (bits)"),
        (false, 13, 4, "head state length"),
        (false, 4, 1, "head state length"),
        (false, 4, 1025, "head state length"),
    ] {
        let mut image = sums_net(lda, 0);
        let record = image.word(place::HEAD) as usize;
        // The state, where the constants start.
        image.patch(record + 4 * 12, 0);
        image.patch(record + 4 * word, value);
        // Loading refuses what is invalid for every trainer; the trainer refuses the rest.
        let error = Image::new(image.bytes()).and_then(|image| {
            let mut ram = vec![0; HeadSizes::of(image.head().unwrap()).words()];
            AnyHead::new(&image, &mut ram).map(drop)
        });
        let error = error.err();
        assert!(matches!(error, Some(Error::Field { name: found, .. }) if found == name), "{word}: {error:?}");
    }
}

#[test]
fn records_of_a_start_that_lda_cannot_run_are_refused() {
    // In the state: biases [2], sums of products [21], means [2][6], weights [2][6].
    let (spread, means, weights) = (8, 8 + 4 * 21, 8 + 4 * 21 + 24);
    let record = |word: usize| (false, 4 * word);
    let state = |offset: usize| (true, offset);
    for (name, (in_state, offset), value) in [
        ("head strength of the start's means", record(6), 0),
        ("head strength of the start's means", record(6), 1025),
        ("head variance at the start", record(7), 0),
        ("head variance at the start", record(7), (1 << 30) + 1),
        ("head degrees of freedom at the start", record(8), 0),
        ("head degrees of freedom at the start", record(8), 257),
        ("head exponent at the start", record(9), 81),
        ("head bias at the start", state(0), (1 << 30) + 1),
        ("head sum of products at the start", state(spread + 4), (1 << 23) + 1),
        ("head sum of squares at the start", state(spread), u32::MAX),
        ("head mean at the start", state(means), 0x7fff_7fff),
        ("head weight at the start", state(weights), 0x4001_4001),
    ] {
        let mut net = crate::reachable::net(0);
        net.model.head = Some(HeadDescription::Lda(crate::reachable::started(0)));
        let mut image = net.image();
        let record = image.word(place::HEAD) as usize;
        let state = (image.word(place::CONSTANTS) + image.word(record + 4 * 12)) as usize;
        image.patch(if in_state { state } else { record } + offset, value);
        let image = Image::new(image.bytes()).unwrap();
        let mut ram = vec![0; HeadSizes::of(image.head().unwrap()).words()];
        let error = AnyHead::new(&image, &mut ram).map(drop).err();
        assert!(matches!(error, Some(Error::Field { name: found, .. }) if found == name), "{name}: {error:?}");
    }
}

#[test]
fn what_predictions_mean_leaves_the_identity_of_a_head() {
    let mut net = head_net();
    let id = |image: &Aligned| Image::new(image.bytes()).unwrap().head().unwrap().id;
    let without = id(&net.image());
    let rejection = RejectionDescription { temperature: -7, centres: vec![1; FEATURES], variance: 5, limit: 9 };
    net.model.rejection = Some(rejection.clone());
    assert_eq!(id(&net.image()), without);
    // More centres than classes, and a temperature out of range.
    for wrong in [
        RejectionDescription { centres: vec![0; (CLASSES + 1) * FEATURES], ..rejection.clone() },
        RejectionDescription { centres: vec![0; FEATURES + 1], ..rejection.clone() },
        RejectionDescription { temperature: 513, ..rejection },
    ] {
        net.model.rejection = Some(wrong);
        assert!(write(&net.model).is_err());
    }
}
