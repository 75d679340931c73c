"""The interface of a model: arguments of a call, and structure of the outputs."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal

Kind = Literal["tensor", "tuple", "list", "dict", "namedtuple"]


@dataclass(frozen=True)
class Returned:
    """How a model returns its outputs: as one tensor, or in tuples, lists, dicts and named tuples.

    >>> Returned("dict", ("mean", "spread"), (Returned(), Returned())).pack([1, 2])
    {'mean': 1, 'spread': 2}
    """

    kind: Kind = "tensor"
    #: The keys of a dict, or the fields of a named tuple.
    keys: tuple[str, ...] = ()
    #: How each of its parts is returned; of a tensor no parts.
    parts: tuple[Returned, ...] = ()

    def __post_init__(self) -> None:
        """Checks keys and parts.

        Raises:
            ValueError: they contradict each other or the kind, or two outputs would have one name.
        """
        named = self.kind in ("dict", "namedtuple")
        if len(self.keys) != (len(self.parts) if named else 0) or (self.kind == "tensor" and self.parts):
            raise ValueError(f"a {self.kind} of {len(self.parts)} parts with the keys {self.keys}")
        if self.kind == "namedtuple":
            _named_tuple(self.keys)
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"two outputs have one name: {', '.join(self.names)}")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of the outputs: the keys of a dict or a named tuple, else "output", or "output0",
        "output1" and so on; of nested outputs with a point, "output1.0".

        >>> Returned("tuple", (), (Returned(), Returned("dict", ("mean",), (Returned(),)))).names
        ('output0', 'output1.mean')
        """
        if self.kind == "tensor":
            return ("output",)
        first = self.keys or tuple(f"output{index}" for index in range(len(self.parts)))
        return tuple(
            name for key, part in zip(first, self.parts, strict=True) for name in part._names_under(key)
        )

    def _names_under(self, prefix: str) -> Iterator[str]:
        if self.kind == "tensor":
            yield prefix
        for key, part in zip(self.keys or range(len(self.parts)), self.parts, strict=True):
            yield from part._names_under(f"{prefix}.{key}")

    def pack(self, outputs: Sequence[Any]) -> Any:
        """Packs the outputs into the structure that the model returns.

        Raises:
            ValueError: their number differs.
        """
        if len(outputs) != len(self.names):
            raise ValueError(f"{len(outputs)} outputs; expected {len(self.names)}")
        return self._packed(iter(outputs))

    def _packed(self, outputs: Iterator[Any]) -> Any:
        if self.kind == "tensor":
            return next(outputs)
        parts = [part._packed(outputs) for part in self.parts]
        if self.kind == "dict":
            return dict(zip(self.keys, parts, strict=True))
        if self.kind == "namedtuple":
            return _named_tuple(self.keys)(*parts)
        return parts if self.kind == "list" else tuple(parts)


@lru_cache
def _named_tuple(fields: tuple[str, ...]) -> Any:
    return namedtuple("Outputs", fields)  # the fields are known at run time only
