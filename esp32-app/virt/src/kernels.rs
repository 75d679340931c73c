//! The kernels of the board's program.

use nano_core::{Kernel, ops};

/// All kernels of nano-core, so that the board runs every model.
#[cfg(not(feature = "common-kernels"))]
pub(crate) const KERNELS: &[Kernel] = ops::ALL;

/// The kernels with which `just bench-device` measures code size. They are the same in every version, to measure the growth of shared code
/// separately from new operators.
#[cfg(feature = "common-kernels")]
pub(crate) const KERNELS: &[Kernel] = &[
    ops::CONV2D,
    ops::DEPTHWISE_CONV2D,
    ops::FULLY_CONNECTED,
    ops::ADD,
    ops::MAX_POOL2D,
    ops::AVERAGE_POOL2D,
    ops::TABLE,
    ops::REQUANTIZE,
    ops::SOFTMAX,
    ops::FULLY_CONNECTED_PAIRS,
];
