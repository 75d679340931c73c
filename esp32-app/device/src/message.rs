//! The messages, once for device and PC: serde types, written by postcard.
//!
//! Tensors travel as the bytes they have on the device: int8 as u8, integers little-endian. What does not fit a frame travels in
//! parts of at most [`Response::Info`]'s `frame_length` bytes: inputs by [`Request::Input`], everything else by [`Request::Read`] and
//! [`Request::WriteHead`].

use nano_core::train::Target;
use serde::{Deserialize, Serialize};

pub use crate::failure::Failure;
use crate::saved_head::{SavedHead, StorageError};

/// Version of the messages; raised whenever one changes. A frame of any version starts with its version, and the refusal of another one,
/// [`Failure::Protocol`], stays as it is for ever.
pub const PROTOCOL: u8 = 5;

/// What comes before each request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestHeader {
    /// [`PROTOCOL`] of the PC.
    pub protocol: u8,
    /// Comes back with the response. The same request with the same number, sent again because no answer arrived, is not
    /// executed again: the answer is repeated. 0: not numbered, always executed, as is [`Request::Info`].
    pub sequence: u16,
    /// The session that [`Request::Begin`] began; in another one, as after a restart of the device, it refuses. 0: in any.
    pub session: u16,
    /// The model this is meant for; a device with another one refuses.
    pub model_id: Option<u32>,
}

impl Default for RequestHeader {
    /// Not numbered, in any session, for any model.
    fn default() -> Self {
        RequestHeader { protocol: PROTOCOL, sequence: 0, session: 0, model_id: None }
    }
}

/// What comes before each response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResponseHeader {
    /// [`PROTOCOL`] of the device.
    pub protocol: u8,
    /// That of the request; 0 if it could not be read.
    pub sequence: u16,
}

/// What the PC asks. An `input` is what is still missing of one input (int8, NHWC) after the parts sent by [`Request::Input`].
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Request<'a> {
    /// From here on the session is that of this request's header. It is 0 when the device starts.
    Begin,
    /// What model is this, and how is it set?
    Info,
    /// Run the model on one input, and the head on its features.
    Predict {
        /// The input, or the rest of it.
        input: &'a [u8],
    },
    /// Run the model on one input, and not the head.
    Features {
        /// The input, or the rest of it.
        input: &'a [u8],
    },
    /// Run the model on one input and count each layer.
    Profile {
        /// The input, or the rest of it.
        input: &'a [u8],
    },
    /// Part of an input, in order.
    Input {
        /// Bytes sent before; 0 starts again.
        offset: u32,
        /// The next bytes.
        bytes: &'a [u8],
    },
    /// Learn from one input; a head that learns in epochs keeps its features for [`Request::Train`].
    Learn {
        /// What is right.
        #[serde(borrow)]
        label: Label<'a>,
        /// The input, or the rest of it.
        input: &'a [u8],
    },
    /// Begin a training of the head on the features kept, and take its first steps. The device answers after a bounded number of steps;
    /// [`Request::Continue`] goes on from there. The head becomes what it would in one piece, and Undo takes the whole training back.
    ///
    /// A training stays open until it is at its end, or another request ends it where it is: Stop, Begin, Train, Learn, Commit, Undo, Load,
    /// WriteHead, Reset. Others, Save among them, can come in between.
    Train {
        /// Epochs of the same training that came before, on which the learning rate may depend.
        first_epoch: u32,
        /// Passes over them. With those before, at most [`nano_core::train::LARGEST_EPOCHS`].
        epochs: u32,
    },
    /// Take the next steps of the open training.
    Continue,
    /// End the open training where it is.
    Stop,
    /// Make what was learnt count, in a head that learns sums.
    Commit,
    /// Take back the last request that changed the head or the features kept: Learn, Train with all its steps, Commit, AddClass, Forget,
    /// Load, ReplaceHead, Reset. Once.
    Undo,
    /// Add a class.
    AddClass {
        /// Its name, 1 to 16 bytes.
        name: &'a str,
    },
    /// Forget what was learnt of a class.
    Forget {
        /// Which.
        #[serde(borrow)]
        class: Class<'a>,
    },
    /// What is the class called?
    ClassName {
        /// Its index.
        class: u16,
    },
    /// The head back to the image's, the features kept forgotten.
    Reset,
    /// Save the head, the names of its classes and the settings in flash.
    Save {
        /// Also if that replaces the head of another model.
        replace: bool,
    },
    /// Load the head, names and settings that were saved last, or before if those are damaged.
    Load,
    /// Read part of something.
    Read {
        /// Of what.
        block: Block,
        /// From which byte on.
        offset: u32,
    },
    /// Part of a head's state for [`Request::ReplaceHead`], in order. From here on nothing can be undone until it is replaced.
    WriteHead {
        /// Bytes sent before; 0 starts again.
        offset: u32,
        /// The next bytes.
        bytes: &'a [u8],
    },
    /// Take over the head's state that was written.
    ReplaceHead {
        /// CRC-32 of it.
        checksum: u32,
    },
    /// Set how the device behaves; saved with the head.
    Configure {
        /// The new settings.
        settings: Settings,
    },
    /// Counters since the start.
    Stats,
}

/// What is right for an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Label<'a> {
    /// One class.
    #[serde(borrow)]
    Class(Class<'a>),
    /// All classes whose bit is set (bit 0 is class 0).
    Bits(u32),
    /// A number, in units of the head's logit scale.
    Value(i32),
}

/// Which [`Label`] a head learns from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TargetKind {
    /// [`Label::Class`].
    Class,
    /// [`Label::Bits`].
    Bits,
    /// [`Label::Value`].
    Value,
}

impl From<Target> for TargetKind {
    fn from(target: Target) -> Self {
        match target {
            Target::Class(_) => TargetKind::Class,
            Target::Labels(_) => TargetKind::Bits,
            Target::Value(_) => TargetKind::Value,
        }
    }
}

/// A class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Class<'a> {
    /// By its index.
    Index(u16),
    /// By its name.
    Name(&'a str),
}

/// What is read in parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Block {
    /// The graph's output of the last run, int8; with a head: the features.
    Output,
    /// The head's logits for the last run, i32.
    Logits,
    /// What the counter advanced in each layer of the last [`Request::Profile`], u32.
    Layers,
    /// The head's state.
    Head,
}

/// How a device behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// A prediction whose confidence (Q15, as [`nano_core::train::confidence`] defines it) is below this is of no known class.
    pub rejection: u16,
    /// After this many changes of the head it is saved by itself; 0: never. A training is one change, saved when it ends, unless what ends it is
    /// another training.
    pub save_interval: u32,
}

/// What the device answers: one response to each request.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Response<'a> {
    /// To a request that was refused; nothing has changed.
    Refused(Failure),
    /// To [`Request::Info`].
    Info {
        /// CRC-32 of the image.
        model_id: u32,
        /// Name of the model.
        name: &'a str,
        /// Bytes of one input.
        input_length: u32,
        /// Bytes of one output (with a head: of the features).
        output_length: u32,
        /// Number of layers.
        layers: u32,
        /// Classes of the head at present, 0 without one.
        classes: u32,
        /// The most classes it can have.
        class_capacity: u32,
        /// Bytes of the head's state.
        head_length: u32,
        /// Places for features; 0 for a head that learns each sample at once.
        ring_capacity: u32,
        /// Bytes of arena.
        arena_length: u32,
        /// Bytes of inputs, tensors or states that one frame takes.
        frame_length: u32,
        /// How it is set.
        settings: Settings,
        /// The head in flash that can be loaded, or why there is none.
        saved: Result<SavedHead, StorageError>,
        /// Whether the device started with a saved head.
        restored: bool,
        /// What the head learns from, if there is one.
        target: Option<TargetKind>,
    },
    /// To [`Request::Predict`]. Of long logits and outputs the first bytes: the rest is for [`Request::Read`].
    Prediction {
        /// Index of the largest logit (with a head) or output.
        class: u32,
        /// Its probability in Q15 ([`nano_core::train::confidence`]); `None` for a head whose classes do not exclude each other.
        confidence: Option<u16>,
        /// Whether that is not below [`Settings::rejection`].
        known: bool,
        /// What the board's counter advanced during the run: instructions or cycles.
        ticks: u64,
        /// Real step of one unit of a logit.
        logit_scale: f32,
        /// The head's logits, i32; empty without one.
        logits: &'a [u8],
        /// The graph's output, int8; with a head: the features.
        output: &'a [u8],
    },
    /// To [`Request::Features`]. Of long outputs the first bytes.
    Features {
        /// What the board's counter advanced during the run.
        ticks: u64,
        /// The graph's output, int8.
        output: &'a [u8],
    },
    /// To [`Request::Profile`]. Of many layers the first.
    Profile {
        /// What the board's counter advanced in each layer, u32.
        layers: &'a [u8],
    },
    /// To [`Request::Input`] and [`Request::WriteHead`].
    Received {
        /// Bytes so far.
        length: u32,
    },
    /// To [`Request::Learn`].
    Learned {
        /// Samples kept for training; 0 for a head that learns each at once.
        samples: u32,
        /// What the board's counter advanced.
        ticks: u64,
    },
    /// To [`Request::Train`], [`Request::Continue`] and [`Request::Stop`].
    Trained {
        /// Steps taken since the training began.
        steps: u64,
        /// Steps left: 0 at its end. Those that [`Request::Stop`] left out.
        left: u64,
        /// What the board's counter advanced since the training began.
        ticks: u64,
    },
    /// To [`Request::Commit`].
    Committed {
        /// What the board's counter advanced.
        ticks: u64,
    },
    /// To [`Request::Begin`], [`Request::Undo`], [`Request::Forget`], [`Request::Reset`], [`Request::ReplaceHead`], [`Request::Configure`].
    Done,
    /// To [`Request::AddClass`].
    ClassAdded {
        /// Its index.
        class: u32,
    },
    /// To [`Request::ClassName`].
    ClassName {
        /// The name; empty if it has none.
        name: &'a str,
    },
    /// To [`Request::Save`].
    Saved {
        /// How many heads were saved in this flash.
        count: u32,
    },
    /// To [`Request::Load`].
    Loaded(SavedHead),
    /// To [`Request::Read`].
    Part {
        /// Bytes in all.
        length: u32,
        /// Changes of the head so far: parts of one state agree on it.
        changes: u32,
        /// The bytes from the offset on, as many as a frame takes.
        bytes: &'a [u8],
    },
    /// To [`Request::Stats`].
    Stats(Stats),
}

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Requests executed or refused, repeated ones not counted.
    pub requests: u32,
    /// Requests that were refused.
    pub refused_requests: u32,
    /// Frames that were no requests: damaged, too long, of another protocol version, of another session or for another model.
    pub refused_frames: u32,
    /// Requests that arrived again and were answered again.
    pub repeated: u32,
    /// Runs of the model.
    pub runs: u32,
    /// Samples learnt.
    pub learned: u32,
    /// Steps of training.
    pub steps: u32,
    /// Changes of the head.
    pub changes: u32,
    /// Heads saved.
    pub saves: u32,
    /// Heads that could not be saved, those saved by themselves included.
    pub failed_saves: u32,
    /// What the board's counter, which is 0 when the board starts, had reached when the session was ready: the cost of checking the image and
    /// loading the head.
    pub startup_ticks: u64,
}
