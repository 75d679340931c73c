"""Models of several inputs and outputs on a device: sent together, by position and by name."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch_nano as tn
from fusion import data, fusion
from images import CLAMP, Description
from torch import Tensor
from torch_nano import Device, NanoModule, _native
from torch_nano.errors import InputError, RecordError

COUNT = 12


@pytest.fixture(scope="module")
def nano() -> NanoModule:
    batch = data()
    return tn.to_nano(fusion(), batch, calibrate=batch)


@pytest.fixture(scope="module", params=["sim", "qemu"])
def device(request: pytest.FixtureRequest, nano: NanoModule) -> Iterator[Device]:
    with Device(request.param, nano=nano) as device:
        yield device


def expected(nano: NanoModule, *inputs: Tensor) -> dict[str, list[list[int]]]:
    return {name: y.tolist() for name, y in nano.forward_int8(*nano.quantize_inputs(*inputs)).items()}


def test_it_says_what_its_inputs_and_outputs_are(device: Device, nano: NanoModule) -> None:
    info = device.info
    assert [value.name for value in info.inputs] == ["motion", "sound"]
    assert [value.shape for value in info.inputs] == [(1, 9, 3), (1, 1, 6)]
    assert [value.quantization for value in info.inputs] == list(nano.input_quantizations.values())
    assert {value.name: value.quantization for value in info.outputs} == nano.output_quantizations
    assert (info.input_length, info.output_length, info.has_states) == (27 + 6, 5 + 1, False)
    assert all(value.dtype == "int8" and value.channels is None for value in (*info.inputs, *info.outputs))


def test_inputs_of_any_kind_by_position_and_by_name(device: Device, nano: NanoModule) -> None:
    motion, sound = data().values()
    outputs = expected(nano, motion, sound)
    integers = nano.quantize_inputs(motion, sound)
    arrays = nano.device_inputs(motion, sound)
    assert isinstance(arrays, tuple)
    for index in range(COUNT):
        m, s = motion[index], sound[index]
        inputs: list[Any] = [
            (m, s),
            {"sound": s, "motion": m},
            (m.numpy(), s.double().numpy()),
            (integers[0][index], integers[1][index]),
            (arrays[0][index], arrays[1][index]),
            # Real numbers and integers together.
            (m, integers[1][index]),
            {"sound": s, "motion": arrays[0][index]},
        ]
        for input in inputs:
            made = device.predict(input)
            assert {name: y.tolist() for name, y in made.outputs.items()} == {
                name: rows[index] for name, rows in outputs.items()
            }
            assert made.label == int(np.argmax(outputs["kind"][index]))
    assert len(device.profile((motion[0], sound[0]))) == device.info.layers


def test_wrong_inputs_are_refused(device: Device) -> None:
    motion, sound = (x[0] for x in data().values())
    before = device.stats().runs
    for input, message in [
        (motion, r"expected a tuple of the model's inputs \(motion, sound\), or a dict by name"),
        ((motion,), r"2 inputs \(motion, sound\); it is given 1 by position"),
        ((motion, sound, sound), "it is given 3 by position"),
        ({"motion": motion}, "it is given by name motion"),
        ({"motion": motion, "noise": sound}, "it is given by name motion, noise"),
        ((sound, motion), r"the input 'motion' has shape \[6\] and dtype .*; expected \[3, 9\]"),
        ((motion, sound[:5]), r"the input 'sound' has shape \[5\]"),
        (
            (motion, sound.long()),
            r"the input 'sound' has dtype torch.int64; expected floats, or the device's int8",
        ),
        ((motion, np.zeros(7, np.int8)), r"the input 'sound' has shape \[7\]; expected int8 6 elements"),
        ((motion, sound * float("nan")), "NaN"),
    ]:
        with pytest.raises(InputError, match=message):
            device.predict(input)  # type: ignore[arg-type]
    with pytest.raises(
        InputError, match=r"several outputs \(kind, level\) and no head; use predict\(input\).outputs"
    ):
        device.features((motion, sound))
    with pytest.raises(InputError, match=r"the model has 2 outputs \(kind, level\)"):
        _ = device.predict((motion, sound)).output
    assert device.stats().runs == before + 1


def test_without_a_model_the_device_says_what_floats_mean(nano: NanoModule) -> None:
    motion, sound = data().values()
    arrays = nano.device_inputs(motion, sound)
    with Device(tn.device.SimulatedBoard(nano.image)) as device:
        made = device.predict({"sound": arrays[1][0], "motion": arrays[0][0]})
        assert made.outputs["kind"].tolist() == expected(nano, motion, sound)["kind"][0]
        mixed = device.predict((motion[0], arrays[1][0]))
        assert all(np.array_equal(mixed.outputs[name], made.outputs[name]) for name in made.outputs)
        with pytest.raises(InputError, match="the input 'motion' has shape"):
            device.predict((motion, arrays[1][0]))


def test_threads_take_turns_with_whole_inputs_and_outputs() -> None:
    """Inputs and outputs longer than a frame: parts of two threads must not mix."""
    net = Description()
    first, second = net.input((4, 5, 8)), net.input((1, 3, 30))
    wide = net.layer("requantize", [second], net.value((1, 3, 30), 0.07, 5), CLAMP)
    image = net.image(net.layer("add", [first, first], net.value((4, 5, 8)), CLAMP), wide)
    model, rng = _native.Model(image), np.random.default_rng(0)
    failures: list[str] = []
    with Device(tn.device.SimulatedBoard(image, frame=64)) as device:
        assert device.info.frame_length == 64

        def ask(seed: int) -> None:
            own = np.random.default_rng(seed)
            for _ in range(40):
                inputs = [own.integers(-128, 128, (1, length), np.int8) for length in (160, 90)]
                made = device.predict((inputs[0][0], inputs[1][0])).outputs
                right = model.run(inputs)
                if any((found != y[0]).any() for found, y in zip(made.values(), right, strict=True)):
                    failures.append(f"seed {seed}")

        threads = [threading.Thread(target=ask, args=(int(seed),)) for seed in rng.integers(1 << 30, size=4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures


def passed_through() -> bytes:
    """Inputs of int16, int8 and int32 that are outputs in another order, one with scales of channels."""
    net = Description()
    for index, dtype in enumerate(("int16", "int8", "int32")):
        net.input((1, 2, 5), 0.001 * (index + 1), -3 if dtype == "int8" else 0)
        net.entries["inputs"][index]["value"]["dtype"] = dtype
    scales = {"scale": np.arange(1, 6, dtype=np.float32), "offset": -np.arange(5, dtype=np.float32)}
    net.entries["inputs"][1].update(name="sensor", channels=scales)
    return net.image(2, 1, 0)


@pytest.mark.parametrize("connection", ["sim", "qemu"])
def test_every_dtype_and_scales_of_channels(connection: str) -> None:
    image, rng = passed_through(), np.random.default_rng(1)
    with Device(connection, nano=image) as device:
        info = device.info
        assert [value.dtype for value in info.inputs] == ["int16", "int8", "int32"]
        channels = info.inputs[1].channels
        assert channels is not None and info.inputs[0].channels is None
        assert (channels.scale.tolist(), channels.offset.tolist()) == ([1, 2, 3, 4, 5], [0, -1, -2, -3, -4])
        for _ in range(20):
            inputs = {
                value.name: rng.integers(*bounds, 10, value.dtype)
                for value in info.inputs
                for bounds in [(np.iinfo(value.dtype).min, np.iinfo(value.dtype).max + 1)]
            }
            outputs = device.predict(inputs).outputs
            assert [y.dtype for y in outputs.values()] == [np.int32, np.int8, np.int16]
            for output, name in zip(outputs.values(), ["input 2", "sensor", "input 0"], strict=True):
                assert output.tolist() == inputs[name].tolist()
        with pytest.raises(InputError, match=r"the input 'input 0' has dtype torch.int32; expected .* int16"):
            device.predict({**inputs, "input 0": inputs["input 2"]})


def test_scales_of_channels_longer_than_a_frame_come_in_parts() -> None:
    net = Description()
    net.input((1, 1, 300))
    scales = {"scale": np.arange(1, 301, dtype=np.float32), "offset": np.arange(300, dtype=np.float32) / 4}
    net.entries["inputs"][0]["channels"] = scales
    with Device(tn.device.SimulatedBoard(net.image(0), frame=64)) as device:
        channels = device.info.inputs[0].channels
    assert channels is not None
    assert channels.scale.tolist() == scales["scale"].tolist()
    assert channels.offset.tolist() == scales["offset"].tolist()


@pytest.mark.parametrize("connection", ["sim", "qemu"])
def test_a_head_of_two_inputs_learns_and_its_record_is_replayed(connection: str, tmp_path: Path) -> None:
    batch = data()
    labels = torch.arange(len(batch["sound"])) % 5
    nano = tn.to_nano(fusion("tensor"), batch, calibrate=batch, head="kind", learning_rate=0.05)
    assert nano.head is not None
    pairs = [(((m, s)), int(label)) for m, s, label in zip(*batch.values(), labels, strict=True)]
    with Device(connection, nano=nano) as device, tn.device.record(device, tmp_path / "record"):
        device.fit(batch, labels, epochs=2)
        device.fit(tuple(batch.values()), labels, epochs=1)
        device.fit(pairs[:5], epochs=1)
        device.fit([({name: x[:7] for name, x in batch.items()}, labels[:7])], epochs=1)
        device.learn({"sound": batch["sound"][0], "motion": batch["motion"][0]}, 3)
        state = device.head_state()
        features = device.features((batch["motion"][3], batch["sound"][3]))
        assert features.tolist() == nano.features_int8(**batch)[3].tolist()
        with pytest.raises(InputError, match=r"batches of different sizes: .*motion.* of 40, .*sound.* of 3"):
            device.fit((batch["motion"], batch["sound"][:3]), labels)
    assert tn.device.replay(tmp_path / "record", nano).head.state() == state


def test_states_are_reset_where_there_are_none(device: Device) -> None:
    device.reset_states()
    assert not device.info.has_states


def test_a_model_with_states_is_not_recorded(nano: NanoModule, tmp_path: Path) -> None:
    with Device("sim", nano=nano) as device:
        device._info = replace(device.info, has_states=True, head_length=4)
        with pytest.raises(RecordError, match="has states, which every run changes"):
            tn.device.record(device, tmp_path / "record")
