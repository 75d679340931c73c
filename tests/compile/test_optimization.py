"""The choice of kernels: goal, budget, saved model, summary."""

from pathlib import Path

import pytest
import torch
import torch_nano as tn
from torch import nn
from torch_nano.compile.optimization import Goal
from torch_nano.fits.program import program_sizes


def _net() -> nn.Sequential:
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


@pytest.mark.parametrize("goal", ["speed", "flash", "ram"])
def test_each_goal_keeps_a_budget_or_says_what_it_needs(goal: Goal) -> None:
    free = _nano(optimize=goal)
    smallest, least = _nano(optimize="flash"), _nano(optimize="ram")
    for flash in {smallest.flash_bytes, (smallest.flash_bytes + free.flash_bytes) // 2, free.flash_bytes - 1}:
        if flash >= smallest.flash_bytes:
            assert _nano(optimize=goal, budget={"flash": flash}).flash_bytes <= flash
    for ram in {least.arena_bytes, (least.arena_bytes + free.arena_bytes) // 2, free.arena_bytes - 1}:
        if ram >= least.arena_bytes:
            assert _nano(optimize=goal, budget={"ram": ram}).arena_bytes <= ram
    with pytest.raises(
        tn.errors.TooLargeError, match=r"budget\['flash'\] is 100 B, and the image .* needs [\d,]+"
    ):
        _nano(optimize=goal, budget={"flash": 100})
    with pytest.raises(tn.errors.TooLargeError, match=r"budget\['ram'\] is 10 B, and the arena"):
        _nano(optimize=goal, budget={"ram": 10})


def test_a_budget_is_used() -> None:
    fast, small = _nano(), _nano(optimize="flash")
    between = _nano(budget={"flash": fast.flash_bytes - 1})
    assert small.flash_bytes <= between.flash_bytes < fast.flash_bytes


def test_a_kernel_that_saves_little_time_is_not_linked() -> None:
    torch.manual_seed(0)
    convolutions = [nn.Conv2d(16, 64, 3, stride=2), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU()]
    net = nn.Sequential(*_net()[:2], *convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
    summary = tn.to_nano(net.eval(), X[:2], calibrate=X[:16], head=None).summary(kernels=True)
    assert summary.kernels is not None
    costs = {one.kernel: one.cycles for one in summary.kernels[-1]}
    assert costs["fully_connected_pairs"] < costs["fully_connected"]
    (chosen,) = (one.kernel for one in summary.kernels[-1] if one.chosen)
    kernels = {layer.kernel for layer in summary.layers} - {chosen}
    pairs, rows = (
        program_sizes(kernels | {kernel}, None).code
        for kernel in ("fully_connected_pairs", "fully_connected")
    )
    assert pairs > rows and chosen == "fully_connected"


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
