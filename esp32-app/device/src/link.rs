//! A link to a PC: assembles frames from bytes, has the device execute their requests, and keeps the latest answer.

use embassy_sync::blocking_mutex::raw::RawMutex;
use embassy_sync::mutex::Mutex;
use embedded_io::{Read, Write};
use embedded_storage::nor_flash::NorFlash;
use nano_core::train::Head;

use crate::device::Device;
use crate::failure::Failure;
use crate::frame::{self, CRC32};
use crate::message::{PROTOCOL, Request, RequestHeader, Response, ResponseHeader};

/// Upper bound of the bytes of a refusal's frame.
const REFUSAL: usize = 32;
/// Bytes read from a stream at a time.
const CHUNK: usize = 64;

/// The state of the protocol, on one stream of bytes. It holds no model: each call takes the [`Device`] that answers, so a device serves several links, and
/// its own program between two requests.
pub struct Link<'a> {
    receive: &'a mut [u8],
    send: &'a mut [u8],
    /// Number and checksum of the request answered last, and the length of its answer in `send`.
    last: Option<(u16, u32, usize)>,
    /// Number of the session that the latest [`Request::Begin`] began.
    session: u16,
    /// Bytes of the current frame received so far, and whether it is longer than `receive`.
    received: usize,
    overrun: bool,
    /// The latest refusal of a frame that is no request. It leaves `send` to the latest request, which may come again.
    refusal: [u8; REFUSAL],
}

/// Where the answer to a frame is.
enum Answer {
    /// The first so many bytes of `send`.
    Sent(usize),
    /// The first so many bytes of `refusal`.
    Refused(usize),
}

impl<'a> Link<'a> {
    pub(crate) fn new(receive: &'a mut [u8], send: &'a mut [u8]) -> Self {
        Link { receive, send, last: None, session: 0, received: 0, overrun: false, refusal: [0; REFUSAL] }
    }

    /// Forgets the frame that has arrived in part, as when another stream begins.
    pub fn restart(&mut self) {
        (self.received, self.overrun) = (0, false);
    }

    /// Takes the bytes that have arrived, up to the end of the first frame, off the front of `bytes`, and answers that frame on `device`. Returns the answer,
    /// to be sent as it is; `None` once `bytes` is empty and the next frame is not complete. Never waits.
    ///
    /// ```
    /// # use nano_core::{CheckedImage, Error, ops};
    /// # use torch_nano_device::{NoFlash, Options, Session, Settings, SpareCopy};
    /// # fn serve(image: CheckedImage<'_>, ram: &mut [u32], uart: &[u8]) -> Result<Vec<u8>, Error> {
    /// let options = Options { ring: 128, frame: 512, copy: SpareCopy::Flash, settings: Settings::default() };
    /// let Session { mut device, mut link } = Session::<_, _>::new(image, ram, options, NoFlash, || 0)?;
    /// let (mut arrived, mut sent) = (uart, Vec::new());
    /// while let Some(answer) = link.poll(&mut device, &mut arrived) {
    ///     sent.extend_from_slice(answer);
    /// }
    /// # Ok(sent)
    /// # }
    /// ```
    pub fn poll<'h, C: FnMut() -> u64, F: NorFlash, H: Head<'h>>(
        &mut self,
        device: &mut Device<'h, C, F, H>,
        bytes: &mut &[u8],
    ) -> Option<&[u8]> {
        while self.assemble(bytes) {
            if self.received == 0 {
                continue;
            }
            let answer = self.answer(device);
            self.restart();
            return match answer {
                Answer::Sent(length) => self.send.get(..length),
                Answer::Refused(length) => self.refusal.get(..length),
            };
        }
        None
    }

    /// Answers requests on `device` until the stream fails or ends, or the board is to [start again](Device::restarts); the next stream starts with a new
    /// frame. Waits for each byte.
    ///
    /// # Errors
    /// The stream's own.
    pub fn serve<'h, C: FnMut() -> u64, F: NorFlash, H: Head<'h>, S: Read + Write>(
        &mut self,
        device: &mut Device<'h, C, F, H>,
        stream: &mut S,
    ) -> Result<(), S::Error> {
        self.restart();
        let mut chunk = [0; CHUNK];
        loop {
            let count = stream.read(&mut chunk)?;
            let mut bytes = chunk.get(..count).unwrap_or_default();
            if bytes.is_empty() {
                return Ok(());
            }
            while let Some(answer) = self.poll(device, &mut bytes) {
                stream.write_all(answer)?;
                stream.flush()?;
                if device.restarts() {
                    return Ok(());
                }
            }
        }
    }

    /// [`serve`](Self::serve) as a task beside others that use the device: it locks `device` while it executes a request, and never while it waits for the
    /// stream. A training takes one lock for each of its slices.
    ///
    /// # Errors
    /// The stream's own.
    pub async fn serve_async<'h, M, C, F, H, S>(
        &mut self,
        device: &Mutex<M, Device<'h, C, F, H>>,
        stream: &mut S,
    ) -> Result<(), S::Error>
    where
        M: RawMutex,
        C: FnMut() -> u64,
        F: NorFlash,
        H: Head<'h>,
        S: embedded_io_async::Read + embedded_io_async::Write,
    {
        self.restart();
        let mut chunk = [0; CHUNK];
        loop {
            let count = stream.read(&mut chunk).await?;
            let mut bytes = chunk.get(..count).unwrap_or_default();
            if bytes.is_empty() {
                return Ok(());
            }
            loop {
                let mut locked = device.lock().await;
                let answer = self.poll(&mut locked, &mut bytes);
                let restarts = locked.restarts();
                drop(locked);
                let Some(answer) = answer else { break };
                stream.write_all(answer).await?;
                stream.flush().await?;
                if restarts {
                    return Ok(());
                }
            }
        }
    }

    /// Takes bytes off the front of `bytes` into the current frame; returns whether an end byte completed it.
    fn assemble(&mut self, bytes: &mut &[u8]) -> bool {
        while let Some((&byte, rest)) = bytes.split_first() {
            *bytes = rest;
            if byte == frame::END {
                return true;
            }
            match self.receive.get_mut(self.received) {
                Some(place) => (*place, self.received) = (byte, self.received + 1),
                None => self.overrun = true,
            }
        }
        false
    }

    /// Answers the frame that has arrived.
    fn answer<'h, C: FnMut() -> u64, F: NorFlash, H: Head<'h>>(&mut self, device: &mut Device<'h, C, F, H>) -> Answer {
        self.execute(device).unwrap_or_else(|(sequence, failure)| {
            device.stats.refused_frames = device.stats.refused_frames.wrapping_add(1);
            let header = ResponseHeader { protocol: PROTOCOL, sequence };
            let refusal = frame::encode(&header, &Response::Refused(failure), &mut self.refusal);
            Answer::Refused(refusal.map_or(0, |refusal| refusal.len()))
        })
    }

    /// Executes the request of the frame that has arrived; an error is the number and the failure of a frame that is no request.
    fn execute<'h, C: FnMut() -> u64, F: NorFlash, H: Head<'h>>(
        &mut self,
        device: &mut Device<'h, C, F, H>,
    ) -> Result<Answer, (u16, Failure)> {
        let Link { receive, send, last, session: own, received, overrun, .. } = self;
        if *overrun {
            return Err((0, Failure::TooLong { limit: receive.len() as u32 }));
        }
        let message = receive.get_mut(..*received).and_then(frame::open).ok_or((0, Failure::Frame))?;
        if message.first() != Some(&PROTOCOL) {
            return Err((0, Failure::Protocol { protocol: PROTOCOL }));
        }
        let (header, request) = frame::parse(message).ok_or((0, Failure::Frame))?;
        let RequestHeader { sequence, session, model_id, .. } = header;
        let id = device.model.image().id();
        if model_id.is_some_and(|model_id| model_id != id) {
            return Err((sequence, Failure::Model { model_id: id }));
        }
        let Some((request, [])) = frame::parse::<Request<'_>>(request) else {
            return Err((sequence, Failure::Frame));
        };
        if matches!(request, Request::Begin) {
            *own = session;
        } else if session != 0 && session != *own {
            return Err((sequence, Failure::Session));
        }
        let checksum = CRC32.checksum(message);
        if let Some((number, before, length)) = *last
            && (number, before) == (sequence, checksum)
            && sequence != 0
            && !matches!(request, Request::Info)
        {
            device.stats.repeated = device.stats.repeated.wrapping_add(1);
            return Ok(Answer::Sent(length));
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
        Ok(Answer::Sent(length))
    }
}
