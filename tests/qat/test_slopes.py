"""The slopes of PReLU train, and the image has what they have become."""

import pytest
import torch
import torch_nano as tn
from networks import inputs
from torch import nn

X = inputs((4, 20), 32)


@pytest.mark.parametrize("slopes", [1, 6])
def test_slopes_train_with_the_image_arithmetic(slopes: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(4, 6, 3), nn.PReLU(slopes), nn.Flatten(), nn.Linear(108, 3))
    qat = tn.prepare_qat(model, X, calibrate=X)
    before = qat.get_parameter("1.weight").detach().clone()
    tn.fit(qat, [(X, torch.arange(32) % 3)] * 4, epochs=1, progress=False)
    assert bool((qat.get_parameter("1.weight").detach() != before).all())
    nano = tn.to_nano(qat, head=None)
    assert torch.equal(nano(X), qat.eval()(X)) and nano.verify("host", X)
