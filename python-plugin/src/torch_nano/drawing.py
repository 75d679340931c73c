"""Axes of matplotlib, which is an optional dependency."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import MissingPackageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes


#: Size of the names on an axis in points, the height of their lines and the mean width of their characters
#: in inches.
_NAME_SIZE = 8
_LINE, _CHARACTER = 1.3 * _NAME_SIZE / 72, 0.65 * _NAME_SIZE / 72
#: Width of a figure in inches: matplotlib's default, and the widest that fits a screen.
_NARROWEST, _WIDEST = 6.4, 16.0
#: Share of a figure's width that its axes take before the layout, which widens them: 0.775.
_AXES = 0.77


def axes_to_draw_in(ax: Axes | None, names: int = 0) -> Axes:
    """The axes given, or those of a new figure.

    Args:
        names: number of names that the x axis of a new figure has room for, if the figure fits a screen.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise MissingPackageError("drawing needs matplotlib: pip install torch-nano[plot]") from error
    if ax is not None:
        return ax
    width = min(max(_NARROWEST, names * _LINE / _AXES), _WIDEST)
    axes: Axes = pyplot.subplots(figsize=(width, 4.8), layout="constrained")[1]
    return axes


def name_ticks(ax: Axes, names: Sequence[str]) -> None:
    """Writes names at 0, 1, 2 and so on of the x axis: upright if they are long, and every second, third and
    so on if there is no room for all.
    """
    width = ax.get_window_extent().width / ax.figure.dpi
    longest = (1 + max(map(len, names), default=0)) * _CHARACTER
    every = max(1, math.ceil(len(names) * _LINE / width))
    ax.set_xticks(
        range(0, len(names), every),
        names[::every],
        rotation=0 if longest * len(names) <= width else 90,
        fontsize=_NAME_SIZE,
    )


def draw_scatter(ax: Axes, samples: NDArray[Any], classes: NDArray[np.int64], names: Sequence[str]) -> None:
    """Draws samples in the plane of their two principal components, with a colour for each class.

    Args:
        samples: [N, features].
        classes: [N].
        names: of the classes.
    """
    centred = samples.astype(np.float64) - samples.mean(0)
    directions = np.linalg.svd(centred, full_matrices=False)[2][:2]
    # The singular vectors' signs are arbitrary: the largest component points up.
    largest = np.abs(directions).argmax(1)
    directions *= np.sign(directions[np.arange(len(directions)), largest])[:, None]
    points = centred @ directions.T
    variance = (points**2).sum(0) / max((centred**2).sum(), np.finfo(np.float64).tiny)
    for index, name in enumerate(names):
        own = points[classes == index]
        if len(own):
            ax.scatter(own[:, 0], own[:, -1], s=12, alpha=0.7, label=name)
    titles = [f"principal component {number}, {share:.0%}" for number, share in enumerate(variance, 1)]
    ax.set(xlabel=titles[0], ylabel=titles[-1])
    ax.legend()


#: Classes up to which a matrix has its numbers written into it.
_NUMBERED = 25


def draw_matrix(ax: Axes, matrix: NDArray[Any], names: Sequence[str]) -> None:
    """Draws a confusion matrix: the colour is the share of the row, the number that of the samples.

    Args:
        matrix: [classes, classes], a row for each right class.
        names: of the classes.
    """
    shares = matrix / np.maximum(1, matrix.sum(1, keepdims=True))
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    name_ticks(ax, names)
    ax.set_yticks(range(len(names)), names, fontsize=_NAME_SIZE)
    if len(names) <= _NUMBERED:
        for (row, column), count in np.ndenumerate(matrix):
            if count:
                color = "white" if shares[row, column] > 0.5 else "black"
                ax.text(column, row, str(count), ha="center", va="center", color=color, fontsize=_NAME_SIZE)
