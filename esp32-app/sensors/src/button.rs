//! One button that chooses a class.

/// A button that is pressed once for class 0, twice for class 1, and so on. It knows no pin: the program says whether it is down, as often as it can.
///
/// ```
/// use torch_nano_sensors::Button;
/// let mut button = Button::new(20, 600);
/// // Two presses, in milliseconds.
/// let down = |time| (100..200).contains(&time) || (400..450).contains(&time);
/// let chosen: Vec<_> = (0..2000).filter_map(|time| Some((time, button.update(time, down(time))?))).collect();
/// assert_eq!(chosen, [(1070, 1)]);
/// ```
#[derive(Clone, Debug)]
pub struct Button {
    bounce: u64,
    pause: u64,
    /// Whether it is down, once it has stopped bouncing, and since when it was seen otherwise.
    down: bool,
    changing: Option<u64>,
    presses: u16,
    /// When it was last pressed or released.
    latest: u64,
}

impl Button {
    /// A button that bounces for at most a time, and whose presses are counted once it was left alone for another; both in the unit of the program's clock.
    pub fn new(bounce: u64, pause: u64) -> Self {
        Button { bounce, pause, down: false, changing: None, presses: 0, latest: 0 }
    }

    /// Takes whether it is down now; returns the class that was chosen.
    pub fn update(&mut self, now: u64, down: bool) -> Option<u16> {
        if down == self.down {
            self.changing = None;
        } else if now - *self.changing.get_or_insert(now) >= self.bounce {
            (self.down, self.changing, self.latest) = (down, None, now);
            self.presses = self.presses.saturating_add(down.into());
        }
        if self.presses == 0 || self.down || self.changing.is_some() || now - self.latest < self.pause {
            return None;
        }
        core::mem::take(&mut self.presses).checked_sub(1)
    }
}
