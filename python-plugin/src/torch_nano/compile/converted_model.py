"""What a converted model is, apart from how it runs: image, inputs and outputs."""

from __future__ import annotations

from ..arguments import the_only
from ..arithmetic.layout import Layout, Shape
from ..arithmetic.quantization import ChannelScales, Quantization
from ..calibration.quantize import QuantizedGraph
from ..capture.passes.roots_of_squares import roots_of_squares
from ..ir.precision import LayerDtype, precision_of
from ..modules.models import QuantizedModule
from .optimization import Optimization
from .saved_model import SavedModel


class ConvertedModel(QuantizedModule):
    """The properties of a :class:`.NanoModule`."""

    def __init__(self, saved: SavedModel) -> None:
        super().__init__()
        self._model = saved.image
        self._graph = saved.graph
        self._optimization = saved.optimization
        # Looked up once: a call of a small model takes microseconds.
        graph = saved.graph.graph
        self._returned = graph.returned
        self._inputs = [graph.values[name] for name in graph.inputs]
        self._outputs = [graph.values[name] for name in graph.outputs]
        self._input_shapes = {value.name: value.user_shape for value in self._inputs}
        self._index_limits = {value.name: value.index_limit for value in self._inputs}
        self._input_quantizations, self._output_quantizations = (
            [graph.quantization(name) for name in names] for names in (graph.inputs, graph.outputs)
        )
        self._channels = [saved.graph.channels.get(name) for name in graph.inputs]

    @property
    def name(self) -> str:
        """The model's name."""
        return self._model.name

    @property
    def id(self) -> int:
        """The image's checksum, by which a device names the model it runs."""
        return self._model.id

    @property
    def labels(self) -> list[str]:
        """The names of the classes; may be empty."""
        return self._model.labels

    @property
    def image(self) -> bytes:
        """The `.nano` image: what the device runs."""
        return self._model.image

    @property
    def graph(self) -> QuantizedGraph:
        """The model in integers as plain data; it prints."""
        return self._graph

    @property
    def precision(self) -> dict[str, LayerDtype]:
        """The layers in 16 bits, as `precision` of :func:`to_nano` and :func:`prepare_qat` takes them; {} if
        all compute in int8.
        """
        return precision_of(self._graph.graph, roots_of_squares(self._graph.graph))

    @property
    def flash_bytes(self) -> int:
        """Bytes of the image."""
        return self._model.length

    @property
    def arena_bytes(self) -> int:
        """Bytes of RAM for one run."""
        return self._model.arena_length

    @property
    def weights_in_ram(self) -> int:
        """Bytes of weights and tables that the device copies to RAM at start, part of :attr:`arena_bytes`."""
        return self._model.constants_in_ram

    @property
    def optimization(self) -> Optimization:
        """How the layers' kernels were chosen: the goal, and the limits of flash and RAM, None for none."""
        return self._optimization

    @property
    def input_shapes(self) -> dict[str, Shape]:
        """Shape of one sample of each input, by the names of forward's arguments."""
        return dict(self._input_shapes)

    @property
    def input_layouts(self) -> dict[str, Layout]:
        """From the shape of each input to that of the device's value, by name, of the inputs that the device
        takes in another shape or order: those that the model first moves, x.transpose(1, 2).
        """
        return {value.name: value.layout for value in self._inputs if value.layout is not None}

    @property
    def input_quantizations(self) -> dict[str, Quantization]:
        """The network's quantization of each input, by name; of an input in :attr:`input_channels`, without
        the scales and offsets of its channels.
        """
        return dict(zip(self._input_shapes, self._input_quantizations, strict=True))

    @property
    def index_limits(self) -> dict[str, int | None]:
        """Of each input that holds indices, those of an embedding's rows, the number of rows: the indices are
        from 0 to this number - 1; None for an input of real numbers. By name.
        """
        return dict(self._index_limits)

    @property
    def input_channels(self) -> dict[str, ChannelScales]:
        """Scale and offset of each channel, by name, of the inputs that a batch norm or arithmetic with
        constants reads first: (x - mean) / std, x / 255. The device quantizes them with these.
        """
        return dict(self._graph.channels)

    @property
    def output_quantizations(self) -> dict[str, Quantization]:
        """The quantization of each output (with a trainable head: of its features), by the keys of a dict
        or the fields of a named tuple, otherwise by "output", or "output0", "output1" and so on; of nested
        outputs by "output1.0".
        """
        return dict(zip(self._returned.names, self._output_quantizations, strict=True))

    @property
    def input_shape(self) -> Shape:
        """Shape of one sample, for a model of one input.

        Raises:
            InputError: the model has several.
        """
        return the_only("input", self.input_shapes)

    @property
    def input_quantization(self) -> Quantization:
        """The quantization of the input, for a model of one input; see :attr:`input_quantizations`.

        Raises:
            InputError: the model has several.
        """
        return the_only("input", self.input_quantizations)

    @property
    def output_quantization(self) -> Quantization:
        """The quantization of the output (with a trainable head: of its features), for a model of one output.

        Raises:
            InputError: the model has several.
        """
        return the_only("output", self.output_quantizations)
