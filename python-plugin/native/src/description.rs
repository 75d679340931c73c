//! Converts the description of a model from Python, a dict of plain data, to nano-core's type.

use std::collections::BTreeMap;

use nano_core::image::{
    Budget, ChannelScale, CodeSize, Dtype, FlashTiming, InputDescription, LayerDescription, ModelDescription, Optimize,
    OutputDescription, Tensor, ValueDescription,
};
use numpy::{PyReadonlyArrayDyn, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;

use crate::head_description;

/// Converts the description of a model.
pub(crate) fn read(description: &Bound<'_, PyAny>) -> PyResult<ModelDescription> {
    let Model { name, labels, inputs, layers, outputs, head, weights_in_ram, optimize, budget, flash_timing, code } =
        description.extract()?;
    Ok(ModelDescription {
        name,
        labels,
        inputs: inputs.into_iter().map(Input::describe).collect::<PyResult<_>>()?,
        layers: layers.into_iter().map(Layer::describe).collect::<PyResult<_>>()?,
        outputs: outputs.into_iter().map(|Output { name, id }| OutputDescription { name, id }).collect(),
        head: head.as_ref().map(head_description::read).transpose()?,
        rejection: head.as_ref().map(head_description::read_rejection).transpose()?.flatten(),
        weights_in_ram,
        optimize: match optimize.as_str() {
            "speed" => Optimize::Speed,
            "flash" => Optimize::Flash,
            "ram" => Optimize::Ram,
            _ => return Err(PyValueError::new_err(format!("optimize is {optimize:?}; expected speed, flash or ram"))),
        },
        budget: Budget { flash: budget.0.unwrap_or(usize::MAX), arena: budget.1.unwrap_or(usize::MAX) },
        flash_timing: flash_timing.map_or_else(FlashTiming::default, |timing| {
            let (cache, line, ways, cycles_to_first_word, cycles_per_line) = timing;
            FlashTiming { cache, line, ways, cycles_to_first_word, cycles_per_line }
        }),
        code: code.into_iter().map(|(bytes, kernels)| CodeSize { bytes, kernels }).collect(),
    })
}

#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Model<'py> {
    name: String,
    labels: Vec<String>,
    inputs: Vec<Input<'py>>,
    layers: Vec<Layer>,
    outputs: Vec<Output>,
    head: Option<Bound<'py, PyAny>>,
    weights_in_ram: usize,
    optimize: String,
    /// Flash and arena.
    budget: (Option<usize>, Option<usize>),
    /// The fields of [`FlashTiming`] in their order.
    flash_timing: Option<(usize, usize, usize, u32, u32)>,
    /// The fields of [`CodeSize`] in their order.
    code: Vec<(usize, Vec<String>)>,
}

#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Input<'py> {
    name: String,
    value: Value,
    channels: Option<Channels<'py>>,
}

impl Input<'_> {
    fn describe(self) -> PyResult<InputDescription> {
        let channels = self.channels.map_or_else(|| Ok(Vec::new()), Channels::describe)?;
        Ok(InputDescription { name: self.name, value: self.value.describe()?, channels })
    }
}

#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Channels<'py> {
    scale: PyReadonlyArrayDyn<'py, f32>,
    offset: PyReadonlyArrayDyn<'py, f32>,
}

impl Channels<'_> {
    fn describe(self) -> PyResult<Vec<ChannelScale>> {
        let (scales, offsets) = (self.scale.as_slice()?, self.offset.as_slice()?);
        if scales.len() != offsets.len() {
            let (scales, offsets) = (scales.len(), offsets.len());
            return Err(PyValueError::new_err(format!("{scales} scales of channels, and {offsets} offsets")));
        }
        Ok(scales.iter().zip(offsets).map(|(&scale, &offset)| ChannelScale { scale, offset }).collect())
    }
}

#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Layer {
    operator: String,
    inputs: Vec<usize>,
    outputs: Vec<Value>,
    attributes: BTreeMap<String, i64>,
    tensors: BTreeMap<String, Elements>,
}

impl Layer {
    fn describe(self) -> PyResult<LayerDescription> {
        Ok(LayerDescription {
            operator: self.operator,
            inputs: self.inputs,
            outputs: self.outputs.into_iter().map(Value::describe).collect::<PyResult<_>>()?,
            attributes: self.attributes,
            tensors: self.tensors.into_iter().map(|(name, Elements(tensor))| (name, tensor)).collect(),
        })
    }
}

#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Output {
    name: String,
    id: usize,
}

#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Value {
    dtype: String,
    shape: [u32; 3],
    scale: f32,
    zero_point: i32,
    state: bool,
}

impl Value {
    fn describe(self) -> PyResult<ValueDescription> {
        let Value { dtype, shape, scale, zero_point, state } = self;
        let known = Dtype::ALL.into_iter().find(|known| known.name() == dtype);
        let dtype = known.ok_or_else(|| PyValueError::new_err(format!("there is no dtype {dtype:?}")))?;
        Ok(ValueDescription { dtype, shape, scale, zero_point, state })
    }
}

struct Elements(Tensor);

impl<'py> FromPyObject<'_, 'py> for Elements {
    type Error = PyErr;

    fn extract(array: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if let Ok(array) = array.extract::<PyReadonlyArrayDyn<'_, i8>>() {
            return Ok(Elements(Tensor::Int8(array.as_slice()?.to_vec())));
        }
        if let Ok(array) = array.extract::<PyReadonlyArrayDyn<'_, i16>>() {
            return Ok(Elements(Tensor::Int16(array.as_slice()?.to_vec())));
        }
        if let Ok(array) = array.extract::<PyReadonlyArrayDyn<'_, i32>>() {
            return Ok(Elements(Tensor::Int32(array.as_slice()?.to_vec())));
        }
        if let Ok(array) = array.extract::<PyReadonlyArrayDyn<'_, i64>>() {
            return Ok(Elements(Tensor::Int64(array.as_slice()?.to_vec())));
        }
        if let Ok(array) = array.extract::<PyReadonlyArrayDyn<'_, f32>>() {
            return Ok(Elements(Tensor::Float32(array.as_slice()?.to_vec())));
        }
        let given = match array.cast::<PyUntypedArray>() {
            Ok(array) => array.dtype().to_string(),
            Err(_) => array.get_type().to_string(),
        };
        Err(PyTypeError::new_err(format!(
            "a tensor must be a numpy array of int8, int16, int32, int64 or float32, this is {given}"
        )))
    }
}
