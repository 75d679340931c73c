//! A recorded sensor.

use torch_nano_device::Sampled;

use crate::Sensor;

/// Samples of `NUMBERS` real numbers from memory, then their end.
///
/// ```
/// use torch_nano_device::Sampled;
/// use torch_nano_sensors::{Replay, Sensor};
/// let mut replay = Replay::new(&[[0.5, -0.5]]);
/// let mut sample = [0.0; 2];
/// assert_eq!((replay.sample(&mut sample), sample), (Sampled::Taken, [0.5, -0.5]));
/// assert_eq!(replay.sample(&mut sample), Sampled::Ended);
/// ```
#[derive(Clone, Debug)]
pub struct Replay<'r, const NUMBERS: usize> {
    samples: core::slice::Iter<'r, [f32; NUMBERS]>,
}

impl<'r, const NUMBERS: usize> Replay<'r, NUMBERS> {
    /// A sensor that sees these samples.
    pub fn new(samples: &'r [[f32; NUMBERS]]) -> Self {
        Replay { samples: samples.iter() }
    }
}

impl<const NUMBERS: usize> Sensor for Replay<'_, NUMBERS> {
    const NUMBERS: usize = NUMBERS;

    fn sample(&mut self, sample: &mut [f32]) -> Sampled {
        let Some(next) = self.samples.next() else { return Sampled::Ended };
        sample.iter_mut().zip(next).for_each(|(own, &number)| *own = number);
        Sampled::Taken
    }
}
