//! Python's description of a model, a dict of plain data, as nano-core's.

use std::collections::BTreeMap;

use nano_core::image::{
    ChannelScale, Dtype, InputDescription, LayerDescription, ModelDescription, OutputDescription, Tensor,
    ValueDescription,
};
use numpy::{PyReadonlyArrayDyn, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::{PyKeyError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::head_description;

pub(crate) fn model(description: &Bound<'_, PyDict>) -> PyResult<ModelDescription> {
    let head = item(description, "head")?;
    Ok(ModelDescription {
        name: item(description, "name")?.extract()?,
        labels: item(description, "labels")?.extract()?,
        inputs: list(description, "inputs", input)?,
        layers: list(description, "layers", layer)?,
        outputs: list(description, "outputs", output)?,
        head: if head.is_none() { None } else { Some(head_description::read(&head)?) },
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
    let dtype = item(description, "dtype")?;
    let name = dtype.extract::<&str>()?;
    let dtype = Dtype::ALL.into_iter().find(|dtype| dtype.name() == name);
    Ok(ValueDescription {
        dtype: dtype.ok_or_else(|| PyValueError::new_err(format!("there is no dtype {name:?}")))?,
        shape: [height, width, channels],
        scale: item(description, "scale")?.extract()?,
        zero_point: item(description, "zero_point")?.extract()?,
        state: item(description, "state")?.extract()?,
    })
}

fn input(description: &Bound<'_, PyDict>) -> PyResult<InputDescription> {
    let channels = item(description, "channels")?;
    let channels = if channels.is_none() { Vec::new() } else { channel_scales(channels.cast::<PyDict>()?)? };
    let value = value(item(description, "value")?.cast::<PyDict>()?)?;
    Ok(InputDescription { name: item(description, "name")?.extract()?, value, channels })
}

fn channel_scales(description: &Bound<'_, PyDict>) -> PyResult<Vec<ChannelScale>> {
    let floats = |key| -> PyResult<Vec<f32>> {
        Ok(item(description, key)?.extract::<PyReadonlyArrayDyn<'_, f32>>()?.as_slice()?.to_vec())
    };
    let (scales, offsets) = (floats("scale")?, floats("offset")?);
    if scales.len() != offsets.len() {
        return Err(PyValueError::new_err(format!(
            "{} scales of channels, and {} offsets",
            scales.len(),
            offsets.len()
        )));
    }
    Ok(scales.into_iter().zip(offsets).map(|(scale, offset)| ChannelScale { scale, offset }).collect())
}

fn output(description: &Bound<'_, PyDict>) -> PyResult<OutputDescription> {
    Ok(OutputDescription { name: item(description, "name")?.extract()?, id: item(description, "id")?.extract()? })
}

fn layer(description: &Bound<'_, PyDict>) -> PyResult<LayerDescription> {
    let tensors = item(description, "tensors")?;
    let tensors =
        tensors.cast::<PyDict>()?.iter().map(|(name, array)| Ok((name.extract::<String>()?, tensor(&array)?)));
    Ok(LayerDescription {
        operator: item(description, "operator")?.extract()?,
        inputs: item(description, "inputs")?.extract()?,
        outputs: list(description, "outputs", value)?,
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
