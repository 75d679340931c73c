//! Boards that sense by themselves: the sensor that is recorded for one, and the replay of what it did.

use nano_core::image::Value;
use nano_core::train::{AnyHead, Head as _};
use numpy::{PyReadonlyArray1, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use self_cell::{MutBorrow, self_cell};
use torch_nano_device::{
    Class, Event, Failure, Label, MemoryFlash, Options, RecordedSensor, Report, SamplePart, Sampled, Sensed, Sensing,
    SensingOptions, Session, Settings, Sizes,
};

use crate::device::{Clock, lend};
use crate::model::SharedImage;
use crate::protocol::reason;
use crate::refuse;

/// How a program senses: the fields of [`RecordedSensor`] that are not data, from a dict.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Behaviour {
    hop: u32,
    smoothing: (u32, u32),
    epochs: u32,
    pause: u32,
    slice: u64,
    period: u64,
    rejection: u16,
    save_interval: u32,
}

/// Encodes a recorded sensor: samples `[samples, numbers]`, the class pressed after each (-1: none), and whether there is a gap before each.
#[pyfunction]
pub(crate) fn encode_recorded_sensor<'py>(
    py: Python<'py>,
    samples: PyReadonlyArray2<'_, f32>,
    pressed: PyReadonlyArray1<'_, i64>,
    gaps: PyReadonlyArray1<'_, bool>,
    behaviour: Behaviour,
) -> PyResult<Bound<'py, PyBytes>> {
    let mut marks = Vec::new();
    for (&pressed, &gap) in pressed.as_slice()?.iter().zip(gaps.as_slice()?) {
        let too_large = || refuse(format!("the class of a press is {pressed}, too large for a recording"));
        let class = if pressed < 0 { None } else { Some(u16::try_from(pressed).map_err(|_| too_large())?) };
        marks.extend(RecordedSensor::mark(gap, class).ok_or_else(too_large)?);
    }
    let bytes: Vec<u8> = samples.as_slice()?.iter().flat_map(|number| number.to_le_bytes()).collect();
    let Behaviour { hop, smoothing, epochs, pause, slice, period, rejection, save_interval } = behaviour;
    let sensor = RecordedSensor {
        sample: u32::try_from(samples.shape()[1]).map_err(refuse)?,
        hop,
        smoothing,
        epochs,
        pause,
        slice,
        period,
        settings: Settings { rejection, save_interval },
        marks: &marks,
        samples: &bytes,
    };
    sensor.options().map_err(refuse)?;
    let encoded = sensor.write(Vec::new()).ok_or_else(|| refuse("the samples cannot be encoded"))?;
    Ok(PyBytes::new(py, &encoded))
}

/// Refuses a recorded sensor with which a model cannot be sensed.
#[pyfunction]
pub(crate) fn check_sensor(image: SharedImage, recorded: Vec<u8>) -> PyResult<()> {
    let view = image.checked().image();
    let sensor = RecordedSensor::read(&recorded).ok_or_else(|| refuse("this is no recorded sensor"))?;
    let options = sensor.options().map_err(refuse)?.sensing;
    if options.check(view).is_ok() {
        return Ok(());
    }
    if view.input_count() != 1 {
        return Err(refuse(format!("the model has {} inputs; a device senses with one", view.input_count())));
    }
    let (numbers, shortest) = (view.input(0).len(), SensingOptions::shortest_sample(view));
    let hop = match view.values().iter().any(Value::is_state) {
        true => "; as the hop, the samples of one input, as it is one step of a stream",
        false => "",
    };
    Err(refuse(format!(
        "the model's input has {numbers} numbers, {shortest} per step; expected {shortest} numbers per sample, or several steps of which the input has a \
         whole number{hop}"
    )))
}

/// The fields of a report, as [`decode_response`](crate::protocol::decode_response) returns them.
pub(crate) fn report_fields<'py>(py: Python<'py>, report: &Report) -> PyResult<Bound<'py, PyDict>> {
    let (fields, details) = (PyDict::new(py), PyDict::new(py));
    macro_rules! set {
        ($($name:ident),* $(,)?) => {
            $(details.set_item(stringify!($name), $name)?;)*
        };
    }
    let event = match report.event {
        Event::Started { head, restored } => {
            set!(head, restored);
            "started"
        }
        Event::Sensed(Sensed { class, confidence, margin, known, decided, ticks }) => {
            set!(class, confidence, margin, known, decided, ticks);
            "sensed"
        }
        Event::Learned { target, head } => {
            set!(target, head);
            "learned"
        }
        Event::Trained { steps, left, taken_back, head } => {
            set!(steps, left, taken_back, head);
            "trained"
        }
        Event::Committed { head } => {
            set!(head);
            "committed"
        }
        Event::Saved { saves } => {
            set!(saves);
            "saved"
        }
        Event::SaveFailed { failed_saves } => {
            set!(failed_saves);
            "save_failed"
        }
        Event::Refused(failure) => {
            details.set_item("failure", <&str>::from(failure))?;
            details.set_item("reason", reason(failure))?;
            "refused"
        }
        Event::Missed { samples } => {
            set!(samples);
            "missed"
        }
        Event::SensorFailed => "sensor_failed",
        Event::Gap => "gap",
        Event::Ended => "ended",
        _ => return Err(refuse("the device reported an event this version does not know")),
    };
    fields.set_item("kind", "report")?;
    fields.set_item("sequence", 0)?;
    fields.set_item("number", report.number)?;
    fields.set_item("samples", report.samples)?;
    fields.set_item("event", event)?;
    fields.set_item("details", details)?;
    Ok(fields)
}

/// The fields of a part of a sample, as [`decode_response`](crate::protocol::decode_response) returns them.
pub(crate) fn sample_fields<'py>(py: Python<'py>, part: &SamplePart<'_>) -> PyResult<Bound<'py, PyDict>> {
    let fields = PyDict::new(py);
    fields.set_item("kind", "sample")?;
    fields.set_item("sequence", 0)?;
    fields.set_item("sample", part.sample)?;
    fields.set_item("after_gap", part.after_gap)?;
    fields.set_item("first", part.first)?;
    fields.set_item("left", part.left)?;
    fields.set_item("numbers", PyBytes::new(py, part.numbers))?;
    Ok(fields)
}

/// The memory that a twin borrows.
struct Memory {
    image: SharedImage,
    recorded: Vec<u8>,
    ram: MutBorrow<Vec<u32>>,
    window: MutBorrow<Vec<i8>>,
    features: MutBorrow<Vec<i8>>,
}

struct Running<'a> {
    session: Session<'a, Clock, MemoryFlash<Vec<u8>>, AnyHead<'a>>,
    sensing: Sensing<'a>,
    sensor: RecordedSensor<'a>,
    sample: Vec<f32>,
}

self_cell!(
    struct Board {
        owner: Memory,
        #[not_covariant]
        dependent: Running,
    }
);

/// A twin of a board that senses by itself: it does, in the device's own code and on the same recorded sensor, what it is told that the board did.
#[pyclass(module = "torch_nano._native")]
pub(crate) struct SensingTwin {
    board: Board,
}

fn refused(failure: Failure) -> PyErr {
    refuse(reason(failure))
}

#[pymethods]
impl SensingTwin {
    /// A twin that starts with `flash`, with a ring of `ring` samples.
    #[new]
    #[pyo3(signature = (image, recorded, flash, *, ring = 1024))]
    fn new(image: SharedImage, recorded: Vec<u8>, flash: Vec<u8>, ring: usize) -> PyResult<Self> {
        let view = image.checked().image();
        let frame = 64;
        let words = Sizes::of(view, ring, frame, Options::CHIP.copy).words();
        let zeros = |length: usize| MutBorrow::new(vec![0; length]);
        let (window, features) = (zeros(view.input(0).range().len()), zeros(view.output(0).range().len()));
        let memory = Memory { image, recorded, ram: MutBorrow::new(lend("device", words)?), window, features };
        let board = Board::try_new(memory, |memory| {
            let sensor = RecordedSensor::read(&memory.recorded).ok_or_else(|| refuse("this is no recorded sensor"))?;
            let options = Options { ring, frame, settings: sensor.settings, ..Options::CHIP };
            let (image, ram) = (*memory.image.checked(), memory.ram.borrow_mut());
            let session = Session::<_, _, AnyHead<'_>>::new(image, ram, options, MemoryFlash(flash), (|| 0) as Clock);
            let mut session = session.map_err(refuse)?;
            let sensing = sensor.options().and_then(|options| {
                let (window, features) = (memory.window.borrow_mut(), memory.features.borrow_mut());
                Sensing::new(&mut session.device, window, features, options.sensing)
            });
            session.device.hold_saves();
            let sample = vec![0.0; sensor.sample as usize];
            Ok::<_, PyErr>(Running { session, sensing: sensing.map_err(refuse)?, sensor, sample })
        });
        Ok(SensingTwin { board: board? })
    }

    /// Takes the next sample; returns whether there was a gap before it, and what was sensed if a window was due.
    fn sense<'py>(&mut self, py: Python<'py>) -> PyResult<(bool, Option<Bound<'py, PyDict>>)> {
        let (gap, sensed) = self.board.with_dependent_mut(|_, running| {
            let Running { session, sensing, sensor, sample } = running;
            let gap = match sensor.take(sample).0 {
                Sampled::Ended | Sampled::Failed => return Err(refuse("the recorded sensor has no more samples")),
                Sampled::AfterGap => {
                    sensing.clear(&mut session.device);
                    true
                }
                Sampled::Taken => false,
            };
            Ok((gap, sensing.sense(&mut session.device, sample).map_err(refused)?))
        })?;
        let report = sensed.map(|sensed| Report { number: 0, samples: 0, event: Event::Sensed(sensed) });
        let fields = report.map(|report| report_fields(py, &report)).transpose()?;
        let details =
            fields.map(|fields| Ok::<_, PyErr>(fields.get_item("details")?.map(|it| it.cast_into()).transpose()?));
        Ok((gap, details.transpose()?.flatten()))
    }

    /// Leaves out this number of samples.
    fn skip(&mut self, samples: u32) {
        self.board.with_dependent_mut(|_, running| running.sensor.skip(samples));
    }

    /// Learns that the latest window has this target: the word of a report.
    fn label(&mut self, target: u32) -> PyResult<()> {
        self.board.with_dependent_mut(|_, Running { session, .. }| {
            let head = session.device.head().ok_or(Failure::NoHead).map_err(refused)?;
            let label = match head.target(target) {
                nano_core::train::Target::Class(class) => Label::Class(Class::Index(class)),
                nano_core::train::Target::Labels(bits) => Label::Bits(bits),
                nano_core::train::Target::Value(value) => Label::Value(value),
            };
            session.device.label(label).map(|_| ()).map_err(refused)
        })
    }

    /// Trains in the board's slices until `steps` steps of a training were taken, or, without `steps`, to the end of a training that is open or due;
    /// returns the steps left, or None if no training is open or due.
    #[pyo3(signature = (steps = None))]
    fn work(&mut self, py: Python<'_>, steps: Option<u64>) -> PyResult<Option<u64>> {
        py.detach(|| {
            self.board.with_dependent_mut(|_, Running { session, sensing, .. }| {
                loop {
                    let Some(made) = sensing.work(&mut session.device).map_err(refused)? else { return Ok(None) };
                    if made.left == 0 || steps.is_some_and(|steps| made.steps >= steps) {
                        return Ok((steps.is_none() || steps == Some(made.steps)).then_some(made.left));
                    }
                }
            })
        })
    }

    /// The head's state; empty without one.
    fn head<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        self.board.with_dependent(|_, running| {
            PyBytes::new(py, running.session.device.head().map_or(&[], |head| head.state()))
        })
    }

    /// Whether it started with a saved head.
    fn restored(&self) -> bool {
        self.board.with_dependent(|_, running| running.session.device.restored())
    }

    /// Whether the board saves its head next, by itself.
    fn save_is_due(&self) -> bool {
        self.board.with_dependent(|_, running| running.session.device.save_is_due())
    }

    /// Saves the head: because that is due, or else as a PC asked the board to.
    fn save(&mut self) -> PyResult<()> {
        self.board.with_dependent_mut(|_, Running { session, .. }| {
            if session.device.save_is_due() {
                session.device.save_if_due();
                return Ok(());
            }
            session.device.save(true).map(|_| ()).map_err(refused)
        })
    }

    /// Heads saved since the start.
    fn saves(&self) -> u32 {
        self.board.with_dependent(|_, running| running.session.device.stats().saves)
    }

    /// The bytes of the flash.
    fn flash<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        self.board.with_dependent(|_, running| PyBytes::new(py, &running.session.device.flash().0))
    }
}
