"""One sample instead of a batch raises an error that says so, in every function."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torch_nano as tn
from torch import Tensor, nn
from torch_nano.modules.explain import is_one_sample


class Pooled(nn.Module):
    """Takes a sample without a batch, too: torch's convolutions do."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(channels, 4, 3)
        self.head = nn.Linear(4, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.convolution(x)).mean(-1))


def network_1d(channels: int) -> nn.Module:
    layers = (nn.Conv1d(channels, 4, 3), nn.BatchNorm1d(4), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten())
    return nn.Sequential(*layers, nn.Linear(4, 3))


def network_2d(channels: int) -> nn.Module:
    layers = (nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(*layers, nn.Linear(4, 3))


#: Model -> shape of one sample. With few channels, the channels could be a batch.
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "vector": (lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), (6,)),
    "mono": (lambda: network_1d(1), (1, 512)),
    "stereo": (lambda: network_1d(2), (2, 40)),
    "gray": (lambda: network_2d(1), (1, 8, 8)),
    "color": (lambda: network_2d(3), (3, 8, 8)),
    "pooled": (lambda: Pooled(6), (6, 20)),
    "pooled mono": (lambda: Pooled(1), (1, 20)),
    "pooled stereo": (lambda: Pooled(2), (2, 20)),
}
MISSING = r"shape \([\d, ]+\) is one sample; the batch dimension is missing: give x\[None\]"
EXPECTED = r"expected a tensor \[N, [\d, ]+\] of .*: one sample needs a batch dimension, x\[None\]"


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    make, shape = NETWORKS[request.param]
    return make(), torch.randn(9, *shape)


def test_an_example_without_a_batch_is_explained(network: tuple[nn.Module, Tensor]) -> None:
    model, x = network
    for convert in (tn.to_nano, tn.prepare_qat):
        with pytest.raises(tn.errors.InputError, match=f"the example: a tensor of {MISSING}"):
            convert(model, x[0], calibrate=x)  # type: ignore[operator]
    assert is_one_sample(model, x[0]) and not is_one_sample(model, x)
    # A batch of one, and of as many as there are channels.
    for batch in (x[:1], x[: x.shape[1]]):
        assert not is_one_sample(model, batch)
        tn.to_nano(model, batch, calibrate=x)


def test_calibration_data_without_a_batch_are_explained(network: tuple[nn.Module, Tensor]) -> None:
    model, x = network
    for data in (x[0], list(x), [(x[0], 1)]):
        with pytest.raises(tn.errors.InputError, match=f"a calibration batch has shape .*{EXPECTED}"):
            tn.to_nano(model, x, calibrate=data)


def test_an_input_without_a_batch_is_explained(network: tuple[nn.Module, Tensor]) -> None:
    model, x = network
    nano, qat = tn.to_nano(model, x, calibrate=x), tn.prepare_qat(model, x, calibrate=x)
    for call in (nano, nano.device_inputs, lambda sample: nano.verify("host", sample), qat):
        with pytest.raises(tn.errors.InputError, match=f"the input has shape .*{EXPECTED}"):
            call(x[0])


def test_training_data_without_a_batch_are_explained(network: tuple[nn.Module, Tensor]) -> None:
    model, x = network
    samples = list(zip(x, torch.zeros(9, dtype=torch.int64), strict=True))
    with pytest.raises(tn.errors.InputError, match=f"batch 0 of train: .*{MISSING}"):
        tn.fit(model, samples, epochs=1, progress=False)


def test_the_model_is_not_changed_by_trying() -> None:
    model = network_1d(1).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert is_one_sample(model, torch.randn(1, 40))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("example", [torch.zeros(5, 7), torch.zeros(2, 1, 3, 3), torch.tensor(1.0)])
def test_other_wrong_examples_are_no_sample(example: Tensor) -> None:
    model = nn.Sequential(nn.Linear(6, 3))
    with pytest.raises(tn.TorchNanoError) as caught:
        tn.to_nano(model, example, calibrate=example)
    assert "one sample" not in str(caught.value)
