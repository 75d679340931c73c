"""Quantization-aware training: a module whose forward is the arithmetic of the image it would become."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ..arguments import check_inputs
from ..arithmetic.layout import Shape
from ..arithmetic.quantization import Quantization
from ..calibration.calibrate import CalibrationData, Method, check_parameters
from ..calibration.calibrate import calibrate as observe_ranges
from ..calibration.ranges import QuantizationPlan, Range
from ..capture.capture import capture
from ..capture.passes import optimize
from ..compile.module_with_ranges import ModuleWithRanges
from ..compile.nano_module import NanoModule
from ..compile.to_nano import to_nano
from ..errors import InputError, QuantizationError, UnsupportedError, UnsupportedNode
from ..ir.graph import Graph, Node
from ..ir.interface import bind, the_only
from ..modules.freeze import freeze, is_frozen
from ..modules.inputs import Example
from ..modules.models import check_float, own_module
from ..modules.names import matching_modules
from .batch_statistics import batch_statistics_of
from .training_ranges import RangeMethod, TrainingRanges
from .training_run import TrainingRun

BatchNormMethod = Literal["folded", "batch_statistics"]
_RANGES = "quantization_ranges"
_EXTRA_STATE = "_extra_state"


class QatModule(ModuleWithRanges):
    """A model in training whose forward is the device's integer arithmetic. Made by :func:`prepare_qat`.

    Children, parameters and buffers are copies of the model's own, under their own names. Floats in, floats
    out: the real numbers of the int8 outputs, those of ``to_nano()`` to the bit in evaluation, and in
    training once the ranges are frozen (but for dropout). The gradient goes straight through all rounding and
    is zero where int8 saturates.
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
        # Their numbers come from the module, in every run.
        self._graph.parameters = {name: torch.empty(0) for name in graph.parameters}
        self._batch_statistics = batch_statistics_of(graph)
        self._folds_batch_norm = batch_norm == "folded"
        if not self._folds_batch_norm:
            for statistics in self._batch_statistics.values():
                statistics.check(model)
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
        return {name: self._graph.values[name].shape for name in self._graph.inputs}

    @property
    def input_shape(self) -> Shape:
        """Shape of one sample, for a model of one input.

        Raises:
            InputError: the model has several.
        """
        return the_only("input", self.input_shapes)

    def forward(self, *inputs: Tensor, **named: Tensor) -> Any:
        """float32 outputs for float inputs [N, ...], which are given and returned as by the model.

        Raises:
            InputError: wrong inputs, shape or dtype, NaN or infinity.
            NonFiniteError: a weight has become NaN or infinite.
            QuantizationError: a value has no range yet.
        """
        tensors = bind(self._graph.inputs, inputs, named)
        check_inputs(self.input_shapes, tensors)
        device = tensors[0].device
        with torch.autocast(device.type, enabled=False):
            return self._graph.returned.pack(TrainingRun(self, device).run(tensors))

    def float_graph(self) -> Graph:
        """The graph with the parameters as they are now, on the CPU, and a quantization on every value.

        Raises:
            QuantizationError: a value has no range yet, or a layer computes in float.
        """
        if self._in_float:
            names = ", ".join(sorted(repr(self._graph.values[name].module_path) for name in self._in_float))
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
        """The quantization of a range as it is now.

        Raises:
            QuantizationError: none of its values has been seen yet.
        """
        return self.quantization_ranges.quantization(one.name)

    def to_nano(self, **options: Any) -> NanoModule:
        """The image whose arithmetic this is, as a module; see :func:`torch_nano.to_nano` for the options.

        All of it goes to flash, unless `head` names a layer: that one goes on learning in RAM, and what is
        equal then are the features in front of it.

        Raises:
            InputError: a wrong option.
            QuantizationError: a value has no range yet, or a layer that integers cannot hold.
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
        """What :func:`disable_quantization` and :func:`fold_batch_norm` have set, for `state_dict()`.

        uint8 [nodes + 1]: for each node whether it computes in float, then whether batch norms are folded.
        """
        in_float = [node.name in self._in_float for node in self._graph.nodes]
        return torch.tensor([*in_float, self._folds_batch_norm], dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Undoes :meth:`get_extra_state`, for `load_state_dict()`.

        Raises:
            InputError: it is of a module with another number of nodes.
        """
        nodes = self._graph.nodes
        if state.shape != (len(nodes) + 1,):
            raise InputError(f"the state is of {len(state) - 1} nodes; this module has {len(nodes)}")
        *in_float, self._folds_batch_norm = map(bool, state.tolist())
        self._in_float = frozenset(node.name for node, is_set in zip(nodes, in_float, strict=True) if is_set)

    def _named_tensors(self) -> dict[str, Tensor]:
        return {
            **dict(self.named_parameters(remove_duplicate=False)),
            **dict(self.named_buffers(remove_duplicate=False)),
        }

    def _nodes(self, patterns: Sequence[str | nn.Module]) -> list[Node]:
        """The nodes of the modules that the patterns name; without a pattern all."""
        if not patterns:
            return self._graph.nodes
        inside = {part for module in matching_modules(self, patterns) for part in module.modules()}
        paths = {name for name, module in self.named_modules(remove_duplicate=False) if module in inside}
        return [node for node in self._graph.nodes if self._graph.module_path(node) in paths]


def _copied(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except Exception as error:
        raise InputError(
            f"{type(model).__name__} cannot be copied by copy.deepcopy, which prepare_qat does: {error}"
        ) from error


def _keep_ranges(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """A checkpoint of the original model has no ranges: those that are here stay, and so does the extra
    state.
    """
    assert isinstance(module, QatModule)
    own = {
        f"{prefix}{_RANGES}.{name}": tensor
        for name, tensor in module.quantization_ranges.state_dict().items()
    }
    own[f"{prefix}{_EXTRA_STATE}"] = module.get_extra_state()
    if not own.keys() & state_dict.keys():
        state_dict.update(own)


def prepare_qat(
    model: nn.Module,
    example: Example,
    *,
    calibrate: CalibrationData | None = None,
    method: Method = "minmax",
    ranges: RangeMethod = "moving_average",
    momentum: float = 0.01,
    batch_norm: BatchNormMethod = "folded",
    float_layers: Sequence[str | nn.Module] = (),
    first_layer: bool = True,
    last_layer: bool = True,
) -> QatModule:
    """A copy of the model that is trained through the device's arithmetic. The model itself is not changed.

    Train it as any module. It has the model's parameters under their own names, so optimizers, checkpoints
    and :func:`freeze` patterns go on working. What a frozen module makes keeps its range too. Dropout works
    in train mode.

    Args:
        model: any nn.Module that :func:`to_nano` takes, and that computes the same in both modes but for
            dropout and batch norm; wrappers are taken off.
        example: a float input with batch, or several, as :func:`to_nano` takes them; their numbers do not
            matter.
        calibrate: typical inputs the ranges start from (see :func:`to_nano`); None: the first training batch.
        method: how they are calibrated, "minmax" or "percentile".
        ranges: "moving_average": in train mode they follow each batch's smallest and largest number until
            :func:`freeze_ranges`, at the price of a second run of each layer in float (with
            DistributedDataParallel those of the first process count); "learned": the scales are parameters,
            ``quantization_ranges.log_scales.*``, and need `calibrate`.
        momentum: the weight of a batch in the moving average.
        batch_norm: "folded": with the running statistics, which stay as they are; "batch_statistics": in
            train mode with those of the batch, and the running ones follow, until :func:`fold_batch_norm`.
        float_layers: modules that compute in float at first; see :func:`disable_quantization`.
        first_layer: whether the first layer with weights is quantized from the start.
        last_layer: the same of the last one.

    Raises:
        UnsupportedError: calls of the model that cannot run on the device, all of them; calls of one mode
            only, and dropouts that integers cannot do.
        CaptureError: torch.export cannot trace the model.
        InputError: a wrong example, calibration data or option.
        NonFiniteError: NaN or infinity in a weight or an activation.
        ModuleNameError: a pattern of `float_layers` that matches nothing.

    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> x = torch.randn(64, 4)
    >>> qat = prepare_qat(model, x, calibrate=x)
    >>> qat(x).sum().backward()
    >>> [name for name, parameter in qat.named_parameters() if parameter.grad is not None]
    ['0.weight', '0.bias', '2.weight', '2.bias']
    >>> torch.equal(qat.eval()(x), qat.to_nano()(x))
    True
    """
    if batch_norm not in get_args(BatchNormMethod):
        raise InputError(
            f"there is no batch norm method {batch_norm!r}; expected one of {get_args(BatchNormMethod)}"
        )
    model = own_module(model)
    check_float(model)
    graph = optimize(capture(model, example, for_training=True))
    check_parameters(graph)
    _check_dropouts(graph)
    observed = {} if calibrate is None else observe_ranges(graph, calibrate, method)
    training_ranges = TrainingRanges(QuantizationPlan(graph).ranges, observed, ranges, momentum)
    qat = QatModule(model, graph, training_ranges, batch_norm)
    with_weights = [node for node in graph.nodes if node.parameters]
    ends = [*with_weights[:1] * (not first_layer), *with_weights[-1:] * (not last_layer)]
    qat._in_float = frozenset(node.name for node in ends)
    if float_layers:
        disable_quantization(qat, *float_layers)
    return qat


def _check_dropouts(graph: Graph) -> None:
    """Refuses the dropouts that the run could not do as the model does."""
    refused = []
    for value in graph.values.values():
        for dropout in value.dropouts:
            if dropout.function not in ("dropout", "feature_dropout"):
                reason, way_out = "it needs numbers that int8 does not have in training", "use nn.Dropout"
            elif dropout.bypassed:
                reason = "its input is read by others, without the dropout, too"
                way_out = "put the dropout behind the layer that reads it, or give the others another tensor"
            else:
                continue
            refused.append(
                UnsupportedNode(dropout.module_path, dropout.source, dropout.function, reason, way_out)
            )
    if refused:
        raise UnsupportedError(refused, "be trained by prepare_qat")


def freeze_ranges(qat: nn.Module, *patterns: str | nn.Module) -> None:
    """Freezes the ranges of what the named modules make, of all values without a pattern.

    The forward pass of train mode is then that of evaluation, and cheaper.

    Raises:
        InputError: no QatModule, also not in a wrapper.
        ModuleNameError: a pattern matches nothing.
        QuantizationError: a value has no range yet.

    >>> qat = prepare_qat(nn.Sequential(nn.Linear(4, 3)), torch.zeros(2, 4), calibrate=torch.ones(2, 4))
    >>> freeze_ranges(qat)
    >>> bool(qat.quantization_ranges.frozen.all())
    True
    """
    qat = _qat_module(qat)
    qat.quantization_ranges.freeze(_ranges_of(qat, patterns), True)


def unfreeze_ranges(qat: nn.Module, *patterns: str | nn.Module) -> None:
    """Undoes :func:`freeze_ranges`."""
    qat = _qat_module(qat)
    qat.quantization_ranges.freeze(_ranges_of(qat, patterns), False)


def disable_quantization(qat: nn.Module, *patterns: str | nn.Module) -> None:
    """Lets the named modules (all without a pattern) compute in float: weights and outputs are not rounded.

    What a quantized layer reads is rounded first. The image knows no such layers: enable them again before
    `to_nano`, which refuses otherwise.

    Raises:
        InputError: no QatModule, also not in a wrapper.
        ModuleNameError: a pattern matches nothing.
    """
    qat = _qat_module(qat)
    qat._in_float |= {node.name for node in qat._nodes(patterns)}


def enable_quantization(qat: nn.Module, *patterns: str | nn.Module) -> None:
    """Undoes :func:`disable_quantization`, `float_layers`, and `first_layer` and `last_layer` of
    :func:`prepare_qat`.
    """
    qat = _qat_module(qat)
    qat._in_float -= {node.name for node in qat._nodes(patterns)}


def fold_batch_norm(qat: nn.Module) -> None:
    """From here on the batch norms are folded with their running statistics, as on the device."""
    _qat_module(qat)._folds_batch_norm = True


def _qat_module(qat: nn.Module) -> QatModule:
    """The QatModule, out of wrappers.

    Raises:
        InputError: it is none.
    """
    own = own_module(qat, "qat")
    if not isinstance(own, QatModule):
        raise InputError(f"qat is a {type(own).__name__}; expected what prepare_qat returns")
    return own


def _ranges_of(qat: QatModule, patterns: Sequence[str | nn.Module]) -> list[str]:
    names = [name for node in qat._nodes(patterns) for name in node.outputs if qat._plan.has_range(name)]
    return names if patterns else [*qat._graph.inputs, *names]
