"""What is where in the arena while each layer runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from .. import _native
from ..drawing import axes_to_draw_in, name_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Kind = Literal["value", "state", "scratch", "weights"]


@dataclass(frozen=True)
class Block:
    """Bytes of the arena that hold one thing from one layer to another."""

    #: Of a value the layer that writes it, or "input NAME"; of scratch memory the layer that uses it.
    name: str
    #: "value"; "state", which lives from run to run; "scratch" memory; or copies of "weights".
    kind: Kind
    #: The bytes from `start` to `end` - 1. A value whose pixels stand apart does not fill them.
    start: int
    end: int
    #: The first and the last layer during which it is in use.
    first: int
    last: int


@dataclass(frozen=True, repr=False)
class MemoryMap:
    """The arena over the time of one run; :meth:`plot` draws it."""

    name: str
    #: The layers, in order.
    layers: tuple[str, ...]
    #: Bytes of the arena in use while each layer runs; shared bytes count once.
    in_use: tuple[int, ...]
    blocks: tuple[Block, ...]
    #: Bytes of the arena.
    size: int

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draws what is where: layers from left to right, bytes of the arena upwards.

        Args:
            ax: where to draw; a new figure if None.

        Raises:
            MissingPackageError: matplotlib is not installed.
        """
        ax = axes_to_draw_in(ax, names=len(self.layers))
        colors = {"value": "C0", "state": "C2", "scratch": "C1", "weights": "C7"}
        told: set[str] = set()
        for block in self.blocks:
            ax.bar(
                (block.first + block.last) / 2,
                block.end - block.start,
                width=block.last - block.first + 1,
                bottom=block.start,
                color=colors[block.kind],
                edgecolor="white",
                alpha=0.8,
                label=None if block.kind in told else block.kind,
            )
            told.add(block.kind)
        name_ticks(ax, self.layers)
        ax.set(ylabel="bytes", title=f"{self.name}: arena of {self.size:,} B")
        ax.legend()
        return ax

    def __str__(self) -> str:
        peak = max(range(len(self.in_use)), key=self.in_use.__getitem__, default=None)
        if peak is None:
            return f"{self.name}: no layers"
        return (
            f"{self.name}: arena of {self.size:,} B, {len(self.blocks)} blocks; most in use, "
            f"{self.in_use[peak]:,} B, in layer {peak}, {self.layers[peak]}"
        )

    __repr__ = __str__


def memory_map(model: _native.Model, name: str, layers: Sequence[str]) -> MemoryMap:
    """The arena of an image.

    Args:
        name: of the model.
        layers: the names of the image's layers.
    """
    lives, made = lifetimes(model), _makers(model)
    inputs = dict(zip(model.inputs, model.input_names, strict=True))
    last_layer = max(0, len(layers) - 1)
    blocks = []
    for index, (first, last) in lives.items():
        value = model.values[index]
        height, width, channels = value["shape"]
        size = np.dtype(value["dtype"]).itemsize
        length = (value["pitch"] * (height * width - 1) + channels) * size
        title = f"input {inputs[index]}" if index in inputs else layers[made[index]]
        kind: Kind = "state" if value["state"] else "value"
        span = (0, last_layer) if value["state"] else (first, min(last, last_layer))
        blocks.append(Block(title, kind, value["offset"], value["offset"] + length, *span))
    for index, layer in enumerate(model.layers):
        if layer["scratch_bytes"]:
            start = layer["scratch_offset"]
            blocks.append(
                Block(layers[index], "scratch", start, start + layer["scratch_bytes"], index, index)
            )
    if model.constants_in_ram:
        start = model.arena_length - model.constants_in_ram
        blocks.append(Block("copies of weights", "weights", start, model.arena_length, 0, last_layer))
    return MemoryMap(name, tuple(layers), tuple(arena_in_use(model)), tuple(blocks), model.arena_length)


def lifetimes(model: _native.Model) -> dict[int, tuple[int, int]]:
    """For each value the first and the last layer during which it is in use; one more than the last layer for
    outputs.
    """
    made = dict.fromkeys(model.inputs, 0) | _makers(model)
    last = dict(made)
    for index, layer in enumerate(model.layers):
        last.update(dict.fromkeys(layer["inputs"], index))
    last.update(dict.fromkeys(model.outputs, len(model.layers)))
    return {value: (made[value], last[value]) for value in made}


def arena_in_use(model: _native.Model) -> list[int]:
    """Bytes of the arena in use while each layer runs; shared bytes count once."""
    places = [_bytes_of(value) for value in model.values]
    lives = lifetimes(model)
    in_use = []
    for index, layer in enumerate(model.layers):
        used = np.zeros(model.arena_length, bool)
        for value, (first, last) in lives.items():
            if first <= index <= last:
                used[places[value]] = True
        in_use.append(layer["scratch_bytes"] + int(used.sum()))
    return in_use


def _makers(model: _native.Model) -> dict[int, int]:
    """The layer that writes each value."""
    return {output: index for index, layer in enumerate(model.layers) for output in layer["outputs"]}


def _bytes_of(value: _native.ValueEntry) -> NDArray[np.intp]:
    """The offsets in the arena of a value's bytes."""
    height, width, channels = value["shape"]
    size = np.dtype(value["dtype"]).itemsize
    pixels = value["offset"] + value["pitch"] * size * np.arange(height * width)
    return np.add.outer(pixels, np.arange(channels * size)).ravel()
