"""Features of a model's layers: record, draw and compare them, or cut the model off after one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing

from ..arguments import shown
from ..drawing import axes_to_draw_in
from ..errors import InputError, ModuleNameError
from ..modules.explain import run
from ..modules.models import check_numbers, own_module
from ..modules.modes import evaluation_mode
from ..modules.names import module_named, names_in
from ..modules.outputs import first_tensor, not_called, recorded_outputs

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def get_layer_outputs(
    model: nn.Module, input_tensor: Tensor, layer_names: Sequence[str]
) -> dict[str, Tensor]:
    """The outputs of the named modules for one input, in evaluation mode.

    The model's modes are restored and its hooks removed, also after an exception. Gradients flow, unless
    they are switched off around the call. For a module that is called several times it is the last output,
    for one that returns a tuple (nn.GRU) the first element; later in-place operations do not change it.

    Args:
        input_tensor: the model's input, [N, ...].
        layer_names: names as in `model.named_modules()`; "" is the model itself.

    Raises:
        ModuleNameError: there is no such module, or the model does not call it.
        InputError: a module's output is not a tensor, or the model cannot take the input.

    >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    >>> {name: tuple(y.shape) for name, y in get_layer_outputs(model, torch.zeros(2, 4), ["0", "1"]).items()}
    {'0': (2, 3), '1': (2, 3)}
    """
    layer_names = names_in("layer_names", layer_names)
    model = own_module(model)
    check_numbers(model)
    modules = {name: module_named(model, name) for name in layer_names}
    with evaluation_mode(model), recorded_outputs(modules) as outputs:
        run(model, input_tensor, "input_tensor")
    for name in modules:
        if name not in outputs:
            raise not_called(model, name)
    return {name: outputs[name] for name in modules}


def visualize_layer_activations(
    model: nn.Module, input_tensor: Tensor, layer_name: str, *, ax: Axes | None = None
) -> Axes:
    """Draws a module's output for the first sample of an input, in evaluation mode.

    Feature maps [N, C, H, W] become a mosaic of the channels in reading order, series [N, C, L] an image of
    channels by positions, and vectors [N, F] an image of all samples by features.

    Args:
        input_tensor: the model's input, [N, ...].
        layer_name: as in `model.named_modules()`.
        ax: where to draw; a new figure if None.

    Returns:
        The axes; `axes.figure.savefig(...)` writes a file, a notebook shows the figure by itself.

    Raises:
        ModuleNameError: there is no such module, or the model does not call it.
        InputError: its output has another number of dimensions.
        TorchNanoError: matplotlib is not installed.
    """
    with torch.no_grad():
        output = get_layer_outputs(model, input_tensor, [layer_name])[layer_name].float().cpu()
    if output.ndim == 4:
        picture, x_label, y_label = _mosaic(output[0]), "", ""
    elif output.ndim == 3:
        picture, x_label, y_label = output[0], "position", "channel"
    elif output.ndim == 2:
        picture, x_label, y_label = output, "feature", "sample"
    else:
        raise InputError(
            f"{layer_name!r} gives {list(output.shape)}; can draw maps [N, C, H, W], series [N, C, L] and "
            "vectors [N, F]"
        )
    ax = axes_to_draw_in(ax)
    image = ax.imshow(
        picture.numpy(), aspect="equal" if output.ndim == 4 else "auto", interpolation="nearest"
    )
    ax.figure.colorbar(image, ax=ax, label="activation")
    sample = "" if output.ndim == 2 or len(output) == 1 else f", the first of {len(output)} samples"
    ax.set(title=f"{layer_name} {list(output.shape[1:])}{sample}", xlabel=x_label, ylabel=y_label)
    if output.ndim == 4:
        ax.set_axis_off()
    return ax


class FeatureExtractor(nn.Module):
    """A model up to one of its modules; made by :func:`get_model_feature_extractor`."""

    def __init__(self, model: nn.Module, output_layer: str) -> None:
        super().__init__()
        self.model = own_module(model)
        module_named(self.model, output_layer)
        self.output_layer = output_layer

    def forward(self, x: Tensor) -> Tensor:
        """The module's output for an input of the model, [N, ...]."""
        layer = module_named(self.model, self.output_layer)
        if torch.compiler.is_exporting():
            return self._traced(layer, x)
        with layer.register_forward_hook(_stop):
            try:
                self.model(x)
            except _Reached as reached:
                return reached.output
        raise not_called(self.model, self.output_layer)

    def _traced(self, layer: nn.Module, x: Tensor) -> Tensor:
        """For torch.export, which does not support leaving a forward early: the rest runs on, unused."""
        found = []

        def look_away(module: nn.Module, inputs: Any, output: Any) -> None:
            found.append(first_tensor(output, self.output_layer).clone())
            rest.enter_context(disable_proxy_modes_tracing())

        with ExitStack() as rest, layer.register_forward_hook(look_away):
            self.model(x)
        if not found:
            raise not_called(self.model, self.output_layer)
        return found[0]

    def extra_repr(self) -> str:
        return f"output_layer={self.output_layer!r}"


def get_model_feature_extractor(model: nn.Module, output_layer: str) -> FeatureExtractor:
    """A model that returns the output of one module of `model`, of its first call, and computes nothing after
    it.

    It shares its modules with `model`: training or freezing one affects the other. It can be trained,
    exported and made the base of a :class:`~torch_nano.transfer.TransferModel`; the image has nothing that
    comes after `output_layer`.

    Args:
        output_layer: as in `model.named_modules()`.

    Raises:
        ModuleNameError: there is no such module; at the first call: the model does not call it.

    >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> get_model_feature_extractor(model, "1")(torch.zeros(5, 4)).shape
    torch.Size([5, 3])
    """
    return FeatureExtractor(model, output_layer)


def compare_model_features(
    model1: nn.Module,
    model2: nn.Module,
    input_tensor: Tensor,
    layer_pairs: Sequence[tuple[str, str]],
    metric: Literal["cosine", "cka"] = "cosine",
) -> dict[tuple[str, str], float]:
    """Similarity of two models' modules on the same input; 1 is equal.

    "cosine": the mean over the samples of the cosine between the two outputs, in [-1, 1] (0 where one is all
    zeros); they need the same size. "cka": linear centred kernel alignment (Kornblith et al. 2019,
    "Similarity of Neural Network Representations Revisited", equation 4), in [0, 1], for outputs of any two
    sizes; invariant to rotation and scaling of the features.

    Args:
        input_tensor: the input of both models, [N, ...]; "cka" needs N >= 2, better many more.
        layer_pairs: pairs of names, the first of `model1`, the second of `model2`.

    Returns:
        The similarity of each pair.

    Raises:
        ModuleNameError: there is no such module, or a model does not call it.
        InputError: the metric is unknown, or not defined for these outputs.

    >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    >>> similar = compare_model_features(model, model, torch.eye(4), [("0", "0")], metric="cka")
    >>> round(similar["0", "0"], 6)
    1.0
    """
    measures = {"cosine": _cosine, "cka": _linear_cka}
    if metric not in measures:
        raise InputError(f'metric is {metric!r}; expected "cosine" or "cka"')
    pairs = []
    for pair in names_in("layer_pairs", layer_pairs):
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise ModuleNameError(f"layer_pairs has {shown(pair)}; expected pairs of names: [('0', '0')]")
        pairs.append(tuple(pair))
    with torch.no_grad():
        outputs1 = get_layer_outputs(model1, input_tensor, [first for first, _ in pairs])
        outputs2 = get_layer_outputs(model2, input_tensor, [second for _, second in pairs])
        return {
            (first, second): measures[metric](
                outputs1[first].double().flatten(1), outputs2[second].double().flatten(1), first, second
            )
            for first, second in pairs
        }


class _Reached(Exception):
    """Ends a model's forward at the module whose output is wanted."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output


def _stop(module: nn.Module, inputs: Any, output: Any) -> None:
    raise _Reached(first_tensor(output, type(module).__name__))


def _mosaic(maps: Tensor) -> Tensor:
    """Maps [C, H, W] side by side in a nearly square grid, one empty (NaN) pixel between two."""
    channels, height, width = maps.shape
    columns = math.ceil(math.sqrt(channels))
    rows = math.ceil(channels / columns)
    grid = maps.new_full((rows * columns, height + 1, width + 1), math.nan)
    grid[:channels, :height, :width] = maps
    tiled = grid.reshape(rows, columns, height + 1, width + 1).transpose(1, 2)
    return tiled.reshape(rows * (height + 1), columns * (width + 1))[:-1, :-1]


def _cosine(a: Tensor, b: Tensor, first: str, second: str) -> float:
    if a.shape != b.shape:
        raise InputError(
            f'{first!r} gives {a.shape[1]} features and {second!r} {b.shape[1]}; "cosine" needs the same '
            'number, metric="cka" compares any two'
        )
    return float(torch.cosine_similarity(a, b).mean())


def _linear_cka(a: Tensor, b: Tensor, first: str, second: str) -> float:
    a, b = a - a.mean(0), b - b.mean(0)
    for name, features in ((first, a), (second, b)):
        if not features.any():
            raise InputError(
                f'{name!r} gives the same features for all of the {len(features)} samples; "cka" compares '
                "how features differ: give more samples, that differ"
            )
    return float(_alignment(a, b) / (_alignment(a, a) * _alignment(b, b)).sqrt())


def _alignment(a: Tensor, b: Tensor) -> Tensor:
    """||a^T b||^2 of centred features, by the smaller of the matrices of features and of samples."""
    if a.shape[1] * b.shape[1] <= len(a) ** 2:
        return (a.T @ b).square().sum()
    return ((a @ a.T) * (b @ b.T)).sum()
