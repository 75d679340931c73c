"""A model of one int8 operator: written as a TFLite flatbuffer, run by TensorFlow Lite Micro (TFLM)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count

import flatbuffers  # type: ignore[import-untyped]
import numpy as np
import numpy.typing as npt
from tflite_micro import runtime  # type: ignore[import-untyped]

# The schema with TFLite's object API, in the version that this TFLM was built with.
from tflite_micro.tensorflow.lite.micro.python import (  # type: ignore[import-untyped]
    schema_py_generated as schema,
)

Int8 = npt.NDArray[np.int8]
Int16 = npt.NDArray[np.int16]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]


#: TFLite's types by numpy's names, and the inverse.
_TYPES = {
    "int8": schema.TensorType.INT8,
    "int16": schema.TensorType.INT16,
    "int32": schema.TensorType.INT32,
}
#: The index of an optional input that an operator does not have.
_LEFT_OUT = -1
_DTYPES = {kind: np.dtype(name) for name, kind in _TYPES.items()}


@dataclass(frozen=True)
class Quantization:
    """real = scale * (q - zero_point), per tensor; the scale is a float32, as TFLite stores it.

    >>> Quantization(0.5, -3)
    Quantization(scale=0.5, zero_point=-3, dtype='int8')
    >>> Quantization(0.1, 0)
    Traceback (most recent call last):
    ValueError: scale must be a positive float32, got 0.1 (nearest float32: 0.10000000149011612)
    """

    scale: float
    zero_point: int
    #: "int8", or "int16" or "int32" with zero point 0.
    dtype: str = "int8"

    def __post_init__(self) -> None:
        _check_scales([self.scale])
        if not -128 <= self.zero_point <= 127:
            raise ValueError(f"zero_point must be in -128..127, got {self.zero_point}")
        if self.dtype != "int8" and self.zero_point:
            raise ValueError(f"the zero_point of {self.dtype} must be 0, got {self.zero_point}")


@dataclass(frozen=True)
class Tensor:
    """A tensor of the model: a constant, an input (`fed` with its data), a state (`variable`), or the output
    (none of these).
    """

    shape: tuple[int, ...]
    type: int
    scales: Sequence[float]
    zero_point: int = 0
    quantized_dimension: int = 0
    constant: npt.NDArray[np.generic] | None = None
    fed: Int8 | None = None
    variable: bool = False


def input_tensor(x: Int8, quantization: Quantization) -> Tensor:
    """An input of the quantization's dtype, fed with `x`."""
    if x.dtype != quantization.dtype or x.size == 0:
        raise ValueError(f"input must be a non-empty {quantization.dtype} array, got {x.dtype} {x.shape}")
    return Tensor(x.shape, _TYPES[quantization.dtype], [quantization.scale], quantization.zero_point, fed=x)


def output_tensor(shape: tuple[int, ...], quantization: Quantization) -> Tensor:
    """An output of the quantization's dtype."""
    return Tensor(shape, _TYPES[quantization.dtype], [quantization.scale], quantization.zero_point)


def state_tensor(shape: tuple[int, ...], quantization: Quantization) -> Tensor:
    """A state of the quantization's dtype, which TFLM sets to real zeros before the first run."""
    return replace(output_tensor(shape, quantization), variable=True)


def weight_tensor(weights: Int8, scales: Float32, channel_dimension: int) -> Tensor:
    """Constant symmetric int8 weights in -127..127, scales of shape (1,) or one per output channel."""
    if weights.dtype != np.int8 or weights.min(initial=0) < -127:
        raise ValueError(
            f"weights must be int8 in -127..127, got {weights.dtype}, least {weights.min(initial=0)}"
        )
    if scales.shape not in ((1,), (weights.shape[channel_dimension],)):
        raise ValueError(f"weight scales of shape {scales.shape} do not fit weights {weights.shape}")
    _check_scales(scales.tolist())
    return Tensor(
        shape=weights.shape,
        type=schema.TensorType.INT8,
        scales=scales.tolist(),
        quantized_dimension=channel_dimension,
        constant=weights,
    )


def shape_tensor(shape: tuple[int, ...]) -> Tensor:
    """A constant with the shape of an output."""
    return Tensor((len(shape),), schema.TensorType.INT32, [], constant=np.array(shape, np.int32))


def bias_tensor(bias: Int32 | Int64, x_quantization: Quantization, weight_scales: Float32) -> Tensor:
    """A constant bias with the scale of the products and zero point 0: int32, for inputs of int16 int64."""
    expected = "int32" if x_quantization.dtype == "int8" else "int64"
    if bias.dtype != expected:
        raise ValueError(f"bias must be {expected}, got {bias.dtype}")
    scales = (np.float32(x_quantization.scale) * weight_scales).tolist()
    kind = schema.TensorType.INT32 if expected == "int32" else schema.TensorType.INT64
    return Tensor(bias.shape, kind, scales, constant=bias)


def numbers_tensor(numbers: Sequence[int] | npt.NDArray[np.int32]) -> Tensor:
    """Constant int32 numbers that say what an operator does: paddings, axes, sizes."""
    constant = np.asarray(numbers, np.int32)
    return Tensor(constant.shape, schema.TensorType.INT32, [1.0], constant=constant)


def run(
    operator: str,
    options: object | None,
    inputs: Sequence[Tensor | None],
    output: Tensor,
    *,
    outputs: int = 1,
    wanted: int = 0,
) -> Int8:
    """Run one operator, its name being that in TFLite's BuiltinOperator, and return its output.

    Of an operator with several `outputs` alike, the one at `wanted`. An input that is None is left out.
    """
    given = [tensor for tensor in inputs if tensor is not None]
    tensors = [*given, *[output] * outputs]
    of_outputs = list(range(len(given), len(tensors)))
    places = count()
    of_inputs = [_LEFT_OUT if tensor is None else next(places) for tensor in inputs]
    # Buffer 0 is TFLite's empty buffer: that of every tensor without constant data.
    buffers = [schema.BufferT()]
    packed = []
    for tensor in tensors:
        if tensor.constant is not None:
            buffers.append(schema.BufferT(data=np.frombuffer(tensor.constant.tobytes(), np.uint8)))
        packed.append(
            schema.TensorT(
                shape=list(tensor.shape),
                type=tensor.type,
                buffer=len(buffers) - 1 if tensor.constant is not None else 0,
                quantization=schema.QuantizationParametersT(
                    scale=np.array(tensor.scales, np.float32),
                    zeroPoint=np.full(len(tensor.scales), tensor.zero_point, np.int64),
                    quantizedDimension=tensor.quantized_dimension,
                ),
                isVariable=tensor.variable,
            )
        )
    # TFLite's options of class XxxT have the tag Xxx.
    tag = (
        getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T")) if options is not None else 0
    )
    fed = [i for i, tensor in enumerate(given) if tensor.fed is not None]
    graph = schema.SubGraphT(
        tensors=packed,
        inputs=fed,
        outputs=of_outputs,
        operators=[
            schema.OperatorT(
                opcodeIndex=0,
                inputs=of_inputs,
                outputs=of_outputs,
                builtinOptionsType=tag,
                builtinOptions=options,
            )
        ],
    )
    code = getattr(schema.BuiltinOperator, operator)
    model = schema.ModelT(
        version=3,
        operatorCodes=[
            schema.OperatorCodeT(builtinCode=code, deprecatedBuiltinCode=min(code, 127), version=1)
        ],
        subgraphs=[graph],
        buffers=buffers,
    )
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")

    # Activations, two int32 per output channel, and the interpreter's own records (some kilobytes).
    arena_size = 2**16 + sum(
        4 * math.prod(tensor.shape) + 64 * math.prod(tensor.shape[-1:]) for tensor in tensors
    )
    interpreter = runtime.Interpreter.from_bytes(bytes(builder.Output()), arena_size=arena_size)
    for i, index in enumerate(fed):
        interpreter.set_input(np.ascontiguousarray(given[index].fed), i)
    interpreter.invoke()
    return np.array(interpreter.get_output(wanted), _DTYPES[output.type])


def _check_scales(scales: Sequence[float]) -> None:
    for scale in scales:
        nearest = float(np.float32(scale))
        if not (0 < scale < math.inf and nearest == scale):
            raise ValueError(f"scale must be a positive float32, got {scale} (nearest float32: {nearest})")
