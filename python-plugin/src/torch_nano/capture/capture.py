"""Captures an nn.Module as a graph, by torch.export before decomposition."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from operator import getitem
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export.graph_signature import InputKind, OutputKind

from ..arguments import INDEX_DTYPES, as_tensors, shown
from ..errors import CaptureError, InputError, TorchNanoError, UnsupportedError, UnsupportedNode
from ..ir.call import BATCH_SIZE, Call, ComputedName, ParameterName, UnsupportedNodeError
from ..ir.graph import Derived, Graph, Node, new_name
from ..ir.interface import Returned
from ..ir.operator import Operator
from ..ir.value import Dropout, Value
from ..modules.explain import is_one_sample, missing_batch
from ..modules.inputs import Example
from ..modules.models import check_not_scripted, check_numbers
from ..ops import OPERATORS
from ..ops.concat import Concat
from ..ops.embedding import Embedding
from ..ops.masked_softmax import MaskedSoftmax
from ..ops.move import Move
from .batch_constants import share_batch_constants
from .batch_dimension import batch_first
from .channel_affine import ChannelAffine
from .class_tokens import compute_class_tokens
from .compositions import COMPOSITIONS, FIX_THE_BATCH, composition_of
from .compositions.lookups import is_lookup
from .constants import is_constant, take_constant
from .expansion import arguments_of, copy_of, expand, insert_composition
from .functionalization import functionalize
from .index_inputs import integer_inputs, limit_indices
from .layers_of_call import layers_of_call
from .normalizations import join_normalizations
from .program import batch_of, export, module_path, source_line, target_name
from .refusals import refusal, refusal_of_layout, refusal_of_write
from .returned import returned_of
from .selection import Select
from .softmax_masks import ADDITIONS, Mask, mask_of
from .structural import BatchNorm
from .train_mode import check_train_mode
from .unsupported_modules import check_modules
from .vanishing import SYMBOLS, drop_unread, returns_first_argument

aten = torch.ops.aten
Target = torch._ops.OpOverload[..., Any]


def capture(model: nn.Module, example: Example, *, for_training: bool = False) -> Graph:
    """Captures the model in evaluation mode as a float graph.

    Args:
        example: a float input with batch, [N, channels, height, width], [N, channels, length], [N,
            features] or another shape, or several inputs in a tuple or in a dict by forward's names; the
            values do not matter.
        for_training: also refuse what the model computes in only one of its modes.

    Raises:
        UnsupportedError: lists all calls and modules that the device cannot run; then, for training, those of
            one mode only.
        CaptureError: torch.export fails, or the model returns something else than tensors, alone or in
            tuples, lists, dicts, named tuples and dataclasses.
        InputError: the example is not such an input, or parameters of the model have no values.
    """
    check_not_scripted(model.named_modules())
    check_numbers(model)
    example = as_tensors(example)
    batch = batch_of(model, example)
    check_modules(model, batch.map(lambda tensor: tensor[:2]))
    try:
        program = export(model, batch)
        graph = _Capture(program).graph()
    except CaptureError as error:
        if isinstance(example, Tensor) and is_one_sample(model, example):
            raise InputError(f"the example: {missing_batch(example)}") from error
        raise
    if for_training:
        resting = check_train_mode(model, batch, program)
        for node in graph.nodes:
            if isinstance(node.operator, BatchNorm) and node.output in resting:
                node.operator = replace(node.operator, follows=False)
    return graph


class _Capture:
    """The conversion of one exported program to a graph."""

    def __init__(self, program: torch.export.ExportedProgram) -> None:
        self.program = program
        #: The calls, each composition replaced by its own when the capture comes to it.
        self.calls = copy_of(program.graph)
        drop_unread(self.calls)
        functionalize(self.calls, self._constants())
        compute_class_tokens(self.calls, share_batch_constants(self.calls))
        self.left = batch_first(self.calls)
        join_normalizations(self.calls)
        self.operators = _operators_by_target()
        self.tensors: dict[str, Tensor] = {
            name: tensor.detach()
            for name, tensor in (program.state_dict | program.constants).items()
            if isinstance(tensor, Tensor)
        }
        #: The value or parameter that each fx node represents, or a list if it returns several tensors.
        self.meaning: dict[fx.Node, Value | ParameterName | ComputedName | list[Value]] = {}
        self.nodes: list[Node] = []
        self.values: dict[str, Value] = {}
        self.unsupported: dict[fx.Node, UnsupportedNode] = {}
        self.failed: set[fx.Node] = set()
        #: How to compute the tensors that forward computes from parameters.
        self.derived: dict[str, Derived] = {}
        #: Of values that a softmax reads, the positions that a mask excludes: bool, to be broadcast.
        self.excluded: dict[fx.Node, Tensor] = {}
        #: The symbolic batch sizes of the inputs.
        self.batches: list[Any] = []

    def graph(self) -> Graph:
        inputs = self._inputs()
        integers = integer_inputs(self.calls, inputs)
        for node in self.calls.nodes:
            # Of get_attr the graphs of calls such as wrap_with_autocast, which are refused.
            if node.op in ("placeholder", "output", "get_attr") or isinstance(node.meta.get("val"), SYMBOLS):
                continue
            try:
                self._take(node)
            except UnsupportedNodeError as error:
                self._refuse(node, error)
        if self.unsupported:
            causes = [found for node, found in self.unsupported.items() if self._is_cause(node)]
            raise UnsupportedError(causes or list(self.unsupported.values()))
        parameters = {
            name: _as_float32(tensor) for name, tensor in self.tensors.items() if tensor.is_floating_point()
        }
        outputs, returned = self._outputs(inputs)
        graph = Graph(inputs, outputs, self.values, self.nodes, parameters, self.derived, returned)
        graph.drop_unused()
        limit_indices(graph, integers)
        return graph

    def _constants(self) -> dict[str, Tensor]:
        """Parameters, buffers and constants by the names of their placeholders."""
        tensors = self.program.state_dict | self.program.constants
        specs = self.program.graph_signature.input_specs
        return {spec.arg.name: tensors[spec.target] for spec in specs if spec.target in tensors}

    def _refuse(self, node: fx.Node, error: UnsupportedNodeError) -> None:
        """Records an unsupported call."""
        self.failed.add(node)
        self.unsupported[node] = _unsupported(node, error)
        if node not in self.meaning:
            self._results(node)

    def _is_cause(self, node: fx.Node) -> bool:
        """Whether to report an unsupported call.

        One that only creates a tensor for another unsupported call (a GRU's first state) is not reported, and
        none that reads truth values, indices or a tensor without the batch of one: the model has them from
        there.
        """
        for source in node.all_input_nodes:
            made = source.meta.get("val")
            if source in self.failed and isinstance(made, Tensor):
                has_batch = any(isinstance(side, torch.SymInt) for side in made.shape)
                if not made.is_floating_point() or not has_batch:
                    return False
        return not (_only_makes(node) and node.users and set(node.users) <= self.failed)

    def _inputs(self) -> list[str]:
        names = []
        specs = {spec.arg.name: spec for spec in self.program.graph_signature.input_specs}
        for node in self.calls.nodes:
            if node.op != "placeholder":
                continue
            spec = specs[node.name]
            if spec.kind == InputKind.USER_INPUT:
                batch = node.meta["val"].shape[0]
                # If forward needs a fixed number, torch.export has replaced the symbol by it.
                if not isinstance(batch, torch.SymInt) or batch.node.maybe_as_int() is not None:
                    raise self._batch_is_fixed(int(batch))
                self.batches.append(batch.node.expr)
                value = Value(node.name, tuple(int(side) for side in node.meta["val"].shape[1:]))
                self.meaning[node] = self.values[node.name] = value
                names.append(node.name)
            elif spec.target is not None:
                self.meaning[node] = ParameterName(spec.target)
        return names

    def _batch_is_fixed(self, batch: int) -> TorchNanoError:
        """The error for a program that torch.export has made for one number of samples."""
        refused = []
        for node in self.calls.nodes:
            if node.target in FIX_THE_BATCH:
                try:
                    insert_composition(node, COMPOSITIONS[node.target], arguments_of(node, node.target))
                except UnsupportedNodeError as error:
                    refused.append(_unsupported(node, error))
        if refused:
            return UnsupportedError(refused)
        return CaptureError(
            f"the model works for a batch of {batch} only; "
            "write x.shape[0], not a number or len(x), where it reshapes"
        )

    def _outputs(self, inputs: Sequence[str]) -> tuple[list[str], Returned]:
        """The names of the output values, and how the model returns them."""
        (results,) = self.calls.output_node().args
        assert isinstance(results, tuple)
        specs = self.program.graph_signature.output_specs
        returned = returned_of(self.program.call_spec.out_spec)
        names: list[str] = []
        for spec, result in zip(specs, results, strict=True):
            if spec.kind != OutputKind.USER_OUTPUT:
                continue
            meaning = self.meaning.get(result) if isinstance(result, fx.Node) else None
            if not isinstance(meaning, Value):
                given = "what its input has no part in" if isinstance(result, fx.Node) else shown(result)
                label = f" as {returned.names[len(names)]}" if returned.kind != "tensor" else ""
                raise CaptureError(
                    f"the model returns {given}{label}; expected one tensor that is computed from its input, "
                    "or several in tuples, lists, dicts, named tuples or dataclasses"
                )
            if result.meta["val"].dtype == torch.bool:
                raise CaptureError(
                    "the model returns truth values, and the device has none; return numbers: (x > 0).float()"
                )
            names.append(self._copied(meaning) if meaning.name in inputs else meaning.name)
        if not names:
            raise CaptureError("the model returns nothing; expected a tensor that is computed from its input")
        return names, returned

    def _copied(self, value: Value) -> str:
        """Copies an input that the model returns; returns the name of the copy."""
        name = new_name(f"{value.name}_returned", self.values)
        self.values[name] = Value(name, value.shape)
        self.nodes.append(Node(Move(), [value.name], [name]))
        return name

    def _take(self, node: fx.Node) -> None:
        """Converts one fx node."""
        if isinstance(node.target, torch._ops.OpOverload):
            self._take_call(node, node.target)
        elif node.target is getitem and isinstance(self.meaning[node.all_input_nodes[0]], list):
            source, index = node.args
            assert isinstance(source, fx.Node)
            results = self.meaning[source]
            assert isinstance(results, list) and isinstance(index, int)
            self.meaning[node] = results[index]
        elif not (set(node.all_input_nodes) & self.failed):
            raise refusal(target_name(node))
        else:
            # It reads the result of an unsupported call, as getitem does: only that call is reported.
            self.failed.add(node)
            self._results(node)

    def _take_call(self, node: fx.Node, target: Target) -> None:
        if node in self.left.others:
            self.failed.add(node)
            self._results(node)
            return
        constant = is_constant(node, target, self.meaning)
        arguments = self._arguments(node, target)
        source = node.all_input_nodes[0] if node.all_input_nodes else None
        if returns_first_argument(node, target, arguments, constant):
            assert source is not None
            meaning = self.meaning[node] = self.meaning[source]
            if source in self.excluded:
                self.excluded[node] = self.excluded[source]
            if "train" in arguments and isinstance(meaning, Value):
                while len(source.users) == 1 and source.target is aten.alias.default:
                    source = source.all_input_nodes[0]
                meaning.dropouts += (_dropout(node, arguments["p"], bypassed=len(source.users) > 1),)
            return
        if target._schema.is_mutable:
            self._refuse_write(node, target)
            return
        if constant:
            self.meaning[node] = take_constant(node, target, self.meaning, self.tensors, self.derived)
            return
        if not is_lookup(target, arguments):
            self._check_indices(node, target)
        if (mask := mask_of(node, target, arguments, self.tensors)) is not None:
            self._exclude(node, mask)
            if mask.added is None:
                return
            target, arguments = aten.add.Tensor, self._addition(node, mask.value, mask.added)
        operators = self.operators.get(target)
        composition = composition_of(target, arguments)
        if node in self.left.causes and (operators or composition):
            raise refusal_of_layout(self.left.causes[node])
        if mask is None and (excluded := self._excluded(node)) is not None:
            if target is aten.softmax.int:
                operators, arguments = MaskedSoftmax, {**arguments, "excluded": excluded}
            elif target in ADDITIONS:
                self.excluded[node] = excluded
            else:
                raise UnsupportedNodeError(
                    "it reads a tensor in which a mask has excluded positions",
                    "mask directly before the softmax",
                )
        if target in ChannelAffine.targets() and _has_constant(target, arguments):
            operators = ChannelAffine
        elif composition is not None and expand(node, target, composition):
            return
        if operators is None:
            raise refusal(target._schema.name)
        if operators is not Move and any(argument is BATCH_SIZE for argument in _flat(arguments.values())):
            raise UnsupportedNodeError("an argument depends on the batch size")
        outputs = self._results(node)
        call = Call(target, arguments, [output.shape for output in outputs], self.tensors)
        taken = self.values.keys() | {other.name for other in self.calls.nodes}
        nodes, between = layers_of_call(call, outputs, operators, taken)
        for made in nodes:
            self._check_parameters(made.parameters.values())
        self.nodes += nodes
        self.values.update((value.name, value) for value in [*between, *outputs])

    def _refuse_write(self, node: fx.Node, target: Target) -> None:
        """Refuses a call in place that is left: of a parameter or buffer, or without a rule. Later calls read
        its tensor unchanged.

        Raises:
            UnsupportedNodeError: it is the first of a row of such calls.
        """
        source = node.all_input_nodes[0]
        self.meaning[node] = self.meaning[source]
        while source.op != "placeholder" and source.all_input_nodes:
            source = source.all_input_nodes[0]
        changed = self.meaning[source]
        if not isinstance(changed, ParameterName):
            raise refusal_of_write(target._schema.name)
        if set(node.all_input_nodes) & self.failed:
            self.failed.add(node)
            return
        raise UnsupportedNodeError(
            f"it changes {changed!r} of the model in forward; a device keeps no tensors from run to run",
            "update it in train mode only, if self.training, or outside of forward",
        )

    def _exclude(self, node: fx.Node, mask: Mask) -> None:
        """Records what a call excludes from the softmax that reads it."""
        before = self._excluded(node)
        self.excluded[node] = mask.excluded if before is None else mask.excluded | before
        self.meaning[node] = mask.value

    def _excluded(self, node: fx.Node) -> Tensor | None:
        """The positions that are excluded of a call's tensors; None if none are."""
        every = [self.excluded[source] for source in node.all_input_nodes if source in self.excluded]
        return reduce(torch.logical_or, every) if every else None

    def _addition(self, node: fx.Node, value: Value, added: Tensor) -> dict[str, Any]:
        """The arguments of an addition of a constant."""
        name = new_name(f"{node.name}_added", self.tensors)
        self.tensors[name] = added
        return {"self": value, "other": ComputedName(name), "alpha": 1}

    def _check_indices(self, node: fx.Node, target: Target) -> None:
        """Refuses a call that computes with indices, such as those of an argmax; moves and embeddings do not.

        Raises:
            UnsupportedNodeError: it does.
        """
        readers = (*Move.targets(), *Concat.targets(), *Embedding.targets())
        if target not in readers and any(map(self._holds_indices, node.all_input_nodes)):
            raise UnsupportedNodeError(
                "it computes with indices, such as those of an argmax",
                "compute with them outside of the model: return those of an argmax, and give it those of an "
                "input",
            )

    def _holds_indices(self, node: fx.Node) -> bool:
        """Whether a node is a value of the run that holds indices."""
        is_value = isinstance(self.meaning.get(node), Value) and node not in self.failed
        return is_value and node.meta["val"].dtype in INDEX_DTYPES

    def _check_parameters(self, names: Iterable[str]) -> None:
        """Refuses parameters that are not floating-point."""
        for name in names:
            if not self.tensors[name].is_floating_point():
                raise UnsupportedNodeError(
                    f"its {name!r} is of {self.tensors[name].dtype}; a device has real weights only",
                    "make it a float parameter",
                )

    def _results(self, node: fx.Node) -> list[Value]:
        """Creates the values that an fx node returns: one has the node's name, several count from 0."""
        result = node.meta.get("val")
        if isinstance(result, tuple | list) and node not in self.failed:
            taken = {other.name for other in self.calls.nodes}
            names = [new_name(f"{node.name}_{index}", taken) for index in range(len(result))]
            values = [self._value(node, name, part) for name, part in zip(names, result, strict=True)]
            self.meaning[node] = values
            return values
        self.meaning[node] = value = self._value(node, node.name, result)
        return [value]

    def _value(self, node: fx.Node, name: str, result: object) -> Value:
        """Creates the value for one of the tensors that an fx node returns.

        Raises:
            UnsupportedNodeError: a graph cannot represent it.
        """
        shape: tuple[Any, ...] = tuple(result.shape) if isinstance(result, Tensor) else ()
        sides = tuple(side for side in shape[1:] if isinstance(side, int))
        value = Value(name, sides, module_path=module_path(node), source=source_line(node))
        if node in self.failed:
            return value
        if not isinstance(result, Tensor):
            raise UnsupportedNodeError("it returns something else than tensors")
        with_batch = bool(shape) and isinstance(shape[0], torch.SymInt) and shape[0].node.expr in self.batches
        if not with_batch or len(sides) != len(shape) - 1:
            printed = f"its result has shape [{', '.join(map(str, shape))}]"
            batches = [dim for dim, side in enumerate(shape) if not isinstance(side, int)]
            if not batches:
                raise UnsupportedNodeError(
                    f"{printed}, without the batch: it takes one sample, or mixes all samples of a batch",
                    "leave the first dimension to the batch: x[:, 0] for x[0], x.mean(1) for x.mean(0), "
                    "x.flatten(1).amax(1) for x.amax()",
                )
            raise UnsupportedNodeError(
                f"{printed}: the batch is not its first dimension alone",
                f"move the batch to the front: y.transpose(0, {batches[0]})"
                if batches[0]
                else "let every step of forward work on [N, ...]",
            )
        return value

    def _arguments(self, node: fx.Node, target: Target) -> dict[str, Any]:
        """All arguments by name, including defaults."""
        return {name: fx.map_arg(given, self._argument) for name, given in arguments_of(node, target).items()}

    def _argument(self, node: fx.Node) -> Any:
        return BATCH_SIZE if isinstance(node.meta.get("val"), torch.SymInt) else self.meaning[node]


def _unsupported(node: fx.Node, error: UnsupportedNodeError) -> UnsupportedNode:
    """What is reported of a refused call."""
    return UnsupportedNode(
        module_path(node), source_line(node), target_name(node), error.reason, error.way_out
    )


def _only_makes(node: fx.Node) -> bool:
    """Whether a call makes a tensor of numbers and the batch size alone."""
    return node.op == "call_function" and all(
        isinstance(source.meta.get("val"), torch.SymInt) or _only_makes(source)
        for source in node.all_input_nodes
    )


def _dropout(node: fx.Node, probability: float, bypassed: bool) -> Dropout:
    assert isinstance(node.target, torch._ops.OpOverload)
    function = node.target._schema.name.removeprefix("aten::").removesuffix("_")
    return Dropout(function, probability, module_path(node), source_line(node), bypassed)


def _has_constant(target: Target, arguments: Mapping[str, Any]) -> bool:
    """Whether a call of two operands combines a tensor of the run with a constant, in an affine function."""
    first, second = (isinstance(arguments[role], Value) for role in ("self", "other"))
    plain = arguments.get("alpha", 1) == 1
    return plain and first != second and not (second and target is aten.div.Tensor)


def _operators_by_target() -> Mapping[Target, type[Operator]]:
    operators: tuple[type[Operator], ...] = (*OPERATORS, BatchNorm, Select)
    return {target: operator for operator in operators for target in operator.targets()}


def _flat(arguments: Any) -> Iterator[Any]:
    for argument in arguments:
        if isinstance(argument, list | tuple):
            yield from _flat(argument)
        else:
            yield argument


def _as_float32(tensor: Tensor) -> Tensor:
    return tensor.to("cpu", torch.float32)
