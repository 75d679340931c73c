//! The program of a board that senses, predicts and learns by itself, and answers a PC between samples.

use embedded_storage::nor_flash::NorFlash;
use nano_core::Error;
use nano_core::train::{AnyHead, Head};
use zerocopy::IntoBytes;

use crate::device::Device;
use crate::frame;
use crate::message::{REPORT, SAMPLE};
use crate::report::{Event, LONGEST_PART, Report, SamplePart};
use crate::sensing::{Sensing, SensingOptions};
use crate::session::Session;
use crate::training::Progress;

/// Upper bound of the bytes of the frame of a report, or of a part of a sample.
const LONGEST_REPORT: usize = 80;
/// Bytes received from a PC between two looks at the clock.
const CHUNK: usize = 64;

/// What a [`Program`] needs of a board. No method waits, except [`Board::sleep`].
pub trait Board {
    /// Why bytes cannot be received or sent. It ends the program.
    type Error;

    /// The time since the board's start, in the unit of [`ProgramOptions::period`].
    fn now(&mut self) -> u64;

    /// Sleeps until that time; wakes before if bytes have arrived, or a button is pressed. [`u64::MAX`] is no time: only those wake it.
    fn sleep(&mut self, until: u64);

    /// Writes a sample of the sensor, [`SensingOptions::sample`] real numbers in its own units.
    fn sample(&mut self, sample: &mut [f32]) -> Sampled;

    /// The class that was chosen by a button since the last call: what was just seen is of it.
    fn pressed(&mut self) -> Option<u16>;

    /// Shows an event to people, as by a light. Programs send it to the PC, too.
    fn show(&mut self, report: &Report);

    /// Takes bytes that have arrived from a PC; returns their number, or 0 if nothing is new.
    ///
    /// # Errors
    /// The stream's own.
    fn receive(&mut self, buffer: &mut [u8]) -> Result<usize, Self::Error>;

    /// Sends bytes to a PC. Where none may listen, what it does not take in time is dropped: a client repeats its request, and sees from the number of the
    /// next report that it has missed one.
    ///
    /// # Errors
    /// The stream's own.
    fn send(&mut self, bytes: &[u8]) -> Result<(), Self::Error>;
}

/// What became of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Sampled {
    /// It was written.
    Taken,
    /// It was written, and does not follow the one before: windows begin anew with it.
    AfterGap,
    /// The sensor has failed; it is asked again when the next sample is due.
    Failed,
    /// There are no more samples, as at the end of a recording.
    Ended,
}

/// How a program senses and learns.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ProgramOptions {
    /// How it makes decisions of samples, and learns.
    pub sensing: SensingOptions,
    /// Time from sample to sample, in the unit of [`Board::now`].
    pub period: u64,
}

/// RAM of a program beside that of its session.
#[derive(Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ProgramRam<'a> {
    /// For the latest samples: the bytes of the model's input.
    pub window: &'a mut [i8],
    /// For what the model made of the latest window: the bytes of its first output.
    pub features: &'a mut [i8],
    /// For one sample: [`SensingOptions::sample`] numbers.
    pub sample: &'a mut [f32],
}

/// Senses, predicts, learns and saves, by itself: takes a sample whenever one is due, uses the time until the next one to answer a PC and to train, and sleeps
/// when there is nothing to do.
///
/// ```
/// # use core::convert::Infallible;
/// # use nano_core::{CheckedImage, Error};
/// use torch_nano_device::{
///     Board, Event, NoFlash, Options, Program, ProgramOptions, ProgramRam, Report, Sampled, SensingOptions, Session, Settings, SpareCopy,
///     Smoothing,
/// };
///
/// /// A board with a clock of milliseconds, a sensor of three numbers, a button for class 1, and no PC.
/// struct Wrist {
///     clock: fn() -> u64,
///     sensor: fn() -> Option<[f32; 3]>,
///     button: fn() -> bool,
/// }
///
/// impl Board for Wrist {
///     type Error = Infallible;
///     fn now(&mut self) -> u64 {
///         (self.clock)()
///     }
///     fn sleep(&mut self, until: u64) {
///         while (self.clock)() < until && !(self.button)() {}
///     }
///     fn sample(&mut self, sample: &mut [f32]) -> Sampled {
///         let Some(numbers) = (self.sensor)() else { return Sampled::Failed };
///         sample.copy_from_slice(&numbers);
///         Sampled::Taken
///     }
///     fn pressed(&mut self) -> Option<u16> {
///         (self.button)().then_some(1)
///     }
///     fn show(&mut self, report: &Report) {
///         if let Event::Sensed(sensed) = report.event {
///             println!("{:?}", sensed.decided);
///         }
///     }
///     fn receive(&mut self, _: &mut [u8]) -> Result<usize, Infallible> {
///         Ok(0)
///     }
///     fn send(&mut self, _: &[u8]) -> Result<(), Infallible> {
///         Ok(())
///     }
/// }
///
/// fn wear(image: CheckedImage<'_>, ram: &mut [u32], own: ProgramRam<'_>, mut wrist: Wrist) -> Result<(), Error> {
///     let options = Options { ring: 128, frame: 512, copy: SpareCopy::Flash, settings: Settings { rejection: 16_384, save_interval: 1 } };
///     let session = Session::<_, _>::new(image, ram, options, NoFlash, wrist.clock)?;
///     // A window of 50 samples twice a second; decisions of three of five; training after ten windows without a label.
///     let smoothing = Smoothing::new(5, 3)?;
///     let sensing = SensingOptions { sample: 3, hop: 25, smoothing, epochs: 20, pause: 10, slice: 1 << 14 };
///     let Ok(()) = Program::new(session, own, ProgramOptions { sensing, period: 20 })?.run(&mut wrist);
///     Ok(())
/// }
/// ```
///
/// All that happens is reported ([`Report`]) to the board, and to the PC between the answers to its requests. The replay of the reports on the PC has the same
/// bytes. A change is reported before it is saved: whenever its power is cut, the flash holds a head that was reported.
pub struct Program<'a, C, F, H = AnyHead<'a>> {
    session: Session<'a, C, F, H>,
    sensing: Sensing<'a>,
    sample: &'a mut [f32],
    period: u64,
    /// When the next sample is due; `None` before the start.
    due: Option<u64>,
    /// Samples that were due.
    samples: u32,
    /// Reports made.
    reports: u32,
    /// How far the training was after the latest slice, unless it was reported.
    progress: Option<Progress>,
    /// Saves and failed saves that were reported.
    saves: u32,
    failed_saves: u32,
}

impl<'a, C: FnMut() -> u64, F: NorFlash, H: Head<'a>> Program<'a, C, F, H> {
    /// A program about the device of `session`.
    ///
    /// # Errors
    /// Those of [`Sensing::new`]; [`Error::Length`] if the RAM for a sample has another length, or the period is 0.
    pub fn new(mut session: Session<'a, C, F, H>, ram: ProgramRam<'a>, options: ProgramOptions) -> Result<Self, Error> {
        let ProgramRam { window, features, sample } = ram;
        let ProgramOptions { sensing, period } = options;
        let (needed, given) = (sensing.sample, sample.len());
        if given != needed {
            return Err(Error::Length { name: "RAM of a sample", needed, given });
        }
        if period == 0 {
            return Err(Error::Length { name: "period", needed: 1, given: 0 });
        }
        let sensing = Sensing::new(&mut session.device, window, features, sensing)?;
        session.device.hold_saves();
        let (due, samples, reports, progress) = (None, 0, 0, None);
        Ok(Program { session, sensing, sample, period, due, samples, reports, progress, saves: 0, failed_saves: 0 })
    }

    /// The device.
    pub fn device(&self) -> &Device<'a, C, F, H> {
        &self.session.device
    }

    /// Runs until the board is to [start again](Device::restarts).
    ///
    /// # Errors
    /// The board's own.
    pub fn run<B: Board>(&mut self, board: &mut B) -> Result<(), B::Error> {
        while !self.session.device.restarts() {
            self.step(board)?;
        }
        Ok(())
    }

    /// Does one thing: takes the sample that is due, or works a slice on what was learnt, or sleeps; before that it answers what has arrived.
    ///
    /// # Errors
    /// The board's own.
    pub fn step<B: Board>(&mut self, board: &mut B) -> Result<(), B::Error> {
        let due = match self.due {
            Some(due) => due,
            None => {
                let restored = self.session.device.restored();
                self.report(board, Event::Started { head: self.head(), restored })?;
                *self.due.insert(board.now())
            }
        };
        self.answer(board)?;
        if self.session.device.restarts() {
            return Ok(());
        }
        if let Some(class) = board.pressed() {
            self.report_progress(board)?;
            if let Err(failure) = self.session.device.label(class) {
                self.report(board, Event::Refused(failure))?;
            }
        }
        self.report_label(board)?;
        let now = board.now();
        if now >= due && due != u64::MAX {
            self.sense(board, now, due)
        } else if self.work(board)? {
            Ok(())
        } else {
            board.sleep(due);
            Ok(())
        }
    }

    /// Answers the requests in the bytes that have arrived.
    fn answer<B: Board>(&mut self, board: &mut B) -> Result<(), B::Error> {
        let mut chunk = [0; CHUNK];
        let count = board.receive(&mut chunk)?;
        if count > 0 {
            // A label ends the training, whose judgement may change the head.
            self.report_progress(board)?;
        }
        let mut bytes = chunk.get(..count).unwrap_or_default();
        while let Some(answer) = self.session.poll(&mut bytes) {
            board.send(answer)?;
        }
        Ok(())
    }

    /// Takes the sample that was due at that time.
    fn sense<B: Board>(&mut self, board: &mut B, now: u64, due: u64) -> Result<(), B::Error> {
        self.report_progress(board)?;
        let missed = (now - due) / self.period;
        self.due = Some(due.saturating_add(self.period.saturating_mul(missed + 1)));
        if missed > 0 {
            self.samples = self.samples.wrapping_add(missed as u32);
            self.report(board, Event::Missed { samples: missed as u32 })?;
        }
        let sampled = board.sample(self.sample);
        self.samples = self.samples.wrapping_add(1);
        match sampled {
            Sampled::Taken => {}
            Sampled::AfterGap => {
                self.sensing.clear(&mut self.session.device);
                self.report(board, Event::Gap)?;
            }
            Sampled::Failed => return self.report(board, Event::SensorFailed),
            Sampled::Ended => {
                self.samples = self.samples.wrapping_sub(1);
                self.due = Some(u64::MAX);
                return self.report(board, Event::Ended);
            }
        }
        if self.session.device.sends_samples() {
            self.send_sample(board, sampled == Sampled::AfterGap)?;
        }
        match self.sensing.sense(&mut self.session.device, self.sample) {
            Ok(None) => Ok(()),
            Ok(Some(sensed)) => self.report(board, Event::Sensed(sensed)),
            Err(failure) => self.report(board, Event::Refused(failure)),
        }
    }

    /// Sends the sample that was just taken to a PC.
    fn send_sample<B: Board>(&mut self, board: &mut B, after_gap: bool) -> Result<(), B::Error> {
        let (mut first, mut left) = (0, self.sample.len() as u32);
        for part in self.sample.chunks(LONGEST_PART) {
            left -= part.len() as u32;
            let part_of_sample =
                SamplePart { sample: self.samples.wrapping_sub(1), after_gap, first, left, numbers: part.as_bytes() };
            first += part.len() as u32;
            let mut buffer = [0; LONGEST_REPORT];
            if let Some(bytes) = frame::encode(&SAMPLE, &part_of_sample, &mut buffer) {
                board.send(bytes)?;
            }
        }
        Ok(())
    }

    /// Trains for a slice; whether there was something to do.
    fn work<B: Board>(&mut self, board: &mut B) -> Result<bool, B::Error> {
        let in_epochs = self.session.device.learns_in_epochs();
        match self.sensing.work(&mut self.session.device) {
            Ok(None) => return Ok(false),
            Ok(Some(_)) if !in_epochs => self.report(board, Event::Committed { head: self.head() })?,
            Ok(Some(progress)) => {
                self.progress = Some(progress);
                if progress.left == 0 {
                    self.report_progress(board)?;
                }
            }
            Err(failure) => self.report(board, Event::Refused(failure))?,
        }
        self.save(board)?;
        Ok(true)
    }

    /// Reports what was labelled by a button or a PC, and saves.
    fn report_label<B: Board>(&mut self, board: &mut B) -> Result<(), B::Error> {
        if let Some(target) = self.session.device.take_label() {
            self.report_progress(board)?;
            self.report(board, Event::Learned { target, head: self.head() })?;
        }
        self.save(board)
    }

    fn report_progress<B: Board>(&mut self, board: &mut B) -> Result<(), B::Error> {
        let Some(Progress { steps, left, taken_back, .. }) = self.progress.take() else { return Ok(()) };
        self.report(board, Event::Trained { steps, left, taken_back, head: self.head() })
    }

    /// Saves what is due, after it was reported, and reports that.
    fn save<B: Board>(&mut self, board: &mut B) -> Result<(), B::Error> {
        self.session.device.save_if_due();
        let stats = self.session.device.stats();
        if stats.saves != self.saves {
            self.saves = stats.saves;
            self.report(board, Event::Saved { saves: stats.saves })?;
        }
        if stats.failed_saves != self.failed_saves {
            self.failed_saves = stats.failed_saves;
            self.report(board, Event::SaveFailed { failed_saves: stats.failed_saves })?;
        }
        Ok(())
    }

    /// CRC-32 of the head's state.
    fn head(&self) -> u32 {
        self.session.device.head().map_or(0, |head| frame::checksum(head.state()))
    }

    fn report<B: Board>(&mut self, board: &mut B, event: Event) -> Result<(), B::Error> {
        let report = Report { number: self.reports, samples: self.samples, event };
        self.reports = self.reports.wrapping_add(1);
        board.show(&report);
        let mut buffer = [0; LONGEST_REPORT];
        match frame::encode(&REPORT, &report, &mut buffer) {
            Some(bytes) => board.send(bytes),
            None => Ok(()),
        }
    }
}
