"""A pre-trained model with new layers on top."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..errors import InputError
from ..modules.freeze import freeze, unfreeze
from ..modules.models import own_module
from ..modules.names import names_in


class TransferModel(nn.Module):
    """`new_layers` on top of `base_model`: `new_layers(base_model(x))`.

    The two are not copied; they are taken out of wrappers (torch.compile and the like) and have the names
    "base_model" and "new_layers". Give a classifier without its last layer: `base.fc = nn.Identity()`, or
    the result of :func:`~torch_nano.transfer.get_model_feature_extractor`.

    Args:
        base_model: the pre-trained model, [N, ...] -> [N, features] or any input of `new_layers`.
        new_layers: the layers for the new task.
        freeze_base: freezes the base, as :func:`~torch_nano.freeze` does: batch norm and dropout too.
        fine_tune_layers: names or globs of modules in the base that stay trainable nevertheless.

    Raises:
        ModuleNameError: a name matches no module of the base.
        InputError: `fine_tune_layers` without `freeze_base`, with which everything is trainable; or an
            argument is not a module.

    >>> base = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU())
    >>> model = TransferModel(base, nn.Linear(8, 3), fine_tune_layers=["2"])
    >>> [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    ['base_model.2.weight', 'base_model.2.bias', 'new_layers.weight', 'new_layers.bias']
    """

    def __init__(
        self,
        base_model: nn.Module,
        new_layers: nn.Module,
        freeze_base: bool = True,
        fine_tune_layers: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        if fine_tune_layers is not None and not freeze_base:
            raise InputError(
                "fine_tune_layers names what stays trainable in a frozen base, but freeze_base=False leaves "
                "all of it trainable; leave one of the two out"
            )
        self.base_model = own_module(base_model, "base_model")
        self.new_layers = own_module(new_layers, "new_layers")
        if freeze_base:
            self.freeze_base_model()
        if fine_tune_layers is not None:
            self.unfreeze_layers(fine_tune_layers)

    def forward(self, x: Tensor) -> Tensor:
        """Inputs of the base, [N, ...] -> outputs of the new layers.

        Raises:
            InputError: the new layers begin with a Linear that the base's outputs do not fit.
        """
        features: Tensor = self.base_model(x)
        first = next(module for module in self.new_layers.modules() if not list(module.children()))
        if isinstance(first, nn.Linear) and not is_lazy(first.weight):
            _check_features(features, first)
        output: Tensor = self.new_layers(features)
        return output

    def get_base_model(self) -> nn.Module:
        """The base, as it was given."""
        return self.base_model

    def get_new_layers(self) -> nn.Module:
        """The new layers, as they were given."""
        return self.new_layers

    def freeze_base_model(self) -> None:
        """Freezes all of the base."""
        freeze(self.base_model)

    def unfreeze_base_model(self) -> None:
        """Unfreezes all of the base."""
        unfreeze(self.base_model)

    def unfreeze_layers(self, layer_names: Sequence[str]) -> None:
        """Unfreezes modules of the base, by names or globs as in `base_model.named_modules()`.

        Raises:
            ModuleNameError: a name matches no module of the base. The model is then unchanged.
        """
        unfreeze_layers(self.base_model, layer_names)


def freeze_layers(model: nn.Module, layer_names: Sequence[str] | None = None) -> None:
    """:func:`~torch_nano.freeze` with a list of names or globs; None is the whole model, an empty list
    nothing.

    Raises:
        ModuleNameError: a name matches no module. The model is then unchanged.

    >>> model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    >>> freeze_layers(model, ["0"])
    >>> [parameter.requires_grad for parameter in model.parameters()]
    [False, False, True, True]
    """
    if layer_names is None or names_in("layer_names", layer_names):
        freeze(model, *(layer_names or ()))


def unfreeze_layers(model: nn.Module, layer_names: Sequence[str] | None = None) -> None:
    """:func:`~torch_nano.unfreeze` with a list of names or globs; None is the whole model, an empty list
    nothing.

    Raises:
        ModuleNameError: a name matches no module. The model is then unchanged.
    """
    if layer_names is None or names_in("layer_names", layer_names):
        unfreeze(model, *(layer_names or ()))


def _check_features(features: Tensor, first: nn.Linear) -> None:
    """Raises an InputError unless the base's output fits the first of the new layers."""
    if features.shape[-1] != first.in_features:
        raise InputError(
            f"the base gives {list(features.shape)}, but the new layers begin with a Linear for "
            f"{first.in_features} features; {_way_out(features, first)}"
        )


def _way_out(features: Tensor, first: nn.Linear) -> str:
    if features.ndim > 2 and features.shape[1] == first.in_features:
        pool = {3: "AdaptiveAvgPool1d", 4: "AdaptiveAvgPool2d"}.get(features.ndim, "AdaptiveAvgPool3d")
        return f"begin with nn.{pool}(1), nn.Flatten()"
    if features.ndim > 2 and features[0].numel() == first.in_features:
        return "begin with nn.Flatten()"
    return (
        f"take nn.Linear({features.shape[-1]}, {first.out_features}), or a base without its last layer "
        "(get_model_feature_extractor)"
        if features.ndim == 2
        else "pool or flatten first, and count the features"
    )
