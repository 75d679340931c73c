"""One device in several threads, one stream in several devices, and processes that are forked."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from files_at_risk import small_files
from images import with_head
from torch_nano import Device, _native, heads
from torch_nano.device import QemuBoard, SimulatedBoard, record, replay
from torch_nano.device.transport.streams import Stream
from torch_nano.errors import (
    ConnectionFailed,
    ConnectionLost,
    DeviceError,
    DeviceRestarted,
    DeviceTimeout,
    RecordError,
)

from .boards import Board, serial_board, socket_board

IMAGE, LDA = with_head(), with_head(settings=heads.LDA(capacity=4))
SEED = 11
INPUTS = np.random.default_rng(SEED).integers(-128, 128, (40, 216), np.int8)
THREADS = 4


def together(*acts: Callable[[], Any]) -> list[Any]:
    """The results of functions that run in a thread each."""
    with ThreadPoolExecutor(len(acts)) as threads:
        return [made.result() for made in [threads.submit(act) for act in acts]]


def in_another_thread(act: Callable[[], Any]) -> Any:
    """The result of a function; a thread that does not end is a TimeoutError, and does not keep the test."""
    made: Future[Any] = Future()
    threading.Thread(target=lambda: made.set_result(act()), daemon=True).start()
    return made.result(timeout=20)


def shown(device: Device, sample: int) -> tuple[Any, ...]:
    """All that a device says of a sample."""
    made = device.predict(INPUTS[sample])
    features = device.features(INPUTS[sample]).tobytes()
    return made.label, made.confidence, made.output.tobytes(), made.logits.tobytes(), features


class Held:
    """A device that answers as soon as it is told to."""

    def __init__(self, device: _native.SimulatedDevice) -> None:
        self.device = device
        self.asked, self.released = threading.Event(), threading.Event()

    def exchange(self, data: bytes) -> bytes:
        self.asked.set()
        self.released.wait()
        return self.device.exchange(data)

    def flash(self) -> bytes:
        return self.device.flash()


@contextmanager
def held(device: Device, board: Board | None) -> Iterator[None]:
    """Inside, the device does not answer."""
    stream = device._link.stream
    if isinstance(stream, QemuBoard):
        os.kill(stream._process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                os.kill(stream._process.pid, signal.SIGCONT)
        return
    owner, name = (board, "device") if board is not None else (stream, "_device")
    working = getattr(owner, name)
    waiting = Held(working)
    setattr(owner, name, waiting)
    try:
        yield
    finally:
        waiting.released.set()
        setattr(owner, name, working)


@contextmanager
def connected(kind: str, image: bytes = IMAGE, board: Board | None = None) -> Iterator[Device]:
    board = Board(image) if board is None else board
    with ExitStack() as stack:
        line: str | Stream = kind
        if kind == "sim in parts":
            # Inputs, tensors and heads take several frames.
            line = SimulatedBoard(image, frame=64)
        elif kind == "socket":
            line = stack.enter_context(socket_board(board))
        elif kind == "serial":
            line = stack.enter_context(serial_board(board))
        yield stack.enter_context(Device(line, nano=image, progress=False))


LINES = pytest.mark.parametrize("kind", ["sim", "sim in parts", "qemu", "socket", "serial"])


@LINES
def test_every_thread_gets_its_own_answers(kind: str) -> None:
    with connected(kind) as device:
        alone = [shown(device, sample) for sample in range(len(INPUTS))]
        assert len(set(alone)) == len(INPUTS), "answers that could be mixed up are not told apart"
        head = device.head_state()

        def ask(thread: int) -> int:
            wrong = 0
            for sample in np.random.default_rng([SEED, thread]).permutation(len(INPUTS)):
                wrong += shown(device, sample) != alone[sample]
                wrong += device.head_state() != head
            return wrong

        assert together(*[lambda thread=thread: ask(thread) for thread in range(THREADS)]) == [0] * THREADS


@LINES
def test_every_sample_of_every_thread_is_learnt(kind: str) -> None:
    """A head of sums ends with the same bytes in any order."""
    with connected(kind, LDA) as device:
        parts = np.array_split(np.arange(len(INPUTS)), THREADS)

        def learn(part: Any) -> None:
            for sample in part:
                device.learn(INPUTS[sample], int(sample % 4))

        together(*[lambda part=part: learn(part) for part in parts])
        assert device.stats().learned == len(INPUTS)
        device.commit()
        head = _native.Head(LDA)
        (features,) = _native.Model(LDA).run([INPUTS])
        head.learn_all(features, np.arange(len(INPUTS)) % 4)
        head.commit()
        assert device.head_state() == head.state()


@pytest.mark.parametrize("kind", ["sim", "sim in parts", "qemu"])
def test_a_record_of_many_threads_repeats_to_the_bit(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "device.record"
    with connected(kind) as device:
        initial = device.head_state()

        def fit(part: slice) -> None:
            device.fit(INPUTS[part], np.arange(40)[part] % 4, epochs=2)

        def others() -> None:
            device.write_head(initial)
            for sample in range(6):
                device.learn(INPUTS[sample], sample % 4)
                device.train(1)
                device.undo()
                device.predict(INPUTS[sample])

        with record(device, path) as recording:
            together(lambda: fit(slice(0, 20)), lambda: fit(slice(20, 40)), others)
            device.train(1)
        result = replay(path, IMAGE)
        assert result.head.state() == device.head_state() != initial
        assert (
            result.steps == recording.steps == 20 + 1 + 20 + 1 + 6 * 3 + 1 + 1 and not result.outcome_unknown
        )
    # A fit is one operation: nothing comes between its samples.
    steps = [json.loads(line) for line in path.read_text().splitlines()]
    requests = "".join("l" if step["request"] == "learn" else "." for step in steps if "request" in step)
    assert requests.count("l" * 20 + ".") == 2


@LINES
def test_a_device_that_another_thread_closes_is_closed_at_once(kind: str) -> None:
    served = Board(IMAGE)
    board = served if kind in ("socket", "serial") else None
    with connected(kind, board=served) as device, ThreadPoolExecutor(2) as threads:
        device.learn(INPUTS[0], 1)
        with held(device, board):
            asked = threads.submit(device.train, 2)
            time.sleep(0.1)
            waiting = threads.submit(device.predict, INPUTS[0])
            time.sleep(0.3)
            assert not asked.done() and not waiting.done()
            start = time.monotonic()
            device.close()
            with pytest.raises(ConnectionLost, match=r"closed during the request .*not known"):
                asked.result()
            with pytest.raises(ConnectionLost, match="this Device was closed; make a new one"):
                waiting.result()
            assert time.monotonic() - start < 2, "it was waited for the answer"


def test_a_device_is_closed_while_it_waits_for_its_connection() -> None:
    board = Board(IMAGE)
    with socket_board(board) as url:
        device = Device(url)
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(device.predict, INPUTS[0])
        time.sleep(0.3)
        device.close()
        port = int(url.rpartition(":")[2])
        with socket_board(board, port):
            with pytest.raises(ConnectionLost, match="this Device was closed"):
                asked.result()
            # Nothing holds the port.
            with Device(url) as second:
                assert second.predict(INPUTS[0]).label >= 0


def test_the_errors_of_a_helper_thread_are_those_of_who_asked() -> None:
    board = SimulatedBoard(IMAGE)
    with Device(board) as device:
        for sample, input in enumerate(INPUTS):
            device.learn(input, sample % 4)
        # The same device in native code, without the board's lock.
        train = _native.encode_request("train", epochs=1000, first_epoch=0)
        ended = threading.Event()

        def keep_busy() -> None:
            while not ended.is_set():
                board._device.exchange(train)

        thread = threading.Thread(target=keep_busy)
        thread.start()
        try:
            for request in (device.stats, lambda: device.predict(INPUTS[0])):
                with pytest.raises(DeviceError, match="simulated device failed: Already borrowed") as caught:
                    for _ in range(1000):
                        request()
                assert isinstance(caught.value.__cause__, RuntimeError)
        finally:
            ended.set()
            thread.join()


def test_a_panic_of_a_helper_thread_is_an_error() -> None:
    class Panic(BaseException):
        pass

    class Panicking:
        def exchange(self, data: bytes) -> bytes:
            raise Panic("index out of bounds")

    board = SimulatedBoard(IMAGE)
    with Device(board) as device:
        board._device, working = Panicking(), board._device  # type: ignore[assignment]
        for request in (device.stats, lambda: device.predict(INPUTS[0])):
            with pytest.raises(DeviceError, match="the simulated device failed: index out of") as caught:
                request()
            assert isinstance(caught.value.__cause__, Panic)
        board._device = working
        assert device.stats().requests > 0


def test_two_devices_on_one_stream_exclude_each_other() -> None:
    board = SimulatedBoard(IMAGE, frame=64)
    with Device(board) as first, Device(board) as second:
        alone = [shown_again(first, sample) for sample in range(len(INPUTS))]

        def ask(device: Device) -> int:
            return sum(shown_again(device, sample) != alone[sample] for sample in range(len(INPUTS)))

        assert together(lambda: ask(first), lambda: ask(second)) == [0, 0]


def shown_again(device: Device, sample: int) -> tuple[Any, ...]:
    """What a device says, asked again whenever another client has begun to talk to it."""
    while True:
        try:
            return shown(device, sample)
        except DeviceRestarted:
            continue


@pytest.mark.parametrize("frame", [4096, 64])
def test_a_request_of_one_thread_is_executed_once_though_another_thread_asks_before_it_is_repeated(
    frame: int,
) -> None:
    board = Board(IMAGE)
    board.device = _native.SimulatedDevice(IMAGE, frame=frame)
    with socket_board(board) as url, Device(url, timeout=0.6) as device, ThreadPoolExecutor(1) as other:
        alone = device.predict(INPUTS[1])
        parts = -(-INPUTS.shape[1] // frame)
        answered = 0

        def silent_at_last(answer: bytes) -> bytes:
            nonlocal answered
            answered += 1
            return answer if answered < parts else b""

        board.on_answer = silent_at_last
        with pytest.raises(DeviceTimeout, match="'learn'"):
            device.learn(INPUTS[0], 2)
        with pytest.raises(DeviceTimeout, match="was not sent: that of another thread is to be"):
            other.submit(device.predict, INPUTS[1]).result()
        board.on_answer = lambda answer: answer
        assert other.submit(device.predict, INPUTS[1]).result().output.tobytes() == alone.output.tobytes()
        # The same of another thread is another sample.
        assert other.submit(device.learn, INPUTS[0], 2).result() == 2
        assert device.learn(INPUTS[0], 2) == 1, "this is the answer that was missing"
        assert device.learn(INPUTS[0], 2) == 3
        assert device.stats().learned == 3


def test_the_request_of_a_thread_that_has_ended_is_given_up() -> None:
    board = Board(IMAGE)
    with socket_board(board) as url, Device(url, timeout=0.4) as device:
        board.on_answer = lambda answer: b""
        failed: list[Exception] = []

        def learn() -> None:
            try:
                device.learn(INPUTS[0], 2)
            except DeviceTimeout as error:
                failed.append(error.with_traceback(None))

        thread = threading.Thread(target=learn)
        thread.start()
        thread.join()
        board.on_answer = lambda answer: answer
        assert len(failed) == 1 and device.learn(INPUTS[0], 2) == 2


class Curious:
    """An observer that asks the device, and does what it is told to."""

    def __init__(self, device: Device, act: Callable[[], object] = bool) -> None:
        self.device, self.act = device, act
        self.seen: list[tuple[Any, ...]] = []

    def before(self, request: str, fields: dict[str, Any]) -> None:
        self.seen.append(("before", request, self.device.predict(INPUTS[0]).label >= 0))

    def after(self, request: str, answer: dict[str, Any] | None, error: Exception | None) -> None:
        self.seen.append(("after", request, None if error is None else str(error)))
        self.act()

    def restarted(self) -> None:
        self.seen.append(("restarted",))


@pytest.mark.parametrize("kind", ["sim", "qemu"])
def test_an_observer_may_ask_and_not_change(kind: str) -> None:
    with connected(kind) as device:
        curious = Curious(device)
        device.observers.append(curious)
        together(*[lambda sample=sample: device.learn(INPUTS[sample], 1) for sample in range(4)])
        assert curious.seen == [("before", "learn", True), ("after", "learn", None)] * 4
        device.observers.clear()
        bold = Curious(device, lambda: device.learn(INPUTS[1], 1))
        device.observers.append(bold)
        with pytest.raises(DeviceError, match="an observer asked for 'learn'; it may ask the device, not"):
            device.learn(INPUTS[0], 1)
        assert device.samples == device.stats().learned == 5, "it was executed all the same"


def test_observers_are_told_of_what_another_one_prevents(tmp_path: Path) -> None:
    class Strict(Curious):
        def before(self, request: str, fields: dict[str, Any]) -> None:
            raise ValueError("not now")

    path = tmp_path / "device.record"
    with connected("sim") as device:
        with record(device, path):
            strict = Strict(device)
            device.observers.append(strict)
            with pytest.raises(ValueError, match="not now"):
                device.learn(INPUTS[0], 1)
            device.observers.remove(strict)
            device.learn(INPUTS[1], 1)
            device.train(1)
        assert strict.seen == [] and device.stats().learned == 1
        result = replay(path, IMAGE)
        assert result.head.state() == device.head_state() and not result.outcome_unknown


def test_a_record_that_cannot_be_written_is_told_and_stays_readable(tmp_path: Path) -> None:
    path = tmp_path / "device.record"
    with connected("sim") as device, record(device, path):
        device.learn(INPUTS[0], 1)
        full = path.stat().st_size
        with (
            small_files(full + 50),
            pytest.raises(RecordError, match=r"cannot be written \(File too large\)"),
        ):
            device.learn(INPUTS[1], 1)
        assert device.stats().learned == 1, "a step that is not in the record was made"
        assert path.stat().st_size == full
        # Its line fits, and not how it went.
        step = len(path.read_bytes().splitlines(keepends=True)[1])
        with small_files(full + step), pytest.raises(RecordError, match="cannot be written"):
            device.learn(INPUTS[1], 1)
        assert device.stats().learned == device.samples == 2
        device.train(2)
    result = replay(path, IMAGE)
    assert result.head.state() == device_head(path) and result.steps == 3


def device_head(path: Path) -> bytes:
    """The head of the two samples above."""
    head = _native.Head(IMAGE)
    (features,) = _native.Model(IMAGE).run([INPUTS[:2]])
    head.train(features, np.array([1, 1]), 2)
    return head.state()


@pytest.mark.parametrize("kind", ["sim", "qemu"])
def test_ctrl_c_ends_the_waiting_for_a_turn(kind: str) -> None:
    with connected(kind) as device, ThreadPoolExecutor(1) as threads:
        device.learn(INPUTS[0], 1)
        with held(device, None):
            training = threads.submit(device.train, 3)
            time.sleep(0.2)
            before = signal.signal(signal.SIGALRM, signal.default_int_handler)
            try:
                with pytest.raises(KeyboardInterrupt):
                    signal.setitimer(signal.ITIMER_REAL, 0.2, 1)
                    device.predict(INPUTS[0])
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
                signal.signal(signal.SIGALRM, before)
            assert not training.done()
        training.result()
        assert device.predict(INPUTS[0]).label >= 0
        assert device.stats().steps == 3


@pytest.mark.parametrize("kind", ["sim", "qemu"])
def test_what_ctrl_c_left_without_an_answer_is_answered_before_another_thread_asks(kind: str) -> None:
    with connected(kind) as device, ThreadPoolExecutor(1) as threads:
        device.learn(INPUTS[0], 1)
        with held(device, None):
            before = signal.signal(signal.SIGALRM, signal.default_int_handler)
            try:
                with pytest.raises(KeyboardInterrupt):
                    signal.setitimer(signal.ITIMER_REAL, 0.2, 1)
                    device.train(3)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
                signal.signal(signal.SIGALRM, before)
        assert threads.submit(device.stats).result().steps == 3
        device.train(3)
        assert device.stats().steps == 3, "it was asked the same again, and has answered"


@pytest.mark.parametrize("kind", ["sim", "qemu"])
def test_ctrl_c_at_any_moment_leaves_the_device_to_other_threads(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(SEED)
    # Python ignores an exception in a finalizer or a callback of a weak reference, and tells this hook of it.
    ignored: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda told: ignored.append(told.exc_type))
    before = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    path = tmp_path / "record"
    try:
        with connected(kind) as device, record(device, path):
            features = device.features(INPUTS[5]).tobytes()
            acts: list[Callable[[], Any]] = [
                lambda: device.fit(INPUTS[:4], [0, 1, 2, 3], epochs=2),
                lambda: device.predict(INPUTS[1]),
                device.reset,
                device.stats,
            ]
            for attempt in range(300):
                act, told = acts[attempt % len(acts)], f"seed {SEED}, attempt {attempt}"
                # Once more after a second, for one that is ignored.
                with pytest.raises(KeyboardInterrupt):
                    signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 0.005), 1)
                    while True:
                        act()
                signal.setitimer(signal.ITIMER_REAL, 0)
                assert in_another_thread(lambda: device.features(INPUTS[5]).tobytes()) == features, told
            state = device.head_state()
        made = replay(path, IMAGE)
        assert made.head.state() == state and not made.outcome_unknown
        assert set(ignored) <= {KeyboardInterrupt}, f"seed {SEED}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@LINES
def test_a_forked_process_is_refused_and_costs_its_parent_nothing(kind: str) -> None:
    with connected(kind) as device:
        alone = shown(device, 0)
        told: Future[None] = Future()

        def hold() -> None:
            with device._turn.lock:
                told.set_result(None)
                time.sleep(0.5)

        # The lock of another thread, which the forked process does not have.
        holder = threading.Thread(target=hold)
        holder.start()
        told.result()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                for request in (lambda: device.predict(INPUTS[0]), device.reconnect, lambda: device.labels):
                    with pytest.raises(ConnectionFailed, match="from which this one was forked: make a new"):
                        request()
                device.close()
                status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        holder.join()
        assert shown(device, 0) == alone


def test_a_signal_handler_that_asks_in_the_middle_of_a_request_is_refused() -> None:
    refused: list[Exception] = []
    with connected("qemu") as device:
        device.learn(INPUTS[0], 1)
        emulator = device._link.stream._process.pid  # type: ignore[attr-defined]

        def handle(*_: object) -> None:
            try:
                device.stats()
            except DeviceError as error:
                refused.append(error)
            os.kill(emulator, signal.SIGCONT)

        before = signal.signal(signal.SIGALRM, handle)
        try:
            os.kill(emulator, signal.SIGSTOP)
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            device.train(2)
        finally:
            signal.signal(signal.SIGALRM, before)
        (told,) = refused
        assert "the request 'stats' was not sent: this thread waits for the answer to another" in str(told)
        assert device.stats().steps == 2
