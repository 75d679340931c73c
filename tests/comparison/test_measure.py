"""What a comparison measures."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch_nano as tn
from networks import NETWORKS, ConvNet1d, inputs, make
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch_nano.arithmetic.tensors import dequantize_tensor
from torch_nano.calibration.calibrate import calibrate
from torch_nano.calibration.quantize import QuantizedGraph, quantize
from torch_nano.calibration.ranges import calibrated
from torch_nano.capture.capture import capture
from torch_nano.capture.passes import optimize
from torch_nano.comparison.measure import compare
from torch_nano.comparison.samples import batches_to_compare
from torch_nano.equalization.rescale import rescale
from torch_nano.ir.graph import Graph

X = inputs((3, 40), 64)


def converted(model: nn.Module, x: Tensor, **wider: float) -> tuple[Graph, QuantizedGraph]:
    """A graph and its quantized graph, with the ranges of the given values so many times too wide."""
    graph = optimize(capture(model, x[:2]))
    ranges = calibrate(graph, x)
    for name, factor in wider.items():
        ranges[name] = (ranges[name][0] * factor, ranges[name][1] * factor)
    return graph, quantize(graph, calibrated(ranges))


def of(report: tn.results.Comparison) -> dict[str, tn.results.LayerComparison]:
    return {layer.value: layer for layer in report.layers}


@pytest.mark.parametrize("kind,shape", NETWORKS)
def test_the_figures_are_those_of_both_runs(kind: type[nn.Module], shape: tuple[int, ...]) -> None:
    x = inputs(shape, 40, seed=3) * 1.5
    graph, quantized = converted(make(kind), inputs(shape, 64))
    real: dict[str, Tensor] = {}
    integers: dict[str, Tensor] = {}
    with torch.no_grad():
        graph.float_run(x, observe=real.__setitem__)
        nano_input = graph.inputs[0]
        q = torch.round(x.double() / quantized.graph.quantization(nano_input).scale)
        q = (q + quantized.graph.quantization(nano_input).zero_point).clamp(-128, 127).to(torch.int8)
        quantized.integer_run(q, observe=integers.__setitem__)
    layers = of(compare(graph, quantized, batches_to_compare(graph, x)))
    assert set(layers) == set(integers)
    for name, layer in layers.items():
        quantization = quantized.graph.quantization(name)
        found, expected = dequantize_tensor(integers[name], quantization).double(), real[name].double()
        noise = (found - expected).square().sum()
        assert layer.sqnr == pytest.approx(float(10 * (expected.square().sum() / noise).log10())), name
        cosine = torch.cosine_similarity(found.flatten(), expected.flatten(), dim=0)
        assert layer.cosine == pytest.approx(float(cosine)), name
        assert layer.largest_error == pytest.approx(float((found - expected).abs().max()))
        low, high = quantization.range
        outside = (expected < low - quantization.scale) | (expected > high + quantization.scale)
        assert layer.saturated == pytest.approx(float(outside.double().mean()))
        channels = integers[name].movedim(1, 0).flatten(1).long()
        varying = real[name].movedim(1, 0).flatten(1).std(1) > 0
        assert layer.levels == tuple(((channels.amax(1) - channels.amin(1) + 1) * varying).tolist())
    assert any(layer.saturated for layer in layers.values())


def test_the_largest_error_of_scaled_channels_is_in_the_units_of_the_model() -> None:
    torch.manual_seed(0)
    graph = optimize(capture(nn.Sequential(nn.Conv1d(3, 4, 5), nn.Conv1d(4, 2, 3)).eval(), X[:2]))
    name = graph.nodes[0].output
    factors = torch.tensor([1.0, 4.0, 16.0, 64.0])
    scaled = rescale(graph, {name: factors})
    quantized = quantize(scaled, calibrated(calibrate(scaled, X)))
    integers: dict[str, Tensor] = {}
    real: dict[str, Tensor] = {}
    with torch.no_grad():
        graph.float_run(X, observe=real.__setitem__)
        q = quantized.graph.values[graph.inputs[0]].quantize(X)
        quantized.integer_run(q, observe=integers.__setitem__)
    found = dequantize_tensor(integers[name], quantized.graph.quantization(name)) / factors[:, None]
    layer = of(compare(scaled, quantized, batches_to_compare(scaled, X)))[name]
    # Here float32 is subtracted: it rounds to 2^-24 of a value, and an error is more than 1/256 of one.
    assert layer.largest_error == pytest.approx(float((found - real[name]).abs().max()), rel=2**-16)


def test_own_error_is_told_from_inherited_error() -> None:
    graph, quantized = converted(make(ConvNet1d), X, max_pool1d=1.0)
    good = of(compare(graph, quantized, batches_to_compare(graph, X)))
    first, *_, last = [node.name for node in graph.nodes if node.parameters]
    graph, quantized = converted(make(ConvNet1d), X, **{first: 40.0})
    report = compare(graph, quantized, batches_to_compare(graph, X))
    bad = of(report)
    assert report.layers[0].value == first
    assert bad[first].own_sqnr < good[first].own_sqnr - 20
    # The layers after it are as good as before, but what they read is not.
    assert bad[last].own_sqnr > good[last].own_sqnr - 6
    assert bad[last].sqnr < good[last].sqnr - 10


def test_a_layer_that_is_exact_in_integers_has_no_error_of_its_own() -> None:
    graph, quantized = converted(make(ConvNet1d), X)
    report = compare(graph, quantized, batches_to_compare(graph, X))
    (pool,) = [layer for layer in report.layers if layer.operator == "max_pool2d"]
    assert pool.own_sqnr == math.inf and pool.sqnr < 60
    assert report.layers[-1] == pool


def test_the_outputs_stand_side_by_side() -> None:
    model = make(ConvNet1d)
    nano = tn.to_nano(model, X, calibrate=X)
    y = torch.arange(64) % 5
    (output,) = nano.compare(model, (X, y)).outputs
    with torch.no_grad():
        expected, found = model(X), nano(X)
    assert output.agreement == float((expected.argmax(1) == found.argmax(1)).double().mean())
    assert output.float_accuracy == float((expected.argmax(1) == y).double().mean())
    assert output.int8_accuracy == float((found.argmax(1) == y).double().mean())
    # The outputs here are float32, which rounds both before they are subtracted.
    assert output.largest_error == pytest.approx(float((expected - found).abs().max()), abs=1e-6)
    ratios = expected.double().square().sum(1) / (expected - found).double().square().sum(1)
    # Rounding changes an error of 36 dB, 1.6 % of the output, by up to 2^-23 of the output: 7e-5 dB.
    assert output.median_sqnr == pytest.approx(float(10 * ratios.log10().median()), abs=7e-5)


def test_any_batches_give_the_same_figures() -> None:
    model = make(ConvNet1d)
    nano = tn.to_nano(model, X, calibrate=X)
    y = torch.arange(64) % 5

    def loader() -> Iterator[tuple[Tensor, Tensor]]:
        yield from zip(X.split(13), y.split(13), strict=True)

    dataset = torch.utils.data.TensorDataset(X, y)
    expected = nano.compare(model, (X, y))
    for data in (loader(), [(X[:50], y[:50]), (X[50:], y[50:])], dataset, [({"x": X}, y)]):
        found = nano.compare(model, data)
        assert found.samples == 64
        assert found.outputs[0].int8_accuracy == expected.outputs[0].int8_accuracy
        for layer, other in zip(found.layers, expected.layers, strict=True):
            assert (layer.value, layer.levels) == (other.value, other.levels)
            # torch's float32 convolutions add in an order that depends on the batch: 2^-23 of a value, which
            # is 2^-15 of its error, and less on the average.
            assert layer.sqnr == pytest.approx(other.sqnr, rel=1e-6)
            assert layer.own_sqnr == pytest.approx(other.own_sqnr, rel=1e-6)


def test_a_loaded_model_and_a_qat_module_give_the_same_report(tmp_path: Path) -> None:
    model = make(ConvNet1d)
    # A QatModule corrects no biases.
    nano = tn.to_nano(model, X, calibrate=X, correct=False)
    expected = nano.compare(model, X)
    nano.save(tmp_path / "a.nanomodel")
    assert tn.load(tmp_path / "a.nanomodel").compare(model, X) == expected
    qat = tn.prepare_qat(model, X, calibrate=X)
    assert qat.compare(X) == expected
    assert qat.to_nano().compare(qat, X) == expected


def test_a_trainable_head_is_compared_as_it_is() -> None:
    model = make(ConvNet1d)
    tn.freeze(model, "features")
    nano = tn.to_nano(model, X, calibrate=X)
    y = torch.arange(64) % 5
    report = nano.compare(model, (X, y))
    assert "classifier" not in [layer.module_path for layer in report.layers]
    assert nano.head is not None and report.outputs[0].sqnr > 20
    nano.head.fit(nano.features_int8(X), y, epochs=5)
    (output,) = nano.compare(model, (X, y)).outputs
    assert output.int8_accuracy == float((nano(X).argmax(1) == y).double().mean())
    assert output.sqnr < report.outputs[0].sqnr


def test_what_a_head_has_learnt_is_no_loss() -> None:
    model = make(ConvNet1d)
    tn.freeze(model, "features")
    nano = tn.to_nano(model, X, calibrate=X, head=tn.heads.LDA(capacity=5))
    assert nano.head is not None
    nano.head.fit(nano.features_int8(X), torch.arange(64) % 5)
    report = nano.compare(model, X)
    assert report.outputs[0].sqnr < 10 and report.least_sqnr > 20 and not report.advice
    assert f"features of the trainable head: SQNR {report.least_sqnr:.1f} dB" in str(report)


class Total(nn.Module):
    """A sum of all inputs."""

    def forward(self, *inputs: Tensor) -> Tensor:
        return torch.stack(inputs).sum(0)


def test_inputs_without_names_of_their_own_are_compared() -> None:
    data = torch.randn(64, 4), torch.randn(64, 4)
    nano = tn.to_nano(Total(), data, calibrate=data)
    assert nano.compare(Total(), data).outputs[0].sqnr > 30


class Pair(nn.Module):
    """Two inputs, and a dict of two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.of_a, self.of_b = nn.Linear(4, 3), nn.Linear(5, 3)

    def forward(self, a: Tensor, b: Tensor) -> dict[str, Tensor]:
        left, right = self.of_a(a), self.of_b(b)
        return {"sum": left + right, "left": left}


def test_several_inputs_and_outputs() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(40, 4), torch.randn(40, 5)
    model = Pair()
    nano = tn.to_nano(model, (a, b), calibrate=(a, b))
    report = nano.compare(model, {"a": a, "b": b})
    assert [output.name for output in report.outputs] == ["sum", "left"]
    assert {layer.value for layer in report.layers if layer.operator == "input"} == {"a", "b"}
    assert report == nano.compare(model, (a, b))


class Sum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.of_a, self.of_b = nn.Linear(4, 3), nn.Linear(5, 3)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.of_a(a) + self.of_b(b)


A, B, LABELS = torch.randn(40, 4), torch.randn(40, 5), torch.arange(40) % 3


@pytest.mark.parametrize(
    "data",
    [
        (A, B, LABELS),
        ((A, B), LABELS),
        ([A, B], LABELS),
        ({"a": A, "b": B}, LABELS),
        ((A.numpy(), B.numpy()), LABELS.numpy()),
        [((A[:16], B[:16]), LABELS[:16]), ((A[16:], B[16:]), LABELS[16:])],
        DataLoader([((a, b), y) for a, b, y in zip(A, B, LABELS, strict=True)], 16),  # type: ignore[arg-type]
        DataLoader([({"a": a, "b": b}, y) for a, b, y in zip(A, B, LABELS, strict=True)], 16),  # type: ignore[arg-type]
    ],
    ids=["flat", "tuple", "list", "dict", "arrays", "batches", "loader", "loader of dicts"],
)
def test_labels_follow_several_inputs_in_every_form(data: Any) -> None:
    torch.manual_seed(0)
    model = Sum()
    nano = tn.to_nano(model, (A, B), calibrate=data, check=False)
    expected = tn.to_nano(model, (A, B), calibrate=(A, B), check=False)
    assert nano.input_quantizations == expected.input_quantizations
    (output,) = nano.compare(model, data).outputs
    with torch.no_grad():
        assert output.float_accuracy == float((model(A, B).argmax(1) == LABELS).double().mean())


@pytest.mark.parametrize(
    "data,error,message",
    [
        (torch.zeros(0, 3, 40), tn.errors.InputError, "comparison data is empty"),
        ([], tn.errors.InputError, "comparison data is empty"),
        (torch.full((2, 3, 40), math.nan), tn.errors.NonFiniteError, "comparison data: the input .*NaN"),
        (torch.zeros(2, 3, 41), tn.errors.InputError, r"a comparison batch has shape \(2, 3, 41\)"),
        ((X, torch.zeros(63, dtype=torch.int64)), tn.errors.InputError, "64 samples and 63 labels"),
        ((X, torch.zeros(64, 5, dtype=torch.int64)), tn.errors.InputError, r"labels have shape \(64, 5\)"),
        ((X, torch.arange(64) % 6), tn.errors.InputError, "labels hold 5; expected 0 to 4"),
        ((X, torch.arange(64) % 5 - 1), tn.errors.InputError, "labels hold -1; expected 0 to 4"),
        (3, tn.errors.InputError, "comparison data is a int"),
    ],
)
def test_wrong_data_is_refused(
    nano: tn.NanoModule, conv_net: nn.Module, data: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        nano.compare(conv_net, data)


def test_another_model_is_refused(nano: tn.NanoModule, conv_net: nn.Module) -> None:
    del conv_net
    other = make(ConvNet1d)
    other.features[4] = nn.Conv1d(8, 16, 3, padding=1, stride=1, dilation=1, groups=2)
    with pytest.raises(tn.errors.InputError, match=r"not the one .*'features.4' \(conv2d\) differs"):
        nano.compare(other, X)
    longer = nn.Sequential(make(ConvNet1d), nn.Softmax(1))
    with pytest.raises(tn.errors.InputError, match="not the one that this was made from"):
        nano.compare(longer, X)
    wider = nn.Sequential(nn.Flatten(), nn.Linear(120, 5))
    with pytest.raises(tn.errors.InputError, match="not the one that this was made from"):
        nano.compare(wider, X)


def _head_model(hidden: int = 8, classes: int = 3) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, hidden), nn.ReLU(), nn.Linear(hidden, classes)
    )


@pytest.mark.parametrize("train_last", [1, 2])
@pytest.mark.parametrize(
    "other,message",
    [
        (_head_model(classes=4), r"(returns \[4\].* and \[3\] in int8|'4' \(fully_connected\) differs)"),
        (_head_model(hidden=9), r"'2' \(fully_connected\) differs"),
        (_head_model()[:4], "it ends in .*, and this in .*'4'"),
        (_head_model().append(nn.ReLU()), r"'4' \(fully_connected\) differs"),
        (_head_model().append(nn.Linear(3, 3)), "it ends in .*'4', '5', and this in .*'4'"),
    ],
    ids=["classes", "width", "without head", "clamped", "longer"],
)
def test_a_model_with_another_head_is_refused(train_last: int, other: nn.Module, message: str) -> None:
    model, x = _head_model(), torch.randn(40, 4)
    tn.freeze(model, "0", "2")
    nano = tn.to_nano(model, x, calibrate=x, train_last=train_last, check=False)
    assert nano.compare(model, x).samples == 40
    with pytest.raises(tn.errors.InputError, match=message):
        nano.compare(other, x)


def test_labels_of_an_argmax_are_its_classes() -> None:
    class Classes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x).argmax(1)

    model, x = Classes(), torch.randn(40, 4)
    nano = tn.to_nano(model, x, calibrate=x, check=False)
    with pytest.raises(tn.errors.InputError, match="labels hold 3; expected 0 to 2"):
        nano.compare(model, (x, torch.arange(40) % 4))
    with pytest.raises(tn.errors.InputError, match="labels hold -1"):
        nano.compare(model, (x, torch.arange(40) % 3 - 1))


def test_the_model_of_a_stream_is_refused() -> None:
    model = nn.Sequential(nn.Conv1d(3, 4, 3), nn.ReLU())
    nano = tn.to_nano(model, X, calibrate=X)
    with pytest.raises(tn.errors.StreamError, match="compare the model over the window"):
        nano.stream().nano.compare(model, X)
