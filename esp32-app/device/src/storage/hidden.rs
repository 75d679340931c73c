//! Saves that one damaged bit has hidden.

use embedded_storage::nor_flash::NorFlash;
use zerocopy::FromBytes;

use super::records::{Buffer, CHUNK, ChunkHeader, FORMAT, LARGEST_ITEM, SEAL, Seal};
use super::{Half, HeadStorage};
use crate::saved_head::StorageError;

impl<F: NorFlash> HeadStorage<F> {
    /// Whether a half holds a newer save whose items cannot be read: one damaged bit can hide a page of items, and so all of a small head. One
    /// bit cannot forge both a seal and a chunk.
    pub(super) fn hides_a_save(&mut self, half: Half) -> Result<bool, StorageError> {
        let (mut sealed, mut begun) = (false, false);
        for page in self.range(half).step_by(F::ERASE_SIZE) {
            if self.is_written(page)? {
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
}
