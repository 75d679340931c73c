//! Update of the model in place: two slots of a flash for images, of which the device runs one while the other is written.
//!
//! A slot is the image, from its first byte on, and in its last page the [`Seal`] and two marks. An image is sealed after it was read back and
//! accepted, so a slot without a valid seal holds nothing. A sealed image is on trial until [`Slots::confirm`]: its first start sets one mark, the
//! confirmation the other, and an image that was started and not confirmed is never started again. A power cut at any moment leaves the old image or the
//! new one.
//!
//! An update is of the program's own image: a program with another one, as after the chip was flashed again, does not start it.
//!
//! A saved head goes on with an image that has the same head ([`HeadRecord::id`](nano_core::image::HeadRecord::id)). The flash of heads
//! ([`HeadStorage`](crate::HeadStorage)) keeps another one until a save is told to replace it, the new image then starts with its own, and after a fallback
//! the old head is loaded again.

use core::mem::size_of;
use core::ops::Range;

use embedded_storage::nor_flash::NorFlash;
use nano_core::Error;
use nano_core::image::Image;
use serde::{Deserialize, Serialize};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::frame::CRC32;
use crate::update_error::UpdateError;

/// `SLOT` and a version of this layout.
const MAGIC: u32 = 0x0254_4c53;
/// The mark of a start, and that of the confirmation: words after the seal.
const TRIED: u32 = size_of::<Seal>() as u32;
const CONFIRMED: u32 = TRIED + 4;
const ERASED: u32 = u32::MAX;

/// What is sealed in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Seal {
    magic: u32,
    /// The id of the program's own image.
    base: u32,
    /// One more than that of the image that it replaces.
    count: u32,
    /// Bytes of the image.
    length: u32,
    /// CRC-32 of the words before.
    checksum: u32,
}

impl Seal {
    fn new(base: u32, count: u32, length: u32) -> Self {
        let seal = Seal { magic: MAGIC, base, count, length, checksum: 0 };
        Seal { checksum: seal.computed(), ..seal }
    }

    fn computed(&self) -> u32 {
        CRC32.checksum([self.magic, self.base, self.count, self.length].as_bytes())
    }

    fn is_valid(&self, base: u32, room: u32) -> bool {
        (self.magic, self.base, self.checksum) == (MAGIC, base, self.computed()) && self.length <= room
    }
}

/// A flash that the program also sees in its memory.
pub trait MappedFlash: NorFlash {
    /// The bytes of this range, as the latest write left them. It starts at a page, inside the flash.
    fn mapped(&self, range: Range<u32>) -> &[u8];
}

/// Bytes that a slot has for an image, in a flash of `capacity` bytes with pages of `page` bytes: half of the pages but the last one, which has the seal.
pub const fn room(capacity: u32, page: u32) -> u32 {
    slot_length(capacity, page).saturating_sub(page)
}

const fn slot_length(capacity: u32, page: u32) -> u32 {
    capacity / page / 2 * page
}

/// What a device tells of its slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct UpdateState {
    /// Bytes that a slot has for an image; 0 on a device that cannot be updated.
    pub room: u32,
    /// [`StoredImage::count`] of the image that runs; 0 for the program's own.
    pub count: u32,
    /// Whether it is on trial: unless it is confirmed, the next start takes the image before.
    pub trial: bool,
}

/// The slots as a [`Device`](crate::Device) uses them: [`ImageSlots`], in the flash of any board. A device has them as an object, so that a program without
/// them does not link their code.
pub trait Slots: Send + Sync {
    /// What a device tells of them.
    fn state(&self) -> UpdateState;

    /// Begins an update by an image of `length` bytes with this id, in the slot that does not run; what that held is gone. Returns the number of bytes that are
    /// there already: those written before, if an update by the same image has begun since the start; another update ends.
    ///
    /// # Errors
    /// [`UpdateError::NoSlots`], [`UpdateError::TooLarge`]; [`UpdateError::Unconfirmed`] while the image that runs is on trial, as the other slot may have the
    /// one before; [`UpdateError::Driver`].
    fn begin(&mut self, length: u32, id: u32) -> Result<u32, UpdateError>;

    /// Writes the next bytes of the image: whole words, but at its end. Erases each page before it writes to it, so that no call takes long. Returns the number
    /// of bytes written so far.
    ///
    /// # Errors
    /// [`UpdateError::NotBegun`]; [`UpdateError::Order`]; [`UpdateError::Driver`], which ends the update.
    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<u32, UpdateError>;

    /// Finishes the update: compares the checksum of the image in memory, has `check` check it, and seals it. The next start runs it. Returns
    /// [`StoredImage::count`].
    ///
    /// # Errors
    /// [`UpdateError::NotBegun`], [`UpdateError::Incomplete`], [`UpdateError::Checksum`], those of `check`, [`UpdateError::Driver`].
    fn finish(&mut self, check: &mut dyn FnMut(&[u8]) -> Result<(), UpdateError>) -> Result<u32, UpdateError>;

    /// Confirms the image that runs: from now on it is started.
    ///
    /// # Errors
    /// [`UpdateError::NothingToConfirm`], [`UpdateError::Driver`].
    fn confirm(&mut self) -> Result<(), UpdateError>;
}

/// An image in a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct StoredImage {
    /// Its bytes in the flash. A board reads them where its memory shows that flash.
    pub range: Range<u32>,
    /// One more than that of the image that it replaces, 1 for the first.
    pub count: u32,
    /// Whether this start is its first: unless it is [confirmed](Slots::confirm), the next start takes the image before.
    pub trial: bool,
}

/// An update that has begun.
#[derive(Clone, Copy)]
struct Writing {
    slot: usize,
    length: u32,
    id: u32,
    written: u32,
}

/// Two slots for images, in a flash that is used for nothing else.
///
/// A board calls [`ImageSlots::start`] once, and runs what it returns, or the image of its program if that is `None`. An update is
/// [`begin`](Slots::begin), [`write`](Slots::write) and [`finish`](Slots::finish); then the board starts again, and [confirms](Slots::confirm) the image once
/// it serves.
pub struct ImageSlots<F> {
    flash: F,
    /// The id of the program's own image.
    base: u32,
    /// The slot whose image runs, and what a device tells of it.
    running: Option<usize>,
    count: u32,
    trial: bool,
    writing: Option<Writing>,
}

impl<F: MappedFlash> ImageSlots<F> {
    const PAGE: u32 = {
        assert!(4 % F::READ_SIZE == 0 && 4 % F::WRITE_SIZE == 0, "flash words of more than four bytes");
        assert!(F::ERASE_SIZE > CONFIRMED as usize, "flash pages without room for a seal");
        F::ERASE_SIZE as u32
    };

    /// The slots in `flash`, the halves of its pages; `base` is the id of the program's own image.
    pub fn new(flash: F, base: u32) -> Self {
        ImageSlots { flash, base, running: None, count: 0, trial: false, writing: None }
    }

    /// The flash.
    pub fn flash(&self) -> &F {
        &self.flash
    }

    /// Bytes that a slot has for an image.
    pub fn room(&self) -> u32 {
        room(self.flash.capacity() as u32, Self::PAGE)
    }

    fn slot_length(&self) -> u32 {
        slot_length(self.flash.capacity() as u32, Self::PAGE)
    }

    fn seal_place(&self, slot: usize) -> u32 {
        slot as u32 * self.slot_length() + self.room()
    }

    /// The newest image that may run and that `accepts` takes, given the image's bytes. Marks the first start of an image.
    ///
    /// # Errors
    /// [`UpdateError::Driver`].
    pub fn start(&mut self, mut accepts: impl FnMut(&[u8]) -> bool) -> Result<Option<StoredImage>, UpdateError> {
        let [first, second] = [self.seal(0)?, self.seal(1)?].map(|seal| seal.map_or(0, |seal| seal.count));
        let order = if second > first { [1, 0] } else { [0, 1] };
        for slot in order {
            let Some(seal) = self.seal(slot)? else { continue };
            let place = self.seal_place(slot);
            let confirmed = self.word(place + CONFIRMED)? == 0;
            if !confirmed {
                if self.word(place + TRIED)? != ERASED {
                    continue;
                }
                // Before it is loaded: an image at which the board stops is tried once.
                self.program(place + TRIED, &[0; 4])?;
            }
            let begin = slot as u32 * self.slot_length();
            let range = begin..begin + seal.length;
            if accepts(self.flash.mapped(range.clone())) {
                (self.running, self.count, self.trial) = (Some(slot), seal.count, !confirmed);
                return Ok(Some(StoredImage { range, count: seal.count, trial: !confirmed }));
            }
        }
        Ok(None)
    }

    /// The valid seal of a slot.
    fn seal(&mut self, slot: usize) -> Result<Option<Seal>, UpdateError> {
        let mut seal = Seal { magic: 0, base: 0, count: 0, length: 0, checksum: 0 };
        if self.room() > 0 {
            self.flash.read(self.seal_place(slot), seal.as_mut_bytes()).map_err(|_| UpdateError::Driver)?;
        }
        Ok(Some(seal).filter(|seal| seal.is_valid(self.base, self.room())))
    }

    fn word(&mut self, place: u32) -> Result<u32, UpdateError> {
        let mut word = [0; 4];
        self.flash.read(place, &mut word).map_err(|_| UpdateError::Driver)?;
        Ok(u32::from_le_bytes(word))
    }

    fn program(&mut self, place: u32, words: &[u8]) -> Result<(), UpdateError> {
        self.flash.write(place, words).map_err(|_| UpdateError::Driver)
    }

    fn erase(&mut self, range: Range<u32>) -> Result<(), UpdateError> {
        self.flash.erase(range.start, range.end).map_err(|_| UpdateError::Driver)
    }
}

impl<F: MappedFlash + Send + Sync> Slots for ImageSlots<F> {
    fn state(&self) -> UpdateState {
        UpdateState { room: self.room(), count: self.count, trial: self.trial }
    }

    fn begin(&mut self, length: u32, id: u32) -> Result<u32, UpdateError> {
        if let Some(writing) = self.writing
            && (writing.length, writing.id) == (length, id)
        {
            return Ok(writing.written);
        }
        self.writing = None;
        let room = self.room();
        if room == 0 {
            return Err(UpdateError::NoSlots);
        }
        if length > room {
            return Err(UpdateError::TooLarge { needed: length, given: room });
        }
        if self.trial {
            return Err(UpdateError::Unconfirmed);
        }
        let slot = match self.running {
            Some(running) => 1 - running,
            // The program's own image runs: the newest update stays until it is replaced by its successor.
            None => usize::from(self.seal(0)?.map(|seal| seal.count) > self.seal(1)?.map(|seal| seal.count)),
        };
        // From here on the slot holds nothing.
        let seal = self.seal_place(slot);
        self.erase(seal..seal + Self::PAGE)?;
        self.writing = Some(Writing { slot, length, id, written: 0 });
        Ok(0)
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<u32, UpdateError> {
        let writing = self.writing.ok_or(UpdateError::NotBegun)?;
        let Writing { slot, length, written, .. } = writing;
        let order = UpdateError::Order { needed: written, given: offset };
        let end = u32::try_from(bytes.len()).ok().and_then(|count| offset.checked_add(count)).ok_or(order)?;
        if offset != written || end > length || (end < length && !end.is_multiple_of(4)) {
            return Err(order);
        }
        self.writing = None;
        let begin = slot as u32 * self.slot_length();
        let pages = offset.next_multiple_of(Self::PAGE)..end.next_multiple_of(Self::PAGE);
        if !pages.is_empty() {
            self.erase(begin + pages.start..begin + pages.end)?;
        }
        let (words, rest) = bytes.as_chunks::<4>();
        self.program(begin + offset, words.as_flattened())?;
        if !rest.is_empty() {
            let mut last = [0xff; 4];
            last.iter_mut().zip(rest).for_each(|(place, &byte)| *place = byte);
            self.program(begin + offset + words.as_flattened().len() as u32, &last)?;
        }
        self.writing = Some(Writing { written: end, ..writing });
        Ok(end)
    }

    fn finish(&mut self, check: &mut dyn FnMut(&[u8]) -> Result<(), UpdateError>) -> Result<u32, UpdateError> {
        let Writing { slot, length, id, written } = self.writing.ok_or(UpdateError::NotBegun)?;
        if written != length {
            return Err(UpdateError::Incomplete { needed: length, given: written });
        }
        self.writing = None;
        let begin = slot as u32 * self.slot_length();
        let image = self.flash.mapped(begin..begin + length);
        match Image::new(image) {
            Ok(image) if image.id() != id => return Err(UpdateError::Checksum { stored: id, computed: image.id() }),
            Err(Error::Checksum { computed, .. }) => return Err(UpdateError::Checksum { stored: id, computed }),
            // What else is wrong, `check` says.
            Ok(_) | Err(_) => {}
        }
        check(image)?;
        let count = |seal: Option<Seal>| seal.map_or(0, |seal| seal.count);
        let count = count(self.seal(0)?).max(count(self.seal(1)?)).wrapping_add(1);
        self.program(self.seal_place(slot), Seal::new(self.base, count, length).as_bytes())?;
        Ok(count)
    }

    fn confirm(&mut self) -> Result<(), UpdateError> {
        let slot = self.running.filter(|_| self.trial).ok_or(UpdateError::NothingToConfirm)?;
        self.program(self.seal_place(slot) + CONFIRMED, &[0; 4])?;
        self.trial = false;
        Ok(())
    }
}
