//! Learning on the device: trainable heads and the ring of recent features they learn from.

mod ring;
pub(crate) mod sgd;

pub use ring::FeatureRing;
pub use sgd::SgdHead;
