"""What heads learn from, drawn at random, extremes included."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Int8 = npt.NDArray[np.int8]


def random_features(rng: np.random.Generator, width: int, zero_point: int) -> Int8:
    """All of int8, its ends alone, or little around the zero point."""
    kind = rng.integers(3)
    if kind == 0:
        return rng.integers(-128, 128, width, np.int8)
    if kind == 1:
        return rng.choice(np.array([-128, 127], np.int8), width)
    return np.clip(zero_point + rng.integers(-3, 4, width), -128, 127).astype(np.int8)


def random_target(rng: np.random.Generator, loss: str, classes: int) -> int:
    """A class, bits of right classes, or a number in 1/4096, up to the largest."""
    if loss == "cross_entropy":
        return int(rng.integers(classes))
    if loss == "binary":
        return int(rng.integers(2**classes))
    return int(rng.choice([0, rng.integers(-9999, 9999), -(2**31), 2**31 - 1]))
