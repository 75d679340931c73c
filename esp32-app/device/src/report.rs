//! What a device that runs by itself reports.

use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::sensing::Sensed;

/// An event of a [`Program`](crate::Program), sent to the PC without being asked for. Its frame starts with [`REPORT`](crate::REPORT).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Report {
    /// Reports before this one since the start: a PC sees from it what it has missed.
    pub number: u32,
    /// Samples that were due since the start, missed ones included.
    pub samples: u32,
    /// What happened.
    pub event: Event,
}

/// Numbers of a [`SamplePart`] at most.
pub const LONGEST_PART: usize = 12;

/// Part of a sample that a [`Program`](crate::Program) took, in the sensor's own units, sent to a PC that asked for it
/// ([`Request::SendSamples`](crate::Request::SendSamples)). Its frame starts with [`SAMPLE`](crate::SAMPLE).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct SamplePart<'n> {
    /// Samples that were due before it since the start, missed ones included.
    pub sample: u32,
    /// Whether the sample came after a gap in what the sensor saw.
    pub after_gap: bool,
    /// Numbers of the sample before these.
    pub first: u32,
    /// Numbers of the sample after these.
    pub left: u32,
    /// 1 to [`LONGEST_PART`] numbers, as the bytes of f32 in little-endian order.
    pub numbers: &'n [u8],
}

/// What happened on a device that runs by itself. `head` is the CRC-32 of the head's state after it; 0 without a head.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Event {
    /// The program has started.
    Started {
        /// The head that it started with.
        head: u32,
        /// Whether that was saved before.
        restored: bool,
    },
    /// A window was due: what the model made of it.
    Sensed(Sensed),
    /// The latest window was learnt.
    Learned {
        /// Its target: the class; the bits of the right classes; the number, in two's complement.
        target: u32,
        /// The head, which a head that learns in epochs has not changed yet.
        head: u32,
    },
    /// Slices of a training.
    Trained {
        /// Steps taken since the training began.
        steps: u64,
        /// Steps left: 0 at its end.
        left: u64,
        /// Whether the training has ended and was taken back, because it had not made the head better on the samples kept aside.
        taken_back: bool,
        /// The head.
        head: u32,
    },
    /// A head of sums has computed its weights.
    Committed {
        /// The head.
        head: u32,
    },
    /// The head was saved.
    Saved {
        /// Heads saved since the start.
        saves: u32,
    },
    /// The head could not be saved.
    SaveFailed {
        /// Failed saves since the start.
        failed_saves: u32,
    },
    /// Something of these was refused, and changed nothing.
    Refused(Failure),
    /// Samples were due while the program was busy, and are lost.
    Missed {
        /// How many.
        samples: u32,
    },
    /// The sensor failed to give a sample.
    SensorFailed,
    /// A sample came after a gap in what the sensor saw: windows begin anew with it.
    Gap,
    /// The sensor gives no more samples: from here on the program only serves.
    Ended,
}
