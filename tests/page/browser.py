"""Chromium without a screen: what a page looks like, and what it says on its console."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import image
from numpy.typing import NDArray

#: Written to the console once a page is laid out.
_MEASURED = (
    "<script>addEventListener('load', () => { const page = document.documentElement; "
    "console.log(`measured ${page.scrollWidth} of ${page.clientWidth}`); });</script>"
)


@dataclass(frozen=True)
class Look:
    """A page as it is shown."""

    #: Width of what it has, and of the window, in pixels.
    content: int
    window: int
    #: Other lines of the console: warnings and errors.
    console: list[str]
    #: [height, width, 3], 0 to 1.
    pixels: NDArray[np.float32]


def look(page: Path, folder: Path, *, width: int, height: int = 1200, dark: bool = False) -> Look:
    """Shows a page in a window, and keeps the picture in the folder."""
    picture = folder / f"{width}-{'dark' if dark else 'light'}.png"
    measured, window = folder / "measured.html", folder / "window.html"
    text = page.read_text()
    assert "</head>" in text
    measured.write_text(text.replace("</head>", f"{_MEASURED}</head>"))
    # Chromium's own window has 500 pixels at least.
    frame = f"<iframe src='measured.html' width='{width}' height='{height}' style='border:0'></iframe>"
    window.write_text(f"<!doctype html><body style='margin:0'>{frame}</body>")
    ended = subprocess.run(
        [
            *("chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
            *(f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr", "--v=0"),
            *(
                f"--window-size={max(500, width)},{height}",
                f"--blink-settings=preferredColorScheme={0 if dark else 1}",
            ),
            *(f"--screenshot={picture}", "--virtual-time-budget=5000", window.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0 and picture.is_file(), ended.stderr
    console = re.findall(r'CONSOLE[:(]\d+\)?\] "(.*?)", source', ended.stderr)
    sizes = [re.fullmatch(r"measured (\d+) of (\d+)", line) for line in console]
    (size,) = [match for match in sizes if match is not None]
    others = [line for line, match in zip(console, sizes, strict=True) if match is None]
    pixels = image.imread(picture)[:, :width, :3]
    return Look(int(size[1]), int(size[2]), others, pixels)
