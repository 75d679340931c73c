"""Lines of the user's code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

#: Folders of code that is not the user's.
_OTHERS = (Path(torch.__file__).parent, Path(__file__).parents[1])


def user_line(frames: Sequence[tuple[str, int]]) -> str:
    """ "file:line" of the last frame that is neither torch's nor this package's; "" if there is none."""
    for file, line in reversed(frames):
        path = Path(file)
        if not any(folder in path.parents for folder in _OTHERS):
            return f"{path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}:{line}"
    return ""
