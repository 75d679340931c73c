"""Axes of matplotlib, which is an optional dependency."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import TorchNanoError

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def axes_to_draw_in(ax: Axes | None) -> Axes:
    """The axes given, or those of a new figure.

    Raises:
        TorchNanoError: matplotlib is not installed.
    """
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise TorchNanoError("drawing needs matplotlib: pip install torch-nano[demo]") from error
    return pyplot.subplots(layout="constrained")[1] if ax is None else ax
