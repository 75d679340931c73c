//! Adapters from blocking flash drivers to the async traits of `sequential-storage`, and flashes without a chip.

use core::future::poll_fn;
use core::task::Poll;

use embedded_storage::nor_flash::{ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash};

/// Whether a [`AsyncFlash`] writes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Writes and erases are executed.
    Write,
    /// Writes and erases are dropped: reading must not repair the queue, so that loading never writes.
    Look,
}

/// An async adapter of a blocking flash driver. Its futures are ready at once and stateless, unlike those of an `async fn`, whose code would
/// contain a panic for being polled again.
pub(crate) struct AsyncFlash<'f, F> {
    pub flash: &'f mut F,
    pub access: Access,
}

impl<F: ErrorType> ErrorType for AsyncFlash<'_, F> {
    type Error = F::Error;
}

impl<F: NorFlash> embedded_storage_async::nor_flash::ReadNorFlash for AsyncFlash<'_, F> {
    const READ_SIZE: usize = F::READ_SIZE;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> impl Future<Output = Result<(), F::Error>> {
        poll_fn(move |_| Poll::Ready(self.flash.read(offset, bytes)))
    }

    fn capacity(&self) -> usize {
        self.flash.capacity()
    }
}

impl<F: NorFlash> embedded_storage_async::nor_flash::NorFlash for AsyncFlash<'_, F> {
    const WRITE_SIZE: usize = F::WRITE_SIZE;
    const ERASE_SIZE: usize = F::ERASE_SIZE;

    fn erase(&mut self, from: u32, to: u32) -> impl Future<Output = Result<(), F::Error>> {
        poll_fn(move |_| {
            Poll::Ready(match self.access {
                Access::Write => self.flash.erase(from, to),
                Access::Look => Ok(()),
            })
        })
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> impl Future<Output = Result<(), F::Error>> {
        poll_fn(move |_| {
            Poll::Ready(match self.access {
                Access::Write => self.flash.write(offset, bytes),
                Access::Look => Ok(()),
            })
        })
    }
}

/// The flash of a board without storage: it has no bytes.
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct NoFlash;

/// The flash does not have this address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Missing;

impl NorFlashError for Missing {
    fn kind(&self) -> NorFlashErrorKind {
        NorFlashErrorKind::OutOfBounds
    }
}

impl ErrorType for NoFlash {
    type Error = Missing;
}

impl ReadNorFlash for NoFlash {
    const READ_SIZE: usize = 4;

    fn read(&mut self, _: u32, _: &mut [u8]) -> Result<(), Missing> {
        Err(Missing)
    }

    fn capacity(&self) -> usize {
        0
    }
}

impl NorFlash for NoFlash {
    const WRITE_SIZE: usize = 4;
    const ERASE_SIZE: usize = 4096;

    fn erase(&mut self, _: u32, _: u32) -> Result<(), Missing> {
        Err(Missing)
    }

    fn write(&mut self, _: u32, _: &[u8]) -> Result<(), Missing> {
        Err(Missing)
    }
}

/// A NOR flash simulated in memory, with pages of 4 KiB: erasing sets a page's bits, writing clears bits.
///
/// For devices that run on a PC. In a memory-mapped file, its contents survive the program.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct MemoryFlash<B>(pub B);

impl<B> ErrorType for MemoryFlash<B> {
    type Error = Missing;
}

impl<B: AsRef<[u8]>> MemoryFlash<B> {
    fn range(&self, from: u32, length: usize) -> Result<core::ops::Range<usize>, Missing> {
        let range = from as usize..(from as usize).checked_add(length).ok_or(Missing)?;
        self.0.as_ref().get(range.clone()).map(|_| range).ok_or(Missing)
    }
}

impl<B: AsRef<[u8]>> ReadNorFlash for MemoryFlash<B> {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Missing> {
        bytes.copy_from_slice(&self.0.as_ref()[self.range(offset, bytes.len())?]);
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.0.as_ref().len()
    }
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> NorFlash for MemoryFlash<B> {
    const WRITE_SIZE: usize = 4;
    const ERASE_SIZE: usize = 4096;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), Missing> {
        let range = self.range(from, to.checked_sub(from).ok_or(Missing)? as usize)?;
        self.0.as_mut()[range].fill(0xff);
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Missing> {
        let range = self.range(offset, bytes.len())?;
        self.0.as_mut()[range].iter_mut().zip(bytes).for_each(|(old, new)| *old &= new);
        Ok(())
    }
}
