"""A small classification task, and models for it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SEED = 20


def data(samples: int = 96, seed: int = SEED) -> tuple[Tensor, Tensor]:
    """Points of 6 features in 3 classes, which a small network learns in a few epochs."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, 6, generator=generator)
    return x, x[:, :3].argmax(1)


def network(seed: int = SEED) -> nn.Sequential:
    """Batch norm, dropout and two parts, "backbone" and "head"."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2))
        model = nn.Sequential()
        model.add_module("backbone", backbone)
        model.add_module("head", nn.Linear(16, 3))
        return model


def state(model: nn.Module) -> dict[str, Tensor]:
    """A copy of all parameters and buffers."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Whether two states are the same, bit for bit; NaN equals NaN."""
    return first.keys() == second.keys() and all(
        torch.equal(
            first[name].contiguous().view(-1).view(torch.uint8),
            second[name].contiguous().view(-1).view(torch.uint8),
        )
        for name in first
    )
