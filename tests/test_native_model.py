"""Models of several inputs and outputs, their names and channel scales, and streams, in `_native`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from images import CLAMP, Description, many_layers, one_layer, window
from torch_nano import _native

CHANNELS = {"scale": np.array([0.5, 2.0], np.float32), "offset": np.array([0.0, -9.81], np.float32)}


def two_inputs(**changes: Any) -> dict[str, Any]:
    """The description of a model that adds its inputs, and gives the sum and the second input; `changes` go
    into the first input's entry."""
    net = Description()
    ids = [net.input((1, 3, 2)), net.input((1, 3, 2))]
    total = net.layer("add", ids, net.value((1, 3, 2)), CLAMP)
    net.entries["inputs"][0] |= {"name": "acceleration", "channels": CHANNELS, **changes}
    net.entries["outputs"] = [{"name": "sum", "id": total}, {"name": "same", "id": ids[1]}]
    return net.entries


def sample(model: _native.Model, seed: int, samples: int = 1) -> list[npt.NDArray[np.int8]]:
    rng = np.random.default_rng(seed)
    widths = [int(np.prod(model.values[id]["shape"])) for id in model.inputs]
    return [rng.integers(-128, 128, (samples, width), np.int8) for width in widths]


def test_names_and_channel_scales_are_those_of_the_description() -> None:
    model = _native.Model(_native.write_image(two_inputs()))
    assert model.input_names == ["acceleration", "input 1"]
    assert model.output_names == ["sum", "same"]
    first, second = model.input_channels
    assert second is None and first is not None
    assert {name: array.tolist() for name, array in first.items()} == {
        name: array.tolist() for name, array in CHANNELS.items()
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "input 1"}, 'two inputs or two outputs have the name "input 1"'),
        ({"name": ""}, 'the name "" of an input or output is empty or too long'),
        ({"name": "x" * 65}, "empty or too long"),
        (
            {"channels": {"scale": CHANNELS["scale"][:1], "offset": CHANNELS["offset"][:1]}},
            "one for each channel",
        ),
        ({"channels": {**CHANNELS, "scale": 0 * CHANNELS["scale"]}}, "finite and not 0"),
        ({"channels": {**CHANNELS, "scale": np.float32(np.nan) * CHANNELS["scale"]}}, "finite and not 0"),
        ({"channels": {**CHANNELS, "offset": np.full(2, np.inf, np.float32)}}, "with a finite offset"),
    ],
)
def test_wrong_names_and_channel_scales_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(_native.NanoError, match=message):
        _native.write_image(two_inputs(**changes))


def test_channel_scales_change_no_output() -> None:
    models = [_native.Model(_native.write_image(two_inputs(**change))) for change in ({}, {"channels": None})]
    x = sample(models[0], 1, 9)
    first, second = ([output.tobytes() for output in model.run(x)] for model in models)
    assert first == second


def test_an_input_of_another_dtype_or_shape_is_refused() -> None:
    model = _native.Model(one_layer())
    (x,) = sample(model, 2)
    with pytest.raises(TypeError, match=r"numpy array \[samples, elements\] of int8, this is int16 of 2 dim"):
        model.run([x.astype(np.int16)])
    with pytest.raises(TypeError, match="this is int8 of 1 dimensions"):
        model.run([x[0]])
    with pytest.raises(_native.NanoError, match="input has length 19, 20 is needed"):
        model.run([x[:, 1:].copy()])
    with pytest.raises(_native.NanoError, match="list of inputs has length 2, 1 is needed"):
        model.run([x, x])


def test_a_batch_gives_the_same_on_every_processor_and_number_of_threads() -> None:
    model = _native.Model(many_layers())
    x = sample(model, 3, 301)
    expected = [output.tobytes() for output in model.on(None).run(x)]
    for processor in [None, *_native.processors()]:
        for threads in (None, 1, 2, 5):
            made = [output.tobytes() for output in model.on(processor).run(x, threads)]
            assert made == expected, f"{processor}, {threads} threads"
    traced = [output.tobytes() for output in model.on(None).trace(x)]
    assert [output.tobytes() for output in model.trace(x, 3)] == traced
    with pytest.raises(ValueError, match='this machine has no processor "abacus"'):
        model.on("abacus")


def test_a_stream_gives_what_the_model_gives() -> None:
    for image in (many_layers(), _native.write_image(two_inputs())):
        model = _native.Model(image)
        streams = [_native.Stream(model), _native.Stream(image)]
        for seed in range(20):
            x = sample(model, seed)
            expected = [output.tobytes() for output in model.run(x)]
            assert [output.tobytes() for output in streams[seed % 2].step(x)] == expected
        streams[0].reset()
        assert [output.tobytes() for output in streams[0].step(x)] == expected
        with pytest.raises(_native.NanoError, match="batch of a stream has length 2, 1 is needed"):
            streams[0].step(sample(model, 0, 2))


def test_every_operator_says_what_its_rules_are() -> None:
    operators = _native.operators()
    assert operators["add"]["inputs"] == (2, 2)
    assert operators["softmax"]["quantization"] == [{"rule": "fixed", "scale": 1 / 256, "zero_point": -128}]
    assert operators["max_pool2d"]["quantization"] == [{"rule": "same_as", "input": 0}]
    assert operators["fully_connected"]["kernels"] == {
        "fully_connected": [(["int8"], ["int8"])],
        "fully_connected_pairs": [(["int8"], ["int8"])],
        "fully_connected_int16": [(["int16"], ["int16"])],
    }
    for operator in operators.values():
        assert len(operator["states"]) == len(operator["quantization"]) >= 1


def test_the_description_of_a_value_is_complete() -> None:
    model = _native.Model(one_layer())
    value = model.values[0]
    assert (value["dtype"], value["shape"], value["pitch"], value["state"]) == ("int8", (1, 1, 20), 20, False)
    (layer,) = model.layers
    assert (layer["operator"], layer["kernel"], layer["inputs"], layer["outputs"]) == (
        "fully_connected",
        "fully_connected",
        [0],
        [1],
    )


def test_an_image_can_be_written_with_some_kernels_only() -> None:
    net = Description()
    net.image(net.weighted("fully_connected", net.input((1, 1, 16)), (1, 1, 16), CLAMP, 16))
    description = {**net.entries, "outputs": [{"name": "y", "id": 1}]}
    for kernel in ("fully_connected", "fully_connected_pairs"):
        (layer,) = _native.Model(_native.write_image(description, [kernel])).layers
        assert layer["kernel"] == kernel
    with pytest.raises(_native.KernelError, match='nano-core has no kernel "winograd"'):
        _native.write_image(description, ["winograd"])
    net = Description()
    attributes = {**window((1, 1)), "groups": 1}
    net.image(net.weighted("conv2d", net.input((4, 4, 15)), (4, 4, 16), attributes, 15))
    with pytest.raises(_native.KernelError, match="conv2d: no kernel that may be used computes"):
        _native.write_image({**net.entries, "outputs": description["outputs"]}, ["conv2d_one_pixel"])
