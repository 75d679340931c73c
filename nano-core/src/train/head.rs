//! What all trainable heads have in common.

use core::ops::Range;

use crate::Error;
use crate::image::{HeadRecord, Image};
#[cfg(feature = "alloc")]
use crate::image::{SumsDescription, WriteError};
use crate::train::{FeatureRing, LayersHead, LdaHead, PrototypeHead, SgdHead, lda, prototype, sgd};

/// What a sample teaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The one right class.
    Class(u16),
    /// All right classes of at most 32: bit k for class k.
    Labels(u32),
    /// The right number, in 1/4096.
    Value(i32),
}

impl Target {
    /// The target as a ring keeps it; [`Head::target`] undoes it.
    pub const fn word(self) -> u32 {
        match self {
            Target::Class(class) => class as u32,
            Target::Labels(bits) => bits,
            Target::Value(value) => value as u32,
        }
    }

    /// The class, of as many as `trainer` has.
    ///
    /// # Errors
    /// [`Error::Label`], [`Error::Unsupported`] for a target of another kind.
    pub(super) fn class(self, classes: usize, trainer: &'static str) -> Result<usize, Error> {
        match self {
            Target::Class(label) if usize::from(label) < classes => Ok(label.into()),
            Target::Class(label) => Err(Error::Label { label: label.into(), classes }),
            _ => Err(Self::unsupported(trainer)),
        }
    }

    pub(super) const fn unsupported(trainer: &'static str) -> Error {
        Error::Unsupported { trainer, request: "learn from a target of this kind" }
    }
}

/// What the memory of a head depends on, known when a program is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadSizes {
    /// Which trainer, as [`HeadRecord::trainer`].
    pub trainer: u32,
    /// The most classes it can have.
    pub classes: usize,
    /// Number of features.
    pub features: usize,
    /// Of a head of several layers; [`LayerSizes::NONE`] for others.
    pub layers: LayerSizes,
}

/// What the memory of the layers of a [`LayersHead`] depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerSizes {
    /// Number of layers.
    pub count: usize,
    /// Number of weights of all layers, biases among them.
    pub weights: usize,
    /// Number of outputs of all layers but the last.
    pub hidden: usize,
}

impl LayerSizes {
    /// Of a head whose memory depends on classes and features alone.
    pub const NONE: Self = LayerSizes { count: 0, weights: 0, hidden: 0 };
}

impl HeadSizes {
    /// The sizes of a record.
    pub const fn of(record: &HeadRecord) -> Self {
        let layers = match record.trainer {
            LayersHead::TRAINER => LayersHead::sizes_of(record),
            _ => LayerSizes::NONE,
        };
        HeadSizes {
            trainer: record.trainer,
            classes: record.classes as usize,
            features: record.features as usize,
            layers,
        }
    }

    /// The most classes and features that a trainer's numbers have room for.
    const fn most(trainer: u32) -> Option<(usize, usize)> {
        match trainer {
            SgdHead::TRAINER => Some((sgd::LARGEST_CLASSES, sgd::LARGEST_FEATURES)),
            LdaHead::TRAINER => Some((lda::LARGEST_CLASSES, lda::LARGEST_FEATURES)),
            PrototypeHead::TRAINER => Some((prototype::LARGEST_CLASSES, prototype::LARGEST_FEATURES)),
            // Its layers have limits of their own, which its records are checked for.
            LayersHead::TRAINER => Some((usize::MAX, usize::MAX)),
            _ => None,
        }
    }

    /// Whether a head can have these sizes: to ask before memory is taken for it.
    ///
    /// # Errors
    /// [`Error::Field`] for no classes, more than its trainer has room for, or a trainer that nano-core does not have.
    pub const fn check(&self) -> Result<(), Error> {
        let Some((classes, features)) = Self::most(self.trainer) else {
            return Err(Error::Field { name: "head trainer", value: self.trainer as i64 });
        };
        if self.classes == 0 || self.classes > classes {
            return Err(Error::Field { name: "head classes", value: self.classes as i64 });
        }
        if self.features > features {
            return Err(Error::Field { name: "head features", value: self.features as i64 });
        }
        Ok(())
    }

    /// Bytes of [`Head::state`]: 0 for a trainer that nano-core does not have, `usize::MAX` for sizes that no memory holds.
    pub const fn state_bytes(&self) -> usize {
        match self.trainer {
            SgdHead::TRAINER => SgdHead::state_length(self.classes, self.features).saturating_mul(2),
            LdaHead::TRAINER => LdaHead::state_words(self.classes, self.features).saturating_mul(4),
            PrototypeHead::TRAINER => PrototypeHead::state_words(self.classes, self.features).saturating_mul(4),
            LayersHead::TRAINER => LayersHead::state_bytes(&self.layers),
            _ => 0,
        }
    }

    /// Whether samples belong into a ring, for [`Head::train`] to visit often. Otherwise each is learnt once, by [`Head::learn`].
    pub const fn uses_ring(&self) -> bool {
        matches!(self.trainer, SgdHead::TRAINER | LayersHead::TRAINER)
    }

    /// Words of RAM that [`Head::new`] needs: the state and room to work in.
    pub const fn words(&self) -> usize {
        let scratch = match self.trainer {
            LdaHead::TRAINER => LdaHead::scratch_words(self.classes, self.features),
            LayersHead::TRAINER => LayersHead::scratch_words(&self.layers, self.classes),
            _ => self.classes,
        };
        let bytes = self.state_bytes();
        if bytes == usize::MAX { usize::MAX } else { bytes.div_ceil(4).saturating_add(scratch) }
    }
}

/// A trainable head: what it is asked to do, whichever trainer it is.
///
/// Image and state are the whole head: two heads of one image and one state that are asked the same answer and become the same,
/// byte for byte, on every machine. A request that is refused changes nothing; what not every trainer can do is refused unless it says how.
pub trait Head<'a>: Sized {
    /// The trainer, as errors name it.
    const NAME: &'static str;

    /// The head of `image`, in its initial state, in RAM of [`HeadSizes::words`].
    ///
    /// # Errors
    /// [`Error::NoHead`], [`Error::Field`] for a record that this trainer cannot run, [`Error::Length`] for RAM of another length.
    fn new(image: &Image<'a>, ram: &'a mut [u32]) -> Result<Self, Error>;

    /// What its memory depends on.
    fn sizes(&self) -> HeadSizes;

    /// Number of classes (or other outputs) at present.
    fn classes(&self) -> usize;

    /// Number of features.
    fn features(&self) -> usize;

    /// Real step of one unit of a logit at present.
    fn logit_scale(&self) -> f32;

    /// The integer logits of int8 features, one for each class.
    ///
    /// # Errors
    /// [`Error::Length`] if the number of features is another.
    fn logits(&mut self, features: &[i8]) -> Result<&[i32], Error>;

    /// The class with the largest logit, the first of equals.
    ///
    /// # Errors
    /// [`Error::Length`] if the number of features is another.
    fn predict(&mut self, features: &[i8]) -> Result<usize, Error> {
        let logits = self.logits(features)?;
        Ok((0..logits.len()).rev().max_by_key(|&class| logits[class]).unwrap_or(0))
    }

    /// The target that [`Target::word`] made a word.
    fn target(&self, word: u32) -> Target;

    /// Whether this head can learn from `target` now.
    ///
    /// # Errors
    /// [`Error::Label`] for a class that it does not have, [`Error::Unsupported`] for a target of another kind, [`Error::Full`] if its
    /// sums can hold no more.
    fn check(&self, target: Target) -> Result<(), Error>;

    /// Whether there are as many features as this head has.
    ///
    /// # Errors
    /// [`Error::Length`].
    fn check_features(&self, features: &[i8]) -> Result<(), Error> {
        Error::check_length("features", self.features(), features.len())
    }

    /// Learns from one sample.
    ///
    /// # Errors
    /// [`Error::Length`], or those of [`Head::check`].
    fn learn(&mut self, features: &[i8], target: Target) -> Result<(), Error>;

    /// Takes back, exactly, what [`Head::learn`] learnt from one sample.
    ///
    /// # Errors
    /// Those of [`Head::learn`]; [`Error::Unsupported`] where the past cannot be taken apart; [`Error::Field`] if the head cannot
    /// have learnt it.
    fn unlearn(&mut self, features: &[i8], target: Target) -> Result<(), Error> {
        let _ = (features, target);
        Err(Error::Unsupported { trainer: Self::NAME, request: "unlearn a sample" })
    }

    /// Passes over the ring, each in its own order: from a random sample on, by a random stride coprime to their number.
    ///
    /// Of one training these are the epochs `epochs`: which one it is decides the learning rate. A training whose samples do not fit the
    /// ring at once goes on with the next ones.
    ///
    /// # Errors
    /// [`Error::Unsupported`] unless [`HeadSizes::uses_ring`]; those of [`Head::learn`] if the ring holds what does not fit this head, which
    /// has then learnt what came before.
    fn train(&mut self, ring: &FeatureRing<'_>, epochs: Range<u32>) -> Result<(), Error> {
        let _ = (ring, epochs);
        Err(Error::Unsupported { trainer: Self::NAME, request: "learn from a sample more than once" })
    }

    /// Makes all that was learnt count in the logits; nothing to do where it does at once.
    fn commit(&mut self) {}

    /// Whether classes can be added and forgotten.
    ///
    /// # Errors
    /// [`Error::Unsupported`].
    fn check_growth(&self) -> Result<(), Error> {
        Err(Error::Unsupported { trainer: Self::NAME, request: "add or forget a class" })
    }

    /// Adds a class, of which nothing is known yet, and gives its index.
    ///
    /// # Errors
    /// [`Error::Full`] if the memory has no more room, [`Error::Unsupported`] if this trainer cannot.
    fn add_class(&mut self) -> Result<usize, Error> {
        self.check_growth().map(|()| self.classes())
    }

    /// Forgets all that was learnt of a class; it keeps its index.
    ///
    /// # Errors
    /// [`Error::Label`], [`Error::Unsupported`] if this trainer cannot.
    fn forget(&mut self, class: usize) -> Result<(), Error> {
        let _ = class;
        self.check_growth()
    }

    /// Adds what another head of this image has learnt, given its state: afterwards this one has learnt all samples of both.
    ///
    /// # Errors
    /// Those of [`Head::load`], [`Error::Full`], [`Error::Unsupported`] if this trainer cannot.
    fn merge(&mut self, state: &[u8]) -> Result<(), Error> {
        let _ = state;
        Err(Error::Unsupported { trainer: Self::NAME, request: "merge two heads exactly" })
    }

    /// The whole state, as bytes where it lies: [`HeadSizes::state_bytes`].
    fn state(&self) -> &[u8];

    /// Whether these bytes are a state of this head, as [`Head::state`] gives it.
    ///
    /// # Errors
    /// [`Error::Length`], or [`Error::Field`] for what no head holds.
    fn check_state(&self, state: &[u8]) -> Result<(), Error>;

    /// Lets `write` write over the state; what it leaves there must pass [`Head::check_state`].
    fn overwrite(&mut self, write: impl FnOnce(&mut [u8]));

    /// Takes over a state.
    ///
    /// # Errors
    /// Those of [`Head::check_state`]; the head is then unchanged.
    fn load(&mut self, state: &[u8]) -> Result<(), Error> {
        self.check_state(state)?;
        self.overwrite(|own| own.copy_from_slice(state));
        Ok(())
    }

    /// Takes over a state, and leaves the one it had in its place: doing it twice is doing nothing.
    ///
    /// # Errors
    /// Those of [`Head::check_state`]; head and `state` are then unchanged.
    fn exchange(&mut self, state: &mut [u8]) -> Result<(), Error> {
        self.check_state(state)?;
        self.overwrite(|own| own.swap_with_slice(state));
        Ok(())
    }

    /// Back to the state stored in the image.
    fn reset(&mut self);
}

/// The head of an image, whichever trainer it names: for programs that serve every model. Firmware for one model names its trainer.
pub enum AnyHead<'a> {
    /// Stochastic gradient descent.
    Sgd(SgdHead<'a>),
    /// Linear discriminant analysis.
    Lda(LdaHead<'a>),
    /// The nearest class mean.
    Prototype(PrototypeHead<'a>),
    /// Stochastic gradient descent on several layers.
    Layers(LayersHead<'a>),
}

/// The one head inside an [`AnyHead`].
macro_rules! inner {
    ($any:expr, $head:ident => $act:expr) => {
        match $any {
            AnyHead::Sgd($head) => $act,
            AnyHead::Lda($head) => $act,
            AnyHead::Prototype($head) => $act,
            AnyHead::Layers($head) => $act,
        }
    };
}

impl<'a> Head<'a> for AnyHead<'a> {
    const NAME: &'static str = "AnyHead";

    fn new(image: &Image<'a>, ram: &'a mut [u32]) -> Result<Self, Error> {
        let trainer = image.head().ok_or(Error::NoHead)?.trainer;
        match trainer {
            SgdHead::TRAINER => Head::new(image, ram).map(AnyHead::Sgd),
            LdaHead::TRAINER => Head::new(image, ram).map(AnyHead::Lda),
            PrototypeHead::TRAINER => Head::new(image, ram).map(AnyHead::Prototype),
            LayersHead::TRAINER => Head::new(image, ram).map(AnyHead::Layers),
            _ => Err(Error::Field { name: "head trainer", value: trainer.into() }),
        }
    }

    fn sizes(&self) -> HeadSizes {
        inner!(self, head => Head::sizes(head))
    }

    fn classes(&self) -> usize {
        inner!(self, head => Head::classes(head))
    }

    fn features(&self) -> usize {
        inner!(self, head => Head::features(head))
    }

    fn logit_scale(&self) -> f32 {
        inner!(self, head => Head::logit_scale(head))
    }

    fn logits(&mut self, features: &[i8]) -> Result<&[i32], Error> {
        inner!(self, head => Head::logits(head, features))
    }

    fn target(&self, word: u32) -> Target {
        inner!(self, head => Head::target(head, word))
    }

    fn check(&self, target: Target) -> Result<(), Error> {
        inner!(self, head => Head::check(head, target))
    }

    fn learn(&mut self, features: &[i8], target: Target) -> Result<(), Error> {
        inner!(self, head => Head::learn(head, features, target))
    }

    fn unlearn(&mut self, features: &[i8], target: Target) -> Result<(), Error> {
        inner!(self, head => Head::unlearn(head, features, target))
    }

    fn train(&mut self, ring: &FeatureRing<'_>, epochs: Range<u32>) -> Result<(), Error> {
        inner!(self, head => Head::train(head, ring, epochs))
    }

    fn commit(&mut self) {
        inner!(self, head => Head::commit(head));
    }

    fn check_growth(&self) -> Result<(), Error> {
        inner!(self, head => Head::check_growth(head))
    }

    fn add_class(&mut self) -> Result<usize, Error> {
        inner!(self, head => Head::add_class(head))
    }

    fn forget(&mut self, class: usize) -> Result<(), Error> {
        inner!(self, head => Head::forget(head, class))
    }

    fn merge(&mut self, state: &[u8]) -> Result<(), Error> {
        inner!(self, head => Head::merge(head, state))
    }

    fn state(&self) -> &[u8] {
        inner!(self, head => Head::state(head))
    }

    fn check_state(&self, state: &[u8]) -> Result<(), Error> {
        inner!(self, head => Head::check_state(head, state))
    }

    fn overwrite(&mut self, write: impl FnOnce(&mut [u8])) {
        inner!(self, head => Head::overwrite(head, write))
    }

    fn reset(&mut self) {
        inner!(self, head => Head::reset(head))
    }
}

/// Refuses a layer of more classes or features than `trainer` has room for.
#[cfg(feature = "alloc")]
pub(super) fn check_layer(trainer: u32, classes: usize, features: usize) -> Result<(), WriteError> {
    let most = HeadSizes::most(trainer).unwrap_or_default();
    for (name, number, most) in
        [("the layer's number of classes", classes, most.0), ("the layer's number of features", features, most.1)]
    {
        if number > most {
            return Err(WriteError::setting(name, number, format_args!("at most {most} for this trainer")));
        }
    }
    Ok(())
}

/// [`check_layer`], and refuses a capacity that is none.
#[cfg(feature = "alloc")]
pub(super) fn check_sums(trainer: u32, start: &SumsDescription, features: usize) -> Result<(), WriteError> {
    check_layer(trainer, start.classes, features)?;
    let most = HeadSizes::most(trainer).unwrap_or_default().0;
    if !(start.classes..=most).contains(&start.capacity) {
        let expected = format_args!("{}, the classes of the layer, to {most}", start.classes);
        return Err(WriteError::setting("capacity", start.capacity, expected));
    }
    Ok(())
}
