//! The spare copy of a large head, in flash ([`SpareCopy::Flash`](crate::SpareCopy::Flash)): an undo log.
//!
//! Before a change the head is saved, unless the flash holds it as it is; undo reads that save. The flash's other half takes what is saved after the change, so
//! one save leaves the copy alone; before a second one the open training is judged, and the change can no longer be undone. A head that arrives in parts is
//! written to the other half, and is no head until it is sealed. After a power cut at any moment the flash holds the head before the change, or one that was
//! saved after it.
//!
//! Nothing here is inlined: buffers for the flash would deepen the stack of calls that have the copy in RAM.

use embedded_storage::nor_flash::NorFlash;
use nano_core::train::{Head, score_aside};

use crate::device::Device;
use crate::failure::Failure;
use crate::learner::{Learner, Undo};
use crate::saved_head::{SavedHead, StorageError};
use crate::saving::{SETTINGS, exchange_settings, is_record, settings_bytes};

/// Splits `bytes` at an offset of a record into the pieces of its parts: calls `act` with a part's number, an offset in it, and bytes.
fn pieces(lengths: [usize; 3], mut offset: usize, mut bytes: &[u8], mut act: impl FnMut(usize, usize, &[u8])) {
    for (number, length) in lengths.into_iter().enumerate() {
        let (now, later) = bytes.split_at(bytes.len().min(length.saturating_sub(offset)));
        act(number, offset, now);
        (bytes, offset) = (later, offset.saturating_sub(length));
    }
}

impl<'a, C: FnMut() -> u64, F: NorFlash, H: Head<'a>> Device<'a, C, F, H> {
    /// Whether the spare copy is in flash.
    pub(crate) fn copy_is_in_flash(&self) -> bool {
        H::LARGE && self.learner.as_ref().is_some_and(|learner| learner.spare.len() < learner.head.state().len())
    }

    /// Lengths of the parts of a record: state, names, settings.
    fn lengths(&self) -> [usize; 3] {
        let learner = self.learner.as_ref();
        let [state, names] = learner.map_or([0; 2], |own| [own.head.state().len(), own.names.as_flattened().len()]);
        [state, names, SETTINGS]
    }

    /// Before a change: ends the open training, and sees to it that the flash holds the head as it is; the number of that save. `None` if the spare copy is in
    /// RAM.
    ///
    /// # Errors
    /// Those of [`Device::save`]: what cannot be taken back is not begun.
    pub(crate) fn keep_copy(&mut self) -> Result<Option<u32>, Failure> {
        if self.copy_is_in_flash() { self.keep_in_flash().map(Some) } else { Ok(None) }
    }

    #[inline(never)]
    fn keep_in_flash(&mut self) -> Result<u32, Failure> {
        self.end_training();
        match self.saved_as_it_is()? {
            Some(count) => Ok(count),
            None => self.save(false),
        }
    }

    /// The number of the newest save if its state is that of the head.
    #[inline(never)]
    fn saved_as_it_is(&mut self) -> Result<Option<u32>, Failure> {
        let lengths = self.lengths();
        let (Some(learner), Ok(saved)) = (&self.learner, self.storage.newest()) else { return Ok(None) };
        let (state, mut same) = (learner.head.state(), true);
        let compare = |offset: usize, bytes: &[u8]| {
            pieces(lengths, offset, bytes, |part, offset, bytes| {
                same &= part > 0 || state.get(offset..).is_some_and(|rest| rest.starts_with(bytes));
            });
        };
        let found = self.storage.read_saved(saved.count, lengths.iter().sum(), compare)?;
        Ok((found && same).then_some(saved.count))
    }

    /// Reads the head that was saved as number `count`; names and settings, too, if it is `whole`.
    ///
    /// # Errors
    /// [`StorageError::Damaged`] if the flash does not hold it, and nothing is changed. [`StorageError::Driver`], and [`Failure::State`] or what
    /// [`Head::check_state`] refuses: the head is then that of the image if it was changed.
    #[inline(never)]
    pub(crate) fn read_copy(&mut self, count: u32, whole: bool) -> Result<(), Failure> {
        let lengths = self.lengths();
        let Learner { head, names, .. } = self.learner.as_mut().ok_or(Failure::NoHead)?;
        let (names, mut settings) = (names.as_flattened_mut(), settings_bytes(self.settings));
        let (storage, mut touched, mut found) = (&mut self.storage, false, Ok(false));
        head.overwrite(|state| {
            let mut parts = [state, &mut *names, &mut settings];
            let copy = |offset: usize, bytes: &[u8]| {
                touched = true;
                pieces(lengths, offset, bytes, |part, offset, bytes| {
                    let place =
                        parts.get_mut(part).filter(|_| part == 0 || whole).and_then(|part| part.get_mut(offset..));
                    place.unwrap_or_default().iter_mut().zip(bytes).for_each(|(place, &byte)| *place = byte);
                });
            };
            found = storage.read_saved(count, lengths.iter().sum(), copy);
        });
        let checked = match found {
            Ok(false) => return Err(StorageError::Damaged { count }.into()),
            Ok(true) if is_record(head, head.state(), names, &settings) => {
                self.settings = exchange_settings(self.settings, &mut settings);
                return Ok(());
            }
            Ok(true) => head.check_state(head.state()).map_err(Failure::from).and(Err(Failure::State)),
            Err(error) => Err(error.into()),
        };
        if touched {
            head.reset();
            if whole {
                names.fill(0);
            }
        }
        checked
    }

    /// [`Device::load`] into the head itself.
    #[inline(never)]
    pub(crate) fn load_in_place(&mut self) -> Result<SavedHead, Failure> {
        self.storage.newest()?;
        self.end_training();
        let learner = self.learner.as_mut().ok_or(Failure::NoHead)?;
        learner.staged = 0;
        learner.replace_undo(None);
        loop {
            let count = self.storage.newest()?.count;
            match self.read_copy(count, true) {
                Ok(()) => break,
                Err(error @ Failure::Storage(StorageError::Driver)) => return Err(error),
                Err(_) => self.storage.refuse(count),
            }
        }
        self.stats.changes = self.stats.changes.wrapping_add(1);
        self.unsaved = 0;
        Ok(self.storage.newest()?)
    }

    /// Ends the open training, and judges it by the head in flash; returns whether it was taken back. `None` if none is open.
    #[inline(never)]
    pub(crate) fn end_training_of_kept(&mut self) -> Option<bool> {
        let learner = self.learner.as_mut()?;
        let open = learner.training.take()?;
        let (Some(Undo::Head { saved: Some(count), .. }), Some(samples)) = (learner.undo, &learner.samples) else {
            return Some(false);
        };
        let worse = samples.ring.aside_len() > 0
            && score_aside(&mut learner.head, &samples.ring).is_ok_and(|after| !after.beats(open.before));
        if !worse || self.read_copy(count, false).is_err() {
            return Some(false);
        }
        let learner = self.learner.as_mut()?;
        learner.undo = None;
        learner.taken_back = learner.taken_back.wrapping_add(1);
        Some(true)
    }

    /// Before a save that would overwrite the copy of an undo, or a head that arrives in parts: gives these up, and judges the open training before.
    #[inline(never)]
    pub(crate) fn give_up_overwritten_copy(&mut self) {
        let newest = self.storage.newest().map(|saved| saved.count).ok();
        let kept = self.learner.as_ref().and_then(|learner| learner.undo);
        let overwritten = matches!(kept, Some(Undo::Head { saved: Some(count), .. }) if newest != Some(count));
        if overwritten {
            self.end_training();
        }
        if let Some(learner) = &mut self.learner {
            learner.staged = 0;
            if overwritten {
                learner.undo = None;
            }
        }
    }

    /// Takes a part of a head, at an offset where it was expected, to the flash.
    #[inline(never)]
    pub(crate) fn stage(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Failure> {
        if offset == 0 {
            self.keep_copy()?;
            self.storage.begin(self.lengths().iter().sum())?;
        }
        let learner = self.learner.as_mut().ok_or(Failure::NoHead)?;
        let sample = learner.undo.filter(|undo| matches!(undo, Undo::Sample { .. }));
        learner.replace_undo(sample);
        learner.staged = 0;
        self.storage.append(bytes, learner.spare)?;
        learner.staged = offset as usize + bytes.len();
        Ok(())
    }

    /// Replaces the head by the one that has arrived, which is saved by that.
    #[inline(never)]
    pub(crate) fn replace_by_staged(&mut self, checksum: u32) -> Result<(), Failure> {
        let given = self.lengths()[0] as u32;
        let computed = self.storage.staged_checksum().ok_or(Failure::Order { needed: 0, given })?;
        if computed != checksum {
            return Err(Failure::Checksum { computed });
        }
        let kept = self.saved_as_it_is()?.ok_or(Failure::Order { needed: 0, given })?;
        let learner = self.learner.as_mut().ok_or(Failure::NoHead)?;
        learner.staged = 0;
        self.storage.append(learner.names.as_flattened(), learner.spare)?;
        self.storage.append(&settings_bytes(self.settings), learner.spare)?;
        let count = self.storage.seal(learner.spare)?;
        if let Err(refused) = self.read_copy(count, false) {
            self.storage.refuse(count);
            self.read_copy(kept, false)?;
            return Err(refused);
        }
        if let Some(learner) = &mut self.learner {
            learner.replace_undo(Some(Undo::Head { saved: Some(kept), position: None }));
        }
        self.count_change();
        self.unsaved = 0;
        Ok(())
    }
}
