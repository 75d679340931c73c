//! The losses of [`SgdHead`](super::SgdHead).

/// What the outputs of an [`SgdHead`](super::SgdHead) mean, and so what they learn from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// One class is right: softmax cross-entropy, [`Target::Class`](super::Target::Class).
    CrossEntropy,
    /// Each class is right or wrong by itself: sigmoid cross-entropy, [`Target::Labels`](super::Target::Labels).
    Binary,
    /// One number: squared error, [`Target::Value`](super::Target::Value).
    Squared,
}

impl Loss {
    pub(super) const ALL: [Loss; 3] = [Loss::CrossEntropy, Loss::Binary, Loss::Squared];

    /// The smallest error that a row learns from, less one.
    pub(super) const fn left_alone(self) -> i32 {
        match self {
            Loss::CrossEntropy | Loss::Binary => 1024,
            Loss::Squared => 8,
        }
    }

    /// Steps of the logit in which steps 2 to 4 count.
    #[cfg(feature = "alloc")]
    pub(super) fn logit_steps(self) -> f64 {
        match self {
            Loss::CrossEntropy | Loss::Binary => core::f64::consts::LOG2_E * 256.0,
            Loss::Squared => 4096.0,
        }
    }

    /// The error that stands for 1.
    #[cfg(feature = "alloc")]
    pub(super) fn one(self) -> f64 {
        match self {
            Loss::CrossEntropy | Loss::Binary => 32768.0,
            Loss::Squared => 4096.0,
        }
    }
}
