//! Learning on the device: trainable heads and the ring buffer of recent features they learn from.
//!
//! Each trainer is a folder, and one line of the registry below. The folder has
//!
//! - `NAMEHead`, which implements [`Head`], with the constants `TRAINER` (its code in an image), `LIMITS` and `USES_RING`, and the
//!   functions `sizes_of` (a record), `memory` (of a head of these sizes) and, for the host, `aggregation`;
//! - for the host, its description, and `pack`, which makes the image's record and initial state.
//!
//! Shared by trainers: for gradient descent `linear` (int16 weights and their inner loops), `loss`, `order` (of samples within an epoch)
//! and `descent` (settings); for heads of sums `sums`.

#[cfg(feature = "alloc")]
mod aggregate;
#[cfg(feature = "alloc")]
mod aggregation;
mod confidence;
#[cfg(feature = "alloc")]
mod descent;
mod guard;
mod head;
mod linear;
mod loss;
mod no_head;
mod order;
mod rejection;
mod ring;
mod sizes;
mod start;
mod sums;
mod target;

/// Declares the trainers: for each its folder, its head and its description for the image writer.
macro_rules! registry {
    ($($name:ident = $folder:ident :: $head:ident ($description:ident)),+ $(,)?) => {
        $(
            mod $folder;
            pub use $folder::$head;
        )+

        /// The head of an image, of any trainer: for programs that serve every model. Firmware for one model names its trainer.
        pub enum AnyHead<'a> {
            $(#[doc = concat!("A [`", stringify!($head), "`].")] $name($head<'a>)),+
        }

        $(
            impl<'a> From<$head<'a>> for AnyHead<'a> {
                fn from(head: $head<'a>) -> Self {
                    AnyHead::$name(head)
                }
            }
        )+

        /// Descriptions of heads for the image writer.
        #[cfg(feature = "alloc")]
        pub(crate) mod description {
            use alloc::vec::Vec;

            use crate::image::{HeadRecord, Value, WriteError};

            $(pub use super::$folder::$description;)+

            /// A trainable head after the first output.
            #[derive(Clone, Debug)]
            pub enum HeadDescription {
                $(#[doc = concat!("Of [`", stringify!($head), "`](crate::train::", stringify!($head), ").")] $name($description)),+
            }

            impl HeadDescription {
                /// Reads the description of a head of `trainer`, named as its folder, from `source`; `None` if there is no such trainer.
                pub fn read<S, E>(trainer: &str, source: S) -> Option<Result<Self, E>>
                where
                    $($description: TryFrom<S, Error = E>),+
                {
                    match trainer {
                        $(stringify!($folder) => Some($description::try_from(source).map(HeadDescription::$name)),)+
                        _ => None,
                    }
                }

                /// Packs the head record and the initial state of a head after `features`.
                pub(crate) fn pack(&self, features: &Value) -> Result<(HeadRecord, Vec<u8>), WriteError> {
                    match self {
                        $(HeadDescription::$name(description) => super::$folder::pack(description, features)),+
                    }
                }
            }
        }

        /// Evaluates an expression with the head inside an [`AnyHead`].
        macro_rules! with_head {
            ($any:expr, $one:ident => $act:expr) => {
                match $any {
                    $(AnyHead::$name($one) => $act),+
                }
            };
        }

        /// Evaluates an expression with the type of the trainer with this code, or another expression for an unknown code.
        macro_rules! with_trainer {
            ($code:expr, $trainer:ident => $act:expr, $unknown:expr) => {
                match $code {
                    $(
                        $crate::train::$head::TRAINER => {
                            type $trainer<'h> = $crate::train::$head<'h>;
                            $act
                        }
                    )+
                    _ => $unknown,
                }
            };
        }
    };
}

registry! {
    Sgd = sgd::SgdHead(SgdDescription),
    Lda = lda::LdaHead(LdaDescription),
    Prototype = prototype::PrototypeHead(SumsDescription),
    Layers = layers::LayersHead(LayersDescription),
}

// After the registry, whose macros it uses.
mod any_head;

#[cfg(feature = "alloc")]
pub use aggregate::{aggregate, check_update};
#[cfg(feature = "alloc")]
pub use aggregation::Update;
pub use confidence::{Certainty, LARGEST_TEMPERATURE, TEMPERATURE_STEPS, certainty};
#[cfg(feature = "alloc")]
pub use descent::Descent;
pub use guard::{Score, score_aside, take_back_if_worse};
pub use head::Head;
pub(crate) use head::only_once;
#[cfg(feature = "alloc")]
pub use layers::{RealLayer, TrainedLayer, TrainedOperation};
pub use loss::Loss;
pub use no_head::NoHead;
pub use order::{LARGEST_EPOCHS, Training};
pub use rejection::Rejection;
#[cfg(feature = "alloc")]
pub use rejection::RejectionDescription;
pub use ring::{FeatureRing, RingPosition};
pub use sizes::{HeadSizes, LayerSizes};
#[cfg(feature = "alloc")]
pub use start::StartDescription;
pub use target::Target;
