//! A device without a PC: windows, decisions, labels, trainings between samples, and a PC that asks in between.

use std::collections::VecDeque;

use embedded_storage::nor_flash::NorFlash;
use nano_core::Error;
use torch_nano_device::{
    Device, Failure, Input, LONGEST_HISTORY, MemoryFlash, Options, Request, Response, Sensed, Sensing, SensingOptions,
    Settings, SlidingWindow, Smoothing,
};

use crate::builder::{Aligned, conv_net, head_net};
use crate::graph::passed_through;
use crate::stream::{OPTIONS, ask, every_head, head_state, input, ram, session_with};

const SAMPLE: usize = 2;
const HOP: usize = 3;
const EPOCHS: u32 = 700;
const PAUSE: u32 = 4;

fn options() -> SensingOptions {
    let smoothing = Smoothing::new(5, 3).unwrap();
    SensingOptions { sample: SAMPLE, hop: HOP, smoothing, epochs: EPOCHS, pause: PAUSE, slice: 1 << 10 }
}

fn erased() -> MemoryFlash<Vec<u8>> {
    MemoryFlash(vec![0xff; 16 * 4096])
}

/// Bytes of the model's input and features.
fn lengths(image: &Aligned) -> (usize, usize) {
    let view = nano_core::image::Image::new(image.bytes()).unwrap();
    (view.input(0).len(), view.output(0).len())
}

fn reals(random: &mut fastrand::Rng) -> [f32; SAMPLE] {
    [0; SAMPLE].map(|_| (random.f32() - 0.5) * 20.0)
}

/// The same loop written out with whole windows.
struct Expected {
    samples: VecDeque<i8>,
    taken: usize,
    history: VecDeque<Option<u32>>,
    features: Option<Vec<i8>>,
    quiet: u32,
    untrained: bool,
    training: bool,
}

impl Expected {
    fn new() -> Self {
        let (samples, history) = (VecDeque::new(), VecDeque::new());
        Expected { samples, taken: 0, history, features: None, quiet: 0, untrained: false, training: false }
    }

    fn sense<C: FnMut() -> u64, F: NorFlash>(
        &mut self,
        device: &mut Device<'_, C, F>,
        sample: &[f32],
    ) -> Option<Sensed> {
        let mut integers = [0; SAMPLE];
        device.image().quantize_input(0, sample, &mut integers);
        self.samples.extend(integers);
        self.taken += 1;
        let length = device.image().input(0).len();
        let over = self.taken.checked_sub(length / SAMPLE)?;
        if !over.is_multiple_of(HOP) {
            return None;
        }
        while self.samples.len() > length {
            self.samples.pop_front();
        }
        let window: Vec<i8> = self.samples.iter().copied().collect();
        let made = device.predict(&window[..]).unwrap();
        self.features = Some(made.output.to_vec());
        self.quiet += 1;
        self.history.push_front(made.known.then_some(made.class));
        self.history.truncate(5);
        let votes = |class: u32| self.history.iter().filter(|&&other| other == Some(class)).count();
        let decided = self.history.iter().flatten().copied().find(|&class| votes(class) >= 3);
        Some(Sensed {
            class: made.class,
            confidence: made.confidence,
            margin: made.margin,
            known: made.known,
            decided,
            ticks: made.ticks,
        })
    }

    fn label<C: FnMut() -> u64, F: NorFlash>(&mut self, device: &mut Device<'_, C, F>, class: u16) {
        device.learn_features(&self.features.take().unwrap(), class).unwrap();
        (self.quiet, self.untrained, self.training) = (0, true, false);
    }

    fn work<C: FnMut() -> u64, F: NorFlash>(&mut self, device: &mut Device<'_, C, F>) {
        if self.untrained && self.quiet >= PAUSE {
            self.untrained = false;
            if device.learns_in_epochs() {
                device.begin_training(0, EPOCHS).unwrap();
                self.training = true;
            } else {
                device.commit().unwrap();
            }
        }
        if self.training {
            self.training = device.train_steps(1 << 10).unwrap().left > 0;
        }
    }
}

#[test]
fn senses_learns_and_saves_as_the_steps_written_out() {
    for (name, image) in every_head() {
        let (length, features) = lengths(&image);
        for seed in 0..6 {
            let mut random = fastrand::Rng::with_seed(seed);
            let settings = Settings { rejection: 15_000, save_interval: 1 };
            let (mut memory, mut other_memory) = (ram(&image), ram(&image));
            let mut session = session_with(&image, &mut memory, Options { settings, ..OPTIONS }, erased());
            let mut other = session_with(&image, &mut other_memory, Options { settings, ..OPTIONS }, erased());
            let (mut window, mut kept) = (vec![99; length], vec![99; features]);
            let mut sensing = Sensing::new(&mut session.device, &mut window, &mut kept, options()).unwrap();
            let mut expected = Expected::new();
            let (mut windows, mut labels, mut asked) = (0, 0, 0);
            for step in 0..900 {
                let sample = reals(&mut random);
                let sensed = sensing.sense(&mut session.device, &sample).unwrap();
                assert_eq!(sensed, expected.sense(&mut other.device, &sample), "{name}, seed {seed}, step {step}");
                windows += u32::from(sensed.is_some());
                // Labels come in bursts.
                if sensed.is_some() && step / 60 % 3 == 1 && random.bool() {
                    let class = random.u16(..2);
                    session.device.label(class).unwrap();
                    assert_eq!(session.device.label(class), Err(Failure::NoRun));
                    expected.label(&mut other.device, class);
                    labels += 1;
                }
                sensing.work(&mut session.device).unwrap();
                expected.work(&mut other.device);
                // A PC that looks changes nothing.
                if random.u8(..8) == 0 {
                    let sample = input(step);
                    ask(&mut session, Request::Predict { input: &sample }, |response| {
                        assert!(matches!(response, Response::Prediction { .. }));
                    });
                    asked += 1;
                }
            }
            assert!(windows > 250 && labels > 20 && asked > 50, "{windows} windows, {labels} labels, {asked} asked");
            assert!(session.device.stats().saves > 1, "{name}, seed {seed}");
            assert_eq!(session.device.flash().0, other.device.flash().0, "{name}, seed {seed}");
            assert_eq!(head_state(&mut session), head_state(&mut other), "{name}, seed {seed}");
        }
    }
}

#[test]
fn a_pc_that_begins_a_session_ends_its_own_training_only() {
    let image = head_net().image();
    let (length, features) = lengths(&image);
    let mut memory = ram(&image);
    let (mut window, mut kept) = (vec![0; length], vec![0; features]);
    let mut session = session_with(&image, &mut memory, OPTIONS, erased());
    let slow = SensingOptions { slice: 1, epochs: 1000, ..options() };
    let mut sensing = Sensing::new(&mut session.device, &mut window, &mut kept, slow).unwrap();
    let mut random = fastrand::Rng::with_seed(2);
    let (mut labelled, mut steps) = (false, 0);
    while steps < 10 {
        if sensing.sense(&mut session.device, &reals(&mut random)).unwrap().is_some() && !labelled {
            session.device.label(1).unwrap();
            labelled = true;
        }
        steps = sensing.work(&mut session.device).unwrap().map_or(0, |progress| progress.steps);
    }
    ask(&mut session, Request::Begin, |response| assert_eq!(response, Response::Done));
    assert_eq!(sensing.work(&mut session.device).unwrap().map(|progress| progress.steps), Some(steps + 1));
    ask(&mut session, Request::Train { first_epoch: 0, epochs: 30_000 }, |_| ());
    assert!(session.device.training().is_some());
    ask(&mut session, Request::Begin, |response| assert_eq!(response, Response::Done));
    assert_eq!(session.device.training(), None);
}

#[test]
fn a_training_of_the_pc_is_left_to_the_pc() {
    let image = head_net().image();
    let (length, features) = lengths(&image);
    let mut memory = ram(&image);
    let mut session = session_with(&image, &mut memory, OPTIONS, erased());
    let (mut window, mut kept) = (vec![0; length], vec![0; features]);
    let mut sensing = Sensing::new(&mut session.device, &mut window, &mut kept, options()).unwrap();
    let mut random = fastrand::Rng::with_seed(1);
    let mut labelled = false;
    while sensing.work(&mut session.device).unwrap().is_none() {
        let sensed = sensing.sense(&mut session.device, &reals(&mut random)).unwrap();
        if sensed.is_some() && !labelled {
            session.device.label(1).unwrap();
            labelled = true;
        }
    }
    // The PC's training takes the place of the device's own.
    ask(&mut session, Request::Train { first_epoch: 0, epochs: 30_000 }, |_| ());
    let before = head_state(&mut session);
    assert_eq!(sensing.work(&mut session.device), Ok(None));
    assert_eq!(head_state(&mut session), before);
    ask(&mut session, Request::Continue, |response| assert!(matches!(response, Response::Trained { .. })));
    assert_ne!(head_state(&mut session), before);
    assert_eq!(sensing.work(&mut session.device), Ok(None));
}

/// Why an image cannot be sensed with, in RAM of these lengths.
fn refused_of(image: &Aligned, window: usize, features: usize, options: SensingOptions) -> Option<Error> {
    let (mut window, mut kept) = (vec![0; window], vec![0; features]);
    let mut memory = ram(image);
    let mut session = session_with(image, &mut memory, OPTIONS, erased());
    Sensing::new(&mut session.device, &mut window, &mut kept, options).err()
}

#[test]
fn what_does_not_fit_is_refused() {
    let refused = |window, features, options| refused_of(&head_net().image(), window, features, options);
    let image = head_net().image();
    let (length, features) = lengths(&image);
    let mut memory = ram(&image);
    let mut session = session_with(&image, &mut memory, OPTIONS, erased());
    let device = &mut session.device;
    let (mut window, mut kept) = (vec![0; length], vec![0; features]);
    let error = refused(length - 1, features, options());
    assert_eq!(error, Some(Error::Length { name: "window", needed: length, given: length - 1 }));
    let error = refused(length, features - 1, options());
    assert_eq!(error, Some(Error::Length { name: "features", needed: features, given: features - 1 }));
    // Whole steps of two channels, of which the input has a whole number.
    for (sample, needed) in [(0, SAMPLE), (1, SAMPLE), (length - 1, SAMPLE), (length - 2, length), (length + 2, length)]
    {
        let error = refused(length, features, SensingOptions { sample, ..options() });
        assert_eq!(error, Some(Error::Length { name: "sample", needed, given: sample }));
    }
    for sample in [SAMPLE, 2 * SAMPLE, length] {
        assert_eq!(refused(length, features, SensingOptions { sample, ..options() }), None);
    }
    let error = refused(length, features, SensingOptions { hop: 0, ..options() });
    assert_eq!(error, Some(Error::Length { name: "hop", needed: 1, given: 0 }));
    let error = refused_of(&passed_through().image(), length, features, options());
    assert_eq!(error, Some(Error::Length { name: "inputs to sense", needed: 1, given: 3 }));

    let mut sensing = Sensing::new(device, &mut window, &mut kept, options()).unwrap();
    assert_eq!(device.label(0), Err(Failure::NoRun));
    assert_eq!(sensing.sense(device, &[0.0]), Err(Failure::Input { needed: 2, given: 1 }));
    while sensing.sense(device, &[0.0, f32::NAN]).unwrap().is_none() {}
    assert_eq!(device.label(7), Err(Failure::Label { label: 7, classes: 3 }));
    // A refused label can be given again, unless the window is forgotten.
    device.label(2).unwrap();
    while sensing.sense(device, &[0.0, 0.0]).unwrap().is_none() {}
    sensing.clear(device);
    assert_eq!(device.label(2), Err(Failure::NoRun));
    let first =
        (0..length / SAMPLE).map(|_| sensing.sense(device, &[1.0, 2.0]).unwrap()).position(|made| made.is_some());
    assert_eq!(first, Some(length / SAMPLE - 1));
}

#[test]
fn a_model_without_a_head_senses_and_refuses_labels() {
    let image = conv_net().image();
    let (length, features) = lengths(&image);
    let mut memory = ram(&image);
    let mut session = session_with(&image, &mut memory, OPTIONS, erased());
    let (mut window, mut kept) = (vec![0; length], vec![0; features]);
    // A line of the image.
    let sample = [0.5; 18];
    let options = SensingOptions { sample: sample.len(), ..options() };
    let mut sensing = Sensing::new(&mut session.device, &mut window, &mut kept, options).unwrap();
    while sensing.sense(&mut session.device, &sample).unwrap().is_none() {}
    assert_eq!(session.device.label(0), Err(Failure::NoHead));
    assert_eq!(sensing.work(&mut session.device), Ok(None));
}

#[test]
fn windows_hold_the_latest_samples_in_their_order() {
    for seed in 0..300 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (sample, samples, hop) = (random.usize(1..5), random.usize(1..9), random.usize(1..12));
        let mut bytes = vec![random.i8(..); sample * samples];
        let mut window = SlidingWindow::new(&mut bytes, sample, hop).unwrap();
        let mut all: Vec<i8> = vec![];
        for count in 1..60 {
            let next: Vec<i8> = (0..sample).map(|_| random.i8(..)).collect();
            all.extend(&next);
            let due = window.push(|place| place.copy_from_slice(&next));
            assert_eq!(due, count >= samples && (count - samples).is_multiple_of(hop), "seed {seed}, sample {count}");
            if due {
                let held: Vec<i8> = Input::from(&window).iter().collect();
                assert_eq!(held, all[all.len() - sample * samples..], "seed {seed}, sample {count}");
            }
        }
    }
}

#[test]
fn a_smoothing_that_cannot_decide_is_refused() {
    for length in [0, LONGEST_HISTORY + 1] {
        let error = Smoothing::new(length, 1).err();
        assert_eq!(error, Some(Error::Length { name: "smoothing", needed: LONGEST_HISTORY, given: length }));
    }
    for agreement in [0, 4] {
        let error = Smoothing::new(3, agreement).err();
        assert_eq!(error, Some(Error::Length { name: "agreement", needed: 3, given: agreement }));
    }
}
