"""Batch norms and arithmetic with constants are folded into the layer after them where that is exact."""

from __future__ import annotations

import pytest
import torch
import torch_nano as tn
from torch import Tensor, nn
from torch_nano.capture.capture import capture
from torch_nano.capture.passes import optimize

SERIES, IMAGE = (6, 12), (4, 7, 6)


def trained(net: nn.Module, shape: tuple[int, ...]) -> tuple[nn.Module, Tensor]:
    """The network with the statistics of real forward passes, and data."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    # The modules are those of the parametrization: other tests have used them.
    for module in net.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear | nn.BatchNorm1d | nn.BatchNorm2d):
            module.reset_parameters()
    x = torch.randn(64, *shape, generator=generator)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            for parameter, low in ((module.weight, 0.5), (module.bias, -1.0)):
                nn.init.uniform_(parameter, low, 2.0, generator=generator)
    for _ in range(10):
        net.train()(x)
    return net.eval(), x


def layers(net: nn.Module, x: Tensor) -> list[str]:
    graph = optimize(capture(net, x[:2]))
    torch.testing.assert_close(graph.float_run(x)[0], net(x), rtol=1e-4, atol=1e-5)
    return [node.operator.name for node in graph.nodes]


FOLDED = [
    (nn.Conv1d(6, 8, 5), nn.ReLU(), nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 3)),
    (nn.Conv1d(6, 8, 5), nn.ReLU(), nn.BatchNorm1d(8), nn.Flatten(), nn.Linear(64, 3)),
    (nn.Conv1d(6, 8, 5), nn.ReLU(), nn.BatchNorm1d(8), nn.Conv1d(8, 6, 3, groups=2)),
    (nn.Conv1d(6, 8, 5), nn.ReLU(), nn.BatchNorm1d(8), nn.Conv1d(8, 8, 3, groups=8, bias=False)),
]


@pytest.mark.parametrize("modules", FOLDED)
def test_a_batch_norm_costs_no_layer(modules: tuple[nn.Module, ...]) -> None:
    net, x = trained(nn.Sequential(*modules), SERIES)
    assert len(layers(net, x)) == 2


@pytest.mark.parametrize("modules", FOLDED)
def test_training_follows_the_statistics_of_the_batch(modules: tuple[nn.Module, ...]) -> None:
    net, x = trained(nn.Sequential(*modules), SERIES)
    data = 2 * x + 1
    qat = tn.prepare_qat(net, x[:2], calibrate=data, batch_norm="batch_statistics").train()
    net.train()
    net(data)
    qat(data).sum().backward()
    for name, buffer in net.named_buffers():
        torch.testing.assert_close(qat.get_buffer(name).double(), buffer.double(), rtol=0.05, atol=0.05)
    qat.eval()
    assert torch.equal(qat(x), tn.to_nano(qat)(x))


@pytest.mark.parametrize(
    "modules",
    [
        # Padded zeros are not shifted, and a dropout is of the normalized numbers.
        (nn.Conv2d(4, 8, 3), nn.ReLU(), nn.BatchNorm2d(8), nn.Conv2d(8, 3, 3, padding=1)),
        (nn.Conv2d(4, 8, 3), nn.ReLU(), nn.BatchNorm2d(8), nn.Dropout(), nn.Flatten(), nn.Linear(160, 3)),
    ],
)
def test_a_batch_norm_stays_where_a_fold_is_not_exact(modules: tuple[nn.Module, ...]) -> None:
    net, x = trained(nn.Sequential(*modules), IMAGE)
    assert layers(net, x)[1] == "depthwise_conv2d"


def test_a_batch_norm_stays_where_one_scale_for_its_columns_is_too_coarse() -> None:
    first = nn.Linear(6, 16)
    net, x = trained(nn.Sequential(first, nn.ReLU(), nn.BatchNorm1d(16), nn.Linear(16, 3)), (6,))
    assert len(layers(net, x)) == 2
    factors = torch.logspace(-3, 3, 16)
    with torch.no_grad():
        first.weight.mul_(factors[:, None])
        first.bias.mul_(factors)
        net[2].running_mean.mul_(factors)
        net[2].running_var.mul_(factors.square())
    assert "depthwise_conv2d" in layers(net, x)
