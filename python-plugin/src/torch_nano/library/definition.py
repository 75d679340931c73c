"""Custom torch operators for direct use, through torch.library, and their functions.

They are derived from the operator's class: ``torch.ops.torch_nano.<name>`` of inputs, parameters,
quantizations and attributes runs nano-core on the CPU and :meth:`Operator.integer_run` elsewhere. Its
gradient is the straight-through gradient of :meth:`Operator.float_run`, zero where integers saturate.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

from ..arguments import shown
from ..arithmetic.fixed_point import exact_convolution
from ..arithmetic.quantization import Quantization
from ..errors import InputError
from ..ir.layer import Layer
from ..ir.operator import Operator
from ..ir.rules import INT8, Fixed, Own
from .one_layer import run_native

Function = Callable[..., Tensor]
AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])
#: The functions of ``torch_nano.functional`` by name.
FUNCTIONS: dict[str, Callable[..., Any]] = {}
#: The custom operators by operator.
DEFINITIONS: dict[type[Operator], Definition] = {}

_library = torch.library.Library("torch_nano", "DEF")  # type: ignore[no-untyped-call]
_SCHEMA_TYPES: Mapping[Any, str] = {
    bool: "bool",
    float: "float",
    float | None: "float?",
    int: "int",
    str: "str",
}
#: Prefix of fields whose types a schema does not have: they are passed as text.
_LITERAL = "str "


def functional(function: AnyFunction) -> AnyFunction:
    """Registers a function in ``torch_nano.functional``."""
    FUNCTIONS[function.__name__] = function
    return function


def _no_parameters(layer: Layer) -> dict[str, Tensor]:
    return {}


@dataclass(frozen=True)
class Parameters:
    """The parameters of a custom operator.

    Attributes:
        schema: their declarations, "Tensor weight" or "Tensor? bias".
        constant: number of parameters without a gradient; they are the last ones.
        tensors: maps the layer and the given parameters (float32 that holds integers, or None) to nano-core's
            tensors of the layer.
        real: maps the same to the parameters in real numbers by role, differentiable.
    """

    schema: tuple[str, ...] = ()
    constant: int = 0
    tensors: Callable[..., dict[str, Tensor]] = Layer.quantize
    real: Callable[..., dict[str, Tensor]] = _no_parameters


class Definition:
    """The custom operator of one operator, and its backward; calling it runs the differentiable function."""

    def __init__(
        self,
        operator: type[Operator],
        inputs: Sequence[str] = ("x",),
        parameters: Parameters | None = None,
    ) -> None:
        """Defines ``torch.ops.torch_nano.<name>`` and ``<name>_backward``; `inputs` are names of tensors."""
        DEFINITIONS[operator] = self
        self.operator = operator
        self.parameters = parameters or Parameters()
        self.input_count = len(inputs)
        self.tensor_count = len(inputs) + len(self.parameters.schema)
        self.differentiable = self.tensor_count - self.parameters.constant
        (self.rule,) = operator.rules
        self.free_output = isinstance(self.rule, Own)
        self.field_names = [field.name for field in fields(operator)]
        hints = get_type_hints(operator)
        self.field_types = [_schema_type(hints[name]) for name in self.field_names]
        quantized = [*inputs, "y"] if self.free_output else list(inputs)
        self.quantization_count = len(quantized)
        arguments = [f"Tensor {name}" for name in inputs]
        arguments += self.parameters.schema
        #: Whether the custom operator has an argument for the dtype of each quantization.
        self.has_dtypes = operator.signatures != (INT8,)
        for name in quantized:
            arguments += [f"float {name}_scale", f"int {name}_zero_point"]
            arguments += [f"str {name}_dtype"] if self.has_dtypes else []
        arguments += [f"{kind} {name}" for kind, name in zip(self.field_types, self.field_names, strict=True)]
        self.names = [argument.split()[-1] for argument in arguments]
        schema = ", ".join(arguments)
        self.forward_op = self._define(operator.name, f"({schema}) -> Tensor", self.run_torch, self._fake)
        self.backward_op = self._define(
            f"{operator.name}_backward",
            f"(Tensor grad, bool[] needed, {schema}) -> Tensor[]",
            self._run_backward,
            self._fake_backward,
        )
        _library.impl(operator.name, self._run_native, "CPU")  # type: ignore[no-untyped-call]
        register_autograd = partial(torch.library.register_autograd, lib=_library)
        register_autograd(self.forward_op, self.gradients, setup_context=self.save)
        register_autograd(self.backward_op, no_second_derivative)
        for device in ("cpu", "cuda"):
            torch.library.register_autocast(self.forward_op, device, torch.float32, lib=_library)

    def _define(self, name: str, schema: str, run: Callable[..., Any], fake: Callable[..., Any]) -> Any:
        _library.define(name + schema)  # type: ignore[no-untyped-call]
        _library.impl(name, run, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
        op = getattr(torch.ops.torch_nano, name).default
        torch.library.register_fake(op, fake, lib=_library)
        torch.library.register_vmap(op, partial(_one_by_one, op), lib=_library)
        return op

    def __call__(
        self,
        operator: Operator,
        inputs: Sequence[Tensor],
        input_quantization: Sequence[Quantization],
        output_quantization: Quantization | None = None,
        parameters: Sequence[Tensor | None] = (),
    ) -> Tensor:
        """Runs one layer; ``output_quantization`` is for operators that do not fix it."""
        if not torch.compiler.is_compiling():
            quantizations = [*input_quantization, output_quantization]
            self.check(inputs, quantizations[: self.quantization_count], parameters)
        arguments = self.arguments(operator, inputs, input_quantization, output_quantization, parameters)
        if torch.compiler.is_compiling():
            return self.forward_op(*arguments)  # type: ignore[no-any-return]
        return _StraightThrough.apply(self, *arguments)  # type: ignore[no-any-return]

    def check(
        self, inputs: Sequence[object], quantizations: Sequence[object], parameters: Sequence[object] = ()
    ) -> None:
        """Checks the inputs and parameters of a call, and the quantizations of inputs and output.

        Raises:
            InputError: an input is no tensor with a batch dimension, a parameter no tensor, or a quantization
                no Quantization.
        """
        for name, x in zip(self.names, inputs, strict=False):
            if not isinstance(x, Tensor) or x.dim() == 0:
                given = "a tensor without dimensions" if isinstance(x, Tensor) else shown(x)
                raise InputError(f"{self.operator.name}: {name} is {given}; expected a tensor [N, ...]")
        for declared, parameter in zip(self.parameters.schema, parameters, strict=False):
            kind, name = declared.split()
            if not isinstance(parameter, Tensor) and (parameter is not None or kind == "Tensor"):
                raise InputError(f"{self.operator.name}: {name} is {shown(parameter)}; expected a tensor")
        for name, quantization in zip([*self.names[: self.input_count], "y"], quantizations, strict=False):
            if not isinstance(quantization, Quantization):
                raise InputError(
                    f"{self.operator.name}: the quantization of {name} is {shown(quantization)}; expected a "
                    "Quantization(scale, zero_point)"
                )

    def arguments(
        self,
        operator: Operator,
        inputs: Sequence[Tensor],
        input_quantization: Sequence[Quantization],
        output_quantization: Quantization | None = None,
        parameters: Sequence[Tensor | None] = (),
    ) -> tuple[Any, ...]:
        """The arguments of the custom operator for one layer."""
        arguments: list[Any] = [*inputs, *parameters]
        outputs = [] if output_quantization is None else [output_quantization]
        dtypes = [[one.dtype for one in quantizations] for quantizations in (input_quantization, outputs)]
        if not any(each.takes(dtypes[0]) and each.makes(dtypes[1]) for each in operator.signatures):
            expected = " or ".join(dict.fromkeys(map(str, operator.signatures)))
            given = " -> ".join(map(", ".join, dtypes))
            raise InputError(f"{operator.name}: the quantizations are of {given}; expected {expected}")
        for quantization in (*input_quantization, *outputs):
            arguments += [quantization.scale, quantization.zero_point]
            arguments += [quantization.dtype] if self.has_dtypes else []
        for name, kind in zip(self.field_names, self.field_types, strict=True):
            value = getattr(operator, name)
            arguments.append(repr(value) if kind == _LITERAL else value)
        return tuple(arguments)

    def _layer(self, arguments: Sequence[Any]) -> tuple[Layer, Sequence[Tensor | None]]:
        """The layer of the custom operator's arguments, and the parameters as given."""
        tensors, rest = arguments[: self.tensor_count], list(arguments[self.tensor_count :])
        count = self.input_count + self.free_output
        size = 3 if self.has_dtypes else 2
        quantizations = [Quantization(*rest[size * index : size * (index + 1)]) for index in range(count)]
        attributes = {}
        for name, kind, value in zip(self.field_names, self.field_types, rest[size * count :], strict=True):
            if kind == _LITERAL:
                value = ast.literal_eval(value)
            attributes[name] = tuple(value) if kind == "int[]" else value
        output = self.rule.quantization if isinstance(self.rule, Fixed) else quantizations[-1]
        layer = Layer(
            self.operator(**attributes),
            tensors[: self.input_count],
            input_quantizations=quantizations[: self.input_count],
            output_quantizations=[output],
        )
        return layer, tensors[self.input_count :]

    def _integer_layer(self, arguments: Sequence[Any]) -> Layer:
        """The layer with integer inputs and nano-core's tensors."""
        layer, parameters = self._layer(arguments)
        tensors = self.parameters.tensors(layer, *parameters)
        return replace(layer, inputs=self._integers(layer), tensors=tensors)

    def _real_layer(self, arguments: Sequence[Any]) -> Layer:
        """The layer with the inputs as given and parameters in real numbers."""
        layer, parameters = self._layer(arguments)
        return replace(layer, parameters=self.parameters.real(layer, *parameters))

    def _run_native(self, *arguments: Any) -> Tensor:
        shapes = (argument.to("meta") if isinstance(argument, Tensor) else argument for argument in arguments)
        (y,) = run_native(self._integer_layer(arguments), [tuple(self._fake(*shapes).shape[1:])])
        return y.to(torch.float32)

    def run_torch(self, *arguments: Any) -> Tensor:
        """The custom operator in plain torch, for other devices than the CPU."""
        (y,) = self._integer_layer(arguments).integer_run()
        return y.to(torch.float32).contiguous()

    def _integers(self, layer: Layer) -> list[Tensor]:
        quantizations = layer.input_quantizations
        integers = [x.to(q.torch_dtype) for x, q in zip(layer.inputs, quantizations, strict=True)]
        given = zip(self.names, layer.inputs, integers, quantizations, strict=False)
        for name, x, integer, quantization in given:
            if x.dtype != torch.float32 or not torch.equal(integer.to(torch.float32), x):
                check_integers(f"{self.operator.name}: {name}", x, *quantization.bounds)
        return integers

    def _fake(self, *arguments: Any) -> Tensor:
        (y,) = self._real_layer(arguments).float_run()
        return torch.empty(y.shape, dtype=torch.float32, device=y.device)

    def _run_backward(self, grad: Tensor, needed: Sequence[bool], *arguments: Any) -> list[Tensor]:
        wanted = [index for index, need in enumerate(needed) if need]

        def twin(*tensors: Tensor) -> Tensor:
            substituted = list(arguments)
            for index, tensor in zip(wanted, tensors, strict=True):
                substituted[index] = tensor
            return self._twin(self._real_layer(substituted))

        with exact_convolution(grad.device):
            pullback = torch.func.vjp(twin, *(arguments[index] for index in wanted))[1]
            return [gradient.contiguous() for gradient in pullback(grad)]

    def _twin(self, layer: Layer) -> Tensor:
        """The layer in float: the output in its integer units, not rounded, clamped to its dtype."""
        output = layer.output_quantization
        inputs = [
            (x - quantization.zero_point) * quantization.scale
            for x, quantization in zip(layer.inputs, layer.input_quantizations, strict=True)
        ]
        (y,) = replace(layer, inputs=inputs).float_run()
        low, high = output.bounds
        return (y / output.scale + output.zero_point).clamp(low - 0.5, high + 0.5)

    def _fake_backward(self, grad: Tensor, needed: Sequence[bool], *arguments: Any) -> list[Tensor]:
        shapes = [argument.shape for argument, need in zip(arguments, needed, strict=False) if need]
        return [torch.empty(shape, device=grad.device) for shape in shapes]

    def save(self, ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Saves what the backward needs."""
        ctx.save_for_backward(*inputs[: self.tensor_count])
        ctx.others = inputs[self.tensor_count :]

    def gradients(self, ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of all arguments, from what :meth:`save` has saved."""
        return self.gradients_by(self.backward_op, ctx, grad)

    def gradients_by(
        self, backward: Callable[..., Sequence[Tensor]], ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, ...]:
        """:meth:`gradients` with `backward` in place of the custom operator."""
        needs = list(ctx.needs_input_grad[-len(self.names) :])
        for name, need in zip(self.names[self.differentiable :], needs[self.differentiable :], strict=True):
            if need:
                raise InputError(f"{self.operator.name}: {name} has no gradient; detach it")
        gradients = iter(backward(grad, needs[: self.differentiable], *ctx.saved_tensors, *ctx.others))
        return tuple(next(gradients) if need else None for need in needs)


class _StraightThrough(torch.autograd.Function):
    """A custom operator as an autograd Function, as torch.func's transforms need it; not when compiling."""

    generate_vmap_rule = True

    @staticmethod
    def forward(definition: Definition, *arguments: Any) -> Tensor:
        return definition.forward_op(*arguments)  # type: ignore[no-any-return]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.definition, *arguments = inputs
        ctx.definition.save(ctx, tuple(arguments), output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        def backward(*arguments: Any) -> Sequence[Tensor]:
            return _Gradients.apply(ctx.definition, *arguments)  # type: ignore[no-any-return]

        return (None, *ctx.definition.gradients_by(backward, ctx, grad))


class _Gradients(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(definition: Definition, *arguments: Any) -> tuple[Tensor, ...]:
        return tuple(definition.backward_op(*arguments))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> None:
        no_second_derivative(ctx, *grads)


def _one_by_one(
    op: Callable[..., Any], info: Any, batch_dims: Sequence[Any], *arguments: Any
) -> tuple[Any, Any]:
    """An operator under torch.vmap: one call per slice."""

    def slices(index: int) -> list[Any]:
        pairs = zip(arguments, batch_dims, strict=True)
        return [a.select(dim, index) if isinstance(dim, int) else a for a, dim in pairs]

    results = [op(*slices(index)) for index in range(info.batch_size)]
    if isinstance(results[0], Tensor):
        return torch.stack(results), 0
    stacked = [torch.stack(parts) for parts in zip(*results, strict=True)]
    return stacked, [0] * len(stacked)


def no_second_derivative(ctx: Any, *grads: Any) -> None:
    """The double backward, which raises."""
    raise NotImplementedError(
        "straight-through gradients have no derivative: torch_nano has no double backward"
    )


def _schema_type(hint: Any) -> str:
    if get_origin(hint) is tuple and set(get_args(hint)) <= {int, Ellipsis}:
        return "int[]"
    return _SCHEMA_TYPES.get(hint, _LITERAL)


def check_integers(what: str, tensor: Tensor, low: int, high: int) -> None:
    """Raises InputError unless the tensor is float32 and holds integers from low to high."""
    if tensor.dtype != torch.float32:
        raise InputError(
            f"{what} is {tensor.dtype}; expected float32 that holds integers from {low} to {high}"
        )
    wrong = ~((tensor == tensor.round()) & (tensor >= low) & (tensor <= high))
    if bool(wrong.any()):
        found = float(tensor[wrong][0])
        raise InputError(f"{what} holds {found}; expected integers from {low} to {high}: quantize it first")
