"""What `to_nano` says of the accuracy that it has lost."""

from __future__ import annotations

import torch

from ..calibration.batches import Batch, Batches
from ..calibration.quantize import QuantizedGraph
from ..errors import AccuracyWarning, warn
from ..ir.graph import Graph
from ..ir.lifetimes import all_numbers
from ..progress import progress_of
from .advice import LEAST_SQNR
from .measure import batches_to_compare, compare, compare_outputs
from .report import OutputComparison

#: Share of the indices of an output, such as those of an argmax, that must be equal.
LEAST_AGREEMENT = 0.9
#: One of so many samples is kept at most; at least so many samples, and at most so many.
_SHARE, _LEAST, _MOST = 16, 8, 256
#: Numbers that are kept at most, beyond the least samples.
_NUMBERS = 2**22
#: Samples on which layers are compared, which costs more than the outputs: at least so many, at most so many,
#: and in between as many as have so many numbers in all values.
_LEAST_COMPARED, _MOST_COMPARED, _NUMBERS_COMPARED = 2, 16, 2**18
#: Layers that a warning names.
_NAMED = 3


class KeptSamples:
    """Evenly spread samples of data of any length, a 32nd to a sixteenth of them, that fit into memory.

    Args:
        least: samples that are kept even if they are a greater share, if there are as many.

    >>> kept = KeptSamples()
    >>> for start in range(0, 400, 100):
    ...     kept.observe(Batch([torch.arange(start, start + 100.0)[:, None]], None))
    >>> [len(batch) for batch in kept.batches], kept.batches[0].inputs[0].flatten().tolist()[:4]
    ([4, 3, 3, 3], [0.0, 32.0, 64.0, 96.0])
    """

    def __init__(self, least: int = _LEAST) -> None:
        self.batches: list[Batch] = []
        self._least = least
        #: One sample is kept of this number.
        self._every = 1
        self._seen = 0

    def observe(self, batch: Batch) -> None:
        """Keeps some samples of a batch."""
        first = -self._seen % self._every
        self._seen += len(batch)
        self._keep([*self.batches, _picked(batch, first, self._every)])
        while self.count // 2 >= self._least and self.count > self._most:
            self._thin_out()

    def samples(self, graph: Graph, count: int | None = None) -> Batches:
        """The first of the samples that are kept, or all, in batches for a comparison of a graph."""
        inputs = zip(*(batch.inputs for batch in self.batches), strict=True)
        named = zip(graph.inputs, inputs, strict=True)
        return batches_to_compare(graph, {name: torch.cat(parts)[:count] for name, parts in named})

    @property
    def count(self) -> int:
        """The number of samples that are kept."""
        return sum(map(len, self.batches))

    @property
    def _most(self) -> int:
        numbers = sum(x.numel() for batch in self.batches for x in batch.inputs)
        fitting = _NUMBERS * self.count // max(1, numbers)
        return max(self._least, min(_MOST, self._seen // _SHARE, fitting))

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
    with progress_of("check", kept.count) as advance:
        outputs = compare_outputs(graph, quantized, kept.samples(graph), advance)
    lost = _lost(min(outputs, key=lambda output: output.least_sqnr)) or next(
        filter(None, map(_lost, outputs)), ""
    )
    if not lost:
        return
    compared = min(max(_NUMBERS_COMPARED // all_numbers(graph), _LEAST_COMPARED), _MOST_COMPARED)
    report = compare(graph, quantized, kept.samples(graph, compared))
    losing = ", ".join(f"{layer.title} ({layer.own_sqnr:.1f} dB)" for layer in report.layers[:_NAMED])
    advice = "".join(f"\n- {line}" for line in report.advice)
    warn(
        f"{lost}. The layers that lose most by themselves are {losing}. "
        "nano.compare(model, data) shows all, precision='auto' gives 16 bits to those that need them, "
        "tn.prepare_qat trains them through this arithmetic, check=False leaves this check out"
        f"{advice}",
        AccuracyWarning,
    )


def _lost(output: OutputComparison) -> str:
    """What is lost of an output, in words; "" if it is little."""
    if output.agreement is not None and output.holds_indices and output.agreement < LEAST_AGREEMENT:
        return f"int8 finds the same {output.name!r} in {output.agreement:.1%} of the calibration data"
    if output.least_sqnr >= LEAST_SQNR:
        return ""
    return (
        f"int8 keeps {output.least_sqnr:.1f} dB (SQNR) of {output.name!r} on the calibration data; below "
        f"{LEAST_SQNR:.0f} dB predictions change"
    )


def _picked(batch: Batch, first: int, every: int) -> Batch:
    # Copies, so that the whole batch is freed.
    return Batch([x[first::every].clone() for x in batch.inputs], None)
