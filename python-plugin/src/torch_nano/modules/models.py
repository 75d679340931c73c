"""What a model that is given must be: a module, seen without its wrappers, with numbers in it."""

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
    """A module that computes in the device's integers: no float model, and without calls of modules in it."""


def own_module(model: object, name: str = "model") -> nn.Module:
    """The user's module inside the wrappers whose forward only calls it: torch.compile, DataParallel,
    DistributedDataParallel, AveragedModel.

    Names of modules and parameters are always those of this module.

    Args:
        name: of the argument, for the message.

    Raises:
        InputError: it is no nn.Module.

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
    """Refuses a model whose parameters cannot be frozen or trained: lazy ones that have no shape yet, and
    those made under torch.inference_mode.

    Raises:
        InputError: naming the first one.
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
    """Refuses a model whose parameters and buffers have no shapes or no numbers, or are not dense.

    Raises:
        InputError: naming the first ones.
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
    """Refuses TorchScript modules, given with their names: they run without Python, so that they can neither
    be captured nor watched.

    Raises:
        InputError: naming the first one.
    """
    for name, module in modules:
        if isinstance(module, torch.jit.ScriptModule):
            raise InputError(
                f"{f'module {name!r}' if name else 'the model'} is a TorchScript module "
                f"({type(module).__name__}), which cannot be looked into; give the nn.Module that it was "
                "made from"
            )


def check_float(model: nn.Module) -> None:
    """Refuses a model that is quantized already, or a part of it.

    Raises:
        InputError: naming the first such module.
    """
    for name, module in model.named_modules():
        package = type(module).__module__
        if isinstance(module, QuantizedModule):
            # Users know its class by this name.
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
