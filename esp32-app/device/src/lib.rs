#![doc = include_str!("../README.md")]
#![cfg_attr(not(test), no_std)]
#![deny(missing_docs)]

mod device;
mod failure;
mod flash;
pub mod frame;
mod graph;
mod learner;
mod link;
mod message;
mod names;
mod program;
mod recorded_sensor;
mod report;
mod request;
mod respond;
mod response;
mod saved_head;
mod saving;
mod sensing;
mod session;
mod sizes;
mod smoothing;
mod spare_copy;
mod storage;
mod training;
mod update;
mod update_error;
mod updating;
mod window;

pub use device::{Device, Features, Prediction};
pub use flash::{MemoryFlash, Missing, NoFlash};
pub use learner::Learned;
pub use link::Link;
pub use message::{
    Block, Class, ElementType, Failure, GraphValue, Label, PROTOCOL, REPORT, Request, RequestHeader, Response,
    ResponseHeader, SAMPLE, Settings, Stats, TargetKind,
};
pub use program::{Board, Program, ProgramOptions, ProgramRam, Sampled};
pub use recorded_sensor::RecordedSensor;
pub use report::{Event, LONGEST_PART, Report, SamplePart};
pub use saved_head::{SavedHead, StorageError};
pub use sensing::{Sensed, Sensing, SensingOptions};
pub use session::{Options, Session};
pub use sizes::{Sizes, SpareCopy};
pub use smoothing::{LONGEST_HISTORY, Smoothing};
pub use storage::HeadStorage;
pub use training::Progress;
pub use update::{ImageSlots, MappedFlash, Slots, StoredImage, UpdateState, room as update_room};
pub use update_error::UpdateError;
pub use updating::Capacity;
pub use window::{Input, SlidingWindow};
