"""What a model costs on the device, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass

from ..arithmetic.layout import Shape
from ..tables import Table
from .layer_choice import LayerChoice
from .profile import Profile


@dataclass(frozen=True)
class LayerSummary:
    """One layer; the trainable head is the last."""

    operator: str
    #: Dotted path of the module in the original model; "a + b" for a layer that computes two.
    module_path: str
    #: torch's shape without batch.
    output_shape: Shape
    #: Of the output; of a trainable head, of its features.
    dtype: str
    #: Multiply-accumulates of one run.
    macs: int
    #: Bytes of weights, biases, scales and tables; for a head, of its state.
    weight_bytes: int
    #: Bytes of the arena in use while the layer runs: live values, the output, scratch memory.
    arena_bytes: int
    #: The kernel it is packed for.
    kernel: str
    #: Where its weights are: "flash"; "flash, RAM" if they are copied to RAM at start; "RAM" of a
    #: trainable head.
    memory: str


@dataclass(frozen=True)
class KernelChoice:
    """What a kernel is estimated to take for a layer."""

    kernel: str
    #: Whether the image uses it.
    chosen: bool
    instructions: int
    #: With waiting for flash.
    cycles: int
    constant_bytes: int
    scratch_bytes: int


@dataclass(frozen=True)
class Summary:
    """The layers and totals of a model; prints as a table."""

    name: str
    layers: tuple[LayerSummary, ...]
    #: Bytes of the whole image.
    flash_bytes: int
    #: Bytes of RAM for one run.
    arena_bytes: int
    #: Bytes of `arena_bytes` that are copies of weights.
    weights_in_ram: int
    #: Bytes of RAM for the trainable head's state; 0 without one.
    head_bytes: int
    #: Values whose channels are scaled, so that each uses the range of its integers.
    equalized: int
    #: The time on a chip; None if it was not asked for.
    profile: Profile | None = None
    #: For each layer of the image the kernels that could compute it; None if they were not asked for.
    kernels: tuple[tuple[KernelChoice, ...], ...] | None = None
    #: The chip whose cycles are estimated.
    estimated_chip: str = ""
    #: The last layers, if some of them were chosen to learn.
    choice: tuple[LayerChoice, ...] = ()

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one run, the head included."""
        return sum(layer.macs for layer in self.layers)

    @property
    def table(self) -> Table:
        """The table that is printed."""
        # In a model of int8 alone it would say nothing.
        has_dtypes = any(layer.dtype != "int8" for layer in self.layers)
        texts = ("kernel", "module", "output", *["dtype"] * has_dtypes)
        headers = (
            *(*texts, "MACs", "weights\n(B)", "arena\n(B)", "memory"),
            *(("cycles", "ms") if self.profile else ()),
            *(("estimated\ncycles", "flash\n(B)", "scratch\n(B)") if self.kernels else ()),
        )
        numbers = [index for index, name in enumerate(headers) if name not in (*texts, "memory")]
        table = Table(headers, self.name, numbers, self._notes)
        for index, layer in enumerate(self.layers):
            shape = " x ".join(map(str, layer.output_shape))
            own = [layer.kernel, layer.module_path, shape, *[layer.dtype] * has_dtypes]
            costs = [f"{n:,}" for n in (layer.macs, layer.weight_bytes, layer.arena_bytes)]
            time = [] if self.profile is None else self.profile.time(self.profile.layers[index].counts)
            # The trainable head is no layer of the image.
            kernels = self.kernels[index] if self.kernels and index < len(self.kernels) else ()
            chosen = [cell for one in kernels if one.chosen for cell in _estimate(one)]
            table.add(*own, *costs, layer.memory, *time, *chosen)
            blank = [""] * (len(own) + len(costs) + len(time))
            for one in kernels:
                if not one.chosen:
                    table.add(f"  or {one.kernel}", *blank, *_estimate(one))
        return table

    @property
    def _notes(self) -> list[str]:
        """The totals, and remarks."""
        copies = f" ({self.weights_in_ram:,} B copies of weights)" if self.weights_in_ram else ""
        notes = [
            f"{self.macs:,} MACs, flash {self.flash_bytes:,} B (the whole image), "
            f"RAM {self.arena_bytes:,} B arena{copies} + {self.head_bytes:,} B head"
        ]
        if self.profile is not None:
            notes.append(self.profile.total_time)
        if self.equalized:
            notes.append(f"values with equalized channels: {self.equalized}")
        if self.kernels:
            notes.append(f"kernels are chosen by estimated cycles of the {self.estimated_chip}")
        if not self.head_bytes:
            notes.append("no head: nothing learns on the device (tn.freeze the backbone, or name the head)")
        return notes

    @property
    def _tables(self) -> list[Table]:
        """The table of all layers, and that of the layers among which some were chosen to learn."""
        if not self.choice:
            return [self.table]
        headers = ("module", "parameters", "RAM (B)", "share of NTK", "learns")
        chosen = Table(headers, "What learns, within budget['training']", (1, 2, 3))
        for layer in self.choice:
            numbers = f"{layer.parameters:,}", f"{layer.ram_bytes:,}", f"{layer.share:.1%}"
            chosen.add(layer.module_path, *numbers, f"{'yes' if layer.learns else 'no'}: {layer.reason}")
        return [self.table, chosen]

    def __str__(self) -> str:
        return "\n".join(map(str, self._tables))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return "".join(table.html() for table in self._tables)


def _estimate(one: KernelChoice) -> list[str]:
    return [f"{number:,}" for number in (one.cycles, one.constant_bytes, one.scratch_bytes)]
