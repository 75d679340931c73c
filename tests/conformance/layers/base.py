"""What all random layers have in common."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np

from ..model import Int8, Quantization

Padding = tuple[int, int, int, int]
"""(top, bottom, left, right)."""


@dataclass(frozen=True)
class Origin:
    """Where a layer comes from; its repr is the call that makes the layer again."""

    family: str
    seed: int
    index: int

    def __repr__(self) -> str:
        return f'layer("{self.family}", seed={self.seed}, index={self.index})'


@dataclass(frozen=True, eq=False, repr=False)
class Layer(ABC):
    """One operator with its data."""

    origin: Origin

    @classmethod
    @abstractmethod
    def random(cls, origin: Origin, rng: np.random.Generator) -> Self:
        """A random layer of this family."""

    @abstractmethod
    def expected(self) -> Int8:
        """TFLM's output."""

    def inputs(self) -> list[Int8]:
        """The arrays that the operator runs on, in order: the fields `x`, or `a` and `b`."""
        return [getattr(self, field.name) for field in fields(self) if field.name in ("x", "a", "b")]

    def widened(self, rng: np.random.Generator) -> Self:
        """The layer on int16: numbers whose high bytes are those of the inputs, in steps of a 256th."""
        wide: dict[str, object] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Quantization):
                wide[field.name] = Quantization(value.scale / 256, 0, "int16")
            elif field.name in ("x", "a", "b"):
                # Half of the layers have the numbers that are furthest from 0.
                low = rng.integers(0, 256, value.shape) if rng.random() < 0.5 else 255 * (value >= 0)
                wide[field.name] = (value.astype(np.int16) * 256 + low).astype(np.int16)
        return replace(self, **wide)

    def __repr__(self) -> str:
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "origin"}
        shown = (
            f"{name}: {value.dtype}{list(value.shape)}"
            if isinstance(value, np.ndarray)
            else f"{name}={value}"
            for name, value in values.items()
        )
        return f"{self.origin!r}  # {', '.join(shown)}"
