"""The example of a board of one's own, a program of the device crate over TCP, serves the Python client."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch_nano as tn

from .tiny_model import tiny_model

DEVICE = Path(__file__).resolve().parents[2] / "esp32-app/device/Cargo.toml"


@contextmanager
def own_board(image: Path) -> Iterator[str]:
    """The example's address while it runs."""
    # In the tests' profile its crates are compiled already.
    cargo = ["cargo", "run", "--quiet", "--locked", "--profile", "test", "--manifest-path", DEVICE]
    command = [*cargo, "--example", "own_board", image, "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as program:
        assert program.stdout is not None
        try:
            said = program.stdout.readline()
            address = re.search(r"^serving tiny on (127\.0\.0\.1:\d+)$", said)
            assert address, said
            yield f"socket://{address[1]}"
        finally:
            # Cargo and what it runs.
            os.killpg(program.pid, 9)


def test_a_board_of_ones_own_predicts_and_learns_over_tcp(tmp_path: Path) -> None:
    nano = tiny_model()
    nano.export(tmp_path)
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(12, 1, 8, 8, generator=generator), torch.arange(12) % 3
    with own_board(tmp_path / "model.nano") as address:
        with tn.Device(address, nano=nano) as device:
            device.fit(x, y, epochs=5)
            predicted = [device.predict(sample).label for sample in x]
            device.save()
        # The next PC finds what the one before has taught.
        with tn.Device(address, nano=nano) as device:
            state = device.head_state()
    nano.head.fit(nano.features_int8(x), y, epochs=5)
    assert state == nano.head.state()
    assert predicted == nano(x).argmax(1).tolist()
