//! The flash partition that stores trained heads.

use core::ops::Range;

use embedded_storage::nor_flash::{ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash};
use esp_bootloader_esp_idf::partitions::{PARTITION_TABLE_MAX_LEN, read_partition_table};
use esp_hal::peripherals::FLASH;
use esp_storage::{FlashStorage, FlashStorageError};

/// The partition's name in the partition table (`partitions.csv`).
const LABEL: &str = "heads";

/// The partition's range of the flash. It is empty if the board's partition table has no such partition; heads are then not saved.
pub struct Heads {
    flash: FlashStorage<'static>,
    range: Range<u32>,
}

impl Heads {
    /// Finds the partition. There is only one flash: call this once.
    pub fn new(flash: FLASH<'static>) -> Self {
        let mut flash = FlashStorage::new(flash);
        let mut buffer = [0; PARTITION_TABLE_MAX_LEN];
        let found = read_partition_table(&mut flash, &mut buffer).ok().and_then(|table| {
            let partition = table.iter().find(|partition| partition.label_as_str() == LABEL)?;
            Some(partition.offset()..partition.offset() + partition.len())
        });
        Heads { flash, range: found.unwrap_or(0..0) }
    }

    fn address(&self, offset: u32, length: usize) -> Result<u32, OutOfReach> {
        let end = u64::from(offset) + length as u64;
        if end <= self.range.len() as u64 { Ok(self.range.start + offset) } else { Err(OutOfReach) }
    }
}

/// The flash has refused a request, or the request is outside the partition.
#[derive(Debug)]
pub struct OutOfReach;

impl NorFlashError for OutOfReach {
    fn kind(&self) -> NorFlashErrorKind {
        NorFlashErrorKind::Other
    }
}

impl From<FlashStorageError> for OutOfReach {
    fn from(_: FlashStorageError) -> Self {
        OutOfReach
    }
}

impl ErrorType for Heads {
    type Error = OutOfReach;
}

impl ReadNorFlash for Heads {
    const READ_SIZE: usize = FlashStorage::READ_SIZE;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), OutOfReach> {
        let address = self.address(offset, bytes.len())?;
        Ok(self.flash.read_nor(address, bytes)?)
    }

    fn capacity(&self) -> usize {
        self.range.len()
    }
}

impl NorFlash for Heads {
    const WRITE_SIZE: usize = FlashStorage::WRITE_SIZE;
    const ERASE_SIZE: usize = FlashStorage::ERASE_SIZE;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), OutOfReach> {
        let length = to.checked_sub(from).ok_or(OutOfReach)?;
        let address = self.address(from, length as usize)?;
        Ok(self.flash.erase(address, address + length)?)
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), OutOfReach> {
        let address = self.address(offset, bytes.len())?;
        Ok(self.flash.write_nor(address, bytes)?)
    }
}
