//! Device logic of torch-nano, for every board: a [`Session`] answers [`Request`]s with [`Response`]s over any byte stream.
//!
//! It knows no chip. A board gives it an image, RAM, a flash for heads, a stream and a counter, and calls [`Session::serve`].
#![cfg_attr(not(test), no_std)]
#![deny(missing_docs)]

mod device;
mod failure;
mod flash;
pub mod frame;
mod graph;
mod learner;
mod message;
mod names;
mod request;
mod response;
mod saved_head;
mod saving;
mod session;
mod sizes;
mod storage;
mod training;

pub use flash::{MemoryFlash, Missing, NoFlash};
pub use message::{
    Block, Class, ElementType, Failure, GraphValue, Label, PROTOCOL, Request, RequestHeader, Response, ResponseHeader,
    Settings, Stats, TargetKind,
};
pub use saved_head::{SavedHead, StorageError};
pub use session::{Options, Session};
pub use sizes::Sizes;
pub use storage::HeadStorage;
