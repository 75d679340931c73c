//! Target `session`: a setup, then steps, each a request or an accident, in postcard, as the protocol's own types encode.
//!
//! A twin gets only the requests that were not refused: if both answer the same, refusals change nothing.

use std::sync::LazyLock;

use nano_core::image::Image;
use serde::{Deserialize, Serialize};
use torch_nano_device::{HeadStorage, Options, Request, RequestHeader, Settings, SpareCopy, frame};

use crate::builder::Aligned;
use crate::conversation::{self, Flash};
use crate::life::{Left, life};
use crate::mutation::{self, Mutate, encode};
use crate::{boards, refusals};

static BOARDS: LazyLock<Vec<Aligned>> = LazyLock::new(boards::heads);

/// The setup of a conversation.
#[derive(Debug, Serialize, Deserialize)]
struct Setup {
    /// Selects the image.
    board: u8,
    /// Pages of flash.
    pages: u8,
    /// Whether the flash holds the head of another model.
    foreign: bool,
    /// Places of the ring, and bytes of a frame, both added to their minimum.
    ring: u8,
    frame: u8,
    settings: Settings,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Step<'a> {
    /// Sends a request unchanged; a numbered one may be sent twice.
    Ask {
        header: RequestHeader,
        #[serde(borrow)]
        request: Request<'a>,
        again: bool,
    },
    /// Sends a request after giving its input the right length and bounding its training.
    Fit {
        #[serde(borrow)]
        request: Request<'a>,
    },
    /// Writes the device's own head with some words changed, and replaces the head by it.
    Replace { changes: Vec<(u16, u32)> },
    /// Sends any bytes.
    Raw { bytes: &'a [u8] },
    /// Restarts the device. With `cut`, the power fails after that number of flash operations and leaves the last one torn.
    Restart { cut: Option<(u16, u8)> },
}

/// Runs the conversation in `data` and checks the device's promises.
///
/// # Panics
/// At a finding.
pub fn run(data: &[u8]) {
    let Some((setup, mut rest)) = frame::parse::<Setup>(data) else { return };
    let image = &BOARDS[usize::from(setup.board) % BOARDS.len()];
    let mut flash = Flash::new(usize::from(setup.pages) % 17, 0);
    if setup.foreign {
        let view = Image::new(image.bytes()).expect("the image is right");
        let mut storage = HeadStorage::new(flash, !view.id(), !view.head().map_or(0, |head| head.id));
        if let Err(error) = storage.save(&[&[7; 50]], false) {
            refusals::storage(&error);
        }
        flash = storage.flash().clone();
    }
    let options = Options {
        ring: 1 + usize::from(setup.ring) % 8,
        frame: 64 + usize::from(setup.frame),
        copy: SpareCopy::Flash,
        settings: setup.settings,
    };
    let mut left = Some(Left { flash, allowed: vec![None] });
    while let Some(start) = left {
        left = life(image, options, start, &mut rest);
    }
}

/// Conversations with each board: valid requests, invalid ones, and accidents.
pub fn seeds() -> Vec<Vec<u8>> {
    let pool = pool();
    let settings = [Settings::default(), Settings { rejection: 1 << 14, save_interval: 2 }];
    let seeds = (0..BOARDS.len() as u8).flat_map(|board| {
        let parts = pool.chunks(pool.len().div_ceil(3)).zip(settings.iter().cycle());
        let parts = parts.map(move |(steps, &settings)| {
            let setup = Setup { board, pages: 8, foreign: board == 0, ring: 3, frame: 255, settings };
            [encode(&setup), steps.concat()].concat()
        });
        parts.collect::<Vec<_>>()
    });
    seeds.collect()
}

/// Every step: the requests in the order of a conversation, then the accidents.
fn pool() -> Vec<Vec<u8>> {
    let (requests, header) = (conversation::requests(&[5]), RequestHeader { sequence: 7, ..RequestHeader::default() });
    let fitted = requests.iter().map(|&request| Step::Fit { request });
    let asked = requests.iter().map(|&request| Step::Ask { header, request, again: true });
    let changes = [vec![], vec![(0, 0)], vec![(9, 0)], vec![(3, u32::MAX), (20, 1)]];
    let accidents = [
        Step::Raw { bytes: &[1, 2, 3, frame::END, 0xff] },
        Step::Ask {
            header: RequestHeader { model_id: Some(1), session: 3, ..header },
            request: Request::Commit,
            again: false,
        },
        Step::Ask { header, request: Request::Train { first_epoch: 0, epochs: u32::MAX }, again: false },
        Step::Restart { cut: None },
        Step::Restart { cut: Some((20, 1)) },
    ];
    let replaced = changes.into_iter().map(|changes| Step::Replace { changes });
    let steps = fitted.chain(replaced).chain(asked).chain(accidents);
    steps.map(|step| encode(&step)).collect()
}

/// Changes the steps, or any bytes.
pub fn mutate(data: &mut [u8], size: usize, capacity: usize, seed: u32, engine: Mutate<'_>) -> usize {
    mutation::after_setup::<Setup>(data, size, capacity, seed, engine, |steps, random, engine| {
        mutation::steps::<Step<'_>>(steps, &pool(), random, engine)
    })
}
