//! The trainable head of an image on the host. It runs the same code as the device.

use nano_core::train::{
    self, AnyHead, FeatureRing, Head as _, HeadSizes, LayerSizes, Rejection, Target, Training, Update,
    take_back_if_worse,
};
use nano_core::{Error, Logits, Prediction};
use numpy::ndarray::Array2;
use numpy::{IntoPyArray, PyArray1, PyArray2, PyReadonlyArray1, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::exceptions::PyOverflowError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;
use self_cell::{MutBorrow, self_cell};
use torch_nano_device::TargetKind;

use crate::device::lend;
use crate::model::SharedImage;
use crate::refuse;

/// The memory that a head borrows.
struct Memory {
    image: SharedImage,
    ram: MutBorrow<Vec<u32>>,
}

self_cell!(
    struct Owned {
        owner: Memory,
        #[not_covariant]
        dependent: AnyHead,
    }
);

/// A trainable head of any trainer, with its own RAM.
#[pyclass(module = "torch_nano._native")]
pub(crate) struct Head {
    owned: Owned,
}

impl Head {
    /// Reads a property of the head.
    fn read<T>(&self, read: impl FnOnce(&AnyHead<'_>) -> T) -> T {
        self.owned.with_dependent(|_, head| read(head))
    }

    /// Runs one operation, which leaves the head unchanged if it fails.
    fn with<T>(&mut self, act: impl FnOnce(&mut AnyHead<'_>) -> Result<T, Error>) -> PyResult<T> {
        self.owned.with_dependent_mut(|_, head| act(head)).map_err(refuse)
    }

    /// Runs several operations; if one fails, restores the state before the first one.
    fn all<T>(&mut self, act: impl FnOnce(&mut AnyHead<'_>) -> PyResult<T>) -> PyResult<T> {
        self.owned.with_dependent_mut(|_, head| {
            let before = head.state().to_vec();
            let result = act(head);
            if result.is_err() {
                head.overwrite(|own| own.copy_from_slice(&before));
            }
            result
        })
    }
}

/// Number of training steps between two checks for Ctrl-C.
const SLICE: u32 = 1000;

/// Confidences, margins, squared distances, and whether they are of a known class.
type Certainties<'py> =
    (Bound<'py, PyArray1<u16>>, Bound<'py, PyArray1<u16>>, Bound<'py, PyArray1<u32>>, Bound<'py, PyArray1<bool>>);

/// Weights, biases and number of pixels under the window of one layer of a head of several layers.
type RealLayer<'py> = (Bound<'py, PyArray2<f32>>, Bound<'py, PyArray1<f32>>, usize);

/// The name of a kind of targets.
pub(crate) fn target_name(kind: TargetKind) -> &'static str {
    match kind {
        TargetKind::Class => "class",
        TargetKind::Bits => "labels",
        TargetKind::Value => "value",
    }
}

/// Converts Python's target to the kind that `head` learns from.
fn target(head: &AnyHead<'_>, value: i64) -> PyResult<Target> {
    let overflow = |_| PyOverflowError::new_err(format!("{value} is no target of this head"));
    Ok(match head.target(0) {
        Target::Class(_) => Target::Class(value.try_into().map_err(overflow)?),
        Target::Labels(_) => Target::Labels(value.try_into().map_err(overflow)?),
        Target::Value(_) => Target::Value(value.try_into().map_err(overflow)?),
    })
}

#[pymethods]
impl Head {
    #[new]
    fn new(image: SharedImage) -> PyResult<Self> {
        let record = image.checked().image().head().ok_or(Error::NoHead).map_err(refuse)?;
        let sizes = HeadSizes::of(record);
        sizes.check().map_err(refuse)?;
        let ram = MutBorrow::new(lend("head", sizes.words())?);
        let head = Owned::try_new(Memory { image, ram }, |memory| {
            AnyHead::new(memory.image.checked().image(), memory.ram.borrow_mut())
        });
        Ok(Head { owned: head.map_err(refuse)? })
    }

    /// Name of the head's type in nano-core, such as `SgdHead`.
    #[getter]
    fn trainer(&self) -> &'static str {
        self.read(|head| head.trainer())
    }

    /// The kind of its targets: `class`, `labels` or `value`.
    #[getter]
    fn target(&self) -> &'static str {
        self.read(|head| target_name(head.target(0).into()))
    }

    /// The current number of classes.
    #[getter]
    fn classes(&self) -> usize {
        self.read(|head| head.classes())
    }

    /// The largest possible number of classes.
    #[getter]
    fn capacity(&self) -> usize {
        self.read(|head| head.sizes().classes)
    }

    /// Number of features.
    #[getter]
    fn features(&self) -> usize {
        self.read(|head| head.features())
    }

    /// For a head of several layers: the number of layers, of weights that learn, of outputs of all layers but the last one, and of sums of
    /// gradients. Zeros for other heads.
    #[getter]
    fn layer_sizes(&self) -> (usize, usize, usize, usize) {
        let LayerSizes { count, weights, hidden, sums } = self.read(|head| head.sizes().layers);
        (count, weights, hidden, sums)
    }

    /// Real weights `[outputs, inputs]` and biases `[outputs]` at present, of each layer that learns; only for heads of several layers.
    fn real_layers<'py>(&self, py: Python<'py>) -> PyResult<Vec<RealLayer<'py>>> {
        let layers = self.read(|head| match head {
            AnyHead::Layers(head) => Ok(head.real_layers()),
            _ => Err(Error::Unsupported { trainer: "this head", request: "give real weights of several layers" }),
        });
        let layers = layers.map_err(refuse)?;
        let arrays = layers.into_iter().map(|layer| {
            let shape = (layer.biases.len(), layer.weights.len() / layer.biases.len());
            let weights = Array2::from_shape_vec(shape, layer.weights).expect("rows of one length");
            (weights.into_pyarray(py), layer.biases.into_pyarray(py), layer.taps)
        });
        Ok(arrays.collect())
    }

    /// Number of multiplications of one prediction.
    #[getter]
    fn macs(&self) -> u64 {
        self.read(|head| head.macs())
    }

    /// The current real step of one unit of a logit.
    #[getter]
    fn logit_scale(&self) -> f32 {
        self.read(|head| head.logit_scale())
    }

    /// Bytes of RAM on a device: state and scratch memory.
    #[getter]
    fn ram_bytes(&self) -> usize {
        self.read(|head| 4 * head.sizes().words())
    }

    /// Integer logits `[samples, classes]` of int8 features `[samples, features]`.
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

    /// Confidences, margins (both in 1/32768) and squared distances to the nearest known class of int8 features `[samples, features]`, and whether each is
    /// of a known class. Confidences are of a head whose classes exclude each other.
    fn certainties<'py>(&mut self, py: Python<'py>, features: PyReadonlyArray2<'py, i8>) -> PyResult<Certainties<'py>> {
        let width = features.shape()[1];
        let features = features.as_slice()?;
        let (mut confidences, mut margins, mut distances, mut known) = (vec![], vec![], vec![], vec![]);
        let made: Result<(), Error> = self.owned.with_dependent_mut(|memory, head| {
            let image = memory.image.checked().image();
            let rejection = Rejection::of(image, image.head().ok_or(Error::NoHead)?);
            for features in features.chunks_exact(width) {
                let made = Prediction::of_logits(Logits::of(head, rejection, features)?);
                confidences.push(made.confidence.unwrap_or_default());
                margins.push(made.margin.unwrap_or_default());
                distances.push(rejection.distance(head, features));
                known.push(made.known);
            }
            Ok(())
        });
        made.map_err(refuse)?;
        Ok((confidences.into_pyarray(py), margins.into_pyarray(py), distances.into_pyarray(py), known.into_pyarray(py)))
    }

    /// Learns from one sample.
    #[pyo3(name = "step")]
    fn learn(&mut self, features: PyReadonlyArray1<'_, i8>, target: i64) -> PyResult<()> {
        let features = features.as_slice()?;
        self.all(|head| head.learn(features, self::target(head, target)?).map_err(refuse))
    }

    /// Learns from samples in sequence; on an error, the head is unchanged.
    fn learn_all(&mut self, features: PyReadonlyArray2<'_, i8>, targets: PyReadonlyArray1<'_, i64>) -> PyResult<()> {
        self.for_all(features, targets, |head, features, target| head.learn(features, target))
    }

    /// Unlearns samples; on an error, the head is unchanged.
    fn unlearn_all(&mut self, features: PyReadonlyArray2<'_, i8>, targets: PyReadonlyArray1<'_, i64>) -> PyResult<()> {
        self.for_all(features, targets, |head, features, target| head.unlearn(features, target))
    }

    /// Every sample whose number is a multiple of it is kept aside, to judge trainings by; 0: none.
    #[getter]
    fn guard(&self) -> u32 {
        self.owned.borrow_owner().image.checked().image().head().map_or(0, |record| record.guard)
    }

    /// Trains the epochs from `first_epoch` to `first_epoch + epochs - 1` on a ring that holds exactly these samples in this order of arrival, of which the
    /// first has the number `first`. If `steps` is given, runs only that number of steps. Returns whether the training was taken back. On an error,
    /// including Ctrl-C, the head is unchanged.
    #[pyo3(signature = (features, targets, epochs, first_epoch = 0, steps = None, first = 0))]
    #[expect(clippy::too_many_arguments, reason = "Python names them")]
    fn train(
        &mut self,
        py: Python<'_>,
        features: PyReadonlyArray2<'_, i8>,
        targets: PyReadonlyArray1<'_, i64>,
        epochs: u32,
        first_epoch: u32,
        steps: Option<u64>,
        first: usize,
    ) -> PyResult<bool> {
        let (samples, width) = (features.shape()[0], features.shape()[1]);
        let (mut ring_features, mut ring_targets) = (vec![0; samples * width], vec![0; samples]);
        check_length(samples, targets.as_slice()?)?;
        if samples == 0 {
            return Ok(false);
        }
        let ring = FeatureRing::new(width, &mut ring_features, &mut ring_targets).map_err(refuse)?;
        let mut ring = ring.guarded(self.guard());
        ring.continue_from(first);
        let (features, targets) = (features.as_slice()?, targets.as_slice()?);
        self.all(|head| {
            let mut before = head.state().to_vec();
            for (features, &value) in features.chunks_exact(width).zip(targets) {
                ring.push(features, target(head, value)?).map_err(refuse)?;
            }
            let mut training = Training::new(&ring, first_epoch, epochs).map_err(refuse)?;
            let steps = steps.unwrap_or(training.left());
            if steps > training.left() {
                return Err(refuse(format!("the training has {} steps, not {steps}", training.left())));
            }
            while training.taken() < steps {
                py.check_signals()?;
                let slice = (steps - training.taken()).min(SLICE.into()) as u32;
                head.train(&ring, &mut training, slice).map_err(refuse)?;
            }
            take_back_if_worse(head, &mut before, &ring).map_err(refuse)
        })
    }

    /// Updates the weights from all learnt samples.
    fn commit(&mut self) -> PyResult<()> {
        self.with(|head| {
            head.commit();
            Ok(())
        })
    }

    /// Adds a class; returns its index.
    fn add_class(&mut self) -> PyResult<usize> {
        self.with(|head| head.add_class())
    }

    /// Forgets everything learnt about a class.
    fn forget(&mut self, class: usize) -> PyResult<()> {
        self.with(|head| head.forget(class))
    }

    /// Merges everything learnt by a head with this state.
    fn merge(&mut self, state: &[u8]) -> PyResult<()> {
        self.with(|head| head.merge(state))
    }

    /// Aggregates updates, each (state, samples), that started from this head into it. With `leave_out`, skips updates that cannot be aggregated,
    /// returns their indices with the reasons, and fails if no update is left. Without it, fails at the first such update.
    #[pyo3(signature = (updates, *, leave_out))]
    fn aggregate(&mut self, updates: Vec<(PyBackedBytes, u32)>, leave_out: bool) -> PyResult<Vec<(usize, String)>> {
        let updates: Vec<_> = updates.iter().map(|(state, samples)| Update { state, samples: *samples }).collect();
        let mut refused = Vec::new();
        self.with(|head| {
            train::aggregate(head, &updates, |index, error| {
                refused.push((index, error.to_string()));
                if leave_out { Ok(()) } else { Err(error) }
            })
        })?;
        Ok(refused)
    }

    /// Checks that a state can be aggregated into this head.
    fn check_update(&self, state: &[u8]) -> PyResult<()> {
        self.read(|head| train::check_update(head, state)).map_err(refuse)
    }

    /// The head's whole state, in the format that a device stores and sends.
    fn state<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        self.read(|head| PyBytes::new(py, head.state()))
    }

    /// Loads a state; on an error the head is unchanged.
    fn load(&mut self, state: &[u8]) -> PyResult<()> {
        self.with(|head| head.load(state))
    }

    /// Restores the state stored in the image.
    fn reset(&mut self) -> PyResult<()> {
        self.with(|head| {
            head.reset();
            Ok(())
        })
    }
}

impl Head {
    fn for_all(
        &mut self,
        features: PyReadonlyArray2<'_, i8>,
        targets: PyReadonlyArray1<'_, i64>,
        act: fn(&mut AnyHead<'_>, &[i8], Target) -> Result<(), Error>,
    ) -> PyResult<()> {
        let (samples, width) = (features.shape()[0], features.shape()[1]);
        let (features, targets) = (features.as_slice()?, targets.as_slice()?);
        check_length(samples, targets)?;
        self.all(|head| {
            for (sample, &value) in targets.iter().enumerate() {
                act(head, &features[sample * width..][..width], target(head, value)?).map_err(refuse)?;
            }
            Ok(())
        })
    }
}

fn check_length(needed: usize, targets: &[i64]) -> PyResult<()> {
    if targets.len() == needed {
        return Ok(());
    }
    Err(refuse(Error::Length { name: "labels", needed, given: targets.len() }))
}
