"""Passes: functions graph -> graph that do not change the float run."""

from __future__ import annotations

from collections.abc import Callable

from ...ir.graph import Graph
from .absorb_moves import absorb_moves
from .argmax_of_scores import argmax_of_scores
from .choose_layouts import choose_layouts
from .fold_affines import fold_affines
from .fold_into_next import fold_into_next
from .fuse_activations import fuse_activations
from .fuse_functions import fuse_functions
from .insert_requantize import insert_requantize
from .lower_affines import lower_affines
from .lower_selections import lower_selections
from .moves_into_convolutions import moves_into_convolutions
from .take_input_affines import take_input_affines
from .transpose_matmuls import transpose_matmuls

#: The order matters. Affine operators on inputs become the inputs' scales first, as these are free, and again
#: once moves before them are part of the inputs' layouts. Moves between a layer and its batch norm are
#: absorbed before batch norms are folded or lowered; lowering inserts new moves. Activations are fused into
#: the resulting layers, and the other functions of one variable into tables; selections that remain become
#: products. Then convolutions absorb padding and cropping.
PASSES: tuple[Callable[[Graph], Graph], ...] = (
    take_input_affines,
    absorb_moves,
    transpose_matmuls,
    choose_layouts,
    take_input_affines,
    moves_into_convolutions,
    fold_affines,
    fold_into_next,
    lower_affines,
    choose_layouts,
    absorb_moves,
    fuse_activations,
    fuse_functions,
    lower_selections,
    argmax_of_scores,
    moves_into_convolutions,
    insert_requantize,
)


def optimize(graph: Graph) -> Graph:
    """Runs all passes: every node of the result is a layer of the device, or a move that is free there."""
    for run_pass in PASSES:
        graph = run_pass(graph)
    return graph
