//! Sizes of a session's RAM.

use nano_core::image::Image;
use nano_core::train::HeadSizes;

use crate::frame;
use crate::names::Name;
use crate::saving::SETTINGS;
use crate::storage::LARGEST_ITEM;

/// Where a session keeps the spare copy of its head: for undo, for judging a training, and for a head that arrives in parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum SpareCopy {
    /// In RAM.
    Ram,
    /// In flash, as an undo log: before a change the head is saved, unless the flash holds it as it is, and undo reads that save. Only of heads of several
    /// layers whose saved record has 8 to 24 KiB: the flash of the firmware holds it twice, and a smaller copy is cheap in RAM. Loading a saved head cannot be
    /// undone then, and a board without flash refuses to train.
    Flash,
}

/// Bytes of the saved records whose spare copy is the flash's.
const IN_FLASH: [usize; 2] = [8 << 10, 24 << 10];

/// The sizes that a session's RAM depends on, known when a program is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Sizes {
    /// Bytes of arena.
    pub arena: usize,
    /// Number of layers.
    pub layers: usize,
    /// The trainable head, if there is one.
    pub head: Option<HeadSizes>,
    /// Places of the ring of recent features, for a head that uses one.
    pub ring: usize,
    /// Bytes of inputs, tensors or states that one frame takes.
    pub frame: usize,
    /// Where the spare copy of the head is.
    pub copy: SpareCopy,
}

impl Sizes {
    /// The sizes of an image, with a ring of `ring` places, frames for `frame` bytes and the spare copy in `copy`.
    pub fn of(image: &Image<'_>, ring: usize, frame: usize, copy: SpareCopy) -> Self {
        Sizes {
            arena: image.arena_length(),
            layers: image.nodes().count(),
            head: image.head().map(HeadSizes::of),
            ring,
            frame,
            copy,
        }
    }

    /// Words of RAM that [`Session::new`](crate::Session::new) needs; `usize::MAX` for sizes beyond any memory.
    pub const fn words(&self) -> usize {
        let parts = self.parts();
        let mut words = 0usize;
        let mut index = 0;
        while index < parts.len() {
            let (_, bytes) = parts[index];
            if bytes == usize::MAX {
                return usize::MAX;
            }
            words = words.saturating_add(bytes.div_ceil(4));
            index += 1;
        }
        words
    }

    /// The parts of that RAM in order, each rounded up to words: what it is for, and its bytes. Parts for the same purpose have the same name.
    pub const fn parts(&self) -> [(&'static str, usize); 9] {
        // The ring's places and one more, for the sample that the latest one replaced.
        let places = match self.places() {
            0 => 0,
            places => places.saturating_add(1),
        };
        [
            ("arena", self.arena),
            ("frames", self.buffer()),
            ("frames", self.buffer()),
            ("profile", self.profiled().saturating_mul(4)),
            ("head", self.head_words().saturating_mul(4)),
            ("head", self.names().saturating_mul(size_of::<Name>())),
            ("head's copy", self.spare()),
            ("ring", places.saturating_mul(self.features())),
            ("ring", places.saturating_mul(4)),
        ]
    }

    /// Counts of a profile: one for each layer, and one for the head.
    pub(crate) const fn profiled(&self) -> usize {
        self.layers.saturating_add(self.head.is_some() as usize)
    }

    pub(crate) const fn head_words(&self) -> usize {
        match self.head {
            Some(head) => head.words(),
            None => 0,
        }
    }

    /// Number of features, int8, that the head sees.
    pub(crate) const fn features(&self) -> usize {
        match self.head {
            Some(head) => head.features,
            None => 0,
        }
    }

    /// Bytes of the head's state.
    pub(crate) const fn state(&self) -> usize {
        match self.head {
            Some(head) => head.state_bytes(),
            None => 0,
        }
    }

    /// Places for names of classes.
    pub(crate) const fn names(&self) -> usize {
        match self.head {
            Some(head) => head.classes,
            None => 0,
        }
    }

    /// Bytes of the spare copy in RAM: a record, or the part of one that is on its way to the flash.
    pub(crate) const fn spare(&self) -> usize {
        let (record, [least, most]) = (self.record(), IN_FLASH);
        match self.head {
            Some(head)
                if head.is_large() && matches!(self.copy, SpareCopy::Flash) && least <= record && record <= most =>
            {
                LARGEST_ITEM
            }
            _ => record,
        }
    }

    /// Bytes of a saved record: state, names, settings.
    pub(crate) const fn record(&self) -> usize {
        match self.head {
            Some(_) => {
                self.state().saturating_add(self.names().saturating_mul(size_of::<Name>())).saturating_add(SETTINGS)
            }
            None => 0,
        }
    }

    /// Places of the ring; 0 without a head that uses it.
    pub(crate) const fn places(&self) -> usize {
        match self.head {
            Some(head) if head.uses_ring() => self.ring,
            _ => 0,
        }
    }

    /// Bytes of the longest frame.
    pub(crate) const fn buffer(&self) -> usize {
        frame::length(self.frame)
    }
}
