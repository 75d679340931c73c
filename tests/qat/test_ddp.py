"""Two processes that train together end with the weights of one that has the whole batch."""

import os
import subprocess
import sys
from pathlib import Path

import torch

from . import ddp_worker


def test_two_processes_are_one_with_the_doubled_batch(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    result = subprocess.run(
        [*command, ddp_worker.__file__, str(tmp_path / "rank")],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stderr
    first, second = (torch.load(tmp_path / f"rank.{rank}") for rank in (0, 1))
    assert first["image"] == second["image"]
    for name, tensor in first["weights"].items():
        assert torch.equal(tensor, second["weights"][name]), name
    qat, x, y = ddp_worker.network()
    before = {name: parameter.detach().clone() for name, parameter in qat.named_parameters()}
    ddp_worker.train(qat, x, y)
    for name, parameter in qat.named_parameters():
        moved = float((parameter - before[name]).detach().abs().max())
        difference = float((parameter - first["weights"][name]).detach().abs().max())
        # The means of two halves are in another order: float32 roundings, each step on those before.
        assert difference <= 1e-5 * moved + 1e-8 and moved > 1e-3, f"{name}: {difference} of {moved}"
    for name, buffer in qat.named_buffers():
        assert torch.equal(buffer, first["weights"][name]), name
