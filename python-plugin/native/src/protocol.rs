//! The device protocol for Python. It uses the same message types as the device.

use nano_core::image::Dtype;
use nano_core::ops;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use torch_nano_device::{
    Block, Class, Failure, GraphValue, Label, PROTOCOL, REPORT, Report, Request, RequestHeader, Response,
    ResponseHeader, SAMPLE, SamplePart, Settings, StorageError, UpdateError, frame,
};

use crate::head::target_name;
use crate::refuse;
use crate::sensing::{report_fields, sample_fields};

/// The fields of a request, from Python's keyword arguments.
#[derive(Default)]
struct Fields<'p, 'py> {
    fields: Option<&'p Bound<'py, PyDict>>,
    taken: usize,
}

impl<'p, 'py> Fields<'p, 'py> {
    fn has(&self, name: &str) -> PyResult<bool> {
        self.fields.map_or(Ok(false), |fields| fields.contains(name))
    }

    fn get<T: for<'a> FromPyObject<'a, 'py, Error: Into<PyErr>>>(&mut self, name: &str) -> PyResult<T> {
        let value = self.fields.map_or(Ok(None), |fields| fields.get_item(name))?;
        let value = value.ok_or_else(|| PyValueError::new_err(format!("the request has no field {name:?}")))?;
        self.taken += 1;
        value.extract().map_err(Into::into)
    }

    fn bytes(&mut self, name: &str) -> PyResult<Vec<u8>> {
        self.get(name)
    }

    /// Checks that no field is left: all of them belong to the request.
    fn end(&self, kind: &str) -> PyResult<()> {
        let given = self.fields.map_or(0, |fields| fields.len());
        if given == self.taken {
            Ok(())
        } else {
            Err(PyValueError::new_err(format!("the request {kind:?} has {} fields, not these {given}", self.taken)))
        }
    }
}

/// Encodes a request as a frame, including its end byte. `kind` is the message's name in snake case; the keyword arguments are its fields. A class
/// is `class_index` or `name`; the target of an input is `label` (a class), `name`, `bits` or `value`. `sequence` (0: not numbered), `session`
/// (0: any) and `model_id` (None: any) form the header.
///
/// The fields: predict, features, profile: input. describe: side ("input" or "output"), index. input, write_head: offset, bytes. learn: input and
/// target. label: target. train: first_epoch, epochs. add_class: name. forget: class_index or name. class_name: class_index. save: replace. read: block
/// ("output", "logits", "layers", "head", or "channels" with index, of the input), offset. replace_head: checksum (of the state: :func:`crc32`).
/// configure: rejection, save_interval. begin_update: length, id. write_update: offset, bytes. begin, info, reset_states, continue, stop, commit, undo, reset,
/// load, stats, finish_update, confirm_update, restart, send_samples, stop_samples: none.
#[pyfunction]
#[pyo3(signature = (kind, *, sequence = 0, session = 0, model_id = None, **fields))]
pub(crate) fn encode_request<'py>(
    py: Python<'py>,
    kind: &str,
    sequence: u16,
    session: u16,
    model_id: Option<u32>,
    fields: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyBytes>> {
    let mut fields = Fields { fields, taken: 0 };
    let (mut bytes, mut name) = (Vec::new(), String::new());
    let request = match kind {
        "begin" => Request::Begin,
        "info" => Request::Info,
        "describe" => {
            let (side, index) = (fields.get::<String>("side")?, fields.get("index")?);
            let value = match side.as_str() {
                "input" => GraphValue::Input(index),
                "output" => GraphValue::Output(index),
                other => return Err(PyValueError::new_err(format!("a graph has no {other:?}"))),
            };
            Request::Describe { value }
        }
        "reset_states" => Request::ResetStates,
        "predict" | "features" | "profile" => {
            bytes = fields.bytes("input")?;
            match kind {
                "predict" => Request::Predict { input: &bytes },
                "features" => Request::Features { input: &bytes },
                _ => Request::Profile { input: &bytes },
            }
        }
        "input" | "write_head" | "write_update" => {
            let offset = fields.get("offset")?;
            bytes = fields.bytes("bytes")?;
            match kind {
                "input" => Request::Input { offset, bytes: &bytes },
                "write_update" => Request::WriteUpdate { offset, bytes: &bytes },
                _ => Request::WriteHead { offset, bytes: &bytes },
            }
        }
        "learn" | "label" => {
            let label = if fields.has("label")? {
                Label::Class(Class::Index(fields.get("label")?))
            } else if fields.has("name")? {
                name = fields.get("name")?;
                Label::Class(Class::Name(&name))
            } else if fields.has("bits")? {
                Label::Bits(fields.get("bits")?)
            } else {
                Label::Value(fields.get("value")?)
            };
            if kind == "label" {
                Request::Label { label }
            } else {
                bytes = fields.bytes("input")?;
                Request::Learn { label, input: &bytes }
            }
        }
        "train" => Request::Train { first_epoch: fields.get("first_epoch")?, epochs: fields.get("epochs")? },
        "continue" => Request::Continue,
        "stop" => Request::Stop,
        "commit" => Request::Commit,
        "undo" => Request::Undo,
        "add_class" => {
            name = fields.get("name")?;
            Request::AddClass { name: &name }
        }
        "forget" if fields.has("name")? => {
            name = fields.get("name")?;
            Request::Forget { class: Class::Name(&name) }
        }
        "forget" => Request::Forget { class: Class::Index(fields.get("class_index")?) },
        "class_name" => Request::ClassName { class: fields.get("class_index")? },
        "reset" => Request::Reset,
        "save" => Request::Save { replace: fields.get("replace")? },
        "load" => Request::Load,
        "read" => {
            let block = match fields.get::<String>("block")?.as_str() {
                "output" => Block::Output,
                "logits" => Block::Logits,
                "layers" => Block::Layers,
                "head" => Block::Head,
                "channels" => Block::Channels(fields.get("index")?),
                other => return Err(PyValueError::new_err(format!("no block {other:?} to read"))),
            };
            Request::Read { block, offset: fields.get("offset")? }
        }
        "replace_head" => Request::ReplaceHead { checksum: fields.get("checksum")? },
        "configure" => {
            let settings =
                Settings { rejection: fields.get("rejection")?, save_interval: fields.get("save_interval")? };
            Request::Configure { settings }
        }
        "stats" => Request::Stats,
        "begin_update" => Request::BeginUpdate { length: fields.get("length")?, id: fields.get("id")? },
        "finish_update" => Request::FinishUpdate,
        "confirm_update" => Request::ConfirmUpdate,
        "restart" => Request::Restart,
        "send_samples" => Request::SendSamples,
        "stop_samples" => Request::StopSamples,
        _ => return Err(PyValueError::new_err(format!("no request {kind:?}"))),
    };
    fields.end(kind)?;
    let header = RequestHeader { protocol: PROTOCOL, sequence, session, model_id };
    let mut buffer = vec![0; frame::length(bytes.len() + name.len())];
    let bytes =
        frame::encode(&header, &request, &mut buffer).ok_or_else(|| refuse("the request does not fit a frame"))?;
    Ok(PyBytes::new(py, bytes))
}

/// Decodes a response from a frame without its end byte: returns a dict of its fields, with its name under "kind" and the request's number under
/// "sequence"; of a report those of a [`torch_nano.device.Report`]; of a part of a sample "sample", "after_gap", "first", "left" and the bytes "numbers". For a refused request the kind is "refused", with the failure's code
/// under "failure", a sentence under "reason", and under "of_update" whether it is a refusal of an update.
#[pyfunction]
pub(crate) fn decode_response<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyDict>> {
    let mut frame = bytes.to_vec();
    let refused = || {
        refuse(format!(
            "{} bytes from the device are no response of protocol {PROTOCOL}: damaged, or another version",
            bytes.len()
        ))
    };
    if let Some((REPORT, report)) = frame::decode::<u8, Report>(&mut frame.clone()) {
        return report_fields(py, &report);
    }
    if let Some((SAMPLE, part)) = frame::decode::<u8, SamplePart<'_>>(&mut frame.clone()) {
        return sample_fields(py, &part);
    }
    let (header, response) = frame::decode::<ResponseHeader, Response<'_>>(&mut frame).ok_or_else(refused)?;
    let fields = PyDict::new(py);
    macro_rules! set {
        ($($name:ident: $value:expr),* $(,)?) => {
            $(fields.set_item(stringify!($name), $value)?;)*
        };
    }
    let tensor = |bytes: &[u8]| PyBytes::new(py, bytes);
    let kind = match response {
        Response::Info {
            model_id,
            name,
            inputs,
            outputs,
            has_states,
            input_length,
            output_length,
            layers,
            classes,
            class_capacity,
            head_length,
            ring_capacity,
            arena_length,
            frame_length,
            settings,
            saved,
            restored,
            target,
            update,
        } => {
            set!(protocol: header.protocol, model_id: model_id, name: name);
            set!(inputs: inputs, outputs: outputs, has_states: has_states);
            set!(input_length: input_length, output_length: output_length, layers: layers);
            set!(classes: classes, class_capacity: class_capacity, head_length: head_length);
            set!(ring_capacity: ring_capacity, arena_length: arena_length, frame_length: frame_length);
            set!(rejection: settings.rejection, save_interval: settings.save_interval);
            set!(saved: saved.ok().map(|saved| saved.count), lost_save: saved.ok().and_then(|saved| saved.lost));
            set!(saved_reason: saved.err().map(storage_reason), restored: restored);
            set!(target: target.map(target_name));
            set!(update_room: update.room, update: update.count, on_trial: update.trial);
            "info"
        }
        Response::Description { name, elements, shape, scale, zero_point, channels_length } => {
            set!(name: name, dtype: Dtype::from(elements).name(), shape: <(u32, u32, u32)>::from(shape));
            set!(scale: scale, zero_point: zero_point, channels_length: channels_length);
            "description"
        }
        Response::Prediction { class, confidence, margin, known, ticks, logit_scale, logits, output } => {
            set!(class: class, confidence: confidence, margin: margin, known: known, ticks: ticks);
            set!(logit_scale: logit_scale, logits: tensor(logits), output: tensor(output));
            "prediction"
        }
        Response::Features { ticks, output } => {
            set!(ticks: ticks, output: tensor(output));
            "features"
        }
        Response::Profile { layers } => {
            set!(layers: tensor(layers));
            "profile"
        }
        Response::Received { length } => {
            set!(length: length);
            "received"
        }
        Response::Learned { samples, ticks } => {
            set!(samples: samples, ticks: ticks);
            "learned"
        }
        Response::Trained { steps, left, ticks, taken_back } => {
            set!(steps: steps, left: left, ticks: ticks, taken_back: taken_back);
            "trained"
        }
        Response::Updated { count, same_head } => {
            set!(count: count, same_head: same_head);
            "updated"
        }
        Response::Committed { ticks } => {
            set!(ticks: ticks);
            "committed"
        }
        Response::Done => "done",
        Response::ClassAdded { class } => {
            set!(class: class);
            "class_added"
        }
        Response::ClassName { name } => {
            set!(name: name);
            "class_name"
        }
        Response::Saved { count } => {
            set!(count: count);
            "saved"
        }
        Response::Loaded(saved) => {
            set!(count: saved.count, lost_save: saved.lost);
            "loaded"
        }
        Response::Part { length, changes, bytes } => {
            set!(length: length, changes: changes, bytes: tensor(bytes));
            "part"
        }
        Response::Stats(stats) => {
            set!(requests: stats.requests, refused_requests: stats.refused_requests, refused_frames: stats.refused_frames);
            set!(repeated: stats.repeated, runs: stats.runs, learned: stats.learned, steps: stats.steps);
            set!(taken_back: stats.taken_back, changes: stats.changes, saves: stats.saves, failed_saves: stats.failed_saves);
            set!(startup_ticks: stats.startup_ticks);
            "stats"
        }
        Response::Refused(failure) => {
            let code = match failure {
                Failure::Update(error) => error.into(),
                failure => <&str>::from(failure),
            };
            set!(failure: code, reason: reason(failure), of_update: matches!(failure, Failure::Update(_)));
            "refused"
        }
        _ => return Err(refuse("the device sent a response this version does not know")),
    };
    set!(kind: kind, sequence: header.sequence);
    Ok(fields)
}

/// The CRC-32 of a head's state, for the request "replace_head".
#[pyfunction]
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    frame::checksum(bytes)
}

pub(crate) fn reason(failure: Failure) -> String {
    match failure {
        Failure::Protocol { protocol } => {
            format!(
                "the device speaks protocol {protocol}, this package {PROTOCOL}: build and flash the firmware again"
            )
        }
        Failure::Model { model_id } => format!("the device runs another model, {model_id:08x}"),
        Failure::Session => "it has restarted since this client began, or another client has begun".to_owned(),
        Failure::Frame => format!("the frame was damaged on the way, or is of another protocol than {PROTOCOL}"),
        Failure::TooLong { limit } => format!("the frame is longer than the {limit} bytes this model's requests have"),
        Failure::Input { needed, given } => format!("the input has {given} bytes, the model needs {needed}"),
        Failure::GraphValue { count } => format!("there are only {count} of them"),
        Failure::Order { needed, given } => format!("byte {given} came where byte {needed} comes next"),
        Failure::Range { length } => format!("there are only {length} bytes"),
        Failure::NoRun => {
            "the model was not run, or profiled, since its input came or its states were reset; to label, a device that \
             senses by itself must have seen a window since the latest label"
                .to_owned()
        }
        Failure::NoHead => "the model on the device has no trainable head".to_owned(),
        Failure::Label { label, classes } => format!("label {label} is not below the number of classes, {classes}"),
        Failure::UnknownName => "no class has this name".to_owned(),
        Failure::NameTaken => "there is a class of this name already".to_owned(),
        Failure::Name { limit } => {
            format!("a class has a name of 1 to {limit} bytes (UTF-8) on one line, without a zero")
        }
        Failure::EmptyRing => "there is nothing to train on: learn some samples first".to_owned(),
        Failure::Epochs { limit } => {
            format!("a training has at most {limit} epochs, those before its first one included")
        }
        Failure::NoTraining => {
            "no training is open: it is at its end, or another change of the head or the samples has ended it"
                .to_owned()
        }
        Failure::Unsupported => {
            "the trainer of this model's head cannot do this: heads of sums (LDA, Prototype) add and forget \
                                 classes, heads that descend (SGD) train in epochs"
                .to_owned()
        }
        Failure::Full { capacity } => format!("there is room for {capacity}, and no more"),
        Failure::NothingToUndo => "there is nothing to take back".to_owned(),
        Failure::Checksum { computed } => format!("the head was damaged on the way: its CRC-32 is {computed:08x}"),
        Failure::State => "no head of this model has such a state, or such names of classes".to_owned(),
        Failure::Storage(error) => storage_reason(error),
        Failure::Update(error) => update_reason(error),
        _ => "the device refused it for a reason this version does not know".to_owned(),
    }
}

fn storage_reason(error: StorageError) -> String {
    match error {
        StorageError::Empty => "no head is saved on the device".to_owned(),
        StorageError::Damaged { count } => {
            format!(
                "no head on the device is whole: save {count} was cut short or is damaged, and there is none before it"
            )
        }
        StorageError::OtherModel { model_id } => {
            format!(
                "the head saved on the device belongs to another model, {model_id:08x}; it stays until it is replaced"
            )
        }
        StorageError::OtherFormat { version } => {
            format!("the head saved on the device is in another format, {version}; it stays until it is replaced")
        }
        StorageError::TooSmall { needed, given } => {
            format!("the head needs {needed} pages of flash, the device has {given} for it")
        }
        StorageError::NotWritten => "the flash is worn out: what was written cannot be read back".to_owned(),
        StorageError::Driver => "the flash cannot be read or written".to_owned(),
    }
}

/// Why an update was refused, and what to do.
fn update_reason(error: UpdateError) -> String {
    match error {
        UpdateError::NoSlots => {
            "it has no flash for updates: its program, or its partition table, is without them. Flash the model".to_owned()
        }
        UpdateError::TooLarge { needed, given } => {
            format!("the image has {needed} bytes, and the device has {given} for one: make the model smaller, or flash it")
        }
        UpdateError::Unconfirmed => {
            "the model that runs is an update on trial: confirm it first, or restart the device to go back to the model before"
                .to_owned()
        }
        UpdateError::NotBegun => "no update was begun, or the device has restarted since: begin again".to_owned(),
        UpdateError::Order { needed, given } => format!("byte {given} of the image came where byte {needed} comes next"),
        UpdateError::Incomplete { needed, given } => format!("the image has {needed} bytes, of which {given} have arrived"),
        UpdateError::Checksum { stored, computed } => format!(
            "the image was damaged on the way, or by the flash: its CRC-32 is {computed:08x} instead of {stored:08x}. Send it again"
        ),
        UpdateError::Version { found, expected } => format!(
            "the image has format version {found}, the program on the device reads {expected}: build and flash the firmware again"
        ),
        UpdateError::Kernel { node, id } => {
            let known = ops::ALL.iter().find(|kernel| kernel.id == id);
            let name = known.map_or_else(|| format!("kernel {id}"), |kernel| format!("the kernel {:?}", kernel.name));
            format!(
                "layer {node}, counted from 0, needs {name}, which the program on the device does not link: a firmware has the \
                 kernels of its own model. Flash the model"
            )
        }
        UpdateError::Ram { needed, given } => format!(
            "the model needs {needed} bytes of RAM, and the program on the device has reserved {given}: make the model smaller, or \
             flash a firmware that reserves more"
        ),
        UpdateError::Trainer { trainer } => format!(
            "the model's head is of trainer {trainer}, which the program on the device does not link: a firmware has that of its \
             own model. Flash the model"
        ),
        UpdateError::Window { needed, given } => format!(
            "a device that senses by itself takes models with the same window and features: {} and {} bytes, not {} and {}. Flash \
             the model",
            needed[0], needed[1], given[0], given[1]
        ),
        UpdateError::Image => "the program on the device refuses the image, which this package accepts: it is of another \
                               version. Build and flash the firmware again"
            .to_owned(),
        UpdateError::NothingToConfirm => "the model that runs is no update, or is confirmed already".to_owned(),
        UpdateError::Driver => "the flash cannot be read or written".to_owned(),
        _ => "the device refused it for a reason this version does not know".to_owned(),
    }
}

/// The version of the messages.
pub(crate) const VERSION: u8 = PROTOCOL;
