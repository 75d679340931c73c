"""Splits the layers that learn on the device, the trainable head, off a graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from ..calibration.ranges import Bounds
from ..comparison.samples import KeptSamples
from ..errors import HeadError, HeadWarning, InputError, warn
from ..heads import LDA, SGD, AutoRate, HeadSettings, Prototype, Start
from ..heads.start import Layer
from ..ir.graph import Graph, Node
from ..ops.argmax import argmax_of
from ..ops.fully_connected import FullyConnected
from .layer_choice import LayerChoice, chosen_layers
from .module_with_ranges import ModuleWithRanges
from .trained_layers import described, trained_nodes


@dataclass(frozen=True)
class LastLayers:
    """The layers that were split off."""

    #: The head's description for nano-core's writer.
    description: dict[str, Any]
    #: Paths of the modules, in order.
    paths: tuple[str, ...]
    #: Name of the first one's node.
    first: str
    #: What a head starts from beside the layer that is shipped, and that layer.
    start: tuple[Start, Layer] | None = None
    #: The last layers, of which some were chosen to learn; empty without a choice.
    choice: tuple[LayerChoice, ...] = ()
    #: By what its rate for a user's first samples is chosen.
    rate: AutoRate | None = None


def split_off_head(
    graph: Graph,
    model: nn.Module,
    head: HeadSettings | str | None,
    settings: HeadSettings,
    train_last: int,
    ranges: Mapping[str, Bounds],
    training: int | None = None,
    kept: KeptSamples | None = None,
) -> tuple[Graph, LastLayers | None]:
    """The graph without the layers that learn on the device, and these layers, or None.

    Args:
        model: with head="auto", its parameters that require gradients decide which Linear is a head.
        head: as for :func:`torch_nano.to_nano`; train_last likewise.
        settings: how the layers learn.
        ranges: bounds of the values by name.
        training: most bytes of RAM that learning takes, by which some of the layers are chosen to learn;
            None: all learn.
        kept: calibration samples, for that choice.

    Raises:
        TooLargeError: not even the last layer learns in that RAM.
        HeadError: the model does not end in such layers, or in one class alone, the arguments contradict each
            other, or the features before these layers are not int8.
    """
    if training is not None and train_last == 1:
        raise InputError(
            "budget has 'training', by which some of the last layers are chosen to learn, and train_last is "
            "1; expected train_last=2 or more with it"
        )
    if train_last != 1:
        by_name = head is not settings and head != "auto"
        if by_name or not isinstance(settings, SGD) or settings.layer is not None:
            raise HeadError(
                f"train_last={train_last} and head={head!r} contradict each other: the last layers of the "
                "model learn together, by gradient descent; leave head out, or give heads.SGD(...) without a "
                "layer"
            )
        split: LastLayers | None = _last_layers(graph, train_last, settings, ranges, training, kept)
    elif isinstance(model, ModuleWithRanges) and head == "auto":
        split = None
    else:
        split = _head(graph, model, head, settings)
    return cut_before(graph, split), split


def cut_before(graph: Graph, split: LastLayers | None) -> Graph:
    """The graph without the layers that learn on the device; its output is then their input, the features.

    Raises:
        HeadError: the features are not int8.
    """
    if split is None:
        return graph
    graph = graph.copy()
    (node,) = [node for node in graph.nodes if node.name == split.first]
    graph.outputs = [node.inputs[0]]
    graph.drop_unused()
    dtype = graph.dtypes.get(node.inputs[0], "int8")
    if dtype != "int8":
        path = split.paths[0]
        raise HeadError(
            f"{path!r} learns on the device, from features in int8, and is to compute in {dtype} here: end "
            f"precision with {path!r}: 'int8', or leave it in flash: head=None"
        )
    return graph


def _last_layers(
    graph: Graph,
    count: int,
    settings: SGD,
    ranges: Mapping[str, Bounds],
    training: int | None,
    kept: KeptSamples | None,
) -> LastLayers:
    """The last `count` Linear layers and convolutions of a graph, and what is between them.

    Args:
        settings: how they learn.
        ranges: of the outputs between them.
        training, kept: as for :func:`split_off_head`.

    Raises:
        HeadError: the model does not end in so many such layers, or in one class alone.
    """
    if len(graph.outputs) > 1:
        raise HeadError(
            f"train_last={count} needs a model that returns one tensor; it returns {len(graph.outputs)}"
        )
    learning: frozenset[str] | None = None
    choice: tuple[LayerChoice, ...] = ()
    if training is None:
        nodes = trained_nodes(graph, count)
    else:
        nodes, learning, choice = chosen_layers(graph, count, ranges, training, kept)
    layers = described(graph, nodes, ranges, learning)
    _check_loss(settings, len(layers[-1]["weights"]))
    paths = tuple(
        graph.module_path(node) for node, layer in zip(nodes, layers, strict=True) if layer["learns"]
    )
    description = {
        "trainer": "layers",
        "layers": layers,
        **{key: item for key, item in asdict(settings).items() if key != "layer"},
        "learning_rate": settings.learning_rate if isinstance(settings.learning_rate, float) else None,
        "halve_every": settings.halve_every or 0,
        "class_weights": list(settings.class_weights),
        "frozen": list(settings.frozen),
        "guard": settings.guard or 0,
        "half_life": settings.half_life or 0,
        "rejection": None,
    }
    return LastLayers(description, paths, nodes[0].name, choice=choice)


def _head(
    graph: Graph, model: nn.Module, head: HeadSettings | str | None, settings: HeadSettings
) -> LastLayers | None:
    """The Linear that ends the model, if it will learn."""
    if head is None:
        return None
    last = graph.producer(graph.outputs[0])
    reason = _not_a_head(graph, last)
    path = graph.values[graph.outputs[0]].module_path
    if head == "auto" and (reason or last is None or not _is_trainable_after_frozen(model, last)):
        frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
        if frozen:
            _warn_of_no_head(reason or f"{path!r}, the Linear that ends it, is frozen too")
        return None
    layer = head if isinstance(head, str) else head.layer or path
    if head != "auto" and (reason or layer != path):
        ending = reason or f"the model ends in {path!r}"
        raise HeadError(
            f"{layer!r} cannot be the trainable head: it must be the Linear that ends the model, but {ending}"
        )
    assert last is not None and isinstance(last.operator, FullyConnected)
    weight = last.operator.to_device_weight(graph.parameters[last.parameters["weight"]])
    _check_loss(settings, len(weight))
    bias = (
        graph.parameters[last.parameters["bias"]]
        if "bias" in last.parameters
        else weight.new_zeros(len(weight))
    )
    description = settings.description(weight.contiguous().numpy(), bias.numpy())
    start = None
    if isinstance(settings, LDA | Prototype) and settings.start is not None:
        start = settings.start, Layer(weight.contiguous().numpy(), bias.numpy())
    rate = settings.learning_rate if isinstance(settings, SGD) else None
    chosen = rate if isinstance(rate, AutoRate) else None
    return LastLayers(description, (path,), last.name, start, rate=chosen)


def _warn_of_no_head(reason: str) -> None:
    warn(
        f"parts of the model are frozen, but nothing learns on the device: {reason}. End the model in a "
        "Linear that is trainable (tn.unfreeze) or named (head='...'), or say that there is none: head=None",
        HeadWarning,
    )


def _check_loss(settings: HeadSettings, outputs: int) -> None:
    if isinstance(settings, SGD) and settings.loss == "cross_entropy" and outputs == 1:
        raise HeadError(
            "the layer that would learn has 1 output, and cross entropy over one class teaches nothing; "
            "expected head=tn.heads.SGD(loss='squared') if it is a number, loss='binary' if it is right or "
            "wrong, or head=None, which leaves it in flash"
        )


def _not_a_head(graph: Graph, last: Node | None) -> str:
    """Why the last node of a graph cannot be a trainable head; "" if it can."""
    if len(graph.outputs) > 1:
        return f"the model returns {len(graph.outputs)} tensors"
    if argmax_of(graph, graph.outputs[0]) is not None:
        return "the model ends in an argmax; return the scores, of which a head finds the class by itself"
    if last is None or not isinstance(last.operator, FullyConnected):
        return f"the model ends in {last.operator.name if last else 'its input'}"
    if last.operator.without_clamp() != last.operator:
        return "an activation follows it"
    if graph.values[last.output].layout is not None:
        return "its result is returned in another shape or order"
    return "its output is read elsewhere too" if graph.consumers(last.output) else ""


def _is_trainable_after_frozen(model: nn.Module, last: Node) -> bool:
    parameters = dict(model.named_parameters(remove_duplicate=False))
    own = set(last.parameters.values())
    others = [parameter for name, parameter in parameters.items() if name not in own]
    trainable = [parameters[name].requires_grad for name in own if name in parameters]
    return bool(trainable) and all(trainable) and not all(parameter.requires_grad for parameter in others)
