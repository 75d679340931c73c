"""Streams: after each step the bytes of the network over the last window, on the host and on the board."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
import torch_nano as tn
from torch import Tensor, nn
from torch_nano.arithmetic.layout import to_device

from .streaming_networks import TASKS, Task, causal, last_windows, newest, pooled, random_steps

STEPS = 1000
tasks = pytest.mark.parametrize("task", TASKS)


def run(stream: tn.results.Stream, steps: Tensor) -> Tensor:
    """The outputs of all steps."""
    return torch.stack([stream.step_int8(step) for step in steps])


@tasks
def test_each_step_has_the_bytes_of_the_last_window(task: str) -> None:
    nano = TASKS[task].nano()
    stream = nano.stream()
    steps = random_steps(nano, stream, STEPS, seed=1)
    windows = last_windows(nano, steps)
    outputs = run(stream, steps)
    native = newest(nano.forward_int8(windows), stream)
    (plain,) = nano.graph.integer_run(windows)
    assert len(outputs) == STEPS and len(torch.unique(outputs)) > 20
    assert torch.equal(outputs, native)
    assert torch.equal(outputs, newest(plain, stream))


@tasks
def test_the_board_has_the_bytes_of_the_last_window(task: str) -> None:
    nano = TASKS[task].nano()
    stream = nano.stream()
    both = [random_steps(nano, stream, STEPS, seed) for seed in (2, 3)]
    expected = [newest(nano.forward_int8(last_windows(nano, steps)), stream) for steps in both]
    sent, rows = ([to_device(one).numpy() for one in integers] for integers in (both, expected))
    # Two boards with the same image, in turns: neither sees the other's steps.
    with (
        tn.Device(tn.device.QemuBoard(stream.nano.image)) as first,
        tn.Device(tn.device.QemuBoard(stream.nano.image)) as other,
    ):
        for index in range(STEPS):
            for device, steps, outputs in zip((first, other), sent, rows, strict=True):
                assert np.array_equal(device.predict(steps[index]).output, outputs[index]), f"step {index}"
        assert first.info.has_states
        first.reset_states()
        for index in range(50):
            assert np.array_equal(first.predict(sent[0][index]).output, rows[0][index]), f"step {index}"


def test_a_head_learns_while_streaming() -> None:
    """The same steps on the PC and on the board give the same head; its logits are those of the window."""
    task = TASKS["pooled"]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, x = task.make(), torch.randn(64, 3, task.window)
        model.train()(x)
    tn.freeze(model, "0", "1", "4")
    nano = tn.to_nano(model.eval(), x, calibrate=x, learning_rate=0.05)
    stream = nano.stream()
    assert stream.nano.head is not None and nano.head is not None
    steps, labels = random_steps(nano, stream, 40, seed=4), torch.arange(40) // 5 % 4
    with tn.Device(tn.device.QemuBoard(stream.nano.image)) as device:
        features = torch.cat([stream.step_features(step) for step in steps])
        for step, label in zip(steps, labels, strict=True):
            device.learn(to_device(step[None])[0].numpy(), int(label))
        device.train(epochs=5)
        stream.nano.head.fit(features, labels, epochs=5)
        assert device.head_state() == stream.nano.head.state() != nano.head.state()
    # The head of the model over windows has learnt nothing of it; a stream of that begins with its own.
    windows = last_windows(nano, steps)
    assert torch.equal(run(nano.stream(), steps), nano.forward_int8(windows))
    nano.head.load(stream.nano.head.state())
    assert torch.equal(run(nano.stream(), steps), nano.forward_int8(windows))


def test_streams_of_one_model_do_not_see_each_other() -> None:
    nano = TASKS["tcn"].nano()
    streams = [nano.stream()]
    streams += [streams[0].nano.stream(), nano.stream()]
    assert streams[1].nano is streams[0].nano and streams[2].nano.image == streams[0].nano.image
    steps = [random_steps(nano, stream, 60, seed) for seed, stream in enumerate(streams)]
    expected = [newest(nano.forward_int8(last_windows(nano, one)), streams[0]) for one in steps]
    positions = [0, 0, 0]
    choose = random.Random(5)
    for _ in range(250):
        which = choose.randrange(3)
        if positions[which] == 60 or choose.random() < 0.02:
            streams[which].reset()
            positions[which] = 0
        position = positions[which]
        y = streams[which].step_int8(steps[which][position])
        assert torch.equal(y, expected[which][position]), (which, position)
        positions[which] += 1


@tasks
def test_the_streaming_model_is_verified_saved_and_exported(task: str, tmp_path: Path) -> None:
    nano = TASKS[task].nano()
    stream = nano.stream()
    assert stream.nano.verify("host") and stream.nano.verify("rv32imc")
    stream.nano.save(tmp_path / "stream.nanomodel")
    loaded = tn.load(tmp_path / "stream.nanomodel")
    assert loaded.image == stream.nano.image
    steps = random_steps(nano, stream, 50, seed=6)
    assert torch.equal(run(loaded.stream(), steps), run(stream, steps))
    stream.nano.export(tmp_path / "exported")
    assert "nano_core::ops::HISTORY" in (tmp_path / "exported/model.rs").read_text()
    assert "history" in str(stream.nano.summary())


def test_the_model_of_a_stream_without_states_streams_itself(tmp_path: Path) -> None:
    nano = Task(lambda: nn.Sequential(nn.MaxPool1d(3), nn.Conv1d(3, 2, 1)), 24).nano()
    stream = nano.stream()
    stream.nano.save(tmp_path / "stream.nanomodel")
    for again in (stream.nano.stream(), tn.load(tmp_path / "stream.nanomodel").stream()):
        assert again.step_length == stream.step_length == 3
        assert again.nano.image == stream.nano.image


@tasks
def test_real_numbers_go_through_the_quantization_of_the_model(task: str) -> None:
    nano = TASKS[task].nano()
    stream, twin = nano.stream(), nano.stream()
    x = torch.randn(30, *stream.nano.input_shape, generator=torch.Generator().manual_seed(7))
    for step in x:
        y, again = stream.step(step), twin.step(step.numpy())
        assert y.dtype == torch.float32 and torch.equal(y, again)
    integers = stream.nano.quantize_input(x)
    meaning = nano.output_quantization
    (expected,) = newest(nano.forward_int8(last_windows(nano, integers)[-1:]), stream)
    assert torch.equal(y, (expected.float() - meaning.zero_point) * meaning.scale)


def test_a_step_of_one_sample_needs_no_time_axis() -> None:
    stream = TASKS["flattened"].nano().stream()
    assert stream.step_length == 1
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(8))
    twin = stream.nano.stream()
    for sample in x:
        assert torch.equal(stream.step(sample), twin.step(sample[:, None]))


def test_an_input_quantized_per_channel_stays_so() -> None:
    """A batch norm in front, of channels of different sizes, is the input's quantization in a stream, too."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        x = (
            torch.randn(64, 3, 50) * torch.tensor([0.01, 1.0, 90.0])[:, None]
            + torch.tensor([5.0, 0, 200])[:, None]
        )
        model = nn.Sequential(nn.BatchNorm1d(3, momentum=None), pooled())
        model.train()(x)
    nano = tn.to_nano(model.eval(), x, calibrate=x)
    stream = nano.stream()
    assert nano.input_channels and stream.nano.input_channels.keys() == nano.input_channels.keys()
    samples = x[:4].movedim(1, 0).flatten(1)
    outputs = torch.stack([stream.step(step) for step in samples.split(stream.step_length, 1)])
    windows = samples.unfold(1, 50, stream.step_length).movedim(1, 0)
    assert torch.equal(outputs[24:], nano(windows))


def test_a_model_that_was_trained_through_the_arithmetic() -> None:
    task = TASKS["pooled"]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, x = task.make(), torch.randn(64, 3, task.window)
        qat = tn.prepare_qat(model, x[:2], calibrate=x)
        tn.fit(qat, (x, torch.arange(64) % 4), epochs=2, progress=False)
    nano = qat.eval().to_nano()
    stream = nano.stream()
    steps = random_steps(nano, stream, 100, seed=9)
    assert torch.equal(run(stream, steps), nano.forward_int8(last_windows(nano, steps)))


def random_network(choose: random.Random) -> tuple[nn.Module, int]:
    """Layers without padding, with or without what takes all rows at the end; the window's length."""
    layers: list[nn.Module] = []
    channels, rows, window = 3, choose.randrange(30, 80), 0
    window = rows
    for _ in range(choose.randrange(1, 6)):
        kernel, stride = choose.choice((1, 2, 3, 5)), choose.choice((1, 1, 2, 3))
        dilation = choose.choice((1, 2, 3))
        after = (rows - dilation * (kernel - 1) - 1) // stride + 1
        if after < 3:
            continue
        kind = choose.choice(("conv", "depthwise", "max", "average"))
        if kind == "conv":
            outputs = choose.randrange(1, 9)
            layers.append(nn.Conv1d(channels, outputs, kernel, stride, dilation=dilation))
            channels = outputs
        elif kind == "depthwise":
            layers.append(nn.Conv1d(channels, channels, kernel, stride, dilation=dilation, groups=channels))
        elif kind == "max":
            layers.append(nn.MaxPool1d(kernel, stride, dilation=dilation))
        else:
            layers.append(nn.AvgPool1d(kernel, stride))
            after = (rows - kernel) // stride + 1
        layers.append(choose.choice((nn.ReLU, nn.Tanh, nn.Identity))())
        rows = after
    end = choose.choice(("series", "pool", "flatten", "conv"))
    if end == "pool":
        layers += [nn.AdaptiveAvgPool1d(1), nn.Flatten()]
    elif end == "flatten":
        layers += [nn.Flatten(), nn.Linear(channels * rows, 3)]
    elif end == "conv":
        layers.append(nn.Conv1d(channels, 4, rows))
    else:
        layers.append(nn.Conv1d(channels, 4, 1))
    return nn.Sequential(*layers), window


@pytest.mark.parametrize("seed", range(30))
def test_random_networks(seed: int) -> None:
    choose = random.Random(seed)
    model, window = random_network(choose)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        nano = Task(lambda: model, window).nano(seed)
    try:
        stream = nano.stream()
    except tn.errors.StreamError as error:
        assert "skips rows" in str(error) or "fewer than a step" in str(error), (
            f"seed {seed}: {error}\n{model}"
        )
        return
    steps = random_steps(nano, stream, 80, seed)
    expected = newest(nano.forward_int8(last_windows(nano, steps)), stream)
    assert torch.equal(run(stream, steps), expected), f"seed {seed}: {model}\n{stream.nano.graph.graph}"


class Strides(nn.Module):
    """Branches whose strides have no common multiple below 12."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(3, 4, 3, stride=4), nn.Conv1d(3, 4, 3, stride=3)

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x).mean(2) + self.second(x).mean(2)


class Shifted(nn.Module):
    """A sum of rows one sample apart with rows two samples apart."""

    def __init__(self) -> None:
        super().__init__()
        self.dense, self.strided = nn.Conv1d(3, 4, 5), nn.Conv1d(3, 4, 1, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.dense(x) + self.strided(x)
        return y


class Delayed(nn.Module):
    """Rows without the newest."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x[:, :, :-2])


def padded(*others: nn.Module) -> nn.Module:
    """A convolution that pads, and layers after it."""
    return nn.Sequential(nn.Conv1d(3, 4, 3, padding=1), *others).eval()


DEEP = (nn.Conv1d(4, 4, 5, dilation=4, padding=8),)
FLAT = (nn.Flatten(), nn.Linear(80, 2))
#: What is wrong; the model, the shape of a window, whether all padding is to be before it; the message.
REFUSED: dict[str, tuple[nn.Module, tuple[int, ...], bool, str]] = {
    "an image": (nn.Conv2d(3, 4, 3), (3, 8, 8), False, r"'input' has shape \(3, 8, 8\); a stream takes"),
    "a vector": (nn.Linear(8, 3), (8,), False, r"no input over time"),
    "padding after": (padded(), (3, 20), False, r"module '0': it is not causal: .* 1 of its 20 rows"),
    "padding before a pool": (
        padded(nn.AdaptiveAvgPool1d(1)),
        (3, 20),
        True,
        r"module '0': 2 of its 20 rows depend on padding, .* average_pool2d \(module '1'\) takes all",
    ),
    "padding before a flatten": (
        padded(*FLAT),
        (3, 20),
        True,
        r"module '0': 2 of its 20 rows .* fully_connected \(module '2'\) takes all rows .*\(valid\)",
    ),
    "a window that is too short": (
        padded(*DEEP),
        (3, 18),
        True,
        r"module '0': the output depends on the last 19 samples, and the window has 18: .* of 19 samples",
    ),
    "a padded window": (nn.Conv1d(3, 4, 22, padding=1), (3, 20), True, r"pads the 20 rows .* takes in one"),
    "a stride that skips": (nn.Conv1d(3, 4, 1, stride=3), (3, 19), False, r"skips .* 2 samples longer"),
    "a window shorter than a step": (Strides(), (3, 10), False, r"10 samples, fewer than a step of 12"),
    "rows that come late": (Delayed(), (3, 9), False, r"it drops the newest 2 rows"),
    "other times": (Shifted(), (3, 9), False, r"add relates rows of different times"),
    "a transposed window": (nn.ConvTranspose1d(3, 4, 3), (3, 9), False, r"conv_transpose2d over time has no"),
}


@pytest.mark.parametrize("wrong", REFUSED)
def test_what_no_stream_can_give_is_refused(wrong: str) -> None:
    model, shape, is_causal, message = REFUSED[wrong]
    x = torch.randn(8, *shape, generator=torch.Generator().manual_seed(0))
    nano = causal(model.eval(), x) if is_causal else tn.to_nano(model.eval(), x, calibrate=x)
    with pytest.raises(tn.errors.StreamError, match=message):
        nano.stream()


def test_a_window_just_long_enough_is_taken() -> None:
    """Its last row depends on all samples, and on no padding."""
    model = padded(*DEEP)
    x = torch.randn(8, 3, 19, generator=torch.Generator().manual_seed(0))
    nano = causal(model.eval(), x)
    stream = nano.stream()
    steps = random_steps(nano, stream, 100, seed=10)
    expected = newest(nano.forward_int8(last_windows(nano, steps)), stream)
    assert torch.equal(run(stream, steps), expected)


def test_wrong_steps_are_refused_and_the_stream_stays_where_it_was() -> None:
    nano = TASKS["pooled"].nano()
    stream, twin = nano.stream(), nano.stream()
    steps = random_steps(nano, stream, 3, seed=11)
    assert torch.equal(run(stream, steps[:2]), run(twin, steps[:2]))
    right = torch.zeros(3, 2)
    for wrong, message in (
        (
            torch.zeros(3, 3),
            r"a step of input has shape \(3, 3\) .* expected floats of shape \(3, 2\): one step",
        ),
        (torch.zeros(1, 3, 2), r"has shape \(1, 3, 2\)"),
        (torch.zeros(3), r"has shape \(3,\)"),
        (np.zeros((3, 2), np.int32), r"dtype torch.int32; expected floats"),
        (right.to(torch.int8), r"dtype torch.int8; expected floats"),
        (right + torch.nan, r"NaN or infinity"),
        ([[0.0, 0.0]] * 3, r"expected a tensor"),
        (np.array([["a", "b"]] * 3), r"expected a tensor or an array of numbers"),
    ):
        with pytest.raises(tn.errors.InputError, match=message):
            stream.step(wrong)
    with pytest.raises(tn.errors.InputError, match=r"expected int8 of shape"):
        stream.step_int8(right)
    with pytest.raises(tn.errors.InputError, match=r"the model takes one input"):
        stream.step(right, right)
    with pytest.raises(tn.errors.HeadError, match="no trainable head"):
        stream.step_features(right)
    assert torch.equal(stream.step_int8(steps[2]), twin.step_int8(steps[2]))


def test_arrays_of_any_layout_are_steps() -> None:
    nano = TASKS["pooled"].nano()
    step = np.linspace(-1, 1, 6).reshape(3, 2)
    expected = nano.stream().step(step)
    for alike in (step[::-1].copy()[::-1], step.astype(">f8"), step.astype(np.longdouble)):
        assert torch.equal(nano.stream().step(alike), expected), alike.dtype
