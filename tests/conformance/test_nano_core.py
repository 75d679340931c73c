"""nano-core on the host against TFLM: random layers, byte for byte."""

import numpy as np
import pytest

from torch_nano import _native

from . import layers, tflm
from .model import Int8, Quantization

Description = tuple[str, dict[str, int], dict[str, np.ndarray], list[Quantization], Quantization]


def clamp(made: layers.Layer, output: Quantization) -> dict[str, int]:
    low, high = tflm.activation_range(getattr(made, "activation", "none"), output)
    return {"clamp_min": low, "clamp_max": high}


def window(
    kernel: tuple[int, int], stride: tuple[int, int], padding: layers.Padding, dilation: tuple[int, int] = (1, 1)
) -> dict[str, int]:
    names = ["kernel", "stride", "dilation"]
    sides = {
        f"{name}_{side}": pair[axis]
        for name, pair in zip(names, (kernel, stride, dilation), strict=True)
        for axis, side in enumerate(("height", "width"))
    }
    edges = ("top", "bottom", "left", "right")
    return sides | {f"padding_{edge}": size for edge, size in zip(edges, padding, strict=True)}


def weighted(made: layers.Conv2d | layers.DepthwiseConv2d | layers.FullyConnected, weights: Int8) -> dict[str, np.ndarray]:
    scales = np.broadcast_to(made.weight_scales, made.bias.shape).copy()
    return {"weights": np.ascontiguousarray(weights), "bias": made.bias, "weight_scales": scales}


def describe(made: layers.Layer) -> Description:
    """Operator, attributes, tensors, input quantizations and output quantization of a layer."""
    match made:
        case layers.Conv2d():
            area = window(made.weights.shape[1:3], made.stride, made.padding, made.dilation)
            attributes = area | {"groups": made.groups} | clamp(made, made.y_quantization)
            return "conv2d", attributes, weighted(made, made.weights), [made.x_quantization], made.y_quantization
        case layers.DepthwiseConv2d():
            area = window(made.weights.shape[1:3], made.stride, made.padding, made.dilation)
            attributes = area | clamp(made, made.y_quantization)
            by_channel = made.weights[0].transpose(2, 0, 1)
            if made.depth_multiplier == 1:
                tensors = weighted(made, by_channel)
                return "depthwise_conv2d", attributes, tensors, [made.x_quantization], made.y_quantization
            attributes |= {"groups": made.x.shape[3]}
            tensors = weighted(made, by_channel[..., None])
            return "conv2d", attributes, tensors, [made.x_quantization], made.y_quantization
        case layers.FullyConnected():
            tensors = weighted(made, made.weights)
            attributes = clamp(made, made.y_quantization)
            return "fully_connected", attributes, tensors, [made.x_quantization], made.y_quantization
        case layers.Add():
            inputs = [made.a_quantization, made.b_quantization]
            return "add", clamp(made, made.y_quantization), {}, inputs, made.y_quantization
        case layers.AveragePool():
            area = window(made.kernel, made.stride, made.padding)
            attributes = area | {"count_include_pad": int(made.count_padding)} | clamp(made, made.quantization)
            return "average_pool2d", attributes, {}, [made.quantization], made.quantization
        case layers.MaxPool():
            attributes = window(made.kernel, made.stride, made.padding) | clamp(made, made.quantization)
            return "max_pool2d", attributes, {}, [made.quantization], made.quantization
        case layers.Requantize():
            return "requantize", clamp(made, made.y_quantization), {}, [made.x_quantization], made.y_quantization
        case layers.Softmax():
            return "softmax", {}, {}, [made.x_quantization], tflm.SOFTMAX_OUTPUT
    raise AssertionError(made)


def image_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Height, width, channels of a batch of feature maps or vectors."""
    return (1,) * (4 - len(shape)) + shape[1:]


def run(made: layers.Layer) -> Int8:
    operator, attributes, tensors, inputs, output = describe(made)
    arrays = [made.a, made.b] if isinstance(made, layers.Add) else [made.x]
    expected = made.expected()
    values = [(array.shape, q) for array, q in zip(arrays, inputs, strict=True)] + [(expected.shape, output)]
    image = _native.write_image(
        {
            "name": operator,
            "labels": [],
            "values": [
                {"shape": image_shape(shape), "scale": q.scale, "zero_point": q.zero_point} for shape, q in values
            ],
            "inputs": list(range(len(arrays))),
            "outputs": [len(arrays)],
            "layers": [
                {
                    "operator": operator,
                    "inputs": list(range(len(arrays))),
                    "output": len(arrays),
                    "attributes": attributes,
                    "tensors": tensors,
                }
            ],
            "head": None,
        }
    )
    (result,) = _native.Model(image).run([array.reshape(len(array), -1) for array in arrays])
    return result.reshape(expected.shape)


@pytest.mark.parametrize("family", [family for family in layers.FAMILIES if family != "unary"])
def test_random_layers_equal_tflm(family: str, layer_count: int) -> None:
    for made in layers.layers(family, layer_count):
        np.testing.assert_array_equal(run(made), made.expected(), err_msg=repr(made))
