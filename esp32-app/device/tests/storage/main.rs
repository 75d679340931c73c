//! Heads in flash: the power fails at every operation, words and pages are torn, the flash is full, worn out, or holds another's head.

mod nor;

use nor::{Nor, Torn};
use torch_nano_device::{HeadStorage, NoFlash, StorageError};

const MODEL: u32 = 0x1234_5678;

/// A record like no other, which says which save it belongs to.
fn record(save: u64, length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(save);
    // Long runs of erased bytes are in heads too.
    let mut bytes: Vec<u8> = (0..length).map(|_| if random.bool() { random.u8(..) } else { 0xff }).collect();
    bytes[..8].copy_from_slice(&save.to_le_bytes());
    bytes
}

fn stored<const PAGE: usize>(flash: Nor<PAGE>, length: usize) -> Result<Vec<u8>, StorageError> {
    let mut record = vec![0; length];
    let before = flash.bytes.clone();
    let mut storage = HeadStorage::new(flash, MODEL);
    let result = storage.load(&mut record);
    assert_eq!(storage.flash().bytes, before, "loading wrote");
    result.map(|()| record)
}

fn save<const PAGE: usize>(flash: Nor<PAGE>, record: &[u8]) -> (Nor<PAGE>, Result<(), StorageError>) {
    let mut storage = HeadStorage::new(flash, MODEL);
    let (first, second) = record.split_at(record.len() / 3);
    let result = storage.save(&[first, second], false);
    (storage.flash().clone(), result)
}

/// Saves `saves` heads; at every operation of every save the power fails, in each way a word or page can be torn if `every_way`, else in one
/// of them. Some of the flashes so torn are the ones that are gone on with.
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
                assert!(found == old || found.as_ref() == Ok(&new), "save {number}, operation {operation}, {torn:?}");
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
    let mut storage = HeadStorage::new(Nor::<512>::new(16, 2), MODEL);
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
    let mut other = HeadStorage::new(flash, MODEL + 1);
    assert_eq!(other.newest(), Err(refused));
    assert_eq!(other.load(&mut [0; 100]), Err(refused));
    assert_eq!(other.save(&[&[7; 50]], false), Err(refused));
    assert_eq!(other.flash().bytes, before);
    assert_eq!(stored(other.flash().clone(), 100), Ok(record(1, 100)));
    // On purpose it is replaced; then the first model's is the other.
    other.save(&[&[7; 50]], true).unwrap();
    assert_eq!(stored(other.flash().clone(), 50), Err(StorageError::OtherModel { model_id: MODEL + 1 }));
    let mut found = [0; 50];
    assert_eq!((other.load(&mut found), found), (Ok(()), [7; 50]));
}

#[test]
fn a_flash_that_is_too_small_is_refused_before_it_is_touched() {
    let mut storage = HeadStorage::new(Nor::<512>::new(6, 4), MODEL);
    let refused = Err(StorageError::TooSmall { needed: 8, given: 6 });
    assert_eq!(storage.save(&[&[1; 1000]], false), refused);
    assert_eq!(storage.flash().operations, 0);
    let mut none = HeadStorage::new(NoFlash, MODEL);
    assert_eq!(none.newest(), Err(StorageError::Empty));
    assert_eq!(none.save(&[&[1; 8]], false), Err(StorageError::TooSmall { needed: 4, given: 0 }));
}

#[test]
fn a_worn_out_flash_keeps_the_newest_head_that_it_took() {
    let (mut flash, result) = save(Nor::<512>::new(8, 5), &record(1, 220));
    assert_eq!(result, Ok(()));
    // Of the second half every page has a bit that no erase sets again, and that the first item of a head needs.
    flash.stuck = (4..8).map(|page| page * 512 + 12).collect();
    for number in 2..6 {
        let (after, result) = save(flash, &record(number, 220));
        assert_eq!(result, Err(StorageError::NotWritten));
        assert_eq!(stored(after.clone(), 220), Ok(record(1, 220)));
        flash = after;
    }
}

#[test]
fn bits_that_rot_in_the_newest_head_leave_the_one_before() {
    let (flash, _) = save(Nor::<512>::new(8, 6), &record(1, 220));
    let (flash, _) = save(flash, &record(2, 220));
    let half = flash.bytes.len() / 2;
    for at in (half..half + 360).step_by(4) {
        let mut rotten = flash.clone();
        rotten.bytes[at] ^= 0x10;
        let found = stored(rotten, 220);
        assert!(found == Ok(record(1, 220)) || found == Ok(record(2, 220)), "byte {at}: {found:?}");
    }
}
