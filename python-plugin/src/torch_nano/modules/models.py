"""Checks of a given model: an nn.Module, taken out of its wrappers, with parameters that have numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim.swa_utils import AveragedModel

from ..arguments import shown
from ..errors import InputError

_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)


class QuantizedModule(nn.Module):
    """Base class of modules that compute in the device's integers, without calling submodules."""


def own_module(model: object, name: str = "model") -> nn.Module:
    """The user's module inside wrappers that only call it: torch.compile, DataParallel,
    DistributedDataParallel, AveragedModel.

    Names of modules and parameters are always those of this module.

    Args:
        name: of the argument, for the message.

    Raises:
        InputError: it is not an nn.Module.

    >>> own_module(nn.DataParallel(nn.ReLU()))
    ReLU()
    """
    if not isinstance(model, nn.Module):
        way_out = ""
        if isinstance(model, type) and issubclass(model, nn.Module):
            way_out = f": a module of that class is {model.__name__}(...)"
        elif isinstance(model, torch.export.ExportedProgram):
            way_out = ": the one that was exported"
        raise InputError(f"{name} is {shown(model)}; expected an nn.Module{way_out}")
    while True:
        inner = model.module if isinstance(model, _WRAPPERS) else getattr(model, "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def check_changeable(model: nn.Module) -> None:
    """Checks that the parameters can be frozen and trained: none is lazy (without a shape yet), or made under
    torch.inference_mode.

    Raises:
        InputError: one is; the message names the first one.
    """
    lazy = [name for name, tensor in _tensors(model) if is_lazy(tensor)]
    if lazy:
        raise InputError(
            f"the shape of {_listed(lazy)} is not known yet, as the module is lazy; call the model with one "
            "batch first"
        )
    for name, tensor in _tensors(model):
        if tensor.is_inference():
            raise InputError(
                f"{name!r} was made under torch.inference_mode(), which rules out all but running the model; "
                "make the model outside of it"
            )


def check_numbers(model: nn.Module) -> None:
    """Checks that all parameters and buffers have shapes and numbers, and are dense.

    Raises:
        InputError: some do not; the message names the first ones.
    """
    check_changeable(model)
    empty = [name for name, tensor in _tensors(model) if tensor.is_meta]
    if empty:
        raise InputError(
            f"{_listed(empty)} of the model is on the meta device, which holds no numbers; make the model "
            "outside of torch.device('meta'), or model.to_empty(device='cpu') and load_state_dict"
        )
    for name, tensor in _tensors(model):
        if tensor.layout != torch.strided:
            raise InputError(f"{name!r} is of layout {tensor.layout}; expected a dense tensor: to_dense()")


def check_not_scripted(modules: Iterable[tuple[str, nn.Module]]) -> None:
    """Checks that no module, given with its name, is TorchScript: those run without Python, so they can
    neither be captured nor hooked.

    Raises:
        InputError: one is; the message names the first one.
    """
    for name, module in modules:
        if isinstance(module, torch.jit.ScriptModule):
            raise InputError(
                f"{f'module {name!r}' if name else 'the model'} is a TorchScript module "
                f"({type(module).__name__}), which cannot be looked into; give the nn.Module that it was "
                "made from"
            )


def check_float(model: nn.Module) -> None:
    """Checks that no part of the model is quantized already.

    Raises:
        InputError: one is; the message names the first such module.
    """
    for name, module in model.named_modules():
        package = type(module).__module__
        if isinstance(module, QuantizedModule):
            # The package in which users know its class.
            package = "torch_nano"
        elif not (package.startswith("torch.ao.nn.") and "quantized" in package):
            continue
        raise InputError(
            f"{f'module {name!r}' if name else 'the model'} is a {package}.{type(module).__name__}, which is "
            "quantized already; give the float model it was made from"
        )


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _listed(names: list[str]) -> str:
    return repr(names[0]) + (f" (and {len(names) - 1} more)" if len(names) > 1 else "")
