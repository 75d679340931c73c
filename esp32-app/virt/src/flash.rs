//! The board's second flash bank. QEMU keeps it in a file (`torch_nano.device.transport.qemu`), so its contents outlive the emulator, as a chip's
//! outlive a power cut.
//!
//! The bank has two Intel-style (CFI) chips of 16 bits in parallel; each command goes to both. QEMU's chips erase 256 KiB at once, and programming
//! can also set bits. To match the flash of real boards, programming here only clears bits, and a page of 4 KiB is erased by programming ones.

use core::ops::Range;

use embedded_storage::nor_flash::{
    ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash, check_erase, check_read, check_write,
};
use torch_nano_device::MappedFlash;

const START: *mut u32 = 0x2200_0000 as *mut u32;
const PAGE: usize = 4096;
/// The parts of the bank's 32 MiB: for heads, and for updates of the model.
const HEADS: Range<usize> = 0..256 * PAGE;
const SLOTS: Range<usize> = 256 * PAGE..8192 * PAGE;
const WORD: usize = 4;

const READ_ARRAY: u32 = 0x00ff_00ff;
const PROGRAM: u32 = 0x0040_0040;
const ERASED: u32 = 0xffff_ffff;

/// A part of the flash. There is one of each: create it once.
pub struct Flash(Range<usize>);

/// A request that is out of bounds, or not aligned to words or pages.
#[derive(Debug)]
pub struct Outside(NorFlashErrorKind);

impl NorFlashError for Outside {
    fn kind(&self) -> NorFlashErrorKind {
        self.0
    }
}

/// A word of the flash.
struct Word(*mut u32);

impl Word {
    fn read(&self) -> u32 {
        // SAFETY: a word of the flash bank, which nothing else uses.
        unsafe { self.0.read_volatile() }
    }

    fn write(&self, word: u32) {
        // SAFETY: a word of the flash bank, which nothing else uses; the written word is a command or its data.
        unsafe { self.0.write_volatile(word) }
    }

    fn program(&self, word: u32) {
        // QEMU takes far longer for this than for a look.
        if self.read() != word {
            self.write(PROGRAM);
            self.write(word);
            self.write(READ_ARRAY);
        }
    }
}

impl Flash {
    /// The part for heads.
    pub fn heads() -> Self {
        Flash(HEADS)
    }

    /// The part for updates of the model.
    pub fn slots() -> Self {
        Flash(SLOTS)
    }

    /// The words from a byte offset to the end.
    fn words(&self, offset: u32) -> impl Iterator<Item = Word> {
        (self.0.start + offset as usize..self.0.end).step_by(WORD).map(|place| Word(START.wrapping_byte_add(place)))
    }

    /// The bytes of the part for updates in this range, in memory.
    pub fn update(range: Range<u32>) -> &'static [u8] {
        let start = START.wrapping_byte_add(SLOTS.start + range.start as usize);
        // SAFETY: inside the bank (`ImageSlots` makes no other range), which is readable whenever no function of this module runs. Nothing writes to the image
        // that runs, and other borrows end before the next write.
        unsafe { core::slice::from_raw_parts(start.cast(), range.len()) }
    }
}

impl MappedFlash for Flash {
    fn mapped(&self, range: Range<u32>) -> &[u8] {
        Flash::update(range)
    }
}

impl ErrorType for Flash {
    type Error = Outside;
}

impl ReadNorFlash for Flash {
    const READ_SIZE: usize = WORD;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Outside> {
        check_read(self, offset, bytes.len()).map_err(Outside)?;
        for (bytes, word) in bytes.as_chunks_mut().0.iter_mut().zip(self.words(offset)) {
            *bytes = word.read().to_le_bytes();
        }
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.0.len()
    }
}

impl NorFlash for Flash {
    const WRITE_SIZE: usize = WORD;
    const ERASE_SIZE: usize = PAGE;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), Outside> {
        check_erase(self, from, to).map_err(Outside)?;
        self.words(from).take((to - from) as usize / WORD).for_each(|word| word.program(ERASED));
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Outside> {
        check_write(self, offset, bytes.len()).map_err(Outside)?;
        for (&bytes, word) in bytes.as_chunks().0.iter().zip(self.words(offset)) {
            word.program(u32::from_le_bytes(bytes) & word.read());
        }
        Ok(())
    }
}
