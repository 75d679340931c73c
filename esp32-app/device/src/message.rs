//! The messages, shared by device and PC: serde types, encoded by postcard.
//!
//! Tensors are sent as their bytes on the device: int8 as u8, integers little-endian. An input is the bytes of all inputs of the graph, one after the
//! other, and an output likewise; [`Request::Describe`] returns name, type and shape of each. Data longer than a frame is sent in parts of at most
//! [`Response::Info`]'s `frame_length` bytes: inputs by [`Request::Input`], everything else by [`Request::Read`] and [`Request::WriteHead`]. A part of
//! the output ends where an output of the graph ends.

use serde::{Deserialize, Serialize};

pub use crate::failure::Failure;
pub use crate::request::{Block, Class, GraphValue, Label, Request};
pub use crate::response::{ElementType, Response, Stats, TargetKind};

/// Version of the messages; raised whenever one changes. A frame of any version starts with its version, and the answer to a wrong one,
/// [`Failure::Protocol`], never changes.
pub const PROTOCOL: u8 = 10;

/// What a [`Report`](crate::Report) starts with, in a frame of its own between answers. It is no response: a program without reports does not link them.
pub const REPORT: u8 = PROTOCOL | 0x80;

/// What a [`SamplePart`](crate::SamplePart) starts with, in a frame of its own between answers.
pub const SAMPLE: u8 = PROTOCOL | 0x40;

/// The header before each request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct RequestHeader {
    /// [`PROTOCOL`] of the PC.
    pub protocol: u8,
    /// Comes back with the response. The same request with the same number, sent again because no answer arrived, is not
    /// executed again: the answer is repeated. 0: not numbered, always executed, as is [`Request::Info`].
    pub sequence: u16,
    /// The session that [`Request::Begin`] began; in another one, as after a restart of the device, the request fails. 0: any session.
    pub session: u16,
    /// The model that the request is for; on a device with another one it fails.
    pub model_id: Option<u32>,
}

impl Default for RequestHeader {
    /// Not numbered, in any session, for any model.
    fn default() -> Self {
        RequestHeader { protocol: PROTOCOL, sequence: 0, session: 0, model_id: None }
    }
}

/// The header before each response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ResponseHeader {
    /// [`PROTOCOL`] of the device.
    pub protocol: u8,
    /// That of the request; 0 if it could not be read.
    pub sequence: u16,
}

/// How a device behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Settings {
    /// A prediction whose confidence (Q15, as [`nano_core::train::certainty`] defines it) is below this is of no known class.
    pub rejection: u16,
    /// After this many changes of the head it is saved automatically; 0: never. A training is one change, saved when it ends, unless what ends it is
    /// another training.
    pub save_interval: u32,
}
