"""What a model was, to be put back."""

from __future__ import annotations

import torch
from torch import nn

from .freeze import is_frozen


class Backup:
    """What a model was before a batch: batch norm statistics that saw NaN stay NaN.

    Args:
        model: its buffers are saved, but for those of frozen modules, which do not change.
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
        """Remembers everything as it is."""
        self._saved = [getattr(module, name).detach().clone() for module, name in self._places]

    @torch.no_grad()
    def restore(self) -> None:
        """Makes everything what it was."""
        for (module, name), saved in zip(self._places, self._saved, strict=True):
            getattr(module, name).copy_(saved)
