"""ATen calls that are several layers, as functions in plain torch; each is one line here.

A function takes the call's arguments by the names of ATen's schema, defaults filled in, and returns what the
call returns; None stands for a result that cannot be computed (indices). Its own calls may be compositions.
It returns None for a call that is one layer.
It may raise :class:`~torch_nano.ir.call.UnsupportedNodeError`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from .adaptive_pools import adaptive_average_pool, adaptive_max_pool
from .attention import scaled_dot_product_attention
from .average_pool import average_pool_by_divisor
from .extremes import amin, argmin, both, largest, maximum, minimum, smallest, top
from .fold import fold
from .lookups import has_constant_table, index
from .masks import (
    compared,
    has_constant_mask,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    masked_fill,
    where,
)
from .matrix_products import (
    addmm,
    baddbmm,
    bilinear,
    constant_product,
    einsum,
    has_constant_matrix,
    mm,
    tensordot,
)
from .norms import group_norm, instance_norm
from .one_call import (
    addcmul,
    clamp,
    cosine_similarity,
    diff,
    floor_divide,
    glu,
    hypot,
    lerp,
    pairwise_distance,
    rrelu,
)
from .pads import constant_pad, pad
from .quotient import quotient
from .scaled_sums import has_alpha, scaled_add, scaled_rsub, scaled_sub
from .sums import mean_without_nan, total
from .variance import standard_deviation, std_mean, var_mean, variance
from .vector_norm import matrix_norm, norm, vector_norm

aten = torch.ops.aten

Composition = Callable[..., Tensor | tuple[Tensor | None, ...] | None]

COMPOSITIONS: Mapping[torch._ops.OpOverload[..., Any], Composition] = {
    aten.adaptive_avg_pool1d.default: adaptive_average_pool,
    aten.adaptive_avg_pool2d.default: adaptive_average_pool,
    aten.adaptive_max_pool1d.default: adaptive_max_pool,
    aten.adaptive_max_pool2d.default: adaptive_max_pool,
    aten.addcmul.default: addcmul,
    aten.addmm.default: addmm,
    aten.amin.default: amin,
    aten.aminmax.default: both,
    aten.argmin.default: argmin,
    aten.avg_pool2d.default: average_pool_by_divisor,
    aten.baddbmm.default: baddbmm,
    aten.bilinear.default: bilinear,
    **dict.fromkeys((aten.bitwise_and.Tensor, aten.logical_and.default), logical_and),
    **dict.fromkeys((aten.bitwise_or.Tensor, aten.logical_or.default), logical_or),
    **dict.fromkeys((aten.bitwise_xor.Tensor, aten.logical_xor.default), logical_xor),
    aten.bitwise_not.default: logical_not,
    aten.clamp.Tensor: clamp,
    aten.col2im.default: fold,
    aten.constant_pad_nd.default: constant_pad,
    aten.cosine_similarity.default: cosine_similarity,
    aten.diff.default: diff,
    aten.div.Tensor: quotient,
    aten.einsum.default: einsum,
    **dict.fromkeys((aten.floor_divide.default, aten.floor_divide.Scalar), floor_divide),
    aten.ge.Tensor: compared("ge"),
    aten.glu.default: glu,
    aten.gt.Tensor: compared("gt"),
    aten.group_norm.default: group_norm,
    aten.hypot.default: hypot,
    aten.instance_norm.default: instance_norm,
    **dict.fromkeys((aten.lerp.Scalar, aten.lerp.Tensor), lerp),
    aten.le.Tensor: compared("le"),
    **dict.fromkeys((aten.linalg_matrix_norm.default, aten.linalg_matrix_norm.str_ord), matrix_norm),
    **dict.fromkeys((aten.linalg_norm.default, aten.linalg_norm.ord_str), norm),
    aten.linalg_vector_norm.default: vector_norm,
    aten.lt.Tensor: compared("lt"),
    **dict.fromkeys((aten.masked_fill.Scalar, aten.masked_fill.Tensor), masked_fill),
    aten.max.dim: largest,
    aten.min.dim: smallest,
    **dict.fromkeys((aten.max.other, aten.maximum.default), maximum),
    **dict.fromkeys((aten.min.other, aten.minimum.default), minimum),
    aten.mm.default: mm,
    aten.nanmean.default: mean_without_nan,
    aten.pad.default: pad,
    aten.pairwise_distance.default: pairwise_distance,
    aten.rrelu.default: rrelu,
    aten.scaled_dot_product_attention.default: scaled_dot_product_attention,
    **dict.fromkeys((aten.nansum.default, aten.sum.dim_IntList), total),
    aten.tensordot.default: tensordot,
    aten.topk.default: top,
    **dict.fromkeys((aten.std.default, aten.std.dim, aten.std.correction), standard_deviation),
    **dict.fromkeys((aten.std_mean.default, aten.std_mean.dim, aten.std_mean.correction), std_mean),
    **dict.fromkeys((aten.var.default, aten.var.dim, aten.var.correction), variance),
    **dict.fromkeys((aten.var_mean.default, aten.var_mean.dim, aten.var_mean.correction), var_mean),
}

#: Of these, calls that torch.export traces for one number of samples with some arguments.
FIX_THE_BATCH = frozenset(
    {
        aten.linalg_matrix_norm.default,
        aten.linalg_matrix_norm.str_ord,
        aten.linalg_norm.default,
        aten.linalg_norm.ord_str,
    }
)

#: Calls that are several layers with some arguments only: the condition, and the
#: composition.
_SOME: Mapping[torch._ops.OpOverload[..., Any], tuple[Callable[[Mapping[str, Any]], bool], Composition]] = {
    aten.index.Tensor: (has_constant_table, index),
    aten.matmul.default: (has_constant_matrix, constant_product),
    aten.add.Tensor: (has_alpha, scaled_add),
    aten.sub.Tensor: (has_alpha, scaled_sub),
    **dict.fromkeys((aten.rsub.Tensor, aten.rsub.Scalar), (has_alpha, scaled_rsub)),
    **dict.fromkeys(
        (aten.where.self, aten.where.ScalarOther, aten.where.ScalarSelf), (has_constant_mask, where)
    ),
}


def composition_of(
    target: torch._ops.OpOverload[..., Any], arguments: Mapping[str, Any]
) -> Composition | None:
    """The composition of a call, from its arguments by name (tensors of the run as values); None if it is one
    layer or unsupported.
    """
    if target in _SOME:
        is_one, composition = _SOME[target]
        return composition if is_one(arguments) else None
    return COMPOSITIONS.get(target)
