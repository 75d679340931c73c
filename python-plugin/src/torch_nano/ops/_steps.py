"""ATen calls that only move data, as text; they run on tensors, and on element indices to find their map."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import torch
from torch import Tensor

from ..arithmetic.layout import Shape

aten = torch.ops.aten

#: Calls that only change the shape; as a step, each is ``reshape(sides of a sample)``.
RESHAPES = (
    aten.flatten.using_ints,
    aten.ravel.default,
    aten.reshape.default,
    aten.reshape_as.default,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.unflatten.int,
    aten.unsqueeze.default,
    aten.view.default,
    aten.view_as.default,
)
#: Calls that repeat a tensor along dimensions of size 1 to the result's shape; as a step, each is ``expand``.
EXPANSIONS = (aten.broadcast_to.default, aten.expand.default, aten.expand_as.default)
#: Calls that change the order of dimensions.
PERMUTATIONS = (
    aten.mT.default,
    aten.moveaxis.int,
    aten.moveaxis.intlist,
    aten.movedim.int,
    aten.movedim.intlist,
    aten.permute.default,
    aten.swapaxes.default,
    aten.swapdims.default,
    aten.transpose.int,
)
#: All other calls. Running them shows what they move, so a new call needs only a line here.
CALLS = (
    *PERMUTATIONS,
    aten._upsample_nearest_exact1d.vec,
    aten._upsample_nearest_exact2d.vec,
    aten.channel_shuffle.default,
    aten.chunk.default,
    aten.constant_pad_nd.default,
    aten.diagonal.default,
    aten.flip.default,
    aten.fliplr.default,
    aten.flipud.default,
    aten.im2col.default,
    aten.index.Tensor,
    aten.index_select.default,
    aten.mH.default,
    aten.narrow.default,
    aten.pad.default,
    aten.pixel_shuffle.default,
    aten.pixel_unshuffle.default,
    aten.reflection_pad1d.default,
    aten.reflection_pad2d.default,
    aten.repeat.default,
    aten.repeat_interleave.self_int,
    aten.replication_pad1d.default,
    aten.replication_pad2d.default,
    aten.roll.default,
    aten.rot90.default,
    aten.select.int,
    aten.slice.Tensor,
    aten.split.Tensor,
    aten.split.sizes,
    aten.split_with_sizes.default,
    aten.tensor_split.indices,
    aten.tensor_split.sections,
    aten.tile.default,
    aten.unbind.int,
    aten.unfold.default,
    aten.upsample_nearest1d.vec,
    aten.upsample_nearest2d.vec,
)
#: The largest number of elements of a sample, as each is traced: more than a device has memory for.
LARGEST = 1 << 22
#: Batch size of the run that shows whether a step mixes samples. float32 represents all its element numbers.
_SAMPLES = 3


def name_of(target: torch._ops.OpOverload[..., Any]) -> str:
    """The name of a call in steps.

    >>> name_of(aten.flip.default), name_of(aten.slice.Tensor)
    ('flip', 'slice.Tensor')
    """
    name = target._schema.name.removeprefix("aten::")
    return name if target._overloadname == "default" else f"{name}.{target._overloadname}"


_TARGETS = {name_of(target): target for target in CALLS}


@dataclass(frozen=True, eq=False)
class Step:
    """One parsed call, ready to run.

    >>> step("permute(dims=[0, 2, 1])").run(torch.zeros(1, 2, 3)).shape
    torch.Size([1, 3, 2])
    """

    #: None for a reshape or an expansion to `shape`.
    target: torch._ops.OpOverload[..., Any] | None
    arguments: dict[str, Any]
    shape: Shape = ()
    expands: bool = False
    #: Index of the result, for a call that returns several.
    part: int | None = None

    def run(self, x: Tensor) -> Tensor:
        """Runs the call on a tensor with batch."""
        if self.target is None:
            return x.expand(-1, *self.shape) if self.expands else x.reshape(x.shape[0], *self.shape)
        arguments = {name: _on(value, x.device) for name, value in self.arguments.items()}
        y: Any = self.target(x, **arguments)
        result: Tensor = y if self.part is None else y[self.part]
        return result


@lru_cache(maxsize=1024)
def step(text: str) -> Step:
    """Parses a call: ``flip(dims=[1])``, ``chunk(chunks=2, dim=1)[0]``, ``reshape(4, 3)``.

    Raises:
        ValueError: the text is not a call that moves data.
    """
    problem = ValueError(f"{text!r} is no call that moves data; expected one such as 'flip(dims=[1])'")
    try:
        tree = ast.parse(text, mode="eval").body
        part = None
        if isinstance(tree, ast.Subscript):
            part, tree = ast.literal_eval(tree.slice), tree.value
        if not isinstance(tree, ast.Call) or not isinstance(part, int | None):
            raise problem
        name = ast.unparse(tree.func)
        values = tuple(ast.literal_eval(argument) for argument in tree.args)
        arguments = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in tree.keywords}
    except (SyntaxError, ValueError) as error:
        raise problem from error
    if name in ("reshape", "expand"):
        if arguments or part is not None or not all(type(side) is int and side > 0 for side in values):
            raise problem
        return Step(None, {}, values, name == "expand")
    target = _TARGETS.get(name)
    if target is None or values:
        raise problem
    _, *further = target._schema.arguments
    known = {argument.name: str(argument.type) for argument in further}
    if not arguments.keys() <= known.keys():
        raise problem
    # Some arguments accept None but have no default in the schema.
    needed = {argument.name: None for argument in further if not argument.has_default_value()}
    given = {key: _as_argument(value, known[key]) for key, value in arguments.items()}
    return Step(target, needed | given, part=part)


def _as_argument(value: Any, kind: str) -> Any:
    """Converts a literal to the type of the call's argument: lists of indices to tensors."""
    if "Tensor" not in kind or value is None:
        return value
    if kind.startswith("List"):
        return [None if item is None else torch.tensor(item) for item in value]
    return torch.tensor(value)


def _on(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    return [_on(item, device) for item in value] if isinstance(value, list) else value


def run_steps(steps: Sequence[Step], x: Tensor) -> Tensor:
    """Runs calls in sequence on a tensor with batch."""
    for each in steps:
        x = each.run(x)
    return x


@lru_cache(maxsize=128)
def element_numbers(steps: tuple[str, ...], shape: Shape) -> Tensor:
    """The map of a sequence of steps: for each element of the result, its index in a sample of `shape`.

    Returns int64 of the result's shape, without batch; -1 for a zero. Indices count in torch's order, the
    last dimension fastest.

    >>> element_numbers(("flip(dims=[1])", "pad(pad=[1, 0])"), (3,))
    tensor([-1,  2,  1,  0])

    Raises:
        ValueError: a call does not accept the shape, mixes the samples of a batch, or returns samples without
            elements or with more than 2^22.
    """
    count = prod(shape)
    if count > LARGEST:
        raise ValueError(f"its input has shape {shape} per sample; expected 1 to 2^22 elements")
    # float32, so that upsampling rounds as in the model's float run. Counted from 1, as the calls pad with 0.
    numbers = torch.arange(1, _SAMPLES * count + 1, dtype=torch.float32).reshape(_SAMPLES, *shape)
    made = torch.empty_like(numbers, device="meta")
    for text in steps:
        try:
            made = step(text).run(made)
        except (RuntimeError, TypeError, IndexError, NotImplementedError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{text} does not take {tuple(made.shape[1:])} per sample: {reason}") from error
        if not made.dim() or made.shape[0] != _SAMPLES:
            raise ValueError("it mixes the samples of a batch")
        if not 0 < made.numel() <= _SAMPLES * LARGEST:
            raise ValueError(
                f"its result has shape {tuple(made.shape[1:])} per sample; expected 1 to 2^22 elements"
            )
    try:
        made = run_steps([step(text) for text in steps], numbers)
    except (RuntimeError, IndexError) as error:  # An index that the run without numbers does not check.
        raise ValueError(
            f"{', '.join(steps)} does not take {shape} per sample: {str(error).splitlines()[0]}"
        ) from error
    samples = made.to(torch.int64)
    first, *others = samples
    for index, other in enumerate(others, 1):
        expected = torch.where(first > 0, first + index * count, 0)
        if (
            int(first.max()) > count
            or not torch.equal(other, expected)
            or not torch.equal(samples.to(made.dtype), made)
        ):
            _refuse_padding(steps, numbers)
            raise ValueError("it mixes the samples of a batch")
    sources: Tensor = first - 1
    return sources


def _refuse_padding(steps: tuple[str, ...], numbers: Tensor) -> None:
    """Raises ValueError if the steps write numbers other than 0, which do not depend on the input."""
    calls = [step(text) for text in steps]
    made, other = run_steps(calls, numbers), run_steps(calls, numbers + 0.5)
    if len(written := made[(made == other) & (made != 0)]):
        raise ValueError(f"it pads with {float(written[0]):g}; nano-core pads with zeros")
