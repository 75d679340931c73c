"""What a comparison prints, draws and advises."""

import ast
import sys
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
import torch_nano as tn
from matplotlib import pyplot
from networks import ConvNet1d, inputs, make
from torch import Tensor, nn

X = inputs((3, 40), 64)


def advice(model: nn.Module, calibrate: Tensor, x: Tensor) -> str:
    return "\n".join(tn.to_nano(model, x[:2], calibrate=calibrate, check=False).compare(model, x).advice)


def test_the_table_is_compact_and_names_every_layer(nano: tn.NanoModule, conv_net: nn.Module) -> None:
    report = nano.compare(conv_net, (X, conv_net(X).argmax(1)))
    lines = str(report).splitlines()
    assert max(map(len, lines)) <= 110
    for layer in report.layers:
        assert any((layer.module_path or layer.value) in line for line in lines)
    assert lines[-2] == "64 samples"
    assert lines[-1].startswith("output: SQNR ") and "accuracy 100.0% in float" in lines[-1]


def test_the_plot_has_a_line_for_each_error(nano: tn.NanoModule, conv_net: nn.Module) -> None:
    report = nano.compare(conv_net, X)
    ax = pyplot.subplots()[1]
    assert report.plot(ax) is ax
    by_position = sorted(report.layers, key=lambda layer: layer.position)
    own, network = ax.get_lines()
    assert list(own.get_ydata()) == [layer.own_sqnr for layer in by_position]
    assert list(network.get_ydata()) == [layer.sqnr for layer in by_position]
    pyplot.close(ax.figure)


@pytest.mark.parametrize("layers", [5, 60, 400])
def test_names_in_the_plot_do_not_overlap(nano: tn.NanoModule, conv_net: nn.Module, layers: int) -> None:
    report = nano.compare(conv_net, X)
    one = replace(report.layers[0], module_path="features.17.conv.0")
    many = tuple(replace(one, position=position) for position in range(layers))
    given = pyplot.subplots()[1]
    for ax in (replace(report, layers=many).plot(), replace(report, layers=many).plot(given)):
        ax.figure.canvas.draw()
        boxes = [label.get_window_extent() for label in ax.get_xticklabels()]
        assert len(boxes) >= min(layers, 20)
        assert all(left.x1 <= right.x0 for left, right in pairwise(boxes))
        pyplot.close(ax.figure)


def test_without_matplotlib_the_message_says_what_to_install(
    nano: tn.NanoModule, conv_net: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = nano.compare(conv_net, X)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(tn.errors.MissingPackageError, match=r"pip install torch-nano\[plot\]"):
        report.plot()


def test_input_channels_that_use_few_levels_are_named() -> None:
    x = X * torch.tensor([1.0, 0.01, 0.01])[:, None]
    with pytest.warns(tn.errors.ChannelRangeWarning):
        assert "input 'x': channels 1-2 use " in advice(make(ConvNet1d), x, x)


def test_saturation_is_told_from_outliers() -> None:
    model = nn.Sequential(nn.Conv1d(3, 4, 5), nn.ReLU())
    assert "% of its numbers saturate: calibrate with data like these" in advice(model, X, 4 * X)
    outlier = torch.cat([X, 300 * X[:1]])
    assert "input 'input': outliers take the range" in advice(model, outlier, X)


def test_a_layer_that_loses_by_itself_is_to_be_trained() -> None:
    # The mean of many numbers around 0 is less than a step of their scale.
    torch.manual_seed(0)
    model, x = (
        nn.Sequential(nn.Conv1d(3, 4, 1, bias=False), nn.AdaptiveAvgPool1d(1)),
        torch.randn(64, 3, 2048),
    )
    found = advice(model, x, x)
    assert "layer '1': keeps only" in found and "(tn.prepare_qat)" in found and "outliers" not in found


class Decibels(nn.Module):
    """The logarithm of energies over four decades."""

    def __init__(self, least: float) -> None:
        super().__init__()
        self.least = least

    def forward(self, x: Tensor) -> Tensor:
        return 10 * torch.log10(x.square().mean(2) + self.least)


def test_a_function_that_is_too_steep_for_a_table_is_named_with_a_way_out() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 4, 32, generator=generator)
    x = x * 10 ** (2 * torch.rand(64, 4, 1, generator=generator) - 1)
    found = advice(Decibels(1e-4), x, x)
    assert "too steep" in found and "(tn.prepare_qat)" not in found
    assert "too steep" not in advice(Decibels(float(x.square().mean(2).max()) / 10), x, x)


def test_infinities_of_numbers_that_are_rounded_to_zero_leave_the_figures_finite() -> None:
    class Logarithm(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.log()

    x = 10 ** (4 * torch.rand(64, 16, generator=torch.Generator().manual_seed(0)) - 2)
    report = tn.to_nano(Logarithm(), x, calibrate=x, check=False).compare(Logarithm(), x)
    (table,) = [layer for layer in report.layers if layer.operator == "table"]
    assert 30 < table.own_sqnr < 100


class ClassToken(nn.Module):
    """A token that is the same for all samples, before one with much larger numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.linspace(-0.03, 0.04, 8).reshape(1, 1, 8))
        self.last = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        # The other tokens hardly count.
        result: Tensor = (self.last(tokens) * torch.tensor([1.0, 0.01, 0.01, 0.01, 0.01])[:, None]).sum(1)
        return result


def test_constants_are_not_taken_for_outliers() -> None:
    x = torch.randn(64, 4, 8, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    found = advice(ClassToken(), x, x)
    assert "dB by itself, in a range that it shares" in found and "percentile" not in found


class Recurrent(nn.Module):
    """An LSTM, whose cell state is int16 anyway, and classes of which most have small scores."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.recurrent, self.classifier = nn.LSTM(3, 8, batch_first=True), nn.Linear(8, 4)
        with torch.no_grad():
            self.classifier.weight[1:] *= 0.02
            self.classifier.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.classifier(self.recurrent(x)[0])
        return y


def test_16_bits_are_advised_where_they_exist_and_gain() -> None:
    model, x = Recurrent().eval(), torch.randn(64, 12, 3, generator=torch.Generator().manual_seed(0))
    nano = tn.to_nano(model, x[:2], calibrate=x, check=False)
    before = nano.compare(model, x)
    assert "3 of 4 channels use fewer than 16 levels: give it 16 bits" in "\n".join(before.advice)
    precision = ast.literal_eval(before.advice[0].split("precision=")[1].split(", or ")[0])
    assert precision == {"classifier": "int16"}
    advised = tn.to_nano(model, x[:2], calibrate=x, check=False, precision=precision).compare(model, x)
    assert advised.outputs[0].least_sqnr > before.outputs[0].least_sqnr + 0.5


def test_features_of_a_head_stay_in_8_bits() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 24), nn.Linear(24, 4))
    with torch.no_grad():
        model[0].weight[0] *= 500  # type: ignore[operator]
        model[1].weight[:, 0] = 0  # type: ignore[operator]
    tn.freeze(model, "0")
    x = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))
    nano = tn.to_nano(model, x[:2], calibrate=x, correct=False, check=False)
    found = nano.compare(model, x).advice
    assert nano.head_path == "1" and any("24 channels use fewer" in line for line in found)
    assert not any("16 bits" in line for line in found)


def test_errors_that_only_add_up_are_not_blamed_on_one_layer() -> None:
    torch.manual_seed(0)
    layers = [
        layer for _ in range(40) for layer in (nn.Linear(16, 16), nn.LeakyReLU(0.9), nn.BatchNorm1d(16))
    ]
    model, x = nn.Sequential(*layers), torch.randn(128, 16)
    for norm in layers[2::3]:
        norm.momentum = None
    with torch.no_grad():
        model.train()(x)
    (found,) = tn.to_nano(model.eval(), x, calibrate=x, check=False).compare(model, x).advice
    assert found.startswith("no layer stands out, the errors of ")


def test_a_good_model_needs_no_advice(nano: tn.NanoModule, conv_net: nn.Module) -> None:
    assert nano.compare(conv_net, X).advice == []
