"""What a comparison has found; it prints as a table and draws itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..drawing import axes_to_draw_in, name_ticks
from ..ir.value import Value
from ..tables import Table
from .advice import advice_for
from .sums import ErrorSums, OutputSums, ValueSums

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Rows of the printed table.
_ROWS = 24
#: Share of the numbers of :attr:`LayerComparison.central_levels`.
_CENTRAL = 0.999


@dataclass(frozen=True)
class LayerComparison:
    """One value of the network: a layer's output, or an input. SQNRs and the cosine are of its channels as
    equalization has scaled them."""

    #: Place in the order of execution, from 0; the inputs come first.
    position: int
    #: nano-core's operator, or "input".
    operator: str
    #: Dotted path of the module that computes it; "" for the model itself.
    module_path: str
    #: Name of the value in the graph.
    value: str
    #: Signal-to-quantization-noise ratio in dB of the int8 network's numbers against the float network's: the
    #: layer's own error and what it inherits. Infinite if they are equal.
    sqnr: float
    #: SQNR in dB of the layer alone: its inputs are the float network's numbers in int8, for the layer in
    #: float and in int8 alike; of an input, that of its quantization. Infinite for layers that are exact.
    own_sqnr: float
    #: Cosine of the angle between the numbers of both networks.
    cosine: float
    #: The largest absolute difference between both networks, in the units of the model's own value.
    largest_error: float
    #: Share, 0 to 1, of the float network's numbers that are more than one step outside of the int8 range.
    saturated: float
    #: For each channel the number of the 256 levels from its smallest to its largest integer; 0 for a
    #: channel that is constant in float.
    levels: tuple[int, ...]
    #: Whether its range was chosen for it, and is not that of another value or fixed.
    own_range: bool
    #: Whether that range was chosen for others too: the inputs of a concatenation.
    shares_range: bool
    #: The levels that the middle 99.9 % of all numbers take; 0 for other integers than int8.
    central_levels: int
    dtype: str
    #: The modules that must compute in int16 to keep the value in 16 bits: that of the layer and those of its
    #: readers. () if one has no such kernel.
    around: tuple[str, ...]
    #: SQNR in dB of the worst output of the float network in which this value alone is rounded, on a few
    #: samples; None where 16 bits would not help, or are less urgent than elsewhere.
    rounding_alone: float | None = None

    @staticmethod
    def of(
        position: int,
        value: Value,
        operator: str,
        own_range: bool,
        shares_range: bool,
        around: tuple[str, ...],
        sums: ValueSums,
        own: ErrorSums,
    ) -> LayerComparison:
        """The figures of a value from their sums."""
        return LayerComparison(
            position=position,
            operator=operator,
            module_path=value.module_path,
            value=value.name,
            sqnr=sums.error.sqnr,
            own_sqnr=own.sqnr,
            cosine=sums.error.cosine,
            largest_error=sums.error.largest,
            saturated=sums.saturated_share,
            levels=sums.levels,
            own_range=own_range,
            shares_range=shares_range,
            central_levels=sums.central_levels(_CENTRAL) if len(sums.counts) else 0,
            dtype=sums.quantization.dtype,
            around=around,
        )

    @property
    def title(self) -> str:
        """What to call it in a sentence: "layer 'features.0'", or "input 'x'"."""
        if self.operator == "input":
            return f"input {self.value!r}"
        return f"layer {self.module_path!r}" if self.module_path else f"the model's own {self.operator}"

    @property
    def fewest_levels(self) -> int | None:
        """The levels of the channel that uses fewest, constant ones left out; None if all are."""
        return min((levels for levels in self.levels if levels), default=None)


@dataclass(frozen=True)
class OutputComparison:
    """One output of the network, in float and in int8; of a model with a trainable head, the head's."""

    #: The key of a dict, otherwise "output", or "output0", "output1" and so on.
    name: str
    #: Of all samples together, in dB; infinite for indices, such as those of an argmax.
    sqnr: float
    #: The median of the samples' own SQNRs, in dB.
    median_sqnr: float
    cosine: float
    #: In the units of the output.
    largest_error: float
    #: Share, 0 to 1, of the samples (or pixels) whose largest class is the same in both; None for an output
    #: of one class.
    agreement: float | None
    #: Share of the labels that the float network finds; None without labels.
    float_accuracy: float | None
    #: Likewise in int8.
    int8_accuracy: float | None
    #: Whether it holds indices, such as those of an argmax, of which only the agreement counts.
    holds_indices: bool = False

    @property
    def least_sqnr(self) -> float:
        """The SQNR of all samples together or the median of their own, whichever is less: outliers have most
        of the signal in all samples, and cost the others most.
        """
        return min(self.sqnr, self.median_sqnr)

    @staticmethod
    def of(name: str, sums: OutputSums) -> OutputComparison:
        """The figures of an output from their sums."""
        return OutputComparison(
            name=name,
            sqnr=sums.error.sqnr,
            median_sqnr=sums.median_sqnr,
            cosine=sums.error.cosine,
            largest_error=sums.error.largest,
            agreement=sums.agreeing / sums.decisions if sums.decisions else None,
            float_accuracy=sums.right / sums.labels if sums.labels else None,
            int8_accuracy=sums.right_in_int8 / sums.labels if sums.labels else None,
            holds_indices=sums.holds_indices,
        )

    def __str__(self) -> str:
        parts = [f"SQNR {_decibels(self.sqnr)} dB, largest error {self.largest_error:.3g}"]
        if self.holds_indices:
            parts = []
        if self.agreement is not None:
            parts.append(f"same class in {self.agreement:.1%}")
        if self.float_accuracy is not None and self.int8_accuracy is not None:
            parts.append(f"accuracy {self.float_accuracy:.1%} in float, {self.int8_accuracy:.1%} in int8")
        return f"{self.name}: {', '.join(parts)}"


@dataclass(frozen=True)
class Comparison:
    """A network in float and in int8, compared on data; prints as a table with what to do."""

    #: Those that lose most by themselves first.
    layers: tuple[LayerComparison, ...]
    outputs: tuple[OutputComparison, ...]
    #: Samples compared.
    samples: int
    #: Of a model with a trainable head, the value that the head reads. The outputs are what the head has
    #: learnt, and may be far from those in float without any loss.
    features: str | None = None

    @property
    def least_sqnr(self) -> float:
        """What int8 keeps, in dB: the SQNR of the worst output; with a trainable head, of its features."""
        if self.features is None:
            return min(output.least_sqnr for output in self.outputs)
        return next(layer.sqnr for layer in self.layers if layer.value == self.features)

    @property
    def advice(self) -> list[str]:
        """What to do, the most important first; empty if int8 is close to float."""
        return advice_for(self)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draws the SQNR of each layer, alone and in the network, in order of execution.

        Layers without an error have no point. Where there is no room for all names, some are left out.

        Args:
            ax: where to draw; a new figure if None.

        Raises:
            MissingPackageError: matplotlib is not installed.
        """
        ax = axes_to_draw_in(ax, names=len(self.layers))
        layers = sorted(self.layers, key=lambda layer: layer.position)
        for label, figures in (
            ("the layer alone", [layer.own_sqnr for layer in layers]),
            ("with what it inherits", [layer.sqnr for layer in layers]),
        ):
            ax.plot(range(len(layers)), figures, marker="o", markersize=4, label=label)
        name_ticks(ax, [layer.module_path or layer.value for layer in layers])
        ax.margins(x=0.01)
        ax.grid(alpha=0.3)
        ax.set(ylabel="SQNR (dB)", title=f"int8 against float, {self.samples} samples")
        ax.legend()
        return ax

    @property
    def table(self) -> Table:
        """The table that is printed."""
        headers = (
            *("operator", "module", "own\n(dB)", "SQNR\n(dB)", "cosine", "largest\nerror"),
            *("saturated\n(%)", "fewest\nlevels"),
        )
        table = Table(headers, numbers=range(2, len(headers)), notes=self._notes)
        for layer in self.layers[:_ROWS]:
            fewest = layer.fewest_levels
            table.add(
                layer.operator,
                layer.module_path or layer.value,
                _decibels(layer.own_sqnr),
                _decibels(layer.sqnr),
                f"{layer.cosine:.4f}",
                f"{layer.largest_error:.3g}",
                f"{100 * layer.saturated:.2f}",
                "-" if fewest is None else str(fewest),
            )
        return table

    @property
    def _notes(self) -> list[str]:
        """The outputs, and the advice."""
        lines = []
        if len(self.layers) > _ROWS:
            lines.append(f"and {len(self.layers) - _ROWS} layers that lose less")
        lines.append(f"{self.samples} samples")
        if self.features is not None:
            lines.append(f"features of the trainable head: SQNR {_decibels(self.least_sqnr)} dB")
        lines += [str(output) for output in self.outputs]
        return [*lines, *(f"- {line}" for line in self.advice)]

    def __str__(self) -> str:
        return str(self.table)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.table.html()


def _decibels(sqnr: float) -> str:
    """
    >>> _decibels(31.26), _decibels(float("inf"))
    ('31.3', 'exact')
    """
    return "exact" if sqnr == float("inf") else f"{sqnr:.1f}"
