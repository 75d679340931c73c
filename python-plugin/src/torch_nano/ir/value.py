"""A tensor of a graph."""

from __future__ import annotations

from dataclasses import dataclass

from ..arithmetic.layout import Shape
from ..arithmetic.quantization import Quantization


@dataclass(frozen=True)
class Dropout:
    """A dropout that follows a value in training; in evaluation it does nothing."""

    #: ATen's name: "dropout" for single numbers, "feature_dropout" for whole channels, "alpha_dropout".
    function: str
    probability: float
    #: Dotted path of the module whose training mode decides.
    module_path: str
    #: "file:line" of the user's own code.
    source: str
    #: Whether others also read the value without the dropout.
    bypassed: bool


@dataclass
class Value:
    """One tensor of a graph, float or quantized."""

    name: str
    shape: Shape
    quantization: Quantization | None = None
    #: Dotted path of the module that computes it; "" for the model itself.
    module_path: str = ""
    #: "file:line" of the user's code that computes it.
    source: str = ""
    dropouts: tuple[Dropout, ...] = ()
