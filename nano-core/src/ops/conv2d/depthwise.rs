//! Convolution with one input channel per group, which is a depthwise convolution with a channel multiplier, line by line:
//! [`DEPTHWISE_CONV2D_LINES`](crate::ops::DEPTHWISE_CONV2D_LINES), where several output channels read the same input channel. A product of a 3x3 window
//! takes 3.6 instructions on rv32imc, by [`CONV2D_DIRECT`](super::CONV2D_DIRECT) 6 to 7.

use super::OPERATOR;
use crate::kernels::{Channel, WideChannel};
use crate::operator::Kernel;
use crate::ops::depthwise_conv2d::lines_kernel;

/// Kernel of the depthwise convolution with a channel multiplier and a small window.
pub const CONV2D_LINES: Kernel = lines_kernel::<Channel>(58, "conv2d_lines", &OPERATOR);
/// Kernel of the depthwise convolution of int16 with a channel multiplier and a small window.
pub const CONV2D_LINES_INT16: Kernel = lines_kernel::<WideChannel>(59, "conv2d_lines_int16", &OPERATOR);
