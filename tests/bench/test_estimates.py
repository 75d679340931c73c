"""The image writer's estimates, by which kernels are chosen, against the counts of the emulated board."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import torch_nano as tn

ROOT = Path(__file__).resolve().parents[2]
# Where the stories' models are.
sys.path.insert(0, str(ROOT / "python-plugin/examples"))

from device_board import CHIP, SEED, to_nano  # noqa: E402
from device_models import MODELS, module_of  # noqa: E402
from torch_nano.chips import chip  # noqa: E402

#: How far an estimate may be from a count.
SHARE = 0.05
#: Lines of code that a layer may find in the flash cache, or not, in addition. The linker decides which lines
#: share a set of the cache: with an unrelated change of the program, layers waited for up to 30 lines more or
#: fewer. In a layer of 2,000 instructions that is more than half of its cycles.
LINES = 32


@pytest.mark.parametrize("name", MODELS)
def test_each_layer_takes_what_was_estimated(name: str) -> None:
    torch.manual_seed(SEED)
    nano = to_nano(*module_of(name))
    x = torch.randn(1, *nano.input_shape, generator=torch.Generator().manual_seed(SEED + 1))
    summary, profile = nano.summary(kernels=True), nano.profile(CHIP, x)
    assert summary.kernels is not None
    of_line = _cycles_of_line()
    estimated = counted = 0
    missed = []
    # A trainable head is the last layer, and not estimated.
    for row, kernels, made in zip(summary.layers, summary.kernels, profile.layers, strict=False):
        (chosen,) = (one for one in kernels if one.chosen)
        instructions, cycles = made.counts.instructions, made.counts.cycles
        if (
            abs(chosen.instructions - instructions) > SHARE * instructions
            or abs(chosen.cycles - cycles) > SHARE * cycles + LINES * of_line
        ):
            missed.append(f"{row.kernel} of {row.module_path}: {chosen}, counted {made.counts}")
        estimated, counted = estimated + chosen.cycles, counted + cycles
    assert not missed, "\n".join([f"{name}: more than {SHARE:.0%} from the count:", *missed])
    assert abs(estimated - counted) <= SHARE * counted


def _cycles_of_line() -> float:
    costs, cache = chip(CHIP).costs, chip(CHIP).cache
    assert costs is not None
    assert cache.line is not None
    return costs.flash_request + costs.flash_first_word + costs.flash_next_word * (cache.line // 4 - 1)


def test_the_summary_says_of_which_chip_the_cycles_are() -> None:
    x = torch.randn(64, 4)
    nano = tn.to_nano(torch.nn.Linear(4, 3), x, calibrate=x, target="esp32c6", check=False)
    text = str(nano.summary(kernels=True))
    assert "kernels are chosen by estimated cycles of the ESP32-C3, also for other chips" in text
