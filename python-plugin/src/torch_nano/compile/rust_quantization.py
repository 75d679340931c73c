"""The functions of the generated Rust module between real numbers and integers."""

from __future__ import annotations

import re
from math import prod

import numpy as np
import numpy.typing as npt

from .. import _native
from ..arithmetic.quantization import Quantization


def rust_quantization(model: _native.Model) -> str:
    """`quantize` for the model's input and `dequantize` for its output; if there are several, one for each
    with its name after it: `quantize_mask`. None for indices.
    """
    functions = []
    for verb, function, ids, names in (
        ("quantize", _quantize, model.inputs, model.input_names),
        ("dequantize", _dequantize, model.outputs, model.output_names),
    ):
        for index, name in enumerate(function_names(verb, names)):
            if not holds_indices(model.values[ids[index]]):
                functions.append(function(model, index, name))
    return "".join(functions)


def holds_indices(value: _native.ValueEntry) -> bool:
    """Whether the integers of a value are indices."""
    return Quantization(value["scale"], value["zero_point"], value["dtype"]).holds_indices


def _quantize(model: _native.Model, index: int, function: str) -> str:
    value = model.values[model.inputs[index]]
    one = {"scale": np.array([value["scale"]], np.float32), "offset": np.zeros(1, np.float32)}
    channels = model.input_channels[index] or one
    length, constant = prod(value["shape"]), f"{function.upper()}_CHANNELS"
    shape = " x ".join(map(str, value["shape"]))
    scales = "".join(
        f"    nano_core::image::ChannelScale {{ scale: {_f32(scale)}, offset: {_f32(offset)} }},\n"
        for scale, offset in zip(channels["scale"], channels["offset"], strict=True)
    )
    return f"""
/// What real numbers of the input mean, for each channel, or a single one for all.
#[allow(clippy::approx_constant, clippy::excessive_precision)]
pub static {constant}: [nano_core::image::ChannelScale; {len(channels["scale"])}] = [
{scales}];
/// The integers of real numbers, both height, width, channels {shape}: those that Python sends for them.
/// What is out of range is clamped; NaN becomes the zero point.
pub fn {function}(reals: &[f32; {length}]) -> [{rust_type(value)}; {length}] {{
    let mut integers = [0; {length}];
    nano_core::image::quantize(&{constant}, {value["zero_point"]}, reals, &mut integers);
    integers
}}
"""


def _dequantize(model: _native.Model, index: int, function: str) -> str:
    value = model.values[model.outputs[index]]
    length, scale = prod(value["shape"]), _f32(np.float32(value["scale"]))
    return f"""
/// The real numbers of an output's integers.
#[allow(clippy::approx_constant, clippy::excessive_precision)]
pub fn {function}(integers: &[{rust_type(value)}; {length}]) -> [f32; {length}] {{
    let mut reals = [0.0; {length}];
    nano_core::image::dequantize({scale}, {value["zero_point"]}, integers, &mut reals);
    reals
}}
"""


def rust_type(value: _native.ValueEntry) -> str:
    """Rust's name of the type of a value's elements: "i16" for int16."""
    return value["dtype"].replace("int", "i")


def function_names(verb: str, names: list[str]) -> list[str]:
    """A Rust name for each value.

    >>> function_names("quantize", ["x"]), function_names("quantize", ["x", "a b", "a-b"])
    (['quantize'], ['quantize_x', 'quantize_a_b', 'quantize_a_b_2'])
    """
    if len(names) == 1:
        return [verb]
    functions: list[str] = []
    for index, name in enumerate(names):
        function = f"{verb}_{re.sub('[^a-z0-9]+', '_', name.lower())}"
        functions.append(f"{function}_{index}" if function in functions else function)
    return functions


def _f32(number: npt.NDArray[np.float32] | np.float32) -> str:
    """A Rust literal of the same float32.

    >>> _f32(np.float32(0.1)), _f32(np.float32(-2)), _f32(np.float32(2.0**118))
    ('0.1', '-2.0', '3.32307e+35')
    """
    return str(number)
