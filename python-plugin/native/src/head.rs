//! The trainable head of an image, on the host: the same code as on the device.

use nano_core::Error;
use nano_core::image::Image;
use nano_core::train::{AnyHead, FeatureRing, Head, HeadSizes, Target};
use numpy::ndarray::Array2;
use numpy::{IntoPyArray, PyArray2, PyReadonlyArray1, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::model::Aligned;
use crate::refuse;

/// nano-core's head of an image, whichever trainer it names, in Python's memory.
#[pyclass(module = "torch_nano._native")]
pub(crate) struct SgdHead {
    image: Aligned,
    state: Vec<u8>,
}

impl SgdHead {
    /// Runs `act` on the head in its present state, and keeps the state that it leaves; after an error, the state before.
    fn with<T>(&mut self, act: impl FnOnce(&mut AnyHead<'_>) -> Result<T, Error>) -> PyResult<T> {
        let image = self.image.image();
        let record = image.head().ok_or(Error::NoHead).map_err(refuse)?;
        let mut ram = vec![0; HeadSizes::of(record).words()];
        let mut head = AnyHead::new(&image, &mut ram).map_err(refuse)?;
        if !self.state.is_empty() {
            head.load(&self.state).map_err(refuse)?;
        }
        let result = act(&mut head).map_err(refuse)?;
        self.state = head.state().to_vec();
        Ok(result)
    }
}

#[pymethods]
impl SgdHead {
    #[new]
    fn new(image: &[u8]) -> PyResult<Self> {
        let image = Aligned::new(image);
        Image::new(image.bytes()).map_err(refuse)?;
        let mut head = SgdHead { image, state: Vec::new() };
        head.with(|_| Ok(()))?;
        Ok(head)
    }

    /// Number of classes.
    #[getter]
    fn classes(&mut self) -> PyResult<usize> {
        self.with(|head| Ok(head.classes()))
    }

    /// Number of features.
    #[getter]
    fn features(&mut self) -> PyResult<usize> {
        self.with(|head| Ok(head.features()))
    }

    /// Real step of one unit of a logit, at present.
    #[getter]
    fn logit_scale(&mut self) -> PyResult<f32> {
        self.with(|head| Ok(head.logit_scale()))
    }

    /// Integer logits [samples, classes] of int8 features [samples, features].
    fn logits<'py>(
        &mut self,
        py: Python<'py>,
        features: PyReadonlyArray2<'py, i8>,
    ) -> PyResult<Bound<'py, PyArray2<i32>>> {
        let (samples, width) = (features.shape()[0], features.shape()[1]);
        let features = features.as_slice()?;
        let logits = self.with(|head| {
            let mut logits = Array2::zeros((samples, head.classes()));
            for (sample, mut row) in logits.rows_mut().into_iter().enumerate() {
                let features = &features[sample * width..][..width];
                row.iter_mut().zip(head.logits(features)?).for_each(|(to, from)| *to = *from);
            }
            Ok(logits)
        })?;
        Ok(logits.into_pyarray(py))
    }

    /// One step towards `label`.
    fn step(&mut self, features: PyReadonlyArray1<'_, i8>, label: u16) -> PyResult<()> {
        let features = features.as_slice()?;
        self.with(|head| head.learn(features, Target::Class(label)))
    }

    /// `epochs` passes over a ring that holds exactly these samples, in this order of arrival.
    fn train(
        &mut self,
        features: PyReadonlyArray2<'_, i8>,
        labels: PyReadonlyArray1<'_, u16>,
        epochs: u32,
    ) -> PyResult<()> {
        let (samples, width) = (features.shape()[0], features.shape()[1]);
        let (features, labels) = (features.as_slice()?, labels.as_slice()?);
        if labels.len() != samples {
            return Err(refuse(Error::Length { name: "labels", needed: samples, given: labels.len() }));
        }
        if samples == 0 {
            return Ok(());
        }
        let (mut ring_features, mut ring_labels) = (vec![0; samples * width], vec![0; samples]);
        let mut ring = FeatureRing::new(width, &mut ring_features, &mut ring_labels).map_err(refuse)?;
        for (features, &label) in features.chunks_exact(width).zip(labels) {
            ring.push(features, Target::Class(label)).map_err(refuse)?;
        }
        self.with(|head| head.train(&ring, epochs))
    }

    /// The head's whole state, as a device stores and sends it.
    fn state<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.state)
    }

    /// Takes over a state; on an error the head is as it was.
    fn load(&mut self, state: &[u8]) -> PyResult<()> {
        self.with(|head| head.load(state))
    }

    /// Back to the state stored in the image.
    fn reset(&mut self) -> PyResult<()> {
        self.with(|head| {
            head.reset();
            Ok(())
        })
    }
}
