"""Inputs that hold indices: the rows that an embedding looks up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import fx

from ..errors import InputError
from ..ir.graph import Graph
from ..ops.concat import Concat
from ..ops.embedding import Embedding
from ..ops.move import Move

_LOOKUPS = frozenset({*Embedding.targets(), torch.ops.aten.index.Tensor})


def integer_inputs(calls: fx.Graph, names: Iterable[str]) -> list[str]:
    """The inputs of integers among those with these names.

    Raises:
        InputError: there are some, but no call that looks up rows.
    """
    named = {node.name: node for node in calls.nodes if node.op == "placeholder"}
    found = [name for name in names if not named[name].meta["val"].is_floating_point()]
    if found and not any(node.target in _LOOKUPS for node in calls.nodes):
        raise _not_indices(found[0])
    return found


def limit_indices(graph: Graph, names: Iterable[str]) -> None:
    """Sets :attr:`.Value.index_limit` of a graph's inputs of integers.

    Args:
        names: of these inputs.

    Raises:
        InputError: no embedding reads one of them.
    """
    for name in names:
        rows = list(_rows(graph, name))
        if not rows:
            raise _not_indices(name)
        graph.values[name].index_limit = min(rows)


def _rows(graph: Graph, name: str) -> Iterator[int]:
    """The number of rows of each embedding that reads a value, directly or after moves."""
    for node in graph.consumers(name):
        if isinstance(node.operator, Embedding):
            yield node.operator.rows
        elif isinstance(node.operator, Move | Concat):
            for output in node.outputs:
                yield from _rows(graph, output)


def _not_indices(name: str) -> InputError:
    return InputError(
        f"the example's {name!r} holds integers, and no embedding looks up rows by them; give the model "
        f"floats: {name}.float()"
    )
