"""Pictures of graphs as SVG: boxes in rows, from top to bottom, with curves between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

#: Size of a box, of the gaps between boxes, and of the margin, in pixels.
_WIDTH, _LINE, _GAP, _MARGIN = 240, 16, 34, 12
#: Room on the right for curves that pass rows.
_BYPASS = 70
#: Characters of a line that fit into a box.
_FITTING = 34


@dataclass(frozen=True)
class Box:
    """A node of a graph."""

    title: str
    #: Further lines, such as shape and scale.
    lines: Sequence[str] = ()
    #: The boxes whose outputs it reads, each earlier than itself.
    reads: Sequence[int] = ()
    #: A class of the page's style: "input", "layer", "head" or "output".
    kind: str = "layer"

    @property
    def height(self) -> int:
        """In pixels."""
        return _LINE * (1 + len(self.lines)) + 14


def graph_svg(boxes: Sequence[Box]) -> Markup:
    """Draws a graph, each box in the row after the last of those that it reads.

    >>> svg = graph_svg([Box("x", kind="input"), Box("conv", ["3 x 8"], [0])])
    >>> svg.count("<rect"), svg.count("<path")
    (2, 1)
    """
    row_of: list[int] = []
    for box in boxes:
        row_of.append(max((row_of[index] + 1 for index in box.reads), default=0))
    rows = [[index for index, row in enumerate(row_of) if row == wanted] for wanted in range(max(row_of) + 1)]
    widest = max(map(len, rows))
    full = widest * (_WIDTH + _GAP) - _GAP + 2 * _MARGIN
    places: dict[int, tuple[float, float]] = {}
    top = float(_MARGIN)
    for row in rows:
        left = (full - len(row) * (_WIDTH + _GAP) + _GAP) / 2
        # Below the boxes that they read, in that order, so that curves cross less.
        row.sort(key=lambda index: _mean([places[read][0] for read in boxes[index].reads]))
        for index in row:
            places[index] = (left, top)
            left += _WIDTH + _GAP
        top += max(boxes[index].height for index in row) + _GAP
    parts, bypassed = [], False
    for index, box in enumerate(boxes):
        for read in box.reads:
            if row_of[index] == row_of[read] + 1:
                parts.append(_curve(places[read], boxes[read].height, places[index]))
            else:
                bypassed = True
                parts.append(_bypass(places[read], boxes[read].height, places[index], box.height))
    if bypassed:
        full += _BYPASS
    parts += [_box(box, *places[index]) for index, box in enumerate(boxes)]
    height = top - _GAP + _MARGIN
    return Markup(
        '<svg class="graph" role="img" aria-label="graph of the model" viewBox="0 0 {0} {1}" width="{0}" '
        'height="{1}">{2}</svg>'
    ).format(full, round(height), Markup("").join(parts))


def _box(box: Box, left: float, top: float) -> Markup:
    lines = [
        Markup('<text x="{}" y="{}" class="{}">{}</text>').format(
            left + 10, top + 20 + _LINE * index, "title" if index == 0 else "line", _short(line)
        )
        for index, line in enumerate([box.title, *box.lines])
    ]
    whole = "\n".join([box.title, *box.lines])
    return Markup('<g class="box {}"><title>{}</title>').format(box.kind, whole) + Markup(
        '<rect x="{}" y="{}" width="{}" height="{}" rx="6"></rect>{}</g>'
    ).format(left, top, _WIDTH, box.height, Markup("").join(lines))


def _curve(start: tuple[float, float], height: int, end: tuple[float, float]) -> Markup:
    x, y = start[0] + _WIDTH / 2, start[1] + height
    to_x, to_y = end[0] + _WIDTH / 2, end[1]
    middle = (y + to_y) / 2
    return Markup('<path d="M{0} {1} C{0} {2} {3} {2} {3} {4}"></path>').format(x, y, middle, to_x, to_y)


def _bypass(start: tuple[float, float], height: int, end: tuple[float, float], to_height: int) -> Markup:
    """A curve on the right of the rows between."""
    x, y, to_x, to_y = start[0] + _WIDTH, start[1] + height / 2, end[0] + _WIDTH, end[1] + to_height / 2
    right = max(x, to_x) + _BYPASS
    return Markup('<path d="M{0} {1} C{2} {1} {2} {4} {3} {4}"></path>').format(x, y, right, to_x, to_y)


def _short(line: str) -> str:
    return line if len(line) <= _FITTING else f"{line[: _FITTING - 1]}…"


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers) if numbers else 0.0
