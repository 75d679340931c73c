"""The client of a device: the requests of the protocol over any byte stream."""

from __future__ import annotations

from dataclasses import dataclass, fields
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from torch_nano import _native
from torch_nano.errors import TorchNanoError

_FRAME_END = b"\0"
_CHUNK = 1 << 16


class Stream(Protocol):
    """A byte stream to a device, such as :class:`torch_nano.device.qemu.QemuBoard`."""

    def read(self, size: int) -> bytes:
        """Waits for 1 to ``size`` bytes."""

    def write(self, data: bytes) -> None:
        """Sends all of ``data``."""

    def close(self) -> None:
        """Ends the connection."""


class DeviceError(TorchNanoError):
    """The device refused a request, with its state unchanged, or answered something else than asked."""


@dataclass(frozen=True)
class DeviceInfo:
    """What a device says of itself."""

    #: Version of the protocol.
    protocol: int
    #: CRC-32 of the model's image: :attr:`torch_nano.NanoModule.id` of the same model.
    model_id: int
    #: Name of the model.
    name: str
    #: Bytes of one input.
    input_length: int
    #: Bytes of one output; with a head these are the features.
    output_length: int
    #: Classes of the head, 0 without one.
    classes: int
    #: How many labelled features the device keeps.
    ring_capacity: int
    #: Bytes of arena.
    arena_length: int
    #: Bytes of inputs, tensors or states that one frame takes; longer ones travel in parts.
    frame_length: int


@dataclass(frozen=True)
class Prediction:
    """What a device made of one input."""

    #: Index of the largest logit or output.
    label: int
    #: The graph's output, int8 [elements]; with a head: the features.
    output: NDArray[np.int8]
    #: The head's logits, int32 [classes]; empty without a head.
    logits: NDArray[np.int32]
    #: Instructions (emulated board) or cycles the run took.
    ticks: int


class Device:
    """A device behind a byte stream; a context manager that closes the stream.

    Inputs are int8 arrays with the elements of one input in the device's layout (height, width, channels).

    Args:
        stream: the connection. It is asked at once what model the device runs.

    Raises:
        DeviceError: the device speaks another version of the protocol.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._received = bytearray()
        self._sequence = 0
        self._model_id: int | None = None
        answer = self._ask("info", "info")
        #: What the device said of itself when the connection was made.
        self.info = DeviceInfo(**{field.name: answer[field.name] for field in fields(DeviceInfo)})
        self._model_id = self.info.model_id

    def predict(self, input: NDArray[np.int8]) -> Prediction:
        """Runs the model on one input.

        Raises:
            DeviceError: the input has the wrong length.
        """
        answer = self._ask("predict", "prediction", input=self._send_start(input.tobytes()))
        output = np.frombuffer(self._whole("output", answer["output"], self.info.output_length), np.int8)
        logits = np.frombuffer(
            self._whole("logits", answer["logits"], 4 * self.info.classes), np.dtype("<i4")
        )
        return Prediction(answer["class"], output, logits, answer["ticks"])

    def profile(self, input: NDArray[np.int8]) -> list[int]:
        """Runs the model on one input; instructions (emulated board) or cycles of each layer."""
        answer = self._ask("profile", "profile", input=self._send_start(input.tobytes()))
        layers = self._whole("layers", answer["layers"])
        return [int(ticks) for ticks in np.frombuffer(layers, np.dtype("<u4"))]

    def learn(self, input: NDArray[np.int8], label: int) -> int:
        """Keeps the features of one input with its label for :meth:`train`; returns how many there are now.

        Raises:
            DeviceError: no trainable head, or an unknown label.
        """
        answer = self._ask("learn", "learned", input=self._send_start(input.tobytes()), label=label)
        return int(answer["samples"])

    def train(self, epochs: int) -> int:
        """Trains the head for ``epochs`` passes over what was learnt; returns instructions or cycles taken.

        Raises:
            DeviceError: no trainable head, or nothing learnt yet.
        """
        return int(self._ask("train", "trained", epochs=epochs)["ticks"])

    def head_state(self) -> bytes:
        """The head's whole state, as :meth:`torch_nano.heads.SgdHead.state` has it.

        Raises:
            DeviceError: no trainable head.
        """
        return self._whole("head", b"")

    def reset(self) -> None:
        """Puts the head back to the image's, and forgets what was learnt."""
        self._ask("reset", "done")

    def close(self) -> None:
        """Closes the stream."""
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send_start(self, input: bytes) -> bytes:
        """Sends what of an input one frame does not take; returns the rest, for the request itself."""
        limit = self.info.frame_length
        # What has the wrong length is for the device to refuse.
        if len(input) != self.info.input_length or len(input) <= limit:
            return input
        start = (len(input) - 1) // limit * limit
        for offset in range(0, start, limit):
            self._ask("input", "received", offset=offset, bytes=input[offset : offset + limit])
        return input[start:]

    def _whole(self, block: str, start: bytes, length: int | None = None) -> bytes:
        """All of a block, of which ``start`` has arrived; ``length`` bytes if that is known."""
        while length is None or len(start) < length:
            part = self._ask("read", "part", block=block, offset=len(start))
            start, length = start + part["bytes"], part["length"]
        return start

    def _ask(self, request: str, response: str, **fields: Any) -> dict[str, Any]:
        # From 1 to 65535: 0 is for requests without a number.
        self._sequence = self._sequence % 0xFFFF + 1
        sequence, model_id = self._sequence, self._model_id
        self._stream.write(_native.encode_request(request, sequence=sequence, model_id=model_id, **fields))
        answer = _native.decode_response(self._frame())
        kind = answer.pop("kind")
        if kind == "refused":
            raise DeviceError(f"the device refused the request {request!r}: {answer['reason']}")
        if kind != response:
            raise DeviceError(f"the device answered {kind!r} to the request {request!r}")
        return answer

    def _frame(self) -> bytes:
        """The next frame, without its end byte."""
        while _FRAME_END not in self._received:
            self._received += self._stream.read(_CHUNK)
        frame, _, rest = self._received.partition(_FRAME_END)
        self._received = rest
        return bytes(frame)
