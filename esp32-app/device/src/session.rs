//! One conversation with one model.

use embedded_io::{Read, Write};
use nano_core::image::Image;
use nano_core::train::{AnyHead, FeatureRing, Head, HeadSizes, Target};
use nano_core::{Error, Model, Operator};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::frame;
use crate::message::{Failure, PROTOCOL, Request, Response};

/// What the RAM of a session depends on, known when a program is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes of arena.
    pub arena: usize,
    /// Bytes of one input.
    pub input: usize,
    /// Bytes of one output; with a head these are the features.
    pub output: usize,
    /// Number of layers.
    pub layers: usize,
    /// The trainable head, if there is one.
    pub head: Option<HeadSizes>,
    /// Places of the ring of recent features, for a head that uses one.
    pub ring: usize,
}

impl Sizes {
    /// The sizes of an image, with a ring of `ring` places.
    pub fn of(image: &Image<'_>, ring: usize) -> Self {
        Sizes {
            arena: image.arena_length(),
            input: image.input(0).len(),
            output: image.output(0).len(),
            layers: image.nodes().count(),
            head: image.head().map(HeadSizes::of),
            ring,
        }
    }

    /// Words of RAM that [`Session::new`] needs; `usize::MAX` for sizes that no memory holds.
    pub const fn words(&self) -> usize {
        let bytes = [
            self.arena,
            self.send(),
            self.receive(),
            self.layers.saturating_mul(4),
            self.head_words().saturating_mul(4),
            self.places().saturating_mul(self.output),
            self.places().saturating_mul(4),
        ];
        let mut words = 0usize;
        let mut index = 0;
        while index < bytes.len() {
            if bytes[index] == usize::MAX {
                return usize::MAX;
            }
            words = words.saturating_add(bytes[index].div_ceil(4));
            index += 1;
        }
        if words > usize::MAX / 4 { usize::MAX } else { words }
    }

    const fn head_words(&self) -> usize {
        match self.head {
            Some(head) => head.words(),
            None => 0,
        }
    }

    /// Places of the ring: none without a head that uses it.
    const fn places(&self) -> usize {
        match self.head {
            Some(head) if head.uses_ring() => self.ring,
            _ => 0,
        }
    }

    const fn receive(&self) -> usize {
        frame::length(self.input)
    }

    const fn send(&self) -> usize {
        let (classes, head) = match self.head {
            Some(head) => (head.classes, head.state_bytes()),
            None => (0, 0),
        };
        let prediction = self.output.saturating_add(classes.saturating_mul(4));
        let profile = self.layers.saturating_mul(4);
        let largest = if prediction > head { prediction } else { head };
        frame::length(if largest > profile { largest } else { profile })
    }
}

/// A model, its head, its ring of recent features, and the conversation about them.
///
/// `H` is the trainer of the model's head: a program for one model names it, and no other is linked.
pub struct Session<'a, C, H = AnyHead<'a>> {
    model: Model<'a>,
    head: Option<H>,
    ring: Option<FeatureRing<'a>>,
    layers: &'a mut [u32],
    receive: &'a mut [u8],
    send: &'a mut [u8],
    counter: C,
}

impl<'a, C: FnMut() -> u64, H: Head<'a>> Session<'a, C, H> {
    /// A session about `image` in `ram`, which needs [`Sizes::words`]; `counter` counts instructions or cycles.
    ///
    /// # Errors
    /// What [`Model::new`] and [`Head::new`] refuse; [`Error::Length`] if the RAM is too small, the head has a ring without
    /// places, or the model has more than one input or output.
    pub fn new(
        image: &'a [u8],
        operators: &'a [Operator],
        ram: &'a mut [u32],
        ring: usize,
        counter: C,
    ) -> Result<Self, Error> {
        let view = Image::new(image)?;
        for (name, given) in [("list of inputs", view.input_count()), ("list of outputs", view.output_count())] {
            if given != 1 {
                return Err(Error::Length { name, needed: 1, given });
            }
        }
        let sizes = Sizes::of(&view, ring);
        let given = ram.len();
        if given < sizes.words() {
            return Err(Error::Length { name: "session RAM in words", needed: sizes.words(), given });
        }
        let mut ram = ram;
        let model = Model::new(image, take(&mut ram, sizes.arena), operators)?;
        let receive = take(&mut ram, sizes.receive());
        let send = take(&mut ram, sizes.send());
        let layers = take(&mut ram, sizes.layers);
        let (mut head, mut ring) = (None, None);
        if let Some(needed) = sizes.head {
            head = Some(H::new(&view, take(&mut ram, needed.words()))?);
            let places = sizes.places();
            if needed.uses_ring() {
                let features = take(&mut ram, places * sizes.output);
                ring = Some(FeatureRing::new(sizes.output, features, take(&mut ram, places))?);
            }
        }
        Ok(Session { model, head, ring, layers, receive, send, counter })
    }

    /// Answers requests until the stream fails or ends.
    ///
    /// # Errors
    /// The stream's own.
    pub fn serve<S: Read + Write>(&mut self, stream: &mut S) -> Result<(), S::Error> {
        let mut received = 0;
        let mut overrun = false;
        let mut chunk = [0; 64];
        loop {
            let count = stream.read(&mut chunk)?;
            if count == 0 {
                return Ok(());
            }
            for &byte in &chunk[..count] {
                if byte != frame::END {
                    match self.receive.get_mut(received) {
                        Some(place) => (*place, received) = (byte, received + 1),
                        None => overrun = true,
                    }
                } else if received > 0 {
                    let answer = self.answer(received, overrun);
                    stream.write_all(answer)?;
                    stream.flush()?;
                    (received, overrun) = (0, false);
                }
            }
        }
    }

    /// The frame that answers the frame in the first `received` bytes of the buffer.
    fn answer(&mut self, received: usize, overrun: bool) -> &[u8] {
        let Session { model, head, ring, layers, receive, send, counter } = self;
        let limit = receive.len() as u32;
        let request = if overrun {
            Err(Failure::TooLong { limit })
        } else {
            frame::decode::<Request<'_>>(&mut receive[..received]).ok_or(Failure::Frame)
        };
        let response = request
            .and_then(|request| respond(request, model, head.as_mut(), ring.as_mut(), layers, counter))
            .unwrap_or_else(Response::Refused);
        frame::encode(&response, send).expect("the buffer is made for the longest response")
    }
}

fn respond<'s, 'h, C: FnMut() -> u64>(
    request: Request<'_>,
    model: &'s mut Model<'_>,
    head: Option<&'s mut impl Head<'h>>,
    ring: Option<&'s mut FeatureRing<'_>>,
    layers: &'s mut [u32],
    counter: &mut C,
) -> Result<Response<'s>, Failure> {
    match request {
        Request::Info => {
            let image = model.image();
            Ok(Response::Info {
                protocol: PROTOCOL,
                model_id: image.id(),
                name: image.metadata("name").next().unwrap_or_default(),
                input_length: image.input(0).len() as u32,
                output_length: image.output(0).len() as u32,
                classes: image.head().map_or(0, |head| head.classes),
                ring_capacity: ring.map_or(0, |ring| ring.capacity() as u32),
                arena_length: image.arena_length() as u32,
            })
        }
        Request::Predict { input } => {
            set_input(model, input)?;
            let start = counter();
            model.run();
            let output = model.output(0);
            let logits = match head {
                Some(head) => head.logits(output)?,
                None => &[],
            };
            let ticks = counter() - start;
            let class = if logits.is_empty() { largest(output) } else { largest(logits) };
            Ok(Response::Prediction { class, output: output.as_bytes(), logits: logits.as_bytes(), ticks })
        }
        Request::Profile { input } => {
            set_input(model, input)?;
            let mut last = counter();
            model.run_observed(|index, _| {
                let now = counter();
                layers[index] = (now - last) as u32;
                last = counter();
            });
            Ok(Response::Profile { layers: layers.as_bytes() })
        }
        Request::Learn { label, input } => {
            let head = head.ok_or(Failure::NoHead)?;
            let target = Target::Class(label);
            head.check(target)?;
            set_input(model, input)?;
            model.run();
            match ring {
                Some(ring) => {
                    ring.push(model.output(0), target)?;
                    Ok(Response::Learned { samples: ring.len() as u32 })
                }
                None => {
                    head.learn(model.output(0), target)?;
                    Ok(Response::Learned { samples: 0 })
                }
            }
        }
        Request::Train { epochs } => {
            let head = head.ok_or(Failure::NoHead)?;
            let ring = ring.ok_or(Failure::Other)?;
            if ring.is_empty() {
                return Err(Failure::EmptyRing);
            }
            let start = counter();
            head.train(ring, epochs)?;
            let steps = (ring.len() as u32).saturating_mul(epochs);
            Ok(Response::Trained { steps, ticks: counter() - start })
        }
        Request::ReadHead => {
            let head = head.ok_or(Failure::NoHead)?;
            Ok(Response::Head { state: head.state() })
        }
        Request::Reset => {
            if let Some(head) = head {
                head.reset();
            }
            if let Some(ring) = ring {
                ring.clear();
            }
            Ok(Response::Reset)
        }
    }
}

fn set_input(model: &mut Model<'_>, input: &[u8]) -> Result<(), Failure> {
    let place = model.input(0).as_mut_bytes();
    if input.len() != place.len() {
        return Err(Failure::Input { needed: place.len() as u32, given: input.len() as u32 });
    }
    place.copy_from_slice(input);
    Ok(())
}

/// Index of the largest element, the first of equals.
fn largest<T: Ord>(elements: &[T]) -> u32 {
    (0..elements.len()).rev().max_by_key(|&index| &elements[index]).unwrap_or(0) as u32
}

/// Splits `length` elements of `T`, which is no larger than a word, off the front of `ram`.
fn take<'a, T: FromBytes + IntoBytes + Immutable>(ram: &mut &'a mut [u32], length: usize) -> &'a mut [T] {
    let words = (length * size_of::<T>()).div_ceil(4);
    let (taken, rest) = core::mem::take(ram).split_at_mut(words);
    *ram = rest;
    let (elements, _) =
        <[T]>::mut_from_prefix_with_elems(taken.as_mut_bytes(), length).expect("words are aligned for T");
    elements
}
