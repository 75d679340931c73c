//! Update of the model in place: two slots of a flash for images, of which the device runs one while the other is written.
//!
//! A slot is the image, from its first byte on, and in its last page the [`Seal`] and two marks. An image is sealed after it was read back and
//! accepted, so a slot without a valid seal holds nothing. A sealed image is on trial until [`ImageSlots::confirm`]: its first start sets one mark, the
//! confirmation the other, and an image that was started and not confirmed is never started again. A power cut at any moment leaves the old image or the
//! new one.
//!
//! A head belongs to the image on whose features it has learnt: the flash of heads ([`HeadStorage`](crate::HeadStorage)) keeps the old image's head
//! until a save is told to replace it, the new image starts with its own, and after a fallback the old head is loaded again.

use core::mem::size_of;
use core::ops::Range;

use embedded_storage::nor_flash::NorFlash;
use nano_core::Error;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::frame::CRC32;

/// `SLOT` and a version of this layout.
const MAGIC: u32 = 0x0154_4c53;
/// The mark of a start, and that of the confirmation: words after the seal.
const TRIED: u32 = size_of::<Seal>() as u32;
const CONFIRMED: u32 = TRIED + 4;
const ERASED: u32 = u32::MAX;
/// Bytes read at a time.
const CHUNK: usize = 64;
/// Of an image: its checksum, a word, and the bytes after it, which the checksum covers.
const CHECKSUM: usize = 8;

/// What is sealed in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Seal {
    magic: u32,
    /// One more than that of the image that it replaces.
    count: u32,
    /// Bytes of the image.
    length: u32,
    /// CRC-32 of the words before.
    checksum: u32,
}

impl Seal {
    fn new(count: u32, length: u32) -> Self {
        let seal = Seal { magic: MAGIC, count, length, checksum: 0 };
        Seal { checksum: seal.computed(), ..seal }
    }

    fn computed(&self) -> u32 {
        CRC32.checksum([self.magic, self.count, self.length].as_bytes())
    }

    fn is_valid(&self, room: u32) -> bool {
        self.magic == MAGIC && self.checksum == self.computed() && self.length <= room
    }
}

/// Why an update was refused, or failed. The image that runs, and its slot, are unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum UpdateError {
    /// The image does not fit a slot.
    TooLarge {
        /// Bytes of the image.
        needed: u32,
        /// Bytes that a slot has for it.
        given: u32,
    },
    /// No update was begun.
    NotBegun,
    /// The bytes do not follow those before, are more than the image has, or end within a word before the image does.
    Order {
        /// Bytes written so far, where the next ones belong.
        needed: u32,
        /// Where the given ones begin.
        given: u32,
    },
    /// The image is not complete.
    Incomplete {
        /// Bytes of the image.
        needed: u32,
        /// Bytes written.
        given: u32,
    },
    /// What was written is not what was sent: the link, or the flash, has damaged it.
    Checksum {
        /// CRC-32 in the image.
        stored: u32,
        /// CRC-32 of the bytes in flash.
        computed: u32,
    },
    /// The device cannot run the image.
    Image(Error),
    /// The image that runs is in no slot, or is confirmed already.
    NothingToConfirm,
    /// The flash's driver failed.
    Driver,
}

/// An image in a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct StoredImage {
    /// Its bytes in the flash. A board reads them where its memory shows that flash.
    pub range: Range<u32>,
    /// One more than that of the image that it replaces, 1 for the first.
    pub count: u32,
    /// Whether this start is its first: unless it is [confirmed](ImageSlots::confirm), the next start takes the image before.
    pub trial: bool,
}

/// An update that has begun.
#[derive(Clone, Copy)]
struct Writing {
    slot: usize,
    length: u32,
    written: u32,
}

/// Two slots for images, in a flash that is used for nothing else.
///
/// A board calls [`ImageSlots::start`] once, and runs what it returns, or the image of its program if that is `None`. An update is
/// [`begin`](ImageSlots::begin), [`write`](ImageSlots::write) and [`finish`](ImageSlots::finish); then the board starts again, and
/// [confirms](ImageSlots::confirm) the image once it serves.
pub struct ImageSlots<F> {
    flash: F,
    /// The slot whose image runs.
    running: Option<usize>,
    writing: Option<Writing>,
}

impl<F: NorFlash> ImageSlots<F> {
    const PAGE: u32 = {
        assert!(4 % F::READ_SIZE == 0 && 4 % F::WRITE_SIZE == 0, "flash words of more than four bytes");
        assert!(F::ERASE_SIZE > CONFIRMED as usize, "flash pages without room for a seal");
        F::ERASE_SIZE as u32
    };

    /// The slots in `flash`, the halves of its pages.
    pub fn new(flash: F) -> Self {
        ImageSlots { flash, running: None, writing: None }
    }

    /// The flash.
    pub fn flash(&self) -> &F {
        &self.flash
    }

    /// Bytes that a slot has for an image.
    pub fn room(&self) -> u32 {
        self.slot_length().saturating_sub(Self::PAGE)
    }

    fn slot_length(&self) -> u32 {
        self.flash.capacity() as u32 / Self::PAGE / 2 * Self::PAGE
    }

    fn seal_place(&self, slot: usize) -> u32 {
        slot as u32 * self.slot_length() + self.room()
    }

    /// The newest image that may run and that `accepts` takes: it is given the image's bytes in flash, and loads them. Marks the first start of an image.
    ///
    /// # Errors
    /// [`UpdateError::Driver`].
    pub fn start(&mut self, mut accepts: impl FnMut(Range<u32>) -> bool) -> Result<Option<StoredImage>, UpdateError> {
        let mut slots = [(0, self.seal(0)?), (1, self.seal(1)?)];
        slots.sort_unstable_by_key(|(_, seal)| core::cmp::Reverse(seal.map(|seal| seal.count)));
        for (slot, seal) in slots {
            let Some(seal) = seal else { continue };
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
            if accepts(range.clone()) {
                self.running = Some(slot);
                return Ok(Some(StoredImage { range, count: seal.count, trial: !confirmed }));
            }
        }
        Ok(None)
    }

    /// Confirms the image that runs: from now on it is started.
    ///
    /// # Errors
    /// [`UpdateError::NothingToConfirm`], [`UpdateError::Driver`].
    pub fn confirm(&mut self) -> Result<(), UpdateError> {
        let place = self.seal_place(self.running.ok_or(UpdateError::NothingToConfirm)?) + CONFIRMED;
        if self.word(place)? == 0 {
            return Err(UpdateError::NothingToConfirm);
        }
        self.program(place, &[0; 4])
    }

    /// Begins an update by an image of `length` bytes, in the slot that does not run; what that held is gone. It ends an update that was not finished.
    ///
    /// # Errors
    /// [`UpdateError::TooLarge`], and that slot is unchanged; [`UpdateError::Driver`].
    pub fn begin(&mut self, length: u32) -> Result<(), UpdateError> {
        self.writing = None;
        let room = self.room();
        if length > room {
            return Err(UpdateError::TooLarge { needed: length, given: room });
        }
        let slot = match self.running {
            Some(running) => 1 - running,
            // The program's own image runs: the newest update stays until it is replaced by its successor.
            None => usize::from(self.seal(0)?.map(|seal| seal.count) > self.seal(1)?.map(|seal| seal.count)),
        };
        // The seal first: from here on the slot holds nothing.
        let (begin, seal) = (slot as u32 * self.slot_length(), self.seal_place(slot));
        self.erase(seal..seal + Self::PAGE)?;
        self.erase(begin..begin + length.next_multiple_of(Self::PAGE))?;
        self.writing = Some(Writing { slot, length, written: 0 });
        Ok(())
    }

    /// Writes the next bytes of the image: whole words, but at its end.
    ///
    /// # Errors
    /// [`UpdateError::NotBegun`]; [`UpdateError::Order`]; [`UpdateError::Driver`], which ends the update.
    pub fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), UpdateError> {
        let Writing { slot, length, written } = self.writing.ok_or(UpdateError::NotBegun)?;
        let order = UpdateError::Order { needed: written, given: offset };
        let end = u32::try_from(bytes.len()).ok().and_then(|count| offset.checked_add(count)).ok_or(order)?;
        if offset != written || end > length || (end < length && !end.is_multiple_of(4)) {
            return Err(order);
        }
        self.writing = None;
        let place = slot as u32 * self.slot_length() + offset;
        let (words, rest) = bytes.as_chunks::<4>();
        self.program(place, words.as_flattened())?;
        if !rest.is_empty() {
            let mut last = [0xff; 4];
            last.iter_mut().zip(rest).for_each(|(place, &byte)| *place = byte);
            self.program(place + words.as_flattened().len() as u32, &last)?;
        }
        self.writing = Some(Writing { slot, length, written: end });
        Ok(())
    }

    /// Finishes the update: reads the image back, compares its checksum, has the device check it, and seals it. The next start runs it. Returns
    /// [`StoredImage::count`].
    ///
    /// `check` is given the image's bytes in flash: it loads them with the program's kernels, and compares the RAM that they need with what there is.
    ///
    /// # Errors
    /// [`UpdateError::NotBegun`], [`UpdateError::Incomplete`], [`UpdateError::Checksum`], [`UpdateError::Image`], [`UpdateError::Driver`].
    pub fn finish(&mut self, check: impl FnOnce(Range<u32>) -> Result<(), Error>) -> Result<u32, UpdateError> {
        let Writing { slot, length, written } = self.writing.ok_or(UpdateError::NotBegun)?;
        if written != length {
            return Err(UpdateError::Incomplete { needed: length, given: written });
        }
        self.writing = None;
        let begin = slot as u32 * self.slot_length();
        let (stored, computed) = self.checksums(begin, length)?;
        if stored != computed {
            return Err(UpdateError::Checksum { stored, computed });
        }
        check(begin..begin + length).map_err(UpdateError::Image)?;
        let count = |seal: Option<Seal>| seal.map_or(0, |seal| seal.count);
        let count = count(self.seal(0)?).max(count(self.seal(1)?)).wrapping_add(1);
        self.program(self.seal_place(slot), Seal::new(count, length).as_bytes())?;
        Ok(count)
    }

    /// The checksum in the image that begins at `begin`, and the one of its bytes.
    fn checksums(&mut self, begin: u32, length: u32) -> Result<(u32, u32), UpdateError> {
        let (mut digest, mut stored) = (CRC32.digest(), 0);
        for offset in (0..length).step_by(CHUNK) {
            let mut chunk = [0; CHUNK];
            let count = CHUNK.min((length - offset) as usize);
            let read = chunk.get_mut(..count.next_multiple_of(4)).unwrap_or_default();
            self.flash.read(begin + offset, read).map_err(|_| UpdateError::Driver)?;
            let mut bytes = chunk.get(..count).unwrap_or_default();
            if offset == 0 {
                let (start, rest) = bytes.split_at(bytes.len().min(CHECKSUM + 4));
                stored = start.last_chunk().map_or(0, |&word| u32::from_le_bytes(word));
                bytes = rest;
            }
            digest.update(bytes);
        }
        Ok((stored, digest.finalize()))
    }

    /// The valid seal of a slot.
    fn seal(&mut self, slot: usize) -> Result<Option<Seal>, UpdateError> {
        let mut seal = Seal { magic: 0, count: 0, length: 0, checksum: 0 };
        if self.room() > 0 {
            self.flash.read(self.seal_place(slot), seal.as_mut_bytes()).map_err(|_| UpdateError::Driver)?;
        }
        Ok(Some(seal).filter(|seal| seal.is_valid(self.room())))
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
