"""A converted network as a TFLite flatbuffer, for LiteRT: the same integers in the same layers.

TFLite pads at the bottom and on the right where a stride leaves a choice, torch evenly: outputs of such
layers are shifted, and take the same time.
"""

from __future__ import annotations

import math
from typing import Any

import flatbuffers  # type: ignore[import-untyped]
import numpy as np
import numpy.typing as npt
from tflite_micro.tensorflow.lite.micro.python import (  # type: ignore[import-untyped]
    schema_py_generated as schema,
)
from torch_nano.compile.image import describe
from torch_nano.compile.nano_module import NanoModule
from torch_nano.compile.optimization import Optimization

_Array = npt.NDArray[Any]
_TYPES = {"int8": schema.TensorType.INT8, "int32": schema.TensorType.INT32}
#: Of the versions of the operators, the first with weights scaled per channel.
_VERSIONS = {"FULLY_CONNECTED": 5, "CONV_2D": 5, "DEPTHWISE_CONV_2D": 5, "ADD": 2, "AVERAGE_POOL_2D": 2}


def tflite_network(nano: NanoModule, batch: int) -> bytes:
    """The flatbuffer of a model for batches of one size: int8 in, int8 out.

    Raises:
        NotImplementedError: the model has an operator that is not in MLPerf Tiny's networks.
    """
    described = describe(nano._saved().graph, None, "", [], 0, Optimization())
    network = _Network(batch)
    values = [network.value(entry["value"]) for entry in described["inputs"]]
    entries = [entry["value"] for entry in described["inputs"]]
    inputs = list(values)
    for layer in described["layers"]:
        (output,) = layer["outputs"]
        values.append(
            network.layer(layer, [entries[i] for i in layer["inputs"]], [values[i] for i in layer["inputs"]])
        )
        entries.append(output)
    return network.flatbuffer(inputs, [values[output["id"]] for output in described["outputs"]])


class _Network:
    """Tensors, buffers and operators of a flatbuffer."""

    def __init__(self, batch: int) -> None:
        self.batch = batch
        # Buffer 0 is TFLite's empty one.
        self.buffers = [schema.BufferT()]
        self.tensors: list[Any] = []
        self.operators: list[Any] = []
        self.codes: list[str] = []

    def value(self, entry: dict[str, Any]) -> int:
        """A tensor that is computed, with all samples of the batch."""
        shape = (self.batch, *entry["shape"])
        return self._tensor(shape, entry["dtype"], [entry["scale"]], entry["zero_point"])

    def layer(self, layer: dict[str, Any], inputs: list[dict[str, Any]], tensors: list[int]) -> int:
        """Adds a layer; returns its output's tensor."""
        attributes, constants, entry = layer["attributes"], layer["tensors"], layer["outputs"][0]
        output = self.value(entry)
        # int8's own range is TFLite's without an activation.
        relu = attributes.get("clamp_min", -128) == entry["zero_point"]
        kinds = schema.ActivationFunctionType
        activation = kinds.RELU if relu else kinds.NONE
        weights: _Array = constants.get("weights", np.zeros(0, np.int8))
        match layer["operator"]:
            case "conv2d":
                options = schema.Conv2DOptionsT(**_window(attributes), fusedActivationFunction=activation)
                tensors = [*tensors, *self._weights(weights, constants, inputs[0], 0)]
                self._operator("CONV_2D", options, tensors, output)
            case "depthwise_conv2d":
                options = schema.DepthwiseConv2DOptionsT(
                    **_window(attributes), depthMultiplier=1, fusedActivationFunction=activation
                )
                size = (attributes["kernel_height"], attributes["kernel_width"])
                by_pixel = weights.reshape(-1, *size).transpose(1, 2, 0)[None]
                tensors = [*tensors, *self._weights(by_pixel, constants, inputs[0], 3)]
                self._operator("DEPTHWISE_CONV_2D", options, tensors, output)
            case "fully_connected":
                options = schema.FullyConnectedOptionsT(fusedActivationFunction=activation)
                tensors = [*tensors, *self._weights(weights, constants, inputs[0], 0)]
                self.tensors[output].shape = [self.batch, len(weights)]
                self._operator("FULLY_CONNECTED", options, tensors, output)
            case "add":
                self._operator("ADD", schema.AddOptionsT(fusedActivationFunction=activation), tensors, output)
            case "average_pool2d":
                options = schema.Pool2DOptionsT(
                    padding=schema.Padding.VALID,
                    strideH=1,
                    strideW=1,
                    filterHeight=attributes["kernel_height"],
                    filterWidth=attributes["kernel_width"],
                )
                self._operator("AVERAGE_POOL_2D", options, tensors, output)
            case operator:
                raise NotImplementedError(f"no TFLite operator is written for {operator}")
        shape = self.tensors[output].shape
        assert math.prod(shape) == self.batch * math.prod(entry["shape"]), (layer["operator"], shape)
        return output

    def flatbuffer(self, inputs: list[int], outputs: list[int]) -> bytes:
        graph = schema.SubGraphT(
            tensors=self.tensors, inputs=inputs, outputs=outputs, operators=self.operators
        )
        codes = [(getattr(schema.BuiltinOperator, name), _VERSIONS[name]) for name in self.codes]
        model = schema.ModelT(
            version=3,
            operatorCodes=[
                schema.OperatorCodeT(builtinCode=code, deprecatedBuiltinCode=min(code, 127), version=version)
                for code, version in codes
            ],
            subgraphs=[graph],
            buffers=self.buffers,
        )
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def _weights(
        self, weights: _Array, constants: dict[str, _Array], x: dict[str, Any], dimension: int
    ) -> list[int]:
        """The tensors of weights and bias, scaled per channel."""
        scales, bias = constants["weight_scales"], constants["bias"]
        of_products = (np.float32(x["scale"]) * scales).tolist()
        return [
            self._tensor(weights.shape, "int8", scales.tolist(), dimension=dimension, constant=weights),
            self._tensor(bias.shape, "int32", of_products, constant=bias),
        ]

    def _tensor(
        self,
        shape: tuple[int, ...],
        dtype: str,
        scales: list[float],
        zero_point: int = 0,
        *,
        dimension: int = 0,
        constant: _Array | None = None,
    ) -> int:
        buffer = 0
        if constant is not None:
            buffer = len(self.buffers)
            self.buffers.append(schema.BufferT(data=np.frombuffer(constant.tobytes(), np.uint8)))
        quantization = schema.QuantizationParametersT(
            scale=np.array(scales, np.float32),
            zeroPoint=np.full(len(scales), zero_point, np.int64),
            quantizedDimension=dimension,
        )
        self.tensors.append(
            schema.TensorT(shape=list(shape), type=_TYPES[dtype], buffer=buffer, quantization=quantization)
        )
        return len(self.tensors) - 1

    def _operator(self, name: str, options: object, inputs: list[int], output: int) -> None:
        if name not in self.codes:
            self.codes.append(name)
        # TFLite's options of class XxxT have the tag Xxx.
        tag = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        self.operators.append(
            schema.OperatorT(
                opcodeIndex=self.codes.index(name),
                inputs=inputs,
                outputs=[output],
                builtinOptionsType=tag,
                builtinOptions=options,
            )
        )


def _window(attributes: dict[str, int]) -> dict[str, int]:
    """TFLite's options of a window. "Same" has outputs as many as inputs, over the stride."""
    padded = any(
        attributes[f"padding_{side}"]
        for side in ("top", "left", "right", "bottom")
        if f"padding_{side}" in attributes
    )
    return {
        "padding": schema.Padding.SAME if padded else schema.Padding.VALID,
        "strideH": attributes["stride_height"],
        "strideW": attributes["stride_width"],
        "dilationHFactor": 1,
        "dilationWFactor": 1,
    }
