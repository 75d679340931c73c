"""Each operator in 16 bits between layers in 8, and networks: the same bytes everywhere, in training too."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Mapping

import pytest
import torch
import torch_nano as tn
from networks import ConvNet1d, ResidualNet, SeparableNet, inputs, make
from torch import Tensor, nn
from torch_nano.ir.precision import LayerDtype


class Pair(nn.Module):
    """A function of a value and the same value turned."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, x.flip(2))


#: nano-core's operator, and a module that becomes it.
MODULES: dict[str, Callable[[], nn.Module]] = {
    "conv2d": lambda: nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU6()),
    "depthwise_conv2d": lambda: nn.Conv2d(6, 6, 3, padding=(0, 1), groups=6),
    "fully_connected": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(6 * 6 * 7, 12), nn.Unflatten(1, (6, 1, 2))
    ),
    "add": lambda: Pair(operator.add),
    "sub": lambda: Pair(operator.sub),
    "mul": lambda: Pair(operator.mul),
    "max_pool2d": lambda: nn.MaxPool2d(2),
    "average_pool2d": lambda: nn.AvgPool2d(3, 2, padding=1, count_include_pad=False),
    "table": lambda: nn.GELU(),
}


class Around(nn.Module):
    """Layers in int8 around a module in int16."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.stem, self.module, self.end = nn.Conv2d(2, 6, 3, padding=1), module, nn.Conv2d(6, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.module(self.stem(x)))


X = inputs((2, 6, 7), 64)


@pytest.mark.parametrize("name", MODULES)
def test_an_operator_between_layers_in_8_bits(name: str) -> None:
    torch.manual_seed(3)
    model = Around(MODULES[name]()).eval()
    nano = tn.to_nano(model, X[:2], calibrate=X, precision={"module": "int16"})
    made = [(layer.operator, layer.dtype) for layer in nano.summary().layers if layer.operator != "move"]
    assert made[0] == ("conv2d", "int8") and made[1] == ("requantize", "int16")
    assert (name, "int16") in made and made[-2:] == [("requantize", "int8"), ("conv2d", "int8")]
    assert nano.verify("host", X) and nano.verify("rv32imc")
    with torch.no_grad():
        expected = model(X)
    assert float((nano(X) - expected).square().mean().sqrt()) < 0.05 * float(expected.std())


@pytest.mark.parametrize("name", MODULES)
def test_training_an_operator_in_16_bits_is_the_image(name: str) -> None:
    torch.manual_seed(3)
    qat = tn.prepare_qat(
        Around(MODULES[name]()).eval(), X[:2], calibrate=X, precision={"module": "int16", "end": "int16"}
    )
    optimizer = torch.optim.SGD(qat.parameters(), 0.01)
    for _ in range(3):
        optimizer.zero_grad()
        (qat(X[:8]) - 1).square().mean().backward()
        optimizer.step()
    gradient = qat.get_parameter("stem.weight").grad
    assert gradient is not None and bool(gradient.any())
    nano = qat.eval().to_nano()
    assert torch.equal(qat(X), nano(X)) and nano.verify("host", X) and nano.verify("rv32imc")


NETWORKS: list[tuple[type[nn.Module], tuple[int, ...], Mapping[str, LayerDtype]]] = [
    (ConvNet1d, (3, 40), {"": "int16"}),
    (SeparableNet, (1, 12, 12), {"": "int16"}),
    (SeparableNet, (1, 12, 12), {"body.3": "int16", "body.6": "int16"}),
    (ResidualNet, (2, 8, 8), {"": "int16"}),
    (ResidualNet, (2, 8, 8), {"first": "int16", "projection": "int16"}),
    (ResidualNet, (2, 8, 8), {"": "int16", "stem": "int8", "classifier": "int8"}),
]


@pytest.mark.parametrize(("kind", "shape", "precision"), NETWORKS)
def test_a_network_with_layers_in_16_bits(
    kind: type[nn.Module], shape: tuple[int, ...], precision: Mapping[str, LayerDtype]
) -> None:
    model, x = make(kind), inputs(shape, 64)
    nano = tn.to_nano(model, x[:2], calibrate=x, precision=precision)
    assert nano.verify("host", x) and nano.verify("rv32imc")
    assert tn.to_nano(model, x[:2], calibrate=x, precision=nano.precision).id == nano.id
    in_int8 = tn.to_nano(model, x[:2], calibrate=x)
    found, before = (each.compare(model, x).outputs[0].sqnr for each in (nano, in_int8))
    # The weights, which stay in int8, cause most of the error.
    assert found > before - 0.5


def test_auto_finds_the_layers_around_an_outlier_channel() -> None:
    model, x = make(SeparableNet), inputs((1, 12, 12), 64)
    with torch.no_grad():
        # ReLU6 would clamp it.
        for index in (2, 5, 8, 11, 14):
            model.body[index] = nn.ReLU()
        model.body[7].weight[3] *= 300
        model.body[9].weight[3] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nano = tn.to_nano(model, x[:2], calibrate=x, precision="auto", correct=False)
    assert nano.precision == {"body.6": "int16", "body.9": "int16"}
    assert nano.compare(model, x).outputs[0].sqnr > 18 and nano.verify("rv32imc")
