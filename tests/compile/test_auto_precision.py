"""precision="auto": 16 bits for the fewest layers that bring the outputs to a target."""

from __future__ import annotations

import itertools

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


def test_the_advice_of_a_comparison_is_the_same_argument() -> None:
    model = Chain().eval()
    nano = tn.to_nano(model, X[:2], calibrate=X, correct=False, check=False)
    advice = "\n".join(nano.compare(model, X).advice)
    assert "precision={'layers.2': 'int16', 'layers.3': 'int16'}" in advice


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
    with pytest.warns(tn.AccuracyWarning, match=r"bring the outputs to (\d+\.\d) dB .* is 90.0") as found:
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


def test_layers_without_such_kernels_stay_in_8_bits() -> None:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(6, 16), nn.LayerNorm(16), nn.Linear(16, 4)).eval()
    with pytest.warns(tn.AccuracyWarning, match="the target is 70"):
        nano = tn.to_nano(model, X[:2], calibrate=X, precision="auto", target_sqnr=70)
    assert "1" not in nano.precision and nano.verify("rv32imc")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_sqnr": 20}, "target_sqnr is 20 and precision None; it is the target of precision='auto'"),
        ({"precision": "auto", "target_sqnr": -1}, "target_sqnr is -1; expected a finite number above 0"),
        ({"precision": "Auto"}, "precision is 'Auto'; expected a dict .* or in to_nano 'auto'"),
    ],
)
def test_a_wrong_target_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(tn.InputError, match=message):
        tn.to_nano(Chain(), X[:2], calibrate=X, **options)  # type: ignore[arg-type]
