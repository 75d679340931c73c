"""One forward pass of a module in quantization-aware training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from .._native import NanoError
from ..errors import TorchNanoError, in_module
from ..ops._training import replace_forward, train_input
from ..ops.operator import Node, Quantization
from ..transfer.freeze import is_frozen
from .ranges import has_range, output_quantization
from .tensors import check_finite

if TYPE_CHECKING:
    from .qat import QatModule


class TrainingRun:
    """One forward pass of a QatModule."""

    def __init__(self, qat: QatModule, device: torch.device) -> None:
        self.qat = qat
        self.graph = qat._graph
        self.ranges = qat.quantization_ranges
        if not torch.compiler.is_compiling():
            self.ranges.refresh()
        constants = {name: tensor.to(device) for name, tensor in qat._constants.items()}
        self.parameters = self.graph.parameters_from({**constants, **qat._named_tensors()})
        #: What the numbers of each value mean, as far as the run has come.
        self.quantizations: dict[str, Quantization] = {}
        #: Values that were not rounded.
        self.unrounded: set[str] = set()

    def output(self, x: Tensor) -> Tensor:
        (name,), (result,) = self.graph.inputs, self.graph.outputs
        if self.qat.training and not (is_frozen(self.ranges) or self.ranges.is_frozen(name)):
            check_finite(x)
            self.ranges.observe(name, x)
        quantization = self.quantizations[name] = self.ranges.quantization(name)
        y = train_input(x, quantization)
        if self.ranges.is_learned(name):
            y = self.ranges.learn(name, y, x, quantization)
        (y,) = self.graph.run([self.dropped_out(name, y)], self.node)
        return y * self.quantizations[result].scale

    def node(self, node: Node, inputs: list[Tensor]) -> Tensor:
        try:
            return self.dropped_out(node.output, self.layer(node, inputs))
        except TorchNanoError as error:
            raise in_module(error, self.graph.values[node.output].module_path) from error
        except NanoError as error:
            raise in_module(
                error, self.graph.values[node.output].module_path, self.scales_of(node)
            ) from error

    def scales_of(self, node: Node) -> str:
        """The scales of a layer that do not go together, and what to do."""
        inputs = " and ".join(f"{self.quantizations[name].scale:.3g}" for name in node.inputs)
        way_out = "calibrate on typical inputs"
        if self.ranges.log_scales is not None:
            way_out = "training has diverged; lower the learning rate of quantization_ranges.log_scales"
        output = self.quantizations[node.output].scale
        return f": the scale of its input is {inputs}, of its output {output:.3g}; {way_out}"

    def layer(self, node: Node, inputs: list[Tensor]) -> Tensor:
        name, module = node.output, self.module_of(node.output)
        follows = has_range(node) and not (is_frozen(module) or self.ranges.is_frozen(name))
        moving = follows and module.training
        learned = follows and self.ranges.is_learned(name)
        quantizations = [self.quantizations[source] for source in node.inputs]
        parameters = self.parameters_of(node, inputs, quantizations)
        real = None
        if moving or learned:
            with torch.no_grad():
                real = node.operator.float_run(_reals(inputs, quantizations), parameters)
        if moving and real is not None:
            self.ranges.observe(name, real)
        output = self.quantizations[name] = output_quantization(node, quantizations, self.ranges.quantization)
        if name in self.qat._in_float:
            self.unrounded.add(name)
            return node.operator.float_run(_reals(inputs, quantizations), parameters) / output.scale
        integers = [
            _rounded(x, quantization) if source in self.unrounded else x
            for source, x, quantization in zip(node.inputs, inputs, quantizations, strict=True)
        ]
        y = node.operator.train_run(integers, parameters, quantizations, output)
        return self.ranges.learn(name, y, real, output) if learned and real is not None else y

    def parameters_of(
        self, node: Node, inputs: list[Tensor], quantizations: Sequence[Quantization]
    ) -> dict[str, Tensor]:
        """A node's parameters by role, folded with the batch's statistics where these still count."""
        tensors: Mapping[str, Tensor] = self.parameters
        folded = self.qat._batch_statistics.get(node.output)
        if folded is not None and not self.qat._folds_batch_norm:
            caller = self.qat.get_submodule(folded.norm.module_path)
            if caller.training and not is_frozen(caller):
                (x,) = _reals(inputs, quantizations)
                tensors = {**tensors, **folded.tensors(node, x, tensors, self.qat)}
                derived = {
                    name: self.graph.derived[name].compute(tensors) for name in node.parameters.values()
                }
                tensors = {**tensors, **derived}
        return {role: tensors[name] for role, name in node.parameters.items()}

    def dropped_out(self, name: str, y: Tensor) -> Tensor:
        """The value behind its dropouts, in integers again."""
        quantization = self.quantizations[name]
        for dropout in self.graph.values[name].dropouts:
            module = self.qat.get_submodule(dropout.module_path)
            if module.training and not is_frozen(module):
                drop = F.dropout if dropout.function == "dropout" else _drop_channels
                y = drop(y, module.p if isinstance(module, _DropoutNd) else dropout.probability)
                if name not in self.unrounded:
                    y = _rounded(y, quantization)
        return y

    def module_of(self, name: str) -> nn.Module:
        return self.qat.get_submodule(self.graph.values[name].module_path)


def _drop_channels(y: Tensor, probability: float) -> Tensor:
    """Dropout of whole channels of [N, channels, ...]."""
    return torch.feature_dropout(y, probability, True)


def _reals(inputs: Sequence[Tensor], quantizations: Sequence[Quantization]) -> list[Tensor]:
    return [x * quantization.scale for x, quantization in zip(inputs, quantizations, strict=True)]


def _rounded(x: Tensor, quantization: Quantization) -> Tensor:
    """int8 numbers without their zero point, of numbers between them; the gradient goes straight through."""
    low, high = -128 - quantization.zero_point, 127 - quantization.zero_point
    inside = x.clamp(low, high)
    return replace_forward(inside, inside.detach().round())
