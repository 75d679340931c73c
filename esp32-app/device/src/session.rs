//! A session: one model in one RAM, with the link over which a PC asks for it.

use embedded_io::{Read, Write};
use embedded_storage::nor_flash::NorFlash;
use nano_core::train::{AnyHead, FeatureRing, Head, Rejection};
use nano_core::{CheckedImage, Error};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::device::Device;
use crate::learner::{Learner, Samples};
use crate::link::Link;
use crate::message::{Settings, Stats};
use crate::sizes::{Sizes, SpareCopy};
use crate::storage::HeadStorage;

/// Frames for fewer bytes could not carry a name with its fields.
const SMALLEST_FRAME: usize = 64;

/// How a board sets its session up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Options {
    /// Places of the ring of recent features, for a head that uses one.
    pub ring: usize,
    /// Bytes of inputs, tensors or states that one frame takes, at least 64.
    pub frame: usize,
    /// Where the spare copy of the head is.
    pub copy: SpareCopy,
    /// Settings, unless others were saved.
    pub settings: Settings,
}

impl Options {
    /// Those of the firmware for chips.
    pub const CHIP: Options = Options {
        // Number of labelled samples kept for learning.
        ring: 128,
        frame: 512,
        copy: SpareCopy::Flash,
        // With one change per minute and a head of 1.3 KB, 16 pages of 4 KiB reach their 100,000 erases after 90 years.
        settings: Settings { rejection: 0, save_interval: 16 },
    };
}

/// A [`Device`] and the [`Link`] on which it answers a PC, in one RAM.
///
/// A program that only answers calls [`serve`](Session::serve). One that also predicts and learns by itself calls the methods of `device`, and gives what
/// arrives from the PC to [`poll`](Session::poll). One with several tasks takes the session apart: `device` in a mutex for all of them, `link` for
/// [`Link::serve_async`].
///
/// `H` is the trainer of the model's head: a program for one model names it, and no other is linked.
pub struct Session<'a, C, F, H = AnyHead<'a>> {
    /// The model, its head and its flash.
    pub device: Device<'a, C, F, H>,
    /// The frames.
    pub link: Link<'a>,
}

impl<'a, C: FnMut() -> u64, F: NorFlash, H: Head<'a>> Session<'a, C, F, H> {
    /// A session about `image` in `ram`, which needs [`Sizes::words`]; `flash` is for heads alone
    /// ([`NoFlash`](crate::NoFlash) on a board without one), `counter` counts instructions or cycles since the board's start. It starts with the head that
    /// was saved last, if that is of this model.
    ///
    /// # Errors
    /// What [`Head::new`] refuses; [`Error::Length`] if the RAM or a frame is too small, or the head has a ring
    /// without places.
    pub fn new(
        image: CheckedImage<'a>,
        ram: &'a mut [u32],
        options: Options,
        flash: F,
        counter: C,
    ) -> Result<Self, Error> {
        let view = *image.image();
        if options.frame < SMALLEST_FRAME {
            return Err(Error::Length { name: "frame", needed: SMALLEST_FRAME, given: options.frame });
        }
        let sizes = Sizes::of(&view, options.ring, options.frame, options.copy);
        let given = ram.len();
        if given < sizes.words() {
            return Err(Error::Length { name: "session RAM in words", needed: sizes.words(), given });
        }
        let mut ram = ram;
        let model = image.bind(take(&mut ram, sizes.arena)?)?;
        let receive = take(&mut ram, sizes.buffer())?;
        let send = take(&mut ram, sizes.buffer())?;
        let layers = take(&mut ram, sizes.profiled())?;
        let mut learner = None;
        if let Some(needed) = sizes.head {
            let head = H::new(&view, take(&mut ram, needed.words())?)?;
            let rejection = Rejection::of(&view, view.head().ok_or(Error::NoHead)?);
            let names = take(&mut ram, sizes.names())?;
            // RAM may hold anything, and a zero is no name.
            names.fill([0; _]);
            let spare = take(&mut ram, sizes.spare())?;
            let mut samples = None;
            if needed.uses_ring() {
                let (places, count) = (sizes.places(), sizes.features());
                let features = take(&mut ram, places * count)?;
                let ring = FeatureRing::new(count, features, take(&mut ram, places)?)?;
                let ring = ring.guarded(view.head().map_or(0, |head| head.guard));
                samples = Some(Samples { ring, displaced: take(&mut ram, count)?, displaced_target: 0 });
            }
            learner = Some(Learner {
                head,
                rejection,
                samples,
                names,
                spare,
                staged: 0,
                undo: None,
                training: None,
                trainings: 0,
                taken_back: 0,
            });
        }
        let mut device = Device {
            model,
            learner,
            storage: HeadStorage::new(flash, view.id(), view.head().map_or(0, |head| head.id)),
            settings: options.settings,
            stats: Stats::default(),
            unsaved: 0,
            saves_held: false,
            restored: false,
            counter,
            layers,
            profiled: false,
            ends_in_softmax: image.ends_in_softmax(),
            frame: options.frame,
            arrived: 0,
            ran: false,
            asked: None,
            latest: None,
            updates: None,
            restarts: false,
        };
        device.restore();
        device.stats.startup_ticks = (device.counter)();
        Ok(Session { device, link: Link::new(receive, send) })
    }

    /// [`Link::poll`] on the session's own device.
    pub fn poll(&mut self, bytes: &mut &[u8]) -> Option<&[u8]> {
        self.link.poll(&mut self.device, bytes)
    }

    /// [`Link::serve`] on the session's own device.
    ///
    /// # Errors
    /// The stream's own.
    pub fn serve<S: Read + Write>(&mut self, stream: &mut S) -> Result<(), S::Error> {
        self.link.serve(&mut self.device, stream)
    }
}

/// Splits `length` elements of `T`, aligned to a word or less, off the front of `ram`.
fn take<'a, T: FromBytes + IntoBytes + Immutable>(
    ram: &mut &'a mut [u32],
    length: usize,
) -> Result<&'a mut [T], Error> {
    let needed = (length * size_of::<T>()).div_ceil(4);
    let wrong = Error::Length { name: "session RAM left, in words", needed, given: ram.len() };
    let taken = ram.split_off_mut(..needed).ok_or(wrong)?;
    let (elements, _) = <[T]>::mut_from_prefix_with_elems(taken.as_mut_bytes(), length).map_err(|_| wrong)?;
    Ok(elements)
}
