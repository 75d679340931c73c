"""The report of a model: one page with its graph, memory, layers, accuracy, and its part of each chip."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from .. import _native
from ..chips import chips
from ..comparison.report import Comparison
from ..errors import ChipError, ConnectionFailed, InputError
from ..evaluation.evaluation import Evaluation
from ..fits.chip_fit import ChipFit
from ..page.graph_picture import Box, graph_svg
from ..page.memory_picture import Span, memory_svg
from ..page.page import Bar, Figure, Page, Section, render
from ..tables import Table
from .memory_map import MemoryMap
from .profile import Profile
from .summary import Summary

if TYPE_CHECKING:
    from .nano_module import NanoModule

#: The classes of the memory map's colours.
_LEGEND = {
    "value": "values between layers",
    "state": "states, kept from run to run",
    "scratch": "scratch memory of a layer",
    "weights": "copies of weights",
}
#: Classes up to which the confusion matrix is shown.
_MATRIX = 40
#: Worst samples that are listed.
_WORST = 10


def report(
    nano: NanoModule,
    image: _native.Model,
    evaluation: Evaluation | None,
    comparison: Comparison | None,
    chip: str,
) -> str:
    """The page as HTML; see :meth:`torch_nano.NanoModule.report`.

    Args:
        image: of the model.

    Raises:
        ChipError: there is no such chip.
        InputError: nano-core on this machine does not agree with plain torch.
    """
    summary = nano.summary()
    profile, unknown = _profile(nano, chip)
    sections = [
        *_accuracy(evaluation),
        _graph(nano, image),
        _memory(nano.memory_map()),
        _layers(summary, profile, comparison, unknown),
        *_comparison(comparison),
        _chips(nano, profile),
        _versions(nano),
    ]
    kind = "nothing learns on the device" if nano.head is None else f"learns on the device: {nano.head!r}"
    return render(Page(nano.name, kind, list(_figures(summary, evaluation, profile)), sections))


def _profile(nano: NanoModule, chip: str) -> tuple[Profile | None, str]:
    """The profile, or the reason why there is none."""
    if chip not in chips():
        raise ChipError(f"there is no chip {chip!r}; the chips are {', '.join(chips())}")
    try:
        return nano.profile(chip), ""
    except (ChipError, ConnectionFailed) as error:
        return None, str(error)


def _figures(summary: Summary, evaluation: Evaluation | None, profile: Profile | None) -> Iterator[Figure]:
    if evaluation is not None:
        of_float = evaluation.float_accuracy
        beside = "" if of_float is None else f", {of_float:.1%} in float"
        yield Figure(
            "accuracy in int8", f"{evaluation.accuracy:.1%}", f"{evaluation.samples} samples{beside}"
        )
    yield Figure("flash", f"{summary.flash_bytes / 1000:.1f} kB", "the image, without the program")
    head = f"and {summary.head_bytes:,} B of head" if summary.head_bytes else "for one run"
    yield Figure("RAM", f"{summary.arena_bytes / 1000:.1f} kB", f"arena, {head}")
    yield Figure("multiplications", f"{summary.macs:,}", "of one prediction")
    if profile is not None:
        milliseconds = profile.milliseconds(profile.total)
        yield Figure("time", f"{milliseconds:.2f} ms", f"{profile.chip.title}, by a model of its cycles")


def _accuracy(evaluation: Evaluation | None) -> Iterator[Section]:
    if evaluation is None:
        return
    classes, *_ = evaluation.tables()
    shown = len(evaluation.labels) <= _MATRIX
    matrix = (evaluation.labels, evaluation.confusion.tolist()) if shown else None
    yield Section("Accuracy", tables=[classes, *evaluation.tables(_WORST)[2:]], matrix=matrix)


def _graph(nano: NanoModule, image: _native.Model) -> Section:
    rows = nano.summary().layers
    makers: dict[int, int] = {}
    boxes: list[Box] = []
    for name, index in zip(image.input_names, image.inputs, strict=True):
        makers[index] = len(boxes)
        boxes.append(Box(name, _value(image.values[index]), kind="input"))
    for layer, row in zip(image.layers, rows, strict=False):
        lines = [row.kernel, *(line for output in layer["outputs"] for line in _value(image.values[output]))]
        reads = list(dict.fromkeys(makers[index] for index in layer["inputs"]))
        makers |= dict.fromkeys(layer["outputs"], len(boxes))
        boxes.append(Box(row.module_path or row.operator, lines, reads))
    last = list(dict.fromkeys(makers[index] for index in image.outputs))
    if nano.head is not None:
        title = f"{nano.head_path or 'head'} (learns)"
        boxes.append(Box(title, [type(nano.head).__name__, f"{nano.head.classes} classes"], last, "head"))
    else:
        names = ", ".join(nano.output_quantizations)
        boxes.append(Box(names, [], last, "output"))
    text = "Layers of the image, with their kernels and the shapes, dtypes and scales of their outputs."
    return Section("Graph", text, graph_svg(boxes))


def _value(value: _native.ValueEntry) -> list[str]:
    """Shape and dtype of a value, and its quantization."""
    height, width, channels = value["shape"]
    shape = f"{width} x {channels}" if height == 1 else f"{height} x {width} x {channels}"
    shape = str(channels) if height == width == 1 else shape
    scale = f"scale {value['scale']:.4g}, zero point {value['zero_point']}"
    return [f"{shape} {value['dtype']}", scale]


def _memory(memory: MemoryMap) -> Section:
    spans = [
        Span(block.name, block.kind, block.start, block.end, block.first, block.last)
        for block in memory.blocks
    ]
    kinds = {block.kind for block in memory.blocks}
    legend = [(kind, meaning) for kind, meaning in _LEGEND.items() if kind in kinds]
    picture = memory_svg(spans, len(memory.layers), memory.size) if spans else None
    return Section("Memory", f"{memory}. Layers from left to right.", picture, legend=legend)


def _layers(
    summary: Summary, profile: Profile | None, comparison: Comparison | None, unknown: str
) -> Section:
    errors = {} if comparison is None else {layer.module_path: layer for layer in comparison.layers}
    headers = ["", "kernel", "module", "output", "MACs", "weights (B)", "arena (B)"]
    headers += ["cycles", "ms", "waits (%)"] if profile is not None else []
    headers += ["SQNR (dB)", "own (dB)"] if errors else []
    numbers = [0, *range(4, len(headers))]
    notes = [profile.total_time] if profile is not None else [f"time unknown: {unknown}"]
    table = Table(headers, numbers=numbers, notes=notes)
    for index, layer in enumerate(summary.layers):
        cells = [str(index), layer.kernel, layer.module_path, " x ".join(map(str, layer.output_shape))]
        cells += [f"{n:,}" for n in (layer.macs, layer.weight_bytes, layer.arena_bytes)]
        if profile is not None:
            counts = profile.layers[index].counts
            waits = 100 * counts.flash_cycles / counts.cycles if counts.cycles else 0
            cells += [*profile.time(counts), f"{waits:.0f}"]
        error = errors.get(layer.module_path.split(" + ")[-1])
        if error is not None:
            cells += [_decibels(error.sqnr), _decibels(error.own_sqnr)]
        table.add(*cells)
    bars = []
    if profile is not None and profile.total.cycles:
        total = profile.total.cycles
        longest = sorted(profile.layers, key=lambda layer: -layer.counts.cycles)[:8]
        each = [
            Bar(layer.module_path or layer.operator, layer.counts.cycles / total, layer.kernel)
            for layer in longest
        ]
        bars = [("share of the time", each)]
    return Section("Layers", tables=[table], bars=bars)


def _decibels(sqnr: float) -> str:
    return "exact" if sqnr == float("inf") else f"{sqnr:.1f}"


def _comparison(comparison: Comparison | None) -> Iterator[Section]:
    if comparison is not None:
        text = "What each layer loses in int8, those that lose most by themselves first."
        yield Section("Error in int8", text, tables=[comparison.table])


def _chips(nano: NanoModule, profile: Profile | None) -> Section:
    bars = []
    for chip in chips().values():
        fit = nano.fits_without_time(chip)
        uses = [Bar(use.name, use.share, str(use).partition("%  ")[2]) for use in fit.uses]
        bars.append((_verdict(fit), uses))
    text = "What it takes of each chip with the firmware that answers a PC; nothing is measured on a chip."
    return Section("Chips", text, bars=bars)


def _verdict(fit: ChipFit) -> str:
    built = "" if fit.chip.builds else " (the firmware is not built for it)"
    return f"{fit.chip.title}: {'fits' if fit else 'does not fit'}{built}"


def _versions(nano: NanoModule) -> Section:
    verified = nano.verify("host")
    if not verified:
        raise InputError(f"nano-core on this machine does not compute what plain torch does: {verified}")
    table = Table(("", ""))
    for name, value in (
        ("model id", f"{nano.id:08x}"),
        ("torch-nano", _native.__version__),
        ("torch", torch.__version__),
        ("python", platform.python_version()),
        ("kernels chosen for", nano.optimization.optimize),
        ("verified", str(verified)),
    ):
        table.add(name, value)
    return Section("Versions", tables=[table])
