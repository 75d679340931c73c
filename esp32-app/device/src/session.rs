//! A session: receives frames, executes their requests on one model, and answers them.

use embedded_io::{Read, Write};
use embedded_storage::nor_flash::NorFlash;
use nano_core::train::{AnyHead, FeatureRing, Head};
use nano_core::{CheckedImage, Error};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::device::Device;
use crate::failure::Failure;
use crate::frame::{self, CRC32};
use crate::learner::{Learner, Samples};
use crate::message::{PROTOCOL, Request, RequestHeader, Response, ResponseHeader, Settings, Stats};
use crate::sizes::Sizes;
use crate::storage::HeadStorage;

/// Frames for fewer bytes could not carry a name with its fields.
const SMALLEST_FRAME: usize = 64;
/// Upper bound of the bytes of a refusal's frame.
const REFUSAL: usize = 32;

/// How a board sets its session up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Places of the ring of recent features, for a head that uses one.
    pub ring: usize,
    /// Bytes of inputs, tensors or states that one frame takes, at least 64.
    pub frame: usize,
    /// Settings, unless others were saved.
    pub settings: Settings,
}

/// A model, its head, its ring buffer of recent features, its flash, and the protocol's state.
///
/// `H` is the trainer of the model's head: a program for one model names it, and no other is linked.
pub struct Session<'a, C, F, H = AnyHead<'a>> {
    device: Device<'a, C, F, H>,
    receive: &'a mut [u8],
    send: &'a mut [u8],
    /// Number and checksum of the request answered last, and the length of its answer in `send`.
    last: Option<(u16, u32, usize)>,
    /// Number of the session that the latest [`Request::Begin`] began.
    session: u16,
    /// Bytes of the current frame received so far, and whether it is longer than `receive`.
    received: usize,
    overrun: bool,
}

/// The answer to a frame.
enum Answer {
    /// The first so many bytes of `send`.
    Sent(usize),
    /// The refusal of a frame that is no request. It leaves `send` to the latest request, which may come again.
    Refused(u16, Failure),
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
        let sizes = Sizes::of(&view, options.ring, options.frame);
        let given = ram.len();
        if given < sizes.words() {
            return Err(Error::Length { name: "session RAM in words", needed: sizes.words(), given });
        }
        let mut ram = ram;
        let model = image.bind(take(&mut ram, sizes.arena)?)?;
        let receive = take(&mut ram, sizes.buffer())?;
        let send = take(&mut ram, sizes.buffer())?;
        let layers = take(&mut ram, sizes.layers)?;
        let mut learner = None;
        if let Some(needed) = sizes.head {
            let head = H::new(&view, take(&mut ram, needed.words())?)?;
            let names = take(&mut ram, sizes.names())?;
            // RAM may hold anything, and a zero is no name.
            names.fill([0; _]);
            let spare = take(&mut ram, sizes.record())?;
            let mut samples = None;
            if needed.uses_ring() {
                let (places, count) = (sizes.places(), sizes.features());
                let features = take(&mut ram, places * count)?;
                let ring = FeatureRing::new(count, features, take(&mut ram, places)?)?;
                samples = Some(Samples { ring, displaced: take(&mut ram, count)?, displaced_target: 0 });
            }
            learner = Some(Learner { head, samples, names, spare, staged: 0, undo: None, training: None });
        }
        let last = view.writer(view.output_id(0)).and_then(|node| node.kernel(image.kernels()));
        let mut device = Device {
            model,
            learner,
            storage: HeadStorage::new(flash, view.id()),
            settings: options.settings,
            stats: Stats::default(),
            unsaved: 0,
            restored: false,
            counter,
            layers,
            profiled: false,
            ends_in_softmax: last.is_some_and(|kernel| kernel.operator.name == "softmax"),
            frame: options.frame,
            arrived: 0,
            ran: false,
        };
        device.restore();
        device.stats.startup_ticks = (device.counter)();
        Ok(Session { device, receive, send, last: None, session: 0, received: 0, overrun: false })
    }

    /// The flash.
    pub fn flash(&self) -> &F {
        self.device.storage.flash()
    }

    /// Answers requests until the stream fails or ends; the next stream starts with a new frame.
    ///
    /// # Errors
    /// The stream's own.
    pub fn serve<S: Read + Write>(&mut self, stream: &mut S) -> Result<(), S::Error> {
        (self.received, self.overrun) = (0, false);
        let mut chunk = [0; 64];
        loop {
            let count = stream.read(&mut chunk)?;
            if count == 0 {
                return Ok(());
            }
            for &byte in chunk.iter().take(count) {
                if byte != frame::END {
                    match self.receive.get_mut(self.received) {
                        Some(place) => (*place, self.received) = (byte, self.received + 1),
                        None => self.overrun = true,
                    }
                } else if self.received > 0 {
                    let mut refusal = [0; REFUSAL];
                    let answer: &[u8] = match self.answer() {
                        Answer::Sent(length) => self.send.get(..length).unwrap_or_default(),
                        Answer::Refused(sequence, failure) => {
                            self.device.stats.refused_frames = self.device.stats.refused_frames.wrapping_add(1);
                            let header = ResponseHeader { protocol: PROTOCOL, sequence };
                            let response = Response::Refused(failure);
                            frame::encode(&header, &response, &mut refusal).unwrap_or_default()
                        }
                    };
                    stream.write_all(answer)?;
                    stream.flush()?;
                    (self.received, self.overrun) = (0, false);
                }
            }
        }
    }

    /// Answers the frame that has arrived.
    fn answer(&mut self) -> Answer {
        let Session { device, receive, send, last, session: own, received, overrun } = self;
        if *overrun {
            return Answer::Refused(0, Failure::TooLong { limit: receive.len() as u32 });
        }
        let Some(message) = receive.get_mut(..*received).and_then(frame::open) else {
            return Answer::Refused(0, Failure::Frame);
        };
        if message.first() != Some(&PROTOCOL) {
            return Answer::Refused(0, Failure::Protocol { protocol: PROTOCOL });
        }
        let Some((RequestHeader { sequence, session, model_id, .. }, request)) = frame::parse(message) else {
            return Answer::Refused(0, Failure::Frame);
        };
        let id = device.model.image().id();
        if model_id.is_some_and(|model_id| model_id != id) {
            return Answer::Refused(sequence, Failure::Model { model_id: id });
        }
        let Some((request, [])) = frame::parse::<Request<'_>>(request) else {
            return Answer::Refused(sequence, Failure::Frame);
        };
        if request == Request::Begin {
            *own = session;
        } else if session != 0 && session != *own {
            return Answer::Refused(sequence, Failure::Session);
        }
        let checksum = CRC32.checksum(message);
        if let Some((number, before, length)) = *last
            && (number, before) == (sequence, checksum)
            && sequence != 0
            && request != Request::Info
        {
            device.stats.repeated = device.stats.repeated.wrapping_add(1);
            return Answer::Sent(length);
        }
        device.stats.requests = device.stats.requests.wrapping_add(1);
        let header = ResponseHeader { protocol: PROTOCOL, sequence };
        let encoded =
            |response: &Response<'_>, send: &mut [u8]| frame::encode(&header, response, send).map(|f| f.len());
        let length = device.respond(request).and_then(|response| {
            // The buffers hold every response to an image that was accepted.
            encoded(&response, send).ok_or(Failure::TooLong { limit: send.len() as u32 })
        });
        let length = length.unwrap_or_else(|failure| {
            device.stats.refused_requests = device.stats.refused_requests.wrapping_add(1);
            encoded(&Response::Refused(failure), send).unwrap_or(0)
        });
        *last = Some((sequence, checksum, length));
        Answer::Sent(length)
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
