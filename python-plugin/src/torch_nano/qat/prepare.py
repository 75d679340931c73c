"""From a model to its module for quantization-aware training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from torch import nn

from ..arguments import one_of
from ..calibration.batches import CalibrationData
from ..calibration.calibrate import Method, check_parameters, observe
from ..calibration.calibrate import calibrate as observe_ranges
from ..calibration.example import example_of
from ..calibration.ranges import Bounds, QuantizationPlan
from ..capture.capture import capture
from ..capture.passes import optimize
from ..comparison.samples import KeptSamples
from ..compile.auto_precision import SAMPLES, target_of, with_auto_precision
from ..compile.precision import with_precision
from ..errors import InputError, UnsupportedError, UnsupportedNode
from ..ir.graph import Graph
from ..ir.precision import Precision
from ..modules.inputs import Example
from ..modules.models import check_float, own_module
from .qat_module import BatchNormMethod, QatModule
from .training_ranges import RangeMethod, TrainingRanges


def prepare_qat(
    model: nn.Module,
    example: Example | None = None,
    *,
    calibrate: CalibrationData | None = None,
    method: Method = "minmax",
    percentile: float | None = None,
    precision: Precision | Literal["auto"] | None = None,
    target_sqnr: float | None = None,
    ranges: RangeMethod = "moving_average",
    momentum: float = 0.01,
    batch_norm: BatchNormMethod = "folded",
    float_layers: Sequence[str | nn.Module] = (),
    first_layer: bool = True,
    last_layer: bool = True,
) -> QatModule:
    """Makes a copy of the model for quantization-aware training. The model itself is not changed.

    Train it like any module. Its parameters have the model's names, so optimizers, checkpoints and
    :func:`freeze` patterns go on working. The output ranges of frozen modules are frozen, too. Dropout works
    in train mode.

    Args:
        model: any nn.Module that :func:`to_nano` takes and that computes the same in both modes, except for
            dropout and batch norm; it is taken out of wrappers.
        example: a float input with batch dimension, or several, as for :func:`to_nano`; the numbers do not
            matter. None: the first samples of `calibrate`.
        calibrate: typical inputs, for the initial ranges (see :func:`to_nano`); None: the first training
            batch.
        method: of calibration; see :func:`to_nano`. percentile likewise.
        precision: the layers that compute in 16 bits, as for :func:`to_nano`. "auto": the fewest that bring
            the outputs to `target_sqnr` before training; it needs `calibrate`.
        target_sqnr: of "auto", in dB, as for :func:`to_nano`.
        ranges: "moving_average": in train mode they follow each batch's smallest and largest number until
            :func:`freeze_ranges`, which costs a second run of each layer in float (with
            DistributedDataParallel, the first process decides); "learned": the scales are parameters,
            ``quantization_ranges.log_scales.*``, and need `calibrate`.
        momentum: the weight of a batch in the moving average.
        batch_norm: "folded": with the running statistics, which do not change; "batch_statistics": in train
            mode with those of the batch, which the running ones follow, until :func:`fold_batch_norm`.
        float_layers: modules that compute in float at first; see :func:`disable_quantization`.
        first_layer: whether the first layer with weights is quantized from the start.
        last_layer: likewise for the last one.

    Warns:
        AccuracyWarning: `target_sqnr` cannot be reached.
        CalibrationWarning: as :func:`to_nano`; ChannelRangeWarning likewise.

    Raises:
        UnsupportedError: all calls of the model that cannot run on the device; calls in one mode only;
            dropouts that cannot be computed on integers.
        CaptureError: torch.export cannot trace the model.
        InputError: a wrong example, calibration data or option.
        NonFiniteError: NaN or infinity in a weight or an activation.
        ModuleNameError: a pattern of `float_layers` or `precision` that matches nothing.
        QuantizationError: an operator has no kernel of the dtype that `precision` wants.

    >>> import torch
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> x = torch.randn(64, 4)
    >>> qat = prepare_qat(model, x, calibrate=x)
    >>> qat(x).sum().backward()
    >>> [name for name, parameter in qat.named_parameters() if parameter.grad is not None]
    ['0.weight', '0.bias', '2.weight', '2.bias']
    >>> torch.equal(qat.eval()(x), qat.to_nano()(x))
    True
    """
    one_of("batch_norm", batch_norm, get_args(BatchNormMethod))
    model = own_module(model)
    check_float(model)
    if example is None:
        if calibrate is None:
            raise InputError("prepare_qat needs an example of the inputs, or calibrate=: typical inputs")
        example = example_of(model, calibrate)
    target = target_of(precision, target_sqnr)
    graph = optimize(capture(model, example, for_training=True))
    if precision != "auto":
        graph = with_precision(graph, model, precision)
    check_parameters(graph)
    _check_dropouts(graph)
    observed: dict[str, Bounds] = {}
    if target is not None:
        graph, observed = _searched(graph, calibrate, method, percentile, target)
    elif calibrate is not None:
        observed = observe_ranges(graph, calibrate, method, percentile)
    training_ranges = TrainingRanges(QuantizationPlan(graph).ranges, observed, ranges, momentum)
    qat = QatModule(model, graph, training_ranges, batch_norm)
    with_weights = [node for node in graph.nodes if node.parameters]
    ends = [*with_weights[:1] * (not first_layer), *with_weights[-1:] * (not last_layer)]
    qat._in_float = frozenset(node.name for node in ends)
    if float_layers:
        qat._in_float |= qat._layers_of(float_layers)
    return qat


def _searched(
    graph: Graph, data: CalibrationData | None, method: Method, percentile: float | None, target: float
) -> tuple[Graph, dict[str, Bounds]]:
    """The graph with the layers in int16 that bring its outputs to a target in dB, and its values' ranges."""
    if data is None:
        raise InputError(
            "precision='auto' compares the layers on calibration data: give calibrate=, typical inputs"
        )
    kept = KeptSamples(SAMPLES)
    observed = observe(graph, data, method, percentile, kept.observe)
    graph = with_auto_precision(graph, observed, kept, target)
    observed.warn_of_channels(graph)
    return graph, observed.ranges(graph)


def _check_dropouts(graph: Graph) -> None:
    """Raises for dropouts that a training run cannot compute as the model does."""
    refused = []
    for value in graph.values.values():
        for dropout in value.dropouts:
            if dropout.function not in ("dropout", "feature_dropout"):
                reason, way_out = "it needs numbers that int8 does not have in training", "use nn.Dropout"
            elif dropout.bypassed:
                reason = "its input is read by others, without the dropout, too"
                way_out = "put the dropout after the layer that reads it, or give the others another tensor"
            else:
                continue
            refused.append(
                UnsupportedNode(dropout.module_path, dropout.source, dropout.function, reason, way_out)
            )
    if refused:
        raise UnsupportedError(refused, "be trained by prepare_qat")
