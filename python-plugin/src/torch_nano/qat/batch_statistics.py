"""Folded batch norms in quantization-aware training that normalize with the statistics of the batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..capture.structural import BatchNorm
from ..errors import InputError
from ..ir.affine import Affine
from ..ir.graph import FoldedNorm, Graph, Node
from ..modules.explain import has_one_value, one_value_per_channel
from ..modules.freeze import is_frozen
from ..ops._channels import ChannelsOperator
from ..ops.fully_connected import FullyConnected

_STATISTICS = ("running_mean", "running_var")


@dataclass(frozen=True)
class BatchStatistics:
    """A batch norm that is folded into a layer, or into the scales of an input.

    In training the layer's weights are folded with mean and variance of the batch after the layer. These cost
    a second run of the layer, in float and without the batch norm (Jacob et al., 2018, arXiv 1712.05877,
    section 3.2). A batch norm before the layer needs no such run.
    """

    #: The batch norm.
    norm: FoldedNorm
    #: The names of its buffers in the model, by role.
    statistics: Mapping[str, str]
    #: The layer's own parameters by role; {} if the batch norm stands alone, or before the layer.
    layer: Mapping[str, str] = field(default_factory=dict)

    def normalized(self, node: Node, x: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
        """What the batch norm of a layer normalizes.

        Args:
            x: the layer's input, real numbers.
            parameters: tensors by name.
        """
        if not self.layer:
            channels = len(parameters[self.statistics["running_mean"]])
            if isinstance(node.operator, FullyConnected) and x.shape[1] != channels:
                # The batch norm is of the flattened input.
                return node.operator.columns(x)
            return x
        assert isinstance(node.operator, ChannelsOperator)
        own = {role: parameters[name] for role, name in self.layer.items()}
        return node.operator.linear(x, own["weight"], own.get("bias"))

    def are_followed(self, model: nn.Module) -> bool:
        """Whether the module that calls the batch norm is in train mode, and not frozen."""
        caller = model.get_submodule(self.norm.module_path)
        return caller.training and not is_frozen(caller)

    def tensors(self, y: Tensor, model: nn.Module) -> dict[str, Tensor]:
        """The batch's statistics by the names of the running ones; moves the running ones towards them.

        Args:
            y: what the batch norm normalizes, real numbers [N, channels, ...].
            model: the module with the running statistics.

        Raises:
            InputError: there is one value per channel, which has no variance.
        """
        if has_one_value(y):
            raise InputError(
                f"the batch norm of {self.norm.module_path!r} gets {tuple(y.shape)} in training"
                f"{one_value_per_channel()}"
            )
        over = [dimension for dimension in range(y.dim()) if dimension != 1]
        variance, mean = torch.var_mean(y, over, correction=0)
        names = [self.statistics[role] for role in _STATISTICS]
        running = [model.get_buffer(name) for name in names]
        momentum = self._momentum(model.get_submodule(self.norm.module_path))
        _move(running, (mean, variance), y.numel() // y.shape[1], momentum)
        return dict(zip(names, (mean, variance), strict=True))

    def _momentum(self, caller: nn.Module) -> float:
        """The momentum of the running statistics; counts the batch if the module does so."""
        if not isinstance(caller, _BatchNorm):
            return self.norm.momentum
        if caller.num_batches_tracked is not None:
            caller.num_batches_tracked.add_(1)
        if caller.momentum is not None:
            return caller.momentum
        return 1.0 / float(caller.num_batches_tracked) if caller.num_batches_tracked is not None else 0.0

    def check(self, model: nn.Module) -> None:
        """Checks that the running statistics are buffers of the model: others would not be copied with it.

        Raises:
            InputError: they are not; the message names the module.
        """
        buffers = dict(model.named_buffers(remove_duplicate=False))
        missing = [role for role, name in self.statistics.items() if name not in buffers]
        if missing:
            raise InputError(
                f"the {missing[0]} of the batch norm of {self.norm.module_path!r} is no buffer of the model, "
                "so it cannot follow the batches: register_buffer it, or take batch_norm='folded'"
            )


def batch_statistics_of(graph: Graph) -> dict[str, BatchStatistics]:
    """The folded batch norms that use the batch's statistics in train mode, by the layer's name."""
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
        norm = graph.derived[node.parameters["weight"]].norm
        if norm is None or not norm.follows:
            continue
        found[node.name] = BatchStatistics(norm, statistics, layer)
    return found


def input_statistics_of(graph: Graph) -> dict[str, tuple[BatchStatistics | None, ...]]:
    """For each affine of each input, by the input's name, the batch norm that it is; None if it is none that
    takes the batch's statistics in train mode.
    """
    return {name: tuple(map(_statistics_of, affines)) for name, affines in graph.affines.items()}


def _statistics_of(affine: Affine) -> BatchStatistics | None:
    operator = affine.operator
    if not isinstance(operator, BatchNorm) or not operator.follows:
        return None
    norm = FoldedNorm(affine.module_path, operator.momentum, operator.follows)
    return BatchStatistics(norm, {role: affine.parameters[role] for role in _STATISTICS})


@torch.no_grad()
def _move(running: Sequence[Tensor], batch: Sequence[Tensor], count: int, momentum: float) -> None:
    """Moves running mean and unbiased variance towards a batch's, as torch's batch norm does.

    Args:
        count: number of elements of a channel.
    """
    mean, variance = batch
    for moved, value in zip(running, (mean, variance * (count / (count - 1))), strict=True):
        moved.lerp_(value.to(moved.dtype), momentum)
