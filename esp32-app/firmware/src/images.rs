//! The flash of updates: a partition that is mapped into memory.

use core::ops::Range;
use core::ptr::with_exposed_provenance;

use embedded_storage::nor_flash::{ErrorType, NorFlash, ReadNorFlash};
use torch_nano_device::MappedFlash;

use crate::mapping;
use crate::partition::{OutOfReach, Partition};

/// The partition of updates; empty where it cannot be mapped.
pub struct Images {
    partition: Partition,
    address: Option<usize>,
}

impl Images {
    /// Maps the partition. There is only one: call this once.
    pub fn new(partition: Partition) -> Self {
        let address = mapping::map(partition.range());
        Images { partition, address }
    }

    /// The bytes of an image that runs: nothing writes to its slot.
    pub fn running(&self, range: Range<u32>) -> &'static [u8] {
        let Some(address) = self.address else { return &[] };
        let start = address + range.start as usize;
        mapping::forget(address, self.capacity());
        // SAFETY: mapped for good, and inside the partition: `ImageSlots` makes no other range.
        unsafe { core::slice::from_raw_parts(with_exposed_provenance(start), range.len()) }
    }
}

impl ErrorType for Images {
    type Error = OutOfReach;
}

impl ReadNorFlash for Images {
    const READ_SIZE: usize = Partition::READ_SIZE;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), OutOfReach> {
        self.partition.read(offset, bytes)
    }

    fn capacity(&self) -> usize {
        self.address.map_or(0, |_| self.partition.capacity())
    }
}

impl NorFlash for Images {
    const WRITE_SIZE: usize = Partition::WRITE_SIZE;
    const ERASE_SIZE: usize = Partition::ERASE_SIZE;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), OutOfReach> {
        self.partition.erase(from, to)
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), OutOfReach> {
        self.partition.write(offset, bytes)
    }
}

impl MappedFlash for Images {
    fn mapped(&self, range: Range<u32>) -> &[u8] {
        self.running(range)
    }
}
