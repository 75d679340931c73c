"""Passes: functions graph -> graph that do not change the float run."""

from __future__ import annotations

from collections.abc import Callable

from ...ir.graph import Graph
from .absorb_moves import absorb_moves
from .fold_batch_norm import fold_batch_norm
from .fuse_activations import fuse_activations
from .insert_requantize import insert_requantize
from .lower_affines import lower_affines
from .moves_into_convolutions import moves_into_convolutions
from .take_input_affines import take_input_affines

#: In this order: what is in front of the network becomes its inputs' scales, which cost nothing; moves go out
#: from between a layer and its batch norm; a batch norm is folded or lowered, which makes new moves, before
#: an activation is fused into what it became; then convolutions take in moves.
PASSES: tuple[Callable[[Graph], Graph], ...] = (
    take_input_affines,
    absorb_moves,
    moves_into_convolutions,
    fold_batch_norm,
    lower_affines,
    absorb_moves,
    fuse_activations,
    moves_into_convolutions,
    insert_requantize,
)


def optimize(graph: Graph) -> Graph:
    """The graph after all passes: every node is a layer of the device, or a move that costs nothing there.

    Raises:
        UnsupportedError: moves that the device cannot do.
    """
    for run_pass in PASSES:
        graph = run_pass(graph)
    return graph
