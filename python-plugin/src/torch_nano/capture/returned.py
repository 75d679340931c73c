"""What a model returns: brought to plain structures before torch.export, and read from its program."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor, nn

from ..arguments import shown
from ..errors import CaptureError
from ..ir.interface import Returned

_EXPECTED = "expected a tensor, or tuples, lists, dicts, named tuples or dataclasses of tensors"


@contextmanager
def plain_outputs(model: nn.Module) -> Iterator[None]:
    """Inside, the model returns dicts in place of dataclasses and other mappings, which torch.export does not
    know: their fields that are None are left out.

    A call inside raises a CaptureError if the model returns something else than such structures of tensors.
    """
    hook = model.register_forward_hook(lambda module, arguments, output: _plain(output))
    try:
        yield
    finally:
        hook.remove()


def _plain(output: Any) -> Any:
    if output is None or isinstance(output, Tensor | bool | int | float | str):
        return output
    if isinstance(output, Mapping):
        for key in output:
            if not isinstance(key, str):
                raise CaptureError(
                    f"the model returns a dict with the key {shown(key)}; name its outputs by texts, such as "
                    f"{{'output{key}': ...}}"
                )
        return {key: _plain(part) for key, part in output.items()}
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        parts = {field.name: getattr(output, field.name) for field in dataclasses.fields(output)}
        return {name: _plain(part) for name, part in parts.items() if part is not None}
    if isinstance(output, tuple):
        if hasattr(output, "_fields"):
            return type(output)(*map(_plain, output))
        # torch.return_types, as of x.max(1), know their fields themselves.
        return output if _result_fields(type(output)) else tuple(map(_plain, output))
    if isinstance(output, list):
        return [_plain(part) for part in output]
    raise CaptureError(f"the model returns a {type(output).__name__}; {_EXPECTED}")


def _result_fields(kind: type) -> tuple[str, ...]:
    """The fields of one of torch.return_types; () for other types."""
    return kind.__match_args__ if getattr(torch.return_types, kind.__name__, None) is kind else ()


def returned_of(spec: pytree.TreeSpec) -> Returned:
    """How a model returns its outputs, from torch.export's specification.

    Raises:
        CaptureError: two outputs would have one name.
    """
    if spec.is_leaf():
        return Returned()
    parts = tuple(map(returned_of, spec.children()))
    try:
        if spec.type is dict:
            return Returned("dict", tuple(spec.context), parts)
        if spec.type in (tuple, list):
            return Returned("tuple" if spec.type is tuple else "list", (), parts)
        # The context of a named tuple is its class.
        return Returned("namedtuple", _result_fields(spec.type) or spec.context._fields, parts)
    except ValueError as error:
        raise CaptureError(f"the model returns outputs that cannot be told apart: {error}") from error
