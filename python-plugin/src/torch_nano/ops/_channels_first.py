"""Steps that make a dimension of a tensor its channels, for operators that work on the channels of pixels."""

from __future__ import annotations

from math import prod

from ..arithmetic.layout import Shape
from ..ir.call import Call, Moved, MovedBack, Steps, UnsupportedNodeError
from ..ir.operator import Operator
from ..ir.value import Value

#: Dimensions of a sample of pixels: channels, height, width.
_PIXELS = 3


def channels_first(shape: Shape, dim: int) -> Steps:
    """Makes dimension `dim`, which counts the batch, the channels; more than two others are joined.

    >>> channels_first((7, 5), 1), channels_first((7, 5), 2)
    ((), ('movedim.int(source=2, destination=1)',))
    >>> channels_first((2, 3, 4, 5), 4)
    ('movedim.int(source=4, destination=1)', 'reshape(5, 24)')
    """
    steps = () if dim == 1 else (f"movedim.int(source={dim}, destination=1)",)
    if len(shape) <= _PIXELS:
        return steps
    return (*steps, f"reshape({shape[dim - 1]}, {prod(shape) // shape[dim - 1]})")


def channels_back(shape: Shape, dim: int) -> Steps:
    """Undoes :func:`channels_first` for a result of `shape`.

    >>> channels_back((2, 3, 4, 8), 4)
    ('reshape(8, 2, 3, 4)', 'movedim.int(source=1, destination=4)')
    """
    others = [side for place, side in enumerate(shape, 1) if place != dim]
    joined = (f"reshape({', '.join(map(str, [shape[dim - 1], *others]))})",) if len(shape) > _PIXELS else ()
    return joined if dim == 1 else (*joined, f"movedim.int(source=1, destination={dim})")


def over_channels(
    operator: Operator, call: Call
) -> tuple[Operator | MovedBack, list[Value | Moved], dict[str, str]]:
    """A call over one dimension ``dim`` of ``self`` that keeps its shape, as an operator over the channels.

    Raises:
        UnsupportedNodeError: the dimension is the batch.
    """
    value = call.input("self")
    dim = call.arguments["dim"] % (len(value.shape) + 1)
    if dim == 0:
        raise UnsupportedNodeError("it goes along the batch", "use another dimension")
    steps = channels_first(value.shape, dim)
    if not steps:
        return operator, [value], {}
    return MovedBack(operator, (channels_back(value.shape, dim),)), [Moved(value, steps)], {}
