//! The trainer of a model without a head.

use crate::Error;
use crate::image::Image;
use crate::train::head::Head;
use crate::train::sizes::HeadSizes;
use crate::train::target::Target;

/// The trainer that a program for a model without a head names. The type has no values, so no code is linked for it.
pub enum NoHead {}

impl<'a> Head<'a> for NoHead {
    const NAME: &'static str = "NoHead";

    fn runs(_: u32) -> bool {
        false
    }

    fn new(_: &Image<'a>, _: &'a mut [u32]) -> Result<Self, Error> {
        Err(Error::NoHead)
    }

    fn sizes(&self) -> HeadSizes {
        match *self {}
    }

    fn classes(&self) -> usize {
        match *self {}
    }

    fn features(&self) -> usize {
        match *self {}
    }

    fn logit_scale(&self) -> f32 {
        match *self {}
    }

    fn logits(&mut self, _: &[i8]) -> Result<&[i32], Error> {
        match *self {}
    }

    fn target(&self, _: u32) -> Target {
        match *self {}
    }

    fn check(&self, _: Target) -> Result<(), Error> {
        match *self {}
    }

    fn learn(&mut self, _: &[i8], _: Target) -> Result<(), Error> {
        match *self {}
    }

    fn state(&self) -> &[u8] {
        match *self {}
    }

    fn check_state(&self, _: &[u8]) -> Result<(), Error> {
        match *self {}
    }

    fn overwrite(&mut self, _: impl FnOnce(&mut [u8])) {
        match *self {}
    }

    fn reset(&mut self) {
        match *self {}
    }
}
