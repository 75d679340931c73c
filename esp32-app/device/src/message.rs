//! The messages, once for device and PC: serde types, written by postcard.
//!
//! Tensors travel as the bytes they have on the device: int8 as u8, integers little-endian.

use nano_core::Error;
use serde::{Deserialize, Serialize};

/// Version of the messages; raised whenever one changes.
pub const PROTOCOL: u16 = 1;

/// What the PC asks.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Request<'a> {
    /// What model is this?
    Info,
    /// Run the model on one input.
    Predict {
        /// int8, NHWC.
        input: &'a [u8],
    },
    /// Run the model on one input and count each layer.
    Profile {
        /// int8, NHWC.
        input: &'a [u8],
    },
    /// Keep the features of one input, with its label, in the ring that [`Request::Train`] learns from.
    Learn {
        /// The right class.
        label: u16,
        /// int8, NHWC.
        input: &'a [u8],
    },
    /// Train the head on the ring.
    Train {
        /// Passes over the ring.
        epochs: u32,
    },
    /// Read the head's state.
    ReadHead,
    /// The head back to the image's, the ring empty.
    Reset,
}

/// What the device answers: one response to each request.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Response<'a> {
    /// To [`Request::Info`].
    Info {
        /// [`PROTOCOL`] of the device.
        protocol: u16,
        /// CRC-32 of the image.
        model_id: u32,
        /// Name of the model.
        name: &'a str,
        /// Bytes of one input.
        input_length: u32,
        /// Bytes of one output (with a head: of the features).
        output_length: u32,
        /// Classes of the head, 0 without one.
        classes: u32,
        /// Places of the ring.
        ring_capacity: u32,
        /// Bytes of arena.
        arena_length: u32,
    },
    /// To [`Request::Predict`].
    Prediction {
        /// Index of the largest logit (with a head) or output.
        class: u32,
        /// The graph's output, int8; with a head: the features.
        output: &'a [u8],
        /// The head's logits, i32; empty without one.
        logits: &'a [u8],
        /// What the board's counter advanced during the run: instructions or cycles.
        ticks: u64,
    },
    /// To [`Request::Profile`].
    Profile {
        /// What the board's counter advanced in each layer, u32.
        layers: &'a [u8],
    },
    /// To [`Request::Learn`].
    Learned {
        /// Samples in the ring.
        samples: u32,
    },
    /// To [`Request::Train`].
    Trained {
        /// Steps taken.
        steps: u32,
        /// What the board's counter advanced.
        ticks: u64,
    },
    /// To [`Request::ReadHead`].
    Head {
        /// The state, as `SgdHead::state` gives it.
        state: &'a [u8],
    },
    /// To [`Request::Reset`].
    Reset,
    /// To a request that was refused; nothing has changed.
    Refused(Failure),
}

/// Why a request was refused.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Failure {
    /// The frame is no message: damaged, or of another protocol version.
    Frame,
    /// The frame is longer than any request this model takes.
    TooLong {
        /// Bytes a frame may have.
        limit: u32,
    },
    /// The input has the wrong length.
    Input {
        /// Bytes needed.
        needed: u32,
        /// Bytes given.
        given: u32,
    },
    /// The model has no trainable head.
    NoHead,
    /// The label is not below the number of classes.
    Label {
        /// The label given.
        label: u32,
        /// Number of classes.
        classes: u32,
    },
    /// There is nothing to train on: the ring is empty.
    EmptyRing,
    /// nano-core refused it for another reason.
    Other,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::NoHead => Failure::NoHead,
            Error::Label { label, classes } => Failure::Label { label: label as u32, classes: classes as u32 },
            Error::Length { needed, given, .. } => Failure::Input { needed: needed as u32, given: given as u32 },
            _ => Failure::Other,
        }
    }
}
