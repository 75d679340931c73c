"""An operator of two outputs, each with its own scale, in everything that torch computes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
import torch_nano as tn
from torch import Tensor, nn
from torch_nano._native import quantize_multiplier
from torch_nano.arithmetic.fixed_point import requantize
from torch_nano.arithmetic.quantization import Quantization
from torch_nano.calibration.calibrate import calibrate
from torch_nano.calibration.quantize import quantize
from torch_nano.calibration.ranges import calibrated
from torch_nano.capture import capture as capturing
from torch_nano.capture.capture import capture
from torch_nano.capture.passes import optimize
from torch_nano.ir.call import Call
from torch_nano.ir.layer import Layer
from torch_nano.ir.operator import Operator
from torch_nano.ir.rules import Own
from torch_nano.ir.value import Value
from torch_nano.ops import OPERATORS


@dataclass(frozen=True)
class Halves(Operator):
    """The first and the second half of the channels, each requantized."""

    name = "halves"
    rules = (Own(), Own())

    @classmethod
    def targets(cls) -> Sequence[torch._ops.OpOverload[..., Any]]:
        return [torch.ops.aten.chunk.default]

    @classmethod
    def from_call(cls, call: Call) -> tuple[Operator, list[Value], dict[str, str]]:
        assert len(call.output_shapes) == 2 and call.arguments["dim"] == 1
        return cls(), [call.input("self")], {}

    def float_run(self, layer: Layer) -> tuple[Tensor, ...]:
        return layer.input.chunk(2, 1)

    def integer_run(self, layer: Layer) -> tuple[Tensor, ...]:
        source = layer.input_quantization
        return tuple(
            requantize(
                half.to(torch.int32) - source.zero_point,
                [quantize_multiplier(source.scale / output.scale)],
                output.zero_point,
                (-128, 127),
            )
            for half, output in zip(layer.input.chunk(2, 1), layer.output_quantizations, strict=True)
        )


class Gated(nn.Module):
    """One half gates nothing yet: it is added to the other, whose numbers are 20 times as large."""

    def __init__(self, both: bool = True) -> None:
        super().__init__()
        self.layer = nn.Conv1d(3, 8, 3)
        self.last = nn.Conv1d(4, 2, 1)
        self.both = both
        with torch.no_grad():
            self.layer.weight[4:] *= 20

    def forward(self, x: Tensor) -> Tensor:
        small, large = self.layer(x).chunk(2, 1)
        y: Tensor = self.last(torch.relu(large) + small if self.both else torch.relu(large))
        return y


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(capturing, "OPERATORS", (*OPERATORS, Halves))
    yield


def gated(both: bool = True) -> tuple[Gated, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Gated(both), torch.randn(30, 3, 7)


def test_capture_names_each_output() -> None:
    model, x = gated()
    graph = optimize(capture(model, x))
    (node,) = [node for node in graph.nodes if isinstance(node.operator, Halves)]
    assert node.outputs == ["chunk_0", "chunk_1"] and node.name == "chunk_0"
    assert "chunk_0 (4, 5), chunk_1 (4, 5) = halves(conv1d)" in str(graph)
    (y,) = graph.float_run(x)
    with torch.no_grad():
        torch.testing.assert_close(y, model(x), rtol=1e-5, atol=1e-5)


def test_an_output_that_nobody_reads_stays_with_its_node() -> None:
    model, x = gated(both=False)
    graph = optimize(capture(model, x))
    seen: dict[str, Tensor] = {}
    graph.float_run(x, observe=lambda name, tensor: seen.update({name: tensor}))
    assert list(seen) == list(graph.values) and "chunk_0" in seen
    assert graph.producer("chunk_0") is graph.producer("chunk_1")


def test_each_output_has_a_scale_of_its_own_and_the_integers_are_near() -> None:
    model, x = gated()
    graph = optimize(capture(model, x))
    ranges = calibrate(graph, x)
    integers = quantize(graph, calibrated(ranges))
    small, large = (integers.graph.quantization(name) for name in ("chunk_0", "chunk_1"))
    assert large.scale > 5 * small.scale
    source = integers.graph.quantization(graph.inputs[0])
    q = (x / source.scale + source.zero_point).round().clamp(-128, 127).to(torch.int8)
    (y,) = integers.integer_run(q)
    meaning = integers.graph.quantization(integers.graph.outputs[0])
    with torch.no_grad():
        difference = (y.float() - meaning.zero_point) * meaning.scale - model(x)
    assert float(difference.abs().max()) < 6 * meaning.scale


@pytest.mark.parametrize("both", [True, False])
@pytest.mark.parametrize("ranges", ["moving_average", "learned"])
def test_training_is_the_integer_run(ranges: str, both: bool) -> None:
    model, x = gated(both)
    qat = tn.prepare_qat(model, x, calibrate=x, ranges=ranges)  # type: ignore[arg-type]
    optimizer = torch.optim.SGD(qat.parameters(), 0.01)
    for _ in range(3):
        optimizer.zero_grad()
        qat(x).square().mean().backward()
        optimizer.step()
    gradient = qat.get_parameter("layer.weight").grad
    assert gradient is not None and bool(gradient[4:].any()) and bool(gradient[:4].any()) == both
    with torch.no_grad():
        y = qat.eval()(x)
    integers = quantize(qat.float_graph(), qat.chosen)
    source, meaning = (
        integers.graph.quantization(name) for name in (integers.graph.inputs[0], integers.graph.outputs[0])
    )
    q = torch.ops.torch_nano.train_input(x, source.scale, source.zero_point, None, None) + source.zero_point
    (expected,) = integers.integer_run(q.to(torch.int8))
    assert torch.equal(y, (expected.float() - meaning.zero_point) * meaning.scale)


def test_the_gradient_of_each_output_goes_to_its_half() -> None:
    unit, fine, coarse = Quantization(1.0, 0), Quantization(0.5, 0), Quantization(4.0, 0)
    x = torch.tensor([[3.0, 100.0, 3.0, 100.0]], requires_grad=True)
    layer = Layer(Halves(), [x], input_quantizations=[unit], output_quantizations=[fine, coarse])
    first, second = layer.train_run()
    assert first.tolist() == [[6, 127]] and second.tolist() == [[1, 25]]
    (first.sum() + second.sum()).backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None and x.grad.tolist() == [[2, 0, 0.25, 0.25]]
    (y, z) = replace(layer, inputs=[x.detach().to(torch.int8)]).integer_run()
    assert torch.equal(y, first.to(torch.int8)) and torch.equal(z, second.to(torch.int8))


def test_nano_core_has_no_such_operator() -> None:
    model, x = gated()
    with pytest.raises(tn.errors.QuantizationError, match='there is no operator "halves"'):
        tn.to_nano(model, x, calibrate=x, check=False)
