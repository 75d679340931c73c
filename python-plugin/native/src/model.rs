//! An image, loaded: what it says of itself, and runs over batches.

use std::thread;

use nano_core::image::Image;
use nano_core::{Error, ops};
use numpy::ndarray::Array2;
use numpy::{IntoPyArray, PyArray2, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::refuse;

/// Bytes at an address that is a multiple of 4, as images are read.
pub(crate) struct Aligned {
    words: Vec<u32>,
    length: usize,
}

impl Aligned {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let words = bytes.chunks(4).map(|chunk| {
            let mut word = [0; 4];
            word[..chunk.len()].copy_from_slice(chunk);
            u32::from_le_bytes(word)
        });
        Aligned { words: words.collect(), length: bytes.len() }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &zerocopy::IntoBytes::as_bytes(self.words.as_slice())[..self.length]
    }

    /// The view of bytes that were checked when this was made.
    pub(crate) fn image(&self) -> Image<'_> {
        Image::new(self.bytes()).expect("the image was checked when it was loaded")
    }
}

/// An image that nano-core has checked, ready to run on batches.
#[pyclass(frozen, module = "torch_nano._native")]
pub(crate) struct Model {
    image: Aligned,
}

/// One batch row per sample.
type Batch = Array2<i8>;

#[pymethods]
impl Model {
    #[new]
    fn new(image: &[u8]) -> PyResult<Self> {
        let model = Model { image: Aligned::new(image) };
        let mut arena = vec![0; Image::new(model.image.bytes()).map_err(refuse)?.arena_length()];
        nano_core::Model::new(model.image.bytes(), &mut arena, ops::ALL).map_err(refuse)?;
        Ok(model)
    }

    /// Bytes of arena one run needs.
    #[getter]
    fn arena_length(&self) -> usize {
        self.image.image().arena_length()
    }

    /// Bytes of the image.
    #[getter]
    fn length(&self) -> usize {
        self.image.image().length()
    }

    /// The model's identity: the image's CRC-32.
    #[getter]
    fn id(&self) -> u32 {
        self.image.image().id()
    }

    /// The model's name.
    #[getter]
    fn name(&self) -> String {
        self.image.image().metadata("name").next().unwrap_or_default().to_owned()
    }

    /// The names of the classes.
    #[getter]
    fn labels(&self) -> Vec<String> {
        self.image.image().metadata("label").map(str::to_owned).collect()
    }

    /// Whether the model ends in a trainable head.
    #[getter]
    fn has_head(&self) -> bool {
        self.image.image().head().is_some()
    }

    /// The image's bytes.
    #[getter]
    fn image<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.image.bytes())
    }

    /// Ids of the graph's input values.
    #[getter]
    fn inputs(&self) -> Vec<usize> {
        (0..self.image.image().input_count()).collect()
    }

    /// Ids of the graph's output values.
    #[getter]
    fn outputs(&self) -> Vec<usize> {
        let image = self.image.image();
        (0..image.output_count()).map(|index| image.output_id(index)).collect()
    }

    /// All values by id: shape (height, width, channels), scale, zero_point, offset in the arena.
    #[getter]
    fn values<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let values = self.image.image().values().iter().map(|value| {
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
        let image = self.image.image();
        let layers = image.nodes().zip(image.input_count()..).map(|(node, output)| {
            let entry = PyDict::new(py);
            let operator = node.operator(ops::ALL).expect("the image was checked when it was loaded");
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

    /// Runs a batch and returns the output bytes of every layer, in order of execution.
    fn trace<'py>(
        &self,
        py: Python<'py>,
        inputs: Vec<PyReadonlyArray2<'py, i8>>,
    ) -> PyResult<Vec<Bound<'py, PyArray2<i8>>>> {
        let outputs = self.batch(
            py,
            &inputs,
            |image| image.nodes().map(|node| node.output().len()).collect(),
            |model, outputs| {
                model.run_observed(|index, bytes| outputs[index].copy_from_slice(bytes));
            },
        )?;
        Ok(outputs.into_iter().map(|output| output.into_pyarray(py)).collect())
    }
}

impl Model {
    /// Runs `one` for every sample, on as many threads as there are cores; `lengths` gives the widths of the arrays it fills.
    fn batch(
        &self,
        py: Python<'_>,
        inputs: &[PyReadonlyArray2<'_, i8>],
        lengths: impl Fn(&Image<'_>) -> Vec<usize>,
        one: impl Fn(&mut nano_core::Model<'_>, &mut [&mut [i8]]) + Sync,
    ) -> PyResult<Vec<Batch>> {
        let image = self.image.image();
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
        let inputs: Vec<&[i8]> = inputs.iter().map(|input| input.as_slice()).collect::<Result<_, _>>()?;
        let lengths = lengths(&image);
        let mut outputs: Vec<Batch> = lengths.iter().map(|&length| Batch::zeros((samples, length))).collect();
        py.detach(|| {
            let threads = thread::available_parallelism().map_or(1, usize::from).min(samples.max(1));
            let per_thread = samples.div_ceil(threads).max(1);
            // parts[thread][output]: that thread's rows of that output.
            let mut parts: Vec<Vec<&mut [i8]>> = (0..threads).map(|_| Vec::new()).collect();
            for (output, &length) in outputs.iter_mut().zip(&lengths) {
                let rows = output.as_slice_mut().expect("a new array is contiguous").chunks_mut(per_thread * length);
                for (part, rows) in parts.iter_mut().zip(rows) {
                    part.push(rows);
                }
            }
            thread::scope(|scope| {
                for (part, mut rows) in parts.into_iter().enumerate().filter(|(_, rows)| !rows.is_empty()) {
                    let (inputs, lengths, one) = (&inputs, &lengths, &one);
                    scope.spawn(move || {
                        let image = self.image.image();
                        let mut arena = vec![0; image.arena_length()];
                        let mut model = nano_core::Model::new(self.image.bytes(), &mut arena, ops::ALL)
                            .expect("the image was checked when it was loaded");
                        let first = part * per_thread;
                        for sample in 0..per_thread.min(samples - first) {
                            for (index, input) in inputs.iter().enumerate() {
                                let length = image.input(index).len();
                                model.input(index).copy_from_slice(&input[(first + sample) * length..][..length]);
                            }
                            let mut outputs: Vec<&mut [i8]> = rows
                                .iter_mut()
                                .zip(lengths)
                                .map(|(rows, &length)| &mut rows[sample * length..][..length])
                                .collect();
                            one(&mut model, &mut outputs);
                        }
                    });
                }
            });
        });
        Ok(outputs)
    }
}
