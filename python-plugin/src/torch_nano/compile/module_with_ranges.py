"""The interface of modules with a graph and ranges of their own, for :func:`torch_nano.to_nano`."""

from __future__ import annotations

from abc import ABC, abstractmethod

from ..arithmetic.quantization import Quantization
from ..calibration.ranges import Range
from ..ir.graph import Graph
from ..modules.models import QuantizedModule


class ModuleWithRanges(QuantizedModule, ABC):
    """A module that is compiled directly: it is not captured and needs no calibration."""

    #: The name of the class of the model that it was made from.
    model_name: str

    @abstractmethod
    def float_graph(self) -> Graph:
        """The graph with the present parameters, on the CPU, and a quantization on every value.

        Raises:
            QuantizationError: a value has no range yet, or a layer computes in float.
        """

    @abstractmethod
    def chosen(self, one: Range) -> Quantization:
        """The present quantization of a range.

        Raises:
            QuantizationError: none of its values has been observed yet.
        """
