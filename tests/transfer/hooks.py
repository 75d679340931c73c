"""Counting the hooks of a model: what a function registers it must remove."""

from torch import nn


def hooks_of(model: nn.Module) -> list[tuple[str, str, int]]:
    """Module, kind of hook and number, of all hooks of all modules."""
    return [
        (name, kind, len(hooks))
        for name, module in model.named_modules()
        for kind, hooks in vars(module).items()
        if kind.endswith("_hooks") and hooks
    ]
