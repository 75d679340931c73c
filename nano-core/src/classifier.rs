//! A model with its head, for a program about one model.

use zerocopy::{FromBytes, IntoBytes};

use crate::Error;
use crate::image::{Element, Image};
use crate::model::{CheckedImage, Model};
use crate::operator::CheckedPart;
use crate::prediction::{Logits, Prediction};
use crate::train::{AnyHead, FeatureRing, Head, HeadSizes, Rejection, Target, Training, only_once};

/// The RAM of a [`Classifier`], its sizes known when a program is built.
///
/// `ARENA` is [`Image::arena_length`] in words, `HEAD` is [`HeadSizes::words`], 0 without a head. A head that [learns in
/// epochs](HeadSizes::uses_ring) has a ring for the `FEATURES` of the latest `RING` samples; for others both are 0.
#[repr(C, align(16))]
pub struct Memory<const ARENA: usize, const HEAD: usize, const FEATURES: usize, const RING: usize> {
    arena: [u32; ARENA],
    head: [u32; HEAD],
    features: [[i8; FEATURES]; RING],
    targets: [u32; RING],
}

impl<const ARENA: usize, const HEAD: usize, const FEATURES: usize, const RING: usize>
    Memory<ARENA, HEAD, FEATURES, RING>
{
    /// All zeros, for a static.
    pub const fn new() -> Self {
        Memory { arena: [0; ARENA], head: [0; HEAD], features: [[0; FEATURES]; RING], targets: [0; RING] }
    }
}

impl<const ARENA: usize, const HEAD: usize, const FEATURES: usize, const RING: usize> Default
    for Memory<ARENA, HEAD, FEATURES, RING>
{
    fn default() -> Self {
        Self::new()
    }
}

/// A model that classifies, and a head that learns.
///
/// A program gives the model an input with [`Classifier::set_input`], [classifies](Classifier::classify) it or only [runs](Classifier::run) the model, and may
/// then [name its label](Classifier::learn). The trainer `H` is named by a program for one model, and no other is linked;
/// [`NoHead`](crate::train::NoHead) without a head. The crate that `nano.export(folder, crate=True)` writes has all types and sizes of a model.
///
/// ```
/// use nano_core::train::Target;
/// use nano_core::{CheckedImage, Classifier, Error, Memory, ops};
///
/// /// Learns the windows of two classes, and classifies one.
/// fn personalize(image: &[u8], windows: [&[f32]; 2], unseen: &[f32]) -> Result<u32, Error> {
///     let mut memory = Memory::<1024, 512, 16, 64>::new();
///     let mut classifier = Classifier::<nano_core::train::AnyHead>::new(CheckedImage::new(image, ops::ALL)?, &mut memory)?;
///     for (window, class) in windows.into_iter().zip(0..) {
///         classifier.set_input(0, window)?;
///         classifier.run();
///         classifier.learn(Target::Class(class))?;
///     }
///     classifier.train(20)?;
///     classifier.set_input(0, unseen)?;
///     Ok(classifier.classify().class)
/// }
/// # assert_eq!(personalize(b"GIF89a", [&[]; 2], &[]), Err(Error::NotAnImage));
/// ```
pub struct Classifier<'a, H = AnyHead<'a>> {
    model: Model<'a>,
    head: Option<H>,
    ring: Option<FeatureRing<'a>>,
    ends_in_softmax: bool,
    /// Whether the arena holds the outputs of a run: an input may have their place.
    ran: bool,
}

impl<'a, H: Head<'a>> Classifier<'a, H> {
    /// The model of `image`, its states at their start, its head as in the image.
    ///
    /// # Errors
    /// [`Error::ArenaTooSmall`]; [`Error::Length`] if the head or the ring needs another memory; what [`Head::new`] refuses.
    pub fn new<const ARENA: usize, const HEAD: usize, const FEATURES: usize, const RING: usize>(
        image: CheckedImage<'a>,
        memory: &'a mut Memory<ARENA, HEAD, FEATURES, RING>,
    ) -> Result<Self, Error> {
        let Memory { arena, head, features, targets } = memory;
        let sizes = image.image().head().map(HeadSizes::of);
        let ring = match sizes {
            Some(sizes) if sizes.uses_ring() => {
                Some(FeatureRing::new(sizes.features, features.as_flattened_mut(), targets)?)
            }
            _ => None,
        };
        let head = sizes.map(|_| H::new(image.image(), head)).transpose()?;
        let arena = <[i8]>::mut_from_bytes(arena.as_mut_bytes()).unwrap_or_default();
        let (model, ends_in_softmax) = (image.bind(arena)?, image.ends_in_softmax());
        Ok(Classifier { model, head, ring, ends_in_softmax, ran: false })
    }

    /// The image.
    pub fn image(&self) -> &Image<'a> {
        self.model.image()
    }

    /// Graph output `index` of the latest run: [`Model::output`].
    ///
    /// # Panics
    /// If there is no such output.
    pub fn output(&self, index: usize) -> &[i8] {
        self.model.output(index)
    }

    /// The elements of graph output `index`: [`Model::output_elements`].
    ///
    /// # Panics
    /// If there is no such output, or its dtype is another.
    pub fn output_elements<T: Element>(&self, index: usize) -> &[T] {
        self.model.output_elements(index)
    }

    /// The memory of graph input `index`, for integers: [`Model::input`].
    ///
    /// # Panics
    /// If there is no such input.
    pub fn input(&mut self, index: usize) -> &mut [i8] {
        self.ran = false;
        self.model.input(index)
    }

    /// The elements of graph input `index`, for integers: [`Model::input_elements`].
    ///
    /// # Panics
    /// If there is no such input, or its dtype is another.
    pub fn input_elements<T: Element>(&mut self, index: usize) -> &mut [T] {
        self.ran = false;
        self.model.input_elements(index)
    }

    /// The head, unless the model has none.
    pub fn head(&self) -> Option<&H> {
        self.head.as_ref()
    }

    /// The head, to add and forget classes, to load a state, or to reset it.
    ///
    /// # Errors
    /// [`Error::NoHead`].
    pub fn head_mut(&mut self) -> Result<&mut H, Error> {
        self.head.as_mut().ok_or(Error::NoHead)
    }

    /// Quantizes real numbers, height, width, channels, into graph input `index`: see [`Image::quantize_input`].
    ///
    /// # Errors
    /// [`Error::Length`] unless there is a number for each element.
    ///
    /// # Panics
    /// If there is no such input.
    pub fn set_input(&mut self, index: usize, reals: &[f32]) -> Result<(), Error> {
        let image = *self.model.image();
        Error::check_length("input", image.input(index).len(), reals.len())?;
        image.quantize_input(index, reals, self.input(index));
        Ok(())
    }

    /// Runs the model on its inputs. A model with states takes a step.
    pub fn run(&mut self) {
        self.model.run();
        self.ran = true;
    }

    /// Resets all states of the model to their start: [`Model::reset`].
    pub fn reset_states(&mut self) {
        self.model.reset();
        self.ran = false;
    }

    /// Runs the model on its inputs, and the head on its features.
    pub fn classify(&mut self) -> Prediction {
        self.run();
        let (output, value) = (self.model.output(0), self.model.image().output(0));
        match (&mut self.head, self.model.image().head()) {
            (Some(head), Some(record)) => {
                let rejection = Rejection::of(self.model.image(), record);
                // Loading has checked the number of features.
                Prediction::of_logits(Logits::of(head, rejection, output).ok().checked_part())
            }
            _ => Prediction::of_output(value, output, self.ends_in_softmax),
        }
    }

    /// The head's logits for the latest run, in units of [`Head::logit_scale`].
    ///
    /// # Errors
    /// [`Error::NoHead`]; [`Error::Unsupported`] if the model has not run on its latest input.
    pub fn logits(&mut self) -> Result<&[i32], Error> {
        self.check_ran()?;
        self.head.as_mut().ok_or(Error::NoHead)?.logits(self.model.output(0))
    }

    fn check_ran(&self) -> Result<(), Error> {
        let unsupported =
            Error::Unsupported { trainer: H::NAME, request: "use an input on which the model has not run" };
        if self.ran || self.head.is_none() { Ok(()) } else { Err(unsupported) }
    }

    /// The name of a class in the image; empty if it has none.
    pub fn name(&self, class: u32) -> &'a str {
        self.model.image().metadata("label").nth(class as usize).unwrap_or_default()
    }

    /// Learns that the input of the latest run is of `target`. A head that learns in epochs keeps its features for [`Classifier::train`]; another learns from
    /// them at once.
    ///
    /// # Errors
    /// [`Error::NoHead`]; [`Error::Unsupported`] if the model has not run on its latest input; those of [`Head::check`].
    pub fn learn(&mut self, target: Target) -> Result<(), Error> {
        self.check_ran()?;
        let head = self.head.as_mut().ok_or(Error::NoHead)?;
        head.check(target)?;
        match &mut self.ring {
            Some(ring) => ring.push(self.model.output(0), target),
            None => head.learn(self.model.output(0), target),
        }
    }

    /// Computes the weights from what was learnt: in a head that learns in epochs by so many passes over the samples it keeps, in one that learns sums from
    /// those, in which case `epochs` is ignored. A program that has no time for it at once calls [`Classifier::begin_training`].
    ///
    /// It visits all samples and is not judged, whatever the image's guard is: that takes a copy of the head's state, as a device with a link has.
    ///
    /// # Errors
    /// [`Error::NoHead`]; [`Error::Epochs`] for too many.
    pub fn train(&mut self, epochs: u32) -> Result<(), Error> {
        if self.ring.is_none() {
            self.head_mut()?.commit();
            return Ok(());
        }
        let mut training = self.begin_training(0, epochs)?;
        while training.left() > 0 {
            self.train_steps(&mut training, u32::MAX)?;
        }
        Ok(())
    }

    /// A training of `epochs` passes over the samples kept, after `first_epoch` earlier ones, on which the learning rate may depend.
    ///
    /// # Errors
    /// [`Error::NoHead`]; [`Error::Unsupported`] for a head that does not learn in epochs; [`Error::Epochs`].
    pub fn begin_training(&self, first_epoch: u32, epochs: u32) -> Result<Training, Error> {
        self.head.as_ref().ok_or(Error::NoHead)?;
        Training::new(self.ring.as_ref().ok_or(only_once(H::NAME))?, first_epoch, epochs)
    }

    /// Takes at most `most` steps of a training, each of one sample; the head becomes what it would in one piece.
    ///
    /// # Errors
    /// [`Error::NoHead`], and those of [`Head::train`], such as for a sample learnt since the training began.
    pub fn train_steps(&mut self, training: &mut Training, most: u32) -> Result<(), Error> {
        let head = self.head.as_mut().ok_or(Error::NoHead)?;
        head.train(self.ring.as_ref().ok_or(only_once(H::NAME))?, training, most)
    }

    /// Number of samples kept for training.
    pub fn samples(&self) -> usize {
        self.ring.as_ref().map_or(0, FeatureRing::len)
    }

    /// Forgets the samples kept.
    pub fn clear_samples(&mut self) {
        if let Some(ring) = &mut self.ring {
            ring.clear();
        }
    }
}
