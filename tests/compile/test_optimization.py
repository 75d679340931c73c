"""The choice of kernels: goal, budget, saved model, summary."""

from pathlib import Path

import pytest
import torch
import torch_nano as tn
from torch import nn


def _net() -> nn.Module:
    """Its first convolution is fastest with transformed weights, of 8 bytes per weight."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 4, 1)).eval()


X = torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def _nano(**options: object) -> tn.NanoModule:
    nano: tn.NanoModule = tn.to_nano(_net(), X[:2], calibrate=X, head=None, **options)  # type: ignore[arg-type]
    return nano


def _kernels(nano: tn.NanoModule) -> list[str]:
    return [layer.kernel for layer in nano.summary().layers]


def test_the_smallest_image_has_the_same_outputs_as_the_fastest() -> None:
    fast, small = _nano(), _nano(optimize="flash")
    assert small.flash_bytes < fast.flash_bytes - 1500
    assert "conv2d_winograd4_transformed" in _kernels(fast)
    assert "conv2d_winograd4_transformed" not in _kernels(small)
    assert torch.equal(fast(X), small(X))
    estimated = [
        sum(one.instructions for layer in summary.kernels or () for one in layer if one.chosen)
        for summary in (fast.summary(kernels=True), small.summary(kernels=True))
    ]
    assert estimated[0] < estimated[1]


def test_a_budget_is_kept() -> None:
    fast, small = _nano(), _nano(optimize="flash")
    between = _nano(budget={"flash": fast.flash_bytes - 1})
    assert small.flash_bytes <= between.flash_bytes < fast.flash_bytes
    with pytest.raises(
        tn.errors.TooLargeError, match=r"budget\['flash'\] is 100 B, and the image .* needs [\d,]+"
    ):
        _nano(budget={"flash": 100})
    with pytest.raises(tn.errors.TooLargeError, match=r"budget\['ram'\] is 10 B, and the arena"):
        _nano(budget={"ram": 10})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimize": "size"}, "optimize is 'size'; expected one of speed, flash, ram"),
        ({"budget": 1000}, "budget is 1000; expected bytes by name"),
        ({"budget": {"rom": 5}}, "expected bytes by name"),
        ({"budget": {"flash": -1}}, r"budget\['flash'\] is -1"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(tn.errors.InputError, match=message):
        _nano(**options)


def test_a_saved_model_keeps_the_choice(tmp_path: Path) -> None:
    fast = _nano()
    limited = _nano(optimize="speed", budget={"flash": fast.flash_bytes - 1, "ram": 25_000})
    limited.save(tmp_path / "limited.nanomodel")
    loaded = tn.load(tmp_path / "limited.nanomodel")
    assert loaded.image == limited.image
    assert loaded.optimization == limited.optimization
    assert loaded.optimization.ram == 25_000


def test_quantization_aware_training_takes_the_options() -> None:
    qat = tn.prepare_qat(_net(), X[:2], calibrate=X)
    qat.eval()
    assert _kernels(qat.to_nano(optimize="flash")) == _kernels(_nano(optimize="flash")) != _kernels(_nano())


def test_the_summary_shows_the_kernels() -> None:
    nano = _nano()
    text = str(nano.summary(kernels=True))
    assert "or conv2d" in text and "estimated" in text
    kernels = nano.summary(kernels=True).kernels
    assert kernels is not None and [sum(one.chosen for one in layer) for layer in kernels] == [1, 1]
    assert nano.summary().kernels is None
