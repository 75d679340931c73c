"""What all random layers have in common."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Self

import numpy as np

from ..model import Int8

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

    def __repr__(self) -> str:
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "origin"}
        shown = (
            f"{name}: {value.dtype}{list(value.shape)}"
            if isinstance(value, np.ndarray)
            else f"{name}={value}"
            for name, value in values.items()
        )
        return f"{self.origin!r}  # {', '.join(shown)}"
