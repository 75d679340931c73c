"""How long a client waits, and what can be done meanwhile."""

from __future__ import annotations

import signal
import threading
import time

import numpy as np
import pytest
from images import with_head
from torch_nano import Device, SimulatedBoard, _native

IMAGE = with_head()
INPUTS = np.random.default_rng(0).integers(-128, 128, (50, 216), np.int8)
LABELS = np.arange(50) % 4
#: Epochs that take seconds.
LONG = 200_000


def busy() -> Device:
    """A device with samples to train on."""
    device = Device(SimulatedBoard(IMAGE))
    for input, label in zip(INPUTS, LABELS, strict=True):
        device.learn(input, int(label))
    return device


def test_other_threads_run_while_a_simulated_device_trains() -> None:
    device, ended = busy(), threading.Event()
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        while not ended.wait(0.001):
            ticks += 1

    thread = threading.Thread(target=tick)
    thread.start()
    start = time.monotonic()
    device.train(LONG // 10)
    seconds = time.monotonic() - start
    ended.set()
    thread.join()
    # Far fewer than one in a millisecond, for computers with other work.
    assert ticks > seconds * 20


def test_ctrl_c_ends_the_waiting_and_not_the_training() -> None:
    device = busy()
    before, main = device.head_state(), threading.get_ident()
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.2, lambda: signal.pthread_kill(main, signal.SIGINT))
    start = time.monotonic()
    try:
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            device.train(LONG)
        interrupted = time.monotonic() - start
        # The same request: it is executed once, and this is its answer.
        device.train(LONG)
    finally:
        timer.cancel()
        signal.signal(signal.SIGINT, handler)
    assert interrupted < (time.monotonic() - start) / 2
    head = _native.Head(IMAGE)
    (features,) = _native.Model(IMAGE).run([INPUTS])
    head.train(features, LABELS, LONG)
    assert device.head_state() == head.state() != before
    assert device.stats().repeated == 1
