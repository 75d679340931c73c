"""How long the values of a graph are needed, and how many numbers a run holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from .graph import Graph, Node


def last_uses(graph: Graph) -> list[list[str]]:
    """For each node the values that no later node needs: the last read ones, and those without a reader."""
    last = {name: index for index, node in enumerate(graph.nodes) for name in (*node.outputs, *node.inputs)}
    ending: list[list[str]] = [[] for _ in graph.nodes]
    for name, index in last.items():
        if name not in graph.outputs:
            ending[index].append(name)
    return ending


def most_numbers(graph: Graph) -> int:
    """The most numbers of one sample that :meth:`.graph.Graph.run` holds at a time.

    >>> from torch_nano.capture.capture import capture
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 50), torch.nn.ReLU(), torch.nn.Linear(50, 2))
    >>> most_numbers(capture(model, torch.zeros(2, 3)))
    100
    """
    held = sum(_numbers(graph, name) for name in graph.inputs)
    most = held
    for node, ending in zip(graph.nodes, last_uses(graph), strict=True):
        held += _made(graph, node)
        most = max(most, held)
        held -= sum(_numbers(graph, name) for name in ending)
    return most


def all_numbers(graph: Graph) -> int:
    """The numbers of one sample in all values."""
    return sum(_numbers(graph, name) for name in graph.values)


def _made(graph: Graph, node: Node) -> int:
    return sum(_numbers(graph, name) for name in node.outputs)


def _numbers(graph: Graph, name: str) -> int:
    return torch.Size(graph.values[name].shape).numel()
