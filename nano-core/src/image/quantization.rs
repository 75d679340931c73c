//! Quantization and dequantization of real numbers, for elements of every dtype.

use zerocopy::{FromBytes, IntoBytes, Unalign};

use super::value::is_positive;
use super::{ChannelScale, Dtype, Element, Image, Value};

impl ChannelScale {
    /// The scale is finite and not 0, the offset finite.
    pub(super) fn is_valid(&self) -> bool {
        is_positive(self.scale.abs()) && self.offset.is_finite()
    }

    /// The integer of a real number of this channel: `(real - offset) / scale + zero_point` in float64, halves rounded away from zero, clamped to
    /// the range of `T`. Infinities are clamped; NaN is the zero point, which is 0 unless `T` is `i8`.
    ///
    /// ```
    /// # use nano_core::image::ChannelScale;
    /// let channel = ChannelScale { scale: -0.5, offset: 20.0 };
    /// let reals = [20.0, 21.0, 19.75, f32::INFINITY, f32::NAN];
    /// assert_eq!(reals.map(|real| channel.quantize::<i8>(10, real)), [10, 8, 11, -128, 10]);
    /// assert_eq!(reals.map(|real| channel.quantize::<i16>(0, real)), [0, -2, 1, -32768, 0]);
    /// ```
    pub fn quantize<T: Element>(&self, zero_point: i32, real: f32) -> T {
        // What is clamped here saturates for every zero point; conversion to i32 drops the fraction, and saturates.
        let (lowest, highest) = T::DTYPE.bounds();
        let limit = -4.0 * f64::from(lowest);
        let steps = ((f64::from(real) - f64::from(self.offset)) / f64::from(self.scale)).clamp(-limit, limit);
        let rounded = (steps + 0.5_f64.copysign(steps)) as i32;
        T::truncate(rounded.saturating_add(zero_point).clamp(lowest, highest))
    }
}

impl Value {
    /// The integer of a real number: `real / scale + zero_point`, that of a [`ChannelScale`] without an offset. (TensorFlow Lite's rule.)
    ///
    /// ```
    /// # use nano_core::image::Value;
    /// let mut value = Value::default();
    /// (value.scale, value.zero_point) = (0.5, 10);
    /// assert_eq!([0.25, -0.25, 0.24, 100.0].map(|real| value.quantize::<i8>(real)), [11, 9, 10, 127]);
    /// ```
    pub fn quantize<T: Element>(&self, real: f32) -> T {
        ChannelScale { scale: self.scale, offset: 0.0 }.quantize(self.zero_point, real)
    }

    /// Dequantizes an integer: `(integer - zero_point) * scale`.
    ///
    /// ```
    /// # use nano_core::image::Value;
    /// let mut value = Value::default();
    /// (value.scale, value.zero_point) = (0.5, 10);
    /// assert_eq!([10i8, 12].map(|integer| value.dequantize(integer)), [0.0, 1.0]);
    /// ```
    pub fn dequantize<T: Element>(&self, integer: T) -> f32 {
        dequantize_one(self.scale, self.zero_point, integer)
    }
}

impl Image<'_> {
    /// Quantizes real numbers for graph input `index`, height, width, channels, into the input's bytes ([`Model::input`](crate::Model::input)).
    /// See [`quantize`].
    ///
    /// # Panics
    /// If there is no such input.
    pub fn quantize_input(&self, index: usize, reals: &[f32], bytes: &mut [i8]) {
        let value = self.input(index);
        let all = [ChannelScale { scale: value.scale, offset: 0.0 }];
        let channels = match self.input_channels(index) {
            [] => &all,
            channels => channels,
        };
        let bytes = bytes.as_mut_bytes();
        match value.dtype() {
            Dtype::Int8 => quantize_bytes::<i8>(channels, value.zero_point, reals, bytes),
            Dtype::Int16 => quantize_bytes::<i16>(channels, value.zero_point, reals, bytes),
            Dtype::Int32 => quantize_bytes::<i32>(channels, value.zero_point, reals, bytes),
        }
    }

    /// Dequantizes the bytes of graph output `index` ([`Model::output`](crate::Model::output)). See [`dequantize`].
    ///
    /// # Panics
    /// If there is no such output.
    pub fn dequantize_output(&self, index: usize, bytes: &[i8], reals: &mut [f32]) {
        let value = self.output(index);
        let bytes = bytes.as_bytes();
        match value.dtype() {
            Dtype::Int8 => dequantize_bytes::<i8>(value, bytes, reals),
            Dtype::Int16 => dequantize_bytes::<i16>(value, bytes, reals),
            Dtype::Int32 => dequantize_bytes::<i32>(value, bytes, reals),
        }
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
/// let mut integers = [0i8; 4];
/// quantize(&channels, 3, &[1.0, 98.0, -1.0, 104.0], &mut integers);
/// assert_eq!(integers, [5, 2, 1, 5]);
/// ```
pub fn quantize<T: Element>(channels: &[ChannelScale], zero_point: i32, reals: &[f32], integers: &mut [T]) {
    for ((integer, &real), channel) in integers.iter_mut().zip(reals).zip(channels.iter().cycle()) {
        *integer = channel.quantize(zero_point, real);
    }
}

/// The real numbers that integers stand for: `(integer - zero_point) * scale`. Where the lengths differ, the shorter one counts.
///
/// ```
/// # use nano_core::image::dequantize;
/// let mut reals = [0.0; 2];
/// dequantize(0.5, 10, &[10i8, 12], &mut reals);
/// assert_eq!(reals, [0.0, 1.0]);
/// ```
pub fn dequantize<T: Element>(scale: f32, zero_point: i32, integers: &[T], reals: &mut [f32]) {
    for (real, &integer) in reals.iter_mut().zip(integers) {
        *real = dequantize_one(scale, zero_point, integer);
    }
}

/// [`quantize`] into bytes, which need no alignment; those of a last, incomplete element are left.
fn quantize_bytes<T: Element>(channels: &[ChannelScale], zero_point: i32, reals: &[f32], bytes: &mut [u8]) {
    let Ok((integers, _)) = <[Unalign<T>]>::mut_from_prefix(bytes) else { return };
    for ((integer, &real), channel) in integers.iter_mut().zip(reals).zip(channels.iter().cycle()) {
        integer.set(channel.quantize(zero_point, real));
    }
}

/// [`dequantize`] from bytes, which need no alignment.
fn dequantize_bytes<T: Element>(value: &Value, bytes: &[u8], reals: &mut [f32]) {
    let Ok((integers, _)) = <[Unalign<T>]>::ref_from_prefix(bytes) else { return };
    for (real, integer) in reals.iter_mut().zip(integers) {
        *real = value.dequantize(integer.get());
    }
}

fn dequantize_one<T: Element>(scale: f32, zero_point: i32, integer: T) -> f32 {
    let integer: i32 = integer.into();
    match T::DTYPE {
        // float32 has no room for the integer, whose zero point is 0.
        Dtype::Int32 => (f64::from(integer) * f64::from(scale)) as f32,
        _ => (integer - zero_point) as f32 * scale,
    }
}
