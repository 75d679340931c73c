"""Equalization changes no float number, and keeps what int8 would round away."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import networks
import pytest
import torch
import torch_nano as tn
from torch import Tensor, nn
from torch_nano import _native
from torch_nano.calibration.calibrate import Method, observe
from torch_nano.calibration.quantize import quantize
from torch_nano.calibration.ranges import Bounds, QuantizationPlan, calibrated
from torch_nano.calibration.statistics import Extremes
from torch_nano.capture.capture import capture
from torch_nano.capture.passes import optimize
from torch_nano.equalization.equalize import Calibrated, equalize
from torch_nano.equalization.rescale import rescale
from torch_nano.equalization.ties import ChannelTies
from torch_nano.ir.graph import Graph
from torch_nano.ops._channels import ChannelsOperator


class Stack(nn.Sequential):
    """Depthwise separable convolutions, each with a batch norm, in which every channel counts."""

    def __init__(self) -> None:
        layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()]
        for _ in range(3):
            layers += [nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.BatchNorm2d(16), nn.ReLU()]
            layers += [nn.Conv2d(16, 16, 1), nn.BatchNorm2d(16), nn.ReLU()]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5))


class Mixture(nn.Module):
    """Groups, depth multipliers, transposed convolutions, concatenation, shuffled channels, a flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.grouped = nn.Sequential(nn.Conv2d(8, 12, 3, padding=1, groups=4), nn.ReLU())
        self.multiplied = nn.Conv2d(8, 16, 3, 2, padding=1, groups=8)
        self.up = nn.Sequential(nn.ConvTranspose2d(16, 12, 2, stride=2, groups=2), nn.PReLU(12, 0.1))
        self.shuffle = nn.ChannelShuffle(4)
        self.last = nn.Linear(24 * 4 * 3, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        grouped = self.grouped(x)
        up = self.up(self.multiplied(x))
        joined = self.shuffle(torch.cat([grouped - up, up], 1))
        x = nn.functional.max_pool2d(joined, 2)
        result: Tensor = self.last(nn.functional.interpolate(x, (4, 3), mode="bilinear").flatten(1))
        return result


class Recurrent(nn.Module):
    """A layer of several outputs between two that are scaled."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv1d(3, 8, 3, padding=1), nn.BatchNorm1d(8), nn.ReLU(), nn.Conv1d(8, 6, 1)
        )
        self.steps = nn.LSTM(6, 5, batch_first=True)
        self.last = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.last(self.steps(self.first(x).mT)[0])
        return result


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "1-D": (networks.ConvNet1d, (3, 40)),
    "residual": (networks.ResidualNet, (2, 8, 8)),
    "clamped": (networks.SeparableNet, (1, 16, 12)),
    "gates": (networks.SqueezeExciteNet, (2, 6, 6)),
    "differences": (networks.DifferenceNet, (3, 10)),
    "stack": (Stack, (3, 12, 10)),
    "decoder": (networks.Decoder, (2, 8, 6)),
    "mixture": (Mixture, (3, 8, 6)),
    "recurrent": (Recurrent, (3, 12)),
}


def made(name: str, decades: float = 0.0) -> tuple[nn.Module, Tensor]:
    """A network whose batch norms have the statistics of the data, and scales spread over decades."""
    network, shape = NETWORKS[name]
    x = networks.inputs(shape, 64)
    torch.manual_seed(0)
    model = network()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = None
            nn.init.constant_(module.weight, 1.0)
            with torch.no_grad():
                module.weight *= 10 ** (decades * (torch.rand(len(module.weight)) - 0.5))
    with torch.no_grad():
        model.train()(x)
    return model.eval(), x


def calibration(
    graph: Graph, x: Tensor, method: Method = "minmax"
) -> tuple[Calibrated, Mapping[str, Extremes]]:
    observed = observe(graph, x, method, correct=True)
    return Calibrated(graph, observed.ranges(graph), observed.means(graph)), observed.extremes(graph)


# A clamp from above needs factors that keep channels within it.
@pytest.mark.parametrize("name", sorted(NETWORKS.keys() - {"clamped"}))
def test_any_factors_of_tied_channels_change_no_bit_of_the_outputs(name: str) -> None:
    model, x = made(name)
    graph = optimize(capture(model, x[:2]))
    ties = ChannelTies(graph)
    factors = 2.0 ** torch.randint(-3, 4, (ties.count,))
    factors[ties.fixed()] = 1.0
    chosen = {value: factors[ties.groups(value)] for value in graph.values}
    scaled = rescale(graph, chosen)
    assert any(bool((by_channel != 1).any()) for by_channel in chosen.values())
    before: dict[str, Tensor] = {}
    after: dict[str, Tensor] = {}
    with torch.no_grad():
        expected = graph.float_run(x, observe=before.__setitem__)
        found = scaled.float_run(x, observe=after.__setitem__)
    assert torch.equal(found[0], expected[0])
    for value, by_channel in chosen.items():
        shape = (1, -1, *[1] * (before[value].dim() - 2))
        assert torch.equal(after[value], before[value] * by_channel.reshape(shape)), value


@pytest.mark.parametrize("name", NETWORKS)
def test_ranges_and_means_are_those_of_the_equalized_graph(name: str) -> None:
    model, x = made(name, decades=3.0)
    found, extremes = calibration(optimize(capture(model, x[:2])), x)
    equalized = equalize(found, extremes)
    again, _ = calibration(equalized.graph, x)
    assert equalized.ranges == again.ranges
    plan = QuantizationPlan(found.graph)
    for value, bounds in equalized.ranges.items():
        if plan.has_range(value):
            assert found.ranges[value][0] <= bounds[0] and bounds[1] <= found.ranges[value][1]
    assert equalized.means.keys() == again.means.keys()
    for value, mean in equalized.means.items():
        torch.testing.assert_close(mean, again.means[value])


@pytest.mark.parametrize("name", NETWORKS)
def test_channels_of_very_different_sizes_lose_less(name: str, tmp_path: Path) -> None:
    model, x = made(name, decades=3.0)
    options = {"calibrate": x, "head": None, "check": False}
    plain, nano = (tn.to_nano(model, x[:2], correct=correct, **options) for correct in (False, True))
    before, report = plain.compare(model, x), nano.compare(model, x)
    assert report.outputs[0].sqnr > before.outputs[0].sqnr + (10.0 if name == "stack" else 0.0)
    assert nano.verify("host", x[:8])
    assert "equalized" in str(nano.summary()) and "equalized" not in str(plain.summary())
    nano.save(tmp_path / "a.nanomodel")
    assert str(tn.load(tmp_path / "a.nanomodel").compare(model, x)) == str(report)


@pytest.mark.parametrize("method", ["percentile", "mse", "entropy", "auto"])
def test_equalization_cuts_the_same_numbers_as_the_range_did(method: Method) -> None:
    model, x = made("stack", decades=3.0)
    found, extremes = calibration(optimize(capture(model, x[:2])), x, method)
    equalized = equalize(found, extremes)
    before: dict[str, Tensor] = {}
    after: dict[str, Tensor] = {}
    with torch.no_grad():
        found.graph.float_run(x, observe=before.__setitem__)
        equalized.graph.float_run(x, observe=after.__setitem__)

    def cut(tensor: Tensor, bounds: Bounds) -> Tensor:
        return (tensor < min(bounds[0], 0.0)) | (tensor > max(bounds[1], 0.0))

    plan = QuantizationPlan(found.graph)
    scaled = [value for value in before if equalized.graph.values[value].factors and plan.has_range(value)]
    assert scaled
    for value in scaled:
        already = cut(before[value], found.ranges[value])
        assert torch.equal(cut(after[value], equalized.ranges[value]), already), value


@pytest.mark.parametrize("method", ["percentile", "mse", "entropy", "auto"])
def test_channels_of_very_different_sizes_lose_less_with_every_method(method: Method) -> None:
    model, x = made("stack", decades=3.0)
    options = {"calibrate": x, "method": method, "head": None, "check": False}
    plain, nano = (tn.to_nano(model, x[:2], correct=correct, **options) for correct in (False, True))
    before, after = (one.compare(model, x).outputs[0].sqnr for one in (plain, nano))
    assert after > before + 5.0, (before, after)


def test_a_channel_that_a_clamp_cuts_is_not_scaled() -> None:
    torch.manual_seed(0)
    first = nn.Linear(8, 3)
    model = nn.Sequential(first, nn.ReLU6(), nn.Linear(3, 4)).eval()
    with torch.no_grad():
        first.bias.copy_(torch.tensor([8.0, 0.02, 2.0]))
        first.weight *= torch.tensor([[1.0], [0.02], [1.0]])
    x = torch.randn(256, 8)
    found, extremes = calibration(optimize(capture(model, x[:2])), x)
    graph, equalized = found.graph, equalize(found, extremes).graph
    (cut, small, _) = equalized.values["linear"].factors
    assert cut == 1.0 and small >= 4.0
    assert torch.equal(equalized.float_run(x)[0], graph.float_run(x)[0])


@pytest.mark.filterwarnings("ignore::torch_nano.errors.ChannelRangeWarning")
def test_no_factor_takes_a_layer_out_of_the_one_pass_form() -> None:
    torch.manual_seed(0)
    first, second = nn.Linear(8, 8), nn.Linear(8, 4)
    with torch.no_grad():
        # The last channel reads the smallest input only.
        first.weight[-1, 1:] = 0.0
        first.weight[-1, 0], first.bias[-1] = 1.0, 0.0
        second.weight[:, -1] *= 1e4
    x = torch.randn(256, 8) * torch.tensor([1e-3, *[1.0] * 7])
    found, extremes = calibration(optimize(capture(nn.Sequential(first, second), x[:2])), x)
    equalized = equalize(found, extremes)
    quantized = quantize(equalized.graph, calibrated(equalized.ranges))
    node = quantized.graph.nodes[0]
    step = (
        quantized.graph.quantization(node.inputs[0]).scale / quantized.graph.quantization(node.output).scale
    )
    multipliers = quantized.tensors[node.name]["weight_scales"] * step
    assert _native.ONE_PASS_LIMIT / 2 <= multipliers[-1] < _native.ONE_PASS_LIMIT
    assert equalized.graph.values[node.output].factors[-1] > 1.0


def test_a_saved_model_with_wrong_factors_is_refused(tmp_path: Path) -> None:
    model, x = made("clamped", decades=3.0)
    nano = tn.to_nano(model, x[:2], calibrate=x, head=None, check=False)
    values = nano._graph.graph.values
    value = next(value for value in values.values() if value.factors)
    for wrong in (value.factors[:-1], (0.0, *value.factors[1:]), (float("inf"), *value.factors[1:])):
        value.factors = wrong
        nano.save(tmp_path / "a.nanomodel")
        with pytest.raises(tn.errors.FileFormatError, match="factors of channels"):
            tn.load(tmp_path / "a.nanomodel")


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_by_channels_are_in_the_order_of_the_channels(name: str) -> None:
    model, x = made(name)
    graph = optimize(capture(model, x[:2]))
    layers = [node for node in graph.nodes if isinstance(node.operator, ChannelsOperator)]
    assert layers
    for node in layers:
        assert isinstance(node.operator, ChannelsOperator)
        weight = graph.parameters[node.parameters["weight"]]
        inputs, outputs = (graph.values[value].shape[0] for value in (node.inputs[0], node.output))
        by_channels = node.operator.by_channels(weight)
        # For each output the channels that it reads.
        factors = 2.0 ** torch.arange(inputs)
        read = factors.reshape(-1, 1, by_channels.shape[1])
        read = read.expand(-1, outputs // len(read), -1).flatten(0, 1)
        expected = by_channels * read.reshape(*read.shape, *[1] * (by_channels.dim() - 2))
        scaled = node.operator.scale_inputs(weight, factors)
        assert torch.equal(node.operator.by_channels(scaled), expected), node.name
