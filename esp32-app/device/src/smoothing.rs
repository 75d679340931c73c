//! A decision from several predictions.

use heapless::HistoryBuf;
use nano_core::Error;

/// The most predictions that a decision counts.
pub const LONGEST_HISTORY: usize = 16;

/// Decides for a class when enough of the latest predictions agree on it, so that one wrong window changes nothing.
///
/// ```
/// use torch_nano_device::Smoothing;
/// // Two of the latest three.
/// let mut smoothing = Smoothing::new(3, 2)?;
/// let decided = [Some(4), Some(4), None, Some(7), Some(7)].map(|class| smoothing.push(class));
/// assert_eq!(decided, [None, Some(4), Some(4), None, Some(7)]);
/// # Ok::<(), nano_core::Error>(())
/// ```
#[derive(Clone, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Smoothing {
    #[cfg_attr(feature = "defmt", defmt(Debug2Format))]
    history: HistoryBuf<Option<u32>, LONGEST_HISTORY>,
    length: usize,
    agreement: usize,
}

impl Smoothing {
    /// Decides when `agreement` of the latest `length` predictions are of one class. An agreement of half of them or less can hold for two classes, of which
    /// the later one counts.
    ///
    /// # Errors
    /// [`Error::Length`] for a length of 0 or above [`LONGEST_HISTORY`], or an agreement of 0 or above the length.
    pub const fn new(length: usize, agreement: usize) -> Result<Self, Error> {
        if length == 0 || length > LONGEST_HISTORY {
            return Err(Error::Length { name: "smoothing", needed: LONGEST_HISTORY, given: length });
        }
        if agreement == 0 || agreement > length {
            return Err(Error::Length { name: "agreement", needed: length, given: agreement });
        }
        Ok(Smoothing { history: HistoryBuf::new(), length, agreement })
    }

    /// Takes the next predicted class, `None` for one of no known class; returns the class decided for.
    pub fn push(&mut self, class: Option<u32>) -> Option<u32> {
        self.history.write(class);
        let latest = || self.history.oldest_ordered().rev().take(self.length).flatten();
        latest().find(|&class| latest().filter(|&other| other == class).count() >= self.agreement).copied()
    }

    /// Forgets all predictions.
    pub fn clear(&mut self) {
        self.history.clear();
    }
}
