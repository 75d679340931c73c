//! A simulated device in this process: it runs the same session as a board, with frames and flash in memory.

use nano_core::Memory as ClassifierMemory;
use nano_core::train::{AnyHead, HeadSizes, TrainedLayer};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use self_cell::{MutBorrow, self_cell};
use torch_nano_device::{MemoryFlash, Options, Session, Settings, Sizes};

use crate::head_description::{Layer, read_layers};
use crate::model::SharedImage;
use crate::refuse;

/// Size of the default flash in pages, and bytes of a page.
const PAGES: usize = 16;
const PAGE: usize = 4096;
/// The largest RAM of a simulated device or a head, in words: 1 GiB.
const LARGEST_RAM: usize = 1 << 28;

/// Allocates RAM for `borrower`, up to [`LARGEST_RAM`].
pub(crate) fn lend(borrower: &str, words: usize) -> PyResult<Vec<u32>> {
    if words > LARGEST_RAM {
        return Err(refuse(format!("the {borrower} would need {words} words of RAM, more than {LARGEST_RAM}")));
    }
    Ok(vec![0; words])
}

/// Bytes that an update of the model may have on a chip whose flash for updates has `flash` bytes.
#[pyfunction]
pub(crate) fn update_room(flash: u32) -> u32 {
    torch_nano_device::update_room(flash, PAGE as u32)
}

/// Bytes of RAM that the firmware which only classifies takes for a model, by purpose.
#[pyfunction]
pub(crate) fn classifier_ram(py: Python<'_>, image: SharedImage) -> PyResult<Bound<'_, PyDict>> {
    let image = image.checked().image();
    let head = image.head().map(HeadSizes::of);
    let arena = image.arena_length().div_ceil(4) * 4 - image.constants_in_ram();
    let head_state = 4 * head.as_ref().map_or(0, HeadSizes::words);
    // A sample and its label; at the end is what aligns the memory.
    let ring = head.map_or(0, |head| head.features).next_multiple_of(4) + 4;
    let others = image.arena_length().div_ceil(4) * 4 + head_state;
    let ring = (others + ring).next_multiple_of(align_of::<ClassifierMemory<0, 0, 0, 0>>()) - others;
    let purposes = PyDict::new(py);
    for (purpose, bytes) in
        [("arena", arena), ("weights", image.constants_in_ram()), ("head", head_state), ("ring", ring)]
    {
        purposes.set_item(purpose, bytes)?;
    }
    Ok(purposes)
}

/// Bytes of RAM that the firmware of a chip takes for a model, by purpose. Those of constants in RAM, which are part of the arena, stand alone. A firmware
/// that `senses` by itself has a window and what the model made of it in addition.
#[pyfunction]
pub(crate) fn session_ram(py: Python<'_>, image: SharedImage, senses: bool) -> PyResult<Bound<'_, PyDict>> {
    let image = image.checked().image();
    let Options { ring, frame, copy, .. } = Options::CHIP;
    let purposes = PyDict::new(py);
    let add = |purpose: &str, bytes: usize| {
        let before = purposes.get_item(purpose)?.map_or(Ok(0), |before| before.extract::<usize>())?;
        purposes.set_item(purpose, before + bytes)
    };
    for (purpose, bytes) in Sizes::of(image, ring, frame, copy).parts() {
        let bytes = bytes.div_ceil(4) * 4;
        if purpose == "arena" {
            add(purpose, bytes - image.constants_in_ram())?;
            add("weights", image.constants_in_ram())?;
        } else {
            add(purpose, bytes)?;
        }
    }
    if senses {
        let lengths = (0..image.input_count())
            .map(|index| image.input(index))
            .chain((0..image.output_count()).map(|index| image.output(index)));
        let bytes = lengths.map(|value| value.range().len()).sum();
        add("window", bytes)?;
    }
    Ok(purposes)
}

/// Bytes of RAM that learning by these layers takes in the firmware of a chip: the head, its spare copy and the ring of samples.
#[pyfunction]
pub(crate) fn training_ram(layers: Vec<Layer<'_>>) -> PyResult<usize> {
    let head = Some(TrainedLayer::head_sizes(&read_layers(layers)?));
    let Options { ring, frame, copy, .. } = Options::CHIP;
    let parts = Sizes { arena: 0, layers: 0, head, ring, frame, copy }.parts();
    let learning = parts.iter().filter(|(purpose, _)| !matches!(*purpose, "frames" | "profile"));
    Ok(learning.map(|(_, bytes)| bytes.div_ceil(4) * 4).sum())
}

/// An instruction counter that does not advance, as a PC's instructions are not a device's.
pub(crate) type Clock = fn() -> u64;
type Running<'a> = Session<'a, Clock, MemoryFlash<Vec<u8>>, AnyHead<'a>>;

/// The memory that a session borrows.
struct Memory {
    image: SharedImage,
    ram: MutBorrow<Vec<u32>>,
}

self_cell!(
    struct Board {
        owner: Memory,
        #[not_covariant]
        dependent: Running,
    }
);

/// A simulated device. It receives and sends bytes, as a board's serial port does.
#[pyclass(module = "torch_nano._native")]
pub(crate) struct SimulatedDevice {
    board: Board,
}

#[pymethods]
impl SimulatedDevice {
    /// Starts a device with `image` and `flash`, the bytes from another device's :meth:`flash` (None: an erased flash of 64 KiB), with a ring of
    /// `ring` samples and frames of up to `frame` bytes.
    #[new]
    #[pyo3(signature = (image, flash = None, *, ring = 1024, frame = 4096))]
    fn new(image: SharedImage, flash: Option<Vec<u8>>, ring: usize, frame: usize) -> PyResult<Self> {
        let options = Options { ring, frame, settings: Settings::default(), ..Options::CHIP };
        let words = Sizes::of(image.checked().image(), ring, frame, options.copy).words();
        let flash = MemoryFlash(flash.unwrap_or_else(|| vec![0xff; PAGES * PAGE]));
        let memory = Memory { image, ram: MutBorrow::new(lend("device", words)?) };
        let board = Board::try_new(memory, |memory| {
            let ram = memory.ram.borrow_mut();
            Session::new(*memory.image.checked(), ram, options, flash, (|| 0) as Clock)
        });
        Ok(SimulatedDevice { board: board.map_err(refuse)? })
    }

    /// Sends bytes to the device; returns its answers, which are empty until a frame is complete. Releases the GIL.
    fn exchange<'py>(&mut self, py: Python<'py>, bytes: &[u8]) -> Bound<'py, PyBytes> {
        let answered = py.detach(|| {
            self.board.with_dependent_mut(|_, session| {
                let (mut arrived, mut answered) = (bytes, Vec::new());
                while let Some(answer) = session.poll(&mut arrived) {
                    answered.extend_from_slice(answer);
                }
                answered
            })
        });
        PyBytes::new(py, &answered)
    }

    /// The bytes of the flash, to start another device as after a power cut.
    fn flash<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        self.board.with_dependent(|_, session| PyBytes::new(py, &session.device.flash().0))
    }
}
