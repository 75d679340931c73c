"""What :func:`torch_nano.to_nano` asks of a module that has a graph and ranges of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod

from ..arithmetic.quantization import Quantization
from ..calibration.ranges import Range
from ..ir.graph import Graph
from ..modules.models import QuantizedModule


class ModuleWithRanges(QuantizedModule, ABC):
    """A module that becomes an image as it is: it is not captured and needs no calibration."""

    #: The name of the class of the model that it was made from.
    model_name: str

    @abstractmethod
    def float_graph(self) -> Graph:
        """The graph with the parameters as they are now, on the CPU, and a quantization on every value.

        Raises:
            QuantizationError: a value has no range yet, or a layer computes in float.
        """

    @abstractmethod
    def chosen(self, one: Range) -> Quantization:
        """The quantization of a range as it is now.

        Raises:
            QuantizationError: none of its values has been seen yet.
        """
