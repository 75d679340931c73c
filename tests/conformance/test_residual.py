"""A convolution and an addition, which nano-core computes in one layer, against TFLM's CONV_2D and ADD."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from torch_nano import Device, _native
from torch_nano.arithmetic.layout import to_device
from torch_nano.device import QemuBoard
from torch_nano.ir.description import describe_layer, describe_model, describe_value
from torch_nano.ir.layer import Layer
from torch_nano.ops.add import Add

from . import layers
from .model import Int8, Quantization
from .sampling import activation
from .test_torch import CLAMPS, channels_first, describe, quantization

#: Of as many cases as are compared on the host; a board takes a tenth of a second to start.
SHARE = 10


@dataclass(frozen=True)
class Case:
    """x -> convolution + residual, the residual another convolution of x."""

    convolution: layers.Conv2d
    residual: layers.Conv2d
    sum: layers.Add

    @property
    def x(self) -> Int8:
        """The input, int8 [N, elements] in the device's order."""
        return to_device(channels_first(self.convolution.x)).numpy()

    def model(self) -> _native.Model:
        """The image of the three layers."""
        value = describe_value(
            tuple(channels_first(self.convolution.x).shape[1:]), self._layers()[0].input_quantizations[0]
        )
        entries = []
        inputs = ([0], [0], [2, 1])
        shape = tuple(channels_first(self.sum.a).shape[1:])
        for layer, ids in zip(self._layers(), inputs, strict=True):
            arrays = {name: tensor.numpy() for name, tensor in layer.tensors.items()}
            entries.append(
                describe_layer(layer, ids, [describe_value(shape, layer.output_quantizations[0])], arrays)
            )
        # Without additions: where two layers take fewer cycles, the writer would not fuse them.
        operators = _native.operators().items()
        kernels = [kernel for name, operator in operators if name != "add" for kernel in operator["kernels"]]
        described = describe_model({"x": value}, entries, {"y": 3})
        return _native.Model(_native.write_image(described, kernels))

    def _layers(self) -> list[Layer]:
        convolutions = [
            replace(describe(made), inputs=[channels_first(made.x)])
            for made in (self.residual, self.convolution)
        ]
        both = [quantization(self.sum.a_quantization), quantization(self.sum.b_quantization)]
        add = Layer(
            Add(**CLAMPS[self.sum.activation]),
            shapes=[tuple(channels_first(self.sum.a).shape[1:])] * 2,
            input_quantizations=both,
            output_quantizations=[quantization(self.sum.y_quantization)],
        )
        return [*convolutions, add]

    def expected(self) -> Int8:
        """TFLM's bytes, [N, elements] in the device's order."""
        return to_device(channels_first(self.sum.expected())).numpy()


def cases(count: int) -> Iterator[Case]:
    """The first `count` cases whose sum has more pixels than a tile."""
    index = made = 0
    while made < count:
        convolution = layers.layer("conv2d", seed=7, index=index)
        assert isinstance(convolution, layers.Conv2d)
        rng = np.random.default_rng([7, index])
        index += 1
        a = convolution.expected()
        if a.shape[1] * a.shape[2] <= 4:
            continue
        made += 1
        scale = convolution.y_quantization.scale
        other = Quantization(float(np.float32(scale * rng.uniform(1, 4))), int(rng.integers(-128, 128)))
        residual = replace(
            convolution,
            weights=convolution.weights[..., ::-1].copy(),
            y_quantization=other,
            activation=activation(rng),
        )
        # Far above the inputs' scales, the shift is too large for one pass.
        step = rng.choice([rng.uniform(0.2, 4), 5000.0], p=[0.75, 0.25])
        output = Quantization(float(np.float32(other.scale * step)), int(rng.integers(-128, 128)))
        add = layers.Add(
            origin=convolution.origin,
            a=a,
            b=residual.expected(),
            a_quantization=convolution.y_quantization,
            b_quantization=other,
            y_quantization=output,
            activation=activation(rng),
        )
        yield Case(convolution, residual, add)


def test_one_layer_equals_tflm_s_two(layer_count: int) -> None:
    forms = []
    for case in cases(layer_count):
        model = case.model()
        assert [layer["operator"] for layer in model.layers] == ["conv2d", "conv2d_add"], case
        forms.append(model.layers[1]["form"])
        (actual,) = model.run([case.x])
        assert actual.tobytes() == case.expected().tobytes(), case
    assert set(forms) == {0, 1, 2, 3}


def test_the_board_equals_tflm(layer_count: int) -> None:
    for case in cases(layer_count // SHARE):
        expected = case.expected()
        with Device(QemuBoard(case.model().image)) as device:
            outputs = [device.predict(x).output.tobytes() for x in case.x]
        assert outputs == [one.tobytes() for one in expected], case
