//! Heads in flash, through requests.

use torch_nano_device::{
    Class, Failure, Label, MemoryFlash, Options, Request, Response, Session, Settings, StorageError,
};

use crate::builder::{Aligned, head_net};
use crate::learning::sums_net;
use crate::stream::{OPTIONS, ask, class, head_state, input, ram, session_with};

type Flash = MemoryFlash<Vec<u8>>;

fn blank() -> Flash {
    MemoryFlash(vec![0xff; 8 * 4096])
}

/// Calls `act` on a device of `image` with this flash; returns the flash.
fn with<T>(image: &Aligned, flash: Flash, act: impl FnOnce(&mut dyn Board) -> T) -> (Flash, T) {
    let mut ram = ram(image);
    let mut session = session_with(image, &mut ram, OPTIONS, flash);
    let result = act(&mut session);
    (session.device.flash().clone(), result)
}

trait Board {
    fn ask(&mut self, request: Request<'_>) -> String;
    fn state(&mut self) -> Vec<u8>;
}

impl<C: FnMut() -> u64> Board for Session<'_, C, Flash> {
    fn ask(&mut self, request: Request<'_>) -> String {
        ask(self, request, |response| format!("{response:?}"))
    }

    fn state(&mut self) -> Vec<u8> {
        head_state(self)
    }
}

fn learn(board: &mut dyn Board) {
    for number in 0..4 {
        board.ask(Request::Learn { label: class(number as u16 % 2), input: &input(number) });
    }
    board.ask(Request::Train { first_epoch: 0, epochs: 2 });
}

const SAVE: Request<'_> = Request::Save { replace: false };

#[test]
fn after_a_power_cut_it_goes_on_with_what_was_saved() {
    for image in [head_net().image(), sums_net(false), sums_net(true)] {
        let settings = Settings { rejection: 20_000, save_interval: 0 };
        let (flash, saved) = with(&image, blank(), |board| {
            learn(board);
            board.ask(Request::Configure { settings });
            assert_eq!(board.ask(SAVE), "Saved { count: 1 }");
            let saved = board.state();
            // This is lost.
            board.ask(Request::Learn { label: class(1), input: &input(9) });
            board.ask(Request::Train { first_epoch: 0, epochs: 1 });
            assert_ne!(board.state(), saved);
            saved
        });
        let (_, ()) = with(&image, flash, |board| {
            assert_eq!(board.state(), saved);
            let info = board.ask(Request::Info);
            assert!(
                info.contains(&format!(
                    "{settings:?}, saved: Ok(SavedHead {{ count: 1, lost: None }}), restored: true"
                )),
                "{info}"
            );
            assert_eq!(board.ask(Request::Undo), "Refused(NothingToUndo)");
            board.ask(Request::Reset);
            assert_ne!(board.state(), saved);
            board.ask(Request::Configure { settings: Settings::default() });
            assert_eq!(board.ask(Request::Load), "Loaded(SavedHead { count: 1, lost: None })");
            assert_eq!(board.state(), saved);
            assert!(board.ask(Request::Info).contains(&format!("{settings:?}")));
            // Undo restores head and settings together.
            assert_eq!(board.ask(Request::Undo), "Done");
            assert_ne!(board.state(), saved);
            assert!(board.ask(Request::Info).contains(&format!("{:?}", Settings::default())));
        });
    }
}

#[test]
fn names_of_added_classes_are_saved() {
    let image = sums_net(true);
    let up = Class::Name("up");
    let (flash, ()) = with(&image, blank(), |board| {
        board.ask(Request::AddClass { name: "up" });
        board.ask(SAVE);
    });
    with(&image, flash, |board| {
        assert_eq!(board.ask(Request::ClassName { class: 2 }), "ClassName { name: \"up\" }");
        assert!(board.ask(Request::Learn { label: Label::Class(up), input: &input(1) }).starts_with("Learned"));
        // Load and Undo change the names with the head.
        board.ask(Request::Reset);
        board.ask(Request::AddClass { name: "down" });
        board.ask(Request::Load);
        assert_eq!(board.ask(Request::ClassName { class: 2 }), "ClassName { name: \"up\" }");
        board.ask(Request::Undo);
        assert_eq!(board.ask(Request::ClassName { class: 2 }), "ClassName { name: \"down\" }");
    });
}

#[test]
fn it_saves_automatically_at_its_interval_and_no_more_often() {
    let image = head_net().image();
    for interval in [1, 3, 5] {
        let mut ram = ram(&image);
        let options = Options { settings: Settings { rejection: 0, save_interval: interval }, ..OPTIONS };
        let mut session = session_with(&image, &mut ram, options, blank());
        session.ask(Request::Learn { label: class(1), input: &input(1) });
        let mut states = vec![session.state()];
        for change in 1..=20 {
            session.ask(Request::Train { first_epoch: 0, epochs: 1 });
            states.push(session.state());
            // A flash taken now starts a device with the latest state whose number the interval divides.
            let saved = change / interval * interval;
            let flash = session.device.flash().clone();
            let (_, state) = with(&image, flash, |board| board.state());
            assert_eq!(state, states[saved as usize], "change {change}, interval {interval}");
        }
        assert!(session.ask(Request::Stats).contains(&format!("saves: {}, failed_saves: 0", 20 / interval)));
    }
}

#[test]
fn the_head_of_another_model_is_kept_until_it_is_replaced() {
    let (first, other) = (head_net().image(), sums_net(false));
    let (flash, saved) = with(&first, blank(), |board| {
        learn(board);
        board.ask(SAVE);
        board.state()
    });
    let model_id = nano_core::image::Image::new(first.bytes()).unwrap().id();
    let refused = format!("{:?}", Response::Refused(Failure::Storage(StorageError::OtherModel { model_id })));
    let (kept, ()) = with(&other, flash.clone(), |board| {
        learn(board);
        assert_eq!([board.ask(SAVE), board.ask(Request::Load)], [refused.clone(), refused.clone()]);
        // Nor does it save automatically.
        board.ask(Request::Configure { settings: Settings { rejection: 0, save_interval: 1 } });
        board.ask(Request::Learn { label: class(0), input: &input(1) });
        assert!(board.ask(Request::Stats).contains("saves: 0, failed_saves: 2"));
    });
    assert_eq!(kept.0, flash.0);
    assert_eq!(with(&first, kept.clone(), |board| board.state()).1, saved);
    let (replaced, ()) = with(&other, kept, |board| {
        assert_eq!(board.ask(Request::Save { replace: true }), "Saved { count: 2 }");
    });
    assert_ne!(with(&first, replaced, |board| board.state()).1, saved);
}

#[test]
fn saving_without_a_flash_is_refused() {
    let image = head_net().image();
    with(&image, MemoryFlash(vec![]), |board| {
        learn(board);
        let before = board.state();
        assert!(board.ask(SAVE).starts_with("Refused(Storage(TooSmall"));
        assert_eq!(board.ask(Request::Load), "Refused(Storage(Empty))");
        assert_eq!(board.state(), before);
        assert!(board.ask(Request::Info).contains("saved: Err(Empty), restored: false"));
    });
}
