//! Target `storage`: a setup, then steps, each a save, a power cut, a flipped bit or a restart, in postcard.
//!
//! The model of the two halves follows their bytes: a successful save leaves its record in the halves that it changed; a flipped bit or a
//! torn save may lose the records in theirs.

use serde::{Deserialize, Serialize};
use torch_nano_device::{HeadStorage, StorageError, frame};

use crate::mutation::{self, Mutate, encode};
use crate::nor::{Nor, Torn};
use crate::refusals;

const MODEL: u32 = 0x1234_5678;
const PAGE: usize = 256;
const MOST_PAGES: usize = 12;
/// Bytes of a record's number.
const NUMBER: usize = 4;

#[derive(Debug, Serialize, Deserialize)]
struct Setup {
    pages: u8,
    /// Bytes of a record.
    length: u16,
    /// Bytes of flash with stuck bits, which no erase sets again.
    stuck: Vec<u16>,
}

#[derive(Debug, Serialize, Deserialize)]
enum Step {
    /// Saves a new record, in the same program or after a restart.
    Save { starts: bool },
    /// Saves a new record until the power fails.
    Cut { after: u16, torn: u8 },
    /// Flips a bit.
    Rot { at: u16, bit: u8 },
    /// Saves another model's head.
    Other { replace: bool },
    /// Loads the newest record.
    Load,
}

/// The known contents of a half.
#[derive(Clone, Copy, Debug, Default)]
struct Half {
    /// The record of a complete save, if nothing happened to this half since.
    whole: Option<u32>,
}

struct Bench {
    flash: Nor<PAGE>,
    halves: [Half; 2],
    length: usize,
    /// The numbers of the last record that a save tried to write, and of the last one saved completely.
    last: u32,
    last_whole: Option<u32>,
    /// Flipped bits and torn saves since then.
    accidents: u32,
    worn: bool,
    /// Whether the newest head may be another model's.
    other: bool,
}

/// Runs the steps in `data` on a flash, and looks for heads that are lost or were never saved.
///
/// # Panics
/// At a finding.
pub fn run(data: &[u8]) {
    let Some((setup, mut rest)) = frame::parse::<Setup>(data) else { return };
    let pages = usize::from(setup.pages) % (MOST_PAGES + 1);
    let mut flash = Nor::<PAGE>::new(pages, u64::from(setup.length));
    flash.stuck = setup.stuck.iter().filter(|_| pages > 0).map(|&at| usize::from(at) % (pages * PAGE)).collect();
    let mut bench = Bench {
        worn: !flash.stuck.is_empty(),
        flash,
        halves: [Half::default(); 2],
        length: NUMBER + usize::from(setup.length) % 300,
        last: 0,
        last_whole: None,
        accidents: 0,
        other: false,
    };
    while let Some((step, after)) = frame::parse::<Step>(rest) {
        rest = after;
        bench.step(&step);
        bench.check_load();
    }
}

impl Bench {
    fn step(&mut self, step: &Step) {
        match *step {
            Step::Save { starts } => {
                self.save(None);
                if !starts {
                    self.save(None);
                }
            }
            Step::Cut { after, torn } => self.save(Some((after, torn))),
            Step::Rot { at, bit } if !self.flash.bytes.is_empty() => {
                let at = usize::from(at) % self.flash.bytes.len();
                self.flash.bytes[at] ^= 1 << (bit % 8);
                self.halves[self.half_of(at)].whole = None;
                self.accidents += 1;
            }
            Step::Other { replace } => self.save_another_models(replace),
            Step::Rot { .. } | Step::Load => (),
        }
    }

    fn half_of(&self, at: usize) -> usize {
        // An odd page at the end belongs to neither.
        usize::from(at >= self.flash.bytes.len() / PAGE / 2 * PAGE)
    }

    /// Saves the next record; the power fails at `cut`.
    fn save(&mut self, cut: Option<(u16, u8)>) {
        self.last += 1;
        let record = record(self.last, self.length);
        let before = self.flash.clone();
        self.flash.cut = cut.map(|(after, torn)| {
            (before.operations + usize::from(after), Torn::EACH[usize::from(torn) % Torn::EACH.len()])
        });
        let mut storage = HeadStorage::new(self.flash.clone(), MODEL, MODEL);
        let (first, second) = record.split_at(self.length / 3);
        let result = storage.save(&[first, second], false);
        self.flash = storage.flash().clone();
        let cut = self.flash.cut.is_some_and(|(operation, _)| self.flash.operations > operation);
        self.flash = self.flash.clone().after_power_on();
        let changed = self.changed_since(&before.bytes);
        match result {
            Ok(()) => {
                assert!(!cut, "a save that was cut succeeded");
                assert_ne!(changed, [false; 2], "a save changed nothing");
                self.set(changed, Some(self.last));
                (self.last_whole, self.accidents, self.other) = (Some(self.last), 0, false);
            }
            Err(error) => {
                refusals::storage(&error);
                self.set(changed, None);
                self.accidents += u32::from(changed != [false; 2]);
                match error {
                    StorageError::Driver => assert!(cut, "a driver failed that has power"),
                    StorageError::NotWritten => assert!(self.worn, "what was written is not there"),
                    StorageError::TooSmall { .. }
                    | StorageError::OtherFormat { .. }
                    | StorageError::OtherModel { .. } => {
                        assert_eq!(self.flash.bytes, before.bytes, "{error:?}, and the flash has changed");
                    }
                    error => panic!("{error:?} from a save"),
                }
            }
        }
    }

    fn save_another_models(&mut self, replace: bool) {
        let before = self.flash.bytes.clone();
        let mut storage = HeadStorage::new(self.flash.clone(), !MODEL, !MODEL);
        let result = storage.save(&[&[7; 50]], replace);
        self.flash = storage.flash().clone();
        let changed = self.changed_since(&before);
        if let Err(error) = result {
            refusals::storage(&error);
            assert!(self.worn || changed == [false; 2], "{error:?}, and the flash has changed");
        } else {
            self.other = true;
        }
        self.set(changed, None);
    }

    fn changed_since(&self, before: &[u8]) -> [bool; 2] {
        let middle = before.len() / PAGE / 2 * PAGE;
        let changed = |range: core::ops::Range<usize>| self.flash.bytes[range.clone()] != before[range];
        [changed(0..middle), changed(middle..before.len())]
    }

    fn set(&mut self, halves: [bool; 2], whole: Option<u32>) {
        for (half, _) in self.halves.iter_mut().zip(halves).filter(|(_, changed)| *changed) {
            half.whole = whole;
        }
    }

    /// Checks what a program that starts now loads.
    fn check_load(&mut self) {
        let mut found = vec![0; self.length];
        let mut storage = HeadStorage::new(self.flash.clone(), MODEL, MODEL);
        let result = storage.load(&mut found, |_| true);
        assert!(storage.flash().bytes == self.flash.bytes, "loading wrote");
        let surest = self.halves.iter().filter_map(|half| half.whole).max();
        match result {
            Ok(saved) => {
                let number = found.first_chunk().map_or(0, |number| u32::from_le_bytes(*number));
                assert!((1..=self.last).contains(&number), "record {number} of {} was never saved", self.last);
                assert!(found == record(number, self.length), "what was loaded as record {number} was never saved");
                assert!(surest <= Some(number), "record {surest:?} is there, and {number} was loaded");
                let silent = self.last_whole > Some(number) && saved.lost.is_none();
                assert!(!silent || !self.clear(), "{:?} is lost, which {saved:?} does not say", self.last_whole);
            }
            Err(error) => {
                refusals::storage(&error);
                assert!(surest.is_none() || self.other, "record {surest:?} is there, but {error:?}");
                assert!(self.last_whole.is_none() || !self.clear(), "one accident, and every head is lost: {error:?}");
            }
        }
    }

    /// Whether at most one accident has happened since the last complete save, on a flash without other damage.
    fn clear(&self) -> bool {
        self.accidents <= 1 && !self.worn && !self.other
    }
}

/// A unique record with its save's number and long runs of erased bytes.
fn record(number: u32, length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(number.into());
    let mut bytes: Vec<u8> = (0..length).map(|_| if random.bool() { random.u8(..) } else { 0xff }).collect();
    bytes[..NUMBER].copy_from_slice(&number.to_le_bytes());
    bytes
}

/// Saves with each kind of accident between them.
pub fn seeds() -> Vec<Vec<u8>> {
    let stuck = [vec![], vec![12, 524]];
    let setups = [2, 8, 12].into_iter().flat_map(|pages| {
        [30, 150].into_iter().flat_map(move |length| [(pages, length, false), (pages, length, true)])
    });
    let setups = setups.map(|(pages, length, worn)| Setup { pages, length, stuck: stuck[usize::from(worn)].clone() });
    setups.map(|setup| [encode(&setup), pool().concat()].concat()).collect()
}

fn pool() -> Vec<Vec<u8>> {
    let steps = [
        Step::Save { starts: true },
        Step::Cut { after: 3, torn: 1 },
        Step::Save { starts: false },
        Step::Cut { after: 60, torn: 2 },
        Step::Rot { at: 40, bit: 1 },
        Step::Load,
        Step::Save { starts: true },
        Step::Rot { at: 1500, bit: 7 },
        Step::Other { replace: false },
        Step::Save { starts: true },
        Step::Other { replace: true },
    ];
    steps.iter().map(encode).collect()
}

/// Changes the steps, or any bytes.
pub fn mutate(data: &mut [u8], size: usize, capacity: usize, seed: u32, engine: Mutate<'_>) -> usize {
    mutation::after_setup::<Setup>(data, size, capacity, seed, engine, |steps, random, engine| {
        mutation::steps::<Step>(steps, &pool(), random, engine)
    })
}
