//! The device protocol for Python: the same message types as on the device.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use torch_nano_device::{Failure, PROTOCOL, Request, Response, frame};

use crate::refuse;

/// A request as a frame, its end byte included. `kind` is the message's name in lower case; the other arguments are its fields.
#[pyfunction]
#[pyo3(signature = (kind, *, input = None, label = None, epochs = None))]
pub(crate) fn encode_request<'py>(
    py: Python<'py>,
    kind: &str,
    input: Option<&[u8]>,
    label: Option<u16>,
    epochs: Option<u32>,
) -> PyResult<Bound<'py, PyBytes>> {
    let request = match (kind, input, label, epochs) {
        ("info", None, None, None) => Request::Info,
        ("predict", Some(input), None, None) => Request::Predict { input },
        ("profile", Some(input), None, None) => Request::Profile { input },
        ("learn", Some(input), Some(label), None) => Request::Learn { label, input },
        ("train", None, None, Some(epochs)) => Request::Train { epochs },
        ("read_head", None, None, None) => Request::ReadHead,
        ("reset", None, None, None) => Request::Reset,
        _ => return Err(PyValueError::new_err(format!("no request {kind:?} with these fields"))),
    };
    let mut buffer = vec![0; frame::length(input.map_or(0, <[u8]>::len))];
    let bytes = frame::encode(&request, &mut buffer).ok_or_else(|| refuse("the request does not fit a frame"))?;
    Ok(PyBytes::new(py, bytes))
}

/// A response from a frame without its end byte: a dict of its fields, its name under "kind". A refused request gives kind "refused"
/// and a sentence under "reason".
#[pyfunction]
pub(crate) fn decode_response<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyDict>> {
    let mut frame = bytes.to_vec();
    let response = frame::decode::<Response<'_>>(&mut frame).ok_or_else(|| {
        refuse(format!(
            "{} bytes from the device are no response of protocol {PROTOCOL}: damaged, or another version",
            bytes.len()
        ))
    })?;
    let fields = PyDict::new(py);
    let kind = match response {
        Response::Info {
            protocol,
            model_id,
            name,
            input_length,
            output_length,
            classes,
            ring_capacity,
            arena_length,
        } => {
            fields.set_item("protocol", protocol)?;
            fields.set_item("model_id", model_id)?;
            fields.set_item("name", name)?;
            fields.set_item("input_length", input_length)?;
            fields.set_item("output_length", output_length)?;
            fields.set_item("classes", classes)?;
            fields.set_item("ring_capacity", ring_capacity)?;
            fields.set_item("arena_length", arena_length)?;
            "info"
        }
        Response::Prediction { class, output, logits, ticks } => {
            fields.set_item("class", class)?;
            fields.set_item("output", PyBytes::new(py, output))?;
            fields.set_item("logits", PyBytes::new(py, logits))?;
            fields.set_item("ticks", ticks)?;
            "prediction"
        }
        Response::Profile { layers } => {
            fields.set_item("layers", PyBytes::new(py, layers))?;
            "profile"
        }
        Response::Learned { samples } => {
            fields.set_item("samples", samples)?;
            "learned"
        }
        Response::Trained { steps, ticks } => {
            fields.set_item("steps", steps)?;
            fields.set_item("ticks", ticks)?;
            "trained"
        }
        Response::Head { state } => {
            fields.set_item("state", PyBytes::new(py, state))?;
            "head"
        }
        Response::Reset => "reset",
        Response::Refused(failure) => {
            fields.set_item("reason", reason(failure))?;
            "refused"
        }
        _ => return Err(refuse("the device sent a response this version does not know")),
    };
    fields.set_item("kind", kind)?;
    Ok(fields)
}

fn reason(failure: Failure) -> String {
    match failure {
        Failure::Frame => format!("the frame was damaged on the way, or is of another protocol than {PROTOCOL}"),
        Failure::TooLong { limit } => format!("the frame is longer than the {limit} bytes this model's requests have"),
        Failure::Input { needed, given } => format!("the input has {given} bytes, the model needs {needed}"),
        Failure::NoHead => "the model on the device has no trainable head".to_owned(),
        Failure::Label { label, classes } => format!("label {label} is not below the number of classes, {classes}"),
        Failure::EmptyRing => "there is nothing to train on: learn some samples first".to_owned(),
        _ => "the device refused it for a reason this version does not know".to_owned(),
    }
}

/// The version of the messages.
pub(crate) const VERSION: u16 = PROTOCOL;
