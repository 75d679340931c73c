//! A checked image: what it says of itself, and runs over batches.

use std::sync::Arc;
use std::thread;

use nano_core::image::{Image, Value};
use nano_core::{CheckedImage, Error, ops};
use numpy::ndarray::Array2;
use numpy::{Element, IntoPyArray, PyArray2, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyDict};
use self_cell::self_cell;

use crate::refuse;

self_cell!(
    struct Loaded {
        owner: PyBackedBytes,
        #[covariant]
        dependent: CheckedImage,
    }
);

/// An image and the proof that nano-core has checked it, shared by all that use it: models, heads, simulated devices, their threads.
///
/// As an argument it is a [`Model`], or an image's bytes, which are checked then.
#[derive(Clone)]
pub(crate) struct SharedImage(Arc<Loaded>);

impl SharedImage {
    fn new(bytes: PyBackedBytes) -> Result<Self, Error> {
        // Python's bytes lie at multiples of 8; nano-core refuses an image that does not.
        Loaded::try_new(bytes, |bytes| CheckedImage::new(bytes, ops::ALL)).map(|loaded| SharedImage(Arc::new(loaded)))
    }

    /// The checked view.
    pub(crate) fn checked(&self) -> &CheckedImage<'_> {
        self.0.borrow_dependent()
    }

    /// The bytes that were given; the image is at their start.
    pub(crate) fn bytes(&self) -> &PyBackedBytes {
        self.0.borrow_owner()
    }
}

impl<'py> FromPyObject<'_, 'py> for SharedImage {
    type Error = PyErr;

    fn extract(given: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        match given.cast::<Model>() {
            Ok(model) => Ok(model.get().image.clone()),
            Err(_) => SharedImage::new(given.extract()?).map_err(refuse),
        }
    }
}

/// An image that nano-core has checked, ready to run on batches. It never changes: copies are the same, and threads share it.
#[pyclass(frozen, module = "torch_nano._native")]
pub(crate) struct Model {
    image: SharedImage,
}

/// One batch row per sample.
type Batch<T> = Array2<T>;

/// Gives an input the integers of a sample.
fn copy(_: &Value, given: &[i8], input: &mut [i8]) {
    input.copy_from_slice(given);
}

#[pymethods]
impl Model {
    #[new]
    fn new(image: SharedImage) -> Self {
        Model { image }
    }

    /// For pickle: the image is checked anew where it arrives.
    fn __reduce__<'py>(this: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyAny>, (Bound<'py, PyBytes>,))> {
        Ok((this.get_type().into_any(), (this.get().image(this.py())?,)))
    }

    fn __copy__(this: Py<Self>) -> Py<Self> {
        this
    }

    fn __deepcopy__(this: Py<Self>, _memo: &Bound<'_, PyAny>) -> Py<Self> {
        this
    }

    /// Bytes of arena one run needs.
    #[getter]
    fn arena_length(&self) -> usize {
        self.image.checked().image().arena_length()
    }

    /// Bytes of the image.
    #[getter]
    fn length(&self) -> usize {
        self.image.checked().image().length()
    }

    /// The model's identity: the image's CRC-32.
    #[getter]
    fn id(&self) -> u32 {
        self.image.checked().image().id()
    }

    /// The model's name.
    #[getter]
    fn name(&self) -> String {
        self.image.checked().image().metadata("name").next().unwrap_or_default().to_owned()
    }

    /// The names of the classes.
    #[getter]
    fn labels(&self) -> Vec<String> {
        self.image.checked().image().metadata("label").map(str::to_owned).collect()
    }

    /// Whether the model ends in a trainable head.
    #[getter]
    fn has_head(&self) -> bool {
        self.image.checked().image().head().is_some()
    }

    /// The image's bytes.
    #[getter]
    fn image<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(self.image.bytes().into_pyobject(py)?.cast_into()?)
    }

    /// Ids of the graph's input values.
    #[getter]
    fn inputs(&self) -> Vec<usize> {
        (0..self.image.checked().image().input_count()).collect()
    }

    /// Ids of the graph's output values.
    #[getter]
    fn outputs(&self) -> Vec<usize> {
        let image = self.image.checked().image();
        (0..image.output_count()).map(|index| image.output_id(index)).collect()
    }

    /// All values by id: shape (height, width, channels), scale, zero_point, offset in the arena.
    #[getter]
    fn values<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let values = self.image.checked().image().values().iter().map(|value| {
            let entry = PyDict::new(py);
            let [height, width, channels] = value.shape;
            entry.set_item("shape", (height, width, channels))?;
            entry.set_item("scale", value.scale)?;
            entry.set_item("zero_point", value.zero_point)?;
            entry.set_item("offset", value.range().start)?;
            Ok(entry)
        });
        values.collect()
    }

    /// All layers in order of execution.
    #[getter]
    fn layers<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let checked = self.image.checked();
        let image = checked.image();
        let layers = image.nodes().zip(image.input_count()..).map(|(node, output)| {
            let entry = PyDict::new(py);
            let operator = node.operator(checked.operators()).expect("a checked image has known operators");
            entry.set_item("operator", operator.name)?;
            entry.set_item("variant", node.variant())?;
            entry.set_item("macs", (operator.macs)(&node))?;
            entry.set_item("constant_bytes", node.constant_bytes())?;
            entry.set_item("scratch_bytes", node.scratch_length())?;
            entry.set_item("inputs", node.input_ids())?;
            entry.set_item("output", output)?;
            Ok(entry)
        });
        layers.collect()
    }

    /// Runs a batch: one int8 array [samples, elements] per graph input, NHWC; returns one per graph output.
    fn run<'py>(
        &self,
        py: Python<'py>,
        inputs: Vec<PyReadonlyArray2<'py, i8>>,
    ) -> PyResult<Vec<Bound<'py, PyArray2<i8>>>> {
        let outputs = self.batch(
            py,
            &inputs,
            copy,
            |image| (0..image.output_count()).map(|index| image.output(index).len()).collect(),
            |model, outputs| {
                model.run();
                for (index, output) in outputs.iter_mut().enumerate() {
                    output.copy_from_slice(model.output(index));
                }
            },
        )?;
        Ok(outputs.into_iter().map(|output| output.into_pyarray(py)).collect())
    }

    /// Runs a batch of finite real numbers: one float32 array [samples, elements] per graph input, NHWC; returns one per graph output.
    fn run_real<'py>(
        &self,
        py: Python<'py>,
        inputs: Vec<PyReadonlyArray2<'py, f32>>,
    ) -> PyResult<Vec<Bound<'py, PyArray2<f32>>>> {
        let outputs = self.batch(
            py,
            &inputs,
            |value, reals, integers| {
                integers.iter_mut().zip(reals).for_each(|(integer, &real)| *integer = value.quantize(real));
            },
            |image| (0..image.output_count()).map(|index| image.output(index).len()).collect(),
            |model, outputs| {
                model.run();
                for (index, reals) in outputs.iter_mut().enumerate() {
                    let value = model.image().output(index);
                    let integers = model.output(index);
                    reals.iter_mut().zip(integers).for_each(|(real, &integer)| *real = value.dequantize(integer));
                }
            },
        )?;
        Ok(outputs.into_iter().map(|output| output.into_pyarray(py)).collect())
    }

    /// Runs a batch and returns the output bytes of every layer, in order of execution.
    fn trace<'py>(
        &self,
        py: Python<'py>,
        inputs: Vec<PyReadonlyArray2<'py, i8>>,
    ) -> PyResult<Vec<Bound<'py, PyArray2<i8>>>> {
        let outputs = self.batch(
            py,
            &inputs,
            copy,
            |image| image.nodes().map(|node| node.output().len()).collect(),
            |model, outputs| {
                model.run_observed(|index, bytes| outputs[index].copy_from_slice(bytes));
            },
        )?;
        Ok(outputs.into_iter().map(|output| output.into_pyarray(py)).collect())
    }
}

impl Model {
    /// Gives every sample to `fill`, input by input, and runs `one`, on as many threads as there are cores; `lengths` gives the widths of
    /// the arrays that `one` fills.
    fn batch<I: Element + Sync, O: Clone + Default + Send>(
        &self,
        py: Python<'_>,
        inputs: &[PyReadonlyArray2<'_, I>],
        fill: impl Fn(&Value, &[I], &mut [i8]) + Sync,
        lengths: impl Fn(&Image<'_>) -> Vec<usize>,
        one: impl Fn(&mut nano_core::Model<'_>, &mut [&mut [O]]) + Sync,
    ) -> PyResult<Vec<Batch<O>>> {
        let checked = self.image.checked();
        let image = checked.image();
        if inputs.len() != image.input_count() {
            let (needed, given) = (image.input_count(), inputs.len());
            return Err(refuse(Error::Length { name: "list of inputs", needed, given }));
        }
        let samples = inputs[0].shape()[0];
        for (index, input) in inputs.iter().enumerate() {
            let (needed, given) = (image.input(index).len(), input.shape()[1]);
            if needed != given {
                return Err(refuse(Error::Length { name: "input", needed, given }));
            }
            if input.shape()[0] != samples {
                return Err(refuse(Error::Length { name: "batch", needed: samples, given: input.shape()[0] }));
            }
        }
        let inputs: Vec<&[I]> = inputs.iter().map(|input| input.as_slice()).collect::<Result<_, _>>()?;
        let lengths = lengths(image);
        let mut outputs: Vec<Batch<O>> =
            lengths.iter().map(|&length| Batch::from_elem((samples, length), O::default())).collect();
        py.detach(|| {
            let cores = || thread::available_parallelism().map_or(1, usize::from);
            // Asking for the number of cores, and a thread, take longer than many a model.
            let threads = if samples > 1 { cores().min(samples) } else { 1 };
            let per_thread = samples.div_ceil(threads).max(1);
            // parts[thread][output]: that thread's rows of that output.
            let mut parts: Vec<Vec<&mut [O]>> = (0..threads).map(|_| Vec::new()).collect();
            for (output, &length) in outputs.iter_mut().zip(&lengths) {
                let rows = output.as_slice_mut().expect("a new array is contiguous").chunks_mut(per_thread * length);
                for (part, rows) in parts.iter_mut().zip(rows) {
                    part.push(rows);
                }
            }
            let run = |part: usize, mut rows: Vec<&mut [O]>| {
                let mut arena = vec![0; image.arena_length()];
                let mut model = checked.bind(&mut arena).expect("the arena has the length that the image asks for");
                let first = part * per_thread;
                for sample in 0..per_thread.min(samples - first) {
                    for (index, input) in inputs.iter().enumerate() {
                        let value = image.input(index);
                        let given = &input[(first + sample) * value.len()..][..value.len()];
                        fill(value, given, model.input(index));
                    }
                    let mut outputs: Vec<&mut [O]> = rows
                        .iter_mut()
                        .zip(&lengths)
                        .map(|(rows, &length)| &mut rows[sample * length..][..length])
                        .collect();
                    one(&mut model, &mut outputs);
                }
            };
            thread::scope(|scope| {
                let mut parts = parts.into_iter().enumerate().filter(|(_, rows)| !rows.is_empty());
                let own = parts.next();
                for (part, rows) in parts {
                    let run = &run;
                    scope.spawn(move || run(part, rows));
                }
                if let Some((part, rows)) = own {
                    run(part, rows);
                }
            });
        });
        Ok(outputs)
    }
}
