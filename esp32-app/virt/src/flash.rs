//! The board's second flash bank. QEMU keeps it in a file (`torch_nano.device.transport.qemu`), so its contents outlive the emulator, as a chip's
//! outlive a power cut.
//!
//! The bank has two Intel-style (CFI) chips of 16 bits in parallel; each command goes to both. QEMU's chips erase 256 KiB at once, and programming
//! can also set bits. To match the flash of real boards, programming here only clears bits, and a page of 4 KiB is erased by programming ones.

use embedded_storage::nor_flash::{
    ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash, check_erase, check_read, check_write,
};

const START: *mut u32 = 0x2200_0000 as *mut u32;
/// The part of the bank's 32 MiB that is used, in bytes.
const CAPACITY: usize = 256 * PAGE;
const PAGE: usize = 4096;
const WORD: usize = 4;

const READ_ARRAY: u32 = 0x00ff_00ff;
const PROGRAM: u32 = 0x0040_0040;
const ERASED: u32 = 0xffff_ffff;

/// The flash. There is only one: create it once.
pub struct Flash(());

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
        self.write(PROGRAM);
        self.write(word);
        self.write(READ_ARRAY);
    }
}

impl Flash {
    /// The flash in read mode.
    pub fn new() -> Self {
        let flash = Flash(());
        flash.words(0).take(1).for_each(|word| word.write(READ_ARRAY));
        flash
    }

    /// The words from a byte offset to the end.
    fn words(&self, offset: u32) -> impl Iterator<Item = Word> {
        (offset as usize / WORD..CAPACITY / WORD).map(|index| Word(START.wrapping_add(index)))
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
        CAPACITY
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
