"""One forward pass of a module in quantization-aware training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from .._native import NanoError
from ..arithmetic.quantization import ChannelScales, Quantization
from ..arithmetic.tensors import check_finite
from ..calibration.ranges import Range
from ..errors import TorchNanoError, in_module
from ..ir.affine import Affine, compose
from ..ir.graph import Node
from ..ir.layer import Layer
from ..ir.straight_through import replace_forward
from ..library.train_run import train_input
from ..modules.freeze import is_frozen

if TYPE_CHECKING:
    from .qat_module import QatModule


class TrainingRun:
    """One forward pass of a QatModule."""

    def __init__(self, qat: QatModule, device: torch.device) -> None:
        self.qat = qat
        self.graph, self.plan = qat._graph, qat._plan
        self.ranges = qat.quantization_ranges
        if not torch.compiler.is_compiling():
            self.ranges.refresh()
        constants = {name: tensor.to(device) for name, tensor in qat._constants.items()}
        self.parameters = self.graph.parameters_from({**constants, **qat._named_tensors()})
        #: The quantizations of the values computed so far.
        self.quantizations: dict[str, Quantization] = {}
        #: The quantizations of ranges by name, chosen at the first value of each.
        self.chosen: dict[str, Quantization] = {}
        #: Values that are not quantized.
        self.unrounded: set[str] = set()

    def run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The outputs, in real numbers or indices, for real inputs."""
        integers = [
            self.dropped_out(name, self.quantized(name, x))
            for name, x in zip(self.graph.inputs, self.graph.from_user(inputs), strict=True)
        ]
        outputs = self.graph.to_user(self.graph.run(integers, self.node))
        return [
            y.long() if quantization.holds_indices else (y * quantization.scale).float()
            for y, quantization in zip(
                outputs, map(self.quantizations.__getitem__, self.graph.outputs), strict=True
            )
        ]

    def quantized(self, name: str, x: Tensor) -> Tensor:
        """An input as the device's integers, with the gradient of its numbers after its affines."""
        if self.graph.values[name].index_limit is not None:
            return x.to(self.quantize(name).training_dtype)
        affines = self.graph.affines.get(name)
        module: nn.Module = self.qat.get_submodule(affines[-1].module_path) if affines else self.qat
        is_free = not (
            self.ranges.is_frozen(name) or is_frozen(self.ranges) or (affines and is_frozen(module))
        )
        moves = is_free and module.training
        if moves:
            check_finite(x)
        factor_and_shift = self.factor_and_shift(name, affines, x) if affines else None
        real = x if factor_and_shift is None else _affine(x, *factor_and_shift)
        if moves:
            self.ranges.observe(name, real)
        quantization = self.quantize(name)
        if name in self.qat._in_float:
            self.unrounded.add(name)
            return real / quantization.scale
        channels = None
        if factor_and_shift is not None:
            factor, shift = factor_and_shift
            channels = ChannelScales.of_affine(factor.detach(), shift.detach(), quantization)
        y = train_input(x, quantization, channels, real)
        if self.ranges.is_learned(name):
            y = self.ranges.learn(name, y, real, quantization)
        return y

    def factor_and_shift(self, name: str, affines: Sequence[Affine], x: Tensor) -> tuple[Tensor, Tensor]:
        """What the affines of an input multiply by and add, with the batch's statistics where these still
        count.
        """
        tensors: Mapping[str, Tensor] = self.parameters
        factor, shift = compose((), tensors, self.graph.values[name].shape[0], x.device)
        for affine, statistics in zip(affines, self.qat._input_statistics[name], strict=True):
            if statistics and not self.qat._folds_batch_norm and statistics.are_followed(self.qat):
                tensors = {**tensors, **statistics.tensors(_affine(x, factor, shift), self.qat)}
            scale, offset = affine.scale_and_shift(tensors)
            factor, shift = factor * scale, shift * scale + offset
        return factor, shift

    def node(self, node: Node, inputs: list[Tensor]) -> list[Tensor]:
        path = self.graph.module_path(node)
        try:
            outputs = self.outputs(node, inputs)
            return [self.dropped_out(name, y) for name, y in zip(node.outputs, outputs, strict=True)]
        except TorchNanoError as error:
            raise in_module(error, path) from error
        except NanoError as error:
            raise in_module(error, path, self.scales_of(node)) from error

    def scales_of(self, node: Node) -> str:
        """The end of an error about a layer's scales: their numbers, and what to do."""
        inputs, outputs = (
            " and ".join(f"{self.quantizations[name].scale:.3g}" for name in names)
            for names in (node.inputs, node.outputs)
        )
        way_out = "calibrate on typical inputs"
        if self.ranges.log_scales is not None:
            way_out = "training has diverged; lower the learning rate of quantization_ranges.log_scales"
        return f": the scale of its input is {inputs}, of its output {outputs}; {way_out}"

    def outputs(self, node: Node, inputs: list[Tensor]) -> list[Tensor]:
        """A node's outputs, before dropout."""
        module = self.qat.get_submodule(self.graph.module_path(node))
        # Values whose ranges may change.
        free = [
            name for name in node.outputs if self.plan.has_range(name) and not self.ranges.is_frozen(name)
        ]
        free = [] if is_frozen(module) else free
        moving = free if module.training else []
        learned = [name for name in free if self.ranges.is_learned(name)]
        quantizations = [self.quantizations[source] for source in node.inputs]
        layer = Layer(node.operator, inputs, input_quantizations=quantizations)
        layer = replace(layer, parameters=self.parameters_of(node, layer))
        reals: dict[str, Tensor] = {}
        if moving or learned:
            with torch.no_grad():
                real = replace(layer, inputs=layer.real_inputs())
                outputs = real.float_run()
                reals = dict(zip(node.outputs, outputs, strict=True))
                for name, numbers in zip(node.outputs, real.observed(outputs), strict=True):
                    if name in moving:
                        self.ranges.observe(name, numbers)
        chosen = [self.quantize(name) for name in node.outputs]
        if node.name in self.qat._in_float:
            self.unrounded.update(node.outputs)
            return [y / output.scale for y, output in zip(self.float_run(layer), chosen, strict=True)]
        integers = [
            _rounded(x, quantization) if source in self.unrounded else x
            for source, x, quantization in zip(node.inputs, inputs, quantizations, strict=True)
        ]
        made = replace(layer, inputs=integers, output_quantizations=chosen).train_run()
        return [
            self.ranges.learn(name, y, reals[name], output) if name in learned else y
            for name, y, output in zip(node.outputs, made, chosen, strict=True)
        ]

    def quantize(self, name: str) -> Quantization:
        """Chooses the quantization of the next value of the run."""

        def choose(one: Range) -> Quantization:
            if one.name not in self.chosen:
                self.chosen[one.name] = self.ranges.quantization(one.name)
            return self.chosen[one.name]

        self.quantizations[name] = self.plan.quantization(name, choose)
        return self.quantizations[name]

    def float_run(self, layer: Layer) -> tuple[Tensor, ...]:
        """The float run of a layer."""
        return replace(layer, inputs=layer.real_inputs()).float_run()

    def parameters_of(self, node: Node, layer: Layer) -> dict[str, Tensor]:
        """A node's parameters by role; batch norms that are not folded yet use the batch's statistics."""
        tensors: Mapping[str, Tensor] = self.parameters
        folded = self.qat._batch_statistics.get(node.name)
        if folded is not None and not self.qat._folds_batch_norm and folded.are_followed(self.qat):
            (x,) = layer.real_inputs()
            statistics = folded.tensors(folded.normalized(node, x, tensors), self.qat)
            tensors = {**tensors, **statistics}
            derived = {name: self.graph.derived[name].compute(tensors) for name in node.parameters.values()}
            tensors = {**tensors, **derived}
        return {role: tensors[name] for role, name in node.parameters.items()}

    def dropped_out(self, name: str, y: Tensor) -> Tensor:
        """The value after its dropouts, quantized again."""
        quantization = self.quantizations[name]
        for dropout in self.graph.values[name].dropouts:
            module = self.qat.get_submodule(dropout.module_path)
            if module.training and not is_frozen(module):
                drop = F.dropout if dropout.function == "dropout" else _drop_channels
                y = drop(y, module.p if isinstance(module, _DropoutNd) else dropout.probability)
                if name not in self.unrounded:
                    y = _rounded(y, quantization)
        return y


def _affine(x: Tensor, factor: Tensor, shift: Tensor) -> Tensor:
    """``factor * x + shift`` per channel, in float64, as float32."""
    sides = [1] * (x.dim() - 2)
    return (x.double() * factor.reshape(-1, *sides) + shift.reshape(-1, *sides)).float()


def _drop_channels(y: Tensor, probability: float) -> Tensor:
    """Dropout of whole channels of [N, channels, ...]."""
    return torch.feature_dropout(y, probability, True)


def _rounded(x: Tensor, quantization: Quantization) -> Tensor:
    """Rounds to integers without their zero point, clamped; the gradient is straight-through."""
    inside = x.clamp(*quantization.levels)
    return replace_forward(inside, inside.detach().round())
