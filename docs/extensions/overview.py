"""Draws the README's picture, docs/static/overview.svg, with the figures of the zoo's watch:

.venv/bin/python docs/extensions/overview.py
"""

from __future__ import annotations

from pathlib import Path

import torch_nano as tn

FILE = Path(__file__).parents[1] / "static/overview.svg"
WIDTH, HEIGHT = 840, 250
# Colours of text, lines and boxes on light and on dark pages.
STYLE = """
text { font: 14px system-ui, sans-serif; fill: #1f2328; }
.small { font-size: 12px; fill: #57606a; }
.strong { font-weight: 600; }
.box { fill: #f6f8fa; stroke: #8c959f; }
.head { fill: #fff1d6; stroke: #bf8700; }
.line { stroke: #57606a; stroke-width: 1.5; fill: none; marker-end: url(#arrow); }
.tip { fill: #57606a; }
.before { fill: #8c959f; }
.after { fill: #1a7f37; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .small { fill: #9198a1; }
  .box { fill: #161b22; stroke: #6e7681; }
  .head { fill: #3b2e12; stroke: #d29922; }
  .line { stroke: #9198a1; }
  .tip { fill: #9198a1; }
  .after { fill: #3fb950; }
}
"""


def box(x: int, y: int, width: int, height: int, lines: list[str], kind: str = "box") -> str:
    """A box with a title and smaller lines below it."""
    texts = [
        f'<text x="{x + 12}" y="{y + 19 + 18 * row}" class="{"small" if row else "strong"}">{line}</text>'
        for row, line in enumerate(lines)
    ]
    return f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" class="{kind}"/>' + "".join(texts)


def arrow(points: str) -> str:
    return f'<path d="{points}" class="line"/>'


def draw() -> str:
    """The picture, as SVG."""
    card = tn.zoo.card("watch")
    before, after = card.accuracy_before, card.accuracy_personal
    time = f"{card.milliseconds['esp32c3']:.1f} ms on an ESP32-C3, by a cycle model"
    kilobytes = f"{card.flash_bytes / 1000:.0f} KB of flash"
    ram = f"{(card.arena_bytes + card.head_bytes) / 1000:.0f} KB of RAM"
    parts = [
        box(
            10,
            20,
            190,
            96,
            ["PyTorch", "train the model as ever,", "freeze the backbone,", "tn.to_nano(model)"],
        ),
        arrow("M200 68 H250"),
        box(260, 18, 180, 46, ["backbone, int8", f"{kilobytes}"]),
        box(260, 72, 180, 46, ["head, trainable", f"{ram} in all"], "head"),
        arrow("M440 68 H500"),
        box(510, 20, 320, 96, ["PC, emulated rv32imc chip, ESP32", "one arithmetic, written once in Rust:"]),
        '<text x="522" y="75" class="small">0 bytes differ, and every export checks it</text>',
        f'<text x="522" y="93" class="small">{time}</text>',
        arrow("M670 116 V150"),
        box(260, 150, 570, 88, ["on the device, the head learns its user, in integers"], "head"),
        *bar(272, 182, before, "before", f"{before} % as shipped"),
        *bar(272, 208, after, "after", f"{after} % after learning a new wearer's movements"),
        arrow("M260 194 H105 V116"),
        '<text x="10" y="216" class="small">the PC can replay it,</text>',
        '<text x="10" y="233" class="small">bit for bit</text>',
    ]
    marker = (
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto-start-reverse"><path d="M0 0 L8 4 L0 8 z" class="tip"/></marker></defs>'
    )
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        'aria-label="From a PyTorch model to a chip whose head goes on learning">'
    )
    return "\n".join([opening, f"<style>{STYLE}</style>", marker, *parts, "</svg>"]) + "\n"


def bar(x: int, y: int, share: float, kind: str, text: str) -> list[str]:
    """A bar of a share in %, and what it says."""
    width = round(2 * share)
    return [
        f'<rect x="{x}" y="{y}" width="{width}" height="18" class="{kind}"/>',
        f'<text x="{x + width + 10}" y="{y + 14}">{text}</text>',
    ]


if __name__ == "__main__":
    FILE.write_text(draw())
