//! The class that a model's first output, or the logits of its head, name.

use core::slice;

use zerocopy::IntoBytes;

use crate::Error;
use crate::image::{Dtype, Value};
use crate::train::{Head, Rejection, Target, certainty};

/// A class, and how sure the model is of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Prediction {
    /// Index of the largest logit (with a head), or of the largest element of the first output; the first element of an output of indices.
    pub class: u32,
    /// Its probability in Q15 ([`certainty`]); `None` for a head whose classes do not exclude each other, and for an output of indices.
    pub confidence: Option<u16>,
    /// By how much it exceeds that of the second class, in Q15: a label would help most where it is least. `None` as the confidence.
    pub margin: Option<u16>,
    /// Whether the input is of any class that the head knows ([`Rejection`]); true without a head.
    pub known: bool,
}

/// The logits of a head, and what they mean.
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Logits<'l> {
    /// One for each class.
    pub values: &'l [i32],
    /// Real step of one unit.
    pub scale: f32,
    /// Whether one class is right: else several, or none, may be.
    pub exclusive: bool,
    /// Of [`certainty`].
    pub temperature: i32,
    /// As [`Prediction::known`].
    pub known: bool,
}

impl<'l> Logits<'l> {
    /// Those of a head for features.
    ///
    /// # Errors
    /// [`Error::Length`] if the number of features is another.
    pub fn of<'a, H: Head<'a>>(head: &'l mut H, rejection: Rejection<'_>, features: &[i8]) -> Result<Self, Error> {
        head.check_features(features)?;
        let (scale, exclusive) = (head.logit_scale(), matches!(head.target(0), Target::Class(_)));
        let (temperature, known) = (rejection.temperature, rejection.knows(head, features));
        Ok(Logits { values: head.logits(features)?, scale, exclusive, temperature, known })
    }
}

impl Prediction {
    /// The prediction of a head's logits.
    pub fn of_logits(logits: Logits<'_>) -> Self {
        let Logits { values, scale, exclusive, temperature, known } = logits;
        let elements = Elements::new(Dtype::Int32, values.as_bytes());
        Prediction { known, ..Self::of_elements(elements, scale, exclusive, temperature) }
    }

    // Once in a program.
    #[inline(never)]
    fn of_elements(elements: Elements<'_>, scale: f32, exclusive: bool, temperature: i32) -> Self {
        let class = elements.clone().largest();
        let (mut confidence, mut margin) = (None, None);
        if exclusive {
            let made = certainty(elements, scale, temperature);
            (confidence, margin) = (Some(made.confidence), Some(made.margin));
        }
        Prediction { class, confidence, margin, known: true }
    }

    /// The prediction of an output, `elements` of `value` as [`Model::output`](crate::Model::output) returns them; `is_softmax` if they are probabilities
    /// ([`CheckedImage::ends_in_softmax`](crate::CheckedImage::ends_in_softmax)).
    pub fn of_output(value: &Value, elements: &[i8], is_softmax: bool) -> Self {
        let mut elements = Elements::new(value.dtype(), elements.as_bytes());
        if value.holds_indices() {
            // A model that ends in an argmax returns the class itself.
            let class = elements.next().map_or(0, |index| index as u32);
            return Prediction { class, confidence: None, margin: None, known: true };
        }
        let made = Self::of_elements(elements.clone(), value.scale, !is_softmax, 0);
        if !is_softmax {
            return made;
        }
        // Its output is probability * 256 - 128.
        let (largest, second) = elements.largest_two();
        let margin = largest.saturating_sub(second.max(-128));
        Prediction { confidence: Some(((largest + 128) << 7) as u16), margin: Some((margin << 7) as u16), ..made }
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

    /// The largest element, and the next; i32::MIN in place of one that is not there.
    fn largest_two(self) -> (i32, i32) {
        self.fold((i32::MIN, i32::MIN), |(largest, second), element| {
            (element.max(largest), second.max(element.min(largest)))
        })
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
