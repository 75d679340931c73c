"""Names of ATen for one and the same call."""

from __future__ import annotations

from typing import Any

import torch

aten = torch.ops.aten
Target = torch._ops.OpOverload[..., Any]

#: ATen's aliases -> the name that the operators know.
_ALIASES = {
    "__and__": "bitwise_and",
    "__or__": "bitwise_or",
    "__xor__": "bitwise_xor",
    "absolute": "abs",
    "arcsinh": "asinh",
    "arctan": "atan",
    "clip": "clamp",
    "concat": "cat",
    "concatenate": "cat",
    "divide": "div",
    "fix": "trunc",
    "multiply": "mul",
    "negative": "neg",
    "special_erf": "erf",
    "special_erfc": "erfc",
    "special_exp2": "exp2",
    "special_expit": "sigmoid",
    "special_expm1": "expm1",
    "special_log1p": "log1p",
    "special_round": "round",
    "special_sinc": "sinc",
    "special_softmax": "softmax",
    "subtract": "sub",
    "true_divide": "div",
}


def canonical(target: Target) -> Target:
    """The call that operators know by another name, with the same arguments.

    >>> canonical(torch.ops.aten.clip.default)
    <OpOverload(op='aten.clamp', overload='default')>
    """
    other = _ALIASES.get(target._schema.name.removeprefix("aten::"))
    if other is None:
        return target
    found: Target = getattr(getattr(aten, other), target._overloadname or "default", target)
    return found
