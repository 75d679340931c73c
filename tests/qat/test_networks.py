"""Every network of the tests, trained through the device's arithmetic."""

import pytest
import torch
import torch_nano as tn
from networks import NETWORKS, inputs, make
from torch import nn

from .trained import differing_bits, train


@pytest.mark.parametrize(("network", "shape"), NETWORKS)
def test_a_trained_network_is_its_image(network: type[nn.Module], shape: tuple[int, ...]) -> None:
    x = inputs(shape, 200)
    with torch.no_grad():
        # What the network says of other inputs, so that there is something to learn.
        y = make(network, seed=1)(x).flatten(1).argmax(1)
    qat = tn.prepare_qat(make(network), x[:2], calibrate=x)
    before = {name: parameter.detach().clone() for name, parameter in qat.named_parameters()}
    train(qat.train(), x, y, 4, torch.optim.SGD(qat.parameters(), 1e-3))
    still = [name for name, parameter in qat.named_parameters() if torch.equal(parameter, before[name])]
    assert still == []
    with torch.no_grad():
        trained = qat.eval()(x)
    assert differing_bits(trained, qat.to_nano()(x)) == 0
    assert len(trained.unique(dim=0)) > 1
