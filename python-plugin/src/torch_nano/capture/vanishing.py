"""Calls that compute nothing: aliases, copies, casts between real numbers, assertions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx

from ..arguments import INDEX_DTYPES
from ..ir.call import UnsupportedNodeError

aten = torch.ops.aten
Target = torch._ops.OpOverload[..., Any]

#: What the calls about shapes return, of which the capture needs the results only.
SYMBOLS = (torch.SymInt, torch.SymBool, torch.SymFloat, int, float, bool)

#: Calls that return their first argument (in evaluation mode), as an alias ...
ALIASES: frozenset[Target] = frozenset(
    {
        aten.alias.default,
        aten.alpha_dropout.default,
        aten.contiguous.default,
        aten.detach.default,
        aten.dropout.default,
        aten.feature_alpha_dropout.default,
        aten.feature_dropout.default,
    }
)
#: ... or as a copy of it.
_COPIES: frozenset[Target] = frozenset({aten.clone.default, aten.lift_fresh_copy.default})
#: Conversions to a dtype or device; like aliases between dtypes of real numbers, and of indices.
CASTS: frozenset[Target] = frozenset(
    {
        aten._to_copy.default,
        aten.to.device,
        aten.to.dtype,
        aten.to.dtype_layout,
        aten.to.other,
        aten.type_as.default,
    }
)
#: All of these.
KEEPS_NUMBERS = ALIASES | _COPIES | CASTS
#: The dtypes of indices, such as those of an argmax; the device has int32.
_INDICES = frozenset(INDEX_DTYPES)
_ASSERTIONS: frozenset[str] = frozenset(
    {
        "aten::_assert_async",
        "aten::_assert_scalar",
        "aten::_assert_tensor_metadata",
        "aten::sym_constrain_range",
        "aten::sym_constrain_range_for_size",
    }
)


def drop_unread(calls: fx.Graph) -> None:
    """Removes assertions, and calls whose results nothing reads."""
    for node in list(calls.nodes):
        if isinstance(node.target, torch._ops.OpOverload) and node.target._schema.name in _ASSERTIONS:
            calls.erase_node(node)
    calls.eliminate_dead_code()


def returns_first_argument(
    node: fx.Node, target: Target, arguments: Mapping[str, Any], constant: bool
) -> bool:
    """Whether a call returns its first argument unchanged.

    Args:
        constant: whether the result is the same in each run.

    Raises:
        UnsupportedNodeError: the call is a dropout that is active in evaluation, or converts between
            indices and real numbers.
    """
    if arguments.get("train") and target in ALIASES:
        raise UnsupportedNodeError(
            "dropout is active in evaluation too", "use nn.Dropout, or pass training=self.training"
        )
    if target in ALIASES | _COPIES or (target is aten.slice.Tensor and _is_whole(node)):
        return True
    if target not in CASTS:
        return False
    given, made = node.all_input_nodes[0].meta["val"], node.meta["val"]
    if given.dtype != made.dtype and not {given.dtype, made.dtype} <= _INDICES:
        if constant:
            return False
        if made.is_floating_point() and (given.is_floating_point() or given.dtype == torch.bool):
            # The device's truth values are the numbers 0 and 1.
            return True
        if given.dtype in _INDICES:
            raise UnsupportedNodeError(
                f"it converts indices to {_name(made)}",
                "return the indices of an argmax, and convert them outside of the model; give an input that "
                "holds no indices of an embedding as floats",
            )
        if made.dtype in _INDICES:
            raise UnsupportedNodeError(
                f"it converts {_name(given)} to {_name(made)}, which the device has for indices only",
                "give the model the indices themselves: x.long()",
            )
        raise UnsupportedNodeError(
            f"it converts {_name(given)} to {_name(made)}, which the device does not have",
            "leave the cast out, or keep the dtype of the model",
        )
    return True


def _is_whole(node: fx.Node) -> bool:
    """Whether a slice has the shape of what it slices, as ``x[:]``."""
    shape: torch.Size = node.all_input_nodes[0].meta["val"].shape
    return len(node.args) < 5 and tuple(shape) == tuple(node.meta["val"].shape)


def _name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
