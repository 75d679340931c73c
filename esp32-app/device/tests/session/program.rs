//! A whole program on a board in memory: its clock, its samples, its buttons and its PC.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::rc::Rc;

use embedded_storage::nor_flash::{ErrorType, NorFlash, ReadNorFlash};

use nano_core::Error;
use nano_core::image::Image;
use torch_nano_device::{
    Board, Device, Event, Failure, MemoryFlash, Options, Program, ProgramOptions, ProgramRam, Progress, REPORT, Report,
    Request, RequestHeader, Response, ResponseHeader, SamplePart, Sampled, Sensing, SensingOptions, Settings,
    Smoothing, frame,
};

use crate::builder::head_net;
use crate::stream::{OPTIONS, encoded, every_head, input, ram, session_with};

const SAMPLE: usize = 2;
const PERIOD: u64 = 100;

fn options(epochs: u32) -> ProgramOptions {
    let smoothing = Smoothing::new(3, 2).unwrap();
    let sensing = SensingOptions { sample: SAMPLE, hop: 3, smoothing, epochs, pause: 2, slice: 1 << 10 };
    ProgramOptions { sensing, period: PERIOD }
}

fn erased() -> MemoryFlash<Vec<u8>> {
    MemoryFlash(vec![0xff; 16 * 4096])
}

/// RAM of a program for `image`.
fn buffers(image: &Image<'_>) -> (Vec<i8>, Vec<i8>, [f32; SAMPLE]) {
    (vec![99; image.input(0).len()], vec![99; image.output(0).len()], [f32::NAN; SAMPLE])
}

/// What the sensor gives when a sample is due, and which class is pressed after it.
type Script = VecDeque<(Option<[f32; SAMPLE]>, bool, Option<u16>)>;

/// A board whose clock advances by `busy` with each look at it, and which skips the time that it sleeps.
struct Scripted {
    script: Script,
    pressed: Option<u16>,
    arrived: VecDeque<u8>,
    busy: u64,
    time: u64,
    slept: u64,
    samples: u64,
    sent: Vec<u8>,
    shown: Vec<Report>,
    reports_sent: Rc<Cell<usize>>,
}

impl Scripted {
    fn new(script: Script, busy: u64) -> Self {
        let (pressed, arrived, sent, shown) = (None, VecDeque::new(), vec![], vec![]);
        let reports_sent = Rc::default();
        Scripted { script, pressed, arrived, busy, time: 7, slept: 0, samples: 0, sent, shown, reports_sent }
    }

    /// The frames sent, decoded: reports apart from answers.
    fn frames(&self) -> (Vec<Report>, Vec<String>) {
        let (mut reports, mut answers) = (vec![], vec![]);
        let mut frames: Vec<Vec<u8>> = self.sent.split(|&byte| byte == frame::END).map(<[u8]>::to_vec).collect();
        assert_eq!(frames.pop(), Some(vec![]));
        for bytes in &mut frames {
            match frame::decode::<u8, Report>(&mut bytes.clone()) {
                Some((REPORT, report)) => reports.push(report),
                _ => {
                    let (_, answer) = frame::decode::<ResponseHeader, Response<'_>>(bytes).expect("a whole frame");
                    answers.push(format!("{answer:?}"));
                }
            }
        }
        (reports, answers)
    }
}

impl Board for Scripted {
    type Error = Infallible;

    fn now(&mut self) -> u64 {
        self.time += self.busy;
        self.time
    }

    fn sleep(&mut self, until: u64) {
        assert!(self.arrived.is_empty() || until > self.time, "it sleeps over what is due");
        if until != u64::MAX {
            self.slept += until - self.time;
            self.time = until;
        }
    }

    fn sample(&mut self, sample: &mut [f32]) -> Sampled {
        let Some((numbers, gap, pressed)) = self.script.pop_front() else { return Sampled::Ended };
        self.samples += 1;
        self.pressed = pressed;
        match numbers {
            Some(numbers) => sample.copy_from_slice(&numbers),
            None => return Sampled::Failed,
        }
        if gap { Sampled::AfterGap } else { Sampled::Taken }
    }

    fn pressed(&mut self) -> Option<u16> {
        self.pressed.take()
    }

    fn show(&mut self, report: &Report) {
        self.shown.push(*report);
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Result<usize, Infallible> {
        let count = buffer.len().min(self.arrived.len());
        self.arrived.drain(..count).zip(buffer).for_each(|(byte, place)| *place = byte);
        Ok(count)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), Infallible> {
        self.sent.extend_from_slice(bytes);
        self.reports_sent.set(self.shown.len());
        Ok(())
    }
}

/// A script of `count` samples; presses come in bursts.
fn script(random: &mut fastrand::Rng, count: usize) -> Script {
    (0..count)
        .map(|step| {
            let numbers = [0; SAMPLE].map(|_| (random.f32() - 0.5) * 20.0);
            let pressed = (step / 60 % 3 == 1 && random.u8(..4) == 0).then(|| random.u16(..4));
            ((random.u8(..50) > 0).then_some(numbers), random.u8(..80) == 0, pressed)
        })
        .collect()
}

/// The program's events for a script without its clock: the sensing loop, called for each sample; trainings go as far as was reported.
fn replayed<C: FnMut() -> u64>(
    device: &mut Device<'_, C, MemoryFlash<Vec<u8>>>,
    sensing: &mut Sensing<'_>,
    mut script: Script,
    reports: &[Report],
) -> Vec<Event> {
    let head = |device: &Device<'_, C, MemoryFlash<Vec<u8>>>| {
        device.head().map_or(0, |head| frame::checksum(nano_core::train::Head::state(head)))
    };
    let (mut events, mut saves) = (vec![Event::Started { head: head(device), restored: false }], 0);
    let mut rest = reports[1..].iter().peekable();
    // Slices between two samples, up to the steps that were reported.
    let mut work = |device: &mut Device<'_, C, MemoryFlash<Vec<u8>>>,
                    sensing: &mut Sensing<'_>,
                    at: u32,
                    events: &mut Vec<Event>| {
        while let Some(report) = rest.next_if(|report| report.samples == at) {
            match report.event {
                Event::Trained { steps: wanted, .. } => loop {
                    let made = sensing.work(device).unwrap().expect("a training");
                    if made.steps == wanted {
                        let Progress { steps, left, taken_back, .. } = made;
                        events.push(Event::Trained { steps, left, taken_back, head: head(device) });
                        break;
                    }
                },
                Event::Committed { .. } => {
                    sensing.work(device).unwrap().expect("weights to compute");
                    events.push(Event::Committed { head: head(device) });
                }
                Event::Saved { .. } => {
                    saves += 1;
                    assert_eq!(device.stats().saves, saves);
                    events.push(Event::Saved { saves });
                }
                _ => {}
            }
        }
    };
    let mut number = 0;
    work(device, sensing, 0, &mut events);
    while let Some((numbers, gap, pressed)) = script.pop_front() {
        number += 1;
        match numbers {
            None => events.push(Event::SensorFailed),
            Some(numbers) => {
                if gap {
                    sensing.clear(device);
                    events.push(Event::Gap);
                }
                if let Some(sensed) = sensing.sense(device, &numbers).unwrap() {
                    events.push(Event::Sensed(sensed));
                }
            }
        }
        if let Some(class) = pressed {
            match device.label(class) {
                Ok(_) => events.push(Event::Learned { target: class.into(), head: head(device) }),
                Err(failure) => events.push(Event::Refused(failure)),
            }
        }
        work(device, sensing, number, &mut events);
    }
    events.push(Event::Ended);
    events
}

/// Without what depends on the counter.
fn timeless(event: Event) -> Event {
    match event {
        Event::Sensed(sensed) => Event::Sensed(torch_nano_device::Sensed { ticks: 0, ..sensed }),
        event => event,
    }
}

#[test]
fn a_program_does_what_the_calls_written_out_do() {
    for (name, image) in every_head() {
        for seed in 0..6 {
            let mut random = fastrand::Rng::with_seed(seed);
            let place = format!("{name}, seed {seed}");
            let settings = Settings { rejection: 15_000, save_interval: 1 };
            let (mut memory, mut other_memory) = (ram(&image), ram(&image));
            let view = Image::new(image.bytes()).unwrap();
            let (mut buffers_own, mut buffers_other) = (buffers(&view), buffers(&view));
            let (window, features, sample) = &mut buffers_own;
            let ram = ProgramRam { window, features, sample };
            let session = session_with(&image, &mut memory, Options { settings, ..OPTIONS }, erased());
            let mut program = Program::new(session, ram, options(300)).unwrap();
            let made = script(&mut random, 900);
            let mut board = Scripted::new(made.clone(), 1);
            while !board.shown.iter().any(|report| report.event == Event::Ended) {
                let Ok(()) = program.step(&mut board);
            }
            let (reports, answers) = board.frames();
            assert_eq!((&reports, answers.len()), (&board.shown, 0), "{place}");
            assert!(reports.iter().map(|report| report.number).eq(0..reports.len() as u32), "{place}");

            let mut other = session_with(&image, &mut other_memory, Options { settings, ..OPTIONS }, erased());
            let (window, features, _) = &mut buffers_other;
            let mut sensing = Sensing::new(&mut other.device, window, features, options(300).sensing).unwrap();
            let expected = replayed(&mut other.device, &mut sensing, made, &reports);
            let events: Vec<Event> = reports.iter().map(|report| timeless(report.event)).collect();
            let expected: Vec<Event> = expected.into_iter().map(timeless).collect();
            for (number, (event, expected)) in events.iter().zip(&expected).enumerate() {
                assert_eq!(event, expected, "{place}, event {number}");
            }
            assert_eq!(events.len(), expected.len(), "{place}");
            assert_eq!(program.device().flash().0, other.device.flash().0, "{place}");
            for needed in ["Sensed", "Learned", "Refused", "Saved", "SensorFailed", "Gap"] {
                assert!(events.iter().any(|event| format!("{event:?}").starts_with(needed)), "{place}: no {needed}");
            }
            // It sleeps nearly all of a time in which nothing is to be done.
            assert!(board.slept > PERIOD * 900 * 8 / 10, "{place}: slept {}", board.slept);
        }
    }
}

/// A flash that notes, of each write and erase, the number of reports sent before it.
struct Watched {
    inner: MemoryFlash<Vec<u8>>,
    sent: Rc<Cell<usize>>,
    changed_after: Rc<RefCell<Vec<usize>>>,
}

impl ErrorType for Watched {
    type Error = <MemoryFlash<Vec<u8>> as ErrorType>::Error;
}

impl ReadNorFlash for Watched {
    const READ_SIZE: usize = MemoryFlash::<Vec<u8>>::READ_SIZE;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Self::Error> {
        self.inner.read(offset, bytes)
    }

    fn capacity(&self) -> usize {
        self.inner.capacity()
    }
}

impl NorFlash for Watched {
    const WRITE_SIZE: usize = MemoryFlash::<Vec<u8>>::WRITE_SIZE;
    const ERASE_SIZE: usize = MemoryFlash::<Vec<u8>>::ERASE_SIZE;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), Self::Error> {
        self.changed_after.borrow_mut().push(self.sent.get());
        self.inner.erase(from, to)
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Self::Error> {
        self.changed_after.borrow_mut().push(self.sent.get());
        self.inner.write(offset, bytes)
    }
}

#[test]
fn every_change_is_reported_before_it_is_saved() {
    for (name, image) in every_head() {
        let settings = Settings { rejection: 0, save_interval: 1 };
        let mut memory = ram(&image);
        let view = Image::new(image.bytes()).unwrap();
        let (mut window, mut features, mut sample) = buffers(&view);
        let ram = ProgramRam { window: &mut window, features: &mut features, sample: &mut sample };
        let (sent, changed_after) = (Rc::new(Cell::new(0)), Rc::new(RefCell::new(vec![])));
        let flash = Watched { inner: erased(), sent: Rc::clone(&sent), changed_after: Rc::clone(&changed_after) };
        let session = session_with(&image, &mut memory, Options { settings, ..OPTIONS }, flash);
        let mut program = Program::new(session, ram, options(300)).unwrap();
        let mut board = Scripted::new(script(&mut fastrand::Rng::with_seed(4), 900), 1);
        board.reports_sent = sent;
        while !board.shown.iter().any(|report| report.event == Event::Ended) {
            let Ok(()) = program.step(&mut board);
        }
        let saved = |report: &&Report| matches!(report.event, Event::Saved { .. });
        let saves: Vec<usize> = board.shown.iter().filter(saved).map(|report| report.number as usize).collect();
        let mut changes = changed_after.take();
        changes.dedup();
        assert!(saves.len() > 3, "{name}: {} saves", saves.len());
        // The report of the save itself is the next one, and what is saved was reported before.
        assert_eq!(changes, saves, "{name}");
    }
}

#[test]
fn samples_that_are_due_while_it_is_busy_are_counted() {
    let image = head_net().image();
    let view = Image::new(image.bytes()).unwrap();
    for busy in [40, 90, 130, 1000] {
        let mut memory = ram(&image);
        let (mut window, mut features, mut sample) = buffers(&view);
        let ram = ProgramRam { window: &mut window, features: &mut features, sample: &mut sample };
        let session = session_with(&image, &mut memory, OPTIONS, erased());
        let mut program = Program::new(session, ram, options(20)).unwrap();
        let mut random = fastrand::Rng::with_seed(busy);
        let mut board = Scripted::new(script(&mut random, 300), busy);
        let start = board.time + busy;
        while !board.shown.iter().any(|report| report.event == Event::Ended) {
            let Ok(()) = program.step(&mut board);
        }
        let missed = |report: &Report| if let Event::Missed { samples } = report.event { samples } else { 0 };
        let missed: u32 = board.shown.iter().map(missed).sum();
        let counted = board.shown.last().unwrap().samples;
        assert_eq!(u64::from(counted), board.samples + u64::from(missed), "busy {busy}");
        // As many as fit the time that has passed, but for the one that was due last.
        let fit = (board.time - start) / PERIOD;
        assert!(fit.abs_diff(counted.into()) <= 1 + busy / PERIOD, "busy {busy}: {counted} of {fit}");
        assert_eq!(missed > 0, busy > 100, "busy {busy}: {missed} missed");
    }
}

#[test]
fn a_pc_is_answered_between_samples_and_changes_nothing() {
    let image = head_net().image();
    let view = Image::new(image.bytes()).unwrap();
    let run = |asked: bool| {
        let mut memory = ram(&image);
        let (mut window, mut features, mut sample) = buffers(&view);
        let ram = ProgramRam { window: &mut window, features: &mut features, sample: &mut sample };
        let settings = Settings { rejection: 0, save_interval: 1 };
        let session = session_with(&image, &mut memory, Options { settings, ..OPTIONS }, erased());
        let mut program = Program::new(session, ram, options(50)).unwrap();
        let mut random = fastrand::Rng::with_seed(3);
        let mut board = Scripted::new(script(&mut random, 600), 1);
        let (mut sent, mut last) = (0, 0);
        while !board.shown.iter().any(|report| report.event == Event::Ended) {
            if asked && board.samples != last && board.samples.is_multiple_of(5) {
                last = board.samples;
                let header = RequestHeader { session: 5, sequence: sent + 1, ..RequestHeader::default() };
                let predicted = input(last);
                let request = [Request::Begin, Request::Predict { input: &predicted }][usize::from(sent % 9 > 0)];
                let mut buffer = [0; 300];
                board.arrived.extend(&*frame::encode(&header, &request, &mut buffer).unwrap());
                sent += 1;
            }
            let Ok(()) = program.step(&mut board);
        }
        let (reports, answers) = board.frames();
        assert_eq!(answers.len(), usize::from(sent));
        assert!(answers.iter().all(|answer| answer.starts_with("Prediction") || answer == "Done"), "{answers:?}");
        // When a training goes on depends on the clock; how it ends does not.
        let whole = |report: &&Report| !matches!(report.event, Event::Trained { left: 1.., .. });
        let events: Vec<Event> = reports.iter().filter(whole).map(|report| timeless(report.event)).collect();
        (events, program.device().flash().0.clone())
    };
    let (events, flash) = run(false);
    assert!(events.iter().filter(|event| matches!(event, Event::Trained { .. })).count() > 1);
    assert_eq!((events, flash), run(true));
}

#[test]
fn a_pc_gets_each_sample_from_when_it_asks_to_when_it_stops() {
    let image = head_net().image();
    let view = Image::new(image.bytes()).unwrap();
    let mut memory = ram(&image);
    let (mut window, mut features, mut sample) = buffers(&view);
    let ram = ProgramRam { window: &mut window, features: &mut features, sample: &mut sample };
    let session = session_with(&image, &mut memory, OPTIONS, erased());
    let mut program = Program::new(session, ram, options(1)).unwrap();
    let mut random = fastrand::Rng::with_seed(5);
    let taken: Vec<_> = (0..60).map(|_| (Some([random.f32(), -random.f32()]), random.u8(..9) == 0, None)).collect();
    let mut board = Scripted::new(taken.iter().copied().collect(), 1);
    // A session that begins gets no samples that the one before asked for.
    for (until, request) in [
        (10, Request::SendSamples),
        (30, Request::StopSamples),
        (40, Request::SendSamples),
        (50, Request::Begin),
        (60, Request::Stats),
    ] {
        while board.samples < until {
            let Ok(()) = program.step(&mut board);
        }
        board.arrived.extend(encoded(request));
        let Ok(()) = program.step(&mut board);
    }
    let mut sent = vec![];
    for bytes in board.sent.split(|&byte| byte == frame::END) {
        if let Some((torch_nano_device::SAMPLE, part)) = frame::decode::<u8, SamplePart<'_>>(&mut bytes.to_vec()) {
            assert_eq!((part.first, part.left), (0, 0));
            let numbers = part.numbers.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect::<Vec<_>>();
            sent.push((part.sample as usize, part.after_gap, numbers));
        }
    }
    let expected: Vec<_> = (10..30)
        .chain(40..50)
        .map(|number| {
            let (numbers, gap, _) = taken[number];
            (number, gap, numbers.unwrap().to_vec())
        })
        .collect();
    assert_eq!(sent, expected);
}

#[test]
fn an_ended_recording_leaves_a_board_that_serves() {
    let image = head_net().image();
    let mut memory = ram(&image);
    let view = Image::new(image.bytes()).unwrap();
    let (mut window, mut features, mut sample) = buffers(&view);
    let ram = ProgramRam { window: &mut window, features: &mut features, sample: &mut sample };
    let session = session_with(&image, &mut memory, OPTIONS, erased());
    let mut program = Program::new(session, ram, options(1)).unwrap();
    let mut board = Scripted::new(VecDeque::new(), 1);
    for _ in 0..50 {
        let Ok(()) = program.step(&mut board);
    }
    assert_eq!(board.shown.iter().map(|report| report.samples).collect::<Vec<_>>(), [0, 0]);
    assert_eq!(board.shown[1].event, Event::Ended);
    board.arrived.extend(encoded(Request::Stats));
    board.pressed = Some(1);
    for _ in 0..5 {
        let Ok(()) = program.step(&mut board);
    }
    let (reports, answers) = board.frames();
    assert_eq!(reports[2].event, Event::Refused(Failure::NoRun));
    assert!(answers.len() == 1 && answers[0].starts_with("Stats"), "{answers:?}");
}

#[test]
fn what_a_program_cannot_run_is_refused() {
    let image = head_net().image();
    let view = Image::new(image.bytes()).unwrap();
    let refused = |length: usize, period: u64| {
        let mut memory = ram(&image);
        let (mut window, mut features, _) = buffers(&view);
        let mut sample = vec![0.0; length];
        let ram = ProgramRam { window: &mut window, features: &mut features, sample: &mut sample };
        let session = session_with(&image, &mut memory, OPTIONS, erased());
        Program::new(session, ram, ProgramOptions { period, ..options(1) }).err()
    };
    assert_eq!(refused(SAMPLE, 1), None);
    assert_eq!(refused(SAMPLE, 0), Some(Error::Length { name: "period", needed: 1, given: 0 }));
    let error = Error::Length { name: "RAM of a sample", needed: SAMPLE, given: 3 };
    assert_eq!(refused(3, 1), Some(error));
}
