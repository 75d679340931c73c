//! Quantization and dequantization of single numbers.

use super::value::is_positive;
use super::{ChannelScale, Image, Value};

impl ChannelScale {
    /// The scale is finite and not 0, the offset finite.
    pub(super) fn is_valid(&self) -> bool {
        is_positive(self.scale.abs()) && self.offset.is_finite()
    }

    /// The integer of a real number of this channel: `(real - offset) / scale + zero_point` in float64, halves rounded away from zero, clamped to
    /// int8. Infinities are clamped; NaN is the zero point.
    ///
    /// ```
    /// # use nano_core::image::ChannelScale;
    /// let channel = ChannelScale { scale: -0.5, offset: 20.0 };
    /// assert_eq!([20.0, 21.0, 19.75, f32::INFINITY, f32::NAN].map(|real| channel.quantize(10, real)), [10, 8, 11, -128, 10]);
    /// ```
    pub fn quantize(&self, zero_point: i32, real: f32) -> i8 {
        // What is clamped here saturates for every zero point; conversion to i32 cuts the fraction off.
        let steps = ((f64::from(real) - f64::from(self.offset)) / f64::from(self.scale)).clamp(-512.0, 512.0);
        let rounded = (steps + 0.5_f64.copysign(steps)) as i32;
        (rounded + zero_point).clamp(-128, 127) as i8
    }
}

impl Value {
    /// The integer of a real number: `real / scale + zero_point`, that of a [`ChannelScale`] without an offset. (TensorFlow Lite's rule.)
    ///
    /// ```
    /// # use nano_core::image::Value;
    /// let mut value = Value::default();
    /// (value.scale, value.zero_point) = (0.5, 10);
    /// assert_eq!([0.25, -0.25, 0.24, 100.0].map(|real| value.quantize(real)), [11, 9, 10, 127]);
    /// ```
    pub fn quantize(&self, real: f32) -> i8 {
        ChannelScale { scale: self.scale, offset: 0.0 }.quantize(self.zero_point, real)
    }

    /// Dequantizes an integer: `(integer - zero_point) * scale`.
    ///
    /// ```
    /// # use nano_core::image::Value;
    /// let mut value = Value::default();
    /// (value.scale, value.zero_point) = (0.5, 10);
    /// assert_eq!([10, 12].map(|integer| value.dequantize(integer)), [0.0, 1.0]);
    /// ```
    pub fn dequantize(&self, integer: i8) -> f32 {
        dequantize_one(self.scale, self.zero_point, integer)
    }
}

impl Image<'_> {
    /// The integers of real numbers for graph input `index`, an int8 value; both height, width, channels. See [`quantize`].
    ///
    /// # Panics
    /// If there is no such input.
    pub fn quantize_input(&self, index: usize, reals: &[f32], integers: &mut [i8]) {
        let value = self.input(index);
        let all = [ChannelScale { scale: value.scale, offset: 0.0 }];
        let channels = self.input_channels(index);
        quantize(if channels.is_empty() { &all } else { channels }, value.zero_point, reals, integers);
    }
}

/// The integers of a graph input's real numbers, height, width, channels, with the zero point of the input's value.
///
/// `channels` are [`Image::input_channels`](super::Image::input_channels), or the value's scale as a single one with offset 0. Where the lengths differ,
/// the shorter one counts.
///
/// ```
/// # use nano_core::image::{ChannelScale, quantize};
/// let channels = [ChannelScale { scale: 0.5, offset: 0.0 }, ChannelScale { scale: 2.0, offset: 100.0 }];
/// let mut integers = [0; 4];
/// quantize(&channels, 3, &[1.0, 98.0, -1.0, 104.0], &mut integers);
/// assert_eq!(integers, [5, 2, 1, 5]);
/// ```
pub fn quantize(channels: &[ChannelScale], zero_point: i32, reals: &[f32], integers: &mut [i8]) {
    for ((integer, &real), channel) in integers.iter_mut().zip(reals).zip(channels.iter().cycle()) {
        *integer = channel.quantize(zero_point, real);
    }
}

/// The real numbers that integers stand for: `(integer - zero_point) * scale`. Where the lengths differ, the shorter one counts.
///
/// ```
/// # use nano_core::image::dequantize;
/// let mut reals = [0.0; 2];
/// dequantize(0.5, 10, &[10, 12], &mut reals);
/// assert_eq!(reals, [0.0, 1.0]);
/// ```
pub fn dequantize(scale: f32, zero_point: i32, integers: &[i8], reals: &mut [f32]) {
    for (real, &integer) in reals.iter_mut().zip(integers) {
        *real = dequantize_one(scale, zero_point, integer);
    }
}

fn dequantize_one(scale: f32, zero_point: i32, integer: i8) -> f32 {
    (i32::from(integer) - zero_point) as f32 * scale
}
