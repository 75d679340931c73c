//! Heads in flash, safe against power cuts: after one at any moment the flash holds the old head or the new one, and one damaged bit loses
//! at most the newest.
//!
//! The flash is two halves, each a [`sequential_storage::queue`] that fills its pages in turn (wear levelling). A save goes to the half
//! that does not hold the newest head, so that head stays untouched. It writes the record in chunks, then a seal with generation, model
//! id, length and CRC-32 of the whole, and reads all back. If a page reads back wrong, as one that a power cut left half erased can, the
//! half is erased and written once more. If the other half then has no head of this model as a fallback, as after the first save or when
//! another model's head is replaced, the same record is written there too.
//!
//! A start also looks for the next generation's seal and first chunk outside of queue items: one damaged bit can hide a page of items.
//!
//! Loading takes the newest generation that has a seal and the right CRC, and that the head accepts. It never writes.

mod hidden;
mod records;
mod staged;

use core::ops::Range;

use embedded_storage::nor_flash::NorFlash;

use crate::frame::CRC32;
use crate::saved_head::{SavedHead, StorageError};
pub(crate) use records::LARGEST_ITEM;
use records::{ChunkHeader, FORMAT, OVERHEAD, SEAL, Seal};
use staged::Staged;

const HEADER: usize = size_of::<ChunkHeader>();

/// The saved heads of one model, and of others with the same head, in a flash that is used for nothing else.
pub struct HeadStorage<F> {
    flash: F,
    model_id: u32,
    head_id: u32,
    /// The newest complete head in each half; an error if the driver failed.
    heads: Result<[Option<Seal>; 2], StorageError>,
    /// The largest generation seen, whether its head is complete or not.
    generation: u32,
    /// A record that arrives in parts.
    staged: Option<Staged>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Half {
    First,
    Second,
}

impl Half {
    const fn other(self) -> Self {
        match self {
            Half::First => Half::Second,
            Half::Second => Half::First,
        }
    }
}

impl<F: NorFlash> HeadStorage<F> {
    /// Bytes of the record in one item.
    const CHUNK: usize = {
        let eighth = (F::ERASE_SIZE - 2 * F::WRITE_SIZE) / 8 - OVERHEAD;
        // In pages of 256 bytes a seal is longer than an eighth.
        let item = if eighth < size_of::<Seal>() { size_of::<Seal>() } else { eighth };
        let item = if item < LARGEST_ITEM { item } else { LARGEST_ITEM };
        assert!(4 % F::READ_SIZE == 0 && 4 % F::WRITE_SIZE == 0, "flash words of more than four bytes");
        assert!(F::ERASE_SIZE >= 256, "flash pages of less than 256 bytes");
        (item - HEADER) / 4 * 4
    };
    const PAGE: u32 = F::ERASE_SIZE as u32;
    const ITEMS_PER_PAGE: usize = (F::ERASE_SIZE - 2 * F::WRITE_SIZE) / (OVERHEAD + HEADER + Self::CHUNK);

    /// The storage in `flash` for heads of the model `model_id`, whose head has the id `head_id`
    /// ([`HeadRecord::id`](nano_core::image::HeadRecord::id)). Scans the flash.
    pub fn new(flash: F, model_id: u32, head_id: u32) -> Self {
        let mut storage = HeadStorage { flash, model_id, head_id, heads: Ok([None; 2]), generation: 0, staged: None };
        storage.heads = storage.look();
        storage
    }

    /// The flash.
    pub fn flash(&self) -> &F {
        &self.flash
    }

    /// The newest head that this model may load: its own, or that of a model with the same head.
    ///
    /// # Errors
    /// [`StorageError::Empty`], [`StorageError::Damaged`], [`StorageError::OtherModel`], [`StorageError::OtherFormat`],
    /// [`StorageError::Driver`].
    pub fn newest(&self) -> Result<SavedHead, StorageError> {
        self.newest_own().map(|(_, seal)| {
            let lost = (self.generation != seal.generation).then_some(self.generation);
            SavedHead { count: seal.generation, lost }
        })
    }

    fn newest_own(&self) -> Result<(Half, Seal), StorageError> {
        match self.newest_of_all()? {
            None if self.generation == 0 => Err(StorageError::Empty),
            None => Err(StorageError::Damaged { count: self.generation }),
            Some((_, seal)) if seal.format != FORMAT => Err(StorageError::OtherFormat { version: seal.format }),
            Some((_, seal)) if seal.head_id != self.head_id => {
                Err(StorageError::OtherModel { model_id: seal.model_id })
            }
            Some(found) => Ok(found),
        }
    }

    fn newest_of_all(&self) -> Result<Option<(Half, Seal)>, StorageError> {
        let [first, second] = self.heads?;
        Ok(match (first, second) {
            (Some(first), Some(second)) if second.generation > first.generation => Some((Half::Second, second)),
            (Some(first), _) => Some((Half::First, first)),
            (None, second) => second.map(|seal| (Half::Second, seal)),
        })
    }

    /// Reads the newest head for which `accepts` is true into `record`. Heads that it refuses count as damaged from then on: a save may
    /// overwrite them.
    ///
    /// # Errors
    /// Those of [`HeadStorage::newest`]; [`StorageError::OtherFormat`] also if the head's length is not that of `record`. The contents of
    /// `record` are then undefined.
    pub fn load(
        &mut self,
        record: &mut [u8],
        mut accepts: impl FnMut(&[u8]) -> bool,
    ) -> Result<SavedHead, StorageError> {
        loop {
            let (half, seal) = self.newest_own()?;
            if seal.length as usize != record.len() {
                return Err(StorageError::OtherFormat { version: seal.format });
            }
            if self.read_record(half, &seal, record)? && accepts(record) {
                return self.newest();
            }
            self.set(half, None);
        }
    }

    /// Saves the record made of `parts`, one after the other. A head of another model is replaced only with `replace`.
    ///
    /// # Errors
    /// [`StorageError::OtherModel`] or [`StorageError::OtherFormat`] without `replace`, [`StorageError::TooSmall`],
    /// [`StorageError::NotWritten`], [`StorageError::Driver`].
    pub fn save(&mut self, parts: &[&[u8]], replace: bool) -> Result<(), StorageError> {
        let (half, mut seal) = self.next(parts.iter().map(|part| part.len()).sum(), replace)?;
        let mut digest = CRC32.digest();
        parts.iter().for_each(|part| digest.update(part));
        seal.checksum = digest.finalize();
        // If it fails, the newest head stays: the other half has not been touched.
        self.save_to(half, parts, &seal)?;
        let falls_back = self.heads?[half.other() as usize].is_some_and(|other| {
            (other.format, other.head_id, other.length) == (seal.format, seal.head_id, seal.length)
        });
        if falls_back { Ok(()) } else { self.save_to(half.other(), parts, &seal) }
    }

    /// The half for the next record, of `length` bytes, and its seal without the CRC.
    fn next(&mut self, length: usize, replace: bool) -> Result<(Half, Seal), StorageError> {
        self.staged = None;
        if self.heads.is_err() {
            self.heads = self.look();
        }
        match self.newest_own() {
            Ok(_) | Err(StorageError::Empty | StorageError::Damaged { .. }) => (),
            Err(StorageError::OtherModel { .. } | StorageError::OtherFormat { .. }) if replace => (),
            Err(error) => return Err(error),
        }
        let chunks = length.div_ceil(Self::CHUNK);
        let needed = 2 * ((chunks + 1).div_ceil(Self::ITEMS_PER_PAGE) + 1) as u32;
        let given = self.pages();
        if given < needed || chunks > u16::MAX.into() {
            return Err(StorageError::TooSmall { needed, given });
        }
        let half = self.newest_of_all()?.map_or(Half::First, |(newest, _)| newest.other());
        self.generation = self.generation.wrapping_add(1);
        let seal = Seal {
            kind: SEAL,
            format: FORMAT,
            chunks: chunks as u16,
            generation: self.generation,
            model_id: self.model_id,
            head_id: self.head_id,
            length: length as u32,
            checksum: 0,
        };
        Ok((half, seal))
    }

    fn save_to(&mut self, half: Half, parts: &[&[u8]], seal: &Seal) -> Result<(), StorageError> {
        self.set(half, None);
        if !self.write(half, parts, seal)? || !self.holds(half, seal)? {
            let Range { start, end } = self.range(half);
            self.flash.erase(start, end).map_err(|_| StorageError::Driver)?;
            if !self.write(half, parts, seal)? || !self.holds(half, seal)? {
                return Err(StorageError::NotWritten);
            }
        }
        self.set(half, Some(*seal));
        Ok(())
    }

    fn set(&mut self, half: Half, head: Option<Seal>) {
        if let Ok(heads) = &mut self.heads {
            heads[half as usize] = head;
        }
    }

    /// Finds the newest complete head in each half.
    fn look(&mut self) -> Result<[Option<Seal>; 2], StorageError> {
        let heads = [self.newest_whole(Half::First)?, self.newest_whole(Half::Second)?];
        for half in [Half::First, Half::Second] {
            if self.hides_a_save(half)? {
                self.generation = self.generation.wrapping_add(1);
                break;
            }
        }
        Ok(heads)
    }

    fn newest_whole(&mut self, half: Half) -> Result<Option<Seal>, StorageError> {
        // Fast path: the queue takes 900 instructions for a page, even for one without items.
        if self.is_erased(half)? {
            return Ok(None);
        }
        // Seals from the newest to the oldest, until one has all its chunks.
        let mut below = u32::MAX;
        while let Some(seal) = self.newest_seal(half, below)? {
            // A head of another format version cannot be checked, and is kept.
            if seal.format != FORMAT || self.holds(half, &seal)? {
                return Ok(Some(seal));
            }
            below = seal.generation;
        }
        Ok(None)
    }

    fn is_erased(&mut self, half: Half) -> Result<bool, StorageError> {
        for page in self.range(half).step_by(F::ERASE_SIZE) {
            if self.is_written(page)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn pages(&self) -> u32 {
        self.flash.capacity() as u32 / Self::PAGE / 2 * 2
    }

    fn range(&self, half: Half) -> Range<u32> {
        let length = self.pages() / 2 * Self::PAGE;
        match half {
            Half::First => 0..length,
            Half::Second => length..2 * length,
        }
    }
}
