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

use core::ops::Range;

use embassy_futures::block_on;
use embedded_storage::nor_flash::NorFlash;
use sequential_storage::cache::Cache;
use sequential_storage::queue::{QueueConfig, QueueStorage};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::flash::{Access, AsyncFlash};
use crate::frame::CRC32;
use crate::saved_head::{SavedHead, StorageError};

/// Version of what is stored; raised whenever an older reader would misread it.
const FORMAT: u8 = 2;
/// The largest item in bytes: eight of them fill a page of 4 KiB.
const LARGEST_ITEM: usize = 500;
const HEADER: usize = size_of::<ChunkHeader>();
/// Bytes that `sequential-storage` adds to an item.
const OVERHEAD: usize = 8;
const CHUNK: u8 = 1;
const SEAL: u8 = 2;

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct ChunkHeader {
    kind: u8,
    format: u8,
    index: u16,
    generation: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Seal {
    kind: u8,
    format: u8,
    chunks: u16,
    generation: u32,
    model_id: u32,
    head_id: u32,
    length: u32,
    checksum: u32,
}

/// ESP32's flash is read fastest, and with least stack, to a multiple of four.
#[repr(C, align(4))]
struct Buffer([u8; LARGEST_ITEM]);

/// The saved heads of one model, and of others with the same head, in a flash that is used for nothing else.
pub struct HeadStorage<F> {
    flash: F,
    model_id: u32,
    head_id: u32,
    /// The newest complete head in each half; an error if the driver failed.
    heads: Result<[Option<Seal>; 2], StorageError>,
    /// The largest generation seen, whether its head is complete or not.
    generation: u32,
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
        let mut storage = HeadStorage { flash, model_id, head_id, heads: Ok([None; 2]), generation: 0 };
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

    /// Reads the record of a seal; returns whether it is complete and its CRC is right.
    fn read_record(&mut self, half: Half, seal: &Seal, record: &mut [u8]) -> Result<bool, StorageError> {
        let range = self.range(half);
        let copy = |item: &[u8]| {
            if let Ok((header, bytes)) = ChunkHeader::read_from_prefix(item)
                && (header.kind, header.generation) == (CHUNK, seal.generation)
                && let Some(place) = record.get_mut(usize::from(header.index) * Self::CHUNK..)
                && let Some(place) = place.get_mut(..bytes.len())
            {
                place.copy_from_slice(bytes);
            }
        };
        read(&mut self.flash, range, copy)?;
        Ok(CRC32.checksum(record) == seal.checksum)
    }

    /// Saves the record made of `parts`, one after the other. A head of another model is replaced only with `replace`.
    ///
    /// # Errors
    /// [`StorageError::OtherModel`] or [`StorageError::OtherFormat`] without `replace`, [`StorageError::TooSmall`],
    /// [`StorageError::NotWritten`], [`StorageError::Driver`].
    pub fn save(&mut self, parts: &[&[u8]], replace: bool) -> Result<(), StorageError> {
        if self.heads.is_err() {
            self.heads = self.look();
        }
        match self.newest_own() {
            Ok(_) | Err(StorageError::Empty | StorageError::Damaged { .. }) => (),
            Err(StorageError::OtherModel { .. } | StorageError::OtherFormat { .. }) if replace => (),
            Err(error) => return Err(error),
        }
        let length = parts.iter().map(|part| part.len()).sum::<usize>();
        let chunks = length.div_ceil(Self::CHUNK);
        let needed = 2 * ((chunks + 1).div_ceil(Self::ITEMS_PER_PAGE) + 1) as u32;
        let given = self.pages();
        if given < needed || chunks > u16::MAX.into() {
            return Err(StorageError::TooSmall { needed, given });
        }
        let mut digest = CRC32.digest();
        parts.iter().for_each(|part| digest.update(part));
        let half = self.newest_of_all()?.map_or(Half::First, |(newest, _)| newest.other());
        let seal = Seal {
            kind: SEAL,
            format: FORMAT,
            chunks: chunks as u16,
            generation: self.generation.wrapping_add(1),
            model_id: self.model_id,
            head_id: self.head_id,
            length: length as u32,
            checksum: digest.finalize(),
        };
        self.generation = seal.generation;
        // If it fails, the newest head stays: the other half has not been touched.
        self.save_to(half, parts, &seal)?;
        let falls_back = self.heads?[half.other() as usize].is_some_and(|other| {
            (other.format, other.head_id, other.length) == (seal.format, seal.head_id, seal.length)
        });
        if falls_back { Ok(()) } else { self.save_to(half.other(), parts, &seal) }
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

    /// Whether a half holds a newer save whose items cannot be read: one damaged bit can hide a page of items, and so all of a small head. One
    /// bit cannot forge both a seal and a chunk.
    fn hides_a_save(&mut self, half: Half) -> Result<bool, StorageError> {
        let (mut sealed, mut begun) = (false, false);
        for page in self.range(half).step_by(F::ERASE_SIZE) {
            let mut marker = [0; 4];
            self.flash.read(page, &mut marker).map_err(|_| StorageError::Driver)?;
            // The queue marks a page, with more than one bit, before it writes to it.
            if marker != [0xff; 4] {
                self.look_outside_items(page, &mut sealed, &mut begun)?;
            }
        }
        Ok(sealed && begun)
    }

    /// Scans every word of a page for a seal and a first chunk of the next generation.
    fn look_outside_items(&mut self, page: u32, sealed: &mut bool, begun: &mut bool) -> Result<(), StorageError> {
        const SEAL_BYTES: usize = size_of::<Seal>();
        let next = self.generation.wrapping_add(1);
        let mut buffer = Buffer([0; LARGEST_ITEM]);
        let (mut offset, end) = (page, page + F::ERASE_SIZE as u32);
        while offset + SEAL_BYTES as u32 <= end {
            let (block, _) = buffer.0.split_at_mut(LARGEST_ITEM.min((end - offset) as usize));
            self.flash.read(offset, block).map_err(|_| StorageError::Driver)?;
            // Fast path: both have the generation in their second word, and hardly any other word equals it.
            let generations = block.as_chunks().0.iter().skip(1).map(|&word| u32::from_le_bytes(word));
            for (index, _) in generations.enumerate().filter(|&(_, generation)| generation == next) {
                let Some(bytes) = block.get(4 * index..).and_then(|rest| rest.get(..SEAL_BYTES)) else { continue };
                if let (Ok(seal), Ok((header, _))) =
                    (Seal::read_from_bytes(bytes), ChunkHeader::read_from_prefix(bytes))
                {
                    *sealed |= (seal.kind, seal.format, seal.head_id) == (SEAL, FORMAT, self.head_id);
                    *begun |= (header.kind, header.format, header.index) == (CHUNK, FORMAT, 0);
                }
            }
            // The next block begins with the first word at which no whole seal fitted into this one.
            offset += (block.len() - SEAL_BYTES) as u32 + 4;
        }
        Ok(())
    }

    fn newest_whole(&mut self, half: Half) -> Result<Option<Seal>, StorageError> {
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

    fn newest_seal(&mut self, half: Half, below: u32) -> Result<Option<Seal>, StorageError> {
        let (mut newest, mut generation) = (None::<Seal>, self.generation);
        let range = self.range(half);
        let look = |item: &[u8]| {
            if let Ok((header, _)) = ChunkHeader::read_from_prefix(item) {
                generation = generation.max(header.generation);
            }
            if let Ok((seal, _)) = Seal::read_from_prefix(item)
                && seal.kind == SEAL
                && seal.generation < below
                && newest.is_none_or(|newest| newest.generation <= seal.generation)
            {
                newest = Some(seal);
            }
        };
        let readable = read(&mut self.flash, range, look)?;
        self.generation = generation;
        Ok(if readable { newest } else { None })
    }

    /// Whether `half` holds the record of `seal`, read as [`HeadStorage::load`] reads it.
    fn holds(&mut self, half: Half, seal: &Seal) -> Result<bool, StorageError> {
        let (mut digest, mut next, mut sealed) = (CRC32.digest(), 0, false);
        let range = self.range(half);
        let look = |item: &[u8]| {
            if let Ok((header, bytes)) = ChunkHeader::read_from_prefix(item)
                && (header.kind, header.index, header.generation) == (CHUNK, next, seal.generation)
            {
                digest.update(bytes);
                next += 1;
            }
            sealed |= Seal::read_from_bytes(item) == Ok(*seal);
        };
        let readable = read(&mut self.flash, range, look)?;
        Ok(readable && sealed && next == seal.chunks && digest.finalize() == seal.checksum)
    }

    /// Writes a record and its seal; returns whether the queue accepted all of it.
    fn write(&mut self, half: Half, parts: &[&[u8]], seal: &Seal) -> Result<bool, StorageError> {
        let Ok(config) = QueueConfig::try_new(self.range(half)) else { return Ok(false) };
        let flash = AsyncFlash { flash: &mut self.flash, access: Access::Write };
        let mut queue = QueueStorage::new(flash, config, Cache::new_uncached());
        let mut bytes = parts.iter().copied().flatten().copied();
        let mut buffer = Buffer([0; LARGEST_ITEM]);
        for index in 0..seal.chunks {
            let header = ChunkHeader { kind: CHUNK, format: FORMAT, index, generation: seal.generation };
            let item = header.as_bytes().iter().copied().chain(bytes.by_ref().take(Self::CHUNK));
            let length = buffer.0.iter_mut().zip(item).map(|(place, byte)| *place = byte).count();
            let (item, _) = buffer.0.split_at(length.min(LARGEST_ITEM));
            if !done(block_on(queue.push(item, true)))? {
                return Ok(false);
            }
        }
        done(block_on(queue.push(seal.as_bytes(), true)))
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

/// Calls `see` with each item in a half, the oldest first; returns whether the queue is readable.
fn read<F: NorFlash>(flash: &mut F, range: Range<u32>, mut see: impl FnMut(&[u8])) -> Result<bool, StorageError> {
    let Ok(config) = QueueConfig::try_new(range) else { return Ok(false) };
    let mut queue = QueueStorage::new(AsyncFlash { flash, access: Access::Look }, config, Cache::new_uncached());
    let mut buffer = Buffer([0; LARGEST_ITEM]);
    let mut see_all = || {
        let mut items = block_on(queue.iter())?;
        while let Some(item) = block_on(items.next(&mut buffer.0))? {
            see(&item);
        }
        Ok(())
    };
    done(see_all())
}

/// Whether an operation succeeded; an error only if the driver failed, not if the flash's contents are invalid.
fn done<E>(result: Result<(), sequential_storage::Error<E>>) -> Result<bool, StorageError> {
    match result {
        Ok(()) => Ok(true),
        Err(sequential_storage::Error::Storage { .. }) => Err(StorageError::Driver),
        Err(_) => Ok(false),
    }
}
