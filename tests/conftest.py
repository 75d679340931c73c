"""Networks that many tests share."""

import pytest
import torch
from networks import ConvNet1d, inputs, make
from torch import nn
from torch_nano import NanoModule, to_nano

# Most layers of tests are small: more threads only wait for each other, and for those of other workers.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def conv_net() -> nn.Module:
    """A trained-looking 1-D CNN; not to be changed."""
    return make(ConvNet1d)


@pytest.fixture(scope="session")
def nano(conv_net: nn.Module) -> NanoModule:
    """It without a trainable head; not to be changed."""
    x = inputs((3, 40), 64)
    return to_nano(conv_net, x, calibrate=x, labels=list("abcde"), name="conv net")
