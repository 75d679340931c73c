"""Networks that many tests share."""

import fcntl
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import ConvNet1d, inputs, make
from torch import nn
from torch_nano import NanoModule, to_nano
from torch_nano.capture.passes import optimize
from torch_nano.compile import to_nano as stages
from torch_nano.ir.graph import Graph

# A process that a script starts in the background ignores Ctrl-C, which some tests wait for.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Most layers of tests are small: more threads only wait for each other, and for those of other workers.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def conv_net() -> nn.Module:
    """A trained-looking 1-D CNN; not to be changed."""
    return make(ConvNet1d)


@pytest.fixture(scope="session")
def nano(conv_net: nn.Module) -> NanoModule:
    """It without a trainable head; not to be changed."""
    x = inputs((3, 40), 64)
    return to_nano(conv_net, x, calibrate=x, labels=list("abcde"), name="conv net")


@pytest.fixture
def optimized(monkeypatch: pytest.MonkeyPatch) -> list[Graph]:
    """The graphs that `to_nano` makes in the test, before they are quantized.

    To capture a model once more would take most of a test's time.
    """
    graphs: list[Graph] = []

    def kept(*arguments: Any, **settings: Any) -> Graph:
        graphs.append(optimize(*arguments, **settings))
        return graphs[-1]

    monkeypatch.setattr(stages, "optimize", kept)
    return graphs


@pytest.fixture
def firmware_build() -> Iterator[None]:
    """Held by a test that builds the firmware, for as long as it needs the program: all link to one file."""
    with (Path(__file__).parents[1] / "esp32-app/Cargo.toml").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
