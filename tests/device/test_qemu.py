"""The emulated rv32imc board through `Device`: results, learning, errors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from images import many_layers, one_layer, with_head
from torch_nano import _native
from torch_nano.device.client import Device, DeviceError
from torch_nano.device.transport import qemu
from torch_nano.device.transport.qemu import QemuBoard
from torch_nano.errors import BoardError, BoardStopped, BoardTimeout, ConnectionLost

Int8 = npt.NDArray[np.int8]
FLASH = 16 << 20


def random_inputs(image: bytes, count: int, seed: int = 0) -> Int8:
    model = _native.Model(image)
    (input,) = model.inputs
    width = int(np.prod(model.values[input]["shape"]))
    return np.random.default_rng(seed).integers(-128, 128, (count, width), np.int8)


@pytest.fixture(scope="module")
def learner() -> Iterator[Device]:
    """A board with a head; tests reset it first."""
    with Device(QemuBoard(with_head())) as device:
        yield device


@pytest.mark.parametrize("image", [one_layer(), many_layers()], ids=["one layer", "many layers"])
def test_predictions_are_those_of_the_host(image: bytes) -> None:
    inputs = random_inputs(image, 12)
    (expected,) = _native.Model(image).run([inputs])
    assert len(np.unique(expected, axis=0)) > 6, "nearly all outputs are equal: nothing is tested"
    with Device(QemuBoard(image)) as device:
        assert device.info.model_id == _native.Model(image).id
        assert device.info.arena_length == _native.Model(image).arena_length
        assert (device.info.classes, device.info.ring_capacity) == (0, 0)
        ticks = set()
        for input, output in zip(inputs, expected, strict=True):
            prediction = device.predict(input)
            assert prediction.output.tobytes() == output.tobytes()
            assert prediction.label == int(output.argmax())
            assert prediction.logits.size == 0
            ticks.add(prediction.ticks)
        assert min(ticks) > 0
        assert len(device.profile(inputs[0])) == len(_native.Model(image).layers)


def test_the_instruction_counts_are_the_same_every_time() -> None:
    image = many_layers()
    inputs = random_inputs(image, 3)

    def counts() -> list[list[int]]:
        with Device(QemuBoard(image)) as device:
            runs = [[device.predict(input).ticks, *device.profile(input)] for input in inputs]
            return [[device.stats().startup_ticks], *runs]

    first = counts()
    assert counts() == first
    assert all(sum(layers) <= total for total, *layers in first[1:])


def test_the_start_of_more_layers_costs_more_instructions() -> None:
    costs = []
    for image in (one_layer(), many_layers()):
        with Device(QemuBoard(image)) as device:
            started = device.stats().startup_ticks
            device.predict(random_inputs(image, 1)[0])
            assert device.stats().startup_ticks == started
            costs.append(started)
    # The checksum alone takes more than an instruction for a byte.
    assert costs[0] > len(one_layer())
    assert costs[1] > costs[0]


def test_learning_on_the_board_is_learning_on_the_host(learner: Device) -> None:
    learner.reset()
    image = with_head()
    inputs = random_inputs(image, 30)
    labels = np.random.default_rng(1).integers(0, 4, 30).astype(np.int64)
    (features,) = _native.Model(image).run([inputs])
    head = _native.Head(image)
    initial = head.state()
    assert learner.head_state() == initial
    for count, (input, label) in enumerate(zip(inputs, labels, strict=True)):
        assert learner.learn(input, int(label)) == count + 1
    for epochs in (1, 4):
        assert learner.train(epochs) > 0
        head.train(features, labels, epochs)
        assert learner.head_state() == head.state()
    assert head.state() != initial
    logits = head.logits(features)
    for input, output, expected in zip(inputs, features, logits, strict=True):
        prediction = learner.predict(input)
        assert prediction.output.tobytes() == output.tobytes()
        assert prediction.logits.tobytes() == expected.tobytes()
        assert prediction.label == int(expected.argmax())
    learner.reset()
    assert learner.head_state() == initial


def test_the_ring_keeps_the_latest_samples(learner: Device) -> None:
    learner.reset()
    image = with_head()
    capacity = learner.info.ring_capacity
    inputs = random_inputs(image, capacity + 5, seed=2)
    labels = (np.arange(capacity + 5) % 4).astype(np.int64)
    counts = [learner.learn(input, int(label)) for input, label in zip(inputs, labels, strict=True)]
    assert counts == [*range(1, capacity + 1), *[capacity] * 5]
    learner.train(1)
    (features,) = _native.Model(image).run([inputs[5:]])
    head = _native.Head(image)
    head.train(features, labels[5:], 1)
    assert learner.head_state() == head.state()


def test_refused_requests_change_nothing(learner: Device) -> None:
    learner.reset()
    right = random_inputs(with_head(), 1)[0]
    with pytest.raises(DeviceError, match="'train': there is nothing to train on: learn some samples first"):
        learner.train(1)
    learner.learn(right, 2)
    before = learner.head_state()
    # What the client itself refuses is sent all the same.
    for wrong in (right[1:], np.append(right, np.int8(0)), right[:0]):
        message = f"the input has {wrong.size} bytes, the model needs {right.size}"
        for request, answer, label in (
            ("predict", "prediction", {}),
            ("profile", "profile", {}),
            ("learn", "learned", {"label": 0}),
        ):
            with pytest.raises(DeviceError, match=f"{request!r}: {message}"):
                learner._ask(request, answer, input=wrong.tobytes(), **label)
    with pytest.raises(DeviceError, match="'learn': label 4 is not below the number of classes, 4"):
        learner._ask("learn", "learned", input=right.tobytes(), label=4)
    with pytest.raises(DeviceError, match=r"longer than the [0-9]+ bytes this model's requests have"):
        learner._ask("predict", "prediction", input=bytes(100_000))
    with pytest.raises(OverflowError):
        learner._ask("learn", "learned", input=right.tobytes(), label=-1)
    assert learner.head_state() == before
    assert learner.learn(right, 3) == 2, "the ring has changed"


def test_without_a_head_there_is_nothing_to_learn() -> None:
    image = one_layer()
    input = random_inputs(image, 1)[0]
    with Device(QemuBoard(image)) as device:
        for request in (lambda: device.learn(input, 0), lambda: device.train(1), device.head_state):
            with pytest.raises(DeviceError, match="the model on the device has no trainable head"):
                request()


def converse(board: QemuBoard, request: bytes, answers: int) -> bytes:
    board.write(request)
    received = bytearray()
    while received.count(0) < answers:
        received += board.read(4096)
    return bytes(received)


def test_the_stream_is_exact_to_the_byte() -> None:
    """However it is cut, the same requests give the same bytes; damage costs only the frame it hits."""
    image = one_layer()
    all_bytes = np.arange(-128, 128).astype(np.int8)
    inputs = [np.resize(all_bytes[start:], 20) for start in range(0, 256, 4)]
    requests = [_native.encode_request("predict", input=input.tobytes()) for input in inputs]
    (expected,) = _native.Model(image).run([np.stack(inputs)])
    with QemuBoard(image) as board:
        assert board.read(1) == b"\0", "it ends what it has sent before a restart"
        at_once = converse(board, b"".join(requests), len(requests))
        # In the middle of a word, of a frame, byte by byte.
        one_by_one = b"".join(converse(board, request, 1) for request in requests)
        for byte in requests[0][:-1]:
            board.write(bytes([byte]))
        last = converse(board, requests[0][-1:], 1)
        refused = converse(board, b"\xff\x01noise\0", 1)
        damaged = bytes([requests[1][0], requests[1][1] ^ 1 or 2, *requests[1][2:]])
        still_refused = converse(board, damaged, 1)
        after = converse(board, b"\0\0\0" + requests[0], 1)
    assert at_once == one_by_one
    frames = at_once.split(b"\0")
    assert len(frames) == len(requests) + 1 and frames.pop() == b""
    assert last == after == frames[0] + b"\0"
    for frame, output in zip(frames, expected, strict=True):
        answer = _native.decode_response(frame)
        assert (answer["kind"], answer["output"]) == ("prediction", output.tobytes())
    for frame in (refused, still_refused):
        assert _native.decode_response(frame[:-1])["reason"].startswith("the frame was damaged on the way")


def damaged_image() -> bytes:
    image = bytearray(many_layers())
    image[-1] ^= 1
    return bytes(image)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (damaged_image(), r"the image is damaged: its checksum is [0-9a-f]{8}, [0-9a-f]{8} was stored"),
        (many_layers()[:-100], r"the image is damaged"),
        (b"", "not a .nano image: it does not start with NANO"),
        (b"GIF89a", "not a .nano image"),
    ],
    ids=["damaged", "cut short", "empty", "other file"],
)
def test_a_board_stops_on_an_image_it_cannot_run_and_says_why(image: bytes, reason: str) -> None:
    with QemuBoard(image) as board:
        with pytest.raises(ConnectionLost, match=reason) as caught:
            Device(board)
        stopped = caught.value.__cause__
        assert isinstance(stopped, BoardStopped) and stopped.exit_status == 1
        assert stopped.last_output.isprintable() or "\n" in stopped.last_output
        assert "\\x" not in stopped.last_output
        with pytest.raises(BoardError, match="the board was closed"):
            board.read(1)


def test_an_image_may_fill_the_flash_but_not_exceed_it() -> None:
    image = one_layer()
    input = random_inputs(image, 1)
    with Device(QemuBoard(image.ljust(FLASH, b"\xff"))) as device:
        assert device.predict(input[0]).output.tobytes() == _native.Model(image).run([input])[0].tobytes()
    with pytest.raises(
        BoardError, match=f"the image has {FLASH + 1} bytes; the emulated board's flash has {FLASH}"
    ):
        QemuBoard(image.ljust(FLASH + 1, b"\xff"))


def test_without_qemu_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BoardError, match=r"qemu-system-riscv32 is missing.*apt-get install qemu-system-misc"):
        QemuBoard(one_layer())


def test_without_the_boards_program_it_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    missing = tmp_path / "virt.elf"
    monkeypatch.setattr(qemu, "_ELF", missing)
    with pytest.raises(BoardError, match=r"the board's program .*virt\.elf is missing.*just setup"):
        QemuBoard(one_layer())


def test_another_program_is_not_the_boards(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = tmp_path / "other.elf"
    program = qemu._ELF.read_bytes()
    # The type of the program header by which the board's program is known.
    header = qemu._IMAGE_HEADER[0].to_bytes(4, "little")
    assert header in program
    other.write_bytes(program.replace(header, bytes(4)))
    monkeypatch.setattr(qemu, "_ELF", other)
    with pytest.raises(BoardError, match=r"other\.elf is not the board's program"):
        QemuBoard(one_layer())


def test_a_silent_board_and_a_closed_one_are_errors() -> None:
    board = QemuBoard(one_layer(), timeout=60)
    assert board.read(1) == b"\0", "it ends what it has sent before a restart"
    board.timeout = 0.2
    with pytest.raises(BoardTimeout, match=r"did not send anything within 0\.2 s"):
        board.read(1)
    board.timeout = 60
    assert Device(board).info.name == "test"
    # It has sent frames since, which are no text.
    board.timeout = 0.2
    with pytest.raises(BoardTimeout, match=r"allows more\); it printed nothing$") as caught:
        board.read(1)
    assert caught.value.last_output == board.last_output == ""
    board.close()
    board.close()
    for action in (lambda: board.read(1), lambda: board.write(b"x")):
        with pytest.raises(BoardError, match="the board was closed"):
            action()
