"""The options that several operators share."""

from typing import Literal

from tflite_micro.tensorflow.lite.micro.python import (  # type: ignore[import-untyped]
    schema_py_generated as schema,
)

Activation = Literal["none", "relu", "relu6"]
Pair = tuple[int, int]
Padding = tuple[int, int, int, int] | Literal["same"]
"""(top, bottom, left, right), or TFLite's own SAME."""

FUSED = {
    "none": schema.ActivationFunctionType.NONE,
    "relu": schema.ActivationFunctionType.RELU,
    "relu6": schema.ActivationFunctionType.RELU6,
}
"""TFLite's number of a fused activation."""
