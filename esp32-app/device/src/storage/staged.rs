//! Records read and written part by part, for heads that are in RAM only once.

use crc::{Digest, NoTable};
use embedded_storage::nor_flash::NorFlash;
use zerocopy::IntoBytes;

use super::records::{CHUNK, ChunkHeader, FORMAT, LARGEST_ITEM, Seal};
use super::{HEADER, Half, HeadStorage};
use crate::frame::CRC32;
use crate::saved_head::StorageError;

/// A record that arrives in parts; without a seal it is no head yet.
pub(super) struct Staged {
    half: Half,
    seal: Seal,
    /// Chunks written.
    chunks: u16,
    /// Bytes of the next chunk in the buffer.
    waiting: usize,
    digest: Digest<'static, u32, NoTable>,
}

impl<F: NorFlash> HeadStorage<F> {
    /// Calls `see` with each part of the record that was saved as number `count`, and its offset. Returns whether the flash holds that record, whole and
    /// of `length` bytes; if not, there was no call.
    ///
    /// # Errors
    /// [`StorageError::Driver`]; there may have been calls.
    pub(crate) fn read_saved(
        &mut self,
        count: u32,
        length: usize,
        see: impl FnMut(usize, &[u8]),
    ) -> Result<bool, StorageError> {
        let Some((half, seal)) = self.saved(count)? else { return Ok(false) };
        if seal.length as usize != length || !self.holds(half, &seal)? {
            return Ok(false);
        }
        self.each_chunk(half, &seal, see)?;
        Ok(true)
    }

    /// Where the record saved as number `count` is, of this model's head.
    fn saved(&self, count: u32) -> Result<Option<(Half, Seal)>, StorageError> {
        let [first, second] = self.heads?;
        let both = [(Half::First, first), (Half::Second, second)];
        let found =
            both.into_iter().find_map(|(half, seal)| Some((half, seal.filter(|seal| seal.generation == count)?)));
        Ok(found.filter(|(_, seal)| (seal.format, seal.head_id) == (FORMAT, self.head_id)))
    }

    /// Counts the record saved as number `count` as damaged: a save may overwrite it.
    pub(crate) fn refuse(&mut self, count: u32) {
        while let Ok(Some((half, _))) = self.saved(count) {
            self.set(half, None);
        }
    }

    /// Begins a record of `length` bytes, which takes the place of the older one.
    ///
    /// # Errors
    /// Those of [`HeadStorage::save`] without `replace`.
    pub(crate) fn begin(&mut self, length: usize) -> Result<(), StorageError> {
        let (half, seal) = self.next(length, false)?;
        self.set(half, None);
        self.staged = Some(Staged { half, seal, chunks: 0, waiting: 0, digest: CRC32.digest() });
        Ok(())
    }

    /// Appends `bytes` to the record that has begun; `buffer`, of [`LARGEST_ITEM`] bytes, holds between the calls what does not fill a chunk.
    ///
    /// # Errors
    /// [`StorageError::NotWritten`], also if no record has begun, or another save has ended it; [`StorageError::Driver`].
    pub(crate) fn append(&mut self, mut bytes: &[u8], buffer: &mut [u8]) -> Result<(), StorageError> {
        let mut staged = self.staged.take().ok_or(StorageError::NotWritten)?;
        staged.digest.update(bytes);
        while !bytes.is_empty() {
            let place = buffer.get_mut(HEADER + staged.waiting..HEADER + Self::CHUNK).unwrap_or_default();
            let (now, later) = bytes.split_at(place.len().min(bytes.len()));
            place.iter_mut().zip(now).for_each(|(place, &byte)| *place = byte);
            staged.waiting += now.len();
            bytes = later;
            if staged.waiting == Self::CHUNK {
                self.write_waiting(&mut staged, buffer)?;
            }
            if now.is_empty() {
                return Err(StorageError::NotWritten);
            }
        }
        self.staged = Some(staged);
        Ok(())
    }

    /// CRC-32 of what was appended.
    pub(crate) fn staged_checksum(&self) -> Option<u32> {
        self.staged.as_ref().map(|staged| staged.digest.clone().finalize())
    }

    /// Ends the record that has begun, and seals it: from here on it is the newest head. Returns its number.
    ///
    /// # Errors
    /// Those of [`HeadStorage::append`]; the flash then holds the heads that it held before it began, without the older one.
    pub(crate) fn seal(&mut self, buffer: &mut [u8]) -> Result<u32, StorageError> {
        let mut staged = self.staged.take().ok_or(StorageError::NotWritten)?;
        if staged.waiting > 0 {
            self.write_waiting(&mut staged, buffer)?;
        }
        let Staged { half, mut seal, digest, .. } = staged;
        seal.checksum = digest.finalize();
        if !self.push(half, seal.as_bytes())? || !self.holds(half, &seal)? {
            return Err(StorageError::NotWritten);
        }
        self.set(half, Some(seal));
        Ok(seal.generation)
    }

    fn write_waiting(&mut self, staged: &mut Staged, buffer: &mut [u8]) -> Result<(), StorageError> {
        let generation = staged.seal.generation;
        let header = ChunkHeader { kind: CHUNK, format: FORMAT, index: staged.chunks, generation };
        buffer.iter_mut().zip(header.as_bytes()).for_each(|(place, &byte)| *place = byte);
        let item = buffer.get(..HEADER + staged.waiting).ok_or(StorageError::NotWritten)?;
        if !self.push(staged.half, item)? {
            return Err(StorageError::NotWritten);
        }
        (staged.chunks, staged.waiting) = (staged.chunks + 1, 0);
        Ok(())
    }
}

const _: () = assert!(HEADER < LARGEST_ITEM);
