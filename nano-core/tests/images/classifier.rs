//! A program's classifier: the same answers as its model and its head by hand, and typed refusals.

use nano_core::train::{AnyHead, FeatureRing, Head, HeadSizes, LayerSizes, LdaHead, NoHead, SgdHead, Target, Training};
use nano_core::{CheckedImage, Classifier, Error, Logits, Memory, Model, Prediction, ops};

use crate::builder::{Aligned, conv_net, head_net, two_by_two};
use crate::heads::sums_net;

/// Words of arena of the largest model here.
const ARENA: usize = 512;
const RING: usize = 8;
const LAYERS: LayerSizes = LayerSizes::NONE;
/// Words of the head of [`head_net`].
const SGD: usize = HeadSizes { trainer: SgdHead::TRAINER, classes: 3, features: 6, layers: LAYERS }.words();
/// Words of the LDA head of [`sums_net`].
const LDA: usize = HeadSizes { trainer: LdaHead::TRAINER, classes: 3, features: 5, layers: LAYERS }.words();

/// Runs `act` on a classifier with memory of these sizes.
fn with<const HEAD: usize, const FEATURES: usize, const RING: usize, T>(
    image: &Aligned,
    act: impl FnOnce(Classifier<'_>) -> T,
) -> Result<T, Error> {
    let mut memory = Memory::<ARENA, HEAD, FEATURES, RING>::default();
    Classifier::new(CheckedImage::new(image.bytes(), ops::ALL)?, &mut memory).map(act)
}

/// Real numbers for an input.
fn reals(random: &mut fastrand::Rng, length: usize) -> Vec<f32> {
    (0..length).map(|_| 20.0 * random.f32() - 10.0).collect()
}

/// Features that a model of its own makes of real numbers.
fn features(image: &Aligned, reals: &[f32]) -> Vec<i8> {
    let mut arena = [0; 4 * ARENA];
    let mut model = Model::new(image.bytes(), &mut arena, ops::ALL).unwrap();
    let view = *model.image();
    view.quantize_input(0, reals, model.input(0));
    model.run();
    model.output(0).to_vec()
}

/// Compares a classifier of `image`, whose head needs `HEAD` words, with its parts: predictions, logits and states while it learns.
fn compare<const HEAD: usize, const FEATURES: usize, const RING: usize>(image: &Aligned, classes: u16) {
    with::<HEAD, FEATURES, RING, _>(image, |mut classifier| {
        let mut random = fastrand::Rng::with_seed(HEAD as u64);
        let view = *classifier.image();
        let sizes = HeadSizes::of(view.head().unwrap());
        let mut ram = vec![0; sizes.words()];
        let mut head = AnyHead::new(&view, &mut ram).unwrap();
        let (mut kept, mut targets) = (vec![0; RING.max(1) * sizes.features], vec![0; RING.max(1)]);
        let mut ring = FeatureRing::new(sizes.features, &mut kept, &mut targets).unwrap();
        for round in 0..4 {
            for _ in 0..5 {
                let window = reals(&mut random, view.input(0).len());
                let target = Target::Class(random.u16(..classes));
                classifier.set_input(0, &window).unwrap();
                let made = classifier.classify();
                let features = features(image, &window);
                let scale = head.logit_scale();
                let logits = head.logits(&features).unwrap();
                assert_eq!(
                    made,
                    Prediction::of_logits(Logits {
                        values: logits,
                        scale,
                        exclusive: true,
                        temperature: 0,
                        known: true
                    }),
                    "round {round}"
                );
                assert_eq!(classifier.logits().unwrap(), logits, "round {round}");
                classifier.learn(target).unwrap();
                if sizes.uses_ring() {
                    ring.push(&features, target).unwrap();
                } else {
                    head.learn(&features, target).unwrap();
                }
            }
            classifier.train(3).unwrap();
            if sizes.uses_ring() {
                head.train(&ring, &mut Training::new(&ring, 0, 3).unwrap(), u32::MAX).unwrap();
                assert_eq!(classifier.samples(), ring.len());
            } else {
                head.commit();
            }
            assert_ne!(head.state(), AnyHead::new(&view, &mut vec![0; sizes.words()]).unwrap().state());
            assert_eq!(classifier.head().unwrap().state(), head.state(), "round {round}");
        }
    })
    .unwrap();
}

#[test]
fn it_predicts_and_learns_as_its_model_and_head_do() {
    compare::<SGD, 6, RING>(&head_net().image(), 3);
    compare::<LDA, 0, 0>(&sums_net(true, 5), 2);
}

#[test]
fn slices_of_a_training_are_one_training() {
    let image = head_net().image();
    let learn = |classifier: &mut Classifier<'_>| {
        let mut random = fastrand::Rng::with_seed(1);
        for class in [0, 1, 2, 1] {
            let window = reals(&mut random, classifier.image().input(0).len());
            classifier.set_input(0, &window).unwrap();
            classifier.run();
            classifier.learn(Target::Class(class)).unwrap();
        }
    };
    let whole = with::<SGD, 6, RING, _>(&image, |mut classifier| {
        learn(&mut classifier);
        classifier.train(5).unwrap();
        classifier.head().unwrap().state().to_vec()
    });
    let sliced = with::<SGD, 6, RING, _>(&image, |mut classifier| {
        learn(&mut classifier);
        let mut training = classifier.begin_training(0, 5).unwrap();
        let mut most = 1;
        while training.left() > 0 {
            classifier.train_steps(&mut training, most).unwrap();
            most += 1;
        }
        classifier.clear_samples();
        assert_eq!(classifier.samples(), 0);
        classifier.head().unwrap().state().to_vec()
    });
    assert_eq!(whole.unwrap(), sliced.unwrap());
}

#[test]
fn a_model_without_a_head_classifies_and_refuses_to_learn() {
    let image = conv_net().image();
    let checked = CheckedImage::new(image.bytes(), ops::ALL).unwrap();
    assert!(checked.ends_in_softmax());
    let mut memory = Memory::<ARENA, 0, 0, 0>::new();
    let mut classifier = Classifier::<NoHead>::new(checked, &mut memory).unwrap();
    classifier.set_input(0, &[1.0; 7 * 6 * 3]).unwrap();
    let made = classifier.classify();
    let output = classifier.output(0);
    let largest = output.iter().max().unwrap();
    assert_eq!(output[made.class as usize], *largest);
    assert_eq!(made.confidence, Some(((i32::from(*largest) + 128) << 7) as u16));
    assert_eq!(classifier.learn(Target::Class(0)), Err(Error::NoHead));
    assert_eq!(classifier.train(1), Err(Error::NoHead));
    assert_eq!(classifier.begin_training(0, 1).err(), Some(Error::NoHead));
    assert_eq!(classifier.logits(), Err(Error::NoHead));
    assert_eq!(classifier.head_mut().err().map(|error| error.to_string()), Some(Error::NoHead.to_string()));
    assert_eq!((classifier.name(0), classifier.name(99)), ("yes", ""));
}

#[test]
fn wrong_sizes_are_refused() {
    let image = head_net().image();
    assert!(matches!(
        with::<{ SGD - 1 }, 6, RING, _>(&image, |_| ()),
        Err(Error::Length { name: "head RAM in words", .. })
    ));
    assert!(matches!(with::<SGD, 5, RING, _>(&image, |_| ()), Err(Error::Length { name: "ring features", .. })));
    assert!(matches!(with::<SGD, 6, 0, _>(&image, |_| ()), Err(Error::Length { name: "ring features", .. })));
    let mut memory = Memory::<1, SGD, 6, RING>::new();
    let small = Classifier::<AnyHead<'_>>::new(CheckedImage::new(image.bytes(), ops::ALL).unwrap(), &mut memory);
    assert!(matches!(small.err(), Some(Error::ArenaTooSmall { given: 4, .. })));
    let length = Error::Length { name: "input", needed: 80, given: 79 };
    let two = two_by_two().image();
    assert_eq!(with::<0, 0, 0, _>(&two, |mut classifier| classifier.set_input(1, &[0.0; 79])).unwrap(), Err(length));
}

#[test]
fn an_input_on_which_the_model_has_not_run_is_not_learnt() {
    let refused = |result: Result<(), Error>| matches!(result, Err(Error::Unsupported { .. }));
    with::<SGD, 6, RING, _>(&head_net().image(), |mut classifier| {
        assert!(refused(classifier.learn(Target::Class(0))));
        classifier.run();
        assert_eq!(classifier.learn(Target::Class(0)), Ok(()));
        assert_eq!(classifier.learn(Target::Class(3)), Err(Error::Label { label: 3, classes: 3 }));
        classifier.set_input(0, &[0.0; 32]).unwrap();
        assert!(refused(classifier.learn(Target::Class(0))) && classifier.logits().is_err());
        classifier.run();
        classifier.reset_states();
        assert!(refused(classifier.learn(Target::Class(0))));
        assert_eq!(classifier.samples(), 1);
    })
    .unwrap();
    with::<LDA, 0, 0, _>(&sums_net(true, 0), |classifier| {
        assert!(refused(classifier.begin_training(0, 1).map(|_| ())));
    })
    .unwrap();
}
