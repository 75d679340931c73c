//! Real numbers as a value's integers, and back.

use super::Value;

impl Value {
    /// The integer of a real number: `real / scale + zero_point`, divided in float64, halves rounded away from zero, clamped to int8.
    /// (TensorFlow Lite's rule.) Infinities are clamped; NaN is zero_point.
    ///
    /// ```
    /// # use nano_core::image::Value;
    /// let mut value = Value::default();
    /// (value.scale, value.zero_point) = (0.5, 10);
    /// assert_eq!([0.25, -0.25, 0.24, 100.0].map(|real| value.quantize(real)), [11, 9, 10, 127]);
    /// ```
    pub fn quantize(&self, real: f32) -> i8 {
        // What is clamped here saturates for every zero point; conversion to i32 cuts the fraction off.
        let steps = (f64::from(real) / f64::from(self.scale)).clamp(-512.0, 512.0);
        let rounded = (steps + 0.5_f64.copysign(steps)) as i32;
        (rounded + self.zero_point).clamp(-128, 127) as i8
    }

    /// The real number an integer stands for: `(integer - zero_point) * scale`.
    ///
    /// ```
    /// # use nano_core::image::Value;
    /// let mut value = Value::default();
    /// (value.scale, value.zero_point) = (0.5, 10);
    /// assert_eq!([10, 12].map(|integer| value.dequantize(integer)), [0.0, 1.0]);
    /// ```
    pub fn dequantize(&self, integer: i8) -> f32 {
        (i32::from(integer) - self.zero_point) as f32 * self.scale
    }
}
