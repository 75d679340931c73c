"""The time that a model takes on a chip, layer by layer, by the chip's cycle model."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .. import _native
from ..chips import Chip
from ..device.client import Device
from ..device.samples import Input
from ..device.transport.cycles import ZERO, Counts, chip_with_costs
from ..device.transport.qemu import QemuBoard
from ..drawing import axes_to_draw_in, name_ticks
from ..tables import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class LayerProfile:
    """What one layer takes."""

    operator: str
    #: Dotted path of the module in the original model; "a + b" for a layer that computes two.
    module_path: str
    #: The kernel it is packed for.
    kernel: str
    counts: Counts


@dataclass(frozen=True)
class Profile:
    """What one prediction takes on a chip, by a model of the chip's cycles; prints as a table.

    A chip with a cache is faster when it runs the same code again: `layers` are those of a prediction right
    after another one, `first` is the first prediction after the start.
    """

    name: str
    chip: Chip
    #: In order; the trainable head is the last.
    layers: tuple[LayerProfile, ...]
    #: All layers of the first prediction.
    first: Counts

    @property
    def total(self) -> Counts:
        """All layers."""
        return sum((layer.counts for layer in self.layers), ZERO)

    def milliseconds(self, counts: Counts) -> float:
        """The time of counts at the chip's clock."""
        return 1000 * counts.cycles / self.chip.clock

    def time(self, counts: Counts) -> list[str]:
        """Cycles and milliseconds of counts, as text."""
        return [f"{counts.cycles:,}", f"{self.milliseconds(counts):.2f}"]

    @property
    def total_time(self) -> str:
        """The time of a prediction, in a sentence that says that it is modelled."""
        cycles, milliseconds = self.time(self.total)
        return (
            f"{cycles} cycles, {milliseconds} ms on an {self.chip.title} at {self.chip.clock / 1e6:g} MHz, "
            "by a model of its cycles"
        )

    @property
    def table(self) -> Table:
        """The table that is printed."""
        headers = (
            *("kernel", "module", "instruc-\ntions", "cycles", "ms", "flash\nlines", "flash\nwait (%)"),
            *("load-use\nstalls", "taken\nbranches"),
        )
        assert self.chip.costs is not None, "a chip with known costs was profiled"
        notes = [self.total_time, textwrap.fill(f"costs: {self.chip.costs.source}", 100)]
        table = Table(headers, f"{self.name} on {self.chip.title}", range(2, len(headers)), notes)
        for layer in self.layers:
            table.add(layer.kernel, layer.module_path, *self._numbers(layer.counts))
        table.add_line()
        table.add("total", "", *self._numbers(self.total))
        table.add("first run", "", *self._numbers(self.first))
        return table

    def __str__(self) -> str:
        return str(self.table)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.table.html()

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draws the milliseconds of each layer in order, and the part of them that waits for flash.

        Args:
            ax: where to draw; a new figure if None.

        Raises:
            MissingPackageError: matplotlib is not installed.
        """
        ax = axes_to_draw_in(ax, names=len(self.layers))
        each = [self.milliseconds(layer.counts) for layer in self.layers]
        waits = [1000 * layer.counts.flash_cycles / self.chip.clock for layer in self.layers]
        ax.bar(range(len(each)), each, label="in all")
        ax.bar(range(len(each)), waits, label="waiting for flash")
        name_ticks(ax, [layer.module_path or layer.operator for layer in self.layers])
        total = f"{self.milliseconds(self.total):.2f} ms, by a model of its cycles"
        ax.set(ylabel="ms", title=f"{self.name} on {self.chip.title}\n{total}")
        ax.legend()
        return ax

    def _numbers(self, counts: Counts) -> list[str]:
        wait = 100 * counts.flash_cycles / counts.cycles if counts.cycles else 0
        return [
            f"{counts.instructions:,}",
            *self.time(counts),
            f"{counts.flash_lines:,}",
            f"{wait:.0f}",
            f"{counts.load_use_stalls:,}",
            f"{counts.taken_branches:,}",
        ]


def layer_counts(image: bytes, input: Input, chip: str) -> tuple[list[Counts], list[Counts]]:
    """What each layer of an image, and its head, takes on a chip by the chip's cycle model, in the order of
    :meth:`torch_nano.Device.profile`: in the first run after the start, and in a run right after another one.

    Args:
        input: one sample.

    Raises:
        ChipError: there is no such chip, or what its cycles cost is not known.
        BoardError: QEMU or the board's program is missing.
        CycleModelError: QEMU cannot load the cycle model.
        ConnectionLost: the board stops.
    """
    # A board without a chip counts nothing.
    with QemuBoard(image, chip=chip_with_costs(chip).name) as board:
        device = Device(board)

        def run() -> list[Counts]:
            board.restart_counts()
            ticks = device.profile(input)
            reads = board.counts()
            # The board reads its counter before and after each layer.
            counts = [end - start for start, end in zip(reads[::2], reads[1::2], strict=False)]
            assert [each.instructions for each in counts] == ticks, "the model counts what the board counts"
            return counts

        return run(), run()


def profile(
    model: _native.Model, name: str, described: Sequence[tuple[str, str, str]], input: Input, chip: str
) -> Profile:
    """Runs a model on the emulated board under the cycle model of a chip.

    Args:
        described: operator, module path and kernel of each layer and the head.
        input: one sample.

    Raises:
        ChipError, BoardError, CycleModelError, ConnectionLost: as :func:`layer_counts`.
    """
    first, later = layer_counts(model.image, input, chip)
    layers = [LayerProfile(*layer, counts) for layer, counts in zip(described, later, strict=True)]
    return Profile(name, chip_with_costs(chip), tuple(layers), sum(first, ZERO))
