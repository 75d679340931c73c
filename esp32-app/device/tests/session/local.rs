//! Calls of the board's own program, alone and between the requests of a PC.

use std::cell::Cell;

use embassy_futures::join::{join, join3};
use embassy_futures::{block_on, yield_now};
use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embassy_sync::mutex::Mutex;
use embassy_sync::pipe::Pipe;
use embedded_io_async::{ErrorType, Read, Write};
use embedded_storage::nor_flash::NorFlash;
use nano_core::train::Head;
use torch_nano_device::{
    Block, Class, Device, Failure, Label, Learned, MemoryFlash, Options, Prediction, Progress, Request, RequestHeader,
    Response, Session, Settings, frame,
};
use zerocopy::IntoBytes;

use crate::builder::head_net;
use crate::stream::{
    FRAME, OPTIONS, ask, class, encoded, every_head, head_state, input, ram, response, session, session_with, signed,
};

fn erased() -> MemoryFlash<Vec<u8>> {
    MemoryFlash(vec![0xff; 16 * 4096])
}

/// What the board's own program gets for a request, as the PC would get it.
fn call<'a, C: FnMut() -> u64, F: NorFlash, H: Head<'a>>(
    device: &mut Device<'a, C, F, H>,
    request: Request<'_>,
) -> String {
    let trained = |Progress { steps, left, ticks, taken_back }| Response::Trained { steps, left, ticks, taken_back };
    let result = match request {
        Request::Predict { input } => device.predict(&signed(input)[..]).map(|made| {
            let Prediction { class, confidence, margin, known, ticks, logit_scale, logits, output } = made;
            let (logits, output) = (logits.as_bytes(), output.as_bytes());
            Response::Prediction { class, confidence, margin, known, ticks, logit_scale, logits, output }
        }),
        Request::Features { input } => device
            .features(&signed(input)[..])
            .map(|made| Response::Features { ticks: made.ticks, output: made.output.as_bytes() }),
        Request::Learn { label, input } => device
            .learn(&signed(input)[..], label)
            .map(|Learned { samples, ticks }| Response::Learned { samples, ticks }),
        Request::Train { first_epoch, epochs } => {
            device.begin_training(first_epoch, epochs).and_then(|()| device.train_slice()).map(trained)
        }
        Request::Continue => device.train_slice().map(trained),
        Request::Stop => device.stop_training().map(trained),
        Request::Commit => device.commit().map(|ticks| Response::Committed { ticks }),
        Request::Undo => device.undo().map(|()| Response::Done),
        Request::AddClass { name } => device.add_class(name).map(|class| Response::ClassAdded { class }),
        Request::Forget { class } => device.forget(class).map(|()| Response::Done),
        Request::ClassName { class } => device.class_name(class).map(|name| Response::ClassName { name }),
        Request::Reset => device.reset().map(|()| Response::Done),
        Request::Save { replace } => device.save(replace).map(|count| Response::Saved { count }),
        Request::Load => device.load().map(Response::Loaded),
        Request::Configure { settings } => {
            device.configure(settings);
            Ok(Response::Done)
        }
        Request::ResetStates => {
            device.reset_states();
            Ok(Response::Done)
        }
        other => panic!("{other:?}"),
    };
    format!("{:?}", result.unwrap_or_else(Response::Refused))
}

/// Any request of which the board's program has the call, sensible or not.
fn any<'r>(random: &mut fastrand::Rng, sample: &'r [u8]) -> Request<'r> {
    let names = ["left", "up", "down", ""];
    let name = names[random.usize(..names.len())];
    let class = if random.bool() { Class::Name(name) } else { Class::Index(random.u16(..5)) };
    match random.u8(..20) {
        0..3 => Request::Predict { input: sample },
        3 => Request::Features { input: sample },
        4..8 => Request::Learn { label: Label::Class(class), input: sample },
        8 | 9 => Request::Train { first_epoch: random.u32(..3), epochs: random.u32(..3000) },
        10 => Request::Continue,
        11 => Request::Stop,
        12 => Request::Commit,
        13 => Request::Undo,
        14 => Request::AddClass { name },
        15 => Request::Forget { class },
        16 => Request::ClassName { class: random.u16(..5) },
        17 => [Request::Reset, Request::ResetStates][random.usize(..2)],
        18 => [Request::Save { replace: false }, Request::Load][random.usize(..2)],
        _ => {
            Request::Configure { settings: Settings { rejection: random.u16(..32768), save_interval: random.u32(..4) } }
        }
    }
}

#[test]
fn a_call_does_what_the_request_does() {
    for (name, image) in every_head() {
        for seed in 0..60 {
            let mut random = fastrand::Rng::with_seed(seed);
            let (mut own, mut asked) = (ram(&image), ram(&image));
            let mut own = session_with(&image, &mut own, OPTIONS, erased());
            let mut asked = session_with(&image, &mut asked, OPTIONS, erased());
            for step in 0..40 {
                let mut sample = input(random.u64(..100));
                if random.u8(..20) == 0 {
                    sample.pop();
                }
                let request = any(&mut random, &sample);
                let expected = ask(&mut asked, request, |response| format!("{response:?}"));
                assert_eq!(call(&mut own.device, request), expected, "{name}, seed {seed}, step {step}: {request:?}");
            }
            let (own_stats, asked_stats) = (own.device.stats(), asked.device.stats());
            assert_eq!(
                (own_stats.runs, own_stats.learned, own_stats.steps, own_stats.changes, own_stats.saves),
                (asked_stats.runs, asked_stats.learned, asked_stats.steps, asked_stats.changes, asked_stats.saves),
                "{name}, seed {seed}"
            );
            assert_eq!(own.device.flash().0, asked.device.flash().0, "{name}, seed {seed}");
            assert_eq!(own.device.settings(), asked.device.settings());
            assert_eq!(head_state(&mut own), head_state(&mut asked), "{name}, seed {seed}");
        }
    }
}

#[test]
fn a_call_never_mixes_with_an_input_in_parts_or_an_output_half_read() {
    let image = head_net().image();
    let mut memory = ram(&image);
    let mut session = session(&image, &mut memory);
    let (ours, theirs) = (signed(&input(1)), input(2));
    let (first, rest) = theirs.split_at(10);
    ask(&mut session, Request::Input { offset: 0, bytes: first }, |response| {
        assert_eq!(response, Response::Received { length: 10 });
    });
    session.device.predict(&ours[..]).unwrap();
    let needed = theirs.len() as u32;
    ask(&mut session, Request::Predict { input: rest }, |response| {
        assert_eq!(response, Response::Refused(Failure::Input { needed, given: needed - 10 }));
    });
    ask(&mut session, Request::Input { offset: 10, bytes: rest }, |response| {
        assert_eq!(response, Response::Refused(Failure::Order { needed: 0, given: 10 }));
    });
    for block in [Block::Output, Block::Logits] {
        ask(&mut session, Request::Predict { input: &theirs }, |response| {
            assert!(matches!(response, Response::Prediction { .. }));
        });
        ask(&mut session, Request::Read { block, offset: 0 }, |response| {
            assert!(matches!(response, Response::Part { .. }));
        });
        session.device.learn(&ours[..], 0).unwrap();
        ask(&mut session, Request::Read { block, offset: 4 }, |response| {
            assert_eq!(response, Response::Refused(Failure::NoRun));
        });
    }
    // A refused call has not touched the input.
    ask(&mut session, Request::Input { offset: 0, bytes: first }, |_| ());
    let given = ours.len() as u32 - 1;
    assert_eq!(session.device.predict(&ours[1..]), Err(Failure::Input { needed, given }));
    assert_eq!(session.device.learn(&ours[..], "no such class"), Err(Failure::UnknownName));
    ask(&mut session, Request::Predict { input: rest }, |response| {
        assert!(matches!(response, Response::Prediction { .. }));
    });
}

#[test]
fn outputs_and_names_are_those_of_the_image() {
    let image = head_net().image();
    let mut memory = ram(&image);
    let mut session = session(&image, &mut memory);
    let device = &mut session.device;
    let features = device.features(&signed(&input(3))[..]).unwrap().output.to_vec();
    assert_eq!(device.output(0), Ok(&features[..]));
    assert_eq!(device.output(1), Err(Failure::GraphValue { count: 1 }));
    assert_eq!(device.image().input(0).len(), input(3).len());
    assert_eq!(device.head().map(|head| head.classes()), Some(3));
    assert_eq!((device.restored(), device.training()), (false, None));
}

#[test]
fn poll_takes_one_frame_at_a_time_and_waits_for_none() {
    let image = head_net().image();
    let mut memory = ram(&image);
    let Session { mut device, mut link } = session(&image, &mut memory);
    let request = encoded(Request::Predict { input: &input(5) });
    let expected = link.poll(&mut device, &mut &request[..]).unwrap().to_vec();
    for seed in 0..100 {
        let mut random = fastrand::Rng::with_seed(seed);
        // End bytes alone are no frames.
        let sent = [&[frame::END, frame::END], &request[..], &request[..], &[frame::END]].concat();
        let (mut answers, mut rest) = (0, &sent[..]);
        while !rest.is_empty() {
            let (mut now, later) = rest.split_at(random.usize(1..=rest.len()));
            while let Some(answer) = link.poll(&mut device, &mut now) {
                assert_eq!(answer, expected, "seed {seed}");
                answers += 1;
            }
            assert!(now.is_empty(), "seed {seed}");
            rest = later;
        }
        assert_eq!(answers, 2, "seed {seed}");
    }
    // What came before a restart is no part of the next frame.
    assert_eq!(link.poll(&mut device, &mut &request[..20]), None);
    link.restart();
    assert_eq!(link.poll(&mut device, &mut &request[..]), Some(&expected[..]));
}

/// One direction of a stream, so short that a frame fills it many times.
pub type Half = Pipe<NoopRawMutex, 16>;

pub struct Stream<'p> {
    pub read: &'p Half,
    pub write: &'p Half,
    pub closed: &'p Cell<bool>,
}

impl ErrorType for Stream<'_> {
    type Error = core::convert::Infallible;
}

impl Read for Stream<'_> {
    async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Self::Error> {
        while self.read.is_empty() {
            if self.closed.get() {
                return Ok(0);
            }
            yield_now().await;
        }
        Ok(self.read.read(buffer).await)
    }
}

impl Write for Stream<'_> {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, Self::Error> {
        Ok(self.write.write(bytes).await)
    }

    async fn flush(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
}

#[test]
fn a_program_uses_the_device_while_a_link_waits_for_its_stream() {
    let image = head_net().image();
    let mut memory = ram(&image);
    let Session { device, mut link } = session(&image, &mut memory);
    let device = Mutex::<NoopRawMutex, _>::new(device);
    let (to_device, to_pc, closed) = (Half::new(), Half::new(), Cell::new(false));
    let mut stream = Stream { read: &to_device, write: &to_pc, closed: &closed };
    let samples: Vec<Vec<u8>> = (0..30).map(input).collect();
    // The PC reads nothing before the program has done its work: nobody waits for nobody.
    let written = Cell::new(0);
    let pc = async {
        let mut answers = vec![];
        for sample in &samples {
            let mut request = &encoded(Request::Predict { input: sample })[..];
            while !request.is_empty() {
                let count = to_device.write(request).await;
                request = &request[count..];
            }
            written.set(written.get() + 1);
            let program = async {
                // The answer is longer than the pipe, so the link waits for the PC while the program runs.
                while !to_pc.is_full() {
                    yield_now().await;
                }
                let mut device = device.lock().await;
                device.learn(&signed(sample)[..], 1).unwrap();
                device.begin_training(0, 2).unwrap();
                while device.train_slice().unwrap().left > 0 {}
            };
            program.await;
            let mut answer = vec![];
            while answer.last() != Some(&frame::END) {
                let mut chunk = [0; 7];
                let count = to_pc.read(&mut chunk).await;
                answer.extend_from_slice(&chunk[..count]);
            }
            answers.push(answer);
        }
        closed.set(true);
        answers
    };
    let (answers, served) = block_on(join(pc, link.serve_async(&device, &mut stream)));
    assert_eq!((written.get(), served), (samples.len(), Ok(())));

    let mut memory = ram(&image);
    let mut other = session(&image, &mut memory);
    for (mut answer, sample) in answers.into_iter().zip(&samples) {
        answer.pop();
        let got = format!("{:?}", response(&mut answer));
        assert_eq!(ask(&mut other, Request::Predict { input: sample }, |response| format!("{response:?}")), got);
        other.device.learn(&signed(sample)[..], 1).unwrap();
        other.device.begin_training(0, 2).unwrap();
        while other.device.train_slice().unwrap().left > 0 {}
    }
    let device = device.into_inner();
    assert_eq!(device.head().unwrap().state(), other.device.head().unwrap().state());
}

#[test]
fn a_training_of_the_pc_goes_on_between_predictions_of_the_program() {
    let image = head_net().image();
    let (mut memory, mut undisturbed) = (ram(&image), ram(&image));
    let options = Options { frame: FRAME, ..OPTIONS };
    let mut session = session_with(&image, &mut memory, options, erased());
    let mut other = session_with(&image, &mut undisturbed, options, erased());
    let samples: Vec<Vec<u8>> = (0..4).map(input).collect();
    for sample in &samples {
        session.device.learn(&signed(sample)[..], 2).unwrap();
        other.device.learn(&signed(sample)[..], 2).unwrap();
    }
    other.device.begin_training(0, 2500).unwrap();
    while other.device.train_slice().unwrap().left > 0 {}
    let mut left = ask(&mut session, Request::Train { first_epoch: 0, epochs: 2500 }, |response| match response {
        Response::Trained { left, .. } => left,
        other => panic!("{other:?}"),
    });
    let mut slices = 1;
    while left > 0 {
        session.device.predict(&signed(&samples[slices % 4])[..]).unwrap();
        left = ask(&mut session, Request::Continue, |response| match response {
            Response::Trained { left, .. } => left,
            other => panic!("{other:?}"),
        });
        slices += 1;
    }
    assert!(slices > 2, "{slices} slices");
    assert_eq!(head_state(&mut session), head_state(&mut other));
}

#[test]
fn two_links_have_sessions_of_their_own_on_one_device() {
    let image = head_net().image();
    let (mut memory, mut second) = (ram(&image), ram(&image));
    let Session { device, link: mut usb } = session(&image, &mut memory);
    // A second link takes its buffers from wherever the board has RAM.
    let Session { link: mut radio, .. } = session(&image, &mut second);
    let device = Mutex::<NoopRawMutex, _>::new(device);
    let pipes: [Half; 4] = core::array::from_fn(|_| Half::new());
    let closed = [Cell::new(false), Cell::new(false)];
    let mut streams = [0, 1].map(|at| Stream { read: &pipes[2 * at], write: &pipes[2 * at + 1], closed: &closed[at] });
    let [usb_stream, radio_stream] = &mut streams;
    let client = async |at: usize| {
        for number in 0..50 {
            let sequence = number + 1;
            let header = RequestHeader { sequence, ..RequestHeader::default() };
            let sample = input(number.into());
            let request = Request::Learn { label: class(at as u16), input: &sample };
            let mut buffer = vec![0; 1000];
            let mut request = &*frame::encode(&header, &request, &mut buffer).unwrap();
            while !request.is_empty() {
                let count = pipes[2 * at].write(request).await;
                request = &request[count..];
            }
            let mut answer = vec![];
            while answer.pop_if(|last| *last == frame::END).is_none() {
                let mut chunk = [0; 5];
                let count = pipes[2 * at + 1].read(&mut chunk).await;
                answer.extend_from_slice(&chunk[..count]);
            }
            let (header, response): (torch_nano_device::ResponseHeader, Response<'_>) =
                frame::decode(&mut answer).unwrap();
            assert_eq!(header.sequence, sequence);
            assert!(matches!(response, Response::Learned { .. }), "{response:?}");
        }
        closed[at].set(true);
    };
    let (_, first, second) = block_on(join3(
        join(client(0), client(1)),
        usb.serve_async(&device, usb_stream),
        radio.serve_async(&device, radio_stream),
    ));
    assert_eq!((first, second), (Ok(()), Ok(())));
    let stats = device.into_inner().stats();
    assert_eq!((stats.learned, stats.repeated, stats.refused_frames), (100, 0, 0));
}
