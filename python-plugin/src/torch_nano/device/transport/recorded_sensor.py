"""A recorded sensor with its buttons, for an emulated board that senses by itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ... import _native
from ...arguments import image_of, integer, mapping, probability, shown
from ...errors import InputError


@dataclass(frozen=True)
class SensingOptions:
    """How a device senses and learns by itself: `SensingOptions` and `Settings` of its program.

    >>> SensingOptions(hop=50, smoothing=(5, 3))
    SensingOptions(hop=50, smoothing=(5, 3), epochs=20, pause=10, slice=16384, period=3200000,
        rejection=0.0, save_interval=1)
    """

    #: Samples from window to window. For a model with states: those of one step.
    hop: int = 1
    #: A class is decided for if so many (second) of the latest predictions (first) agree on it.
    smoothing: tuple[int, int] = (1, 1)
    #: Passes of a training over the samples kept.
    epochs: int = 20
    #: Windows without a label after which the training begins.
    pause: int = 10
    #: Multiplications of a slice of training, between which samples are taken.
    slice: int = 1 << 14
    #: Instructions from sample to sample: 50 per second at 160 MHz.
    period: int = 3_200_000
    #: As :attr:`torch_nano.device.DeviceSettings.rejection`, unless another one was saved.
    rejection: float = 0.0
    #: As :attr:`torch_nano.device.DeviceSettings.save_interval`, unless another one was saved.
    save_interval: int = 1

    def behaviour(self) -> _native.Behaviour:
        """The fields as the device has them.

        Raises:
            InputError: a field is not what it should be.
        """
        try:
            length, agreement = self.smoothing
        except (TypeError, ValueError):
            raise InputError(
                f"smoothing is {shown(self.smoothing)}; expected a pair: of the latest predictions, how many "
                "agree"
            ) from None
        return {
            "hop": integer("hop", self.hop, 1),
            "smoothing": (integer("smoothing[0]", length, 1), integer("smoothing[1]", agreement, 1)),
            "epochs": integer("epochs", self.epochs),
            "pause": integer("pause", self.pause),
            "slice": integer("slice", self.slice, 1),
            "period": integer("period", self.period, 1),
            "rejection": round(probability("rejection", self.rejection) * (1 << 15)),
            "save_interval": integer("save_interval", self.save_interval),
        }


@dataclass(frozen=True)
class RecordedSensor:
    """Samples of a sensor, and the buttons pressed: for `QemuBoard(image, sensor=...)`, and for a replay.

    >>> sensor = RecordedSensor(np.zeros((500, 6)), presses={149: 2}, gaps=[300])
    >>> len(sensor)
    500

    Raises:
        InputError: the samples are not numbers of shape [samples, numbers], a press or gap is of no sample,
            or the options are invalid.
    """

    #: In the sensor's own units: [samples, numbers].
    samples: npt.ArrayLike
    #: By the number of a sample, from 0: the class that is pressed after it.
    presses: Mapping[int, int] = field(default_factory=dict)
    #: Numbers of the samples that do not follow the one before: windows begin anew with them.
    gaps: Iterable[int] = ()
    options: SensingOptions = field(default_factory=SensingOptions)
    #: The recording as the device reads it.
    encoded: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.options, SensingOptions):
            raise InputError(f"options is {shown(self.options)}; expected a SensingOptions")
        presses = mapping(
            "presses", self.presses, "a class by the number of each sample pressed", error=InputError
        )
        if not isinstance(self.gaps, Iterable):
            raise InputError(f"gaps is {shown(self.gaps)}; expected the numbers of samples")
        gaps_after = tuple(self.gaps)
        try:
            if np.iscomplexobj(self.samples):
                raise TypeError("complex numbers")
            samples: npt.NDArray[Any] = np.ascontiguousarray(self.samples, np.float32)
        except (TypeError, ValueError) as error:
            raise InputError(f"the samples are {shown(self.samples)}; expected numbers") from error
        if samples.ndim != 2 or 0 in samples.shape:
            raise InputError(
                f"the samples have shape {samples.shape}; expected [samples, numbers], not empty"
            )
        pressed, gaps = np.full(len(samples), -1, np.int64), np.zeros(len(samples), np.bool_)
        for number, label in presses.items():
            pressed[_sample("a press", number, len(samples))] = integer("the class of a press", label)
        for number in gaps_after:
            gaps[_sample("a gap", number, len(samples))] = True
        try:
            encoded = _native.encode_recorded_sensor(samples, pressed, gaps, self.options.behaviour())
        except _native.NanoError as error:
            raise InputError(f"the sensor cannot be recorded: {error}") from error
        object.__setattr__(self, "samples", samples)
        object.__setattr__(self, "presses", presses)
        object.__setattr__(self, "gaps", gaps_after)
        object.__setattr__(self, "encoded", encoded)

    def __len__(self) -> int:
        return len(np.asarray(self.samples))


def _sample(what: str, number: object, count: int) -> int:
    index = integer(f"the sample of {what}", number)
    if index >= count:
        raise InputError(f"{what} is of sample {index}; there are {count}, from 0")
    return index


def require_fit(sensor: RecordedSensor, image: _native.Model | bytes) -> None:
    """Refuses a sensor with whose samples a model cannot sense.

    Raises:
        InputError: the model has several inputs; a sample has no whole number of steps of its input, or the
            input no whole number of samples; or a model with states steps by another number of samples.
        FileFormatError: it is no model.
    """
    model = image_of(image)
    try:
        _native.check_sensor(model, sensor.encoded)
    except _native.NanoError as error:
        numbers = np.asarray(sensor.samples).shape[1]
        raise InputError(
            f"the sensor has {numbers} numbers per sample and hop is {sensor.options.hop}: {error}"
        ) from error
