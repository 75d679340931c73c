"""Compiles an nn.Module to a NanoModule."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from torch import nn

from .. import _native
from ..arguments import items, positive_number, shown, whole_number
from ..arithmetic.quantization import Quantization
from ..calibration.batches import CalibrationData
from ..calibration.calibrate import Method, Observed, check_parameters, observe
from ..calibration.example import example_of
from ..calibration.quantize import quantize
from ..calibration.ranges import Bounds, Range, calibrated
from ..capture.capture import capture
from ..capture.passes import optimize
from ..chips import chip as chip_named
from ..comparison.check import warn_of_loss
from ..comparison.samples import KeptSamples
from ..equalization.equalize import quantize_observed
from ..errors import HeadError, InputError
from ..fits.variant import Variant, variant_of
from ..heads import SGD, HeadSettings, Rejection
from ..ir.graph import Graph
from ..ir.precision import Precision
from ..modules.inputs import Example
from ..modules.models import check_float, own_module
from ..ops.argmax import argmax_of
from .auto_precision import SAMPLES, target_of, with_auto_precision
from .for_chip import WeightsInRam, checked_weights_in_ram, for_chip
from .image import is_name, write_image
from .last_layers import LastLayers, cut_before, split_off_head
from .module_with_ranges import ModuleWithRanges
from .nano_module import NanoModule
from .optimization import Budget, Goal, Optimization, optimization_of, training_limit
from .precision import with_precision
from .rates import with_rate
from .rejections import with_rejection
from .saved_model import SavedHead, SavedModel
from .starts import with_start


@dataclass(frozen=True)
class _Source:
    """A model before its head is split off."""

    graph: Graph
    #: The quantization of each range.
    choose: Callable[[Range], Quantization]
    #: Bounds of the values by name.
    ranges: Mapping[str, Bounds]
    #: Of the calibration data; None without any.
    kept: KeptSamples | None = None
    observed: Observed | None = None


def to_nano(
    model: nn.Module,
    example: Example | None = None,
    *,
    calibrate: CalibrationData | None = None,
    method: Method = "minmax",
    percentile: float | None = None,
    precision: Precision | Literal["auto"] | None = None,
    target_sqnr: float | None = None,
    head: HeadSettings | str | None = "auto",
    train_last: int = 1,
    learning_rate: float | Literal["auto"] | None = None,
    rejection: Rejection | None = None,
    labels: Sequence[str] | None = None,
    name: str | None = None,
    check: bool = True,
    correct: bool = True,
    target: str | None = None,
    firmware: str = Variant.SERVER,
    weights_in_ram: WeightsInRam = 0,
    optimize: Goal = "speed",
    budget: Budget | None = None,
) -> NanoModule:
    """Compiles a model to int8, as it runs on the device. The model itself is not changed.

    Args:
        model: any nn.Module; it is taken out of wrappers (torch.compile, DataParallel and the like).
        example: a float input with batch dimension; for several inputs a tuple of them, or a dict by the
            names of forward's arguments. The numbers do not matter. None: the first samples of `calibrate`.
            A :class:`QatModule` needs none.
        calibrate: typical inputs, a few hundred: a tensor, or batches (tensors, tuples (x, ...) that begin
            with the inputs or have them in a tuple of their own, ((a, b), y), as from a DataLoader, or dicts
            by name). A :class:`QatModule` has its ranges.
        method: which of a value's numbers int8 covers; the others saturate. "minmax": all; "percentile": the
            middle `percentile` per cent; "mse": those of the least squared error; "entropy": those of the
            least Kullback-Leibler divergence; "auto": the best of these by squared error.
        percentile: of the methods "percentile" and "auto", above 0 and at most 100; None: 99.99.
        precision: the layers that compute in 16 bits, by the names of modules or patterns of them: ``{"stem":
            "int16"}``, of which the last that matches a layer counts. Their inputs and outputs are int16, the
            weights int8; all other layers compute in int8, but roots of squares (standard deviations, norms)
            in int16 between the squares and the root, unless "int8" is asked of their module. "auto": the
            fewest layers that bring the outputs to `target_sqnr` on some of the calibration data.
            :attr:`NanoModule.precision` says which. A :class:`QatModule` has its precision.
        target_sqnr: of "auto", in dB (SQNR); None: 20 dB. It takes a run of the float network for each value,
            and 5 to 30 of the integer network, over 32 samples.
        head: the layer that goes on learning on the device, in RAM; all other layers go to flash, trainable
            or not. "auto": the Linear that ends the model, if its parameters require gradients and some other
            parameter of the model does not (see :func:`freeze`); no layer of a :class:`QatModule`. A module's
            name: that Linear, which must end the model. None: no layer. The head learns by
            :class:`torch_nano.heads.SGD`; settings change that, and take the Linear that ends the model:
            `heads.SGD(...)`, `heads.LDA(...)`, `heads.Prototype(...)`.
        train_last: number of Linear layers and convolutions, depthwise ones too, at the end of the model that
            learn on the device. 2 or more, frozen or not, learn together
            (:class:`torch_nano.heads.LayersHead`), by gradient descent with `learning_rate` or the settings
            of `head=heads.SGD(...)`. Only activations that clamp (ReLU, ReLU6), pools and residual additions
            of what one of them reads may be between them.
        learning_rate: of the head, in real numbers, or "auto"; None: that of the settings, or of
            :class:`torch_nano.heads.SGD`.
        rejection: how the head's confidence is calibrated, and inputs of no known class are rejected, from
            labelled samples; None: not calibrated, and none is rejected.
        labels: the names of the classes, all different: one for each output, of 1 to 64 bytes in UTF-8 on one
            line.
        name: the model's name, of 1 to 64 bytes in UTF-8 on one line; None: the name of its class.
        check: compare int8 with float on some of the calibration data, and warn if much is lost. Of a
            :class:`QatModule`, which has no data, :meth:`QatModule.compare` does that.
        correct: scale the channels between layers so that each uses the range of int8 (cross-layer
            equalization), and correct biases by the mean error that rounded weights cause on the calibration
            data. A :class:`QatModule` is trained, and not corrected.
        target: the name of a chip that the model must fit, such as "esp32c3"; see :meth:`NanoModule.fits`.
        firmware: of the target: "server", "classifier" or a sensor; see :meth:`NanoModule.fits`.
        weights_in_ram: bytes of RAM in which the device keeps copies of weights and tables, at most: a chip
            waits about ten cycles for each byte of flash that is not in its cache. Whole layers are copied,
            first those that read most bytes of flash per byte of RAM. The outputs are the same. "auto": all
            RAM that the model leaves of the target's.
        optimize: by what the layers' kernels are chosen; all give the same outputs. "speed": the fewest
            cycles, by estimates for an ESP32-C3; "flash": the smallest constants, within 1 %, and little
            code; "ram": the smallest arena. :meth:`NanoModule.summary` with ``kernels=True`` shows the
            choice.
        budget: most bytes of the image, "flash", of its arena without copies of weights, "ram", and of what
            learning takes of RAM beside it, "training" (the layers that learn, their spare copy, the ring of
            samples): ``{"flash": 300_000, "ram": 100_000}`` or some of them. None: what the firmware leaves
            of the target's, or of an ESP32-C3's. With "training" only some of the `train_last` layers learn
            (sparse update): of the combinations that fit, the one through which gradient descent changes the
            outputs most (the largest trace of the neural tangent kernel on 32 calibration samples). The last
            layer always learns; :meth:`NanoModule.summary` shows the choice.

    Warns:
        AccuracyWarning: int8 keeps less than 15 dB of an output; it names the layers that lose most. Or
            `target_sqnr` cannot be reached.
        CalibrationWarning: there are fewer than 32 samples, an input is constant, or the percentile leaves
            out nothing.
        ChannelRangeWarning: channels of an input use few levels of int8.
        HeadWarning: layers are frozen, and head="auto" still finds no head.
        SizeWarning: the model fits the target only just, is too large for an update, or the firmware is not
            built for the target.

    Raises:
        ChipError: there is no such target.
        TooLargeError: the model does not fit the target or the budget; the message names what is short, the
            layer at the peak, and what helps.
        UnsupportedError: all calls of the model that cannot run on the device.
        CaptureError: torch.export cannot trace the model.
        InputError: a wrong example, calibration data, method, firmware, labels or name.
        NonFiniteError: NaN or infinity in a weight or an activation.
        QuantizationError: a layer cannot be quantized, or not in the precision that is wanted.
        ModuleNameError: an entry of `precision` matches no module.
        HeadError: the layer that `head` names cannot be a head; the model does not end in `train_last` layers
            that can be trained; a setting is invalid for this model's head; or there is a learning rate, but
            no layer learns by it.

    >>> import torch
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> x = torch.randn(64, 4)
    >>> nano = to_nano(model, x, calibrate=x)
    >>> nano(x).shape, nano.head is None
    (torch.Size([64, 3]), True)
    """
    model = own_module(model)
    if name is not None and not is_name(name):
        raise InputError(
            f"name is {shown(name)}; expected a text of 1 to {_native.LONGEST_NAME} bytes in UTF-8, on one "
            "line and without a zero, or None: the name of the model's class"
        )
    names = _labels(labels)
    train_last = whole_number("train_last", train_last, least=1)
    chip, variant = None if target is None else chip_named(target), variant_of(firmware)
    weights_in_ram = checked_weights_in_ram(weights_in_ram, chip)
    optimization, training = optimization_of(optimize, budget, chip), training_limit(budget)
    settings = _settings(head, learning_rate)
    wanted = target_of(precision, target_sqnr)
    source = _source(model, example, calibrate, method, percentile, precision, correct)
    if names:
        _check_labels(names, source.graph)
    graph, split = split_off_head(
        source.graph, model, head, settings, train_last, source.ranges, training, source.kept
    )
    if split is None and learning_rate is not None:
        raise HeadError(
            f"learning_rate is {learning_rate}, but nothing of this model learns on the device: with head="
            f"{head!r} it has no trainable head; name the Linear that ends it (head='...'), or leave "
            "learning_rate out"
        )
    if rejection is not None and not isinstance(rejection, Rejection):
        raise HeadError(f"rejection is {shown(rejection)}; expected heads.Rejection((x, y)), or None")
    if split is None and rejection is not None:
        raise HeadError(
            f"there is a rejection, but nothing of this model learns on the device: with head={head!r} it "
            "has no trainable head; name the Linear that ends it (head='...'), or leave rejection out"
        )
    if wanted is not None and source.kept is not None and source.observed is not None:
        graph = with_auto_precision(
            source.graph, source.observed, source.kept, wanted, lambda graph: cut_before(graph, split)
        )
    if source.observed is None:
        quantized = quantize(graph, source.choose)
    else:
        source.observed.warn_of_channels(graph)
        graph, quantized = quantize_observed(graph, source.observed)
    if check and source.kept is not None:
        warn_of_loss(graph, quantized, source.kept)
    if name is None:
        name = model.model_name if isinstance(model, ModuleWithRanges) else type(model).__name__
        if not is_name(name):
            raise InputError(
                f"the model's class is called {shown(name)}, more than {_native.LONGEST_NAME} bytes "
                "in UTF-8; give a shorter name: to_nano(..., name=...)"
            )
    description = None if split is None else split.description

    def shipped(split: LastLayers, description: dict[str, Any]) -> NanoModule:
        image = write_image(quantized, description, name, names)
        return NanoModule(SavedModel(image, quantized, _saved(split, description)))

    if split is not None and description is not None:
        if split.start is not None:
            description = with_start(description, *split.start, shipped(split, description))
        if split.rate is not None:
            description = with_rate(description, split.rate, shipped(split, description))
        if rejection is not None:
            description = with_rejection(description, rejection, shipped(split, description))
    saved = _saved(split, description)

    def make(in_ram: int, optimization: Optimization) -> NanoModule:
        image = write_image(quantized, description, name, names, in_ram, optimization)
        return NanoModule(SavedModel(image, quantized, saved, optimization))

    return for_chip(make, chip, weights_in_ram, optimization, variant)


def _saved(split: LastLayers | None, description: dict[str, Any] | None) -> SavedHead | None:
    if split is None or description is None:
        return None
    choice = [asdict(layer) for layer in split.choice]
    return SavedHead(", ".join(split.paths), description, choice=choice)


def _source(
    model: nn.Module,
    example: Example | None,
    calibrate: CalibrationData | None,
    method: Method,
    percentile: float | None,
    precision: Precision | Literal["auto"] | None,
    correct: bool,
) -> _Source:
    """The graph to compile and the ranges of its values: captured, or from a QatModule."""
    if isinstance(model, ModuleWithRanges):
        if example is not None or calibrate is not None or precision is not None:
            raise InputError(
                "a QatModule has its inputs, ranges and precision: leave out example, calibrate and precision"
            )
        graph = model.float_graph()
        check_parameters(graph)
        return _Source(graph, model.chosen, {name: graph.quantization(name).range for name in graph.values})
    if calibrate is None:
        raise InputError("to_nano needs calibrate=: typical inputs, that the ranges are taken from")
    check_float(model)
    if example is None:
        example = example_of(model, calibrate)
    graph = optimize(capture(model, example))
    if precision != "auto":
        graph = with_precision(graph, model, precision)
    kept = KeptSamples() if precision != "auto" else KeptSamples(SAMPLES)
    observed = observe(graph, calibrate, method, percentile, kept.observe, correct)
    ranges = observed.ranges(graph)
    return _Source(graph, calibrated(ranges), ranges, kept, observed)


def _check_labels(names: Sequence[str], graph: Graph) -> None:
    if len(graph.outputs) > 1:
        raise InputError(
            f"labels for a model that returns {len(graph.outputs)} tensors; expected a model that returns one"
        )
    (output,) = graph.outputs
    argmax = argmax_of(graph, output)
    classes = graph.values[output if argmax is None else argmax.inputs[0]].shape[0]
    if len(names) != classes:
        raise InputError(f"{len(names)} labels for a model of {classes} outputs; expected one for each")


def _labels(labels: object) -> list[str]:
    """The checked names of the classes: each valid, and all different."""
    if labels is None:
        return []
    names = items("labels", labels, "a list of names, one for each output", error=InputError)
    first: dict[str, int] = {}
    for index, name in enumerate(names):
        if not is_name(name):
            raise InputError(
                f"label {index} is {shown(name)}; expected a text of 1 to {_native.LONGEST_NAME} bytes in "
                "UTF-8, on one line and without a zero, as a device keeps it"
            )
        if first.setdefault(name, index) != index:
            raise InputError(
                f"labels {first[name]} and {index} are both {name!r}; expected a name of its own for "
                "each class"
            )
    return [str(name) for name in names]


def _settings(head: object, learning_rate: object) -> HeadSettings:
    """The settings of the head, if there is one."""
    if not isinstance(head, HeadSettings | str | None):
        raise HeadError(
            f"head is {shown(head)}; expected the name of the Linear that ends the model, 'auto' or None, "
            "or give settings: head=tn.heads.SGD(), tn.heads.LDA() or tn.heads.Prototype()"
        )
    if learning_rate is None:
        return SGD() if isinstance(head, str | None) else head
    rate: float | Literal["auto"] = (
        "auto" if learning_rate == "auto" else positive_number("learning_rate", learning_rate)
    )
    if isinstance(head, str | None):
        return SGD(rate)
    if not isinstance(head, SGD) or head.learning_rate != rate:
        raise HeadError(
            f"learning_rate={rate} and head={head!r} contradict each other: leave learning_rate out, the "
            "settings say how the head learns"
        )
    return head
