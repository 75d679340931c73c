"""Transformers train through the device's arithmetic, and convert to the same bytes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import torch_nano as tn
from models.zoo import make


@pytest.mark.parametrize("name", ["transformer", "vit"])
def test_a_trained_transformer_is_the_image(name: str) -> None:
    model, x = make(name)
    labels = torch.arange(len(x)) % 5
    qat = tn.prepare_qat(model, x[:2], calibrate=x).train()
    before = {key: parameter.detach().clone() for key, parameter in qat.named_parameters()}
    assert before.keys() == dict(model.named_parameters()).keys()
    optimizer = torch.optim.Adam(qat.parameters(), 1e-3)
    torch.manual_seed(0)
    for _ in range(4):
        optimizer.zero_grad()
        F.cross_entropy(qat(x), labels).backward()
        optimizer.step()
    same = [key for key, parameter in qat.named_parameters() if torch.equal(before[key], parameter)]
    assert not same, same
    nano = qat.eval().to_nano(head=None)
    with torch.no_grad():
        torch.testing.assert_close(nano(x), qat(x), atol=0, rtol=0)
    report = nano.verify("host", x[:4])
    assert report, report
