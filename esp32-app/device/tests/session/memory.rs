//! RAM that is too small, images that nano-core refuses, and streams that fail.

use embedded_io::{ErrorKind, ErrorType, Read, Write};
use nano_core::image::Image;
use nano_core::train::{AnyHead, HeadSizes};
use nano_core::{CheckedImage, Error, ops};
use torch_nano_device::{NoFlash, Options, Request, Response, Session, Sizes, SpareCopy};

use crate::builder::{Aligned, conv_net, head_net, place};
use crate::stream::{FRAME, OPTIONS, RING, ask, encoded, input, ram, session};

fn refused(image: &Aligned, ram: &mut [u32], ring: usize) -> Option<Error> {
    let options = Options { ring, ..OPTIONS };
    let checked = CheckedImage::new(image.bytes(), ops::ALL);
    checked.and_then(|image| Session::<_, _, AnyHead<'_>>::new(image, ram, options, NoFlash, || 0)).err()
}

#[test]
fn ram_of_exactly_the_size_suffices_and_one_word_less_does_not() {
    for (net, length) in [(conv_net(), 7 * 6 * 3), (head_net(), input(0).len())] {
        let image = net.image();
        let mut exact = ram(&image);
        let needed = exact.len();
        let error = refused(&image, &mut exact[1..], RING);
        assert_eq!(error, Some(Error::Length { name: "session RAM in words", needed, given: needed - 1 }));
        assert_eq!(
            refused(&image, &mut [], RING),
            Some(Error::Length { name: "session RAM in words", needed, given: 0 })
        );
        let answer = |ram: &mut [u32]| {
            let input = vec![3; length];
            ask(&mut session(&image, ram), Request::Predict { input: &input }, |response| match response {
                Response::Prediction { output, logits, .. } => (output.to_vec(), logits.to_vec()),
                other => panic!("{other:?}"),
            })
        };
        assert_eq!(answer(&mut exact), answer(&mut vec![u32::MAX; needed + 1000]));
    }
}

#[test]
fn a_head_needs_a_ring_and_a_model_without_one_does_not() {
    let mut room = vec![0; 10_000];
    let error = refused(&head_net().image(), &mut room, 0);
    assert_eq!(error, Some(Error::Length { name: "ring features", needed: 0, given: 0 }));
    assert_eq!(refused(&conv_net().image(), &mut room, 0), None);
    assert_eq!(refused(&head_net().image(), &mut room, 1), None);
    // Without a head the ring takes no RAM.
    let image = conv_net().image();
    let view = Image::new(image.bytes()).unwrap();
    assert_eq!(
        Sizes::of(&view, 0, FRAME, SpareCopy::Ram).words(),
        Sizes::of(&view, 1 << 20, FRAME, SpareCopy::Ram).words()
    );
}

#[test]
fn sizes_beyond_all_memory_do_not_wrap_around() {
    let image = head_net().image();
    let view = Image::new(image.bytes()).unwrap();
    let sizes = Sizes::of(&view, RING, FRAME, SpareCopy::Ram);
    let head = sizes.head.unwrap();
    for sizes in [
        Sizes { head: Some(HeadSizes { classes: usize::MAX, ..head }), ..sizes },
        Sizes { ring: usize::MAX, ..sizes },
        Sizes { layers: usize::MAX / 2, ..sizes },
        Sizes { head: Some(HeadSizes { features: usize::MAX / 4, ..head }), ..sizes },
        Sizes { arena: usize::MAX, ..sizes },
        Sizes { frame: usize::MAX, ..sizes },
    ] {
        assert_eq!(sizes.words(), usize::MAX, "{sizes:?}");
    }
    let needed = usize::MAX;
    assert_eq!(
        refused(&image, &mut [0; 100], usize::MAX),
        Some(Error::Length { name: "session RAM in words", needed, given: 100 })
    );
}

#[test]
fn what_nano_core_refuses_is_refused() {
    let mut room = vec![0; 10_000];
    let mut other_trainer = head_net().image();
    let record = other_trainer.word(place::HEAD) as usize;
    other_trainer.patch(record, 77);
    assert_eq!(refused(&other_trainer, &mut room, RING), Some(Error::Field { name: "head trainer", value: 77 }));
}

/// A stream that fails after its bytes are read, or on each write.
struct Failing {
    input: Vec<u8>,
    write: ErrorKind,
}

impl ErrorType for Failing {
    type Error = ErrorKind;
}

impl Read for Failing {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ErrorKind> {
        if self.input.is_empty() {
            return Err(ErrorKind::TimedOut);
        }
        let count = self.input.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.input[..count]);
        self.input.drain(..count);
        Ok(count)
    }
}

impl Write for Failing {
    fn write(&mut self, _: &[u8]) -> Result<usize, ErrorKind> {
        Err(self.write)
    }

    fn flush(&mut self) -> Result<(), ErrorKind> {
        Ok(())
    }
}

#[test]
fn errors_of_the_stream_come_out_and_the_session_goes_on() {
    let image = head_net().image();
    let mut ram = ram(&image);
    let mut session = session(&image, &mut ram);
    let half = encoded(Request::Info)[..3].to_vec();
    let mut reading = Failing { input: half, write: ErrorKind::Other };
    assert_eq!(session.serve(&mut reading), Err(ErrorKind::TimedOut));
    let mut writing = Failing { input: encoded(Request::Info), write: ErrorKind::BrokenPipe };
    assert_eq!(session.serve(&mut writing), Err(ErrorKind::BrokenPipe));
    // A new connection starts with a new frame.
    ask(&mut session, Request::Info, |response| assert!(matches!(response, Response::Info { .. })));
}
