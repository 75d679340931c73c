"""Quantization rules: one range for values that an operator joins, or requantized inputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch_nano as tn
from torch import Tensor, nn
from torch_nano.arithmetic.quantization import Quantization
from torch_nano.arithmetic.tensors import dequantize_tensor, quantize_tensor
from torch_nano.calibration.calibrate import calibrate
from torch_nano.calibration.quantize import QuantizedGraph, quantize
from torch_nano.calibration.ranges import QuantizationPlan, calibrated, follows_rules, union
from torch_nano.capture import capture as capturing
from torch_nano.capture.capture import capture
from torch_nano.capture.passes import optimize
from torch_nano.ir.call import Call
from torch_nano.ir.graph import Graph
from torch_nano.ir.layer import Layer
from torch_nano.ir.operator import Operator
from torch_nano.ir.rules import Fixed, Own, SameAs, Shared, Signature
from torch_nano.ir.value import Value
from torch_nano.ops import OPERATORS
from torch_nano.ops.concat import Concat
from torch_nano.ops.conv2d import Conv2d
from torch_nano.ops.max_pool2d import MaxPool2d
from torch_nano.ops.softmax import Softmax


@dataclass(frozen=True)
class Join(Operator):
    """Concatenation of channels."""

    name = "join"
    rules = (Shared(),)

    @classmethod
    def targets(cls) -> Sequence[torch._ops.OpOverload[..., Any]]:
        return [torch.ops.aten.cat.default]

    @classmethod
    def from_call(cls, call: Call) -> tuple[Operator, list[Value], dict[str, str]]:
        assert call.arguments["dim"] == 1
        return cls(), list(call.arguments["tensors"]), {}

    def float_run(self, layer: Layer) -> Tensor:
        return torch.cat(list(layer.inputs), 1)

    def integer_run(self, layer: Layer) -> Tensor:
        assert len({*layer.input_quantizations, *layer.output_quantizations}) == 1
        return torch.cat(list(layer.inputs), 1)


class Net(nn.Module):
    """A wide and a narrow branch, a pool, and perhaps a softmax, side by side."""

    def __init__(self, joined: str) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Conv1d(3, 4, 3), nn.Conv1d(3, 4, 3)
        self.last = nn.Conv1d(8 if joined != "all" else 12, 2, 1)
        self.joined = joined
        with torch.no_grad():
            self.wide.weight *= 10

    def forward(self, x: Tensor) -> Tensor:
        wide, narrow = self.wide(x), torch.relu(self.narrow(x))
        if self.joined == "softmax":
            parts = [torch.softmax(wide, 1), torch.softmax(narrow, 1)]
        elif self.joined == "one softmax":
            parts = [torch.softmax(wide, 1), narrow]
        elif self.joined == "all":
            first = torch.cat([wide, torch.max_pool1d(narrow, 1)], 1)
            parts = [first, torch.relu(narrow + wide)]
        else:
            parts = [torch.max_pool1d(wide, 1), narrow]
        y: Tensor = self.last(torch.cat(parts, 1))
        return y


JOINED = ["pool", "softmax", "one softmax", "all"]


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(capturing, "OPERATORS", (*OPERATORS, Join))
    yield


def net(joined: str) -> tuple[Net, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net(joined), torch.randn(30, 3, 9)


def integers(joined: str) -> tuple[Graph, QuantizedGraph, dict[str, tuple[float, float]]]:
    model, x = net(joined)
    graph = optimize(capture(model, x))
    ranges = calibrate(graph, x)
    return graph, quantize(graph, calibrated(ranges)), ranges


def run(quantized: QuantizedGraph, x: Tensor) -> Tensor:
    graph = quantized.graph
    (y,) = quantized.integer_run(quantize_tensor(x, graph.quantization(graph.inputs[0])))
    return dequantize_tensor(y, graph.quantization(graph.outputs[0]))


@pytest.mark.parametrize("joined", JOINED)
def test_the_joined_values_have_one_quantization_that_covers_them(joined: str) -> None:
    graph, quantized, ranges = integers(joined)
    for node in quantized.graph.nodes:
        inputs, outputs = (
            [quantized.graph.quantization(name) for name in names] for names in (node.inputs, node.outputs)
        )
        assert follows_rules(node, inputs, outputs), node
        if isinstance(node.operator, Join):
            assert {*inputs} == {*outputs}
            low, high = union(ranges[name] for name in node.inputs)
            step = outputs[0].scale
            assert outputs[0].range[0] <= low + step and outputs[0].range[1] >= high - step
    model, x = net(joined)
    with torch.no_grad():
        difference = (run(quantized, x) - model(x)).abs().max()
    assert float(difference) < 15 * quantized.graph.quantization(graph.outputs[0]).scale


def test_requantize_stands_only_where_a_fixed_scale_meets_another() -> None:
    counts = {joined: str(integers(joined)[0]).count("= requantize(") for joined in JOINED}
    assert counts == {"pool": 0, "softmax": 0, "one softmax": 1, "all": 0}
    _, quantized, _ = integers("softmax")
    (node,) = [node for node in quantized.graph.nodes if isinstance(node.operator, Join)]
    assert quantized.graph.quantization(node.output) == Quantization(1 / 256, -128)


def test_a_range_that_joins_two_joined_ranges_is_one() -> None:
    graph, _, _ = integers("all")
    plan = QuantizationPlan(graph)
    joined = [node for node in graph.nodes if isinstance(node.operator, Join)]
    first, second = (plan[node.output] for node in joined)
    assert first == second and len(plan.ranges) == 3
    with pytest.raises(
        tn.errors.QuantizationError, match="join needs inputs that can share one quantization"
    ):
        QuantizationPlan(capture(*net("one softmax")))


@pytest.mark.parametrize("joined", JOINED)
@pytest.mark.parametrize("ranges", ["moving_average", "learned"])
def test_training_is_the_integer_run(joined: str, ranges: str) -> None:
    model, x = net(joined)
    qat = tn.prepare_qat(model, x, calibrate=x, ranges=ranges)  # type: ignore[arg-type]
    optimizer = torch.optim.SGD(qat.parameters(), 0.01)
    before = [qat.chosen(one).scale for one in qat._plan.ranges]
    for _ in range(3):
        optimizer.zero_grad()
        qat(x * 1.5).square().mean().backward()
        optimizer.step()
    assert [qat.chosen(one).scale for one in qat._plan.ranges] != before
    assert all(p.grad is not None for name, p in qat.named_parameters() if "weight" in name)
    with torch.no_grad():
        y = qat.eval()(x)
    assert torch.equal(y, run(quantize(qat.float_graph(), qat.chosen), x))
    frozen = tn.qat.freeze_ranges(qat)
    assert frozen is None and torch.equal(qat.train()(x), y)


def test_ranges_from_the_first_batch_cover_all_that_is_joined() -> None:
    model, x = net("pool")
    qat = tn.prepare_qat(model, x)
    qat(x)
    low, high = qat.quantization_ranges.quantization("conv1d_1").range
    with torch.no_grad():
        wide = model.wide(x)
    assert low <= float(wide.min()) * 0.98 and high >= float(wide.max()) * 0.98


def test_the_rules_of_nano_cores_operators_are_nano_cores() -> None:
    assert Concat.rules == (Shared(),) and MaxPool2d.rules == (SameAs(0),) and Conv2d.rules == (Own(),)
    assert Softmax.rules == (Fixed(Quantization(1 / 256, -128)),)
    assert Conv2d.signatures[0] == Signature(("int8",), ("int8",))
    assert Concat.moves_data() and not Conv2d.moves_data()
    # Join is an operator of Python only.
    assert Join.rules == (Shared(),)
    with pytest.raises(TypeError, match="Another sets the rules of concat, which nano-core defines"):
        type("Another", (Concat,), {"name": "concat", "rules": (Own(),)})
