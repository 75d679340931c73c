//! A part of the flash in memory: pages of 64 KiB, mapped by the MMU between the cache and the flash.
//!
//! **Not tried on a chip.** Registers, addresses and the cache's function are those that esp-storage 0.10.0 uses for the same purpose
//! (`mmu.rs`) and that esp-metadata-generated 0.5.3 has for the chips.

use core::ops::Range;

/// Bytes of a page.
const PAGE: u32 = 0x1_0000;

/// Maps a range of the flash, which begins at a page, after all that is mapped already; returns its address. `None` if too few pages are free, or on a chip
/// whose MMU is not known here.
pub fn map(range: Range<u32>) -> Option<usize> {
    if range.is_empty() || !range.start.is_multiple_of(PAGE) {
        return None;
    }
    let pages = range.start / PAGE..range.end.div_ceil(PAGE);
    let count = pages.len() as u32;
    // Without the last entry, which the bootloader uses.
    let used = (0..table::ENTRIES - 1).rev().find(|&entry| table::is_used(entry)).map_or(0, |last| last + 1);
    if table::ENTRIES.saturating_sub(1 + used) < count {
        return None;
    }
    (used..).zip(pages).for_each(|(entry, page)| table::map(entry, page));
    Some((table::START + used * PAGE) as usize)
}

/// Drops what the cache holds of a mapped part: the flash has changed.
pub fn forget(address: usize, length: usize) {
    table::invalidate(address as u32, (length as u32).next_multiple_of(PAGE));
}

/// Chips with a table of entries in memory.
#[cfg(mmu = "memory")]
mod table {
    use esp_hal::peripherals::MMU_TABLE;

    pub const START: u32 = 0x3c00_0000;
    pub const ENTRIES: u32 = if cfg!(feature = "esp32c2") { 64 } else { 128 };

    pub fn is_used(entry: u32) -> bool {
        !MMU_TABLE::regs().entry(entry as usize).read().invalid().bit()
    }

    pub fn map(entry: u32, page: u32) {
        // SAFETY: any page of the flash may be mapped, and the entry is free.
        MMU_TABLE::regs().entry(entry as usize).write(|w| unsafe { w.paddr().bits(page as u8) }.invalid().clear_bit());
    }

    pub use super::rom::invalidate;
}

/// Chips whose entries are written through an index.
#[cfg(mmu = "indexed")]
mod table {
    use esp_hal::peripherals::SPI0;

    pub const START: u32 = 0x4200_0000;
    pub const ENTRIES: u32 = if cfg!(any(feature = "esp32c6", feature = "esp32h2")) { 256 } else { 512 };

    fn select(entry: u32) {
        // SAFETY: below the number of entries.
        SPI0::regs().mmu_item_index().write(|w| unsafe { w.mmu_item_index().bits(entry) });
    }

    pub fn is_used(entry: u32) -> bool {
        select(entry);
        SPI0::regs().mmu_item_content().read().valid().bit()
    }

    pub fn map(entry: u32, page: u32) {
        select(entry);
        // SAFETY: any page of the flash may be mapped, and the entry is free.
        SPI0::regs().mmu_item_content().write(|w| unsafe { w.paddr().bits(page as u16) }.valid().set_bit());
    }

    pub use super::rom::invalidate;
}

/// Other chips: nothing is mapped, so their models are not updated.
#[cfg(mmu = "unknown")]
mod table {
    pub const START: u32 = 0;
    pub const ENTRIES: u32 = 1;

    pub fn is_used(_: u32) -> bool {
        true
    }

    pub fn map(_: u32, _: u32) {}

    pub fn invalidate(_: u32, _: u32) {}
}

#[cfg(not(mmu = "unknown"))]
mod rom {
    /// Drops the lines of the cache in a range of addresses.
    pub fn invalidate(address: u32, length: u32) {
        unsafe extern "C" {
            fn Cache_Invalidate_Addr(address: u32, size: u32);
        }
        // SAFETY: a function of the chip's ROM; the flash is never written through the cache, so no line is lost.
        unsafe { Cache_Invalidate_Addr(address, length) }
    }
}
