"""The layers of an ATen call: its operator, and the moves around it."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import replace

import torch

from ..arithmetic.layout import Shape
from ..ir.call import Call, Moved, MovedBack, Steps, UnsupportedNodeError
from ..ir.graph import Node, new_name
from ..ir.layer import Layer
from ..ir.operator import Operator
from ..ir.value import Value
from ..ops.move import Move
from .program import LARGEST_RANK


def layers_of_call(
    call: Call, outputs: Sequence[Value], kind: type[Operator], taken: Set[str]
) -> tuple[list[Node], list[Value]]:
    """The nodes that compute a call, and the values between them.

    Args:
        outputs: the call's results; one that is moved after its operator is renamed.
        kind: the operator that its target becomes.
        taken: names that the values between them must not get.

    Raises:
        UnsupportedNodeError: nano-core cannot compute the call.
    """
    result, inputs, parameters = kind.from_call(call)
    names = [output.name for output in outputs]
    nodes: list[Node] = []
    between: list[Value] = []
    read: list[Value] = []
    for item in inputs:
        if isinstance(item, Moved):
            name = new_name(f"{item.value.name}_moved", taken | {value.name for value in between})
            move = Move(item.steps)
            shape = tuple(move.numbers(item.value.shape).shape)
            between.append(replace(outputs[0], name=name, shape=shape))
            nodes.append(Node(move, [item.value.name], [name]))
        read.append(between[-1] if isinstance(item, Moved) else item)
    sources = [value.name for value in read]
    steps: tuple[Steps, ...] = ((),) * len(outputs)
    if isinstance(result, MovedBack):
        operator, steps = result.operator, result.steps
    else:
        operator = result
    if isinstance(operator, Move):
        parts = map(operator.part, range(len(names))) if call.returns_several else (operator,)
        nodes += [Node(part, list(sources), [name]) for part, name in zip(parts, names, strict=True)]
        return nodes, between
    node = Node(operator, sources, names, parameters)
    shapes = [output.shape for output in outputs]
    if any(steps):
        shapes = _shapes(node, read, call)
    if not operator.elementwise:
        for shape in [value.shape for value in read]:
            _check_rank(shape, "input")
        for shape in shapes:
            _check_rank(shape, "result", "keepdim" in call.arguments)
    nodes.append(node)
    for index, (shape, output, back) in enumerate(zip(shapes, outputs, steps, strict=True)):
        if back:
            assert tuple(Move(back).numbers(shape).shape) == output.shape, f"{back} of {shape}"
            between.append(replace(output, shape=shape))
            output.name = new_name(f"{output.name}_moved", taken)
            nodes.append(Node(Move(back), [names[index]], [output.name]))
    return nodes, between


def _shapes(node: Node, read: Sequence[Value], call: Call) -> list[Shape]:
    """The shapes of a node's outputs, from its float run without numbers."""
    parameters = {
        role: call.tensors[name].to("meta", torch.float32) for role, name in node.parameters.items()
    }
    samples = [torch.empty(2, *value.shape, device="meta") for value in read]
    return [tuple(result.shape[1:]) for result in Layer(node.operator, samples, parameters).float_run()]


def _check_rank(shape: Shape, role: str, keepdim: bool = False) -> None:
    """Refuses a value of a rank that the device does not support; values next to moves may have any rank.

    Args:
        role: its role in the call, "input" or "result".
        keepdim: whether the call could keep the dimension.
    """
    rank = len(shape)
    if not 1 <= rank <= LARGEST_RANK:
        raise UnsupportedNodeError(
            f"its {role} has {rank} dimensions besides the batch; expected 1 to {LARGEST_RANK}",
            ""
            if rank
            else "keep the dimension (keepdim=True)"
            if keepdim
            else "keep a dimension of length 1",
        )
