//! Updates of the model: power cuts at every operation, damage, refusals, trials and fallback.

use nano_core::{CheckedImage, Error, ops};
use torch_nano_device::{ImageSlots, Slots as _, StoredImage, UpdateError, UpdateState};

use crate::builder::{Aligned, Builder};
use crate::nor::{Nor, Torn};

const PAGE: usize = 256;
/// Pages of the flash: two slots of eight, one of each for the seal.
const PAGES: usize = 16;
const ROOM: u32 = 7 * PAGE as u32;
/// The id of the program's own image.
const BASE: u32 = 5;

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

/// The id of an image.
fn id(image: &[u8]) -> u32 {
    u32::from_le_bytes(image[8..12].try_into().unwrap())
}

/// What a start of the board runs.
fn boot(flash: Nor<PAGE>) -> (Slots, Option<(StoredImage, Vec<u8>)>) {
    let bytes = flash.bytes.clone();
    let mut slots = ImageSlots::new(flash.after_power_on(), BASE);
    let found = slots.start(|image| loads(image).is_ok()).unwrap();
    let found = found.map(|stored| {
        let image = bytes[stored.range.start as usize..stored.range.end as usize].to_vec();
        (stored, image)
    });
    (slots, found)
}

/// Sends an image in parts.
fn update(slots: &mut Slots, image: &[u8]) -> Result<u32, UpdateError> {
    announced(slots, image, id(image))
}

/// Sends an image in parts, as that of this id.
fn announced(slots: &mut Slots, image: &[u8], id: u32) -> Result<u32, UpdateError> {
    assert_eq!(slots.begin(image.len() as u32, id)?, 0);
    for (part, offset) in image.chunks(20).zip((0..).step_by(20)) {
        assert_eq!(slots.write(offset, part)? as usize, offset as usize + part.len());
    }
    slots.finish(&mut |image| Ok(loads(image)?))
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
        assert_eq!(slots.state(), UpdateState { room: ROOM, count: number, trial: true });
        // The other slot may hold the only image that is confirmed.
        assert_eq!(slots.begin(4, 1), Err(UpdateError::Unconfirmed));
        assert_eq!((slots.confirm(), slots.confirm()), (Ok(()), Err(UpdateError::NothingToConfirm)));
        assert_eq!(slots.state(), UpdateState { room: ROOM, count: number, trial: false });
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
            let mut slots = ImageSlots::new(flash, BASE);
            let mut all = || {
                slots.start(|image| loads(image).is_ok())?;
                update(&mut slots, &new)?;
                slots = ImageSlots::new(slots.flash().clone(), BASE);
                slots.start(|image| loads(image).is_ok())?;
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
                if slots.state().trial {
                    slots.confirm().unwrap();
                }
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

    assert_eq!(slots.begin(ROOM + 1, 0), Err(UpdateError::TooLarge { needed: ROOM + 1, given: ROOM }));
    assert_eq!(slots.write(0, &new), Err(UpdateError::NotBegun));
    assert_eq!(slots.finish(&mut |_| Ok(())), Err(UpdateError::NotBegun));
    slots.begin(length, id(&new)).unwrap();
    assert_eq!(slots.write(4, &new[4..]), Err(UpdateError::Order { needed: 0, given: 4 }));
    assert_eq!(slots.write(0, &new[..6]), Err(UpdateError::Order { needed: 0, given: 0 }));
    slots.write(0, &new[..8]).unwrap();
    assert_eq!(slots.write(8, &vec![0; new.len()]), Err(UpdateError::Order { needed: 8, given: 8 }));
    assert_eq!(slots.finish(&mut |_| Ok(())), Err(UpdateError::Incomplete { needed: length, given: 8 }));
    slots.write(8, &new[8..]).unwrap();
    let too_large = UpdateError::Ram { needed: 2, given: 1 };
    assert_eq!(slots.finish(&mut |_| Err(too_large)), Err(too_large));
    assert_eq!(slots.finish(&mut |_| Ok(())), Err(UpdateError::NotBegun));

    // A bit that was damaged on the way.
    for byte in [8, 40, new.len() - 1] {
        let mut damaged = new.clone();
        damaged[byte] ^= 1;
        assert!(matches!(update(&mut slots, &damaged), Err(UpdateError::Checksum { .. })), "byte {byte}");
    }
    // Another image than the one that was announced.
    assert!(matches!(announced(&mut slots, &new, id(&new) ^ 1), Err(UpdateError::Checksum { .. })));
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
        let mut slots = ImageSlots::new(Nor::<PAGE>::new(pages, 1), BASE);
        assert_eq!((slots.start(|_| true), slots.room()), (Ok(None), 0));
        assert_eq!(slots.begin(1, 1), Err(UpdateError::NoSlots));
    }
}

#[test]
fn an_update_that_was_interrupted_goes_on_where_it_was() {
    let (mut slots, _) = boot(Nor::new(PAGES, 1));
    let (new, other) = (image(2), image(3));
    let length = new.len() as u32;
    slots.begin(length, id(&new)).unwrap();
    slots.write(0, &new[..300]).unwrap();
    assert_eq!(slots.begin(length, id(&new)), Ok(300));
    slots.write(300, &new[300..]).unwrap();
    assert_eq!(slots.begin(length, id(&new)), Ok(length));
    assert_eq!(slots.finish(&mut |image| Ok(loads(image)?)), Ok(1));
    // Another image starts anew, and so does the same one after a restart.
    let (mut slots, _) = boot(Nor::new(PAGES, 1));
    slots.begin(length, id(&new)).unwrap();
    slots.write(0, &new[..300]).unwrap();
    assert_eq!(update(&mut slots, &other), Ok(1));
    slots.begin(length, id(&new)).unwrap();
    slots.write(0, &new[..300]).unwrap();
    let (mut slots, found) = boot(slots.flash().clone());
    assert_eq!(running(found), Some(other));
    slots.confirm().unwrap();
    assert_eq!(slots.begin(length, id(&new)), Ok(0));
}

#[test]
fn a_program_with_another_image_of_its_own_does_not_start_an_update() {
    let (mut slots, _) = boot(Nor::new(PAGES, 1));
    update(&mut slots, &image(1)).unwrap();
    let mut flashed = ImageSlots::new(slots.flash().clone(), BASE + 1);
    assert_eq!(flashed.start(|_| true), Ok(None));
    let mut again = ImageSlots::new(flashed.flash().clone(), BASE);
    assert_eq!(again.start(|_| true).unwrap().map(|stored| stored.count), Some(1));
}
