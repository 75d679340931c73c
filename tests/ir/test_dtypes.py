"""Values of 16 and 32 bits: an operator whose output is int16, and one that takes it and makes int32."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch_nano as tn
from torch import Tensor, nn
from torch_nano._native import quantize_multiplier
from torch_nano.arithmetic.fixed_point import requantize, round_half_away
from torch_nano.arithmetic.quantization import Quantization
from torch_nano.arithmetic.tensors import dequantize_tensor, quantize_tensor
from torch_nano.calibration.calibrate import calibrate
from torch_nano.calibration.quantize import QuantizedGraph, quantize
from torch_nano.calibration.ranges import calibrated, quantization
from torch_nano.capture import capture as capturing
from torch_nano.capture.capture import capture
from torch_nano.capture.passes import optimize
from torch_nano.ir.call import Call
from torch_nano.ir.layer import Layer
from torch_nano.ir.operator import Operator
from torch_nano.ir.rules import Signature
from torch_nano.ir.value import Value
from torch_nano.ops import OPERATORS
from torch_nano.ops.requantize import Requantize


@dataclass(frozen=True)
class Square(Operator):
    """``y = x^2``, in 16 bits."""

    name = "square"
    signatures = (Signature(("int8",), ("int16",)),)

    @classmethod
    def targets(cls) -> Sequence[torch._ops.OpOverload[..., Any]]:
        return [torch.ops.aten.square.default]

    @classmethod
    def from_call(cls, call: Call) -> tuple[Operator, list[Value], dict[str, str]]:
        return cls(), [call.input("self")], {}

    def float_run(self, layer: Layer) -> Tensor:
        return layer.input.square()

    def integer_run(self, layer: Layer) -> Tensor:
        source, output = layer.input_quantization, layer.output_quantization
        squares = (layer.input.to(torch.int64) - source.zero_point) ** 2
        multiplier = quantize_multiplier(source.scale * source.scale / output.scale)
        return requantize(squares, [multiplier], output.zero_point, output.bounds, output.torch_dtype)


@dataclass(frozen=True)
class Cube(Operator):
    """``y = x^3`` of 16 bits in 32."""

    name = "cube"
    signatures = (Signature(("int16",), ("int32",)),)

    @classmethod
    def targets(cls) -> Sequence[torch._ops.OpOverload[..., Any]]:
        return [torch.ops.aten.pow.Tensor_Scalar]

    @classmethod
    def from_call(cls, call: Call) -> tuple[Operator, list[Value], dict[str, str]]:
        assert call.arguments["exponent"] == 3
        return cls(), [call.input("self")], {}

    def float_run(self, layer: Layer) -> Tensor:
        return layer.input**3

    def integer_run(self, layer: Layer) -> Tensor:
        source, output = layer.input_quantization, layer.output_quantization
        # Below 2^45, which float64 holds.
        cubes = layer.input.to(torch.float64) ** 3
        y = round_half_away(cubes * (source.scale**3 / output.scale))
        return y.clamp(*output.bounds).to(output.torch_dtype)


class Net(nn.Module):
    def __init__(self, last: str) -> None:
        super().__init__()
        self.layer, self.last = nn.Linear(4, 6), last

    def forward(self, x: Tensor) -> Tensor:
        y = torch.square(self.layer(x))
        if self.last == "cube":
            return y**3
        if self.last == "softmax":
            return y.softmax(1)
        return y.unflatten(1, (6, 1)) if self.last == "reshape" else y if self.last == "" else torch.relu(y)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(capturing, "OPERATORS", (*OPERATORS, Square, Cube))
    yield


def net(last: str) -> tuple[Net, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net(last), torch.randn(50, 4)


def run(quantized: QuantizedGraph, x: Tensor) -> tuple[Tensor, Tensor]:
    """The integers of the output, and what they mean."""
    graph = quantized.graph
    (y,) = quantized.integer_run(quantize_tensor(x, graph.quantization(graph.inputs[0])))
    return y, dequantize_tensor(y, graph.quantization(graph.outputs[0]))


@pytest.mark.parametrize(("last", "dtype"), [("", "int16"), ("reshape", "int16"), ("cube", "int32")])
def test_values_have_the_dtype_of_their_operator(last: str, dtype: str) -> None:
    model, x = net(last)
    graph = optimize(capture(model, x))
    quantized = quantize(graph, calibrated(calibrate(graph, x)))
    meaning = quantized.graph.quantization(graph.outputs[0])
    integers, y = run(quantized, x)
    assert meaning.dtype == dtype and meaning.zero_point == 0 and integers.dtype == meaning.torch_dtype
    assert f" {dtype} scale" in str(quantized.graph)
    with torch.no_grad():
        expected = model(x)
    # The input of int8 has an error of 1/255 of its range.
    assert float((y - expected).abs().max()) < 0.1 * float(expected.abs().max())
    assert int(integers.abs().max()) > 0.8 * meaning.bounds[1]


@pytest.mark.parametrize("last", ["", "reshape", "cube"])
@pytest.mark.parametrize("ranges", ["moving_average", "learned"])
def test_training_is_the_integer_run(last: str, ranges: str) -> None:
    model, x = net(last)
    qat = tn.prepare_qat(model, x, calibrate=x, ranges=ranges)  # type: ignore[arg-type]
    optimizer = torch.optim.SGD(qat.parameters(), 1e-5)
    for _ in range(3):
        optimizer.zero_grad()
        qat(x).square().mean().backward()
        optimizer.step()
    gradient = qat.get_parameter("layer.weight").grad
    assert gradient is not None and bool(gradient.any())
    with torch.no_grad():
        y = qat.eval()(x)
    integers, expected = run(quantize(qat.float_graph(), qat.chosen), x)
    assert y.dtype == torch.float32 and torch.equal(y, expected)
    assert int(integers.abs().max()) > 127


def test_an_operator_refuses_a_dtype_that_it_does_not_take() -> None:
    model, x = net("softmax")
    graph = optimize(capture(model, x))
    (requantize,) = [node for node in graph.nodes if isinstance(node.operator, Requantize)]
    graph.remove(requantize)
    with pytest.raises(tn.errors.QuantizationError, match="softmax takes int8; its input square is int16"):
        quantize(graph, calibrated(calibrate(graph, x)))


def test_an_operator_refuses_to_make_a_dtype_that_it_does_not_have() -> None:
    model, x = net("relu")
    graph = optimize(capture(model, x))
    graph.dtypes["linear"] = "int16"
    with pytest.raises(
        tn.errors.QuantizationError, match="fully_connected makes int8; its output linear is to be int16"
    ):
        quantize(graph, calibrated(calibrate(graph, x)))


def test_int16_is_requantized_for_an_operator_of_int8() -> None:
    model, x = net("relu")
    graph = optimize(capture(model, x))
    quantized = quantize(graph, calibrated(calibrate(graph, x)))
    assert [node.operator.name for node in graph.nodes] == [
        "fully_connected",
        "square",
        "requantize",
        "table",
    ]
    _, y = run(quantized, x)
    with torch.no_grad():
        expected = model(x)
    assert float((y - expected).abs().max()) < 0.1 * float(expected.abs().max())


def test_nano_core_has_no_such_operator() -> None:
    model, x = net("")
    with pytest.raises(tn.errors.QuantizationError, match='there is no operator "square"'):
        tn.to_nano(model, x, calibrate=x, check=False)


@pytest.mark.parametrize(
    ("dtype", "zero_point", "reason"),
    [
        ("int16", 1, "the zero point 0, as it is for int16"),
        ("int32", -1, "0, as it is"),
        ("int4", 0, "no dtype"),
    ],
)
def test_an_invalid_quantization_is_refused(dtype: str, zero_point: int, reason: str) -> None:
    with pytest.raises(tn.errors.QuantizationError, match=reason):
        Quantization(1.0, zero_point, dtype)


def test_wide_ranges_are_symmetric() -> None:
    chosen = quantization(-1.0, 3.0, "int16")
    assert chosen.range == pytest.approx((-3.0 * 32768 / 32767, 3.0), rel=1e-6)
    x = torch.tensor([-9.0, -1.0, 3.0])
    assert quantize_tensor(x, chosen).tolist() == [-32768, -10922, 32767]
    assert dequantize_tensor(torch.tensor([16384]), Quantization(2.0, 0, "int32")).tolist() == [32768.0]
