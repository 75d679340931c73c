"""What a model is called with, and what it returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from ..errors import InputError

Item = TypeVar("Item")
Kind = Literal["tensor", "tuple", "list", "dict"]


@dataclass(frozen=True)
class Returned:
    """How a model returns its outputs: as one tensor, or as a tuple, a list or a dict of tensors.

    >>> Returned("dict", ("mean", "spread")).pack([1, 2])
    {'mean': 1, 'spread': 2}
    """

    kind: Kind = "tensor"
    #: Of the outputs: the keys of a dict, otherwise "output", or "output0", "output1" and so on.
    names: tuple[str, ...] = ("output",)

    @staticmethod
    def unnamed(kind: Kind, count: int) -> Returned:
        """So many outputs in another way than a dict."""
        names = ("output",) if kind == "tensor" else tuple(f"output{index}" for index in range(count))
        return Returned(kind, names)

    def pack(self, outputs: Sequence[Any]) -> Any:
        """The outputs as the model returns them."""
        if self.kind == "tensor":
            (only,) = outputs
            return only
        if self.kind == "dict":
            return dict(zip(self.names, outputs, strict=True))
        return list(outputs) if self.kind == "list" else tuple(outputs)


def bind(names: Sequence[str], positional: Sequence[Any], named: Mapping[str, Any]) -> list[Any]:
    """The arguments of a call in the order of `names`, one for each.

    Raises:
        InputError: one is missing, given twice or unknown.

    >>> bind(["image", "mask"], [1], {"mask": 2})
    [1, 2]
    """
    if not named and len(positional) == len(names):
        return list(positional)
    given = dict(zip(names, positional, strict=False))
    unknown = [name for name in named if name not in names or name in given]
    given.update(named)
    if unknown or len(positional) > len(names) or len(given) < len(names):
        count = f"{len(names)} inputs" if len(names) > 1 else "one input"
        passed = [f"{len(positional)} by position"] if positional or not named else []
        passed += [f"by name {', '.join(named)}"] if named else []
        raise InputError(f"the model takes {count} ({', '.join(names)}); it is given {' and '.join(passed)}")
    return [given[name] for name in names]


def the_only(kind: str, items: Mapping[str, Item]) -> Item:
    """What a model of one input, or of one output, has for it.

    Raises:
        InputError: the model has several.

    >>> the_only("input", {"x": (3, 8)})
    (3, 8)
    """
    if len(items) != 1:
        raise InputError(f"the model has {len(items)} {kind}s ({', '.join(items)}); expected a model of one")
    (item,) = items.values()
    return item
