//! Device logic of torch-nano, for every board: a [`Session`] answers [`Request`]s with [`Response`]s over any byte stream.
//!
//! It knows no chip. A board gives it an image, RAM, a stream and a counter, and calls [`Session::serve`].
#![cfg_attr(not(test), no_std)]
#![deny(missing_docs)]

mod flash;
pub mod frame;
mod message;
mod session;
mod storage;

pub use flash::{Missing, NoFlash};
pub use message::{Failure, PROTOCOL, Request, Response};
pub use session::{Session, Sizes};
pub use storage::{HeadStorage, StorageError};
