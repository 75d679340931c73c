"""Shared by the examples: learning and predicting on a device, and the same steps on the PC."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch_nano import NanoModule
from torch_nano.device.client import Device, Prediction
from torch_nano.device.transport.qemu import QemuBoard
from torch_nano.heads import LdaHead, SgdHead
from training import IntArray


def check_tools() -> None:
    """Starts the emulated board and stops it, so that missing tools are reported before any work is done.

    Raises:
        BoardError: QEMU or the board's program is missing; the message says how to get it.
    """
    QemuBoard(b"").close()


def trainable_head(nano: NanoModule) -> SgdHead | LdaHead:
    """The model's head, which must learn by gradient descent or linear discriminant analysis."""
    if not isinstance(nano.head, SgdHead | LdaHead):
        raise ValueError(f"{nano.name} has no trainable head: freeze its backbone before to_nano")
    return nano.head


def learn(device: Device, nano: NanoModule, x: Tensor, labels: IntArray, epochs: int) -> int:
    """Teaches the device's present head inputs x [N, ...] and their labels [N]: for so many epochs, or at
    once if it learns by sums.

    Returns the number of instructions of the training, without the forward runs.

    Raises:
        ValueError: the device cannot hold so many samples at once.
    """
    places = device.info.ring_capacity
    if 0 < places < len(labels):
        raise ValueError(f"{len(labels)} samples; the device keeps the last {places}")
    for sample, label in zip(nano.device_inputs(x), labels, strict=True):
        device.learn(sample, int(label))
    return device.train(epochs) if places else device.commit()


def replay(nano: NanoModule, x: Tensor, labels: IntArray, epochs: int) -> bytes:
    """Repeats :func:`learn`, on a device whose head was reset, with `nano.head` on the PC; returns the head's
    state.
    """
    head = trainable_head(nano)
    head.reset()
    features, classes = nano.features_int8(x), torch.from_numpy(labels)
    if isinstance(head, SgdHead):
        head.fit(features, classes, epochs)
    else:
        head.fit(features, classes)
    return head.state()


def predict(device: Device, nano: NanoModule, x: Tensor) -> list[Prediction]:
    """The device's predictions for inputs x [N, ...]."""
    return [device.predict(sample) for sample in nano.device_inputs(x)]


def classes(predictions: list[Prediction]) -> IntArray:
    """The predicted classes [N]."""
    return np.array([prediction.label for prediction in predictions], np.int64)


def real_features(nano: NanoModule, x: Tensor) -> npt.NDArray[np.float32]:
    """The head's int8 features, dequantized: float32 [N, features]."""
    meaning = nano.output_quantization
    features = nano.features_int8(x).numpy().astype(np.float32)
    return (features - np.float32(meaning.zero_point)) * np.float32(meaning.scale)


def ring_bytes(nano: NanoModule, samples: int) -> int:
    """Bytes of RAM for this number of samples on a device: int8 features and a 16-bit label each."""
    return samples * (trainable_head(nano).features + 2)


def differing_logits(predictions: list[Prediction], nano: NanoModule, x: Tensor) -> int:
    """The number of bytes in which the device's logits for inputs x [N, ...] differ from those of `nano`."""
    expected = nano.forward_int8(nano.quantize_input(x)).numpy()
    return sum(
        differing_bytes(own.tobytes(), prediction.logits.tobytes())
        for own, prediction in zip(expected, predictions, strict=True)
    )


def differing_bytes(expected: bytes, found: bytes) -> int:
    """The number of bytes that differ; extra bytes of the longer one count, too.

    >>> differing_bytes(b"abc", b"abc"), differing_bytes(b"abc", b"xbcd")
    (0, 2)
    """
    common = sum(a != b for a, b in zip(expected, found, strict=False))
    return common + abs(len(expected) - len(found))
