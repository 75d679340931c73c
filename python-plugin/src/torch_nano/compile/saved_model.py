"""The file format of a NanoModule: the quantized graph, its constants, and its head.

The image is not in the file: loading writes it again from the graph, so that graph and image cannot
contradict each other. The file has the image's id, to detect a version of nano-core that writes another one.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, get_args

import torch
from torch import Tensor

from .. import _native
from ..arguments import shown, whole_number
from ..arithmetic.layout import Layout
from ..arithmetic.quantization import ChannelScales, Quantization
from ..calibration.quantize import QuantizedGraph
from ..calibration.ranges import follows_rules
from ..capture.index_inputs import limit_indices
from ..chips import Chip, chips
from ..errors import FileFormatError, TorchNanoError
from ..files import archive
from ..files.reading import fields_of, refusing
from ..heads import LayersHead, head_of
from ..ir.encoding import operator_named
from ..ir.graph import Graph, Node
from ..ir.interface import Kind, Returned
from ..ir.value import Value
from ..ops.fully_connected import FullyConnected
from ..ops.move import Move
from .image import MOST_IN_RAM, write_image
from .layer_choice import LayerChoice
from .optimization import Optimization, optimization_of

_KIND, _VERSION = "model", 11
_FASTEST = Optimization()


@dataclass
class SavedHead:
    """A trainable head."""

    #: Paths of the modules it was made from.
    path: str
    #: The head's description for nano-core's writer: how it learns, and its initial weights.
    description: dict[str, Any]
    #: Its present state; b"": the image's.
    state: bytes = b""
    #: Of the last layers, of which some were chosen to learn: the fields of :class:`.LayerChoice` of each.
    choice: list[dict[str, Any]] = field(default_factory=list)

    @property
    def layer_choice(self) -> tuple[LayerChoice, ...]:
        """The layers of which some were chosen to learn; empty without a choice."""
        return tuple(fields_of(LayerChoice, layer, "a layer that may learn") for layer in self.choice)


@dataclass
class SavedModel:
    """The parts of a NanoModule."""

    image: _native.Model
    graph: QuantizedGraph
    head: SavedHead | None
    #: How the image's kernels were chosen.
    optimization: Optimization = _FASTEST


@dataclass
class _Contents:
    """The contents of a file."""

    id: int
    name: str
    labels: list[str]
    inputs: list[str]
    outputs: list[str]
    values: list[Any]
    nodes: list[Any]
    #: The scales of inputs' channels, by the inputs' names.
    channels: dict[str, Any]
    #: Whether each run is a step of a stream.
    streams: bool
    #: Bytes of layers' constants that are copied to RAM.
    weights_in_ram: int
    #: How kernels are chosen: the fields of :class:`.Optimization`.
    optimization: dict[str, Any]
    #: How the model returns its outputs: the fields of :class:`.Returned`.
    returns: dict[str, Any]
    head: dict[str, Any] | None


@dataclass
class _SavedNode:
    operator: str
    attributes: dict[str, Any]
    inputs: list[str]
    outputs: list[str]
    tensors: dict[str, Tensor]


@dataclass
class _SavedOptimization:
    optimize: str
    flash: int | None
    ram: int | None
    chip: str


@dataclass
class _SavedReturned:
    kind: str
    keys: tuple[str, ...]
    parts: tuple[Any, ...]


def pack(model: SavedModel) -> bytes:
    """Encodes a model as the bytes of a file."""
    graph, image = model.graph.graph, model.image
    contents = _Contents(
        id=image.id,
        name=image.name,
        labels=image.labels,
        inputs=graph.inputs,
        outputs=graph.outputs,
        values=[_without_dropouts(value) for value in graph.values.values()],
        nodes=[
            {
                **node.operator.encoded(),
                "inputs": node.inputs,
                "outputs": node.outputs,
                "tensors": model.graph.tensors[node.name],
            }
            for node in graph.nodes
        ],
        channels={
            name: {"scale": scales.scale, "offset": scales.offset}
            for name, scales in model.graph.channels.items()
        },
        streams=model.graph.streams,
        weights_in_ram=image.constants_in_ram,
        optimization=model.optimization.saved(),
        returns=asdict(graph.returned),
        head=None if model.head is None else vars(model.head),
    )
    return archive.pack(_KIND, _VERSION, vars(contents))


def unpack(content: bytes) -> SavedModel:
    """Decodes the bytes of :func:`pack`.

    Raises:
        FileFormatError: the bytes are not a saved model, are damaged, contradict themselves, or come from
            another version.
    """
    contents = fields_of(_Contents, archive.unpack(_KIND, _VERSION, content), "the model")
    try:
        with refusing(FileFormatError, "a model that contradicts itself"):
            graph = _graph(contents)
            head = None if contents.head is None else fields_of(SavedHead, contents.head, "the head")
            description = None if head is None else head.description
            in_ram = whole_number(
                "weights_in_ram", contents.weights_in_ram, most=MOST_IN_RAM, error=FileFormatError
            )
            saved = fields_of(_SavedOptimization, contents.optimization, "the choice of kernels")
            optimization = optimization_of(
                saved.optimize,
                {"flash": saved.flash, "ram": saved.ram},
                _modelled(saved.chip),
                error=FileFormatError,
            )
            image = write_image(graph, description, contents.name, contents.labels, in_ram, optimization)
            _check_runs(graph)
            _check_head(image, head)
    except FileFormatError:
        raise
    except TorchNanoError as error:
        raise FileFormatError(f"a model that contradicts itself: {error}") from error
    if image.id != contents.id:
        raise FileFormatError(
            f"a model of image {contents.id:08x}; of its layers this version writes {image.id:08x}: load it "
            "with the version that saved it, or convert it again"
        )
    return SavedModel(image, graph, head, optimization)


def _graph(contents: _Contents) -> QuantizedGraph:
    values = {value.name: value for value in map(_value, contents.values)}
    known = list(contents.inputs)
    nodes, tensors = [], {}
    for entry in contents.nodes:
        saved = fields_of(_SavedNode, entry, "a layer")
        place = f"the layer of {', '.join(map(repr, saved.outputs))}"
        try:
            operator = fields_of(operator_named(saved.operator), saved.attributes, place)
        except KeyError as error:
            raise FileFormatError(f"{place}: there is no operator {saved.operator!r}") from error
        if not saved.outputs:
            raise FileFormatError(f"a layer of {saved.operator!r} has no output")
        if not set(saved.inputs) <= set(known) or not set(saved.outputs).isdisjoint(known):
            raise FileFormatError(f"{place}: its inputs {saved.inputs} are not made before, or its output is")
        known += saved.outputs
        node = Node(operator, saved.inputs, saved.outputs)
        nodes.append(node)
        tensors[node.name] = saved.tensors
    if list(values) != known or len(contents.values) != len(known):
        raise FileFormatError(f"it has values {list(values)}; its inputs and layers make {known}")
    if not contents.inputs or not contents.outputs or not set(contents.outputs) <= set(values):
        raise FileFormatError(
            f"it has inputs {contents.inputs} and outputs {contents.outputs}; expected at least one each, of "
            "its values"
        )
    inside = [
        v.name for v in values.values() if v.layout and v.name not in {*contents.inputs, *contents.outputs}
    ]
    if inside:
        raise FileFormatError(f"the value {inside[0]!r} has a layout; expected it of inputs and outputs only")
    limited = [v.name for v in values.values() if v.index_limit is not None and v.name not in contents.inputs]
    if limited:
        raise FileFormatError(f"the value {limited[0]!r} has a limit of indices; expected it of inputs only")
    returned = _returned(contents.returns)
    if len(returned.names) != len(contents.outputs):
        raise FileFormatError(f"it returns {len(returned.names)} tensors, and has outputs {contents.outputs}")
    graph = Graph(contents.inputs, contents.outputs, values, nodes, {}, returned=returned)
    limits = {name: v.index_limit for name, v in values.items() if v.index_limit is not None}
    limit_indices(graph, limits)
    if any(values[name].index_limit != limit for name, limit in limits.items()):
        raise FileFormatError(f"it has limits of indices {limits}; its embeddings have other numbers of rows")
    for node in nodes:
        _check_node(graph, node, tensors[node.name])
    return QuantizedGraph(graph, tensors, _channels(contents, graph), contents.streams)


def _channels(contents: _Contents, graph: Graph) -> dict[str, ChannelScales]:
    """The scales of inputs' channels; nano-core checks their numbers."""
    found = {}
    for name, entry in contents.channels.items():
        if name not in contents.inputs:
            raise FileFormatError(f"it has scales of the channels of {name!r}, which is no input")
        scales = fields_of(ChannelScales, entry, f"the channels of {name!r}")
        for tensor in (scales.scale, scales.offset):
            if tensor.dtype != torch.float32 or tensor.shape != graph.values[name].shape[:1]:
                raise FileFormatError(
                    f"the channels of {name!r} have numbers {list(tensor.shape)} of {tensor.dtype}; expected "
                    f"float32 [{graph.values[name].shape[0]}]"
                )
        found[name] = scales
    return found


def _returned(saved: Any) -> Returned:
    """How the model returns its outputs."""
    fields = fields_of(_SavedReturned, saved, "what the model returns")
    if fields.kind not in get_args(Kind):
        raise FileFormatError(f"it returns a {fields.kind!r}; expected one of {', '.join(get_args(Kind))}")
    parts = tuple(map(_returned, fields.parts))
    return Returned(fields.kind, fields.keys, parts)  # type: ignore[arg-type]  # it is one of them


def _check_node(graph: Graph, node: Node, tensors: dict[str, Tensor]) -> None:
    """Checks the parts of a layer that nano-core does not see: moves, and dimensions of tensors."""
    place = f"the layer of {node.name!r}"
    inputs, outputs = ([graph.quantization(name) for name in names] for names in (node.inputs, node.outputs))
    if not follows_rules(node, inputs, outputs):
        raise FileFormatError(f"{place}: its scale and zero point are not those that its operator gives")
    shape, made = (graph.values[names[0]].shape for names in (node.inputs, node.outputs))
    if isinstance(node.operator, Move):
        numbers = node.operator.numbers(shape)
        if tuple(numbers.shape) != made:
            raise FileFormatError(f"{place}: it makes {tuple(numbers.shape)} of {shape}, not {made}")
        expected = graph.layer(node).quantize()
        same = all(
            torch.equal(tensor, expected[name]) for name, tensor in tensors.items() if name in expected
        )
        if not same or tensors.keys() != expected.keys():
            raise FileFormatError(f"{place}: its tables are not those of its steps")
    if isinstance(node.operator, FullyConnected):
        flattened, steps = node.operator.flattened, node.operator.steps
        if flattened != (shape if len(shape) > 1 or steps else None):
            raise FileFormatError(f"{place}: it flattens {flattened}; its input is {shape}")
        if steps and not Move(steps).is_permutation(shape):
            raise FileFormatError(f"{place}: {list(steps)} do not put {shape} into another order")
    kernel = getattr(node.operator, "kernel", None)
    if kernel is not None and "weights" in tensors and tuple(tensors["weights"].shape[1:3]) != kernel:
        raise FileFormatError(
            f"{place}: its kernel is {kernel}, its weights are {list(tensors['weights'].shape)}"
        )


def _modelled(name: object) -> Chip:
    """The chip whose cycles chose the kernels."""
    found = chips().get(name) if isinstance(name, str) else None
    if found is None or found.costs is None:
        raise FileFormatError(
            f"the choice of kernels is for the chip {shown(name)}, whose costs are not known"
        )
    return found


def _check_runs(model: QuantizedGraph) -> None:
    """Checks the shapes by running the graph on a batch without samples."""
    graph = model.graph
    no_samples = [
        torch.zeros((0, *graph.values[name].user_shape), dtype=graph.quantization(name).torch_dtype)
        for name in graph.inputs
    ]

    def check(name: str, tensor: Tensor) -> None:
        made, said = tuple(tensor.shape[1:]), graph.values[name].shape
        if made != said:
            raise FileFormatError(f"{name!r} is said to have shape {said}; its layer makes {made}")

    model.integer_run(*no_samples, observe=check)


def _check_head(image: _native.Model, saved: SavedHead | None) -> None:
    if saved is None:
        return
    head = head_of(image)
    if saved.state:
        head.load(saved.state)
    modules, choice = saved.path.split(", "), saved.layer_choice
    if isinstance(head, LayersHead) and len(modules) != len(head.weights()):
        raise FileFormatError(
            f"its head has {len(head.weights())} layers that learn, and modules {saved.path!r}"
        )
    if choice and [layer.module_path for layer in choice if layer.learns] != modules:
        raise FileFormatError(f"its head has modules {saved.path!r}, and others were chosen: {choice}")


def _without_dropouts(value: Value) -> dict[str, Any]:
    """The fields of a value without dropouts, as a quantized model is not trained."""
    entry = asdict(value)
    del entry["dropouts"]
    return entry


def _value(entry: Any) -> Value:
    if not isinstance(entry, dict):
        raise FileFormatError("a value is no dict")
    place = f"the value {entry.get('name')!r}"
    fields = entry.get("quantization")
    if isinstance(fields, dict) and "dtype" not in fields:
        raise FileFormatError(f"{place} has no dtype")
    quantization = fields_of(Quantization, fields, place)
    for needed in ("layout", "factors", "index_limit"):
        if needed not in entry:
            raise FileFormatError(f"{place} lacks {needed!r}")
    layout = entry["layout"]
    layout = None if layout is None else fields_of(Layout, layout, f"the layout of {place}")
    value = fields_of(Value, {**entry, "quantization": quantization, "layout": layout}, place)
    if not (1 <= len(value.shape) <= 3 and min(value.shape) > 0):
        raise FileFormatError(f"the value {value.name!r} has shape {value.shape}")
    if value.layout is not None and value.layout.result != value.shape:
        raise FileFormatError(f"{place} has shape {value.shape}; its layout makes {value.layout.result}")
    factors = torch.tensor(value.factors, dtype=torch.float64)
    if len(factors) not in (0, value.shape[0]) or not bool((factors.isfinite() & (factors > 0)).all()):
        raise FileFormatError(
            f"{place} contradicts itself: it has {len(factors)} factors of channels; expected none, or "
            f"{value.shape[0]} numbers above 0"
        )
    return value
