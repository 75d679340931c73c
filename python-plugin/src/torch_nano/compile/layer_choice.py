"""Sparse update: which of the last layers learn on the device, under a limit of RAM."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from .. import _native
from ..calibration.ranges import Bounds
from ..comparison.samples import KeptSamples
from ..errors import HeadError, InputError, TooLargeError
from ..ir.graph import Graph, Node
from .trained_layers import described, has_weights, trained_nodes

#: Layers among which a choice is made, at most: all their combinations are compared.
_MOST_LAYERS = 12
#: Calibration samples by which layers are compared, at most.
_SAMPLES = 32
_SEED = 0


@dataclass(frozen=True)
class LayerChoice:
    """One of the last layers, and whether it learns on the device."""

    #: Dotted path of its module.
    module_path: str
    #: Number of weights and biases.
    parameters: int
    #: Bytes of RAM that learning takes more with it than without it: weights and gradients, and their part of
    #: the spare copy and the ring of samples.
    ram_bytes: int
    #: Its share of the trace of the neural tangent kernel of all of these layers: how much of what gradient
    #: descent does to the outputs, at first, it does through this layer.
    share: float
    #: Whether it learns; else its weights stay in flash.
    learns: bool
    #: Why.
    reason: str


@dataclass(frozen=True)
class _Candidate:
    """Layers that may learn together."""

    #: From the first that learns to the last one.
    nodes: list[Node]
    #: Names of those that learn.
    learning: frozenset[str]
    ram: int


def chosen_layers(
    graph: Graph, count: int, ranges: Mapping[str, Bounds], limit: int, kept: KeptSamples | None
) -> tuple[list[Node], frozenset[str], tuple[LayerChoice, ...]]:
    """The layers among the `count` last ones that learn within a limit of RAM: those with the largest sum of
    the neural tangent kernel's trace, the last one always among them.

    Args:
        ranges: of the outputs between them.
        limit: most bytes of RAM that learning takes: the head, its spare copy and the ring of samples.
        kept: calibration samples; None: there are none.

    Returns:
        The nodes from the first layer that learns, the names of those that learn, and the table of all
        layers, in their order.

    Raises:
        TooLargeError: not even the last layer alone fits.
        HeadError: the model does not end in so many layers that can be trained.
        InputError: there are more layers than can be compared, or no samples.
    """
    if count > _MOST_LAYERS:
        raise InputError(
            f"train_last is {count}, with budget['training']; expected at most {_MOST_LAYERS} layers to "
            "choose from"
        )
    if kept is None or not kept.count:
        raise InputError(
            "budget['training'] compares layers on calibration data, which a QatModule does not have: leave "
            "it out and give train_last alone"
        )
    nodes = trained_nodes(graph, count)
    layers = [node for node in nodes if has_weights(node)]
    traces = _traces(graph, layers, kept)
    candidates = _candidates(graph, layers, ranges)
    fitting = [candidate for candidate in candidates.values() if candidate.ram <= limit]
    if not fitting:
        least = min(candidates.values(), key=lambda candidate: candidate.ram)
        paths = ", ".join(repr(graph.module_path(node)) for node in layers if node.name in least.learning)
        raise TooLargeError(
            f"budget['training'] is {limit:,} B, and learning takes {least.ram:,} B of RAM with {paths} "
            "alone (weights, their spare copy, the ring of samples): give more, or take fewer features or "
            "classes"
        )
    best = max(fitting, key=lambda one: (sum(traces[name] for name in one.learning), -one.ram))
    whole = sum(traces.values()) or 1.0
    table = tuple(
        LayerChoice(
            graph.module_path(node),
            sum(graph.parameters[name].numel() for name in node.parameters.values()),
            _ram_of(node.name, best, candidates),
            traces[node.name] / whole,
            node.name in best.learning,
            _reason(node, layers, best, fitting),
        )
        for node in layers
    )
    return best.nodes, best.learning, table


def _candidates(
    graph: Graph, layers: Sequence[Node], ranges: Mapping[str, Bounds]
) -> dict[frozenset[str], _Candidate]:
    """All combinations of layers that can learn together, by the names of their nodes."""
    found = {}
    for first, node in enumerate(layers):
        try:
            nodes = trained_nodes(graph, len(layers) - first)
        except HeadError:
            # A residual block cannot be cut here.
            continue
        needed = {node.name, layers[-1].name}
        others = [other.name for other in layers[first + 1 : -1]]
        for taken in itertools.product((False, True), repeat=len(others)):
            learning = frozenset(needed | set(itertools.compress(others, taken)))
            ram = _native.training_ram(described(graph, nodes, ranges, learning))
            found[learning] = _Candidate(nodes, learning, ram)
    return found


def _ram_of(name: str, best: _Candidate, candidates: Mapping[frozenset[str], _Candidate]) -> int:
    """What a layer adds to the RAM of the others that learn; if it cannot be left out, all that learning
    takes with it alone.
    """
    with_it, without = candidates.get(best.learning | {name}), candidates.get(best.learning - {name})
    if with_it is not None and without is not None:
        return with_it.ram - without.ram
    return min(one.ram for one in candidates.values() if name in one.learning)


def _reason(node: Node, layers: Sequence[Node], best: _Candidate, fitting: Sequence[_Candidate]) -> str:
    if node is layers[-1]:
        return "it is the last layer"
    if node.name in best.learning:
        return "of what fits it gains most"
    fits = any(node.name in one.learning for one in fitting)
    return "others gain more" if fits else "it does not fit"


def _traces(graph: Graph, layers: Sequence[Node], kept: KeptSamples) -> dict[str, float]:
    """The trace of each layer's neural tangent kernel, ``E_x sum_k |dz_k / dw|^2``, by the node's name.

    Hutchinson's estimate: for signs s of mean 0, ``E_s |d(s z) / dw|^2`` is that sum.
    """
    probe, tracked = graph.copy(), {}
    for node in layers:
        tracked[node.name] = [
            probe.parameters[name].detach().clone().requires_grad_() for name in node.parameters.values()
        ]
        probe.parameters |= dict(zip(node.parameters.values(), tracked[node.name], strict=True))
    parameters = [parameter for own in tracked.values() for parameter in own]
    random = torch.Generator().manual_seed(_SEED)
    traces = dict.fromkeys(tracked, 0.0)
    for batch in kept.samples(graph, _SAMPLES):
        for index in range(len(batch)):
            with torch.enable_grad():
                (output,) = probe.float_run(*(x[index : index + 1] for x in batch.inputs))
                signs = torch.randint(0, 2, output.shape, generator=random) * 2.0 - 1
                gradients = iter(torch.autograd.grad((output * signs).sum(), parameters))
            for name, own in tracked.items():
                traces[name] += sum(float(next(gradients).square().sum()) for _ in own)
    return traces
