//! What the device answers.

use nano_core::image::Dtype;
use nano_core::train::Target;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::message::Settings;
#[cfg(doc)]
use crate::request::{Block, Label, Request};
use crate::saved_head::{SavedHead, StorageError};
use crate::update::UpdateState;

/// What the device answers: one response to each request.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Response<'a> {
    /// To a request that was refused; nothing has changed.
    Refused(Failure),
    /// To [`Request::Info`].
    Info {
        /// CRC-32 of the image.
        model_id: u32,
        /// Name of the model.
        name: &'a str,
        /// Number of inputs of the graph.
        inputs: u32,
        /// Number of outputs of the graph; with a head the first is the features.
        outputs: u32,
        /// Whether the model has states, which live from run to run.
        has_states: bool,
        /// Bytes of all inputs for one run.
        input_length: u32,
        /// Bytes of all outputs of one run.
        output_length: u32,
        /// Number of counts of a profile: the layers, and the head.
        layers: u32,
        /// Classes of the head at present, 0 without one.
        classes: u32,
        /// The most classes it can have.
        class_capacity: u32,
        /// Bytes of the head's state.
        head_length: u32,
        /// Samples that the ring buffer of features holds; 0 for a head that learns each sample at once.
        ring_capacity: u32,
        /// Bytes of arena.
        arena_length: u32,
        /// Bytes of inputs, tensors or states that one frame takes.
        frame_length: u32,
        /// The device's settings.
        settings: Settings,
        /// The head in flash that can be loaded, or the reason why none can.
        saved: Result<SavedHead, StorageError>,
        /// Whether the device started with a saved head.
        restored: bool,
        /// What the head learns from, if there is one.
        target: Option<TargetKind>,
        /// The slots for updates, and which image runs.
        update: UpdateState,
    },
    /// To [`Request::Describe`].
    Description {
        /// Its name, which no other input, or no other output, has.
        name: &'a str,
        /// Type of its elements.
        elements: ElementType,
        /// Height, width, channels.
        shape: [u32; 3],
        /// Real step of one integer.
        scale: f32,
        /// The integer that stands for 0.0.
        zero_point: i32,
        /// Bytes of [`Block::Channels`]; 0 for an output.
        channels_length: u32,
    },
    /// To [`Request::Predict`]. Of long logits and outputs, and of several outputs, the first bytes: [`Request::Read`] reads the rest.
    Prediction {
        /// Index of the largest logit (with a head), or of the largest element of the first output; the first element of an output of indices.
        class: u32,
        /// Its probability in Q15 ([`nano_core::train::certainty`]); `None` for a head whose classes do not exclude each other, and for
        /// an output of indices.
        confidence: Option<u16>,
        /// By how much it exceeds that of the second class, in Q15: a label would help most where it is least. `None` as the confidence.
        margin: Option<u16>,
        /// Whether the input is of any class that the head knows, and the confidence not below [`Settings::rejection`].
        known: bool,
        /// What the board's counter advanced during the run: instructions or cycles.
        ticks: u64,
        /// Real step of one unit of a logit.
        logit_scale: f32,
        /// The head's logits, i32; empty without one.
        logits: &'a [u8],
        /// The graph's first output; with a head: the features.
        output: &'a [u8],
    },
    /// To [`Request::Features`]. Of long outputs, and of several, the first bytes.
    Features {
        /// What the board's counter advanced during the run.
        ticks: u64,
        /// The graph's first output.
        output: &'a [u8],
    },
    /// To [`Request::Profile`]. Of many layers the first.
    Profile {
        /// What the board's counter advanced in each layer, u32.
        layers: &'a [u8],
    },
    /// To [`Request::Input`], [`Request::WriteHead`], [`Request::BeginUpdate`] and [`Request::WriteUpdate`].
    Received {
        /// Bytes so far.
        length: u32,
    },
    /// To [`Request::Learn`] and [`Request::Label`].
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
        /// Whether the training has ended and was taken back, because it had not made the head better on the samples kept aside.
        taken_back: bool,
    },
    /// To [`Request::FinishUpdate`].
    Updated {
        /// The number of the update: one more than that of the image that it replaces.
        count: u32,
        /// Whether its head is the same as that of the model which runs, so that the saved head goes on.
        same_head: bool,
    },
    /// To [`Request::Commit`].
    Committed {
        /// What the board's counter advanced.
        ticks: u64,
    },
    /// To [`Request::Begin`], [`Request::ResetStates`], [`Request::Undo`], [`Request::Forget`], [`Request::Reset`], [`Request::ReplaceHead`],
    /// [`Request::Configure`], [`Request::ConfirmUpdate`], [`Request::Restart`], [`Request::SendSamples`], [`Request::StopSamples`].
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

/// The type of a tensor's elements, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum ElementType {
    /// One byte.
    Int8,
    /// Two bytes.
    Int16,
    /// Four bytes.
    Int32,
}

impl From<Dtype> for ElementType {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::Int8 => ElementType::Int8,
            Dtype::Int16 => ElementType::Int16,
            Dtype::Int32 => ElementType::Int32,
        }
    }
}

impl From<ElementType> for Dtype {
    fn from(elements: ElementType) -> Self {
        match elements {
            ElementType::Int8 => Dtype::Int8,
            ElementType::Int16 => Dtype::Int16,
            ElementType::Int32 => Dtype::Int32,
        }
    }
}

/// Which [`Label`] a head learns from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
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

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
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
    /// Trainings that were taken back.
    pub taken_back: u32,
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
