//! Learning on the device: trainable heads and the ring of recent features they learn from.

mod confidence;
mod head;
mod no_head;
mod ring;
pub(crate) mod sgd;

pub use confidence::confidence;
pub use head::{AnyHead, Head, HeadSizes, Target};
pub use no_head::NoHead;
pub use ring::{FeatureRing, RingPosition};
pub use sgd::SgdHead;
