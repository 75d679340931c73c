//! Partitions of the flash.

use core::ops::Range;

use embedded_storage::nor_flash::{ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash};
use esp_bootloader_esp_idf::partitions::{PARTITION_TABLE_MAX_LEN, read_partition_table};
use esp_hal::peripherals::FLASH;
use esp_storage::{FlashStorage, FlashStorageError};

/// The names of the partitions in the partition table (`partitions.csv`): of trained heads, and of updates of the model.
const LABELS: [&str; 2] = ["heads", "images"];

/// A partition's range of the flash. It is empty if the board's partition table has no such partition: nothing is then saved there.
pub struct Partition {
    flash: FlashStorage<'static>,
    range: Range<u32>,
}

impl Partition {
    /// Finds the partitions of heads and of updates. There is only one flash: call this once.
    pub fn heads_and_images(flash: FLASH<'static>) -> [Self; 2] {
        // SAFETY: accesses to the flash do not overlap: there is one thread, and each call of the driver waits for the end of its access.
        let again = unsafe { flash.clone_unchecked() };
        let mut flash = FlashStorage::new(flash);
        let mut buffer = [0; PARTITION_TABLE_MAX_LEN];
        let table = read_partition_table(&mut flash, &mut buffer).ok();
        let ranges = LABELS.map(|label| {
            let partition = table.as_ref()?.iter().find(|partition| partition.label_as_str() == label)?;
            Some(partition.offset()..partition.offset() + partition.len())
        });
        let [heads, images] = ranges.map(Option::unwrap_or_default);
        [Partition { flash, range: heads }, Partition { flash: FlashStorage::new(again), range: images }]
    }

    /// Its range of the flash.
    pub fn range(&self) -> Range<u32> {
        self.range.clone()
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

impl ErrorType for Partition {
    type Error = OutOfReach;
}

impl ReadNorFlash for Partition {
    const READ_SIZE: usize = FlashStorage::READ_SIZE;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), OutOfReach> {
        let address = self.address(offset, bytes.len())?;
        Ok(self.flash.read_nor(address, bytes)?)
    }

    fn capacity(&self) -> usize {
        self.range.len()
    }
}

impl NorFlash for Partition {
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
