//! What a half of the flash holds: the chunks of a record, and after them its seal.

use core::ops::Range;

use embassy_futures::block_on;
use embedded_storage::nor_flash::NorFlash;
use sequential_storage::cache::{Cache, CacheImpl};
use sequential_storage::queue::{QueueConfig, QueueStorage};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Half, HeadStorage};
use crate::flash::{Access, AsyncFlash};
use crate::frame::CRC32;
use crate::saved_head::StorageError;

/// Version of what is stored; raised whenever an older reader would misread it.
pub(super) const FORMAT: u8 = 2;
/// The largest item in bytes: eight of them fill a page of 4 KiB.
pub(crate) const LARGEST_ITEM: usize = 500;
/// Bytes that `sequential-storage` adds to an item.
pub(super) const OVERHEAD: usize = 8;
pub(super) const CHUNK: u8 = 1;
pub(super) const SEAL: u8 = 2;

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct ChunkHeader {
    pub(super) kind: u8,
    pub(super) format: u8,
    pub(super) index: u16,
    pub(super) generation: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Seal {
    pub(super) kind: u8,
    pub(super) format: u8,
    pub(super) chunks: u16,
    pub(super) generation: u32,
    pub(super) model_id: u32,
    pub(super) head_id: u32,
    pub(super) length: u32,
    pub(super) checksum: u32,
}

/// ESP32's flash is read fastest, and with least stack, to a multiple of four.
#[repr(C, align(4))]
pub(super) struct Buffer(pub(super) [u8; LARGEST_ITEM]);

impl<F: NorFlash> HeadStorage<F> {
    /// Whether the queue has written to a page since it was erased: it marks a page, with more than one bit, before it writes to it.
    pub(super) fn is_written(&mut self, page: u32) -> Result<bool, StorageError> {
        let mut marker = [0; 4];
        self.flash.read(page, &mut marker).map_err(|_| StorageError::Driver)?;
        Ok(marker != [0xff; 4])
    }

    /// The newest seal of a generation below `below`, of a head of any model. Takes note of the largest generation in the half.
    pub(super) fn newest_seal(&mut self, half: Half, below: u32) -> Result<Option<Seal>, StorageError> {
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
    pub(super) fn holds(&mut self, half: Half, seal: &Seal) -> Result<bool, StorageError> {
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

    /// Reads the record of a seal; returns whether it is complete and its CRC is right.
    pub(super) fn read_record(&mut self, half: Half, seal: &Seal, record: &mut [u8]) -> Result<bool, StorageError> {
        self.each_chunk(half, seal, |offset, bytes| {
            if let Some(place) = record.get_mut(offset..).and_then(|rest| rest.get_mut(..bytes.len())) {
                place.copy_from_slice(bytes);
            }
        })?;
        Ok(CRC32.checksum(record) == seal.checksum)
    }

    /// Calls `see` with each part of a seal's record and its offset.
    pub(super) fn each_chunk(
        &mut self,
        half: Half,
        seal: &Seal,
        mut see: impl FnMut(usize, &[u8]),
    ) -> Result<(), StorageError> {
        let range = self.range(half);
        let look = |item: &[u8]| {
            if let Ok((header, bytes)) = ChunkHeader::read_from_prefix(item)
                && (header.kind, header.generation) == (CHUNK, seal.generation)
            {
                see(usize::from(header.index) * Self::CHUNK, bytes);
            }
        };
        read(&mut self.flash, range, look).map(|_| ())
    }

    /// Writes a record and its seal; returns whether the queue accepted all of it.
    pub(super) fn write(&mut self, half: Half, parts: &[&[u8]], seal: &Seal) -> Result<bool, StorageError> {
        let Some(mut queue) = self.queue(half) else { return Ok(false) };
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

    /// Writes an item; returns whether the queue accepted it.
    pub(super) fn push(&mut self, half: Half, item: &[u8]) -> Result<bool, StorageError> {
        let Some(mut queue) = self.queue(half) else { return Ok(false) };
        done(block_on(queue.push(item, true)))
    }

    /// A half as a queue that is written; none if it is too small for one.
    fn queue(&mut self, half: Half) -> Option<QueueStorage<AsyncFlash<'_, F>, impl CacheImpl<()>>> {
        let config = QueueConfig::try_new(self.range(half)).ok()?;
        let flash = AsyncFlash { flash: &mut self.flash, access: Access::Write };
        Some(QueueStorage::new(flash, config, Cache::new_uncached()))
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
