"""Modules that are unsupported by their class, refused before torch.export spends minutes on them."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn

from ..errors import UnsupportedError, UnsupportedNode
from ..modules.backup import Backup
from ..modules.explain import run
from ..modules.inputs import Inputs
from ..modules.modes import evaluation_mode
from ..modules.watching import watching
from .refusals import FAKE_QUANTIZATION

_BEFORE = "convert what is in front of it (torch_nano.transfer.get_model_feature_extractor)"
#: Classes -> the reason, and what to write instead.
_UNSUPPORTED: tuple[tuple[tuple[type[nn.Module], ...], str, str], ...] = (
    (
        (nn.RNNCellBase,),
        "it carries a state from step to step in a loop of forward",
        "use the module that runs all steps: nn.GRU for nn.GRUCell, nn.LSTM for nn.LSTMCell",
    ),
)


def check_modules(model: nn.Module, batch: Inputs) -> None:
    """Checks that a model does not call modules that are unsupported by their class or its options.

    If the model has such modules, it runs once on the batch: modules that it does not call are allowed.

    Raises:
        UnsupportedError: all such modules, in the order of their calls, without those inside of others.
        InputError: the model has such modules and cannot take the batch.
    """
    if not any(_refusal("", module) for module in model.modules()):
        return
    found: dict[str, UnsupportedNode] = {}
    inside: list[str] = []

    def before(name: str, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        refusal = _refusal(name, module)
        if refusal is not None:
            if not inside:
                found.setdefault(name, refusal)
            inside.append(name)

    def after(name: str, module: nn.Module, output: Any) -> None:
        if inside and inside[-1] == name:
            inside.pop()

    backup = Backup(model)
    with (
        evaluation_mode(model),
        torch.no_grad(),
        watching(model, before=before, after=after),
        warnings.catch_warnings(),
    ):
        # torch's own, of what is refused.
        warnings.filterwarnings("ignore", module=r"torch\.")
        run(model, batch, "the example")
    backup.restore()
    if found:
        raise UnsupportedError(list(found.values()))


def _refusal(name: str, module: nn.Module) -> UnsupportedNode | None:
    for classes, reason, way_out in _UNSUPPORTED:
        if isinstance(module, classes):
            return UnsupportedNode(name, "", f"nn.{_public_class(module)}", reason, way_out)
    if isinstance(module, nn.LSTM) and module.proj_size:
        return UnsupportedNode(
            name,
            "",
            f"nn.{_public_class(module)}",
            f"its hidden states are projected (proj_size={module.proj_size})",
            "leave proj_size out, and put an nn.Linear after it",
        )
    if isinstance(module, nn.MultiheadAttention) and (module.add_zero_attn or module.bias_k is not None):
        option = "add_zero_attn" if module.add_zero_attn else "add_bias_kv"
        return UnsupportedNode(
            name,
            "",
            f"nn.{_public_class(module)}",
            f"it attends to a position that its input does not have ({option}=True)",
            f"leave {option} out, and train again",
        )
    if isinstance(module, nn.Embedding) and module.max_norm is not None:
        return UnsupportedNode(
            name,
            "",
            f"nn.{_public_class(module)}",
            f"it scales its rows in forward (max_norm={module.max_norm:g})",
            "scale them once: embedding.weight.data.renorm_(embedding.norm_type, 0, embedding.max_norm), "
            "then embedding.max_norm = None",
        )
    if isinstance(module, nn.EmbeddingBag):
        return UnsupportedNode(
            name,
            "",
            f"nn.{_public_class(module)}",
            "it looks up rows and adds them in one call",
            "use nn.Embedding with the same weight, and .mean(1), .sum(1) or .amax(1)",
        )
    # By their names: torch.ao.quantization takes long to import, and only a model that has them needs it.
    if any(kind.__module__ == "torch.ao.quantization.fake_quantize" for kind in type(module).mro()):
        return UnsupportedNode(name, "", f"torch.ao.quantization.{type(module).__name__}", *FAKE_QUANTIZATION)
    return None


def _public_class(module: nn.Module) -> str:
    """The name of the module's class, or of torch's that it is derived from."""
    return next(kind.__name__ for kind in type(module).mro() if kind.__module__.startswith("torch.nn."))
