"""Quantization-aware training: a module whose forward is the arithmetic of its image."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..arguments import TensorOrArray, as_tensors, bind, check_inputs, the_only
from ..arithmetic.layout import Shape
from ..arithmetic.quantization import Quantization
from ..calibration.batches import CalibrationData
from ..calibration.quantize import quantize
from ..calibration.ranges import QuantizationPlan, Range
from ..comparison.measure import compare
from ..comparison.report import Comparison
from ..comparison.samples import batches_to_compare
from ..compile.module_with_ranges import ModuleWithRanges
from ..compile.nano_module import NanoModule
from ..compile.to_nano import to_nano
from ..errors import InputError, QuantizationError
from ..ir.graph import Graph
from ..modules.freeze import freeze, is_frozen
from ..modules.names import matching_modules
from .batch_statistics import batch_statistics_of, input_statistics_of
from .training_ranges import TrainingRanges
from .training_run import TrainingRun

BatchNormMethod = Literal["folded", "batch_statistics"]
_RANGES = "quantization_ranges"
_EXTRA_STATE = "_extra_state"


class QatModule(ModuleWithRanges):
    """A model in training whose forward is the device's integer arithmetic. Made by :func:`prepare_qat`.

    Children, parameters and buffers are copies of the model's, under the same names. Inputs and outputs are
    floats. The outputs are the dequantized int8 outputs: to the bit those of ``to_nano()`` in evaluation
    mode, and in train mode once the ranges are frozen (except for dropout). The gradient is straight-through,
    and zero where int8 saturates.
    """

    def __init__(
        self, model: nn.Module, graph: Graph, ranges: TrainingRanges, batch_norm: BatchNormMethod
    ) -> None:
        super().__init__()
        model = _copied(model)
        self.training = model.training
        self.model_name = type(model).__name__
        self._constants: dict[str, Tensor] = {}
        self._graph = graph.copy()
        self._plan = QuantizationPlan(graph)
        for node in graph.nodes:
            # Made here, once: torch.compile cannot trace it.
            _ = node.operator.text
        # Empty: every run takes the numbers from the module.
        self._graph.parameters = {name: torch.empty(0) for name in graph.parameters}
        self._batch_statistics = batch_statistics_of(graph)
        self._input_statistics = input_statistics_of(graph)
        self._folds_batch_norm = batch_norm == "folded"
        if not self._folds_batch_norm:
            of_inputs = (one for found in self._input_statistics.values() for one in found if one is not None)
            for statistics in (*self._batch_statistics.values(), *of_inputs):
                statistics.check(model)
        #: What can compute in float: inputs with affines and nodes, by name, and their modules' paths.
        self._layers = {name: affines[-1].module_path for name, affines in graph.affines.items()}
        self._layers |= {node.name: graph.module_path(node) for node in graph.nodes}
        self._in_float: frozenset[str] = frozenset()
        self._take_over(model)
        self.quantization_ranges = ranges
        tensors = self._named_tensors()
        self._constants.update(
            {name: tensor for name, tensor in graph.parameters.items() if name not in tensors | graph.derived}
        )
        if is_frozen(model):
            freeze(self)
        self.register_load_state_dict_pre_hook(_keep_ranges)  # type: ignore[no-untyped-call]

    def _take_over(self, model: nn.Module) -> None:
        """Makes the model's children, parameters and buffers this module's own, under their names."""
        kinds = ("_parameters", "_buffers", "_modules")
        taken = [name for kind in kinds for name in getattr(model, kind)]
        taken = [name for name in taken if name == _RANGES or hasattr(self, name)]
        if taken:
            raise InputError(
                f"the model has {taken[0]!r}, which is the name of something that a QatModule has itself: "
                "rename it"
            )
        for kind in (*kinds, "_non_persistent_buffers_set"):
            getattr(self, kind).update(getattr(model, kind))

    @property
    def input_shapes(self) -> dict[str, Shape]:
        """Shape of one sample of each input, by the names of forward's arguments."""
        return {name: self._graph.values[name].user_shape for name in self._graph.inputs}

    @property
    def input_shape(self) -> Shape:
        """Shape of one sample, for a model of one input.

        Raises:
            InputError: the model has several.
        """
        return the_only("input", self.input_shapes)

    def forward(self, *inputs: TensorOrArray, **named: TensorOrArray) -> Any:
        """float32 outputs for float inputs [N, ...], which are given and returned as by the model.

        Raises:
            InputError: wrong inputs, shape or dtype, NaN or infinity.
            NonFiniteError: a weight has become NaN or infinite.
            QuantizationError: a value has no range yet.
        """
        tensors: list[Tensor] = as_tensors(bind(self._graph.inputs, inputs, named))
        limits = {name: self._graph.values[name].index_limit for name in self._graph.inputs}
        check_inputs(self.input_shapes, tensors, index_limits=limits)
        device = tensors[0].device
        with torch.autocast(device.type, enabled=False):
            return self._graph.returned.pack(TrainingRun(self, device).run(tensors))

    def float_graph(self) -> Graph:
        """The graph with the parameters as they are now, on the CPU, and a quantization on every value.

        Raises:
            QuantizationError: a value has no range yet, or a layer computes in float.
        """
        if self._in_float:
            names = ", ".join(sorted(repr(self._layers[name]) for name in self._in_float))
            raise QuantizationError(
                f"quantization is disabled for {names}, and the image knows no such layers: "
                "enable_quantization first"
            )
        graph = self._graph.copy()
        with torch.no_grad():
            tensors = {name: tensor.detach().cpu() for name, tensor in self._named_tensors().items()}
            graph.parameters = graph.parameters_from({**self._constants, **tensors})
        for value in graph.values.values():
            value.quantization = self._plan.quantization(value.name, self.chosen)
        return graph

    def chosen(self, one: Range) -> Quantization:
        """The present quantization of a range.

        Raises:
            QuantizationError: none of its values has been observed yet.
        """
        return self.quantization_ranges.quantization(one.name)

    def compare(self, data: CalibrationData) -> Comparison:
        """Compares the model in int8, as `to_nano()` makes it now, with the same parameters in float.

        Args:
            data: as for `calibrate` of :func:`prepare_qat`; with labels as for :meth:`NanoModule.compare`.

        Raises:
            InputError: wrong data, or none at all.
            NonFiniteError: NaN or infinity in the data or an activation.
            QuantizationError: a value has no range yet, a layer computes in float or cannot be quantized.
        """
        graph = self.float_graph()
        return compare(graph, quantize(graph, self.chosen), batches_to_compare(graph, data))

    def to_nano(self, **options: Any) -> NanoModule:
        """The image with this arithmetic, as a module; see :func:`torch_nano.to_nano` for the options.

        All layers go to flash, unless `head` names one: that layer goes on learning in RAM, and then the
        features before it are what is equal.

        Raises:
            InputError: a wrong option.
            QuantizationError: a value has no range yet, or a layer cannot be quantized.
        """
        return to_nano(self, **options)

    def float_state_dict(self) -> dict[str, Tensor]:
        """The state dict of the original model, with the weights trained here."""
        return {
            name: tensor
            for name, tensor in self.state_dict().items()
            if name != _EXTRA_STATE and not name.startswith(f"{_RANGES}.")
        }

    def get_extra_state(self) -> Tensor:
        """The settings of :func:`disable_quantization` and :func:`fold_batch_norm`, for `state_dict()`.

        uint8 [layers + 1]: for each layer whether it computes in float, then whether batch norms are folded.
        """
        in_float = [name in self._in_float for name in self._layers]
        return torch.tensor([*in_float, self._folds_batch_norm], dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Restores the settings of :meth:`get_extra_state`, for `load_state_dict()`.

        Raises:
            InputError: it is of a module with another number of layers.
        """
        if state.shape != (len(self._layers) + 1,):
            raise InputError(f"the state is of {len(state) - 1} layers; this module has {len(self._layers)}")
        *in_float, self._folds_batch_norm = map(bool, state.tolist())
        self._in_float = frozenset(
            name for name, is_set in zip(self._layers, in_float, strict=True) if is_set
        )

    def _named_tensors(self) -> dict[str, Tensor]:
        return {
            **dict(self.named_parameters(remove_duplicate=False)),
            **dict(self.named_buffers(remove_duplicate=False)),
        }

    def _layers_of(self, patterns: Sequence[str | nn.Module]) -> frozenset[str]:
        """The names of the layers of the modules that the patterns match; without a pattern all layers."""
        if not patterns:
            return frozenset(self._layers)
        inside = {part for module in matching_modules(self, patterns) for part in module.modules()}
        paths = {name for name, module in self.named_modules(remove_duplicate=False) if module in inside}
        return frozenset(name for name, path in self._layers.items() if path in paths)


def _copied(model: nn.Module) -> nn.Module:
    # deepcopy refuses tensors that were computed with a gradient, as the weights that the hooks of
    # weight_norm and prune compute before each call.
    computed = {
        id(tensor): tensor.detach().clone()
        for module in model.modules()
        for tensor in vars(module).values()
        if isinstance(tensor, Tensor) and not tensor.is_leaf
    }
    try:
        return copy.deepcopy(model, computed)
    except Exception as error:
        raise InputError(
            f"{type(model).__name__} cannot be copied by copy.deepcopy, which prepare_qat does: {error}"
        ) from error


def _keep_ranges(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Keeps ranges and extra state when a checkpoint of the original model is loaded, which has none."""
    assert isinstance(module, QatModule)
    own = {
        f"{prefix}{_RANGES}.{name}": tensor
        for name, tensor in module.quantization_ranges.state_dict().items()
    }
    own[f"{prefix}{_EXTRA_STATE}"] = module.get_extra_state()
    if not own.keys() & state_dict.keys():
        state_dict.update(own)
