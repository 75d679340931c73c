//! Learning and undo.

use embedded_storage::nor_flash::NorFlash;
use nano_core::Logits;
use nano_core::image::Image;
use nano_core::train::{FeatureRing, Head, Rejection, RingPosition, Target, take_back_if_worse};

use crate::device::Device;
use crate::failure::Failure;
use crate::message::{Class, Label};
use crate::names::{self, Name};
use crate::saving::{exchange_names, exchange_settings};
use crate::training::OpenTraining;
use crate::window::Input;

/// A head with its samples, names and undo.
pub(crate) struct Learner<'a, H> {
    pub head: H,
    /// What its predictions mean.
    pub rejection: Rejection<'a>,
    /// Recent features, for a head that learns in epochs.
    pub samples: Option<Samples<'a>>,
    /// Names given to classes.
    pub names: &'a mut [Name],
    /// The spare record: a head's state, names and settings, as before the last change or as they arrive in parts. With [`SpareCopy::Flash`] the part of a
    /// record that is on its way to the flash.
    ///
    /// [`SpareCopy::Flash`]: crate::SpareCopy::Flash
    pub spare: &'a mut [u8],
    /// Bytes of a head's state that have arrived in `spare`.
    pub staged: usize,
    pub undo: Option<Undo>,
    /// The open training. Undo takes all of it back, so every other change that can be undone ends it.
    pub training: Option<OpenTraining>,
    /// Trainings since the start.
    pub trainings: u32,
    /// Those of them that were taken back.
    pub taken_back: u32,
}

/// The ring buffer of recent features, and the sample that the latest one replaced.
pub(crate) struct Samples<'a> {
    pub ring: FeatureRing<'a>,
    pub displaced: &'a mut [i8],
    pub displaced_target: u32,
}

/// What became of a labelled sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Learned {
    /// Samples kept for training; 0 for a head that learns each at once.
    pub samples: u32,
    /// What the board's counter advanced.
    pub ticks: u64,
}

/// How the last change is undone.
#[derive(Clone, Copy)]
pub(crate) enum Undo {
    /// Rewind the ring to this position; `full` if it was full.
    Sample { position: RingPosition, full: bool },
    /// Restore the head's state, from the spare record or from the flash, where it was `saved` as this number; and the ring, if it was cleared, to this
    /// position.
    Head { saved: Option<u32>, position: Option<RingPosition> },
    /// Restore state, names and settings from the spare record.
    Record,
}

impl<'a, H: Head<'a>> Learner<'a, H> {
    /// Refuses a class that the head does not have.
    pub fn known(&self, class: usize) -> Result<usize, Failure> {
        let classes = self.head.classes();
        if class < classes { Ok(class) } else { Err(Failure::Label { label: class as u32, classes: classes as u32 }) }
    }

    /// The head's logits of its features. Not inlined: one copy serves all requests.
    #[inline(never)]
    pub fn logits(&mut self, features: &[i8]) -> Result<Logits<'_>, Failure> {
        Ok(Logits::of(&mut self.head, self.rejection, features)?)
    }

    fn class(&self, image: &Image<'_>, class: Class<'_>) -> Result<usize, Failure> {
        match class {
            Class::Index(class) => self.known(class.into()),
            Class::Name(name) => names::find(image, self.names, self.head.classes(), name).ok_or(Failure::UnknownName),
        }
    }

    fn target(&self, image: &Image<'_>, label: Label<'_>) -> Result<Target, Failure> {
        let target = match label {
            Label::Class(class) => Target::Class(self.class(image, class)? as u16),
            Label::Bits(bits) => Target::Labels(bits),
            Label::Value(value) => Target::Value(value),
        };
        self.head.check(target)?;
        Ok(target)
    }

    /// Sets what can be undone from here on, and ends the training.
    pub fn replace_undo(&mut self, undo: Option<Undo>) {
        (self.undo, self.training) = (undo, None);
    }

    /// Ends the open training, if there is one, and judges it; returns whether it was taken back.
    pub fn end_training(&mut self) -> Option<bool> {
        self.training.take()?;
        let before = self.spare.get_mut(..self.head.state().len());
        let judged = before.zip(self.samples.as_ref()).map(|(before, samples)| {
            // The spare record has held the head before the training since it began.
            take_back_if_worse(&mut self.head, before, &samples.ring)
        });
        let taken_back = matches!(judged, Some(Ok(true)));
        if taken_back {
            self.undo = None;
            self.taken_back = self.taken_back.wrapping_add(1);
        }
        Some(taken_back)
    }

    /// Copies the state to the spare record, unless the flash has `kept` it, and runs `act`, whose change can then be undone. Callers validate first: from
    /// here on the previous undo is gone.
    pub fn change<T>(
        &mut self,
        kept: Option<u32>,
        act: impl FnOnce(&mut H, Option<&mut Samples<'a>>) -> Result<T, nano_core::Error>,
    ) -> Result<T, Failure> {
        self.end_training();
        if kept.is_none() {
            let state = self.head.state();
            self.spare.get_mut(..state.len()).ok_or(Failure::State)?.copy_from_slice(state);
        }
        self.staged = 0;
        self.replace_undo(None);
        let position = self.samples.as_ref().map(|samples| samples.ring.position());
        let result = act(&mut self.head, self.samples.as_mut())?;
        self.undo = Some(Undo::Head { saved: kept, position });
        Ok(result)
    }

    /// Learns from features: a head that learns in epochs keeps them in its ring, whose cost is not counted; another head learns from them at once.
    fn learn(
        &mut self,
        features: &[i8],
        target: Target,
        counter: &mut impl FnMut() -> u64,
    ) -> Result<Learned, Failure> {
        let Some(Samples { ring, displaced, displaced_target }) = &mut self.samples else {
            let start = counter();
            self.change(None, |head, _| head.learn(features, target))?;
            return Ok(Learned { samples: 0, ticks: counter() - start });
        };
        let (position, full) = (ring.position(), ring.len() == ring.capacity());
        if let (true, Some((features, target))) = (full, ring.get(0)) {
            displaced.iter_mut().zip(features).for_each(|(own, &feature)| *own = feature);
            *displaced_target = target;
        }
        ring.push(features, target)?;
        let samples = ring.len() as u32;
        self.replace_undo(Some(Undo::Sample { position, full }));
        Ok(Learned { samples, ticks: 0 })
    }
}

impl<'a, C: FnMut() -> u64, F: NorFlash, H: Head<'a>> Device<'a, C, F, H> {
    /// Runs the model on `input`, as [`Device::predict`] takes it, and learns that it is of `label`. A head that learns in epochs keeps its features for
    /// [`Device::begin_training`]; another learns from it at once. Ends the open training.
    ///
    /// # Errors
    /// [`Failure::NoHead`], [`Failure::Label`], [`Failure::UnknownName`], [`Failure::Input`], [`Failure::Full`].
    pub fn learn<'i, 'l>(
        &mut self,
        input: impl Into<Input<'i>>,
        label: impl Into<Label<'l>>,
    ) -> Result<Learned, Failure> {
        let target = self.target(label.into())?;
        self.take_whole_input(input.into())?;
        self.learn_input(target)
    }

    /// [`Device::learn`] from `features` that an earlier run made.
    ///
    /// # Errors
    /// As [`Device::learn`].
    pub fn learn_features<'l>(&mut self, features: &[i8], label: impl Into<Label<'l>>) -> Result<Learned, Failure> {
        let target = self.target(label.into())?;
        let learner = self.learner.as_ref().ok_or(Failure::NoHead)?;
        learner.head.check_features(features)?;
        self.learn_target(Some(features), target)
    }

    pub(crate) fn target(&self, label: Label<'_>) -> Result<Target, Failure> {
        self.learner.as_ref().ok_or(Failure::NoHead)?.target(self.model.image(), label)
    }

    /// Learns from the inputs in the arena.
    pub(crate) fn learn_input(&mut self, target: Target) -> Result<Learned, Failure> {
        let ticks = self.run();
        let learned = self.learn_target(None, target)?;
        Ok(Learned { ticks: ticks + learned.ticks, ..learned })
    }

    /// Learns from features of the right number; `None`: from those that the model has just made.
    #[inline(never)]
    pub(crate) fn learn_target(&mut self, features: Option<&[i8]>, target: Target) -> Result<Learned, Failure> {
        self.end_training();
        let learner = self.learner.as_mut().ok_or(Failure::NoHead)?;
        let features = features.unwrap_or_else(|| self.model.output(0));
        let learned = learner.learn(features, target, &mut self.counter)?;
        if learned.samples == 0 {
            self.changed();
        }
        self.stats.learned = self.stats.learned.wrapping_add(1);
        Ok(learned)
    }

    /// Computes the weights from what was learnt, in a head that learns sums; returns what the counter advanced. Ends the open training.
    ///
    /// # Errors
    /// [`Failure::NoHead`].
    pub fn commit(&mut self) -> Result<u64, Failure> {
        let kept = self.keep_copy()?;
        let learner = self.learner.as_mut().ok_or(Failure::NoHead)?;
        let start = (self.counter)();
        learner.change(kept, |head, _| {
            head.commit();
            Ok(())
        })?;
        let ticks = (self.counter)() - start;
        self.changed();
        Ok(ticks)
    }

    /// Takes back the last call that changed the head or the features kept: learning, a training with all its slices, a commit, a class added or forgotten, a
    /// head loaded or replaced, a reset. Once.
    ///
    /// # Errors
    /// [`Failure::NoHead`], [`Failure::NothingToUndo`].
    pub fn undo(&mut self) -> Result<(), Failure> {
        let undo = self.learner.as_ref().ok_or(Failure::NoHead)?.undo.ok_or(Failure::NothingToUndo)?;
        let kept = match undo {
            Undo::Head { saved: Some(count), .. } if self.copy_is_in_flash() => {
                self.read_copy(count, false)?;
                true
            }
            _ => false,
        };
        let learner = self.learner.as_mut().ok_or(Failure::NoHead)?;
        let Learner { head, samples, names, spare, .. } = learner;
        let (state, rest) = spare.split_at_mut_checked(head.state().len()).unwrap_or_default();
        match undo {
            Undo::Sample { position, full } => {
                if let Some(Samples { ring, displaced, displaced_target }) = samples {
                    ring.rewind(position, full.then_some((&**displaced, *displaced_target)))?;
                }
            }
            Undo::Head { position, .. } => {
                if !kept {
                    head.exchange(state)?;
                }
                if let (Some(samples), Some(position)) = (samples, position) {
                    samples.ring.rewind(position, None)?;
                }
            }
            Undo::Record => {
                head.exchange(state)?;
                if let Some((saved, settings)) = rest.split_last_chunk_mut() {
                    exchange_names(names, saved);
                    self.settings = exchange_settings(self.settings, settings);
                }
            }
        }
        learner.replace_undo(None);
        if !matches!(undo, Undo::Sample { .. }) {
            self.changed();
        }
        Ok(())
    }

    /// Adds a class called `name`, of 1 to 16 bytes; returns its index.
    ///
    /// # Errors
    /// [`Failure::NoHead`], [`Failure::Name`], [`Failure::NameTaken`]; [`Failure::Unsupported`] for a head whose classes are fixed; [`Failure::Full`].
    pub fn add_class(&mut self, name: &str) -> Result<u32, Failure> {
        let learner = self.learner.as_mut().ok_or(Failure::NoHead)?;
        let stored = names::stored(name)?;
        if names::find(self.model.image(), learner.names, learner.head.classes(), name).is_some() {
            return Err(Failure::NameTaken);
        }
        learner.head.check_growth()?;
        if learner.head.classes() == learner.names.len() {
            return Err(Failure::Full { capacity: learner.names.len() as u32 });
        }
        let class = learner.change(None, |head, _| head.add_class())?;
        if let Some(name) = learner.names.get_mut(class) {
            *name = stored;
        }
        self.changed();
        Ok(class as u32)
    }

    /// Forgets what was learnt of a class.
    ///
    /// # Errors
    /// [`Failure::NoHead`], [`Failure::Label`], [`Failure::UnknownName`]; [`Failure::Unsupported`] for a head that cannot.
    pub fn forget<'l>(&mut self, class: impl Into<Class<'l>>) -> Result<(), Failure> {
        let learner = self.learner.as_mut().ok_or(Failure::NoHead)?;
        let class = learner.class(self.model.image(), class.into())?;
        learner.head.check_growth()?;
        learner.change(None, |head, _| head.forget(class))?;
        self.changed();
        Ok(())
    }

    /// Sets the head, if there is one, to that of the image, and forgets the features kept.
    ///
    /// # Errors
    /// [`Failure::State`] never on an image that was accepted.
    pub fn reset(&mut self) -> Result<(), Failure> {
        if self.learner.is_some() {
            let kept = self.keep_copy()?;
            let learner = self.learner.as_mut().ok_or(Failure::NoHead)?;
            learner.change(kept, |head, samples| {
                head.reset();
                if let Some(samples) = samples {
                    samples.ring.clear();
                }
                Ok(())
            })?;
            self.changed();
        }
        Ok(())
    }
}
