//! The class that a model's first output, or the logits of its head, name.

use core::slice;

use zerocopy::IntoBytes;

use crate::image::{Dtype, Value};
use crate::train::confidence;

/// A class, and how sure the model is of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Prediction {
    /// Index of the largest logit (with a head), or of the largest element of the first output; the first element of an output of indices.
    pub class: u32,
    /// Its probability in Q15 ([`confidence`]); `None` for a head whose classes do not exclude each other, and for an output of indices.
    pub confidence: Option<u16>,
}

impl Prediction {
    /// The prediction of a head's logits, of which one is `scale`; `exclusive` unless several classes, or none, may be right.
    pub fn of_logits(logits: &[i32], scale: f32, exclusive: bool) -> Self {
        Self::of_elements(Elements::new(Dtype::Int32, logits.as_bytes()), scale, exclusive)
    }

    // Once in a program.
    #[inline(never)]
    fn of_elements(elements: Elements<'_>, scale: f32, exclusive: bool) -> Self {
        let class = elements.clone().largest();
        Prediction { class, confidence: exclusive.then(|| confidence(elements, scale)) }
    }

    /// The prediction of an output, `elements` of `value` as [`Model::output`](crate::Model::output) returns them; `is_softmax` if they are probabilities
    /// ([`CheckedImage::ends_in_softmax`](crate::CheckedImage::ends_in_softmax)).
    pub fn of_output(value: &Value, elements: &[i8], is_softmax: bool) -> Self {
        let mut elements = Elements::new(value.dtype(), elements.as_bytes());
        if value.holds_indices() {
            // A model that ends in an argmax returns the class itself.
            return Prediction { class: elements.next().map_or(0, |index| index as u32), confidence: None };
        }
        let made = Self::of_elements(elements.clone(), value.scale, !is_softmax);
        if !is_softmax {
            return made;
        }
        // Its output is probability * 256 - 128.
        let probability = elements.nth(made.class as usize);
        Prediction { confidence: probability.map(|q| ((q + 128) << 7) as u16), ..made }
    }
}

/// The elements of a tensor, each as 32 bits.
#[derive(Clone)]
enum Elements<'a> {
    Int8(slice::Iter<'a, u8>),
    Int16(slice::Iter<'a, [u8; 2]>),
    Int32(slice::Iter<'a, [u8; 4]>),
}

impl<'a> Elements<'a> {
    /// Those of little-endian bytes.
    fn new(dtype: Dtype, bytes: &'a [u8]) -> Self {
        match dtype {
            Dtype::Int8 => Elements::Int8(bytes.iter()),
            Dtype::Int16 => Elements::Int16(bytes.as_chunks().0.iter()),
            Dtype::Int32 => Elements::Int32(bytes.as_chunks().0.iter()),
        }
    }

    /// Index of the largest, the first of equals.
    fn largest(self) -> u32 {
        let mut best = (0, i32::MIN);
        for (index, element) in self.enumerate() {
            if element > best.1 {
                best = (index, element);
            }
        }
        best.0 as u32
    }
}

impl Iterator for Elements<'_> {
    type Item = i32;

    #[inline(never)]
    fn next(&mut self) -> Option<i32> {
        match self {
            Elements::Int8(bytes) => bytes.next().map(|&byte| i32::from(byte as i8)),
            Elements::Int16(bytes) => bytes.next().map(|&bytes| i16::from_le_bytes(bytes).into()),
            Elements::Int32(bytes) => bytes.next().map(|&bytes| i32::from_le_bytes(bytes)),
        }
    }
}
