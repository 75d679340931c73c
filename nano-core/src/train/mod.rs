//! Learning on the device: trainable heads and the ring of recent features they learn from.

#[cfg(feature = "alloc")]
mod aggregate;
mod any_head;
mod confidence;
#[cfg(feature = "alloc")]
mod descent;
mod head;
mod layer;
mod layers;
pub(crate) mod layers_image;
pub(crate) mod lda;
mod lda_state;
mod linear;
mod loss;
mod no_head;
mod order;
pub(crate) mod prototype;
mod ring;
mod sgd;
#[cfg(feature = "alloc")]
pub(crate) mod sgd_image;
mod sizes;
mod solve;
mod triangle;

#[cfg(feature = "alloc")]
pub use aggregate::{Update, aggregate, check_update};
pub use any_head::AnyHead;
pub use confidence::confidence;
#[cfg(feature = "alloc")]
pub use descent::Descent;
pub use head::{Head, Target};
pub use layers::LayersHead;
#[cfg(feature = "alloc")]
pub use layers_image::RealLayer;
pub use lda::LdaHead;
pub use loss::Loss;
pub use no_head::NoHead;
pub use order::{LARGEST_EPOCHS, Training};
pub use prototype::PrototypeHead;
pub use ring::{FeatureRing, RingPosition};
pub use sgd::SgdHead;
pub use sizes::{HeadSizes, LayerSizes};
