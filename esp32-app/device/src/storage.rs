//! A head in flash: after a power cut at any moment the flash holds the head saved before or the new one.
//!
//! The flash is two halves, each a [`sequential_storage::queue`] that fills its pages in turn, so that they wear evenly. A save goes to the half that does
//! not hold the newest head: whatever becomes of it, that head is not touched. It writes the record in chunks, then a seal with
//! generation, model id, length and CRC-32 of the whole, and reads all back. If that is not what was written (a page half erased by
//! a power cut looked usable), the half is erased and written once more. Loading takes the newest generation that has its seal and
//! whose CRC is right, and never writes.

use core::ops::Range;

use embassy_futures::block_on;
use embedded_storage::nor_flash::NorFlash;
use sequential_storage::cache::Cache;
use sequential_storage::queue::{QueueConfig, QueueStorage};
use serde::{Deserialize, Serialize};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::flash::{Access, Window};
use crate::frame::CRC32;

/// Version of what is stored; raised whenever an older reader would misread it.
const FORMAT: u8 = 1;
/// The most bytes of an item: eight of them fill a page of 4 KiB.
const LARGEST_ITEM: usize = 500;
const HEADER: usize = size_of::<ChunkHeader>();
/// What `sequential-storage` adds to an item.
const OVERHEAD: usize = 8;
const CHUNK: u8 = 1;
const SEAL: u8 = 2;

/// Why nothing was saved or loaded. What the flash held, and the head in RAM, are as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StorageError {
    /// No head is stored.
    Empty,
    /// The newest head stored belongs to another model; it stays until it is replaced on purpose.
    OtherModel {
        /// Id of that model.
        model_id: u32,
    },
    /// The newest head stored is in another format; it stays until it is replaced on purpose.
    OtherFormat {
        /// Its version.
        version: u8,
    },
    /// The head does not fit twice.
    TooSmall {
        /// Pages that the flash needs.
        needed: u32,
        /// Pages that it has.
        given: u32,
    },
    /// What was written cannot be read back: the flash is worn out or broken.
    NotWritten,
    /// The flash's driver failed.
    Driver,
}

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
    length: u32,
    checksum: u32,
}

/// ESP32's flash is read fastest, and with least stack, to a multiple of four.
#[repr(C, align(4))]
struct Buffer([u8; LARGEST_ITEM]);

/// The newest head of one model in a flash, all of which belongs to it.
pub struct HeadStorage<F> {
    flash: F,
    model_id: u32,
    newest: Result<Option<(Half, Seal)>, StorageError>,
    /// The largest generation seen, whole or not.
    generation: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Half {
    First,
    Second,
}

impl<F: NorFlash> HeadStorage<F> {
    /// Bytes of the record in one item.
    const CHUNK: usize = {
        let eighth = (F::ERASE_SIZE - 2 * F::WRITE_SIZE) / 8 - OVERHEAD;
        let item = if eighth < LARGEST_ITEM { eighth } else { LARGEST_ITEM };
        assert!(4 % F::READ_SIZE == 0 && 4 % F::WRITE_SIZE == 0, "flash words of more than four bytes");
        assert!(item >= size_of::<Seal>() && item > HEADER, "flash pages of less than 256 bytes");
        (item - HEADER) / 4 * 4
    };
    const PAGE: u32 = F::ERASE_SIZE as u32;
    const ITEMS_PER_PAGE: usize = (F::ERASE_SIZE - 2 * F::WRITE_SIZE) / (OVERHEAD + HEADER + Self::CHUNK);

    /// The storage in `flash` for heads of the model `model_id`. Reads what is there.
    pub fn new(flash: F, model_id: u32) -> Self {
        let mut storage = HeadStorage { flash, model_id, newest: Ok(None), generation: 0 };
        storage.newest = storage.look();
        storage
    }

    /// The flash.
    pub fn flash(&self) -> &F {
        &self.flash
    }

    /// How often a head was saved in this flash; `None` if none is there that this model may load.
    ///
    /// # Errors
    /// [`StorageError::Empty`], [`StorageError::OtherModel`], [`StorageError::OtherFormat`], [`StorageError::Driver`].
    pub fn newest(&self) -> Result<u32, StorageError> {
        match self.newest? {
            None => Err(StorageError::Empty),
            Some((_, seal)) if seal.format != FORMAT => Err(StorageError::OtherFormat { version: seal.format }),
            Some((_, seal)) if seal.model_id != self.model_id => {
                Err(StorageError::OtherModel { model_id: seal.model_id })
            }
            Some((_, seal)) => Ok(seal.generation),
        }
    }

    /// Reads the newest head into `record`.
    ///
    /// # Errors
    /// Those of [`HeadStorage::newest`]; [`StorageError::OtherFormat`] too if it has not the length of `record`;
    /// [`StorageError::Driver`]. `record` may then hold anything.
    pub fn load(&mut self, record: &mut [u8]) -> Result<(), StorageError> {
        self.newest()?;
        let Some((half, seal)) = self.newest? else { return Err(StorageError::Empty) };
        if seal.length as usize != record.len() {
            return Err(StorageError::OtherFormat { version: seal.format });
        }
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
        if CRC32.checksum(record) == seal.checksum { Ok(()) } else { Err(StorageError::Driver) }
    }

    /// Saves the record that `parts` make up, one behind the other. A head of another model is only replaced if `replace` says so.
    ///
    /// # Errors
    /// [`StorageError::OtherModel`] or [`StorageError::OtherFormat`] without `replace`, [`StorageError::TooSmall`],
    /// [`StorageError::NotWritten`], [`StorageError::Driver`].
    pub fn save(&mut self, parts: &[&[u8]], replace: bool) -> Result<(), StorageError> {
        if self.newest.is_err() {
            self.newest = self.look();
        }
        match self.newest() {
            Ok(_) | Err(StorageError::Empty) => (),
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
        let half = match self.newest? {
            Some((Half::First, _)) => Half::Second,
            _ => Half::First,
        };
        let seal = Seal {
            kind: SEAL,
            format: FORMAT,
            chunks: chunks as u16,
            generation: self.generation.wrapping_add(1),
            model_id: self.model_id,
            length: length as u32,
            checksum: digest.finalize(),
        };
        self.generation = seal.generation;
        // Without success the newest head stays what it was: the other half has not been touched.
        if !self.write(half, parts, &seal)? || !self.holds(half, &seal)? {
            let Range { start, end } = self.range(half);
            self.flash.erase(start, end).map_err(|_| StorageError::Driver)?;
            if !self.write(half, parts, &seal)? || !self.holds(half, &seal)? {
                return Err(StorageError::NotWritten);
            }
        }
        self.newest = Ok(Some((half, seal)));
        Ok(())
    }

    /// Finds the newest head that is whole.
    fn look(&mut self) -> Result<Option<(Half, Seal)>, StorageError> {
        let mut found = None::<(Half, Seal)>;
        for half in [Half::First, Half::Second] {
            // Seals from the newest down, until one has all its chunks.
            let mut below = u32::MAX;
            while let Some(seal) = self.newest_seal(half, below)? {
                // What another version wrote cannot be judged; it is kept.
                if seal.format != FORMAT || self.holds(half, &seal)? {
                    if found.is_none_or(|(_, newest)| newest.generation < seal.generation) {
                        found = Some((half, seal));
                    }
                    break;
                }
                below = seal.generation;
            }
        }
        Ok(found)
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

    /// Whether `half` holds the record of `seal`, as [`HeadStorage::load`] would find it.
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

    /// Whether all was taken.
    fn write(&mut self, half: Half, parts: &[&[u8]], seal: &Seal) -> Result<bool, StorageError> {
        let Ok(config) = QueueConfig::try_new(self.range(half)) else { return Ok(false) };
        let window = Window { flash: &mut self.flash, access: Access::Write };
        let mut queue = QueueStorage::new(window, config, Cache::new_uncached());
        let mut bytes = parts.iter().copied().flatten().copied();
        let mut buffer = Buffer([0; LARGEST_ITEM]);
        for index in 0..seal.chunks {
            let header = ChunkHeader { kind: CHUNK, format: FORMAT, index, generation: seal.generation };
            buffer.0[..HEADER].copy_from_slice(header.as_bytes());
            let mut length = HEADER;
            for byte in bytes.by_ref().take(Self::CHUNK) {
                buffer.0[length] = byte;
                length += 1;
            }
            if !done(block_on(queue.push(&buffer.0[..length], true)))? {
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

/// Shows all items in a half, the oldest first; whether they could be told apart.
fn read<F: NorFlash>(flash: &mut F, range: Range<u32>, mut see: impl FnMut(&[u8])) -> Result<bool, StorageError> {
    let Ok(config) = QueueConfig::try_new(range) else { return Ok(false) };
    let mut queue = QueueStorage::new(Window { flash, access: Access::Look }, config, Cache::new_uncached());
    let mut buffer = Buffer([0; LARGEST_ITEM]);
    done(block_on(async {
        let mut items = queue.iter().await?;
        while let Some(item) = items.next(&mut buffer.0).await? {
            see(&item);
        }
        Ok(())
    }))
}

/// Whether it was done; an error only if the driver failed, not if the flash holds what makes no sense.
fn done<E>(result: Result<(), sequential_storage::Error<E>>) -> Result<bool, StorageError> {
    match result {
        Ok(()) => Ok(true),
        Err(sequential_storage::Error::Storage { .. }) => Err(StorageError::Driver),
        Err(_) => Ok(false),
    }
}
