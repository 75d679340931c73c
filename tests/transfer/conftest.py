"""What all tests of this folder need."""

import pytest
import torch


@pytest.fixture(autouse=True)
def seeded() -> None:
    """What a test draws without a seed of its own is the same in every run."""
    torch.manual_seed(0)
