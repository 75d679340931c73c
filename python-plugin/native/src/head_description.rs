//! Converts the description of a head from Python, a dict of plain data, to nano-core's type: one conversion per trainer.

use nano_core::image::{
    HeadDescription, LayersDescription, LdaDescription, RejectionDescription, SgdDescription, StartDescription,
    SumsDescription, TrainedLayer, TrainedOperation,
};
use nano_core::train::{self, Loss};
use numpy::PyReadonlyArrayDyn;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;

use crate::SettingError;

/// Converts the description of a head, whose trainer must be in nano-core's registry.
pub(crate) fn read(description: &Bound<'_, PyAny>) -> PyResult<HeadDescription> {
    let Trainer { trainer } = description.extract()?;
    HeadDescription::read(&trainer, Description(description))
        .unwrap_or_else(|| Err(PyValueError::new_err(format!("there is no trainer {:?}", &*trainer))))
}

/// Converts descriptions of layers that learn together.
pub(crate) fn read_layers(layers: Vec<Layer<'_>>) -> PyResult<Vec<TrainedLayer>> {
    layers.into_iter().map(TrainedLayer::try_from).collect()
}

/// Converts what the predictions of a head mean.
pub(crate) fn read_rejection(description: &Bound<'_, PyAny>) -> PyResult<Option<RejectionDescription>> {
    let Answers { rejection } = description.extract()?;
    let read = |Rejection { temperature, centres, variance, limit }: Rejection<'_>| {
        Ok(RejectionDescription { temperature, centres: centres.as_slice()?.to_vec(), variance, limit })
    };
    rejection.map(read).transpose()
}

/// The description of a head of a known trainer.
struct Description<'d, 'py>(&'d Bound<'py, PyAny>);

impl TryFrom<Description<'_, '_>> for SgdDescription {
    type Error = PyErr;

    fn try_from(Description(description): Description<'_, '_>) -> PyResult<Self> {
        let Linear { weights, biases, prior } = description.extract()?;
        let (weights, biases) = (weights.as_slice()?.to_vec(), biases.as_slice()?.to_vec());
        Ok(SgdDescription { weights, biases, descent: description.extract::<Descent<'_>>()?.try_into()?, prior })
    }
}

impl TryFrom<Description<'_, '_>> for LdaDescription {
    type Error = PyErr;

    fn try_from(Description(description): Description<'_, '_>) -> PyResult<Self> {
        let Lda { shrinkage } = description.extract()?;
        Ok(LdaDescription { sums: Description(description).try_into()?, shrinkage })
    }
}

impl TryFrom<Description<'_, '_>> for SumsDescription {
    type Error = PyErr;

    fn try_from(Description(description): Description<'_, '_>) -> PyResult<Self> {
        let Sums { classes, capacity, half_life, start } = description.extract()?;
        let start = start.map(StartDescription::try_from).transpose()?;
        let (capacity, half_life) = (whole("capacity", &capacity)?, whole("half_life", &half_life)?);
        Ok(SumsDescription { classes, capacity, start, half_life })
    }
}

impl TryFrom<Description<'_, '_>> for LayersDescription {
    type Error = PyErr;

    fn try_from(Description(description): Description<'_, '_>) -> PyResult<Self> {
        let Layers { layers } = description.extract()?;
        let layers = read_layers(layers)?;
        Ok(LayersDescription { layers, descent: description.extract::<Descent<'_>>()?.try_into()? })
    }
}

#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Trainer {
    trainer: PyBackedStr,
}

#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Answers<'py> {
    rejection: Option<Rejection<'py>>,
}

#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Rejection<'py> {
    temperature: i32,
    centres: PyReadonlyArrayDyn<'py, i8>,
    variance: u32,
    limit: u32,
}

#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Linear<'py> {
    weights: PyReadonlyArrayDyn<'py, f32>,
    biases: PyReadonlyArrayDyn<'py, f32>,
    prior: f64,
}

#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Lda {
    shrinkage: f64,
}

#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Sums<'py> {
    classes: usize,
    capacity: Bound<'py, PyAny>,
    half_life: Bound<'py, PyAny>,
    start: Option<Start<'py>>,
}

#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Start<'py> {
    means: PyReadonlyArrayDyn<'py, f32>,
    covariance: PyReadonlyArrayDyn<'py, f32>,
    weights: PyReadonlyArrayDyn<'py, f32>,
    biases: PyReadonlyArrayDyn<'py, f32>,
    mean_strength: f64,
    spread_strength: f64,
}

impl TryFrom<Start<'_>> for StartDescription {
    type Error = PyErr;

    fn try_from(
        Start { means, covariance, weights, biases, mean_strength, spread_strength }: Start<'_>,
    ) -> PyResult<Self> {
        Ok(StartDescription {
            means: means.as_slice()?.to_vec(),
            covariance: covariance.as_slice()?.to_vec(),
            weights: weights.as_slice()?.to_vec(),
            biases: biases.as_slice()?.to_vec(),
            mean_strength,
            spread_strength,
        })
    }
}

#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Layers<'py> {
    layers: Vec<Layer<'py>>,
}

/// A layer of several that learn together.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Layer<'py> {
    operation: PyBackedStr,
    /// Of an addition: 0 for the features, else 1 + the number of the layer.
    other: u32,
    input: [u32; 3],
    output: [u32; 3],
    kernel: [u32; 2],
    stride: [u32; 2],
    padding: [u32; 2],
    learns: bool,
    weights: PyReadonlyArrayDyn<'py, f32>,
    biases: PyReadonlyArrayDyn<'py, f32>,
    clamp_low: Option<f32>,
    clamp_high: Option<f32>,
    range: (f32, f32),
}

impl TryFrom<Layer<'_>> for TrainedLayer {
    type Error = PyErr;

    fn try_from(layer: Layer<'_>) -> PyResult<Self> {
        let Layer { operation, other, input, output, kernel, stride, padding, learns, weights, biases, .. } = layer;
        let Layer { clamp_low, clamp_high, range, .. } = layer;
        let operation = match &*operation {
            "convolution" => TrainedOperation::Convolution,
            "depthwise" => TrainedOperation::Depthwise,
            "average_pool" => TrainedOperation::AveragePool,
            "max_pool" => TrainedOperation::MaxPool,
            "add" => TrainedOperation::Add(other),
            name => return Err(PyValueError::new_err(format!("there is no trained layer {name:?}"))),
        };
        let (weights, biases) = (weights.as_slice()?.to_vec(), biases.as_slice()?.to_vec());
        Ok(TrainedLayer {
            operation,
            input,
            output,
            kernel,
            stride,
            padding,
            learns,
            weights,
            biases,
            clamp_low,
            clamp_high,
            range,
        })
    }
}

#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Descent<'py> {
    learning_rate: Option<f64>,
    loss: PyBackedStr,
    halve_every: Bound<'py, PyAny>,
    class_weights: Vec<f64>,
    balance: bool,
    frozen: Bound<'py, PyAny>,
    guard: Bound<'py, PyAny>,
    half_life: Bound<'py, PyAny>,
}

impl TryFrom<Descent<'_>> for train::Descent {
    type Error = PyErr;

    fn try_from(descent: Descent<'_>) -> PyResult<Self> {
        let Descent { learning_rate, loss, halve_every, class_weights, balance, frozen, guard, half_life } = descent;
        let known = Loss::ALL.into_iter().find(|known| known.name() == &*loss);
        Ok(train::Descent {
            learning_rate,
            loss: known.ok_or_else(|| PyValueError::new_err(format!("there is no loss {:?}", &*loss)))?,
            halve_every: whole("halve_every", &halve_every)?,
            class_weights,
            balance,
            frozen: whole("frozen", &frozen)?,
            guard: whole("guard", &guard)?,
            half_life: whole("half_life", &half_life)?,
        })
    }
}

/// Converts a setting from Python's unbounded integers.
fn whole<'py, T: FromPyObjectOwned<'py>>(name: &str, setting: &Bound<'py, PyAny>) -> PyResult<T> {
    setting.extract().map_err(|_| SettingError::new_err(format!("{name} is {setting}; expected 0 or more, below 2^32")))
}
