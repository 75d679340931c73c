"""Backup of a model's buffers and parameters."""

from __future__ import annotations

import torch
from torch import nn

from .freeze import is_frozen


class Backup:
    """A backup of a model before a batch, as batch norm statistics that have seen NaN stay NaN.

    Args:
        model: its buffers are saved, except those of frozen modules, which do not change.
        with_parameters: save its parameters too.
    """

    def __init__(self, model: nn.Module, *, with_parameters: bool = False) -> None:
        self._places = [
            (module, name)
            for module in model.modules()
            if not is_frozen(module)
            for name, _ in (
                *module.named_buffers(recurse=False),
                *(module.named_parameters(recurse=False) if with_parameters else ()),
            )
        ]
        self.save()

    def save(self) -> None:
        """Saves the present values."""
        self._saved = [getattr(module, name).detach().clone() for module, name in self._places]

    @torch.no_grad()
    def restore(self) -> None:
        """Restores the saved values."""
        for (module, name), saved in zip(self._places, self._saved, strict=True):
            getattr(module, name).copy_(saved)
