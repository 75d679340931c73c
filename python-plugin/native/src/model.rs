//! A checked image: its properties, and inference on batches.

use std::sync::{Arc, OnceLock};

use nano_core::image::{ChannelScale, Image, Value};
use nano_core::{Arenas, CheckedImage, Error, HostModel, Processor, ops};
use numpy::ndarray::Array2;
use numpy::{IntoPyArray, PyArray2, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyDict};
use self_cell::self_cell;

use crate::batch::Batch;
use crate::elements::{Given, Made};
use crate::refuse;

self_cell!(
    struct Loaded {
        owner: PyBackedBytes,
        #[covariant]
        dependent: CheckedImage,
    }
);

/// An image with its form for this processor, which the first run makes.
struct Shared {
    loaded: Loaded,
    host: OnceLock<HostModel>,
}

/// A checked image, shared by its users (models, heads, simulated devices) and their threads.
///
/// Python passes a [`Model`], or an image's bytes, which are then checked.
#[derive(Clone)]
pub(crate) struct SharedImage(Arc<Shared>);

impl SharedImage {
    fn new(bytes: PyBackedBytes) -> Result<Self, Error> {
        // CPython aligns the contents of bytes to 8; nano-core refuses a misaligned image.
        let loaded = Loaded::try_new(bytes, |bytes| CheckedImage::new(bytes, ops::ALL))?;
        Ok(SharedImage(Arc::new(Shared { loaded, host: OnceLock::new() })))
    }

    /// The checked view.
    pub(crate) fn checked(&self) -> &CheckedImage<'_> {
        self.0.loaded.borrow_dependent()
    }

    /// The image, prepared for this processor.
    pub(crate) fn host(&self) -> &HostModel {
        self.0.host.get_or_init(|| HostModel::new(self.checked()))
    }

    /// The bytes as given; the image is at their start.
    pub(crate) fn bytes(&self) -> &PyBackedBytes {
        self.0.loaded.borrow_owner()
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

/// A checked image, ready to run on batches. It is immutable: copies are the same object, and threads may share it.
#[pyclass(frozen, module = "torch_nano._native")]
pub(crate) struct Model {
    image: SharedImage,
}

#[pymethods]
impl Model {
    #[new]
    fn new(image: SharedImage) -> Self {
        Model { image }
    }

    /// The model for another processor, of `processors()`, or with the portable kernels; all give the same bytes.
    #[pyo3(signature = (processor))]
    fn on(&self, py: Python<'_>, processor: Option<&str>) -> PyResult<Model> {
        let named = |name: &str| {
            let found = Processor::all().find(|processor| processor.name() == name);
            let error = || PyValueError::new_err(format!("this machine has no processor {name:?}"));
            found.ok_or_else(error)
        };
        let processor = processor.map(named).transpose()?;
        let image = SharedImage::new(self.image.bytes().clone_ref(py)).map_err(refuse)?;
        let host = HostModel::on(image.checked(), processor);
        image.0.host.set(host).ok().expect("it is a new image");
        Ok(Model { image })
    }

    /// For pickle: unpickling checks the image again.
    fn __reduce__<'py>(this: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyAny>, (Bound<'py, PyBytes>,))> {
        Ok((this.get_type().into_any(), (this.get().image(this.py())?,)))
    }

    fn __copy__(this: Py<Self>) -> Py<Self> {
        this
    }

    fn __deepcopy__(this: Py<Self>, _memo: &Bound<'_, PyAny>) -> Py<Self> {
        this
    }

    /// Size of the arena that one run needs, in bytes.
    #[getter]
    fn arena_length(&self) -> usize {
        self.image.checked().image().arena_length()
    }

    /// Bytes of the layers' constants that are copied to RAM, part of the arena.
    #[getter]
    fn constants_in_ram(&self) -> usize {
        self.image.checked().image().constants_in_ram()
    }

    /// Length of the image in bytes.
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

    /// Names of the graph's inputs.
    #[getter]
    fn input_names(&self) -> Vec<String> {
        self.image.checked().image().metadata("input").map(str::to_owned).collect()
    }

    /// Names of the graph's outputs.
    #[getter]
    fn output_names(&self) -> Vec<String> {
        self.image.checked().image().metadata("output").map(str::to_owned).collect()
    }

    /// For each of the graph's inputs, the scales and offsets of its channels; None for an input with a single scale and zero point.
    #[getter]
    fn input_channels<'py>(&self, py: Python<'py>) -> PyResult<Vec<Option<Bound<'py, PyDict>>>> {
        let image = self.image.checked().image();
        let inputs = (0..image.input_count()).map(|index| {
            let channels = image.input_channels(index);
            if channels.is_empty() {
                return Ok(None);
            }
            let entry = PyDict::new(py);
            let array =
                |number: fn(&ChannelScale) -> f32| channels.iter().map(number).collect::<Vec<_>>().into_pyarray(py);
            entry.set_item("scale", array(|channel| channel.scale))?;
            entry.set_item("offset", array(|channel| channel.offset))?;
            Ok(Some(entry))
        });
        inputs.collect()
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

    /// All values by id; `_native.pyi` documents the fields.
    #[getter]
    fn values<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let values = self.image.checked().image().values().iter().map(|value| {
            let entry = PyDict::new(py);
            let [height, width, channels] = value.shape;
            entry.set_item("dtype", value.dtype().name())?;
            entry.set_item("shape", (height, width, channels))?;
            entry.set_item("pitch", value.pitch)?;
            entry.set_item("scale", value.scale)?;
            entry.set_item("zero_point", value.zero_point)?;
            entry.set_item("offset", value.range().start)?;
            entry.set_item("state", value.is_state())?;
            Ok(entry)
        });
        values.collect()
    }

    /// All layers in order of execution. A layer may represent several layers of the description from which the image was written.
    #[getter]
    fn layers<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let checked = self.image.checked();
        let image = checked.image();
        let mut next = image.input_count();
        let layers = image.nodes().map(|node| {
            let entry = PyDict::new(py);
            let kernel = node.kernel(checked.kernels()).expect("a checked image has known kernels");
            entry.set_item("operator", kernel.operator.name)?;
            entry.set_item("kernel", kernel.name)?;
            entry.set_item("described_layers", kernel.operator.described_layers())?;
            entry.set_item("form", node.form())?;
            entry.set_item("macs", (kernel.operator.macs)(&node))?;
            entry.set_item("constant_bytes", node.constant_bytes())?;
            entry.set_item("constants_in_ram", node.has_constants_in_ram())?;
            entry.set_item("scratch_bytes", node.scratch_length())?;
            entry.set_item("scratch_offset", node.scratch_offset())?;
            entry.set_item("inputs", node.input_ids())?;
            let first = next;
            next += node.outputs().len();
            entry.set_item("outputs", (first..next).collect::<Vec<_>>())?;
            Ok(entry)
        });
        layers.collect()
    }

    /// Runs a batch: takes one array `[samples, elements]` of its dtype per graph input, NHWC; returns one per graph output. The states are reset
    /// before each sample. Uses at most `threads` threads, by default one per core.
    #[pyo3(signature = (inputs, threads=None))]
    fn run<'py>(
        &self,
        py: Python<'py>,
        inputs: Vec<Bound<'py, PyAny>>,
        threads: Option<usize>,
    ) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let image = self.image.checked().image();
        let values: Vec<_> = (0..image.output_count()).map(|index| image.output(index)).collect();
        let copy = |outputs: &mut [Vec<&mut [i8]>], arenas: &Arenas<'_>| {
            for (index, rows) in outputs.iter_mut().enumerate() {
                for (sample, row) in rows.iter_mut().enumerate() {
                    row.copy_from_slice(arenas.output(sample, index));
                }
            }
        };
        self.run_integers(py, &inputs, &values, threads, |_, _, _| {}, copy)
    }

    /// Runs a batch of finite real numbers: takes one float32 array `[samples, elements]` per graph input, NHWC; returns one per graph output.
    #[pyo3(signature = (inputs, threads=None))]
    fn run_real<'py>(
        &self,
        py: Python<'py>,
        inputs: Vec<PyReadonlyArray2<'py, f32>>,
        threads: Option<usize>,
    ) -> PyResult<Vec<Bound<'py, PyArray2<f32>>>> {
        let image = self.image.checked().image();
        let values: Vec<_> = (0..image.output_count()).map(|index| image.output(index)).collect();
        let shapes: Vec<_> = inputs.iter().map(|input| [input.shape()[0], input.shape()[1]]).collect();
        let samples = check_shapes(image, &shapes)?;
        let inputs = inputs.iter().map(|input| Ok(input.as_slice()?)).collect::<PyResult<Vec<_>>>()?;
        let mut outputs: Vec<_> = values.iter().map(|value| Array2::<f32>::zeros((samples, value.len()))).collect();
        let rows = outputs.iter_mut().map(|output| output.as_slice_mut().expect("a new array is contiguous"));
        let batch = Batch { samples, inputs, outputs: rows.collect() };
        let quantize = |index: usize, reals: &[f32], input: &mut [i8]| image.quantize_input(index, reals, input);
        let dequantize = |outputs: &mut [Vec<&mut [f32]>], arenas: &Arenas<'_>| {
            for (index, rows) in outputs.iter_mut().enumerate() {
                for (sample, row) in rows.iter_mut().enumerate() {
                    image.dequantize_output(index, arenas.output(sample, index), row);
                }
            }
        };
        py.detach(|| batch.run(&self.image, threads, quantize, |_, _, _| {}, dequantize));
        Ok(outputs.into_iter().map(|output| output.into_pyarray(py)).collect())
    }

    /// Runs a batch; returns the outputs of every layer, in order of execution.
    #[pyo3(signature = (inputs, threads=None))]
    fn trace<'py>(
        &self,
        py: Python<'py>,
        inputs: Vec<Bound<'py, PyAny>>,
        threads: Option<usize>,
    ) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let image = self.image.checked().image();
        let values: Vec<_> = image.values()[image.input_count()..].iter().collect();
        let mut firsts = vec![0];
        firsts.extend(image.nodes().scan(0, |next, node| {
            *next += node.outputs().len();
            Some(*next)
        }));
        let copy = |index: usize, outputs: &mut [Vec<&mut [i8]>], arenas: &Arenas<'_>| {
            let written = firsts[index]..firsts[index + 1];
            for (value, rows) in values[written.clone()].iter().zip(&mut outputs[written]) {
                for (sample, row) in rows.iter_mut().enumerate() {
                    let length = row.len() / (value.shape[0] * value.shape[1]) as usize;
                    let pixels = value.pixels(arenas.arena(sample));
                    row.chunks_mut(length).zip(pixels).for_each(|(to, from)| to.copy_from_slice(from));
                }
            }
        };
        self.run_integers(py, &inputs, &values, threads, copy, |_, _| {})
    }
}

/// Checks that there is one array of the right length per graph input, all with the same number of samples; returns this number.
fn check_shapes(image: &Image<'_>, shapes: &[[usize; 2]]) -> PyResult<usize> {
    let refuse_length = |name, needed, given| Err(refuse(Error::Length { name, needed, given }));
    if shapes.len() != image.input_count() {
        return refuse_length("list of inputs", image.input_count(), shapes.len());
    }
    let first = shapes[0][0];
    for (index, &[samples, elements]) in shapes.iter().enumerate() {
        let needed = image.input(index).len();
        if elements != needed {
            return refuse_length("input", needed, elements);
        }
        if samples != first {
            return refuse_length("batch", first, samples);
        }
    }
    Ok(first)
}

/// Converts the arrays for an image's inputs; returns them with the number of samples.
pub(crate) fn inputs<'py>(image: &Image<'_>, given: &[Bound<'py, PyAny>]) -> PyResult<(Vec<Given<'py>>, usize)> {
    let expected = (0..image.input_count()).map(|index| image.input(index).dtype());
    let inputs = given.iter().zip(expected).map(|(array, dtype)| Given::new(array, dtype));
    let inputs = inputs.collect::<PyResult<Vec<_>>>()?;
    let mut shapes: Vec<_> = inputs.iter().map(Given::shape).collect();
    shapes.resize(given.len(), [0; 2]);
    let samples = check_shapes(image, &shapes)?;
    Ok((inputs, samples))
}

impl Model {
    /// Runs a batch of integers; fills an array for each of `values`, by [`Batch::run`].
    fn run_integers<'py>(
        &self,
        py: Python<'py>,
        inputs: &[Bound<'py, PyAny>],
        values: &[&Value],
        threads: Option<usize>,
        after: impl Fn(usize, &mut [Vec<&mut [i8]>], &Arenas<'_>) + Sync,
        finish: impl Fn(&mut [Vec<&mut [i8]>], &Arenas<'_>) + Sync,
    ) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let (inputs, samples) = self::inputs(self.image.checked().image(), inputs)?;
        let inputs = inputs.iter().map(Given::bytes).collect::<PyResult<Vec<_>>>()?;
        let mut outputs: Vec<_> = values.iter().map(|value| Made::new(value.dtype(), samples, value.len())).collect();
        let batch = Batch { samples, inputs, outputs: outputs.iter_mut().map(Made::bytes_mut).collect() };
        let copy = |_: usize, given: &[i8], input: &mut [i8]| input.copy_from_slice(given);
        let (after, finish) = (&after, &finish);
        py.detach(|| batch.run(&self.image, threads, copy, after, finish));
        Ok(outputs.into_iter().map(|output| output.into_python(py)).collect())
    }
}

/// The processors that this machine is or can stand for: the names of their vector instructions, the best ones first.
#[pyfunction]
pub(crate) fn processors() -> Vec<&'static str> {
    Processor::all().map(Processor::name).collect()
}
