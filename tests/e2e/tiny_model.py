"""A tiny model for the firmware: `python tests/e2e/tiny_model.py FOLDER` exports it."""

from __future__ import annotations

import sys

import torch
import torch_nano as tn
from torch import nn


def tiny_model() -> tn.NanoModule:
    """One convolution in flash, a trainable head of 3 classes in RAM."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 6, 3))
    x = torch.randn(32, 1, 8, 8)
    return tn.to_nano(model, x, calibrate=x, head="3", name="tiny")


def motion_model() -> tn.NanoModule:
    """One convolution over 50 samples of an inertial measurement unit, and a trainable head of 3 classes."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(6, 8, 5), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 46, 3))
    x = torch.randn(32, 6, 50)
    return tn.to_nano(model, x, calibrate=x, head="3", name="motion")


if __name__ == "__main__":
    tiny_model().export(sys.argv[1])
