"""One of two processes that train a network together: `python -m torch.distributed.run ddp_worker.py OUT`."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
import torch_nano as tn
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

STEPS, BATCH = 4, 64


def network() -> tuple[tn.qat.QatModule, Tensor, Tensor]:
    """A network with frozen ranges, and the batches of all steps."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(STEPS, BATCH, 2, 8, 8, generator=generator)
    y = torch.randint(0, 5, (STEPS, BATCH), generator=generator)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 6 * 6, 5)
        )
    qat = tn.prepare_qat(model, x[0, :2], calibrate=x[0])
    tn.qat.freeze_ranges(qat.train())
    return qat, x, y


def train(model: nn.Module, x: Tensor, y: Tensor) -> None:
    """SGD on one batch after the other."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    for batch, labels in zip(x, y, strict=True):
        optimizer.zero_grad()
        F.cross_entropy(model(batch), labels).backward()
        optimizer.step()


def main() -> None:
    """Trains on this process's half of each batch, and writes the weights it ends with."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, half = dist.get_rank(), BATCH // 2
    qat, x, y = network()
    rows = slice(rank * half, (rank + 1) * half)
    parallel = DistributedDataParallel(qat)
    train(parallel, x[:, rows], y[:, rows])
    torch.save({"weights": qat.state_dict(), "image": tn.to_nano(parallel).image}, f"{sys.argv[1]}.{rank}")
    dist.destroy_process_group()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
