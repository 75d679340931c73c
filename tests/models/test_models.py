"""Every model of the zoo converts as it is, and runs with the same bytes everywhere."""

from __future__ import annotations

import pytest
import torch
import torch_nano as tn
from torch_nano.ir.graph import Graph

from .zoo import ZOO, make

#: The largest image that the emulated board takes.
_LARGEST_IMAGE = 64 << 20


# torch's own, about even kernels.
@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("name", ZOO)
def test_a_model_converts_and_runs_with_the_same_bytes(name: str, optimized: list[Graph]) -> None:
    model, x = make(name)
    # Random weights lose much of their accuracy in int8.
    nano = tn.to_nano(model, x[:2], calibrate=x, head=None, check=False)
    with torch.no_grad():
        expected = model(x[:8])
        (real,) = optimized[0].float_run(x[:8])
    # Folded batch norms and other orders of summation: float32 rounding only.
    scale = float(expected.abs().max())
    torch.testing.assert_close(real, expected, atol=1e-4 * scale, rtol=0)
    assert nano.verify("host", x[:4])
    if len(nano.image) < _LARGEST_IMAGE:
        assert nano.verify("rv32imc", x[:1])
