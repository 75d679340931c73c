"""What `to_nano` says of the accuracy that it has lost."""

from __future__ import annotations

from ..calibration.quantize import QuantizedGraph
from ..errors import AccuracyWarning, warn
from ..ir.graph import Graph
from ..ir.lifetimes import all_numbers
from ..progress import progress_of
from .advice import LEAST_SQNR
from .measure import compare, compare_outputs
from .report import OutputComparison
from .samples import KeptSamples

#: Share of the indices of an output, such as those of an argmax, that must be equal.
LEAST_AGREEMENT = 0.9
#: Samples on which layers are compared, which costs more than the outputs: at least so many, at most so many,
#: and in between as many as have so many numbers in all values.
_LEAST_COMPARED, _MOST_COMPARED, _NUMBERS_COMPARED = 2, 16, 2**18
#: Layers that a warning names.
_NAMED = 3


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
