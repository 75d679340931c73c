//! Saved heads that are undamaged but invalid for this program: the older one is loaded, and `Info` reports it.

use std::cell::Cell;

use nano_core::image::Image;
use nano_core::train::{AnyHead, FeatureRing, Head, HeadSizes, Target, Training};
use nano_core::{CheckedImage, Error, ops};
use torch_nano_device::{
    Block, Class, Failure, HeadStorage, MemoryFlash, Request, Response, SavedHead, Session, Settings, StorageError,
    frame,
};

use crate::builder::{Aligned, head_net};
use crate::learning::sums_net;
use crate::stream::{OPTIONS, ask, class, every_head, head_state, input, ram, session_with};

type Flash = MemoryFlash<Vec<u8>>;

fn blank() -> Flash {
    MemoryFlash(vec![0xff; 8 * 4096])
}

/// What `Info` reports about the flash: the head that can be loaded, and whether the device started with it.
fn saved<C: FnMut() -> u64>(session: &mut Session<'_, C, Flash>) -> (Result<SavedHead, StorageError>, bool) {
    ask(session, Request::Info, |response| match response {
        Response::Info { saved, restored, .. } => (saved, restored),
        other => panic!("{other:?}"),
    })
}

/// A flash with a trained head that a device of `image` saved, and that head's record.
fn with_one_save(image: &Aligned) -> (Flash, Vec<u8>, Vec<u8>) {
    let mut memory = ram(image);
    let mut session = session_with(image, &mut memory, OPTIONS, blank());
    for number in 0..4 {
        ask(&mut session, Request::Learn { label: class(number as u16 % 2), input: &input(number) }, |_| ());
    }
    ask(&mut session, Request::Train { first_epoch: 0, epochs: 2 }, |_| ());
    ask(&mut session, Request::AddClass { name: "up" }, |_| ());
    let settings = Settings { rejection: 77, save_interval: 0 };
    ask(&mut session, Request::Configure { settings }, |_| ());
    ask(&mut session, Request::Save { replace: false }, |response| assert_eq!(response, Response::Saved { count: 1 }));
    let state = head_state(&mut session);
    let view = Image::new(image.bytes()).unwrap();
    let classes = view.head().unwrap().classes as usize;
    let mut record = vec![0; state.len() + 16 * classes + 8];
    let flash = session.device.flash().clone();
    HeadStorage::new(flash.clone(), view.id(), view.head().unwrap().id).load(&mut record, |_| true).unwrap();
    (flash, state, record)
}

#[test]
fn the_head_before_a_refused_one_is_loaded() {
    for (name, image) in every_head() {
        let (flash, state, record) = with_one_save(&image);
        let view = Image::new(image.bytes()).unwrap();
        let (id, head) = (view.id(), view.head().unwrap().id);
        let (names, settings) = (state.len(), record.len() - 8);
        // An invalid first word of the head; a name that is not UTF-8; bytes after a name's end; reserved bytes.
        for (wrong, at) in [(0xff, 0), (0xff, names), (b'x', names + 20), (1, settings + 2)] {
            let mut hostile = record.clone();
            hostile[at] = wrong;
            if at == 0 {
                hostile[..4].fill(wrong);
            }
            let mut storage = HeadStorage::new(flash.clone(), id, head);
            storage.save(&[&hostile], false).unwrap();
            let mut memory = ram(&image);
            let mut session = session_with(&image, &mut memory, OPTIONS, storage.flash().clone());
            let older = SavedHead { count: 1, lost: Some(2) };
            assert_eq!(saved(&mut session), (Ok(older), true), "{name}, byte {at}");
            assert_eq!(head_state(&mut session), state, "{name}, byte {at}");
            ask(&mut session, Request::Load, |response| assert_eq!(response, Response::Loaded(older)));
            ask(&mut session, Request::Save { replace: false }, |response| {
                assert_eq!(response, Response::Saved { count: 3 })
            });
            assert_eq!(saved(&mut session).0, Ok(SavedHead { count: 3, lost: None }));
            // Without another one, it starts with the image's.
            let mut storage = HeadStorage::new(blank(), id, head);
            storage.save(&[&hostile], false).unwrap();
            let mut memory = ram(&image);
            let mut session = session_with(&image, &mut memory, OPTIONS, storage.flash().clone());
            let damaged = StorageError::Damaged { count: 1 };
            assert_eq!(saved(&mut session), (Err(damaged), false), "{name}, byte {at}");
            ask(&mut session, Request::Load, |response| {
                assert_eq!(response, Response::Refused(Failure::Storage(damaged)))
            });
        }
    }
}

/// Sums of an LDA head that are each within their bounds, but that no samples lead to.
#[test]
fn a_head_that_was_accepted_is_accepted_after_a_restart() {
    let image = sums_net(true);
    let mut memory = ram(&image);
    let mut session = session_with(&image, &mut memory, OPTIONS, blank());
    ask(&mut session, Request::Learn { label: class(0), input: &input(1) }, |_| ());
    let mut state = head_state(&mut session);
    let features = Image::new(image.bytes()).unwrap().output(0).len();
    let first_square = 4 * (5 + 4 + 4 * features);
    assert_ne!(state[first_square..first_square + 4], [0; 4]);
    state[first_square..first_square + 4].fill(0);
    ask(&mut session, Request::WriteHead { offset: 0, bytes: &state }, |_| ());
    let checksum = frame::checksum(&state);
    ask(&mut session, Request::ReplaceHead { checksum }, |response| assert_eq!(response, Response::Done));
    ask(&mut session, Request::Forget { class: Class::Index(0) }, |response| assert_eq!(response, Response::Done));
    ask(&mut session, Request::Save { replace: false }, |response| assert_eq!(response, Response::Saved { count: 1 }));
    let state = head_state(&mut session);
    let flash = session.device.flash().clone();
    let mut memory = ram(&image);
    let mut session = session_with(&image, &mut memory, OPTIONS, flash);
    assert_eq!(saved(&mut session), (Ok(SavedHead { count: 1, lost: None }), true));
    assert_eq!(head_state(&mut session), state);
}

thread_local! {
    /// Whether [`Spoilt`] refuses its own state, as after flipped bits in RAM.
    static SPOILT: Cell<bool> = const { Cell::new(false) };
}

/// A head whose state can become invalid in RAM.
struct Spoilt<'a>(AnyHead<'a>);

impl<'a> Head<'a> for Spoilt<'a> {
    const NAME: &'static str = "Spoilt";

    fn runs(trainer: u32) -> bool {
        AnyHead::runs(trainer)
    }

    fn new(image: &Image<'a>, ram: &'a mut [u32]) -> Result<Self, Error> {
        AnyHead::new(image, ram).map(Spoilt)
    }

    fn sizes(&self) -> HeadSizes {
        self.0.sizes()
    }

    fn classes(&self) -> usize {
        self.0.classes()
    }

    fn features(&self) -> usize {
        self.0.features()
    }

    fn logit_scale(&self) -> f32 {
        self.0.logit_scale()
    }

    fn logits(&mut self, features: &[i8]) -> Result<&[i32], Error> {
        self.0.logits(features)
    }

    fn target(&self, word: u32) -> Target {
        self.0.target(word)
    }

    fn check(&self, target: Target) -> Result<(), Error> {
        self.0.check(target)
    }

    fn learn(&mut self, features: &[i8], target: Target) -> Result<(), Error> {
        self.0.learn(features, target)
    }

    fn train(&mut self, ring: &FeatureRing<'_>, training: &mut Training, most: u32) -> Result<(), Error> {
        self.0.train(ring, training, most)
    }

    fn state(&self) -> &[u8] {
        self.0.state()
    }

    fn check_state(&self, state: &[u8]) -> Result<(), Error> {
        if SPOILT.get() {
            return Err(Error::Field { name: "head weight", value: 0 });
        }
        self.0.check_state(state)
    }

    fn overwrite(&mut self, write: impl FnOnce(&mut [u8])) {
        self.0.overwrite(write)
    }

    fn reset(&mut self) {
        self.0.reset()
    }
}

#[test]
fn what_could_not_be_loaded_again_is_not_saved() {
    let image = head_net().image();
    let (flash, ..) = with_one_save(&image);
    let mut memory = ram(&image);
    let checked = CheckedImage::new(image.bytes(), ops::ALL).unwrap();
    let session = Session::<_, _, Spoilt<'_>>::new(checked, &mut memory, OPTIONS, flash, || 0);
    let mut session = session.unwrap();
    let before = session.device.flash().0.clone();
    let mut say = |request: Request<'_>| ask(&mut session, request, |response| format!("{response:?}"));
    SPOILT.set(true);
    assert_eq!(say(Request::Save { replace: false }), "Refused(State)");
    assert!(say(Request::Stats).contains("saves: 0, failed_saves: 1"));
    SPOILT.set(false);
    assert!(say(Request::Read { block: Block::Head, offset: 0 }).starts_with("Part"));
    assert_eq!(session.device.flash().0, before);
}
