//! The head of an image, whichever trainer it names.

use crate::Error;
use crate::image::Image;
use crate::train::{FeatureRing, Head, HeadSizes, LayersHead, LdaHead, PrototypeHead, SgdHead, Target, Training};

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

    fn macs(&self) -> u64 {
        inner!(self, head => Head::macs(head))
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

    fn train(&mut self, ring: &FeatureRing<'_>, training: &mut Training, most: u32) -> Result<(), Error> {
        inner!(self, head => Head::train(head, ring, training, most))
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
