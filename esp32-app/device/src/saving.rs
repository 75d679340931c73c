//! Saving and loading the head in flash, and replacing it by one from the PC.

use core::mem;

use embedded_storage::nor_flash::NorFlash;
use nano_core::train::Head;

use crate::device::Device;
use crate::failure::Failure;
use crate::frame::CRC32;
use crate::learner::{Learner, Undo};
use crate::message::{Response, Settings};
use crate::names::{self, Name};
use crate::saved_head::{SavedHead, StorageError};
use crate::update_error::UpdateError;

/// Bytes of saved [`Settings`]: rejection, two zeros, save interval.
pub(crate) const SETTINGS: usize = 8;

pub(crate) fn settings_bytes(settings: Settings) -> [u8; SETTINGS] {
    let word = u64::from(settings.rejection) | u64::from(settings.save_interval) << 32;
    word.to_le_bytes()
}

fn settings(bytes: [u8; SETTINGS]) -> Settings {
    let word = u64::from_le_bytes(bytes);
    Settings { rejection: word as u16, save_interval: (word >> 32) as u32 }
}

/// Replaces the saved settings by `own`; returns the saved ones.
pub(crate) fn exchange_settings(own: Settings, saved: &mut [u8; SETTINGS]) -> Settings {
    settings(mem::replace(saved, settings_bytes(own)))
}

/// Swaps the saved names with `own`.
pub(crate) fn exchange_names(own: &mut [Name], saved: &mut [u8]) {
    own.as_flattened_mut().iter_mut().zip(saved).for_each(|(own, saved)| mem::swap(own, saved));
}

/// Whether these are a valid record of this head: state, names and settings. Names and settings of any version have this format.
pub(crate) fn is_record<'a>(head: &impl Head<'a>, state: &[u8], names: &[u8], settings: &[u8; SETTINGS]) -> bool {
    let (places, rest) = names.as_chunks();
    let named = rest.is_empty() && places.iter().all(names::is_stored);
    named && settings[2..4] == [0; 2] && head.check_state(state).is_ok()
}

impl<'a, C: FnMut() -> u64, F: NorFlash, H: Head<'a>> Device<'a, C, F, H> {
    /// Saves the head, the names of its classes and the settings in flash; returns the number of heads saved there. A head of another model is replaced only
    /// with `replace`.
    ///
    /// # Errors
    /// [`Failure::NoHead`]; [`UpdateError::Unconfirmed`] with `replace` while the model is on trial; [`Failure::Storage`], and the flash holds its newest head; [`Failure::State`] for a head that could not be loaded again.
    pub fn save(&mut self, replace: bool) -> Result<u32, Failure> {
        if replace && self.update_state().trial {
            // If it is not confirmed, the model before wants its head.
            return Err(UpdateError::Unconfirmed.into());
        }
        if self.copy_is_in_flash() {
            self.give_up_overwritten_copy();
        }
        let learner = self.learner.as_ref().ok_or(Failure::NoHead)?;
        let (state, names, settings) =
            (learner.head.state(), learner.names.as_flattened(), settings_bytes(self.settings));
        self.unsaved = 0;
        // A record that cannot be loaded must not replace one that can.
        let saved = if is_record(&learner.head, state, names, &settings) {
            let saved = self.storage.save(&[state, names, &settings], replace).and_then(|()| self.storage.newest());
            saved.map_err(Failure::Storage)
        } else {
            Err(Failure::State)
        };
        let counter = if saved.is_ok() { &mut self.stats.saves } else { &mut self.stats.failed_saves };
        *counter = counter.wrapping_add(1);
        saved.map(|saved| saved.count)
    }

    /// Counts a change of the head, and saves the head if it is due.
    pub(crate) fn changed(&mut self) {
        self.count_change();
        self.change_ended();
    }

    pub(crate) fn count_change(&mut self) {
        self.stats.changes = self.stats.changes.wrapping_add(1);
        self.unsaved = self.unsaved.saturating_add(1);
    }

    /// Saves the head if that is due, unless saves are held.
    pub(crate) fn change_ended(&mut self) {
        if !self.saves_held {
            self.save_if_due();
        }
    }

    /// Leaves it to the program to save what is due, by [`Device::save_if_due`]. A program that reports each change before it saves has reported all that a
    /// flash holds, even if its power is cut between the two.
    pub fn hold_saves(&mut self) {
        self.saves_held = true;
    }

    /// Whether the set number of changes ([`Settings::save_interval`]) is reached, and no training is open.
    pub fn save_is_due(&self) -> bool {
        let interval = self.settings.save_interval;
        interval != 0 && self.unsaved >= interval && self.training().is_none()
    }

    /// Saves the head if that is due. If the flash fails, the failure is counted ([`Stats::failed_saves`](crate::Stats::failed_saves)), and the next change
    /// tries again.
    pub fn save_if_due(&mut self) {
        if self.save_is_due() {
            let _counted = self.save(false);
        }
    }

    /// Loads the saved head at a start, if there is one of this model.
    pub(crate) fn restore(&mut self) {
        // `Info` reports a failure of the flash.
        self.restored = self.load().is_ok();
        if let Some(learner) = &mut self.learner {
            learner.replace_undo(None);
        }
        (self.stats.changes, self.unsaved) = (0, 0);
    }

    /// Loads the head, names and settings that were saved last, or before if those are damaged. Ends the open training. With the spare copy in flash
    /// ([`SpareCopy::Flash`](crate::SpareCopy::Flash)) it cannot be undone.
    ///
    /// # Errors
    /// [`Failure::NoHead`]; [`Failure::Storage`] if the flash holds no head of this model.
    pub fn load(&mut self) -> Result<SavedHead, Failure> {
        if self.copy_is_in_flash() {
            return self.load_in_place();
        }
        let learner = self.learner.as_mut().ok_or(Failure::NoHead)?;
        self.storage.newest()?;
        // From here on the spare copy is overwritten: if loading fails, there is nothing left to undo.
        learner.staged = 0;
        learner.end_training();
        learner.replace_undo(None);
        let Learner { head, names, spare, .. } = &mut *learner;
        let length = head.state().len();
        let accepts = |record: &[u8]| {
            let parts =
                record.split_at_checked(length).and_then(|(state, rest)| Some((state, rest.split_last_chunk()?)));
            parts.is_some_and(|(state, (names, settings))| is_record(head, state, names, settings))
        };
        let saved = self.storage.load(spare, accepts)?;
        let (state, rest) = spare.split_at_mut_checked(length).ok_or(Failure::State)?;
        let Some((new_names, new_settings)) = rest.split_last_chunk_mut() else {
            return Err(Failure::Storage(StorageError::Damaged { count: saved.count }));
        };
        head.exchange(state)?;
        exchange_names(names, new_names);
        self.settings = exchange_settings(self.settings, new_settings);
        learner.replace_undo(Some(Undo::Record));
        self.stats.changes = self.stats.changes.wrapping_add(1);
        self.unsaved = 0;
        Ok(saved)
    }

    pub(crate) fn write_head(&mut self, offset: u32, bytes: &[u8]) -> Result<Response<'_>, Failure> {
        let learner = self.learner.as_mut().ok_or(Failure::NoHead)?;
        let begin = if offset == 0 { 0 } else { learner.staged };
        if offset as usize != begin {
            return Err(Failure::Order { needed: learner.staged as u32, given: offset });
        }
        let length = learner.head.state().len();
        let end = begin + bytes.len();
        if end > length {
            return Err(Failure::Range { length: length as u32 });
        }
        if self.copy_is_in_flash() {
            self.stage(offset, bytes)?;
            return Ok(Response::Received { length: end as u32 });
        }
        self.end_training();
        let learner = self.learner.as_mut().ok_or(Failure::NoHead)?;
        let part = learner.spare.get_mut(begin..end).ok_or(Failure::Range { length: length as u32 })?;
        part.copy_from_slice(bytes);
        learner.staged = end;
        let sample = learner.undo.filter(|undo| matches!(undo, Undo::Sample { .. }));
        learner.replace_undo(sample);
        Ok(Response::Received { length: end as u32 })
    }

    pub(crate) fn replace_head(&mut self, checksum: u32) -> Result<(), Failure> {
        let learner = self.learner.as_mut().ok_or(Failure::NoHead)?;
        let length = learner.head.state().len();
        if learner.staged != length {
            return Err(Failure::Order { needed: learner.staged as u32, given: length as u32 });
        }
        if self.copy_is_in_flash() {
            return self.replace_by_staged(checksum);
        }
        let learner = self.learner.as_mut().ok_or(Failure::NoHead)?;
        let state = learner.spare.get_mut(..length).ok_or(Failure::State)?;
        let computed = CRC32.checksum(state);
        if computed != checksum {
            return Err(Failure::Checksum { computed });
        }
        learner.head.exchange(state)?;
        learner.staged = 0;
        learner.replace_undo(Some(Undo::Head { saved: None, position: None }));
        self.changed();
        Ok(())
    }
}
