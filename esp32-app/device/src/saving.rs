//! The head in flash, and the head that arrives from the PC.

use embedded_storage::nor_flash::NorFlash;
use nano_core::train::Head;

use crate::device::Device;
use crate::failure::Failure;
use crate::frame::CRC32;
use crate::learner::{Learner, Undo};
use crate::message::{Response, Settings};
use crate::storage::StorageError;

/// Bytes of saved [`Settings`]: rejection, two zeros, interval.
pub(crate) const SETTINGS: usize = 8;

fn settings_bytes(settings: Settings) -> [u8; SETTINGS] {
    let word = u64::from(settings.rejection) | u64::from(settings.save_interval) << 32;
    word.to_le_bytes()
}

fn settings(bytes: [u8; SETTINGS]) -> Settings {
    let word = u64::from_le_bytes(bytes);
    Settings { rejection: word as u16, save_interval: (word >> 32) as u32 }
}

/// The saved settings, in whose place `own` are left.
pub(crate) fn exchange_settings(own: Settings, saved: &mut [u8; SETTINGS]) -> Settings {
    settings(core::mem::replace(saved, settings_bytes(own)))
}

impl<'a, C: FnMut() -> u64, F: NorFlash, H: Head<'a>> Device<'a, C, F, H> {
    /// Saves the head; the number of heads saved in this flash.
    pub fn save(&mut self, replace: bool) -> Result<u32, Failure> {
        let learner = self.learner.as_ref().ok_or(Failure::NoHead)?;
        let settings = settings_bytes(self.settings);
        let parts = [learner.head.state(), learner.names.as_flattened(), &settings];
        self.unsaved = 0;
        let saved = self.storage.save(&parts, replace).and_then(|()| self.storage.newest());
        match saved {
            Ok(_) => self.stats.saves = self.stats.saves.wrapping_add(1),
            Err(_) => self.stats.failed_saves = self.stats.failed_saves.wrapping_add(1),
        }
        Ok(saved?)
    }

    /// The head has changed; saves it if it is time. A flash that fails then does not undo the request: it is counted.
    pub fn changed(&mut self) {
        self.stats.changes = self.stats.changes.wrapping_add(1);
        self.unsaved = self.unsaved.saturating_add(1);
        if self.settings.save_interval != 0 && self.unsaved >= self.settings.save_interval {
            let _counted = self.save(false);
        }
    }

    /// Starts with the saved head, if there is one of this model.
    pub fn restore(&mut self) {
        // What is wrong with the flash is said by `Info`.
        self.restored = self.load().is_ok();
        if let Some(learner) = &mut self.learner {
            learner.undo = None;
        }
        (self.stats.changes, self.unsaved) = (0, 0);
    }

    pub fn load(&mut self) -> Result<Response<'_>, Failure> {
        let learner = self.learner.as_mut().ok_or(Failure::NoHead)?;
        // From here on only a flash that fails refuses; then there is nothing to undo.
        let count = self.storage.newest()?;
        (learner.staged, learner.undo) = (0, None);
        let Learner { head, names, spare, .. } = learner;
        self.storage.load(spare)?;
        let length = head.state().len();
        let (state, rest) = spare.split_at_mut(length);
        let Some((new_names, new_settings)) = rest.split_last_chunk_mut() else {
            return Err(Failure::Storage(StorageError::NotWritten));
        };
        head.exchange(state)?;
        names.as_flattened_mut().swap_with_slice(new_names);
        self.settings = exchange_settings(self.settings, new_settings);
        learner.undo = Some(Undo::Record);
        self.stats.changes = self.stats.changes.wrapping_add(1);
        self.unsaved = 0;
        Ok(Response::Loaded { count })
    }

    pub fn write_head(&mut self, offset: u32, bytes: &[u8]) -> Result<Response<'_>, Failure> {
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
        learner.spare[begin..end].copy_from_slice(bytes);
        learner.staged = end;
        if !matches!(learner.undo, Some(Undo::Sample { .. })) {
            learner.undo = None;
        }
        Ok(Response::Received { length: end as u32 })
    }

    pub fn replace_head(&mut self, checksum: u32) -> Result<Response<'_>, Failure> {
        let learner = self.learner.as_mut().ok_or(Failure::NoHead)?;
        let length = learner.head.state().len();
        if learner.staged != length {
            return Err(Failure::Order { needed: learner.staged as u32, given: length as u32 });
        }
        let state = &mut learner.spare[..length];
        let computed = CRC32.checksum(state);
        if computed != checksum {
            return Err(Failure::Checksum { computed });
        }
        learner.head.exchange(state)?;
        (learner.staged, learner.undo) = (0, Some(Undo::Head { position: None }));
        self.changed();
        Ok(Response::Done)
    }
}
