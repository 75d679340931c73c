"""What the trainable heads of 64 features and 10 classes cost on the emulated rv32imc board."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch_nano as tn
from torch import nn

FEATURES, CLASSES, SAMPLES = 64, 10, 100
PARAMETERS = CLASSES * (FEATURES + 1)
SEED = 0


@dataclass(frozen=True)
class HeadResult:
    """One cost of one head; `limit` is what it may not exceed, None if it has none."""

    head: str
    cost: str
    value: float
    limit: float | None = None


def measure_heads() -> list[HeadResult]:
    """All costs.

    Raises:
        SystemExit: the board's heads are not the host's.
    """
    torch.manual_seed(SEED)
    model = nn.Sequential(nn.Linear(16, FEATURES), nn.ReLU(), nn.Linear(FEATURES, CLASSES))
    x = torch.randn(SAMPLES, 16)
    with tn.Device(tn.device.QemuBoard(tn.to_nano(model[:2], x, calibrate=x).image)) as device:
        backbone = device.predict(np.zeros(16, np.int8)).ticks
    results = []
    for settings in (tn.heads.SGD(), tn.heads.LDA(), tn.heads.Prototype()):
        nano = tn.to_nano(model, x, calibrate=x, head=settings)
        with tn.Device(tn.device.QemuBoard(nano.image)) as device:
            results += _sgd(nano, device, x) if isinstance(settings, tn.heads.SGD) else _sums(nano, device, x)
            ticks = device.predict(nano.device_inputs(x[:1])[0]).ticks - backbone
            name = type(nano.head).__name__
            limit = 5.0 if isinstance(settings, tn.heads.SGD) else None
            results.append(HeadResult(name, "instructions per parameter, forward", ticks / PARAMETERS, limit))
            if nano.head is None or device.head_state() != nano.head.state():
                raise SystemExit(f"{name}: the board's head is not the host's")
    return results


def _sgd(nano: tn.NanoModule, device: tn.Device, x: torch.Tensor) -> list[HeadResult]:
    """One sample, learnt until no row learns any more: the difference is what learning costs."""
    head = nano.head
    assert isinstance(head, tn.heads.SgdHead)
    sample = x[:1]
    device.learn(nano.device_inputs(sample)[0], 0)
    features, label = nano.features_int8(sample), torch.tensor([0])
    steps: list[tuple[int, int]] = []
    while not steps or steps[-1][0] > 0:
        before = np.frombuffer(head.state(), "<i2")[4:].reshape(CLASSES, FEATURES + 1)
        ticks = device.train(1)
        head.fit(features, label)
        after = np.frombuffer(head.state(), "<i2")[4:].reshape(CLASSES, FEATURES + 1)
        steps.append((int((before != after).any(1).sum()), ticks))
    (rows, first), (_, idle) = steps[0], steps[-1]
    per_weight = (first - idle) / (rows * (FEATURES + 1))
    return [
        HeadResult("SgdHead", "RAM in bytes", head.ram_bytes, 1.6 * 1024),
        HeadResult("SgdHead", f"instructions per updated parameter ({rows} rows)", per_weight, 8.0),
    ]


def _sums(nano: tn.NanoModule, device: tn.Device, x: torch.Tensor) -> list[HeadResult]:
    """Samples of all classes, one after the other."""
    head = nano.head
    assert isinstance(head, (tn.heads.LdaHead, tn.heads.PrototypeHead))
    labels = torch.arange(len(x)) % CLASSES
    for sample, label in zip(nano.device_inputs(x), labels.tolist(), strict=True):
        device.learn(sample, label)
    head.fit(nano.features_int8(x), labels)
    name = type(head).__name__
    results = [HeadResult(name, "RAM in bytes", head.ram_bytes)]
    if isinstance(head, tn.heads.LdaHead):
        results.append(HeadResult(name, "instructions of a commit", device.commit(), 40e6))
    return results
