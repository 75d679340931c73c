"""Makes the model and the samples of nano-core's examples: `python tools/example_model.py`.

A small convolutional network reads handwritten digits of 8x8 pixels (scikit-learn's, 1,797 by 43 people). It
is trained on the digits as they are. The examples let it learn the same digits in white on black.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch_nano as tn
from sklearn.datasets import load_digits  # type: ignore[import-untyped]
from torch import Tensor, nn

FOLDER = Path(__file__).resolve().parent.parent / "nano-core/examples/digits"
#: Samples to learn from, and to measure with: the last, of other people than those of the training.
LEARNT, MEASURED = 100, 100


def main() -> None:
    torch.manual_seed(0)
    x, y = load_digits(return_X_y=True)
    images = torch.from_numpy(x).float().reshape(-1, 1, 8, 8)
    labels = torch.from_numpy(y)
    first = len(images) - LEARNT - MEASURED
    model = nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(12, 16, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 10),
    )
    tn.fit(model, (images[:first], labels[:first]), epochs=30, learning_rate=3e-3, progress=False)
    names = [str(digit) for digit in range(10)]
    calibration = torch.cat([images[:first:8], 16 - images[:first:8]])
    nano = tn.to_nano(
        model, calibration, calibrate=calibration, head=tn.heads.SGD(0.05), labels=names, name="digits"
    )
    nano.export(FOLDER)
    changed = 16 - images[first:]
    (FOLDER / "pixels.bin").write_bytes(changed.to(torch.uint8).numpy().tobytes())
    (FOLDER / "labels.bin").write_bytes(labels[first:].numpy().astype(np.uint8).tobytes())
    print(f"as trained: {accuracy(nano, images[first:], labels[first:]):.0%}")
    learnt, measured = slice(0, LEARNT), slice(LEARNT, None)
    print(f"white on black: {accuracy(nano, changed[measured], labels[first:][measured]):.0%}")
    assert isinstance(nano.head, tn.heads.SgdHead)
    nano.head.fit(nano.features_int8(changed[learnt]), labels[first:][learnt], epochs=20)
    print(f"after {LEARNT} samples: {accuracy(nano, changed[measured], labels[first:][measured]):.0%}")
    print(nano.summary())


def accuracy(nano: tn.NanoModule, images: Tensor, labels: Tensor) -> float:
    return float((nano(images).argmax(1) == labels).float().mean())


if __name__ == "__main__":
    main()
