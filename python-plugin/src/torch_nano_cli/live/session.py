"""What the page shows and does: a device that predicts for each window, and learns what it is told."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

from torch_nano import Device
from torch_nano.errors import InputError, TorchNanoError

from ..sensor import SensorSample
from ..window_predictor import WindowPrediction, WindowPredictor, shares

#: Samples of the signal that the page draws.
_SIGNAL = 300
#: Seconds without a label after which what was taught is trained.
_PAUSE = 1.0
_EPOCHS = 20


class LiveSession:
    """Predicts in a thread of its own from :meth:`start` to :meth:`close`; all other methods are for others.

    A label is of the window seen last, and is learnt at once. What was learnt is trained (committed, in a
    head that learns sums) once there was no label for a second, so that undo takes back a single label.

    Raises:
        InputError: the model has no trainable head with classes, or not one input of a sensor.
    """

    def __init__(self, device: Device, samples: Iterator[SensorSample], hop: int | None) -> None:
        if device.info.target != "class":
            raise InputError(
                f"the model {device.info.name!r} has no head that learns classes; expected one, such as "
                "torch-nano convert --head lda"
            )
        self._device, self._samples = device, samples
        self._predictor = WindowPredictor(device, hop)
        #: Held while the state or the device is used.
        self._lock = threading.Condition(threading.RLock())
        self._thread = threading.Thread(target=self._run, name="live", daemon=True)
        self._ended = False
        self._version = 0
        self._windows = 0
        self._signal: deque[list[float]] = deque(maxlen=_SIGNAL)
        self._latest: WindowPrediction | None = None
        #: When the latest label was learnt that no training has used.
        self._untrained: float | None = None
        self._taught: dict[int, int] = {}
        #: Rows: what was seen; columns: what was predicted. Since the first label.
        self._confusion: dict[tuple[int, int], int] = {}
        self._undoable: str | None = None
        self._error: str | None = None

    def start(self) -> None:
        """Begins to predict."""
        self._thread.start()

    def close(self) -> None:
        """Ends the thread, and the device with it."""
        with self._lock:
            self._ended = True
            self._lock.notify_all()
        self._device.close()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def wait(self, version: int, timeout: float) -> int:
        """Waits until the state is newer than `version`, or the time-out; returns its version."""
        with self._lock:
            self._lock.wait_for(lambda: self._version > version or self._ended, timeout)
            return self._version

    @property
    def ended(self) -> bool:
        """Whether it was closed."""
        return self._ended

    def teach(self, label: int) -> str:
        """Has the device learn that the window seen last is of a class; returns what was done.

        Raises:
            InputError: there is no window yet, or it was taught before.
            TorchNanoError: the device refuses.
        """
        with self._lock:
            if self._latest is None:
                raise InputError("there is no window yet; wait until the first prediction")
            made = self._latest
            self._device.learn(made.window, label)
            self._taught[label] = self._taught.get(label, 0) + 1
            if not made.label:
                self._count(label, made.prediction.label)
            self._untrained = time.monotonic()
            name = self._name(label)
            self._undoable = f"the label {name}"
            self._changed()
            return f"learnt that this is {name}"

    def undo(self) -> str:
        """Takes back the latest label, or the training after it; returns what was done.

        Raises:
            TorchNanoError: there is nothing to undo.
        """
        with self._lock:
            self._device.undo()
            what, self._undoable = self._undoable, None
            if what is not None and what.startswith("the label"):
                self._untrained = None
            self._changed()
            return f"took back {what or 'the latest change'}"

    def save(self) -> str:
        """Saves the head on the device; returns what was done.

        Raises:
            TorchNanoError: the device has no flash for it.
        """
        with self._lock:
            self._train()
            count = self._device.save()
            self._changed()
            return f"saved: {count} in all"

    def add_class(self, name: str) -> str:
        """Adds a class; returns what was done.

        Raises:
            TorchNanoError: the name is taken or too long, or there is no room.
        """
        with self._lock:
            self._device.add_class(name)
            self._undoable = f"the class {name}"
            self._changed()
            return f"added the class {name}: teach it with its button"

    def take(self, sample: SensorSample) -> None:
        """Takes a sample, and predicts if a window is due: what the thread does with each one.

        Raises:
            TorchNanoError: the sample does not fit the model, or the device is gone.
        """
        with self._lock:
            self._signal.append([float(value) for value in sample.values])
            if self._untrained is not None and time.monotonic() - self._untrained > _PAUSE:
                self._train()
            made = self._predictor.push(sample)
            if made is None:
                return
            self._latest = made
            self._windows += 1
            names = self._device.labels
            if self._taught and made.label in names:
                self._count(names.index(made.label), made.prediction.label)
            self._changed()

    def state(self) -> dict[str, Any]:
        """What the page shows, as JSON."""
        with self._lock:
            info, made = self._device.info, self._latest
            names = [self._name(index) for index in range(info.classes)]
            prediction = None if made is None else made.prediction
            probabilities = None if prediction is None else shares(prediction)
            right = sum(count for (seen, guess), count in self._confusion.items() if seen == guess)
            return {
                "version": self._version,
                "model": info.name or f"{info.model_id:08x}",
                "windows": self._windows,
                "classes": [
                    {
                        "name": name,
                        # A class may have been added since the window.
                        "probability": float(probabilities[index])
                        if probabilities is not None and index < len(probabilities)
                        else 0.0,
                        "taught": self._taught.get(index, 0),
                    }
                    for index, name in enumerate(names)
                ],
                "chosen": None if prediction is None else prediction.label,
                "known": prediction is not None and prediction.known,
                "seen": "" if made is None else made.label,
                "signal": list(self._signal),
                "right": right,
                "judged": sum(self._confusion.values()),
                "confusion": [
                    [self._confusion.get((seen, guess), 0) for guess in range(len(names))]
                    for seen in range(len(names))
                ],
                "training": self._untrained is not None,
                "undoable": self._undoable,
                "room": info.class_capacity > info.classes,
                "saved": info.saved,
                "error": self._error,
            }

    def _run(self) -> None:
        try:
            for sample in self._samples:
                if self._ended:
                    return
                self.take(sample)
            self._fail("the samples have ended")
        except TorchNanoError as error:
            self._fail(str(error))

    def _fail(self, reason: str) -> None:
        with self._lock:
            if not self._ended:
                self._error = reason
                self._changed()

    def _train(self) -> None:
        if self._untrained is None:
            return
        self._untrained = None
        if self._device.info.ring_capacity:
            self._device.train(_EPOCHS)
        else:
            self._device.commit()
        self._undoable = "the training (its labels stay, and count in the next)"
        self._changed()

    def _count(self, seen: int, predicted: int) -> None:
        self._confusion[seen, predicted] = self._confusion.get((seen, predicted), 0) + 1

    def _name(self, index: int) -> str:
        names = self._device.labels
        return (names[index] if index < len(names) else "") or f"class {index}"

    def _changed(self) -> None:
        self._version += 1
        self._lock.notify_all()
