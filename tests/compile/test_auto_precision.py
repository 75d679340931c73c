"""precision="auto": 16 bits for the fewest layers that bring the outputs to a target."""

from __future__ import annotations

import ast
import itertools
import re
import warnings
from collections.abc import Callable

import pytest
import torch
import torch_nano as tn
from torch import Tensor, nn
from torch_nano.comparison.rounding import worst_sqnr

X = torch.randn(256, 6, generator=torch.Generator().manual_seed(0))


class Chain(nn.Module):
    """Five linear layers; between the third and the fourth one number takes the range of all others.

    Equalization would scale the others, so the tests leave it out (`correct=False`).
    """

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        sizes = (6, 24, 24, 24, 24, 4)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        with torch.no_grad():
            self.layers[2].weight[0] *= 500
            self.layers[3].weight[:, 0] = 0

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.tanh(layer(x)) if layer is self.layers[0] else layer(x)
        return x


def measured(nano: tn.NanoModule, model: nn.Module, x: Tensor = X) -> float:
    """dB of the output on data."""
    return worst_sqnr(nano.compare(model, x).outputs)


def test_the_layers_around_the_outlier_get_16_bits_and_no_others() -> None:
    # Equalization would scale the outlier away.
    model = Chain().eval()
    before = tn.to_nano(model, X[:2], calibrate=X, correct=False, check=False)
    nano = tn.to_nano(model, X[:2], calibrate=X, correct=False, precision="auto")
    assert nano.precision == {"layers.2": "int16", "layers.3": "int16"}
    assert measured(before, model) < 10 and measured(nano, model) > 20
    assert nano.verify("host") and nano.verify("rv32imc")
    again = tn.to_nano(model, X[:2], calibrate=X, correct=False, precision=nano.precision)
    assert again.id == nano.id
    assert tn.to_nano(model, X[:2], calibrate=X, correct=False, precision="auto").id == nano.id


def test_equalized_channels_need_no_16_bits() -> None:
    assert tn.to_nano(Chain().eval(), X[:2], calibrate=X, precision="auto").precision == {}


def test_the_advice_of_a_comparison_is_the_same_argument_and_gains() -> None:
    model = Chain().eval()
    nano = tn.to_nano(model, X[:2], calibrate=X, correct=False, check=False)
    before = nano.compare(model, X)
    # Of the layers after them most channels use few levels too, but that costs nothing more.
    (line,) = before.advice
    found = line.split("precision=")[1].split(", or ")[0]
    assert ast.literal_eval(found) == {"layers.2": "int16", "layers.3": "int16"}
    advised = tn.to_nano(model, X[:2], calibrate=X, correct=False, precision=ast.literal_eval(found))
    assert measured(advised, model) > worst_sqnr(before.outputs) + 10


def test_a_higher_target_takes_more_layers() -> None:
    model = Chain().eval()
    few = tn.to_nano(model, X[:2], calibrate=X, correct=False, precision="auto")
    more = tn.to_nano(model, X[:2], calibrate=X, correct=False, precision="auto", target_sqnr=42)
    assert set(few.precision) < set(more.precision) and measured(more, model) > measured(few, model)


def test_an_accurate_model_stays_in_8_bits() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    nano = tn.to_nano(model, X[:2], calibrate=X, precision="auto")
    assert nano.precision == {} and nano.id == tn.to_nano(model, X[:2], calibrate=X).id


def test_a_target_out_of_reach_is_warned_of_with_how_far_it_got() -> None:
    model = Chain().eval()
    with pytest.warns(
        tn.errors.AccuracyWarning,
        match=r"bring the outputs to (\d+\.\d) dB .* is 90.0.* rest is lost in the weights'",
    ) as found:
        nano = tn.to_nano(model, X[:2], calibrate=X, correct=False, precision="auto", target_sqnr=90)
    assert len(found) == 1
    best = float(str(found[0].message).split("outputs to ")[1].split(" dB")[0])
    assert measured(nano, model, X[::8]) > best - 3 and nano.verify("rv32imc")


def test_a_head_is_left_out() -> None:
    model = Chain().eval()
    tn.freeze(model, "layers.0", "layers.1", "layers.2", "layers.3")
    nano = tn.to_nano(model, X[:2], calibrate=X, correct=False, precision="auto", target_sqnr=25)
    assert nano.head_path == "layers.4" and "layers.4" not in nano.precision and nano.precision
    assert nano.output_quantization.dtype == "int8" and nano.verify("rv32imc")


def test_layers_without_such_kernels_stay_in_8_bits_and_are_named() -> None:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(6, 16), nn.LayerNorm(16), nn.Linear(16, 4)).eval()
    expected = r"layer_norm of '1' has no 16 bits, and the values that stay in 8 keep (\d+\.\d) dB"
    with pytest.warns(tn.errors.AccuracyWarning, match=rf"target is 70.*; {expected}") as found:
        nano = tn.to_nano(model, X[:2], calibrate=X, precision="auto", target_sqnr=70)
    assert "1" not in nano.precision and nano.verify("rv32imc")
    kept = re.search(expected, str(found[0].message))
    # All else is small: the weights' rounding, and the normalization's own.
    assert kept is not None and abs(float(kept[1]) - measured(nano, model)) < 3


def test_training_finds_the_same_layers() -> None:
    model = Chain().eval()
    qat = tn.prepare_qat(model, X[:2], calibrate=X, precision="auto")
    nano = qat.eval().to_nano()
    assert nano.precision == {"layers.2": "int16", "layers.3": "int16"}
    assert torch.equal(qat(X), nano(X)) and nano.verify("rv32imc")
    assert measured(nano, model) > 20
    more = tn.prepare_qat(model, X[:2], calibrate=X, precision="auto", target_sqnr=42).to_nano()
    assert set(nano.precision) < set(more.precision)
    qat.train()(X).square().mean().backward()
    assert all(parameter.grad is not None for parameter in qat.parameters())


def test_training_needs_data_to_find_layers() -> None:
    with pytest.raises(tn.errors.InputError, match=r"precision='auto' compares .*: give calibrate="):
        tn.prepare_qat(Chain(), X[:2], precision="auto")


@pytest.mark.parametrize("prepare", [tn.to_nano, tn.prepare_qat])
def test_channels_are_warned_of_only_if_the_input_stays_in_8_bits(
    prepare: Callable[..., tn.NanoModule | tn.qat.QatModule],
) -> None:
    units = torch.tensor([1000.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    model = nn.Linear(6, 4).eval()
    with torch.no_grad():
        # Weights that int8 holds exactly.
        model.weight.copy_(torch.arange(24).reshape(4, 6) - 12)
        model.weight[:, 0] = 127
    x = X * units
    with pytest.warns(tn.errors.ChannelRangeWarning, match="int8 has one scale"):
        prepare(model, x[:2], calibrate=x, precision="auto", target_sqnr=0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = prepare(model, x[:2], calibrate=x, precision="auto", target_sqnr=60)
    nano = made if isinstance(made, tn.NanoModule) else made.to_nano()
    assert nano.input_quantization.dtype == "int16"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_sqnr": 20}, "target_sqnr is 20 and precision None; it is the target of precision='auto'"),
        ({"precision": "auto", "target_sqnr": -1}, "target_sqnr is -1; expected a finite number above 0"),
        ({"precision": "Auto"}, "precision is 'Auto'; expected a dict .* or 'auto'"),
    ],
)
def test_a_wrong_target_is_refused(options: dict[str, object], message: str) -> None:
    for prepare in (tn.to_nano, tn.prepare_qat):
        with pytest.raises(tn.errors.InputError, match=message):
            prepare(Chain(), X[:2], calibrate=X, **options)  # type: ignore[operator]
