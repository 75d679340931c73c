"""The client of a device, over any transport."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _native
from ..arguments import text
from ..errors import DeviceError, HeadError, InputError
from ..evaluation.evaluation import Evaluation
from ..heads import Head, head_of
from . import evaluating, fitting, updating
from .answers import DeviceInfo, DeviceSettings, Prediction, probability_of
from .bars import Bars
from .conversation import Conversation, Observer
from .fields import epochs_of, state_of
from .fitting import FitResult
from .graph_values import split
from .report import Report
from .samples import Input, KnownModel, Label, Samples
from .transport.streams import Stream
from .turns import whole
from .unasked import Sample
from .updating import UpdateResult

__all__ = ["Device", "DeviceError", "DeviceInfo", "Observer", "Prediction", "Stream"]

_LOGIT = np.dtype("<i4")


class Device(Conversation):
    """A device that runs a model and goes on learning; a context manager that closes the connection.

    An input is one sample: a tensor or array of floats in torch's layout, an int8 tensor in torch's layout,
    or an int8 array of numpy's in the device's order (height, width, channels). For a model of several inputs
    it is a tuple of those, or a dict by name (:attr:`DeviceInfo.inputs`, which also says what the floats
    mean). A label is a class, by index or by name; a list of bools for a head with several right classes; a
    float for one that gives a number.

    A request without an answer (:class:`ConnectionLost`, :class:`DeviceTimeout`) may be repeated: it has a
    number, and the device executes it once. Lost serial ports and sockets are reopened automatically for up
    to `timeout` seconds, and the request is sent again.

    Threads may share a device. Each method is one operation, for which other threads wait: an input and its
    answer in parts, all of a :meth:`fit` or of :meth:`write_head`. (The data of a fit are read before that.)
    Only :meth:`close` does not wait, and ends the requests of other threads. Several clients of one open
    stream exclude each other, too, but the device accepts only the last one that connected; the others'
    requests raise :class:`DeviceRestarted`. A forked process must make its own Device. Observers are called
    in the thread of the request; they may send requests that change nothing.

    Args:
        connection: a serial port ("/dev/ttyACM0", "COM3"), "socket://host:port", "sim" (a device simulated in
            this process), "qemu" (the emulated rv32imc board), or an open stream.
        nano: the model, or its image. "sim" and "qemu" run it; another device is refused if its model is
            another. :meth:`head` needs it.
        timeout: seconds to wait for an answer, or for a lost connection to come back.
        baudrate: of a serial port; USB ignores it.
        flash: for "sim" and "qemu": a file for the device's saves; None: they are lost with the device.
        progress: whether long requests show a bar; None: on a terminal.

    Raises:
        ConnectionFailed: there is no such connection, or it is busy.
        DeviceTimeout: there is no answer.
        DeviceError: the device speaks another version of the protocol.
        WrongModelError: it runs another model than `nano`.
        InputError, FileFormatError: `nano` is not a model, or another argument is invalid.

    >>> import torch, torch_nano as tn
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    >>> x, y = torch.randn(64, 4), torch.arange(64) % 3
    >>> labels = ["walk", "run", "rest"]
    >>> nano = tn.to_nano(model, x, calibrate=x, labels=labels, head=tn.heads.SGD())
    >>> with tn.Device("sim", nano=nano) as device:
    ...     _ = device.fit(x, y, epochs=5)
    ...     device.save()
    ...     state = device.head_state()
    1
    >>> nano.head.fit(nano.features_int8(x), y, epochs=5)
    >>> nano.head.state() == state
    True
    """

    @whole
    def predict(self, input: Input) -> Prediction:
        """Runs the model on one input.

        Raises:
            InputError: wrong inputs, shape or dtype.
        """
        return self._predict(self._bytes(input))

    def _predict(self, sent: bytes) -> Prediction:
        def run() -> tuple[dict[str, Any], bytes, bytes]:
            answer = self._run("predict", "prediction", sent)
            output = self._whole("output", answer["output"], self.info.output_length)
            return answer, output, self._whole("logits", answer["logits"], 4 * self.info.classes)

        answer, output, logit_bytes = self._undisturbed(run)
        outputs, logits = split(output, self.info.outputs), np.frombuffer(logit_bytes, _LOGIT)
        label = answer["class"]
        names, target = self.labels, self.info.target
        return Prediction(
            label=label,
            name=names[label] if label < len(names) else "",
            confidence=probability_of(answer, "confidence"),
            margin=probability_of(answer, "margin"),
            known=answer["known"],
            outputs=outputs,
            logits=logits,
            ticks=answer["ticks"],
            value=float(logits[0]) * answer["logit_scale"] if target == "value" else None,
            right=tuple(np.flatnonzero(logits > 0).tolist()) if target == "labels" else None,
        )

    def evaluate(
        self, data: Input | Samples, labels: Any = None, *, progress: bool | None = None
    ) -> Evaluation:
        """Predicts labelled data on the device: accuracy, classes, confusion matrix, worst samples, and how
        many samples it takes for none of a known class. Prints as tables.

        Args:
            data, labels: as for :meth:`fit`.
            progress: whether to show a bar; None: the device's setting.

        Raises:
            InputError: wrong shapes or dtypes, or no sample.
            LabelError: there is no such class, or the head learns from other labels.

        >>> import torch, torch_nano as tn
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        >>> x, y = torch.randn(64, 4), torch.arange(64) % 3
        >>> nano = tn.to_nano(model, x, calibrate=x)
        >>> with tn.Device("sim", nano=nano) as device:
        ...     device.evaluate(x, y).accuracy == nano.evaluate((x, y)).accuracy
        True
        """
        return evaluating.evaluate(self, data, labels, self._progress if progress is None else Bars(progress))

    @whole
    def features(self, input: Input) -> NDArray[Any]:
        """The head's features of one input, int8 [elements]; for a model without a head its output.

        Raises:
            InputError: wrong inputs, shape or dtype; or several outputs and no head: :meth:`predict` returns
                them.
        """
        first, *others = self.info.outputs
        if others and not self.info.classes:
            names = ", ".join(value.name for value in self.info.outputs)
            raise InputError(
                f"the model has several outputs ({names}) and no head; use predict(input).outputs"
            )
        sent = self._bytes(input)

        def run() -> bytes:
            answer = self._run("features", "features", sent)
            return self._whole("output", answer["output"], first.length)

        return np.frombuffer(self._undisturbed(run), first.travelling)

    @whole
    def profile(self, input: Input) -> list[int]:
        """Runs the model on one input; returns instructions (emulated board) or cycles of each layer and
        of the head, in the order of `NanoModule.summary`.

        Raises:
            InputError: wrong inputs, shape or dtype.
        """
        sent = self._bytes(input)
        answer = self._undisturbed(lambda: self._run("profile", "profile", sent))
        layers = self._whole("layers", answer["layers"], 4 * self.info.layers)
        return [int(ticks) for ticks in np.frombuffer(layers, np.dtype("<u4"))]

    @whole
    def reset_states(self) -> None:
        """Resets the model's states, which are kept from run to run.

        Connecting resets them, too, unless the device senses by itself: its stream goes on.
        No effect on a model without states (:attr:`DeviceInfo.has_states`).
        """
        self._ask("reset_states", "done")

    @whole
    def learn(self, input: Input, label: Label) -> int:
        """Learns one sample; returns the number that the device keeps for :meth:`train` (0: learnt at once).

        Raises:
            InputError: wrong shape or dtype.
            LabelError: there is no such class, or the head learns from other labels.
            DeviceError: no trainable head.
        """
        self._require_head()
        return self._learn(self._bytes(input), self._target(label))

    @whole
    def label(self, label: Label) -> int:
        """Labels the window that a device which senses by itself saw last; returns the number of samples
        that it keeps.

        Raises:
            LabelError: there is no such class, or the head learns from other labels.
            DeviceError: no trainable head; or no window since the latest label, as always on a device that
                does not sense by itself.
        """
        self._require_head()
        return int(self._change("label", "learned", **self._target(label))["samples"])

    def watch(self) -> Iterator[Report]:
        """Yields what a device that senses by itself reports, as it comes, until its recorded sensor ends.

        Reports that came before, between the answers to requests, come first (at most 100,000). While it
        waits for one, other threads wait.

        Raises:
            DeviceTimeout: nothing was reported within the time-out.
            ConnectionLost: the connection has ended.
        """
        while True:
            report = self._next_report()
            yield report
            if report.event == "ended":
                return

    def read_sensor(self) -> Iterator[Sample]:
        """Yields each sample that a device which senses by itself takes, until its recorded sensor ends.

        The device sends them from now on until the iterator is closed, another client connects or the device
        restarts. While it waits for one, other threads wait; between two, requests may be sent.

        Raises:
            DeviceError: the device has no sensor.
            DeviceTimeout: no sample came within the time-out.
            ConnectionLost: the connection has ended.
        """
        try:
            self._ask("send_samples", "done")
        except DeviceError as error:
            if error.failure != "NoRun":
                raise
            raise DeviceError(
                "the device has no sensor: its firmware only answers requests. Flash one that senses, such "
                "as just flash esp32c3 MODEL --as lsm6dso",
                error.failure,
            ) from error
        try:
            while (sample := self._next_sample()) is not None:
                yield sample
        finally:
            with suppress(DeviceError):  # the connection may have ended
                self._ask("stop_samples", "done")

    @whole
    def _next_sample(self) -> Sample | None:
        return self._link.next_sample()

    @whole
    def _next_report(self) -> Report:
        return self._link.next_report()

    def fit(
        self, data: Input | Samples, labels: Any = None, *, epochs: int = 20, progress: bool | None = None
    ) -> FitResult:
        """Learns a whole data set, then trains or commits as the model's trainer needs; shows progress.

        A head that learns in epochs trains on all samples in its ring, older ones included. Data that do not
        fit the ring are sent once per epoch, part by part, with one epoch of training on each part.

        Args:
            data, labels: inputs [N, ...] with labels [N]; or, with `labels` left out, the pair of both, or
                several such pairs in batches or one by one, such as a DataLoader's.
            epochs: number of passes, for a head that learns in epochs; other heads need one.
            progress: whether to show a bar; None: the device's setting.

        Raises:
            InputError: wrong shapes or dtypes, no sample, or an invalid number of epochs.
            LabelError: as :meth:`learn`, for any sample; nothing is then learnt.
            DeviceError: no trainable head.
        """
        self._require_head()
        return fitting.fit(self, data, labels, epochs, self._progress if progress is None else Bars(progress))

    def train(self, epochs: int, *, first_epoch: int = 0) -> int:
        """Trains the head for `epochs` passes over the kept samples; returns instructions or cycles.

        With a guard (:class:`torch_nano.heads.SGD`) a training that does not make the head better is taken
        back: the head is then the one before, and there is nothing to undo. :meth:`stats` counts them.

        The device works in slices, each well below a second. Ctrl-C ends the training after the current slice
        and is then raised: what was learnt so far stays, records have the exact step, and :meth:`undo` undoes
        all of it. After an error (:class:`ConnectionLost`, :class:`DeviceTimeout`) the same call continues
        the same training; any other request of this thread, or change by another one, ends it first.

        Args:
            first_epoch: number of epochs of the same training before this call, on which a learning rate that
                is halved depends.

        Raises:
            InputError: `epochs` or `first_epoch` is not a number of epochs, or both together are more than
                1,000,000.
            DeviceError: no trainable head, nothing learnt yet, or a head that learns without epochs.
        """
        return int(self._train(self._progress, **epochs_of(epochs, first_epoch))["ticks"])

    def commit(self) -> int:
        """Updates the weights of a head that learns sums; returns instructions or cycles.

        Raises:
            DeviceError: no trainable head.
        """
        return int(self._change("commit", "committed")["ticks"])

    @whole
    def undo(self) -> None:
        """Undoes the latest change of the head, or the latest sample learnt; only once.

        Raises:
            DeviceError: there is nothing to undo.
        """
        self._change("undo", "done")
        self._refresh()

    @whole
    def add_class(self, name: str) -> int:
        """Adds a class that is then learnt by samples; returns its index.

        Raises:
            InputError: `name` is not a str.
            DeviceError: no room, a name that is taken or too long, or a head that cannot add classes.
        """
        index = int(self._change("add_class", "class_added", name=text("name", name))["class"])
        self._refresh()
        return index

    @whole
    def forget(self, label: int | str) -> None:
        """Forgets what was learnt of a class; it keeps its index and name.

        Raises:
            LabelError: there is no such class.
            DeviceError: a head that cannot forget.
        """
        self._require_head()
        self._change("forget", "done", class_index=self._class(label))

    @whole
    def save(self, *, replace: bool = False) -> int:
        """Saves head, names and settings in flash; returns the number of saves to that flash.

        Args:
            replace: save even if the flash holds the head of another model.

        Raises:
            DeviceError: no flash, a worn one, or the head of another model without `replace`.
        """
        count = int(self._ask("save", "saved", replace=replace)["count"])
        self._refresh()
        return count

    @whole
    def load(self) -> int:
        """Loads head, names and settings from flash; returns the number of the restored save.

        That is the latest save, or the one before if the latest was interrupted or is damaged: see
        :attr:`DeviceInfo.lost_save`.

        Raises:
            DeviceError: nothing is saved, or the head of another model.
        """
        count = int(self._change("load", "loaded")["count"])
        self._refresh()
        return count

    @whole
    def reset(self) -> None:
        """Restores the image's head, and forgets everything learnt."""
        self._change("reset", "done")
        self._refresh()

    @whole
    def head_state(self) -> bytes:
        """The head's whole state, as from :meth:`torch_nano.heads.Head.state`.

        Raises:
            DeviceError: no trainable head.
        """
        return self._whole("head", b"", self.info.head_length or None)

    @whole
    def head(self) -> Head:
        """The device's head as an nn.Module: `nano.head`, into which its state is loaded.

        The old state of `nano.head` is lost, and two devices with the same `nano` return the same module.
        For a separate module: `head = tn.heads.head_of(nano.image); head.load(device.head_state())`. If
        `nano` was given as an image, the module is a separate one.

        >>> import torch, torch_nano as tn
        >>> model, x = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 3)), torch.randn(9, 4)
        >>> nano = tn.to_nano(model, x, calibrate=x, head=tn.heads.SGD())
        >>> with tn.Device("sim", nano=nano) as anna, tn.Device("sim", nano=nano.image) as ben:
        ...     anna.head() is nano.head, ben.head() is nano.head
        (True, False)

        Raises:
            HeadError: the client does not know the model.
            DeviceError: no trainable head.
        """
        state = self.head_state()
        if self._image is None:
            raise HeadError(
                "to make a module of a head the client must know its model: Device(..., nano=nano)"
            )
        head = head_of(self._image) if self._nano is None else self._nano.head
        assert head is not None, "a device with a head runs a model with one"
        head.load(state)
        return head

    @whole
    def write_head(self, head: Head | bytes) -> None:
        """Writes a head, or its state, with a CRC-32; the old head stays until all has arrived.

        Raises:
            HeadError: a :class:`torch_nano.heads.Head` of another model, or a state of another size. (A state
                does not name its model: another model's state of the same size is not detected.)
            DeviceError: it is not a state of this model's head; the device's head is unchanged.
        """
        self._require_head()
        state = state_of(head, self.info)
        size = self.info.frame_length
        with self._progress.bar("head", len(state)) as advance:
            for offset in range(0, len(state), size):
                part = state[offset : offset + size]
                self._ask("write_head", "received", offset=offset, bytes=part)
                advance(len(part))
        self._change("replace_head", "done", seen={"state": state}, checksum=_native.crc32(state))
        self._refresh()

    @whole
    def configure(
        self, *, rejection: float | None = None, save_interval: int | None = None
    ) -> DeviceSettings:
        """Changes the device's settings; others stay. :meth:`save` makes them permanent.

        Args:
            rejection: predictions with a confidence below this, 0 to 1, are of no known class.
            save_interval: number of changes after which the device saves its head automatically; 0: never.

        Raises:
            InputError: the rejection is not a probability, or the interval not a number of changes.
        """
        now = self.settings
        wanted = DeviceSettings(
            now.rejection if rejection is None else rejection,
            now.save_interval if save_interval is None else save_interval,
        )
        self._ask("configure", "done", **wanted.request())
        self._refresh()
        return self.settings

    @whole
    def update(
        self, model: KnownModel | bytes, *, save: bool = True, progress: bool | None = None
    ) -> UpdateResult:
        """Replaces the device's model by another one: sends it, restarts the device, and confirms it.

        The device writes the image to a part of its flash of which the present model is not, reads it back,
        and checks that its program can run it. It then starts it on trial. If its outputs for a random input
        are those on this PC, it is confirmed; if not, or if the device restarts before that, it goes back to
        the present model. So a power cut, or a lost link, leaves the one or the other. An interrupted update
        goes on where it was, if the device has not restarted: call it again.

        The head goes on if the new model has the same one: the same network, classes and head as described,
        whatever their names, kernels and places in memory. Otherwise the new model starts with its own; the
        old one stays saved until :meth:`save` is told to replace it. Samples are lost, as in any restart.

        Args:
            model: the model, or its image (the bytes of `model.nano`). This Device has it from then on.
            save: whether to save the head first, if it has changed since the device's start; what is not
                saved is lost.
            progress: whether to show a bar; None: the device's setting.

        Raises:
            UpdateError: the device refuses it, with its reason, or cannot start it; it runs the model before.
            FileFormatError: the model is damaged, or of another version.
            RecordError: the device is being recorded: a record is of one model.
            ConnectionLost, DeviceTimeout: no answer came.
            DeviceError: the head cannot be saved.
        """
        shown = self._progress if progress is None else Bars(progress)
        return updating.update(self, model, shown, save)
