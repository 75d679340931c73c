"""nano-core for CPython. Arrays are contiguous; int8 tensors of a run are [samples, elements] in height,
width, channels order.
"""

from collections.abc import Sequence
from typing import Any, Literal, NotRequired, Self, TypedDict, final, type_check_only

import numpy as np
import numpy.typing as npt

__version__: str

__all__ = [
    "LARGEST_COUNT",
    "LARGEST_EPOCHS",
    "LONGEST_NAME",
    "ONE_PASS_LIMIT",
    "PROTOCOL",
    "SHRINKAGE",
    "TEMPERATURE_STEPS",
    "Head",
    "KernelError",
    "Model",
    "NanoError",
    "SensingTwin",
    "SettingError",
    "SimulatedDevice",
    "Stream",
    "__version__",
    "add_parameters",
    "check_sensor",
    "classifier_ram",
    "crc32",
    "decode_response",
    "encode_recorded_sensor",
    "encode_request",
    "estimate_kernels",
    "is_label",
    "largest_partial_sum",
    "layer_norm_parameters",
    "log_softmax_multiplier",
    "look_up",
    "look_up_pairs",
    "operators",
    "processors",
    "quantize_channels",
    "quantize_multiplier",
    "quantize_wide_multiplier",
    "requantize_",
    "session_ram",
    "sigmoid_table",
    "softmax_parameters",
    "training_ram",
    "update_room",
    "write_image",
]

class NanoError(ValueError):
    """nano-core refused an image, a layer or a buffer; the message says why."""

class SettingError(NanoError):
    """A setting of a head is invalid; the message says which, what it is and what it could be."""

class KernelError(NanoError):
    """None of the kernels that may be used computes a layer, or there is no kernel of a name."""

@type_check_only
class ValueEntry(TypedDict):
    dtype: Literal["int8", "int16", "int32"]
    #: Height, width, channels.
    shape: tuple[int, int, int]
    #: Elements from one pixel to the next.
    pitch: int
    scale: float
    zero_point: int
    #: In the arena, in bytes.
    offset: int
    #: Whether it lives from run to run.
    state: bool

@type_check_only
class LayerEntry(TypedDict):
    operator: str
    kernel: str
    #: The number of layers of the description that it computes, which follow one another.
    described_layers: int
    #: Of requantization.
    form: int
    macs: int
    constant_bytes: int
    #: Whether its constants are copied to RAM.
    constants_in_ram: bool
    scratch_bytes: int
    #: In the arena, in bytes.
    scratch_offset: int
    #: Ids of values.
    inputs: list[int]
    outputs: list[int]

@type_check_only
class ChannelScales(TypedDict):
    """``q = round((x - offset) / scale) + zero_point``, for each channel of an input."""

    scale: npt.NDArray[np.float32]
    offset: npt.NDArray[np.float32]

@type_check_only
class QuantizationRule(TypedDict):
    """The quantization of an output: its own; as `input`; fixed; or as all inputs."""

    rule: Literal["own", "same_as", "fixed", "shared"]
    #: Whether the scale of its own is a power of two.
    power_of_two: NotRequired[bool]
    input: NotRequired[int]
    scale: NotRequired[float]
    zero_point: NotRequired[int]

#: The dtypes of inputs and outputs; the last input's holds for all further ones.
_Signature = tuple[list[Literal["int8", "int16", "int32"]], list[Literal["int8", "int16", "int32"]]]

@type_check_only
class OperatorEntry(TypedDict):
    #: In the image's order.
    attributes: list[str]
    #: Least and most number of inputs.
    inputs: tuple[int, int]
    #: Those of all kernels.
    dtypes: list[_Signature]
    #: Of each output.
    quantization: list[QuantizationRule]
    #: Whether each output is a state.
    states: list[bool]
    #: Its kernels by name, with the dtypes that each takes.
    kernels: dict[str, list[_Signature]]

#: The elements of a batch, of a value's dtype: [samples, elements].
_Elements = npt.NDArray[np.int8] | npt.NDArray[np.int16] | npt.NDArray[np.int32]

#: Version of the protocol between a device and its client.
PROTOCOL: int
#: The most epochs, and the most samples, that one call counts.
LARGEST_COUNT: int
LARGEST_EPOCHS: int
#: Most bytes of the name of a model or a class.
LONGEST_NAME: int
#: Below it the multipliers of int8 layers with weights stay in the faster form of requantization.
ONE_PASS_LIMIT: float
#: Least and most shrinkage of an LdaHead.
SHRINKAGE: tuple[float, float]
TEMPERATURE_STEPS: int

def operators() -> dict[str, OperatorEntry]: ...
def is_label(name: str) -> bool: ...

@type_check_only
class KernelEstimate(TypedDict):
    kernel: str
    #: Whether the image uses it.
    chosen: bool
    #: Of one run.
    instructions: int
    #: Of one run, with waiting for flash.
    cycles: int
    constant_bytes: int
    scratch_bytes: int

def estimate_kernels(description: dict[str, Any]) -> list[list[KernelEstimate]]: ...
def processors() -> list[str]: ...
def write_image(description: dict[str, Any], kernels: Sequence[str] | None = None) -> bytes: ...
def quantize_multiplier(real: float) -> tuple[int, int]: ...
def quantize_wide_multiplier(real: float) -> tuple[int, int]: ...
def add_parameters(
    dtype: str, first: float, second: float, output: float
) -> tuple[int, tuple[int, int], tuple[int, int], tuple[int, int]]: ...
def log_softmax_multiplier(scale: float) -> tuple[int, int]: ...
def softmax_parameters(scale: float) -> tuple[int, int, int]: ...
def layer_norm_parameters(
    weights: npt.NDArray[np.float32],
    biases: npt.NDArray[np.float32],
    epsilon: float,
    input_scale: float,
    output: tuple[float, int],
) -> tuple[int, npt.NDArray[np.int32]]: ...
def sigmoid_table() -> list[int]: ...
def quantize_channels(
    weights: npt.NDArray[np.float32],
    biases: npt.NDArray[np.float32],
    input_scale: float,
    input_bits: int = 8,
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int32], npt.NDArray[np.float32]]: ...
def largest_partial_sum(
    weights: npt.NDArray[np.int8], biases: npt.NDArray[np.int64], low: int, high: int
) -> int: ...
def requantize_(
    accumulators: npt.NDArray[np.float32],
    reals: npt.NDArray[np.float64],
    low: int,
    high: int,
) -> None: ...
def look_up_pairs(
    a: npt.NDArray[np.float32],
    b: npt.NDArray[np.float32],
    outputs: npt.NDArray[np.float32],
    table: npt.NDArray[np.int8],
    zero_points: tuple[int, int, int],
) -> None: ...
def look_up(
    x: npt.NDArray[np.float32],
    outputs: npt.NDArray[np.float32],
    table: npt.NDArray[np.float32],
    zero_point: int,
) -> None: ...
def encode_request(
    kind: str, *, sequence: int = 0, session: int = 0, model_id: int | None = None, **fields: Any
) -> bytes: ...
def decode_response(bytes: bytes) -> dict[str, Any]: ...
def crc32(bytes: bytes) -> int: ...
def session_ram(image: Model | bytes, senses: bool) -> dict[str, int]: ...
def classifier_ram(image: Model | bytes) -> dict[str, int]: ...
def training_ram(layers: list[dict[str, Any]]) -> int: ...
def update_room(flash: int) -> int: ...

@type_check_only
class Behaviour(TypedDict):
    hop: int
    smoothing: tuple[int, int]
    epochs: int
    pause: int
    slice: int
    period: int
    rejection: int
    save_interval: int

def encode_recorded_sensor(
    samples: npt.NDArray[np.float32],
    pressed: npt.NDArray[np.int64],
    gaps: npt.NDArray[np.bool_],
    behaviour: Behaviour,
) -> bytes: ...
def check_sensor(image: Model | bytes, recorded: bytes) -> None: ...

@final
class SensingTwin:
    def __new__(cls, image: Model | bytes, recorded: bytes, flash: bytes, *, ring: int = 1024) -> Self: ...
    def sense(self) -> tuple[bool, dict[str, Any] | None]: ...
    def skip(self, samples: int) -> None: ...
    def label(self, target: int) -> None: ...
    def work(self, steps: int | None = None) -> int | None: ...
    def head(self) -> bytes: ...
    def restored(self) -> bool: ...
    def save_is_due(self) -> bool: ...
    def save(self) -> None: ...
    def saves(self) -> int: ...
    def flash(self) -> bytes: ...

@final
class SimulatedDevice:
    def __new__(
        cls, image: Model | bytes, flash: bytes | None = None, *, ring: int = 1024, frame: int = 4096
    ) -> Self: ...
    def exchange(self, bytes: bytes) -> bytes: ...
    def flash(self) -> bytes: ...

@final
class Model:
    """A checked image. It never changes: copies are the same object, and threads may share it."""

    def __new__(cls, image: Model | bytes) -> Self: ...
    @property
    def arena_length(self) -> int: ...
    @property
    def constants_in_ram(self) -> int: ...
    @property
    def length(self) -> int: ...
    @property
    def id(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def labels(self) -> list[str]: ...
    @property
    def has_head(self) -> bool: ...
    @property
    def image(self) -> bytes: ...
    @property
    def inputs(self) -> list[int]: ...
    @property
    def outputs(self) -> list[int]: ...
    @property
    def values(self) -> list[ValueEntry]: ...
    @property
    def layers(self) -> list[LayerEntry]: ...
    @property
    def input_names(self) -> list[str]: ...
    @property
    def output_names(self) -> list[str]: ...
    @property
    def input_channels(self) -> list[ChannelScales | None]: ...
    def run(self, inputs: Sequence[_Elements], threads: int | None = None) -> list[npt.NDArray[Any]]: ...
    def run_real(
        self, inputs: list[npt.NDArray[np.float32]], threads: int | None = None
    ) -> list[npt.NDArray[np.float32]]: ...
    def on(self, processor: str | None) -> Model: ...
    def trace(self, inputs: Sequence[_Elements], threads: int | None = None) -> list[npt.NDArray[Any]]: ...
    def __copy__(self) -> Self: ...
    def __deepcopy__(self, memo: Any, /) -> Self: ...

@final
class Stream:
    """A model that keeps its states from one step to the next, in memory of its own."""

    def __new__(cls, model: Model | bytes) -> Self: ...
    def step(self, inputs: Sequence[_Elements]) -> list[npt.NDArray[Any]]: ...
    def reset(self) -> None: ...

@final
class Head:
    def __new__(cls, image: Model | bytes) -> Self: ...
    @property
    def trainer(self) -> str: ...
    @property
    def target(self) -> str: ...
    @property
    def capacity(self) -> int: ...
    @property
    def macs(self) -> int: ...
    @property
    def ram_bytes(self) -> int: ...
    @property
    def classes(self) -> int: ...
    @property
    def features(self) -> int: ...
    @property
    def guard(self) -> int: ...
    @property
    def layer_sizes(self) -> tuple[int, int, int, int]: ...
    def real_layers(self) -> list[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], int]]: ...
    @property
    def logit_scale(self) -> float: ...
    def logits(self, features: npt.NDArray[np.int8]) -> npt.NDArray[np.int32]: ...
    def certainties(
        self, features: npt.NDArray[np.int8]
    ) -> tuple[
        npt.NDArray[np.uint16], npt.NDArray[np.uint16], npt.NDArray[np.uint32], npt.NDArray[np.bool_]
    ]: ...
    def step(self, features: npt.NDArray[np.int8], target: int) -> None: ...
    def learn_all(self, features: npt.NDArray[np.int8], targets: npt.NDArray[np.int64]) -> None: ...
    def unlearn_all(self, features: npt.NDArray[np.int8], targets: npt.NDArray[np.int64]) -> None: ...
    def train(
        self,
        features: npt.NDArray[np.int8],
        targets: npt.NDArray[np.int64],
        epochs: int,
        first_epoch: int = 0,
        steps: int | None = None,
        first: int = 0,
    ) -> bool: ...
    def commit(self) -> None: ...
    def add_class(self) -> int: ...
    def forget(self, class_: int, /) -> None: ...
    def merge(self, state: bytes) -> None: ...
    def aggregate(self, updates: list[tuple[bytes, int]], *, leave_out: bool) -> list[tuple[int, str]]: ...
    def check_update(self, state: bytes) -> None: ...
    def state(self) -> bytes: ...
    def load(self, state: bytes) -> None: ...
    def reset(self) -> None: ...
