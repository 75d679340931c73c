"""A history over many steps, on the host and on the board, against a deque of rows."""

from collections import deque
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from torch_nano import Device, _native
from torch_nano.arithmetic.layout import Shape
from torch_nano.arithmetic.quantization import Quantization
from torch_nano.device import QemuBoard
from torch_nano.ir.layer import Layer
from torch_nano.library.one_layer import one_layer_model
from torch_nano.ops.history import History

Elements = np.ndarray[tuple[int, ...], np.dtype[np.int8]]
SEEDS = range(40)


def random_layer(rng: np.random.Generator) -> tuple[_native.Model, tuple[int, ...], Elements]:
    """A model of one history, the shape of a step with its rows first, and what a row is at the start."""
    channels, rows = int(rng.integers(1, 9)), int(rng.integers(1, 8))
    sides = [int(side) for side in rng.integers(1, 5, int(rng.integers(0, 3)))]
    shape: Shape = (channels, *sides)
    quantization = Quantization(0.25, int(rng.integers(-128, 128)))
    start = rng.integers(-128, 128, channels).astype(np.int8)
    real = tuple(0.25 * (int(number) - quantization.zero_point) for number in start)
    layer = Layer(
        History(rows, real),
        input_quantizations=[quantization],
        output_quantizations=[quantization],
        shapes=[shape],
    )
    layer = replace(layer, tensors=layer.quantize())
    tall = len(sides) == 2 and sides[0] > 1
    step = (sides[0], sides[1], channels) if tall else (sides[-1] if sides else 1, 1, channels)
    output = {0: (channels, rows + 1), 1: (channels, rows + step[0])}.get(
        len(sides), (channels, rows + step[0], step[1]) if tall else (channels, 1, rows + step[0])
    )
    return one_layer_model(layer, [output]), step, np.tile(start, (rows, step[1], 1))


def expected(steps: Elements, before: Elements) -> Iterator[Elements]:
    """What a history holds after each step: [rows of all, ...]; `before` is what it holds at the start."""
    kept = deque(before, maxlen=len(before) + steps.shape[1])
    for step in steps:
        kept.extend(step)
        yield np.stack(list(kept))


def test_it_remembers_the_last_rows() -> None:
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        model, shape, before = random_layer(rng)
        steps = rng.integers(-128, 128, (30, *shape)).astype(np.int8)
        stream, other = _native.Stream(model), _native.Stream(model)
        for again in range(2):
            for index, rows in enumerate(expected(steps, before)):
                (y,) = stream.step([steps[index].reshape(1, -1)])
                assert np.array_equal(y[0], rows.ravel()), f"seed {seed}, run {again}, step {index}"
            stream.reset()
        # The other stream has seen nothing of that.
        first = next(expected(steps[5:], before))
        (y,) = other.step([steps[5].reshape(1, -1)])
        assert np.array_equal(y[0], first.ravel()), f"seed {seed}"


def test_each_sample_of_a_batch_is_a_first_step() -> None:
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        model, shape, before = random_layer(rng)
        steps = rng.integers(-128, 128, (5, *shape)).astype(np.int8)
        (outputs,) = model.run([steps.reshape(5, -1)])
        for step, y in zip(steps, outputs, strict=True):
            assert np.array_equal(y, next(expected(step[None], before)).ravel()), f"seed {seed}"


def test_the_board_goes_on_from_request_to_request() -> None:
    for seed in range(4):
        rng = np.random.default_rng(seed)
        model, shape, before = random_layer(rng)
        steps = rng.integers(-128, 128, (12, *shape)).astype(np.int8)
        with Device(QemuBoard(model.image)) as device:
            for step, rows in zip(steps, expected(steps, before), strict=True):
                assert np.array_equal(device.predict(step.ravel()).output, rows.ravel()), f"seed {seed}"


def test_a_start_of_another_length_is_refused() -> None:
    quantization = Quantization(0.25, 0)
    layer = Layer(
        History(2, (0.0, 0.0, 0.0)),
        input_quantizations=[quantization],
        output_quantizations=[quantization],
        shapes=[(2, 4)],
    )
    layer = replace(layer, tensors=layer.quantize())
    with pytest.raises(
        _native.NanoError, match=r"history: .*start.* int8 of length 2, it is int8 of length 3"
    ):
        one_layer_model(layer, [(2, 6)])
    for rows in (0, -1, 2**28 + 1):
        wrong = replace(layer, operator=History(rows, (0.0, 0.0)))
        wrong = replace(wrong, tensors=wrong.quantize())
        with pytest.raises(
            _native.NanoError, match=rf"history: the rows are not 1 to 2\^28 \(found {rows}\)"
        ):
            one_layer_model(wrong, [(2, 6)])
