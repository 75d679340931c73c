"""Training with layers in 16 bits: in evaluation the bytes of the image."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import torch_nano as tn
from torch import nn

from .trained import differing_bits

X = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))
Y = X[:, :3].argmax(1)


@pytest.mark.parametrize("precision", [{"2": "int16"}, {"0": "int16", "4": "int16"}])
@pytest.mark.parametrize("ranges", ["moving_average", "learned"])
def test_evaluation_is_the_image(precision: dict[str, str], ranges: str) -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 3))
    qat = tn.prepare_qat(model, X[:2], calibrate=X, precision=precision, ranges=ranges)  # type: ignore[arg-type]
    optimizer = torch.optim.SGD(qat.parameters(), 0.05)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = F.cross_entropy(qat(X), Y)
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
    assert losses[-1] < losses[0]
    qat.eval()
    nano = qat.to_nano()
    assert nano.precision == precision
    assert differing_bits(qat(X), nano(X)) == 0
    assert nano.verify("host") and nano.verify("rv32imc")
    assert qat.compare(X).outputs[0].sqnr > 20
