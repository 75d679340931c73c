//! Updates of the model: power cuts at every operation, damage, refusals, trials and fallback; and what becomes of the head.

use std::ops::Range;

use nano_core::image::Image;
use nano_core::{CheckedImage, Error, ops};
use torch_nano_device::{HeadStorage, ImageSlots, StorageError, StoredImage, UpdateError};

use crate::builder::{Aligned, Builder};
use crate::nor::{Nor, Torn};

const PAGE: usize = 256;
/// Pages of the flash: two slots of eight, one of each for the seal.
const PAGES: usize = 16;
const ROOM: u32 = 7 * PAGE as u32;

type Slots = ImageSlots<Nor<PAGE>>;

/// An image, another one for each number, of another length.
fn image(number: u64) -> Vec<u8> {
    let mut net = Builder::new(number);
    let input = net.input([1, 1, 3]);
    let channels = 2 + number as u32 % 5;
    let output = net.fully_connected(input, channels);
    net.output(output);
    net.model.name = format!("model {number}");
    net.image().bytes().to_vec()
}

fn loads(image: &[u8]) -> Result<(), Error> {
    CheckedImage::new(Aligned::new(image).bytes(), ops::ALL).map(|_| ())
}

/// What a start of the board runs, and how often it asked.
fn boot(flash: Nor<PAGE>) -> (Slots, Option<(StoredImage, Vec<u8>)>) {
    let bytes = flash.bytes.clone();
    let at = |range: Range<u32>| bytes[range.start as usize..range.end as usize].to_vec();
    let mut slots = ImageSlots::new(flash.after_power_on());
    let found = slots.start(|range| loads(&at(range)).is_ok()).unwrap();
    let found = found.map(|stored| (stored.clone(), at(stored.range)));
    (slots, found)
}

/// Sends an image in parts.
fn update(slots: &mut Slots, image: &[u8]) -> Result<u32, UpdateError> {
    slots.begin(image.len() as u32)?;
    for (part, offset) in image.chunks(20).zip((0..).step_by(20)) {
        slots.write(offset, part)?;
    }
    let bytes = slots.flash().bytes.clone();
    slots.finish(|range| loads(&bytes[range.start as usize..range.end as usize]))
}

fn running(found: Option<(StoredImage, Vec<u8>)>) -> Option<Vec<u8>> {
    found.map(|(_, image)| image)
}

#[test]
fn an_update_is_tried_then_confirmed_and_alternates_the_slots() {
    let (mut slots, found) = boot(Nor::new(PAGES, 1));
    assert_eq!((found, slots.room()), (None, ROOM));
    assert_eq!(slots.confirm(), Err(UpdateError::NothingToConfirm));
    for number in 1..8 {
        assert_eq!(update(&mut slots, &image(number.into())), Ok(number));
        let found;
        (slots, found) = boot(slots.flash().clone());
        let (stored, bytes) = found.unwrap();
        assert_eq!((stored.count, stored.trial), (number, true));
        assert_eq!(bytes, image(number.into()));
        assert_eq!((slots.confirm(), slots.confirm()), (Ok(()), Err(UpdateError::NothingToConfirm)));
        let found;
        (slots, found) = boot(slots.flash().clone());
        assert_eq!(found.map(|(stored, _)| (stored.count, stored.trial)), Some((number, false)));
    }
}

#[test]
fn an_image_that_was_not_confirmed_is_left_for_the_one_before() {
    let (mut slots, _) = boot(Nor::new(PAGES, 1));
    update(&mut slots, &image(1)).unwrap();
    (slots, _) = boot(slots.flash().clone());
    slots.confirm().unwrap();
    update(&mut slots, &image(2)).unwrap();
    let (slots, found) = boot(slots.flash().clone());
    assert_eq!(running(found), Some(image(2)));
    // The board stops before it confirms; from then on it runs the old image, and can be updated again.
    for _ in 0..3 {
        let (mut slots, found) = boot(slots.flash().clone());
        assert_eq!(running(found), Some(image(1)));
        assert_eq!(update(&mut slots, &image(3)), Ok(2));
        assert_eq!(running(boot(slots.flash().clone()).1), Some(image(3)));
    }
}

#[test]
fn a_power_cut_at_any_operation_leaves_the_old_image_or_the_new_one() {
    let mut flash = Nor::new(PAGES, 1);
    let mut old: Option<Vec<u8>> = None;
    let mut cuts = 0;
    for number in 1..4 {
        let new = image(number);
        // An update, the start on trial, the confirmation, and a start.
        let life = |flash: Nor<PAGE>| -> (Nor<PAGE>, Option<UpdateError>) {
            let mut slots = ImageSlots::new(flash);
            let bytes = slots.flash().bytes.clone();
            let checks =
                |bytes: &[u8], range: Range<u32>| loads(&bytes[range.start as usize..range.end as usize]).is_ok();
            let mut all = || {
                slots.start(|range| checks(&bytes, range))?;
                update(&mut slots, &new)?;
                let (bytes, flash) = (slots.flash().bytes.clone(), slots.flash().clone());
                slots = ImageSlots::new(flash);
                slots.start(|range| checks(&bytes, range))?;
                slots.confirm()
            };
            let failed = all().err();
            (slots.flash().clone(), failed)
        };
        let start = flash.operations;
        let (whole, failed) = life(flash.clone());
        assert_eq!(failed, None);
        for operation in start..whole.operations {
            for torn in Torn::EACH {
                let mut cut = flash.clone();
                cut.cut = Some((operation, torn));
                cut.random.seed(operation as u64);
                let (cut, failed) = life(cut);
                assert_eq!(failed, Some(UpdateError::Driver), "update {number}, operation {operation}, {torn:?}");
                let (mut slots, found) = boot(cut);
                let found = running(found);
                assert!(
                    found == old || found.as_ref() == Some(&new),
                    "update {number}, operation {operation}, {torn:?}"
                );
                // And the next update succeeds.
                update(&mut slots, &image(99)).unwrap();
                assert_eq!(running(boot(slots.flash().clone()).1), Some(image(99)));
                cuts += 1;
            }
        }
        (flash, old) = (whole, Some(new));
    }
    assert!(cuts > 1000, "{cuts} cuts");
}

#[test]
fn what_cannot_run_is_refused_and_the_old_image_stays() {
    let (mut slots, _) = boot(Nor::new(PAGES, 1));
    update(&mut slots, &image(1)).unwrap();
    (slots, _) = boot(slots.flash().clone());
    slots.confirm().unwrap();
    let new = image(2);
    let length = new.len() as u32;

    assert_eq!(slots.begin(ROOM + 1), Err(UpdateError::TooLarge { needed: ROOM + 1, given: ROOM }));
    assert_eq!(slots.write(0, &new), Err(UpdateError::NotBegun));
    assert_eq!(slots.finish(|_| Ok(())), Err(UpdateError::NotBegun));
    slots.begin(length).unwrap();
    assert_eq!(slots.write(4, &new[4..]), Err(UpdateError::Order { needed: 0, given: 4 }));
    assert_eq!(slots.write(0, &new[..6]), Err(UpdateError::Order { needed: 0, given: 0 }));
    slots.write(0, &new[..8]).unwrap();
    assert_eq!(slots.write(8, &vec![0; new.len()]), Err(UpdateError::Order { needed: 8, given: 8 }));
    assert_eq!(slots.finish(|_| Ok(())), Err(UpdateError::Incomplete { needed: length, given: 8 }));
    slots.write(8, &new[8..]).unwrap();
    let too_large = Error::ArenaTooSmall { needed: 2, given: 1 };
    assert_eq!(slots.finish(|_| Err(too_large)), Err(UpdateError::Image(too_large)));
    assert_eq!(slots.finish(|_| Ok(())), Err(UpdateError::NotBegun));

    // A bit that was damaged on the way.
    for byte in [8, 40, new.len() - 1] {
        let mut damaged = new.clone();
        damaged[byte] ^= 1;
        assert!(matches!(update(&mut slots, &damaged), Err(UpdateError::Checksum { .. })), "byte {byte}");
    }
    assert_eq!(running(boot(slots.flash().clone()).1), Some(image(1)));
    // An image that is damaged in flash after it was sealed is not started.
    assert_eq!(update(&mut slots, &new), Ok(2));
    let mut flash = slots.flash().clone();
    let second = flash.bytes.windows(new.len()).position(|bytes| bytes == new).unwrap();
    flash.bytes[second + 50] ^= 1;
    assert_eq!(running(boot(flash).1), Some(image(1)));
}

#[test]
fn a_flash_without_room_holds_no_image() {
    for pages in [0, 1, 2, 3] {
        let mut slots = ImageSlots::new(Nor::<PAGE>::new(pages, 1));
        assert_eq!((slots.start(|_| true), slots.room()), (Ok(None), 0));
        assert_eq!(slots.begin(1), Err(UpdateError::TooLarge { needed: 1, given: 0 }));
    }
}

#[test]
fn a_head_stays_with_its_image_through_an_update_and_a_fallback() {
    let [old, new] = [1, 2].map(|number| Image::new(Aligned::new(&image(number)).bytes()).unwrap().id());
    let mut heads = HeadStorage::new(Nor::<PAGE>::new(8, 1), old);
    heads.save(&[b"what was learnt"], false).unwrap();
    // The new image finds no head of its own, and does not overwrite the old one by itself.
    let mut heads = HeadStorage::new(heads.flash().clone(), new);
    assert_eq!(heads.newest(), Err(StorageError::OtherModel { model_id: old }));
    assert_eq!(heads.save(&[b"other"], false), Err(StorageError::OtherModel { model_id: old }));
    // After a fallback it is there.
    let mut heads = HeadStorage::new(heads.flash().clone(), old);
    let mut head = [0; 15];
    heads.load(&mut head, |_| true).unwrap();
    assert_eq!(&head, b"what was learnt");
}
