//! An inertial measurement unit: acceleration and rotation on three axes.

use torch_nano_device::Sampled;

use crate::Sensor;

/// A sample of an inertial measurement unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Motion {
    /// Acceleration along x, y and z, in m/s²; gravity counts.
    pub acceleration: [f32; 3],
    /// Rotation about x, y and z, in rad/s.
    pub rotation: [f32; 3],
}

/// A chip that measures motion.
pub trait MotionChip {
    /// Why the chip did not answer.
    type Error;

    /// Resets the chip, and has it measure.
    ///
    /// # Errors
    /// The bus's own, or that there is another chip.
    fn set_up(&mut self) -> Result<(), Self::Error>;

    /// Reads acceleration and rotation of one moment.
    ///
    /// # Errors
    /// The bus's own.
    fn read(&mut self) -> Result<Motion, Self::Error>;
}

/// A [`MotionChip`] as a [`Sensor`]: its samples are x, y and z of the acceleration in m/s², then of the rotation in rad/s.
pub struct Imu<M> {
    chip: M,
    ready: bool,
    /// Whether the next sample follows the one before.
    follows: bool,
}

impl<M: MotionChip> Imu<M> {
    /// Samples of a chip, which is set up at the first one.
    pub fn new(chip: M) -> Self {
        Imu { chip, ready: false, follows: true }
    }

    /// The chip.
    pub fn free(self) -> M {
        self.chip
    }

    fn read(&mut self) -> Result<Motion, M::Error> {
        if !self.ready {
            self.chip.set_up()?;
        }
        self.chip.read()
    }
}

impl<M: MotionChip> Sensor for Imu<M> {
    const NUMBERS: usize = 6;

    fn sample(&mut self, sample: &mut [f32]) -> Sampled {
        let still = Motion { acceleration: [0.0; 3], rotation: [0.0; 3] };
        // All of them are zero, gravity too, only if the chip does not measure, as after a cut of its power.
        let read = self.read().ok().filter(|&motion| motion != still);
        self.ready = read.is_some();
        let Some(Motion { acceleration, rotation }) = read else {
            self.follows = false;
            return Sampled::Failed;
        };
        let numbers = acceleration.into_iter().chain(rotation);
        sample.iter_mut().zip(numbers).for_each(|(own, number)| *own = number);
        if core::mem::replace(&mut self.follows, true) { Sampled::Taken } else { Sampled::AfterGap }
    }
}
