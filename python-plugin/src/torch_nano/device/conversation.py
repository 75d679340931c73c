"""The base of the client: its connection to a device, and the device's description."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NoReturn, Protocol, Self, TypeVar

from .. import _native
from ..arguments import class_index, image_of, integer, path_of, seconds
from ..errors import DeviceError, DeviceRestarted, WrongModelError
from .answers import DeviceInfo, DeviceSettings, DeviceStats, LogEntry
from .bars import Bars
from .graph_values import GraphValue
from .link import Link, is_unanswered
from .samples import Input, KnownModel, input_bytes, label_fields
from .sliced_training import SlicedTraining
from .transport.interrupts import deferred_interrupt
from .transport.streams import Stream
from .transport.transports import transport_of
from .turns import turn_on, whole

#: Number of times that an operation of several requests is begun on a device which runs inputs of its own.
_ATTEMPTS = 20
_Result = TypeVar("_Result")


class Observer(Protocol):
    """An observer of the requests that change what a device has learnt, such as a record.

    It may send requests to the device in the same thread, but no changes.
    """

    def before(self, request: str, fields: dict[str, Any]) -> None:
        """The request is about to be sent; an exception prevents that."""

    def after(self, request: str, answer: dict[str, Any] | None, error: Exception | None) -> None:
        """It was answered, refused, or left without an answer."""

    def restarted(self) -> None:
        """The device has restarted, or another client has used it."""


class Conversation:
    """A connected device without its requests; see :class:`torch_nano.Device`."""

    def __init__(
        self,
        connection: str | Path | Stream,
        *,
        nano: KnownModel | bytes | None = None,
        timeout: float = 30.0,
        baudrate: int = 115200,
        flash: str | Path | None = None,
        progress: bool | None = None,
    ) -> None:
        self._image = image = None if nano is None else image_of(nano)
        self._nano = None if isinstance(nano, bytes | bytearray) else nano
        file = None if flash is None else path_of("flash", flash)
        timeout, baudrate = seconds("timeout", timeout), integer("baudrate", baudrate, 1)
        transport = transport_of(connection, image, timeout=timeout, baudrate=baudrate, flash=file)
        given = None if isinstance(connection, str | Path) else connection
        self._turn = turn_on(given)
        self._link = Link(transport, given, timeout, self._turn)
        self._progress = Bars(progress)
        self._names: tuple[str, ...] | None = None
        self._info: DeviceInfo
        #: The id of the model whose inputs and outputs are in `info`; None: not known yet.
        self._described: int | None = None
        #: Called for each change; see :func:`torch_nano.device.record`.
        self.observers: list[Observer] = []
        self._is_changing = False
        #: The training that an error has left open.
        self._training: SlicedTraining | None = None
        #: Number of samples that the device keeps for training; None if unknown.
        self.samples: int | None = None
        try:
            self._connect()
        except BaseException:
            if given is None:
                self._link.stream.close()
            raise

    @whole
    def _connect(self) -> None:
        self._link.begin()
        self._begun(self._require_model)

    def _begun(self, check: Callable[[], None] = lambda: None) -> None:
        """Describes the device after a session has begun; `check` may refuse its model."""
        self._refresh()
        check()
        self.samples = 0 if self.stats().learned == 0 else None
        self._link.model_id = self.info.model_id

    def _know(self, image: _native.Model | None, nano: KnownModel | None) -> None:
        """Makes this the client's model, as after an update."""
        self._image, self._nano = image, nano
        self._names = None

    @property
    def info(self) -> DeviceInfo:
        """The device's description of itself, after its latest change."""
        return self._info

    @property
    def settings(self) -> DeviceSettings:
        """The device's settings."""
        return self._settings

    @property
    @whole
    def labels(self) -> tuple[str, ...]:
        """The names of its classes; "" for one without a name.

        A device whose model has no head does not know any: these are then the names of the client's model.
        """
        if self._names is None and not self.info.classes:
            self._names = () if self._image is None else tuple(self._image.labels)
        if self._names is None:
            classes = range(self.info.classes)
            self._names = tuple(self._ask("class_name", "class_name", class_index=k)["name"] for k in classes)
        return self._names

    @property
    def log(self) -> tuple[LogEntry, ...]:
        """This client's latest 1,000 requests, in order. (The device counts its own: :meth:`stats`.)"""
        return tuple(self._link.log)

    def stats(self) -> DeviceStats:
        """Counters since the device's start."""
        return DeviceStats.of(self._ask("stats", "stats"))

    @whole
    def reconnect(self) -> bool:
        """Reopens the connection ("sim" and "qemu": restarts the device, with its flash file).

        A request without an answer is sent again first; repeat it to get its answer.

        Returns:
            Whether the device has restarted, and so has the head that was saved last.

        Raises:
            ConnectionFailed: it cannot be opened.
            WrongModelError: the device has another model.
        """
        self._link.reopen()
        asker = self._link.asker
        late = asker.late
        try:
            self._refresh()
        except DeviceRestarted:
            return True
        asker.late = late
        self._require_model()
        return False

    def close(self) -> None:
        """Closes the connection at once: requests of other threads, and all later ones, raise
        :class:`ConnectionLost`.
        """
        self._link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @whole
    def _ask(self, /, request: str, response: str, **fields: Any) -> dict[str, Any]:
        if self._training is not None and self._training.asker is self._link.asker:
            # Another request of the thread makes the answer that is still missing unavailable.
            self._end_training()
        return self._send(request, response, **fields)

    def _send(self, /, request: str, response: str, **fields: Any) -> dict[str, Any]:
        try:
            return self._link.ask(request, response, **fields)
        except DeviceError as error:
            if error.failure != "Session":
                raise
            self._begin_again(request, error)

    @whole
    def _change(
        self, /, request: str, response: str, *, seen: dict[str, Any] | None = None, **fields: Any
    ) -> dict[str, Any]:
        """Sends a request that changes what was learnt; observers get its fields `seen`, or all."""
        self._end_training()
        with self._recorded_whole():
            return self._observed(
                request, fields if seen is None else seen, lambda: self._ask(request, response, **fields)
            )

    @whole
    def _learn(self, input: bytes, target: dict[str, Any]) -> int:
        """Learns an input with a label from :func:`label_fields`."""
        self._end_training()
        (value,) = target.values()
        seen = {"input": input, "target": value}

        def run() -> dict[str, Any]:
            return self._undisturbed(lambda: self._run("learn", "learned", input, **target))

        with self._recorded_whole():
            answer = self._observed("learn", seen, run)
        return int(answer["samples"])

    @whole
    def _train(self, progress: Bars, /, **fields: int) -> dict[str, Any]:
        """Trains slice by slice, or continues the same training if it is open; Ctrl-C ends it."""
        training = self._training
        if training is None or training.fields != fields:
            self._end_training()
            training = SlicedTraining(self._link, fields)
        with deferred_interrupt() as interrupted:
            return self._work_on(training, progress, interrupted)

    def _end_training(self) -> None:
        """Stops a training that an error has left open: a record needs its number of steps."""
        if self._training is None or self._is_changing:
            return
        try:
            with deferred_interrupt():
                self._work_on(self._training, Bars(False), lambda: True)
        except DeviceError as error:
            if is_unanswered(error) or isinstance(error, WrongModelError):
                raise

    def _work_on(self, training: SlicedTraining, progress: Bars, stop: Callable[[], bool]) -> dict[str, Any]:
        def run() -> dict[str, Any]:
            self._training = training
            try:
                answer = training.run(self._send, progress, stop)
            except DeviceError as error:
                if not is_unanswered(error):
                    self._training = None
                raise
            self._training = None
            return answer

        return self._observed("train", training.fields, run)

    @whole
    def _observed(
        self, request: str, seen: dict[str, Any], act: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        if self._is_changing:
            raise DeviceError(
                f"an observer asked for {request!r}; it may ask the device, not change what that has learnt",
                "Unsent",
            )
        self._is_changing = True
        try:
            return self._tell_of(request, seen, act)
        finally:
            self._is_changing = False

    def _recorded_whole(self) -> AbstractContextManager[object]:
        """Makes Ctrl-C wait for the answer to a change if there are observers, as in a training: a record
        needs the outcome. A second Ctrl-C does not wait.
        """
        return deferred_interrupt() if self.observers else nullcontext()

    def _tell_of(
        self, request: str, seen: dict[str, Any], act: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        observers, told = list(self.observers), list[Observer]()
        try:
            for observer in observers:
                observer.before(request, seen)
                told.append(observer)
            answer = act()
        except Exception as error:
            unsent = len(told) < len(observers)
            failed = DeviceError(f"not sent: {error}", "Unsent") if unsent else error
            for other in _tell(told, request, None, failed):
                error.add_note(f"an observer failed, too: {other}")
            raise
        self.samples = {"learn": answer.get("samples"), "reset": 0, "undo": None}.get(request, self.samples)
        for raised in _tell(observers, request, answer, None):
            raise raised
        return answer

    @whole
    def _undisturbed(self, act: Callable[[], _Result]) -> _Result:
        """Repeats an operation of several requests between which the device has run an input of its own.

        Not after a run of a model with states, which would take another step.
        """
        for _ in range(_ATTEMPTS - 1):
            try:
                return act()
            except DeviceError as error:
                ran = error.failure == "NoRun" and not self.info.has_states
                if not ran and error.failure not in ("Order", "Input"):
                    raise
        return act()

    @whole
    def _run(self, /, request: str, response: str, input: bytes, **fields: Any) -> dict[str, Any]:
        """Sends a request with an input; the parts that do not fit its frame are sent before it."""
        limit = self.info.frame_length
        start = max(len(input) - 1, 0) // limit * limit
        fields = {**fields, "input": input[start:]}
        run = (request, input, fields)
        # A repeated request must still have the latest number.
        asker = self._link.asker
        repeated = asker.run == run and self._link.is_open(request, fields)
        asker.run = run
        if start and repeated:
            try:
                return self._ask(request, response, **fields)
            except DeviceError as error:
                # The device no longer has the other parts.
                if error.failure != "Input":
                    raise
        with self._progress.bar(request, start) as advance:
            for offset in range(0, start, limit):
                self._ask("input", "received", offset=offset, bytes=input[offset : offset + limit])
                advance(limit)
        return self._ask(request, response, **fields)

    def _outputs(self, input: bytes) -> bytes:
        """All outputs of the graph for an input, without the head."""
        answer = self._run("features", "features", input)
        return self._whole("output", answer["output"], self.info.output_length)

    @whole
    def _whole(self, /, block: str, start: bytes, length: int | None = None, **fields: int) -> bytes:
        """Reads the rest of a block that begins with `start`; only the first `length` bytes if that is given.

        Raises:
            DeviceError: the block changed while it was read.
        """
        changes = None
        while length is None or len(start) < length:
            part = self._ask("read", "part", block=block, offset=len(start), **fields)
            if changes not in (None, part["changes"]):
                raise DeviceError(f"the {block} changed while it was read; is there another client?")
            changes = part["changes"]
            start += part["bytes"]
            length = part["length"] if length is None else length
        return start

    def _bytes(self, input: Input) -> bytes:
        return input_bytes(input, self.info.inputs, self._nano)

    def _target(self, label: Any) -> dict[str, Any]:
        assert self.info.target is not None, "a head learns from something"
        names = self.labels if isinstance(label, str) else ()
        return label_fields(label, self.info.target, self.info.classes, names)

    def _class(self, label: int | str) -> int:
        return class_index(label, self.info.classes, self.labels if isinstance(label, str) else ())

    @whole
    def _refresh(self) -> None:
        answer = self._send("info", "info")
        if self._described == answer["model_id"]:
            inputs, outputs = self._info.inputs, self._info.outputs
        else:
            inputs, outputs = (self._describe(side, answer[f"{side}s"]) for side in ("input", "output"))
            self._described = answer["model_id"]
        self._info = DeviceInfo.of({**answer, "inputs": inputs, "outputs": outputs})
        self._settings = DeviceSettings.of(answer)
        self._link.longest_frame = self._info.longest_answer
        self._names = None

    def _describe(self, side: str, count: int) -> tuple[GraphValue, ...]:
        """The inputs, or the outputs, of the device's model."""
        values = []
        for index in range(count):
            answer = self._send("describe", "description", side=side, index=index)
            length = answer["channels_length"]
            channels = self._whole("channels", b"", length, index=index) if length else b""
            values.append(GraphValue.of(answer, channels))
        return tuple(values)

    def _require_head(self) -> None:
        if self.info.classes == 0:
            raise DeviceError("the model on the device has no trainable head", "NoHead")

    def _require_model(self) -> None:
        info = self.info
        if self._image is not None:
            model = self._image
            wanted, name = model.id, model.name
        elif self._link.model_id is not None:
            wanted, name = self._link.model_id, "the model before"
        else:
            return
        if info.model_id != wanted:
            there = f"{info.name!r}, model {info.model_id:08x}"
            raise WrongModelError(
                f"the device runs {there}; expected {name!r}, model {wanted:08x}. Give its nano, or "
                "export this one, build the firmware and flash it",
                "Model",
            )

    def _begin_again(self, request: str, error: DeviceError) -> NoReturn:
        """Begins a new session with a device that has ended the one before.

        Raises:
            DeviceRestarted: always.
            WrongModelError: the device has another model.
        """
        self._training = None
        self._link.begin()
        self._refresh()
        self._require_model()
        stats = self.stats()
        self.samples = 0 if stats.learned == 0 else None
        for observer in self.observers:
            observer.restarted()
        head = "the head that was saved last" if self.info.restored else "the head of its image"
        raise DeviceRestarted(
            f"the request {request!r} was not executed: the device has restarted, with {head} and "
            "no samples; or another client has begun to talk to it. Go on from what it has now"
        ) from error


def _tell(
    observers: list[Observer], request: str, answer: dict[str, Any] | None, error: Exception | None
) -> list[Exception]:
    """Calls all observers with the outcome of a request; returns what they raised."""
    raised = []
    for observer in observers:
        try:
            observer.after(request, answer, error)
        except Exception as own:
            raised.append(own)
    return raised
