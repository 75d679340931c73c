//! NumPy arrays of a value's elements: int8, int16 or int32, one row per sample.

use nano_core::image::{Dtype, Element};
use numpy::ndarray::Array2;
use numpy::{IntoPyArray, PyReadonlyArray2, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use zerocopy::{FromBytes, IntoBytes};

/// An array from Python.
pub(crate) enum Given<'py> {
    Int8(PyReadonlyArray2<'py, i8>),
    Int16(PyReadonlyArray2<'py, i16>),
    Int32(PyReadonlyArray2<'py, i32>),
}

/// An array for Python.
pub(crate) enum Made {
    Int8(Array2<i8>),
    Int16(Array2<i16>),
    Int32(Array2<i32>),
}

impl<'py> Given<'py> {
    /// Converts `array`, which must have this `dtype`.
    pub(crate) fn new(array: &Bound<'py, PyAny>, dtype: Dtype) -> PyResult<Self> {
        let given = match dtype {
            Dtype::Int8 => array.extract().map(Given::Int8).ok(),
            Dtype::Int16 => array.extract().map(Given::Int16).ok(),
            Dtype::Int32 => array.extract().map(Given::Int32).ok(),
        };
        given.ok_or_else(|| {
            let given = match array.cast::<PyUntypedArray>() {
                Ok(array) => format!("{} of {} dimensions", array.dtype(), array.ndim()),
                Err(_) => array.get_type().to_string(),
            };
            let expected = dtype.name();
            PyTypeError::new_err(format!(
                "an input must be a numpy array [samples, elements] of {expected}, this is {given}"
            ))
        })
    }

    /// Number of samples, and of elements per sample.
    pub(crate) fn shape(&self) -> [usize; 2] {
        let shape = match self {
            Given::Int8(array) => array.shape(),
            Given::Int16(array) => array.shape(),
            Given::Int32(array) => array.shape(),
        };
        [shape[0], shape[1]]
    }

    /// The bytes of all elements.
    pub(crate) fn bytes(&self) -> PyResult<&[i8]> {
        Ok(match self {
            Given::Int8(array) => array.as_slice()?,
            Given::Int16(array) => as_bytes(array.as_slice()?),
            Given::Int32(array) => as_bytes(array.as_slice()?),
        })
    }
}

impl Made {
    /// A new array of zeros.
    pub(crate) fn new(dtype: Dtype, samples: usize, elements: usize) -> Self {
        match dtype {
            Dtype::Int8 => Made::Int8(Array2::zeros((samples, elements))),
            Dtype::Int16 => Made::Int16(Array2::zeros((samples, elements))),
            Dtype::Int32 => Made::Int32(Array2::zeros((samples, elements))),
        }
    }

    /// The bytes of all elements.
    pub(crate) fn bytes_mut(&mut self) -> &mut [i8] {
        match self {
            Made::Int8(array) => as_bytes_mut(array),
            Made::Int16(array) => as_bytes_mut(array),
            Made::Int32(array) => as_bytes_mut(array),
        }
    }

    pub(crate) fn into_python(self, py: Python<'_>) -> Bound<'_, PyAny> {
        match self {
            Made::Int8(array) => array.into_pyarray(py).into_any(),
            Made::Int16(array) => array.into_pyarray(py).into_any(),
            Made::Int32(array) => array.into_pyarray(py).into_any(),
        }
    }
}

fn as_bytes<T: Element>(elements: &[T]) -> &[i8] {
    <[i8]>::ref_from_bytes(elements.as_bytes()).expect("bytes lie anywhere")
}

fn as_bytes_mut<T: Element>(array: &mut Array2<T>) -> &mut [i8] {
    let elements = array.as_slice_mut().expect("a new array is contiguous");
    <[i8]>::mut_from_bytes(elements.as_mut_bytes()).expect("bytes lie anywhere")
}
