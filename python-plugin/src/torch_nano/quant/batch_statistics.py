"""Batch norm in quantization-aware training that still normalizes with the statistics of the batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..graph.graph import Graph
from ..ops._channels import ChannelsOperator
from ..ops.operator import Node

_STATISTICS = ("running_mean", "running_var")


@dataclass(frozen=True)
class BatchStatistics:
    """A batch norm that was folded into a layer.

    In training its layer's weights are folded with the mean and the variance that the batch has behind the
    layer without it, which costs a second run of the layer, in float (Jacob et al., 2018, arXiv 1712.05877,
    section 3.2).
    """

    #: Path of the batch norm's module.
    module_path: str
    #: The names of its buffers in the model, by role.
    statistics: Mapping[str, str]
    #: The layer's own parameters by role; {} if the batch norm stands alone.
    layer: Mapping[str, str]

    def tensors(
        self, node: Node, x: Tensor, parameters: Mapping[str, Tensor], norm: nn.Module
    ) -> dict[str, Tensor]:
        """The batch's statistics by the names of the running ones, which are moved towards them.

        Args:
            x: the layer's input, real numbers.
            parameters: tensors by name.
            norm: the batch norm.
        """
        y = x
        if self.layer:
            assert isinstance(node.operator, ChannelsOperator)
            own = {role: parameters[name] for role, name in self.layer.items()}
            y = node.operator.linear(x, own["weight"], own.get("bias"))
        over = [dimension for dimension in range(y.dim()) if dimension != 1]
        variance, mean = torch.var_mean(y, over, correction=0)
        assert isinstance(norm, nn.modules.batchnorm._BatchNorm)
        _move(norm, mean.detach(), variance.detach(), y.numel() // y.shape[1])
        return {self.statistics["running_mean"]: mean, self.statistics["running_var"]: variance}


def batch_statistics_of(graph: Graph) -> dict[str, BatchStatistics]:
    """The batch norms that became part of a layer's parameters, by the name of the layer's output."""
    found = {}
    for node in graph.nodes:
        derived = {
            role: graph.derived[name].sources
            for role, name in node.parameters.items()
            if name in graph.derived
        }
        if "running_mean" not in derived.get("weight", {}):
            continue
        sources = {**derived["bias"], **derived["weight"]}
        layer = {role: sources[f"layer_{role}"] for role in ("weight", "bias") if f"layer_{role}" in sources}
        statistics = {role: sources[role] for role in _STATISTICS}
        module_path = statistics["running_mean"].rpartition(".")[0]
        found[node.output] = BatchStatistics(module_path, statistics, layer)
    return found


@torch.no_grad()
def _move(norm: nn.modules.batchnorm._BatchNorm, mean: Tensor, variance: Tensor, count: int) -> None:
    """Moves the running statistics as torch's batch norm does."""
    assert norm.running_mean is not None and norm.running_var is not None
    momentum = norm.momentum
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        if momentum is None:
            momentum = 1.0 / float(norm.num_batches_tracked)
    assert momentum is not None
    unbiased = variance * (count / max(count - 1, 1))
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), momentum)
    norm.running_var.lerp_(unbiased.to(norm.running_var.dtype), momentum)
