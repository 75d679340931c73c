//! The board's second flash bank, which QEMU keeps in a file (`torch_nano.device.qemu`): it survives the emulator, as a chip's survives the power.
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

impl Flash {
    /// The flash, ready to be read.
    pub fn new() -> Self {
        let flash = Flash(());
        flash.write_word(0, READ_ARRAY);
        flash
    }

    fn word(&self, offset: usize) -> *mut u32 {
        assert!(offset < CAPACITY && offset.is_multiple_of(WORD));
        START.wrapping_add(offset / WORD)
    }

    fn read_word(&self, offset: usize) -> u32 {
        // SAFETY: a word of the flash bank, which nothing else uses.
        unsafe { self.word(offset).read_volatile() }
    }

    fn write_word(&self, offset: usize, word: u32) {
        // SAFETY: a word of the flash bank, which nothing else uses; what is written is a command or its data.
        unsafe { self.word(offset).write_volatile(word) }
    }

    fn program(&self, offset: usize, word: u32) {
        self.write_word(offset, PROGRAM);
        self.write_word(offset, word);
        self.write_word(offset, READ_ARRAY);
    }
}

impl ErrorType for Flash {
    type Error = Outside;
}

impl ReadNorFlash for Flash {
    const READ_SIZE: usize = WORD;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Outside> {
        check_read(self, offset, bytes.len()).map_err(Outside)?;
        for (chunk, at) in bytes.chunks_exact_mut(WORD).zip((offset as usize..).step_by(WORD)) {
            chunk.copy_from_slice(&self.read_word(at).to_le_bytes());
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
        for at in (from as usize..to as usize).step_by(WORD) {
            self.program(at, ERASED);
        }
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Outside> {
        check_write(self, offset, bytes.len()).map_err(Outside)?;
        for (chunk, at) in bytes.as_chunks::<WORD>().0.iter().zip((offset as usize..).step_by(WORD)) {
            self.program(at, u32::from_le_bytes(*chunk) & self.read_word(at));
        }
        Ok(())
    }
}
