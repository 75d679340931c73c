//! The board's second flash bank, which QEMU keeps in a file (`torch_nano.device.transport.qemu`): it survives the emulator, as a chip's survives the power.
//!
//! Two Intel-style (CFI) chips of 16 bits side by side; every command is given to both. QEMU's erase 256 KiB at once, and their programming
//! sets bits, too. Both are unlike the chips on boards: here programming only clears bits, and a page of 4 KiB is erased by programming ones.

use embedded_storage::nor_flash::{
    ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash, check_erase, check_read, check_write,
};

const START: *mut u32 = 0x2200_0000 as *mut u32;
/// Of the bank's 32 MiB.
const CAPACITY: usize = 256 * PAGE;
const PAGE: usize = 4096;
const WORD: usize = 4;

const READ_ARRAY: u32 = 0x00ff_00ff;
const PROGRAM: u32 = 0x0040_0040;
const ERASED: u32 = 0xffff_ffff;

/// The flash. There is one: make it once.
pub struct Flash(());

/// A request that is not of whole words or pages of the flash.
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
        // SAFETY: a word of the flash bank, which nothing else uses; what is written is a command or its data.
        unsafe { self.0.write_volatile(word) }
    }

    fn program(&self, word: u32) {
        self.write(PROGRAM);
        self.write(word);
        self.write(READ_ARRAY);
    }
}

impl Flash {
    /// The flash, ready to be read.
    pub fn new() -> Self {
        let flash = Flash(());
        flash.words(0).take(1).for_each(|word| word.write(READ_ARRAY));
        flash
    }

    /// The words from an offset on.
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
