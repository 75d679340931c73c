//! What the PC asks.

use serde::{Deserialize, Serialize};

use crate::message::Settings;

/// What the PC asks. An `input` is the bytes of all inputs of the graph for one run, each in NHWC order, that are still missing after the parts sent by
/// [`Request::Input`].
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Request<'a> {
    /// Sets the session to that of this request's header. It is 0 when the device starts. Resets the model's states too, except on a device that senses by itself.
    Begin,
    /// What model is this, and how is it set?
    Info,
    /// What is one input or output of the graph?
    Describe {
        /// Which.
        value: GraphValue,
    },
    /// Run the model on one input, and the head on its features.
    Predict {
        /// The input, or the rest of it.
        input: &'a [u8],
    },
    /// Run the model on one input, without the head.
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
    /// Set the states of the model, which live from run to run, to their start.
    ResetStates,
    /// Learn from one input; a head that learns in epochs keeps its features for [`Request::Train`].
    Learn {
        /// The target.
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
    /// Compute the weights from what was learnt, in a head that learns sums.
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
    /// Set the head to that of the image, and forget the features kept.
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
    /// Learn the window that a device which senses by itself saw last; once.
    Label {
        /// The target.
        #[serde(borrow)]
        label: Label<'a>,
    },
    /// Begin an update of the model. The device answers with the number of bytes that it has already: of an update by the same image that was begun and
    /// interrupted, since the device's start.
    BeginUpdate {
        /// Bytes of the image.
        length: u32,
        /// Its id, the CRC-32 in it.
        id: u32,
    },
    /// The next part of the image: whole words, but at its end.
    WriteUpdate {
        /// Bytes written before.
        offset: u32,
        /// The next bytes.
        bytes: &'a [u8],
    },
    /// Check the image that was written. If it is whole, and the program can run it, the next start runs it on trial.
    FinishUpdate,
    /// Keep the image that runs on trial: without this, the next start takes the one before.
    ConfirmUpdate,
    /// Start again, after the answer. What was not saved is lost.
    Restart,
    /// From here on send each sample that a device which senses by itself takes ([`SamplePart`](crate::SamplePart)), between the answers. [`Request::Begin`]
    /// ends it, too.
    SendSamples,
    /// Send no more of them.
    StopSamples,
}

/// The target of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Label<'a> {
    /// One class.
    #[serde(borrow)]
    Class(Class<'a>),
    /// All classes whose bit is set (bit 0 is class 0).
    Bits(u32),
    /// A number, in units of the head's logit scale.
    Value(i32),
}

impl<'a> From<Class<'a>> for Label<'a> {
    fn from(class: Class<'a>) -> Self {
        Label::Class(class)
    }
}

impl From<u16> for Label<'_> {
    fn from(class: u16) -> Self {
        Label::Class(class.into())
    }
}

impl<'a> From<&'a str> for Label<'a> {
    fn from(name: &'a str) -> Self {
        Label::Class(name.into())
    }
}

/// A class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Class<'a> {
    /// By its index.
    Index(u16),
    /// By its name.
    Name(&'a str),
}

impl From<u16> for Class<'_> {
    fn from(index: u16) -> Self {
        Class::Index(index)
    }
}

impl<'a> From<&'a str> for Class<'a> {
    fn from(name: &'a str) -> Self {
        Class::Name(name)
    }
}

/// An input or output of the graph, by its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum GraphValue {
    /// An input.
    Input(u32),
    /// An output.
    Output(u32),
}

/// What is read in parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Block {
    /// The outputs of the last run, one after the other; with a head the first is the features. A part ends where an output ends.
    Output,
    /// The head's logits for the last run, i32.
    Logits,
    /// What the counter advanced in each layer of the last [`Request::Profile`], u32.
    Layers,
    /// The head's state.
    Head,
    /// The scale and the offset of each channel of the graph input with this index, f32 each; empty if all channels have the input's scale and zero
    /// point.
    Channels(u32),
}
