//! Heads in flash: power cuts at every operation, torn words and pages; flashes that are full, worn out, or hold another model's head.

#[path = "../../../../nano-core/tests/images/builder/mod.rs"]
mod builder;
mod nor;
mod updates;

use nor::{Nor, Torn};
use torch_nano_device::{HeadStorage, NoFlash, SavedHead, StorageError};

const MODEL: u32 = 0x1234_5678;
const HEAD: u32 = 77;

/// A unique record, which names its save.
fn record(save: u64, length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(save);
    // Heads have long runs of erased bytes, too.
    let mut bytes: Vec<u8> = (0..length).map(|_| if random.bool() { random.u8(..) } else { 0xff }).collect();
    bytes[..8].copy_from_slice(&save.to_le_bytes());
    bytes
}

fn stored<const PAGE: usize>(flash: Nor<PAGE>, length: usize) -> Result<Vec<u8>, StorageError> {
    found(flash, length).map(|(record, _)| record)
}

/// The record in a flash, and the number of its save.
fn found<const PAGE: usize>(flash: Nor<PAGE>, length: usize) -> Result<(Vec<u8>, SavedHead), StorageError> {
    let mut record = vec![0; length];
    let before = flash.bytes.clone();
    let mut storage = HeadStorage::new(flash, MODEL, HEAD);
    let result = storage.load(&mut record, |_| true);
    assert_eq!(storage.flash().bytes, before, "loading wrote");
    result.map(|saved| (record, saved))
}

fn save<const PAGE: usize>(flash: Nor<PAGE>, record: &[u8]) -> (Nor<PAGE>, Result<(), StorageError>) {
    let mut storage = HeadStorage::new(flash, MODEL, HEAD);
    let (first, second) = record.split_at(record.len() / 3);
    let result = storage.save(&[first, second], false);
    (storage.flash().clone(), result)
}

/// Saves `saves` heads and cuts the power at every operation of every save: with `every_way` in each way in which a word or page can be torn, else
/// in one. Some of the torn flashes are used for the saves that follow.
fn cut_at_every_operation<const PAGE: usize>(saves: u64, pages: usize, length: usize, every_way: bool) -> usize {
    let mut flash = Nor::<PAGE>::new(pages, 1);
    let mut old = Err(StorageError::Empty);
    let mut cuts = 0;
    for number in 0..saves {
        let new = record(number, length);
        let start = flash.clone().operations;
        let (whole, result) = save(flash.clone(), &new);
        assert_eq!((result, stored(whole.clone(), length)), (Ok(()), Ok(new.clone())), "save {number}");
        let mut random = fastrand::Rng::with_seed(number);
        let goes_on = random.usize(start..whole.operations);
        let mut torn_flash = None;
        for operation in start..whole.operations {
            let one = [random.choice(Torn::EACH).unwrap()];
            for &torn in if every_way { &Torn::EACH[..] } else { &one[..] } {
                let mut cut = flash.clone();
                cut.cut = Some((operation, torn));
                cut.random.seed(random.u64(..));
                let (cut, result) = save(cut, &new);
                assert_eq!(result, Err(StorageError::Driver), "save {number}, operation {operation}, {torn:?}");
                let cut = cut.after_power_on();
                let found = stored(cut.clone(), length);
                // An interrupted first save may leave a trace.
                let none = |found: &Result<_, _>| {
                    matches!(found, Err(StorageError::Empty | StorageError::Damaged { count: 1 }))
                };
                let is_old = if none(&old) { none(&found) } else { found == old };
                assert!(is_old || found.as_ref() == Ok(&new), "save {number}, operation {operation}, {torn:?}");
                cuts += 1;
                if operation == goes_on && random.bool() {
                    torn_flash = Some((cut, found));
                }
            }
        }
        (flash, old) = torn_flash.unwrap_or((whole, Ok(new)));
    }
    cuts
}

#[test]
fn a_power_cut_at_any_operation_of_a_thousand_saves_leaves_the_old_head_or_the_new_one() {
    let cuts = cut_at_every_operation::<512>(1000, 8, 120, false);
    assert!(cuts > 40_000, "{cuts} cuts");
}

#[test]
fn however_a_word_or_page_is_torn_the_old_head_is_there_or_the_new_one() {
    let cuts = cut_at_every_operation::<256>(60, 12, 150, true);
    assert!(cuts > 15_000, "{cuts} cuts");
}

#[test]
fn a_large_head_in_pages_of_four_kilobytes_survives_too() {
    let cuts = cut_at_every_operation::<4096>(2, 10, 11_264, false);
    assert!(cuts > 5_000, "{cuts} cuts");
}

#[test]
fn random_heads_of_any_length_come_back() {
    for seed in 0..200 {
        let mut random = fastrand::Rng::with_seed(seed);
        let new = record(seed, random.usize(8..700));
        let (flash, result) = save(Nor::<512>::new(8, seed), &new);
        assert_eq!((result, stored(flash, new.len())), (Ok(()), Ok(new)), "seed {seed}");
    }
}

#[test]
fn pages_wear_evenly() {
    let mut storage = HeadStorage::new(Nor::<512>::new(16, 2), MODEL, HEAD);
    for number in 0..5000 {
        storage.save(&[&record(number, 220)], false).unwrap();
    }
    let erased = &storage.flash().erased;
    let (least, most) = (erased.iter().min().unwrap(), erased.iter().max().unwrap());
    assert!(most - least <= 1 && *least > 100, "{erased:?}");
}

#[test]
fn a_blank_flash_and_one_full_of_noise_hold_no_head_and_take_one() {
    for seed in 0..200 {
        let mut flash = Nor::<512>::new(8, seed);
        if seed > 0 {
            let mut random = fastrand::Rng::with_seed(seed);
            flash.bytes.iter_mut().for_each(|byte| *byte = random.u8(..));
        }
        assert_eq!(stored(flash.clone(), 100), Err(StorageError::Empty), "seed {seed}");
        let (flash, result) = save(flash, &record(seed, 100));
        assert_eq!((result, stored(flash, 100)), (Ok(()), Ok(record(seed, 100))), "seed {seed}");
    }
}

#[test]
fn a_head_of_another_model_is_refused_and_kept() {
    let (flash, _) = save(Nor::<512>::new(8, 3), &record(1, 100));
    let before = flash.bytes.clone();
    let refused = StorageError::OtherModel { model_id: MODEL };
    let mut other = HeadStorage::new(flash, MODEL + 1, HEAD + 1);
    assert_eq!(other.newest(), Err(refused));
    assert_eq!(other.load(&mut [0; 100], |_| true), Err(refused));
    assert_eq!(other.save(&[&[7; 50]], false), Err(refused));
    assert_eq!(other.flash().bytes, before);
    assert_eq!(stored(other.flash().clone(), 100), Ok(record(1, 100)));
    // With `replace` it is replaced; the first model's head is then another model's.
    other.save(&[&[7; 50]], true).unwrap();
    assert_eq!(stored(other.flash().clone(), 50), Err(StorageError::OtherModel { model_id: MODEL + 1 }));
    let mut found = [0; 50];
    let saved = SavedHead { count: 2, lost: None };
    assert_eq!((other.load(&mut found, |_| true), found), (Ok(saved), [7; 50]));
}

#[test]
fn a_flash_that_is_too_small_is_refused_before_it_is_touched() {
    let mut storage = HeadStorage::new(Nor::<512>::new(6, 4), MODEL, HEAD);
    let refused = Err(StorageError::TooSmall { needed: 8, given: 6 });
    assert_eq!(storage.save(&[&[1; 1000]], false), refused);
    assert_eq!(storage.flash().operations, 0);
    let mut none = HeadStorage::new(NoFlash, MODEL, HEAD);
    assert_eq!(none.newest(), Err(StorageError::Empty));
    assert_eq!(none.save(&[&[1; 8]], false), Err(StorageError::TooSmall { needed: 4, given: 0 }));
}

#[test]
fn a_worn_out_flash_keeps_the_newest_head_that_it_took() {
    let (mut flash, result) = save(Nor::<512>::new(8, 5), &record(1, 220));
    assert_eq!(result, Ok(()));
    // Every page of the second half has a stuck bit, which no erase sets, in the first item of a head.
    flash.stuck = (4..8).map(|page| page * 512 + 12).collect();
    for number in 2..6 {
        let (after, result) = save(flash, &record(number, 220));
        assert_eq!(result, Err(StorageError::NotWritten));
        assert_eq!(stored(after.clone(), 220), Ok(record(1, 220)));
        flash = after;
    }
}

/// Calls `check` with every flash that differs from `flash` in one bit.
fn each_bit_flipped<const PAGE: usize>(flash: &Nor<PAGE>, mut check: impl FnMut(Nor<PAGE>, usize)) {
    for bit in 0..8 * flash.bytes.len() {
        let mut flipped = flash.clone();
        flipped.bytes[bit / 8] ^= 1 << (bit % 8);
        check(flipped, bit);
    }
}

#[test]
fn a_model_with_the_same_head_goes_on_with_what_was_saved() {
    let (flash, _) = save(Nor::<512>::new(8, 3), &record(1, 100));
    let mut updated = HeadStorage::new(flash, MODEL + 1, HEAD);
    let mut head = [0; 100];
    assert_eq!(updated.load(&mut head, |_| true), Ok(SavedHead { count: 1, lost: None }));
    assert_eq!(head[..], record(1, 100));
    updated.save(&[&record(2, 100)], false).unwrap();
    // And the model before with what that has saved.
    assert_eq!(stored(updated.flash().clone(), 100), Ok(record(2, 100)));
    // To another head it is that of the model which has saved it.
    let other = HeadStorage::new(updated.flash().clone(), MODEL, HEAD + 1);
    assert_eq!(other.newest(), Err(StorageError::OtherModel { model_id: MODEL + 1 }));
}

#[test]
fn a_flipped_bit_never_loses_the_only_head() {
    let (flash, result) = save(Nor::<512>::new(8, 6), &record(1, 220));
    assert_eq!(result, Ok(()));
    let newest = Ok((record(1, 220), SavedHead { count: 1, lost: None }));
    each_bit_flipped(&flash, |flipped, bit| assert_eq!(found(flipped, 220), newest, "bit {bit}"));
    // Nor the first head after that of another model, which is not loaded.
    let mut other = HeadStorage::new(flash, MODEL + 1, HEAD + 1);
    other.save(&[&record(2, 220)], true).unwrap();
    each_bit_flipped(other.flash(), |flipped, bit| {
        let mut record_found = [0; 220];
        let saved = HeadStorage::new(flipped, MODEL + 1, HEAD + 1).load(&mut record_found, |_| true);
        assert_eq!(saved, Ok(SavedHead { count: 2, lost: None }), "bit {bit}");
        assert_eq!(record_found[..], record(2, 220), "bit {bit}");
    });
}

#[test]
fn a_flipped_bit_costs_at_most_the_newest_head_and_that_is_said() {
    let (mut flash, _) = save(Nor::<512>::new(8, 6), &record(1, 220));
    for newest in 2..4 {
        flash = save(flash, &record(newest.into(), 220)).0;
        let mut lost = 0;
        each_bit_flipped(&flash, |flipped, bit| {
            let (found, saved) = found(flipped.clone(), 220).unwrap_or_else(|error| panic!("bit {bit}: {error:?}"));
            assert_eq!(found, record(saved.count.into(), 220), "bit {bit}");
            if saved != (SavedHead { count: newest, lost: None }) {
                assert_eq!(saved, SavedHead { count: newest - 1, lost: Some(newest) }, "bit {bit}");
                lost += 1;
                if bit % 32 == 0 {
                    let (flash, result) = save(flipped, &record(99, 220));
                    assert_eq!((result, stored(flash, 220)), (Ok(()), Ok(record(99, 220))), "bit {bit}");
                }
            }
        });
        assert!(lost > 1000, "save {newest}: {lost}");
    }
}

/// One flipped bit can turn the rest of a torn save into an item that covers the rest of its page, and with it a whole small head.
#[test]
fn a_flipped_bit_after_a_torn_save_costs_at_most_the_newest_head_and_that_is_said() {
    const LENGTH: usize = 8;
    for (operation, torn) in (0..8).flat_map(|operation| Torn::EACH.map(|torn| (operation, torn))) {
        let mut flash = Nor::<256>::new(8, 0);
        flash.cut = Some((operation, torn));
        flash = save(flash, &record(1, LENGTH)).0.after_power_on();
        for number in 2..5 {
            flash = save(flash, &record(number, LENGTH)).0;
        }
        let newest = found(flash.clone(), LENGTH).unwrap().1.count;
        // The page that was torn.
        for bit in 0..8 * 256 {
            let mut flipped = flash.clone();
            flipped.bytes[bit / 8] ^= 1 << (bit % 8);
            let (head, saved) = found(flipped, LENGTH).unwrap();
            let whole = (record(4, LENGTH), SavedHead { count: newest, lost: None });
            let before = (record(3, LENGTH), SavedHead { count: newest - 1, lost: Some(newest) });
            let place = format!("operation {operation}, {torn:?}, bit {bit}");
            assert!([whole, before].contains(&(head, saved)), "{place}: {saved:?}, the newest was {newest}");
        }
    }
}

#[test]
fn the_head_before_a_refused_one_is_loaded_and_survives_the_next_save() {
    let (flash, _) = save(Nor::<512>::new(8, 6), &record(1, 220));
    let (flash, _) = save(flash, &record(2, 220));
    let accepts = |found: &[u8]| found[..] != record(2, 220);
    let loaded = |flash: Nor<512>| {
        let (mut found, mut storage) = (vec![0; 220], HeadStorage::new(flash, MODEL, HEAD));
        let saved = storage.load(&mut found, accepts);
        (saved.map(|saved| (found, saved)), storage)
    };
    let (before, mut storage) = loaded(flash.clone());
    assert_eq!(before, Ok((record(1, 220), SavedHead { count: 1, lost: Some(2) })));
    assert_eq!(storage.newest(), Ok(SavedHead { count: 1, lost: Some(2) }));
    storage.save(&[&record(3, 220)], false).unwrap();
    let end = storage.flash().operations;
    assert_eq!(storage.newest(), Ok(SavedHead { count: 3, lost: None }));
    for operation in flash.operations..end {
        for torn in Torn::EACH {
            let mut cut = flash.clone();
            cut.cut = Some((operation, torn));
            let (_, mut storage) = loaded(cut);
            assert_eq!(storage.save(&[&record(3, 220)], false), Err(StorageError::Driver));
            let (found, _) = loaded(storage.flash().clone().after_power_on());
            let (found, _) = found.unwrap_or_else(|error| panic!("operation {operation}, {torn:?}: {error:?}"));
            assert!(found == record(1, 220) || found == record(3, 220), "operation {operation}, {torn:?}");
        }
    }
    // A flash whose heads are all refused is not reported as empty.
    let mut none = HeadStorage::new(flash, MODEL, HEAD);
    assert_eq!(none.load(&mut [0; 220], |_| false), Err(StorageError::Damaged { count: 2 }));
    assert_eq!(none.newest(), Err(StorageError::Damaged { count: 2 }));
    none.save(&[&record(3, 220)], false).unwrap();
    assert_eq!(stored(none.flash().clone(), 220), Ok(record(3, 220)));
}
