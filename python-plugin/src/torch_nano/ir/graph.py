"""A model as plain data: values, operators in order of execution, parameters."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import zip_longest
from typing import TypeVar

import torch
from torch import Tensor

from ..arithmetic.layout import Shape
from ..arithmetic.quantization import Dtype, Quantization
from .affine import Affine, compose
from .interface import Returned
from .layer import Layer
from .lifetimes import last_uses
from .operator import Operator
from .value import Value

Item = TypeVar("Item")


@dataclass
class Node:
    """One operator of a graph: ``outputs = operator(inputs; parameters)``."""

    operator: Operator
    #: Names of values.
    inputs: list[str]
    outputs: list[str]
    #: Names in :attr:`Graph.parameters` by role ("weight", "bias"); those of the original model.
    parameters: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of the node: that of its first output."""
        return self.outputs[0]

    @property
    def output(self) -> str:
        """The output of a node with a single output."""
        (only,) = self.outputs
        return only


@dataclass(frozen=True)
class FoldedNorm:
    """The batch norm that is folded into a parameter."""

    #: Path of the module whose mode decides.
    module_path: str
    #: Momentum of the running statistics, from the call.
    momentum: float
    #: Whether it normalizes with the statistics of the batch in train mode.
    follows: bool


@dataclass(frozen=True)
class Derived:
    """A parameter that a pass derives from others: ``function(**{role: tensor})``, differentiable."""

    function: Callable[..., Tensor]
    #: Names of the parameters it is made from, by role.
    sources: Mapping[str, str]
    #: The batch norm that is one of its sources.
    norm: FoldedNorm | None = None

    def compute(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """The parameter, from tensors by name."""
        return self.function(**{role: tensors[name] for role, name in self.sources.items()})


@dataclass
class Graph:
    """A model as plain data, from :func:`torch_nano.capture.capture.capture`; passes map a graph to a graph.

    >>> import torch
    >>> from torch_nano.capture.capture import capture
    >>> graph = capture(torch.nn.Sequential(torch.nn.Linear(3, 2)), torch.ones(2, 3))
    >>> print(graph)
    input input (3,)
    linear (2,) = fully_connected(input; weight=0.weight, bias=0.bias)  # 0
    output linear
    """

    #: Names of the input values, equal to forward's arguments, and of the output values.
    inputs: list[str]
    outputs: list[str]
    #: All values by name, in order of execution.
    values: dict[str, Value]
    nodes: list[Node]
    #: float32 tensors by their names in the original model, and those that passes have derived.
    parameters: dict[str, Tensor]
    #: The derived parameters, each after its sources.
    derived: dict[str, Derived] = field(default_factory=dict)
    #: How the model returns its outputs.
    returned: Returned = field(default_factory=Returned)
    #: The affines at the inputs, by name of the input, in order: the input's value, its numbers and its
    #: quantization are those after them.
    affines: dict[str, tuple[Affine, ...]] = field(default_factory=dict)
    #: The dtypes of values other than int8, by name. Before
    #: :func:`torch_nano.capture.passes.insert_requantize.insert_requantize` those wanted: of inputs, and by a
    #: node's name of its inputs and outputs.
    dtypes: dict[str, Dtype] = field(default_factory=dict)

    def derive(
        self,
        name: str,
        function: Callable[..., Tensor],
        sources: Mapping[str, str],
        norm: FoldedNorm | None = None,
    ) -> str:
        """Adds a derived parameter under `name`, or a similar one if that is taken; returns its name."""
        name = new_name(name, self.parameters)
        self.derived[name] = Derived(function, dict(sources), norm)
        self.parameters[name] = self.derived[name].compute(self.parameters)
        return name

    def parameters_from(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All parameters, computed from tensors by their original names; derived ones are differentiable."""
        parameters = {
            name: tensors[name].to(torch.float32) for name in self.parameters if name not in self.derived
        }
        for name, derived in self.derived.items():
            parameters[name] = derived.compute(parameters)
        return parameters

    def after_affines(self, name: str, x: Tensor) -> Tensor:
        """Applies an input's affines; x: [N, channels, ...], in the value's shape."""
        for affine in self.affines.get(name, ()):
            x = affine.run(x, self.parameters)
        return x

    def factor_and_shift(self, name: str) -> tuple[Tensor, Tensor] | None:
        """The affines of an input as one, ``y = factor * x + shift``: float64 [channels] each; None without
        any.
        """
        affines = self.affines.get(name)
        if not affines:
            return None
        return compose(affines, self.parameters, self.values[name].shape[0], torch.device("cpu"))

    def new_value(self, name: str, shape: Shape, like: Value) -> Value:
        """Adds a value with the module path and source of `like`, under `name` or a similar one."""
        name = new_name(name, self.values)
        self.values[name] = Value(name, shape, module_path=like.module_path, source=like.source)
        return self.values[name]

    def producer(self, value: str) -> Node | None:
        """The node that computes a value; None for an input."""
        return next((node for node in self.nodes if value in node.outputs), None)

    def consumers(self, value: str) -> list[Node]:
        """The nodes that read a value."""
        return [node for node in self.nodes if value in node.inputs]

    def only_reader(self, value: str) -> Node | None:
        """The node that reads a value, if it is the only reader and the value not an output of the graph."""
        readers = self.consumers(value)
        return readers[0] if len(readers) == 1 and value not in self.outputs else None

    def module_path(self, node: Node) -> str:
        """Dotted path of the module that computes a node's outputs; "" for the model itself."""
        return self.values[node.name].module_path

    def quantization(self, name: str) -> Quantization:
        """The quantization of a value that has one."""
        chosen = self.values[name].quantization
        assert chosen is not None, f"value {name} is not quantized"
        return chosen

    def layer(self, node: Node, inputs: Sequence[Tensor] = ()) -> Layer:
        """A node as a layer, with its parameters, or its quantizations and shapes."""
        quantized = self.values[node.name].quantization is not None
        return Layer(
            node.operator,
            inputs,
            {role: self.parameters[name] for role, name in node.parameters.items()},
            input_quantizations=[self.quantization(name) for name in node.inputs] if quantized else (),
            output_quantizations=[self.quantization(name) for name in node.outputs] if quantized else (),
            shapes=[self.values[name].shape for name in node.inputs],
        )

    def float_run(
        self, *inputs: Tensor, observe: Callable[[str, Tensor], None] | None = None
    ) -> list[Tensor]:
        """The outputs for float inputs, both in the user's shapes, with batch.

        Args:
            observe: called with the name of every value and the numbers that its range must cover: its
                tensor, that of an input after its affines, or :meth:`.operator.Operator.observed`.
        """

        def run_node(node: Node, tensors: list[Tensor]) -> tuple[Tensor, ...]:
            layer = self.layer(node, tensors)
            outputs = layer.float_run()
            if observe is not None:
                for name, numbers in zip(node.outputs, layer.observed(outputs), strict=True):
                    observe(name, numbers)
            return outputs

        after = [
            self.after_affines(name, x) for name, x in zip(self.inputs, self.from_user(inputs), strict=True)
        ]
        if observe is not None:
            for name, x in zip(self.inputs, after, strict=True):
                observe(name, x)
        return self.to_user(self.run(after, run_node))

    def from_user(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The inputs [N, ...] in the shapes of their values, from those in the user's."""
        return [self.values[name].from_user(x) for name, x in zip(self.inputs, inputs, strict=True)]

    def to_user(self, outputs: Sequence[Tensor]) -> list[Tensor]:
        """The outputs [N, ...] in the user's shapes, from those of their values."""
        return [self.values[name].to_user(y) for name, y in zip(self.outputs, outputs, strict=True)]

    def run(
        self,
        inputs: Iterable[Item],
        run_node: Callable[[Node, list[Item]], Sequence[Item]],
        observe: Callable[[str, Item], None] | None = None,
    ) -> list[Item]:
        """Runs all nodes in order with `run_node`, which returns a node's outputs; inputs are given as the
        network sees them, in the shapes of their values and after their affines. What stands for a value (a
        tensor, or a tensor of each of two networks) is up to `run_node`.

        A value is dropped after its last reader.
        """
        tensors = dict(zip(self.inputs, inputs, strict=True))
        if observe is not None:
            for name, tensor in tensors.items():
                observe(name, tensor)
        for node, ending in zip(self.nodes, last_uses(self), strict=True):
            made = run_node(node, [tensors[name] for name in node.inputs])
            for name, tensor in zip(node.outputs, made, strict=True):
                tensors[name] = tensor
                if observe is not None:
                    observe(name, tensor)
            for name in ending:
                del tensors[name]
        return [tensors[name] for name in self.outputs]

    def copy(self) -> Graph:
        """A copy whose lists and nodes can be changed; tensors and operators are shared."""
        return Graph(
            inputs=list(self.inputs),
            outputs=list(self.outputs),
            values={name: replace(value) for name, value in self.values.items()},
            nodes=[
                replace(
                    node,
                    inputs=list(node.inputs),
                    outputs=list(node.outputs),
                    parameters=dict(node.parameters),
                )
                for node in self.nodes
            ],
            parameters=dict(self.parameters),
            derived=dict(self.derived),
            returned=self.returned,
            affines=dict(self.affines),
            dtypes=dict(self.dtypes),
        )

    def remove(self, node: Node) -> None:
        """Removes a node of one input and one output: readers of its output read its input instead.

        If its output is an output of the graph, its input takes the layout over; it must not have one.
        """
        (source,) = node.inputs
        if node.output in self.outputs and self.values[node.output].layout is not None:
            self.values[source].layout = self.values[node.output].layout
        self.hand_back_dropouts(node)
        self.nodes = [other for other in self.nodes if other is not node]
        self.redirect(node.output, source)
        del self.values[node.output]

    def hand_back_dropouts(self, node: Node) -> None:
        """Moves the dropouts after a node of one input and one output to its input; call before remove."""
        (source,) = node.inputs
        bypassed = len(self.consumers(source)) > 1 or source in self.outputs
        output = self.values[node.output]
        self.values[source].dropouts += tuple(
            replace(dropout, bypassed=dropout.bypassed or bypassed) for dropout in output.dropouts
        )
        output.dropouts = ()

    def redirect(self, old: str, new: str) -> None:
        """Makes all readers of value `old`, the graph's outputs included, read `new`."""
        for node in self.nodes:
            node.inputs = [new if name == old else name for name in node.inputs]
        self.outputs = [new if name == old else name for name in self.outputs]

    def drop_unused(self) -> None:
        """Removes nodes whose outputs are not read, and unused values and parameters.

        Also puts the values in order of execution.
        """
        needed = set(self.outputs)
        kept = []
        for node in reversed(self.nodes):
            if not needed.isdisjoint(node.outputs):
                needed.update(node.inputs, node.outputs)
                kept.append(node)
        self.nodes = kept[::-1]
        named = {name for node in self.nodes for name in node.parameters.values()}
        for affines in self.affines.values():
            named.update(name for affine in affines for name in affine.parameters.values())
        for name, derived in reversed(self.derived.items()):
            if name in named:
                named.update(derived.sources.values())
        self.derived = {name: derived for name, derived in self.derived.items() if name in named}
        # Passes have added their values at the end.
        order = [*self.inputs, *(name for node in self.nodes for name in node.outputs)]
        self.values = {name: self.values[name] for name in order}
        self.dtypes = {name: dtype for name, dtype in self.dtypes.items() if name in self.values}
        self.parameters = {name: tensor for name, tensor in self.parameters.items() if name in named}

    def __str__(self) -> str:
        lines = []
        for name in self.inputs:
            after = ", ".join(affine.operator.name for affine in self.affines.get(name, ()))
            lines.append(f"input {name} {_described(self.values[name])}{f' after {after}' if after else ''}")
        for node in self.nodes:
            named = (
                "; " + ", ".join(f"{r}={n}" for r, n in node.parameters.items()) if node.parameters else ""
            )
            attributes = [
                f"{f.name}={getattr(node.operator, f.name)}"
                for f in fields(node.operator)
                if f.repr and _is_set(node, f.name)
            ]
            call = f"{node.operator.name}({', '.join([*node.inputs, *attributes])}{named})"
            path = f"  # {self.module_path(node)}" if self.module_path(node) else ""
            made = ", ".join(f"{name} {_described(self.values[name])}" for name in node.outputs)
            lines.append(f"{made} = {call}{path}")
        names = self.returned.names if self.returned.kind != "tensor" else ()
        outputs = [
            f"output {key} = {name}" if key else f"output {name}"
            for key, name in zip_longest(names, self.outputs, fillvalue="")
        ]
        return "\n".join([*lines, *outputs])


def new_name(name: str, taken: Container[str]) -> str:
    """`name`, or a similar name that is not taken."""
    while name in taken:
        name += "_"
    return name


def _is_set(node: Node, name: str) -> bool:
    """Whether an operator's attribute differs from its default."""
    default = next(f.default for f in fields(node.operator) if f.name == name)
    value = getattr(node.operator, name)
    return value is not None and value != default and value != ()


def _described(value: Value) -> str:
    shape = str(value.shape) if value.layout is None else f"{value.shape} (user: {value.user_shape})"
    if value.quantization is None:
        return shape
    return (
        f"{shape} {value.quantization.dtype} scale {value.quantization.scale:.6g} zero point "
        f"{value.quantization.zero_point}"
    )
