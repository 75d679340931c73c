//! A voltage, as of a potentiometer or an analog sensor.

use torch_nano_device::Sampled;

use crate::Sensor;

/// An analog-to-digital converter as a [`Sensor`]: embedded-hal has no trait for one, so a closure reads it.
pub struct Voltage<R> {
    read: R,
    step: f32,
}

impl<R: FnMut() -> Option<u16>> Voltage<R> {
    /// A converter of which `read` returns the number, `None` if it fails; `step` is the volts of one.
    pub fn new(read: R, step: f32) -> Self {
        Voltage { read, step }
    }
}

impl<R: FnMut() -> Option<u16>> Sensor for Voltage<R> {
    const NUMBERS: usize = 1;

    fn sample(&mut self, sample: &mut [f32]) -> Sampled {
        let (Some(number), Some(own)) = ((self.read)(), sample.first_mut()) else { return Sampled::Failed };
        *own = f32::from(number) * self.step;
        Sampled::Taken
    }
}
