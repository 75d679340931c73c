"""A picture of memory over time as SVG: steps from left to right, bytes upwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

#: Size of the picture's plane, and of the margins for its axes, in pixels.
_WIDTH, _HEIGHT, _LEFT, _BELOW, _ABOVE = 900, 320, 80, 26, 10
#: Lines across the plane.
_TICKS = 4
#: Pixels of a rectangle from which on its name is written into it.
_NAMED = (70, 14)


@dataclass(frozen=True)
class Span:
    """Bytes `start` to `end` - 1, from step `first` to step `last`."""

    name: str
    #: A class of the page's style.
    kind: str
    start: int
    end: int
    first: int
    last: int


def memory_svg(spans: Sequence[Span], steps: int, size: int) -> Markup:
    """Draws what is where.

    Args:
        steps: number of steps.
        size: bytes in all.

    >>> memory_svg([Span("x", "value", 0, 8, 0, 1)], 2, 16).count('class="span value"')
    1
    """
    size, steps = max(1, size), max(1, steps)

    def x(step: float) -> float:
        return round(_LEFT + _WIDTH * step / steps, 1)

    def y(byte: float) -> float:
        return round(_ABOVE + _HEIGHT * (1 - byte / size), 1)

    parts = []
    for tick in range(_TICKS + 1):
        byte = size * tick // _TICKS
        parts.append(
            Markup('<line class="tick" x1="{}" x2="{}" y1="{}" y2="{}"></line>').format(
                _LEFT, _LEFT + _WIDTH, y(byte), y(byte)
            )
            + Markup('<text class="axis" x="{}" y="{}" text-anchor="end">{}</text>').format(
                _LEFT - 8, y(byte) + 4, f"{byte:,} B"
            )
        )
    for span in spans:
        left, width = x(span.first), x(span.last + 1) - x(span.first)
        top, height = y(span.end), y(span.start) - y(span.end)
        title = f"{span.name} ({span.kind}): {span.end - span.start:,} B, layers {span.first} to {span.last}"
        name = Markup("")
        if width >= _NAMED[0] and height >= _NAMED[1]:
            fitting = int(width / 7)
            name = Markup('<text x="{}" y="{}">{}</text>').format(
                left + 4, top + height / 2 + 4, span.name[:fitting]
            )
        parts.append(
            Markup(
                '<g class="span {}"><title>{}</title><rect x="{}" y="{}" width="{}" height="{}"></rect>{}</g>'
            ).format(span.kind, title, left, top, round(width, 1), round(height, 1), name)
        )
    for step in range(0, steps, max(1, steps // 20)):
        parts.append(
            Markup('<text class="axis" x="{}" y="{}" text-anchor="middle">{}</text>').format(
                x(step + 0.5), _ABOVE + _HEIGHT + 18, step
            )
        )
    return Markup(
        '<svg class="memory" role="img" aria-label="arena over the layers" viewBox="0 0 {} {}">{}</svg>'
    ).format(_LEFT + _WIDTH + 10, _ABOVE + _HEIGHT + _BELOW, Markup("").join(parts))
