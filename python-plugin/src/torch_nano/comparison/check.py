"""What `to_nano` says of the accuracy that it has lost."""

from __future__ import annotations

from ..calibration.batches import Batch
from ..calibration.quantize import QuantizedGraph
from ..errors import AccuracyWarning, warn
from ..ir.graph import Graph
from .measure import compare, compare_outputs
from .report import OutputComparison
from .rounding import worst_sqnr

#: dB of an output below which classes change: the noise has more than a sixth of the amplitude.
LEAST_SQNR = 15.0
#: Share of the indices of an output, such as those of an argmax, that must be equal.
LEAST_AGREEMENT = 0.9
#: Of all samples, at least so many, and at most so many, are kept.
_SHARE, _LEAST, _MOST = 8, 8, 256
#: Numbers that are kept at most, beyond the least samples.
_NUMBERS = 2**22
#: Samples on which layers are compared, which costs more than the outputs.
_COMPARED = 16
#: Layers that a warning names.
_NAMED = 3


class KeptSamples:
    """Evenly spread samples of data of any length, a sixteenth to an eighth of them, that fit into memory.

    >>> import torch
    >>> kept = KeptSamples()
    >>> for start in range(0, 400, 100):
    ...     kept.observe(Batch([torch.arange(start, start + 100.0)[:, None]], None))
    >>> [len(batch) for batch in kept.batches], kept.batches[0].inputs[0].flatten().tolist()[:4]
    ([7, 6, 6, 6], [0.0, 16.0, 32.0, 48.0])
    """

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        #: One sample is kept of this number.
        self._every = 1
        self._seen = 0

    def observe(self, batch: Batch) -> None:
        """Keeps some samples of a batch."""
        first = -self._seen % self._every
        self._seen += len(batch)
        self._keep([*self.batches, _picked(batch, first, self._every)])
        while self._count // 2 >= _LEAST and self._count > self._most:
            self._thin_out()

    def first(self, count: int) -> list[Batch]:
        """The first of the samples that are kept."""
        found: list[Batch] = []
        for batch in self.batches:
            missing = count - sum(map(len, found))
            found.append(Batch([x[:missing] for x in batch.inputs], None))
        return found

    @property
    def _count(self) -> int:
        return sum(map(len, self.batches))

    @property
    def _most(self) -> int:
        numbers = sum(x.numel() for batch in self.batches for x in batch.inputs)
        fitting = _NUMBERS * self._count // max(1, numbers)
        return max(_LEAST, min(_MOST, self._seen // _SHARE, fitting))

    def _thin_out(self) -> None:
        """Leaves out every other sample."""
        self._every *= 2
        thinner, place = [], 0
        for batch in self.batches:
            thinner.append(_picked(batch, place % 2, 2))
            place += len(batch)
        self._keep(thinner)

    def _keep(self, batches: list[Batch]) -> None:
        self.batches = [batch for batch in batches if len(batch)]


def warn_of_loss(graph: Graph, quantized: QuantizedGraph, kept: KeptSamples) -> None:
    """Warns if an output in int8 is far from that in float.

    Args:
        graph: in float, with the outputs of `quantized`.

    Warns:
        AccuracyWarning: naming the layers that lose most by themselves.
    """
    outputs = compare_outputs(graph, quantized, kept.batches)
    lost = _lost(min(outputs, key=lambda output: worst_sqnr([output]))) or next(
        filter(None, map(_lost, outputs)), ""
    )
    if not lost:
        return
    report = compare(graph, quantized, kept.first(_COMPARED))
    losing = ", ".join(f"{layer.title} ({layer.own_sqnr:.1f} dB)" for layer in report.layers[:_NAMED])
    advice = "".join(f"\n- {line}" for line in report.advice)
    warn(
        f"{lost}. Most is lost in {losing}. nano.compare(model, data) shows "
        "all layers, precision='auto' gives 16 bits to those that need them, tn.prepare_qat trains them "
        "through this arithmetic, check=False leaves this check out"
        f"{advice}",
        AccuracyWarning,
    )


def _lost(output: OutputComparison) -> str:
    """What is lost of an output, in words; "" if it is little."""
    if output.agreement is not None and output.holds_indices and output.agreement < LEAST_AGREEMENT:
        return f"int8 finds the same {output.name!r} in {output.agreement:.1%} of the calibration data"
    if worst_sqnr([output]) >= LEAST_SQNR:
        return ""
    return (
        f"int8 keeps {worst_sqnr([output]):.1f} dB (SQNR) of {output.name!r} on the calibration data; below "
        f"{LEAST_SQNR:.0f} dB predictions change"
    )


def _picked(batch: Batch, first: int, every: int) -> Batch:
    # Copies, so that the whole batch is freed.
    return Batch([x[first::every].clone() for x in batch.inputs], None)
