//! A NOR flash in memory whose power can be cut at any operation.

use std::ops::Range;

use embedded_storage::nor_flash::{ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash};
use torch_nano_device::MappedFlash;

/// The effect of the operation during which the power fails.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Torn {
    /// Nothing: the power failed before it.
    Nothing,
    /// A random part of the bits that it changes.
    Bits,
    /// Of an erase: the start of the page. Of a word: its first bytes.
    Start,
    /// Of an erase: the end of the page. Of a word: its last bytes.
    End,
    /// All: the power failed after it.
    All,
}

impl Torn {
    pub const EACH: [Torn; 5] = [Torn::Nothing, Torn::Bits, Torn::Start, Torn::End, Torn::All];
}

/// The flash; one operation is the programming of one word or the erasing of one page.
#[derive(Clone)]
pub struct Nor<const PAGE: usize> {
    pub bytes: Vec<u8>,
    /// Operations done.
    pub operations: usize,
    /// The operation during which the power fails.
    pub cut: Option<(usize, Torn)>,
    /// How often each page was erased.
    pub erased: Vec<u32>,
    /// Stuck bits of these bytes: always 0.
    pub stuck: Vec<usize>,
    pub random: fastrand::Rng,
    dead: bool,
}

#[derive(Debug, PartialEq)]
pub struct NoPower;

impl NorFlashError for NoPower {
    fn kind(&self) -> NorFlashErrorKind {
        NorFlashErrorKind::Other
    }
}

impl<const PAGE: usize> Nor<PAGE> {
    pub fn new(pages: usize, seed: u64) -> Self {
        Nor {
            bytes: vec![0xff; pages * PAGE],
            operations: 0,
            cut: None,
            erased: vec![0; pages],
            stuck: vec![],
            random: fastrand::Rng::with_seed(seed),
            dead: false,
        }
    }

    /// The flash at the next start.
    pub fn after_power_on(mut self) -> Self {
        (self.cut, self.dead) = (None, false);
        self
    }

    /// One operation that changes the bytes from `at` on into `new`.
    fn operate(&mut self, at: usize, new: &[u8]) -> Result<(), NoPower> {
        if self.dead {
            return Err(NoPower);
        }
        let torn = match self.cut {
            Some((operation, torn)) if operation == self.operations => torn,
            _ => Torn::All,
        };
        self.dead = self.cut.is_some_and(|(operation, _)| operation == self.operations);
        self.operations += 1;
        let part = self.random.usize(0..=new.len());
        for (index, (byte, &new)) in self.bytes[at..].iter_mut().zip(new).enumerate() {
            let mask = match torn {
                Torn::Nothing => 0,
                Torn::Bits => self.random.u8(..),
                Torn::Start if index < part => 0xff,
                Torn::End if index >= part => 0xff,
                Torn::Start | Torn::End => 0,
                Torn::All => 0xff,
            };
            *byte = (*byte & !mask) | (new & mask);
        }
        for &stuck in &self.stuck {
            self.bytes[stuck] &= 0xfe;
        }
        if self.dead { Err(NoPower) } else { Ok(()) }
    }
}

impl<const PAGE: usize> ErrorType for Nor<PAGE> {
    type Error = NoPower;
}

impl<const PAGE: usize> ReadNorFlash for Nor<PAGE> {
    const READ_SIZE: usize = 4;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), NoPower> {
        assert!(offset.is_multiple_of(4) && bytes.len().is_multiple_of(4));
        if self.dead {
            return Err(NoPower);
        }
        bytes.copy_from_slice(&self.bytes[offset as usize..][..bytes.len()]);
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.bytes.len()
    }
}

impl<const PAGE: usize> NorFlash for Nor<PAGE> {
    const WRITE_SIZE: usize = 4;
    const ERASE_SIZE: usize = PAGE;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), NoPower> {
        assert!((from as usize).is_multiple_of(PAGE) && (to as usize).is_multiple_of(PAGE));
        for page in from as usize / PAGE..to as usize / PAGE {
            self.erased[page] += 1;
            self.operate(page * PAGE, &[0xff; PAGE])?;
        }
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), NoPower> {
        assert!(offset.is_multiple_of(4) && bytes.len().is_multiple_of(4));
        for (word, at) in bytes.chunks_exact(4).zip((offset as usize..).step_by(4)) {
            // Programming clears bits and sets none.
            let new: Vec<u8> = word.iter().zip(&self.bytes[at..]).map(|(new, old)| new & old).collect();
            self.operate(at, &new)?;
        }
        Ok(())
    }
}

impl<const PAGE: usize> MappedFlash for Nor<PAGE> {
    fn mapped(&self, range: Range<u32>) -> &[u8] {
        assert!((range.start as usize).is_multiple_of(PAGE));
        &self.bytes[range.start as usize..range.end as usize]
    }
}
