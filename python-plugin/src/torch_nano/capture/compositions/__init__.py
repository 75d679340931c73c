"""ATen calls that are several layers, as functions in plain torch; each is one line here.

A function takes the call's arguments by the names of ATen's schema, defaults filled in, and returns what the
call returns; None stands for a result that cannot be computed (indices). Its own calls may be compositions.
It may raise :class:`~torch_nano.ir.call.UnsupportedNodeError`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from .adaptive_pools import adaptive_average_pool, adaptive_max_pool
from .attention import scaled_dot_product_attention
from .extremes import amin, largest, smallest
from .matrix_products import baddbmm, einsum
from .norms import group_norm, instance_norm
from .quotient import quotient
from .sums import total
from .variance import standard_deviation, std_mean, var_mean, variance
from .vector_norm import vector_norm

aten = torch.ops.aten

Composition = Callable[..., Tensor | tuple[Tensor | None, ...]]

COMPOSITIONS: Mapping[torch._ops.OpOverload[..., Any], Composition] = {
    aten.adaptive_avg_pool1d.default: adaptive_average_pool,
    aten.adaptive_avg_pool2d.default: adaptive_average_pool,
    aten.adaptive_max_pool1d.default: adaptive_max_pool,
    aten.adaptive_max_pool2d.default: adaptive_max_pool,
    aten.amin.default: amin,
    aten.baddbmm.default: baddbmm,
    aten.div.Tensor: quotient,
    aten.div_.Tensor: quotient,
    aten.einsum.default: einsum,
    aten.group_norm.default: group_norm,
    aten.instance_norm.default: instance_norm,
    aten.linalg_vector_norm.default: vector_norm,
    aten.max.dim: largest,
    aten.min.dim: smallest,
    aten.scaled_dot_product_attention.default: scaled_dot_product_attention,
    aten.sum.dim_IntList: total,
    **dict.fromkeys((aten.std.default, aten.std.dim, aten.std.correction), standard_deviation),
    **dict.fromkeys((aten.std_mean.default, aten.std_mean.dim, aten.std_mean.correction), std_mean),
    **dict.fromkeys((aten.var.default, aten.var.dim, aten.var.correction), variance),
    **dict.fromkeys((aten.var_mean.default, aten.var_mean.dim, aten.var_mean.correction), var_mean),
}
