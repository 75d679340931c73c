"""Updates of the model on a device, over the link."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .. import _native
from ..arguments import image_of
from ..errors import DeviceError, UpdateError
from .bars import Bars
from .samples import KnownModel

if TYPE_CHECKING:
    from .client import Device


@dataclass(frozen=True)
class UpdateResult:
    """The result of :meth:`torch_nano.Device.update`."""

    #: The number of the update: one more than that of the image that it replaced.
    number: int
    #: Bytes sent: fewer than the image has if an interrupted update went on.
    sent: int
    #: Whether a head goes on: the new model has the same one as the model before, or as that which is saved.
    #: If not, the saved one is set aside until :meth:`torch_nano.Device.save` is told to replace it.
    head_kept: bool
    seconds: float


def update(device: Device, model: KnownModel | bytes, progress: Bars, save: bool) -> UpdateResult:
    """See :meth:`torch_nano.Device.update`; the caller holds the device's lock."""
    start = time.perf_counter()
    image = image_of(model)
    known = image, None if isinstance(model, bytes | bytearray) else model
    if device.info.model_id == image.id:
        device._know(*known)
        sent, same_head = 0, False
    else:
        device._end_training()
        done = device._observed("update", {}, lambda: _replace(device, known, progress, save))
        sent, same_head = done["sent"], done["same_head"]
    if device.info.on_trial:
        _check(device, image)
        device._ask("confirm_update", "done")
        device._refresh()
    kept = same_head or device.info.restored
    return UpdateResult(device.info.update, sent, kept, time.perf_counter() - start)


def _replace(
    device: Device, known: tuple[_native.Model, KnownModel | None], progress: Bars, save: bool
) -> dict[str, int]:
    """Sends a model and restarts the device with it; returns bytes sent, and whether it has the same head."""
    image, before = known[0], (device._image, device._nano)
    if save and device.info.classes and device.stats().changes:
        device.save()
    sent, same_head = _send(device, image, progress)
    try:
        _restart(device)
    except DeviceError as error:
        error.add_note(
            "The device has the whole update. Update it again to confirm that; without it the device goes "
            "back to the model before at its next start but one"
        )
        raise
    if device.info.model_id != image.id:
        device._know(*before)
        raise UpdateError(
            f"the device has restarted with {device.info.name!r}, model {device.info.model_id:08x}: it could "
            "not start the update",
            "NotStarted",
        )
    device._know(*known)
    return {"sent": sent, "same_head": same_head}


def _send(device: Device, image: _native.Model, progress: Bars) -> tuple[int, bool]:
    """Sends the image and has the device check it; returns bytes sent, and whether it has the same head."""
    bytes_ = image.image
    begun: int = device._ask("begin_update", "received", length=len(bytes_), id=image.id)["length"]
    size = device.info.frame_length // 4 * 4
    with progress.bar("update", len(bytes_)) as advance:
        advance(begun)
        for offset in range(begun, len(bytes_), size):
            part = bytes_[offset : offset + size]
            device._ask("write_update", "received", offset=offset, bytes=part)
            advance(len(part))
    same_head: bool = device._ask("finish_update", "updated")["same_head"]
    return len(bytes_) - begun, same_head


def _restart(device: Device) -> None:
    """Restarts the device, and begins a session with the model that it then runs."""
    link = device._link
    device._ask("restart", "done")
    link.model_id = None
    link.wait_for_start()
    link.begin()
    device._begun()
    for observer in device.observers:
        observer.restarted()


def _check(device: Device, image: _native.Model) -> None:
    """Compares the outputs of one random input with those on this PC.

    Raises:
        UpdateError: they differ; the device has gone back to the model before.
    """
    random = np.random.default_rng(image.id)
    inputs = []
    for value in device.info.inputs:
        limits = np.iinfo(value.dtype)
        inputs.append(
            random.integers(limits.min, limits.max, value.elements, value.travelling, endpoint=True)
        )
    sent = b"".join(input.tobytes() for input in inputs)
    device.reset_states()
    found = device._undisturbed(lambda: device._outputs(sent))
    device.reset_states()
    expected = b"".join(output.tobytes() for output in image.run([input[None] for input in inputs]))
    if found == expected:
        return
    with suppress(DeviceError):
        device._ask("restart", "done")
    raise UpdateError(
        "the new model's outputs on the device differ from those on this PC, so it was not confirmed: the "
        "device restarts with the model before. Make a new Device",
        "Outputs",
    )
