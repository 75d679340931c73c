//! A running model that keeps its states from step to step.

use nano_core::Error;
use pyo3::prelude::*;
use self_cell::{MutBorrow, self_cell};

use crate::device::lend;
use crate::elements::{Given, Made};
use crate::model::SharedImage;
use crate::refuse;

/// The memory that a running model borrows.
struct Memory {
    image: SharedImage,
    arena: MutBorrow<Vec<u32>>,
}

type Running<'a> = nano_core::Model<'a>;

self_cell!(
    struct Cell {
        owner: Memory,
        #[not_covariant]
        dependent: Running,
    }
);

/// A running model with its own arena, which keeps its states from step to step. Streams of one model are independent.
#[pyclass(module = "torch_nano._native")]
pub(crate) struct Stream {
    bound: Cell,
}

#[pymethods]
impl Stream {
    /// Creates a stream in its initial state.
    #[new]
    fn new(model: SharedImage) -> PyResult<Self> {
        let words = model.checked().image().arena_length().div_ceil(4);
        let memory = Memory { image: model, arena: MutBorrow::new(lend("stream", words)?) };
        let bound = Cell::try_new(memory, |memory| {
            let arena = zerocopy::IntoBytes::as_mut_bytes(&mut memory.arena.borrow_mut()[..]);
            let arena = <[i8] as zerocopy::FromBytes>::mut_from_bytes(arena).expect("bytes lie anywhere");
            memory.image.checked().bind(arena)
        });
        Ok(Stream { bound: bound.map_err(refuse)? })
    }

    /// Runs one step: takes an array `[1, elements]` per graph input; returns one per graph output.
    fn step<'py>(&mut self, py: Python<'py>, inputs: Vec<Bound<'py, PyAny>>) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let image = self.bound.borrow_owner().image.clone();
        let (inputs, given) = crate::model::inputs(image.checked().image(), &inputs)?;
        if given != 1 {
            return Err(refuse(Error::Length { name: "batch of a stream", needed: 1, given }));
        }
        let inputs = inputs.iter().map(Given::bytes).collect::<PyResult<Vec<_>>>()?;
        let outputs = py.detach(|| {
            self.bound.with_dependent_mut(|_, model| {
                for (index, input) in inputs.iter().enumerate() {
                    model.input(index).copy_from_slice(input);
                }
                model.run();
                let image = image.checked().image();
                let output = |index: usize| {
                    let value = image.output(index);
                    let mut made = Made::new(value.dtype(), 1, value.len());
                    made.bytes_mut().copy_from_slice(model.output(index));
                    made
                };
                (0..image.output_count()).map(output).collect::<Vec<_>>()
            })
        });
        Ok(outputs.into_iter().map(|output| output.into_python(py)).collect())
    }

    /// Resets all states to their initial bytes.
    fn reset(&mut self) {
        self.bound.with_dependent_mut(|_, model| model.reset());
    }
}
