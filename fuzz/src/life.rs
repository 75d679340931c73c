//! A device's life between two starts, with checks of its promises.

use nano_core::image::Image;
use nano_core::train::{AnyHead, Head, HeadSizes};
use torch_nano_device::{Options, Request, RequestHeader, Response, ResponseHeader, Settings, Stats, frame};

use crate::builder::Aligned;
use crate::conversation::{self, Board, Flash, ask, encoded, head_state, response, send};
use crate::nor::Torn;
use crate::refusals;
use crate::session::Step;

/// Epochs of a training that is to end.
const EPOCHS: u32 = 8;

/// The state of a device that its flash can keep.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Kept {
    state: Vec<u8>,
    names: Vec<String>,
    settings: Settings,
}

/// The state that the next start finds.
pub(crate) struct Left {
    pub flash: Flash,
    /// The states that the device may start with; `None`: the image's.
    pub allowed: Vec<Option<Kept>>,
}

/// A device, and a twin that gets only the requests that the device did not refuse.
struct Life<'a, 'b> {
    board: Board<'b>,
    twin: Board<'b>,
    /// A head of the same image, to check states with.
    head: Option<AnyHead<'a>>,
    kept: Kept,
    saved: Option<Kept>,
    frame: usize,
    input: usize,
}

/// Starts the device and takes the steps up to its next start; returns `None` at the end.
///
/// # Panics
/// At a finding.
pub(crate) fn life(image: &Aligned, options: Options, start: Left, rest: &mut &[u8]) -> Option<Left> {
    let view = Image::new(image.bytes()).expect("the image is right");
    let mut ram = [(); 3].map(|()| conversation::ram(&view, options));
    let [first, second, third] = &mut ram;
    let begin = |ram, flash| conversation::start(image, ram, options, flash).expect("the board suits the image");
    let mut board = begin(first, start.flash.clone());
    let mut twin = begin(second, start.flash.after_power_on());
    let restored = ask(&mut board, Request::Info, |info| matches!(info, Response::Info { restored: true, .. }));
    let kept = observe(&mut board);
    let saved = restored.then(|| kept.clone());
    assert!(start.allowed.contains(&saved), "the device started with {saved:?}, not with one of {:?}", start.allowed);
    let initial = observe(&mut begin(third, Flash::new(0, 0)));
    assert!(restored || kept == initial, "a device that restored nothing has {kept:?}, its image says {initial:?}");
    assert_eq!(observe(&mut twin), kept);

    let mut head_ram = vec![0; view.head().map_or(0, |record| HeadSizes::of(record).words())];
    let head = AnyHead::new(&view, &mut head_ram).ok();
    let mut life =
        Life { board, twin, head, kept, saved, frame: options.frame, input: conversation::input_length(&view) };
    loop {
        let (step, after) = frame::parse::<Step<'_>>(rest)?;
        *rest = after;
        let left = life.step(step);
        if left.is_some() {
            return left;
        }
    }
}

impl Life<'_, '_> {
    /// Takes a step; returns what is left if the device stops.
    fn step(&mut self, step: Step<'_>) -> Option<Left> {
        match step {
            Step::Ask { header, request, again } => {
                let again = again && header.sequence != 0 && request != Request::Info;
                self.exchange(&encoded(&header, &request), again)
            }
            Step::Fit { request } => self.fitted(request),
            Step::Replace { changes } => self.replace(&changes),
            Step::Raw { bytes } => {
                let mut pieces = bytes.split(|&byte| byte == frame::END).filter(|piece| !piece.is_empty());
                pieces.find_map(|piece| self.exchange(piece, false))
            }
            Step::Restart { cut } => {
                let mut flash = self.board.device.flash().clone();
                flash.cut = cut.map(|(after, torn)| {
                    (flash.operations + usize::from(after), Torn::EACH[usize::from(torn) % Torn::EACH.len()])
                });
                Some(Left { flash, allowed: vec![self.saved.clone()] })
            }
        }
    }

    fn ask(&mut self, request: Request<'_>) -> Option<Left> {
        self.exchange(&encoded(&RequestHeader::default(), &request), false)
    }

    /// Sends a request after fitting it: inputs get the right length, in parts, and trainings are short.
    fn fitted(&mut self, request: Request<'_>) -> Option<Left> {
        let (Request::Predict { input }
        | Request::Features { input }
        | Request::Profile { input }
        | Request::Learn { input, .. }) = request
        else {
            return self.ask(match request {
                Request::Train { first_epoch, epochs } => Request::Train { first_epoch, epochs: epochs % EPOCHS },
                other => other,
            });
        };
        let whole: Vec<u8> = input.iter().chain(&[0]).copied().cycle().take(self.input).collect();
        let (parts, input) = whole.split_at(self.input - self.input.min(self.frame));
        for (part, offset) in parts.chunks(self.frame).zip((0..).step_by(self.frame)) {
            let left = self.ask(Request::Input { offset, bytes: part });
            if left.is_some() {
                return left;
            }
        }
        self.ask(match request {
            Request::Predict { .. } => Request::Predict { input },
            Request::Features { .. } => Request::Features { input },
            Request::Profile { .. } => Request::Profile { input },
            Request::Learn { label, .. } => Request::Learn { label, input },
            other => other,
        })
    }

    /// Writes the device's own head with some words changed, and replaces the head by it.
    fn replace(&mut self, changes: &[(u16, u32)]) -> Option<Left> {
        let mut state = self.kept.state.clone();
        let words = state.len() / 4;
        if words == 0 {
            return None;
        }
        for &(place, word) in changes {
            state[usize::from(place) % words * 4..][..4].copy_from_slice(&word.to_le_bytes());
        }
        for (bytes, offset) in state.chunks(self.frame).zip((0..).step_by(self.frame)) {
            let left = self.ask(Request::WriteHead { offset, bytes });
            if left.is_some() {
                return left;
            }
        }
        self.ask(Request::ReplaceHead { checksum: frame::checksum(&state) })
    }

    /// Sends a frame, once or twice, and checks the device's promises; returns what is left if the power failed.
    fn exchange(&mut self, frame: &[u8], again: bool) -> Option<Left> {
        let operations = self.board.device.flash().operations;
        let mut answer = send(&mut self.board, frame);
        let flash = self.board.device.flash();
        let now = flash.operations;
        if flash.cut.is_some_and(|(operation, _)| now > operation) {
            let flash = flash.clone().after_power_on();
            let saving = observe(&mut self.board);
            return Some(Left { flash, allowed: vec![self.saved.clone(), Some(saving)] });
        }
        if again {
            assert_eq!(send(&mut self.board, frame), answer, "a repeated request is answered otherwise");
        }
        let (header, response) = response(&mut answer);
        let refused = if let Response::Refused(failure) = response {
            refusals::failure(&failure);
            true
        } else {
            let mut answer = send(&mut self.twin, frame);
            let (own, twins) = (comparable((header, response)), comparable(conversation::response(&mut answer)));
            assert_eq!(
                own, twins,
                "a device that refused something answers otherwise than one that was not asked that"
            );
            false
        };
        let kept = observe(&mut self.board);
        assert!(!refused || kept == self.kept, "a refusal ({response:?}) changed {:?} into {kept:?}", self.kept);
        assert_eq!(kept, observe(&mut self.twin));
        if let Some(head) = &self.head {
            let checked = head.check_state(&kept.state);
            assert_eq!(checked, Ok(()), "the head refuses its own state after {response:?}: {kept:?}");
        }
        if now > operations {
            self.saved = Some(kept.clone());
        }
        self.kept = kept;
        None
    }
}

/// An answer without its counters of refusals.
fn comparable((header, response): (ResponseHeader, Response<'_>)) -> (ResponseHeader, Response<'_>) {
    let response = match response {
        Response::Stats(stats) => Response::Stats(Stats {
            requests: 0,
            refused_requests: 0,
            refused_frames: 0,
            repeated: 0,
            failed_saves: 0,
            ..stats
        }),
        other => other,
    };
    (header, response)
}

fn observe(board: &mut Board<'_>) -> Kept {
    let state = head_state(board);
    let (classes, settings) = ask(board, Request::Info, |response| match response {
        Response::Info { classes, settings, .. } => (classes as u16, settings),
        other => panic!("{other:?} to Info"),
    });
    let name = |class| {
        ask(board, Request::ClassName { class }, |response| match response {
            Response::ClassName { name } => name.to_owned(),
            other => panic!("{other:?} to the name of class {class} of {classes}"),
        })
    };
    Kept { state, names: (0..classes).map(name).collect(), settings }
}
