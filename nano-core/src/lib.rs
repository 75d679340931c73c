#![cfg_attr(not(test), no_std)]
#![deny(missing_docs)]
#![doc = include_str!("../README.md")]

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(feature = "host")]
extern crate std;

#[cfg(not(target_endian = "little"))]
compile_error!("images are read in place, as little-endian words: this target is big-endian");

mod arena;
mod classifier;
mod error;
pub mod fixed_point;
#[cfg(feature = "host")]
mod host;
pub mod image;
mod kernels;
mod model;
mod node;
mod operator;
pub mod ops;
mod prediction;
pub mod sigmoid;
pub mod train;

#[cfg(feature = "host")]
pub use arena::Arenas;
pub use arena::{Inputs, Io, Outputs, Shared};
pub use classifier::{Classifier, Memory};
pub use error::{BrokenRule, Error, Piece};
#[cfg(feature = "host")]
pub use host::{HostModel, Processor};
pub use model::{CheckedImage, Model};
pub use node::Node;
pub use operator::{ALIKE, Alias, Kernel, Operator, Output, Overlay, OverlayPlace, OverlayRule, Quantization, Run};
pub use prediction::{Logits, Prediction};
