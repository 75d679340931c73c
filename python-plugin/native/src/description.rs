//! Python's description of a model, a dict of plain data, as nano-core's.

use std::collections::BTreeMap;

use nano_core::image::{
    HeadDescription, LayerDescription, LayersDescription, ModelDescription, SgdDescription, SumsDescription, Tensor,
    TrainedLayer, ValueDescription,
};
use nano_core::train::{Descent, Loss};
use numpy::{PyReadonlyArrayDyn, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::{PyKeyError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::SettingError;

pub(crate) fn model(description: &Bound<'_, PyDict>) -> PyResult<ModelDescription> {
    let head = item(description, "head")?;
    Ok(ModelDescription {
        name: item(description, "name")?.extract()?,
        labels: item(description, "labels")?.extract()?,
        inputs: list(description, "inputs", value)?,
        layers: list(description, "layers", layer)?,
        outputs: item(description, "outputs")?.extract()?,
        head: if head.is_none() { None } else { Some(self::head(head.cast::<PyDict>()?)?) },
    })
}

fn item<'py>(description: &Bound<'py, PyDict>, key: &str) -> PyResult<Bound<'py, PyAny>> {
    description.get_item(key)?.ok_or_else(|| PyKeyError::new_err(format!("the description lacks {key:?}")))
}

fn list<T>(
    description: &Bound<'_, PyDict>,
    key: &str,
    read: fn(&Bound<'_, PyDict>) -> PyResult<T>,
) -> PyResult<Vec<T>> {
    item(description, key)?.cast::<PyList>()?.iter().map(|entry| read(entry.cast::<PyDict>()?)).collect()
}

fn value(description: &Bound<'_, PyDict>) -> PyResult<ValueDescription> {
    let (height, width, channels) = item(description, "shape")?.extract()?;
    Ok(ValueDescription {
        shape: [height, width, channels],
        scale: item(description, "scale")?.extract()?,
        zero_point: item(description, "zero_point")?.extract()?,
    })
}

fn layer(description: &Bound<'_, PyDict>) -> PyResult<LayerDescription> {
    let tensors = item(description, "tensors")?;
    let tensors =
        tensors.cast::<PyDict>()?.iter().map(|(name, array)| Ok((name.extract::<String>()?, tensor(&array)?)));
    Ok(LayerDescription {
        operator: item(description, "operator")?.extract()?,
        inputs: item(description, "inputs")?.extract()?,
        output: value(item(description, "output")?.cast::<PyDict>()?)?,
        attributes: item(description, "attributes")?.extract::<BTreeMap<String, i64>>()?,
        tensors: tensors.collect::<PyResult<_>>()?,
    })
}

fn tensor(array: &Bound<'_, PyAny>) -> PyResult<Tensor> {
    if let Ok(array) = array.extract::<PyReadonlyArrayDyn<'_, i8>>() {
        return Ok(Tensor::Int8(array.as_slice()?.to_vec()));
    }
    if let Ok(array) = array.extract::<PyReadonlyArrayDyn<'_, i32>>() {
        return Ok(Tensor::Int32(array.as_slice()?.to_vec()));
    }
    if let Ok(array) = array.extract::<PyReadonlyArrayDyn<'_, f32>>() {
        return Ok(Tensor::Float32(array.as_slice()?.to_vec()));
    }
    let given = match array.cast::<PyUntypedArray>() {
        Ok(array) => array.dtype().to_string(),
        Err(_) => array.get_type().to_string(),
    };
    Err(PyTypeError::new_err(format!("a tensor must be a numpy array of int8, int32 or float32, this is {given}")))
}

fn head(description: &Bound<'_, PyDict>) -> PyResult<HeadDescription> {
    match item(description, "trainer")?.extract::<&str>()? {
        "sgd" => Ok(HeadDescription::Sgd(sgd(description)?)),
        "layers" => Ok(HeadDescription::Layers(layers(description)?)),
        "lda" => {
            let shrinkage = item(description, "shrinkage")?.extract()?;
            Ok(HeadDescription::Lda { start: sums(description)?, shrinkage })
        }
        "prototype" => Ok(HeadDescription::Prototype(sums(description)?)),
        other => Err(PyValueError::new_err(format!("there is no trainer {other:?}"))),
    }
}

fn floats(description: &Bound<'_, PyDict>, key: &str) -> PyResult<Vec<f32>> {
    Ok(item(description, key)?.extract::<PyReadonlyArrayDyn<'_, f32>>()?.as_slice()?.to_vec())
}

fn loss(description: &Bound<'_, PyDict>) -> PyResult<Loss> {
    let item = item(description, "loss")?;
    let name = item.extract::<&str>()?;
    let loss = Loss::ALL.into_iter().find(|loss| loss.name() == name);
    loss.ok_or_else(|| PyValueError::new_err(format!("there is no loss {name:?}")))
}

fn descent(description: &Bound<'_, PyDict>) -> PyResult<Descent> {
    Ok(Descent {
        learning_rate: item(description, "learning_rate")?.extract()?,
        loss: loss(description)?,
        halve_every: whole(description, "halve_every")?,
        class_weights: item(description, "class_weights")?.extract()?,
        frozen: whole(description, "frozen")?,
    })
}

/// A setting of whole numbers, which Python has without end.
fn whole<'py, T: FromPyObjectOwned<'py>>(description: &Bound<'py, PyDict>, key: &str) -> PyResult<T> {
    let item = item(description, key)?;
    item.extract().map_err(|_| SettingError::new_err(format!("{key} is {item}; expected 0 or more, below 2^32")))
}

fn sgd(description: &Bound<'_, PyDict>) -> PyResult<SgdDescription> {
    Ok(SgdDescription {
        weights: floats(description, "weights")?,
        biases: floats(description, "biases")?,
        descent: descent(description)?,
    })
}

fn layers(description: &Bound<'_, PyDict>) -> PyResult<LayersDescription> {
    Ok(LayersDescription { layers: list(description, "layers", trained_layer)?, descent: descent(description)? })
}

fn trained_layer(description: &Bound<'_, PyDict>) -> PyResult<TrainedLayer> {
    Ok(TrainedLayer {
        positions: item(description, "positions")?.extract()?,
        weights: floats(description, "weights")?,
        biases: floats(description, "biases")?,
        clamp_low: item(description, "clamp_low")?.extract()?,
        clamp_high: item(description, "clamp_high")?.extract()?,
        range: item(description, "range")?.extract()?,
    })
}

fn sums(description: &Bound<'_, PyDict>) -> PyResult<SumsDescription> {
    Ok(SumsDescription { classes: item(description, "classes")?.extract()?, capacity: whole(description, "capacity")? })
}
