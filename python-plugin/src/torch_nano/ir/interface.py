"""The interface of a model: arguments of a call, and structure of the outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["tensor", "tuple", "list", "dict"]


@dataclass(frozen=True)
class Returned:
    """How a model returns its outputs: as one tensor, or as a tuple, a list or a dict of tensors.

    >>> Returned("dict", ("mean", "spread")).pack([1, 2])
    {'mean': 1, 'spread': 2}
    """

    kind: Kind = "tensor"
    #: Names of the outputs: the keys of a dict, else "output", or "output0", "output1" and so on.
    names: tuple[str, ...] = ("output",)

    @staticmethod
    def unnamed(kind: Kind, count: int) -> Returned:
        """`count` outputs without names: not for a dict."""
        names = ("output",) if kind == "tensor" else tuple(f"output{index}" for index in range(count))
        return Returned(kind, names)

    def pack(self, outputs: Sequence[Any]) -> Any:
        """Packs the outputs into the structure that the model returns."""
        if self.kind == "tensor":
            (only,) = outputs
            return only
        if self.kind == "dict":
            return dict(zip(self.names, outputs, strict=True))
        return list(outputs) if self.kind == "list" else tuple(outputs)
