//! A head whose spare copy is in flash does what one with the copy in RAM does, and no power cut loses it.

use nano_core::image::{HeadDescription, Image};
use nano_core::train::Loss;
use torch_nano_device::{
    Failure, NoFlash, Options, Request, Response, Session, Settings, Sizes, SpareCopy, StorageError, frame,
};

use crate::builder::{Aligned, descent, head_net, wide_layers_head};
use crate::nor::{Nor, Torn};
use crate::stream::{FRAME, OPTIONS, RING, ask, class, head_state, input, session_with, signed};

/// As the firmware's: 16 pages of 4 KiB.
type Flash = Nor<4096>;
const PAGES: usize = 16;
/// Outputs of the first layer: a record of 10 KB.
const HIDDEN: usize = 512;

/// A model whose head is large; every second sample is kept aside with `guard`.
fn large(guard: bool) -> Aligned {
    let mut net = head_net();
    let mut descent = descent(0.02, Loss::CrossEntropy);
    descent.guard = if guard { 2 } else { 0 };
    net.model.head = Some(wide_layers_head(6, HIDDEN, 3, descent));
    assert!(matches!(net.model.head, Some(HeadDescription::Layers(_))));
    net.image()
}

fn options(copy: SpareCopy, save_interval: u32) -> Options {
    Options { copy, settings: Settings { rejection: 0, save_interval }, ..OPTIONS }
}

/// The RAM that a session needs, and no more.
fn ram(image: &Aligned, copy: SpareCopy) -> Vec<u32> {
    vec![0xdead_beef; Sizes::of(&Image::new(image.bytes()).unwrap(), RING, FRAME, copy).words()]
}

/// A random request that does not save; `heads` are states to replace the head by.
fn act<C: FnMut() -> u64, F: embedded_storage::nor_flash::NorFlash>(
    session: &mut Session<'_, C, F>,
    random: &mut fastrand::Rng,
    heads: &[Vec<u8>],
) -> String {
    let sample = input(random.u64(..));
    let request = match random.u32(0..9) {
        0..=2 => Request::Learn { label: class(random.u16(0..3)), input: &sample },
        3 => Request::Train { first_epoch: 0, epochs: random.u32(1..4) },
        4 | 5 => Request::Undo,
        6 => Request::Reset,
        7 => Request::Commit,
        _ => {
            let head = random.choice(heads).unwrap();
            return replace(session, head, random.u32(0..4) == 0);
        }
    };
    ask(session, request, |response| match response {
        Response::Refused(failure) => format!("{request:?}: {failure:?}"),
        Response::Trained { steps, left, taken_back, .. } => format!("{steps} {left} {taken_back}"),
        Response::Learned { samples, .. } => format!("{samples}"),
        other => format!("{other:?}"),
    })
}

/// Sends a head in parts; one byte of it is `damaged`.
fn replace<C: FnMut() -> u64, F: embedded_storage::nor_flash::NorFlash>(
    session: &mut Session<'_, C, F>,
    head: &[u8],
    damaged: bool,
) -> String {
    let mut sent = head.to_vec();
    if damaged {
        // A weight that no head has: the parts arrive, and are refused as a whole.
        sent[12..14].copy_from_slice(&i16::MIN.to_le_bytes());
    }
    for (number, bytes) in sent.chunks(200).enumerate() {
        let offset = 200 * number as u32;
        let received = ask(session, Request::WriteHead { offset, bytes }, |response| format!("{response:?}"));
        if !received.contains("Received") {
            return received;
        }
    }
    ask(session, Request::ReplaceHead { checksum: frame::checksum(&sent) }, |response| format!("{response:?}"))
}

#[test]
fn it_does_what_a_copy_in_ram_does() {
    let mut undone = 0;
    let mut taken_back = 0;
    for seed in 0..24 {
        let image = large(seed % 2 == 0);
        let (mut memory, mut own_memory) = (ram(&image, SpareCopy::Ram), ram(&image, SpareCopy::Flash));
        let mut other = session_with(&image, &mut memory, options(SpareCopy::Ram, 0), NoFlash);
        let flash = Flash::new(PAGES, seed);
        let mut own = session_with(&image, &mut own_memory, options(SpareCopy::Flash, 0), flash);
        let mut heads = vec![head_state(&mut own)];
        let (mut random, mut own_random) = (fastrand::Rng::with_seed(seed), fastrand::Rng::with_seed(seed));
        for step in 0..30 {
            let expected = act(&mut other, &mut random, &heads);
            let made = act(&mut own, &mut own_random, &heads);
            assert_eq!(made, expected, "seed {seed}, step {step}");
            let state = head_state(&mut own);
            assert!(state == head_state(&mut other), "seed {seed}, step {step}: {made}");
            undone += u32::from(heads.contains(&state));
            if heads.len() < 6 && !heads.contains(&state) {
                heads.push(state);
            }
        }
        taken_back += own.device.stats().taken_back;
        assert_eq!(own.device.stats().taken_back, other.device.stats().taken_back, "seed {seed}");
    }
    assert!(undone > 20 && taken_back > 0, "{undone} undone, {taken_back} taken back");
}

#[test]
fn it_takes_no_ram_for_a_second_head() {
    let image = large(false);
    let view = Image::new(image.bytes()).unwrap();
    let [in_ram, in_flash] =
        [SpareCopy::Ram, SpareCopy::Flash].map(|copy| 4 * Sizes::of(&view, RING, FRAME, copy).words());
    let state = 2 * (7 * HIDDEN + 3 * (HIDDEN + 1)) + 12;
    assert_eq!(in_ram - in_flash, (state + 3 * 16 + 8).next_multiple_of(4) - 500);
    // A small head has its copy in RAM, where it may be.
    let small = Image::new(head_net().image().bytes())
        .map(|view| [SpareCopy::Ram, SpareCopy::Flash].map(|copy| Sizes::of(&view, RING, FRAME, copy).words()));
    assert!(small.is_ok_and(|[first, second]| first == second));
}

#[test]
fn a_second_save_ends_what_can_be_undone() {
    let image = large(true);
    let mut memory = ram(&image, SpareCopy::Flash);
    let mut session = session_with(&image, &mut memory, options(SpareCopy::Flash, 0), Flash::new(PAGES, 0));
    for sample in 0..4 {
        session.device.learn(&signed(&input(sample))[..], (sample % 3) as u16).unwrap();
    }
    let start = head_state(&mut session);
    session.device.begin_training(0, 40).unwrap();
    session.device.train_steps(1).unwrap();
    let trained = head_state(&mut session);
    session.device.save(false).unwrap();
    assert!(session.device.training().is_some() && head_state(&mut session) == trained);
    // The flash would no longer hold the head before the training: it is judged first.
    session.device.save(false).unwrap();
    assert!(session.device.training().is_none());
    let state = head_state(&mut session);
    assert!(state == start || state == trained);
    assert_eq!(session.device.undo(), Err(Failure::NothingToUndo));
}

#[test]
fn without_a_flash_it_refuses_to_train() {
    let image = large(false);
    let mut memory = ram(&image, SpareCopy::Flash);
    let mut session = session_with(&image, &mut memory, options(SpareCopy::Flash, 0), NoFlash);
    session.device.learn(&signed(&input(0))[..], 0).unwrap();
    let start = head_state(&mut session);
    let refused = session.device.begin_training(0, 3);
    assert!(matches!(refused, Err(Failure::Storage(StorageError::TooSmall { .. }))), "{refused:?}");
    assert!(head_state(&mut session) == start && session.device.training().is_none());
}

/// What a session does from one start to the next; the states that its head has had. Ends early if the power fails.
fn live(image: &Aligned, flash: Flash, seed: u64, heads: &[Vec<u8>]) -> (Flash, Vec<Vec<u8>>) {
    let mut random = fastrand::Rng::with_seed(seed);
    let cut = flash.cut.map(|(operation, _)| operation);
    let mut memory = ram(image, SpareCopy::Flash);
    let mut session = session_with(image, &mut memory, options(SpareCopy::Flash, 1), flash);
    let mut states = vec![head_state(&mut session)];
    for _ in 0..14 {
        act(&mut session, &mut random, heads);
        states.push(head_state(&mut session));
        if cut.is_some_and(|cut| session.device.flash().operations > cut) {
            break;
        }
    }
    (session.device.flash().clone(), states)
}

#[test]
fn a_power_cut_at_any_moment_leaves_a_head_that_was_there() {
    let (mut restored, mut cuts) = (0, 0);
    for seed in 0..6 {
        let image = large(seed % 2 == 0);
        let mut memory = ram(&image, SpareCopy::Flash);
        let mut session = session_with(&image, &mut memory, options(SpareCopy::Flash, 0), Flash::new(PAGES, seed));
        let heads: Vec<_> = (0..3)
            .map(|number| {
                session.device.learn(&signed(&input(seed + number))[..], number as u16).unwrap();
                session.device.begin_training(0, 2).unwrap();
                while session.device.train_slice().unwrap().left > 0 {}
                head_state(&mut session)
            })
            .collect();
        let (before, _) = live(&image, Flash::new(PAGES, seed), seed, &heads);
        let (whole, states) = live(&image, before.clone().after_power_on(), seed + 100, &heads);
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..60 {
            let operation = random.usize(before.operations..whole.operations);
            let torn = *random.choice(&Torn::EACH).unwrap();
            let mut flash = before.clone().after_power_on();
            flash.cut = Some((operation, torn));
            let (left, _) = live(&image, flash, seed + 100, &heads);
            let place = format!("seed {seed}, operation {operation}, {torn:?}");
            let mut memory = ram(&image, SpareCopy::Flash);
            let mut session = session_with(&image, &mut memory, options(SpareCopy::Flash, 1), left.after_power_on());
            let state = head_state(&mut session);
            // Each training here is one slice, so the head has no state within a training.
            assert!(states.contains(&state), "{place}");
            restored += usize::from(session.device.restored());
            // It goes on: what is learnt next can be taken back.
            session.device.learn(&signed(&input(1))[..], 1).unwrap();
            session.device.begin_training(0, 1).unwrap_or_else(|failure| panic!("{place}: {failure:?}"));
            session.device.train_slice().unwrap();
            if session.device.undo().is_ok() {
                assert!(head_state(&mut session) == state, "{place}");
            }
            cuts += 1;
        }
    }
    assert!(cuts == 360 && restored > 300, "{restored} of {cuts} restored");
}
