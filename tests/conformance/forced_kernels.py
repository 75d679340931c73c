"""Random layers for every kernel of nano-core, written for that kernel alone, with plain torch's outputs."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import count, cycle
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from ops.cases import MAKERS, make
from torch import Tensor
from torch_nano import _native
from torch_nano.arithmetic.layout import to_device
from torch_nano.arithmetic.quantization import Quantization
from torch_nano.ir.description import describe_layer, describe_model, describe_value
from torch_nano.ir.layer import Layer
from torch_nano.ir.operator import Operator
from torch_nano.ir.rules import Signature
from torch_nano.ops.add import Add
from torch_nano.ops.requantize import Requantize

from . import layers
from .shapes import SHAPES, shaped
from .test_torch import channels_first, comparable, describe

SEED = 11
#: Layers tried for one that a kernel takes: the rarest, a view, takes one in twenty.
_MOST_TRIES = 200
OPERATORS = _native.operators()
#: The name of each kernel's operator.
KERNELS = {kernel: name for name, operator in OPERATORS.items() for kernel in operator["kernels"]}
#: Kernels that nano-core chooses for a part of a network: the kernels that it must not have instead.
FUSED = {"conv2d_add": "add"}
VIEWS = {"move_view"}


@dataclass(frozen=True)
class Network:
    """Layers with the ids of their inputs: the network's inputs come first, then each layer's outputs.

    The first layer has the network's inputs, and the outputs of the last are the network's.
    """

    #: The call that makes it again.
    origin: str
    layers: Sequence[tuple[Layer, Sequence[int]]]

    def values(self) -> list[Tensor]:
        """All values, by plain torch."""
        values = list(self.layers[0][0].inputs)
        for layer, ids in self.layers:
            values += replace(layer, inputs=[values[id] for id in ids]).integer_run()
        return values

    def image(self, values: Sequence[Tensor], kernels: Sequence[str]) -> bytes:
        """The image with these kernels.

        Raises:
            KernelError: they do not compute it.
        """
        first = self.layers[0][0]
        of_inputs = first.input_quantizations
        inputs = {
            f"x{index}": describe_value(tuple(x.shape[1:]), of)
            for index, (x, of) in enumerate(zip(first.inputs, of_inputs, strict=True))
        }
        entries, made = [], len(inputs)
        for layer, ids in self.layers:
            arrays = {name: tensor.numpy() for name, tensor in layer.tensors.items()}
            outputs = [
                describe_value(tuple(values[made + index].shape[1:]), of)
                for index, of in enumerate(layer.output_quantizations)
            ]
            shaped_layer = replace(layer, inputs=[values[id] for id in ids])
            entries.append(describe_layer(shaped_layer, ids, outputs, arrays))
            made += len(outputs)
        last = len(self.layers[-1][0].output_quantizations)
        named = {f"y{index}": made - last + index for index in range(last)}
        return _native.write_image(describe_model(inputs, entries, named), kernels)


@dataclass(frozen=True)
class Case:
    """An image with the kernel in question, its inputs and plain torch's outputs, [samples, elements]."""

    kernel: str
    origin: str
    #: Of requantization.
    form: int
    image: bytes
    inputs: list[NDArray[np.generic]]
    outputs: list[NDArray[np.generic]]


def cases(kernel: str, most: int) -> Iterator[Case]:
    """The first cases of a kernel.

    Raises:
        AssertionError: too few random layers suit the kernel.
    """
    operator, tried = KERNELS[kernel], 0
    others = {KERNELS[kernel], *FUSED.values()} if operator in FUSED else {operator}
    allowed = [name for name, of in KERNELS.items() if name == kernel or kernel in VIEWS or of not in others]
    networks = iter(_networks(kernel))
    for _ in range(most):
        for network in networks:
            tried += 1
            assert tried <= _MOST_TRIES * most, f"hardly any random layer suits the kernel {kernel}"
            if case := _case(network, kernel, allowed):
                yield case
                break


def _case(network: Network, kernel: str, allowed: Sequence[str]) -> Case | None:
    values = network.values()
    try:
        model = _native.Model(network.image(values, allowed))
    except _native.KernelError:
        return None
    except _native.NanoError as error:
        # Without the fusion, its parts have no kernel here.
        if KERNELS[kernel] in FUSED and "there is no operator" in str(error):
            return None
        raise
    forms = [entry["form"] for entry in model.layers if entry["kernel"] == kernel]
    if not forms:
        return None
    inputs, outputs = (
        [to_device(value).numpy() for value in part]
        for part in (
            values[: len(network.layers[0][0].inputs)],
            values[-len(network.layers[-1][0].output_quantizations) :],
        )
    )
    return Case(kernel, network.origin, forms[0], model.image, inputs, outputs)


def _networks(kernel: str) -> Iterator[Network]:
    operator = KERNELS[kernel]
    if operator in FUSED:
        return (_residual(layer, origin) for origin, layer in _layers("conv2d", "conv2d"))
    if kernel in VIEWS:
        return (_view(layer, origin) for origin, layer in _layers(operator, kernel))
    return (
        Network(origin, [(layer, range(len(layer.inputs)))]) for origin, layer in _layers(operator, kernel)
    )


def _residual(convolution: Layer, origin: str) -> Network:
    """x -> convolution + another convolution of x."""
    rng = np.random.default_rng([SEED, *origin.encode()])
    (first,) = convolution.output_quantizations
    residual = replace(
        convolution,
        tensors={**convolution.tensors, "weights": convolution.tensors["weights"].flip(-1).contiguous()},
        output_quantizations=[_step(rng, first, rng.uniform(1, 4))],
    )
    # Far above the inputs' scales, the shift is too large for one pass.
    ratio = rng.choice([rng.uniform(0.2, 4), 5000.0], p=[0.75, 0.25])
    operands = [first, *residual.output_quantizations]
    output = [_step(rng, operands[1], ratio)]
    add = Layer(Add(), input_quantizations=operands, output_quantizations=output)
    return Network(f"residual of {origin}", [(residual, [0]), (convolution, [0]), (add, [2, 1])])


def _step(rng: np.random.Generator, of: Quantization, ratio: float) -> Quantization:
    return Quantization(float(np.float32(of.scale * ratio)), int(rng.integers(-128, 128)))


def _view(move: Layer, origin: str) -> Network:
    """x -> requantize -> move -> requantize: a view is between layers."""
    (x,) = move.input_quantizations
    finer = replace(x, scale=float(np.float32(x.scale / 3)))
    before = Layer(Requantize(), move.inputs, input_quantizations=[finer], output_quantizations=[x])
    after = Layer(Requantize(), input_quantizations=[x], output_quantizations=[finer])
    return Network(f"view of {origin}", [(before, [0]), (replace(move, inputs=[]), [1]), (after, [2])])


def _layers(operator: str, kernel: str) -> Iterator[tuple[str, Layer]]:
    """Layers of an operator with inputs, of a dtype that a kernel takes, endlessly.

    Raises:
        AssertionError: there are none.
    """
    signatures = [Signature(tuple(i), tuple(o)) for i, o in OPERATORS[operator]["kernels"][kernel]]
    sources = [_of_family(family) for family in _families()[operator]]
    sources += [_of_operator(kind) for kind in MAKERS if kind.name == operator]
    if operator in SHAPES:
        # As many as all others.
        sources += [_of_shape(operator, signatures[0].inputs[0])] * len(sources)
    tried = 0
    for source in cycle(sources):
        origin, layer = next(source)
        inputs, outputs = (
            [of.dtype for of in each] for each in (layer.input_quantizations, layer.output_quantizations)
        )
        tried += 1
        assert tried <= _MOST_TRIES, f"hardly any random layer has the dtypes of the kernel {kernel}"
        if layer.operator.name == operator and any(
            one.takes(inputs) and one.makes(outputs) for one in signatures
        ):
            tried = 0
            yield origin, layer


@cache
def _families() -> dict[str, list[str]]:
    """The families of each operator; a depthwise convolution with a multiplier is another operator's."""
    families: dict[str, list[str]] = {operator: [] for operator in OPERATORS}
    for family in layers.FAMILIES:
        for operator in {describe(made).operator.name for made in layers.layers(family, 8)}:
            families[operator].append(family)
    return families


def _of_family(family: str) -> Iterator[tuple[str, Layer]]:
    for index in count():
        made = comparable(layers.layer(family, SEED, index))
        if made is not None:
            yield repr(made), replace(describe(made), inputs=[channels_first(x) for x in made.inputs()])


def _of_operator(kind: type[Operator]) -> Iterator[tuple[str, Layer]]:
    for seed in count():
        yield f"make({kind.__name__}, {seed})", make(kind, seed)


def _of_shape(operator: str, dtype: str) -> Iterator[tuple[str, Layer]]:
    for index in count():
        yield f"shaped({operator!r}, {dtype!r}, {SEED}, {index})", shaped(operator, dtype, SEED, index)


_ALIGNMENT = 16


def write(made: Sequence[Case], folder: Path, most: int) -> list[tuple[Path, Sequence[Case]]]:
    """Writes cases to files of at most so many bytes, in the format of nano-core/tests/cases."""
    files: list[tuple[Path, Sequence[Case]]] = []
    rest = iter(made)
    waiting = next(rest, None)
    while waiting is not None:
        part: list[Case] = []
        blob = bytearray(4)
        while waiting is not None and (entry := _entry(waiting)) is not None:
            if part and len(blob) + len(entry) + _ALIGNMENT > most:
                break
            _pad(blob)
            blob += entry
            part.append(waiting)
            waiting = next(rest, None)
        struct.pack_into("<I", blob, 0, len(part))
        path = folder / f"cases{len(files)}"
        path.write_bytes(blob)
        files.append((path, part))
    return files


def _entry(case: Case) -> bytes:
    blob = bytearray(case.image)
    _pad(blob)
    blob += struct.pack("<I", len(case.inputs[0]))
    for sample in zip(*case.inputs, *case.outputs, strict=True):
        blob += b"".join(array.tobytes() for array in sample)
    return bytes(blob)


def _pad(blob: bytearray) -> None:
    blob += bytes(-len(blob) % _ALIGNMENT)
