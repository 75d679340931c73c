//! A board in memory, whose stream splits what is sent.

use std::convert::Infallible;

use embedded_io::{ErrorType, Read, Write};
use embedded_storage::nor_flash::NorFlash;
use nano_core::image::Image;
use nano_core::train::{Head, Loss};
use nano_core::{CheckedImage, ops};
use torch_nano_device::{
    Block, Class, Label, NoFlash, Options, Request, RequestHeader, Response, ResponseHeader, Session, Settings, Sizes,
    SpareCopy, frame,
};

use crate::builder::{Aligned, descent, head_net, layers_head};
use crate::learning::sums_net;

pub const RING: usize = 4;
/// Bytes of a frame, which holds a whole input of these models.
pub const FRAME: usize = 256;
pub const OPTIONS: Options =
    Options { ring: RING, frame: FRAME, copy: SpareCopy::Ram, settings: Settings { rejection: 0, save_interval: 0 } };

/// The RAM that a session of `image` needs, and no more.
pub fn ram(image: &Aligned) -> Vec<u32> {
    // The initial contents of the RAM must have no effect.
    vec![0xdead_beef; Sizes::of(&Image::new(image.bytes()).unwrap(), RING, FRAME, SpareCopy::Ram).words()]
}

/// A session whose counter advances by 5 whenever it is read.
pub fn session<'a>(image: &'a Aligned, ram: &'a mut [u32]) -> Session<'a, impl FnMut() -> u64, NoFlash> {
    session_with(image, ram, OPTIONS, NoFlash)
}

/// The same with other options and a flash.
pub fn session_with<'a, F: NorFlash>(
    image: &'a Aligned,
    ram: &'a mut [u32],
    options: Options,
    flash: F,
) -> Session<'a, impl FnMut() -> u64, F> {
    let mut ticks = 0;
    let counter = move || {
        ticks += 5;
        ticks
    };
    Session::new(CheckedImage::new(image.bytes(), ops::ALL).unwrap(), ram, options, flash, counter).unwrap()
}

/// Bytes for the device, in pieces, and the bytes it sent.
struct Stream<'a, F> {
    input: &'a [u8],
    output: Vec<u8>,
    piece: F,
}

impl<F> ErrorType for Stream<'_, F> {
    type Error = Infallible;
}

impl<F: FnMut() -> usize> Read for Stream<'_, F> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Infallible> {
        let count = (self.piece)().min(buffer.len()).min(self.input.len());
        let (now, later) = self.input.split_at(count);
        buffer[..count].copy_from_slice(now);
        self.input = later;
        Ok(count)
    }
}

impl<F> Write for Stream<'_, F> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        // Boards may take less than they are given.
        let count = bytes.len().min(3);
        self.output.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

/// What the device sends when `input` arrives in pieces of the sizes that `piece` gives.
pub fn send_in_pieces<'a, C: FnMut() -> u64, F: NorFlash, H: Head<'a>>(
    session: &mut Session<'a, C, F, H>,
    input: &[u8],
    piece: impl FnMut() -> usize,
) -> Vec<u8> {
    let mut stream = Stream { input, output: vec![], piece };
    let Ok(()) = session.serve(&mut stream);
    assert!(stream.input.is_empty(), "the session left bytes unread");
    stream.output
}

/// The frames with which the device answers `input`, without their end bytes.
pub fn send<'a, C: FnMut() -> u64, F: NorFlash, H: Head<'a>>(
    session: &mut Session<'a, C, F, H>,
    input: &[u8],
) -> Vec<Vec<u8>> {
    let output = send_in_pieces(session, input, || usize::MAX);
    let mut frames: Vec<Vec<u8>> = output.split(|&byte| byte == frame::END).map(<[u8]>::to_vec).collect();
    assert_eq!(frames.pop(), Some(vec![]), "the last answer has no end");
    frames
}

/// Sends a request; `check` gets its one answer.
pub fn ask<'a, C: FnMut() -> u64, F: NorFlash, H: Head<'a>, T>(
    session: &mut Session<'a, C, F, H>,
    request: Request<'_>,
    check: impl FnOnce(Response<'_>) -> T,
) -> T {
    let mut frames = send(session, &encoded(request));
    assert_eq!(frames.len(), 1, "one request, one answer");
    check(response(&mut frames[0]))
}

/// The response in a frame without its end byte.
pub fn response(frame: &mut [u8]) -> Response<'_> {
    let (ResponseHeader { protocol, sequence }, response) = frame::decode(frame).expect("the answer is a response");
    assert_eq!((protocol, sequence), (torch_nano_device::PROTOCOL, 0));
    response
}

pub fn encoded(request: Request<'_>) -> Vec<u8> {
    let mut buffer = vec![0; 1000];
    frame::encode(&RequestHeader::default(), &request, &mut buffer).unwrap().to_vec()
}

/// The head's state on the device.
pub fn head_state<'a, C: FnMut() -> u64, F: NorFlash, H: Head<'a>>(session: &mut Session<'a, C, F, H>) -> Vec<u8> {
    let mut state = vec![];
    loop {
        let whole = ask(session, Request::Read { block: Block::Head, offset: state.len() as u32 }, |response| {
            let Response::Part { length, bytes, .. } = response else { panic!("{response:?}") };
            state.extend_from_slice(bytes);
            state.len() == length as usize
        });
        if whole {
            return state;
        }
    }
}

/// Input number `number` of `head_net`.
pub fn input(number: u64) -> Vec<u8> {
    let length = head_net().value(0).shape.iter().product::<u32>();
    let mut random = fastrand::Rng::with_seed(number);
    (0..length).map(|_| random.u8(..)).collect()
}

/// The elements as the bytes of a message.
pub fn signed(bytes: &[u8]) -> Vec<i8> {
    bytes.iter().map(|&byte| byte as i8).collect()
}

/// The label of a class.
pub fn class(index: u16) -> Label<'static> {
    Label::Class(Class::Index(index))
}

/// An image of `head_net` with each kind of head.
pub fn every_head() -> [(&'static str, Aligned); 4] {
    let mut layers = head_net();
    layers.model.head = Some(layers_head(6, 3, descent(0.02, Loss::CrossEntropy)));
    [("sgd", head_net().image()), ("prototype", sums_net(false)), ("lda", sums_net(true)), ("layers", layers.image())]
}
