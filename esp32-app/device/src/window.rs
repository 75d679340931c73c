//! The latest samples of a sensor, as a model's input takes them.

use nano_core::Error;

/// A ring of the latest samples in the bytes of one model input. Every `hop` samples it is due for a prediction; a hop below its length makes windows overlap.
///
/// ```
/// use torch_nano_device::{Input, SlidingWindow};
/// let mut bytes = [0; 6];
/// // Three samples of two channels, a window after every sample.
/// let mut window = SlidingWindow::new(&mut bytes, 2, 1)?;
/// let due: Vec<bool> = (1..=4).map(|sample| window.push(|place| place.fill(sample))).collect();
/// assert_eq!(due, [false, false, true, true]);
/// assert_eq!(Input::from(&window).iter().collect::<Vec<i8>>(), [2, 2, 3, 3, 4, 4]);
/// # Ok::<(), nano_core::Error>(())
/// ```
#[derive(Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct SlidingWindow<'a> {
    bytes: &'a mut [i8],
    /// Bytes of a sample.
    sample: usize,
    /// Samples from window to window.
    hop: usize,
    /// Where the next sample goes, which is where the oldest is.
    next: usize,
    /// Samples until a window is due.
    left: usize,
}

impl<'a> SlidingWindow<'a> {
    /// An empty window in `bytes`, which is the length of the model's input; a sample takes `sample` of them, and from window to window there are `hop`
    /// samples.
    ///
    /// # Errors
    /// [`Error::Length`] if the samples do not fill the bytes exactly, or a hop has no sample.
    pub fn new(bytes: &'a mut [i8], sample: usize, hop: usize) -> Result<Self, Error> {
        let given = bytes.len();
        if sample == 0 || given == 0 || !given.is_multiple_of(sample) {
            return Err(Error::Length { name: "sample", needed: given, given: sample });
        }
        if hop == 0 {
            return Err(Error::Length { name: "hop", needed: 1, given: 0 });
        }
        let mut window = SlidingWindow { bytes, sample, hop, next: 0, left: 0 };
        window.clear();
        Ok(window)
    }

    /// Forgets all samples, as after a gap in what the sensor saw.
    pub fn clear(&mut self) {
        (self.next, self.left) = (0, self.bytes.len() / self.sample);
    }

    /// Has `write` write the next sample over the oldest; returns whether a window is due.
    pub fn push(&mut self, write: impl FnOnce(&mut [i8])) -> bool {
        if let Some(place) = self.bytes.get_mut(self.next..self.next + self.sample) {
            write(place);
        }
        self.next += self.sample;
        if self.next == self.bytes.len() {
            self.next = 0;
        }
        self.left -= 1;
        let due = self.left == 0;
        if due {
            self.left = self.hop;
        }
        due
    }
}

/// The bytes of all inputs of the graph for one run, one after the other: those of a slice, or of a [`SlidingWindow`] from its oldest sample on.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Input<'i> {
    pub(crate) first: &'i [i8],
    pub(crate) second: &'i [i8],
}

impl Input<'_> {
    /// The number of bytes.
    pub fn len(&self) -> usize {
        self.first.len() + self.second.len()
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes in their order.
    pub fn iter(&self) -> impl Iterator<Item = i8> {
        self.first.iter().chain(self.second).copied()
    }
}

impl<'i> From<&'i [i8]> for Input<'i> {
    fn from(first: &'i [i8]) -> Self {
        Input { first, second: &[] }
    }
}

impl<'i, const LENGTH: usize> From<&'i [i8; LENGTH]> for Input<'i> {
    fn from(first: &'i [i8; LENGTH]) -> Self {
        Input { first, second: &[] }
    }
}

impl<'i> From<&'i SlidingWindow<'_>> for Input<'i> {
    fn from(window: &'i SlidingWindow<'_>) -> Self {
        let (second, first) = window.bytes.split_at_checked(window.next).unwrap_or_default();
        Input { first, second }
    }
}
