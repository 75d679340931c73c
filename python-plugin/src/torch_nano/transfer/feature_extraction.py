"""Feature extraction: the frozen part of a model runs once, and the head learns from the cached features."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from ..errors import InputError
from ..modules.explain import run
from ..modules.freeze import training_only
from ..modules.models import check_numbers, own_module
from ..modules.modes import evaluation_mode
from ..modules.names import module_named
from ..modules.outputs import not_called
from ..training.data import TrainingData, batches_of, split_batch, to_device
from ..training.fit import fit, move
from ..training.history import History


def extract_features(
    model: nn.Module, data: TrainingData, split: str, *, batch_size: int = 64
) -> TensorDataset:
    """Runs a model once over data, in evaluation mode, and keeps the inputs of the module `split`.

    Args:
        model: its output must be that of the module `split`: its last one, a head.
        data: as in :func:`~torch_nano.fit`: a loader, a dataset or two tensors. Their order is kept.
        split: name of the module, as in `model.named_modules()`.
        batch_size: of datasets and tensors.

    Returns:
        The features [N, ...] and targets [N, ...] of all samples, on the model's device: data for `fit`.

    Raises:
        ModuleNameError: there is no such module, or the model does not call it.
        InputError: the model goes on after the module, calls it several times or not with one tensor; or the
            data are something else.

    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> features, targets = extract_features(model, (torch.randn(10, 4), torch.arange(10) % 3), "2").tensors
    >>> features.shape, targets.shape
    (torch.Size([10, 8]), torch.Size([10]))
    """
    model = own_module(model)
    check_numbers(model)
    module = module_named(model, split)
    if module is model:
        raise InputError(
            "split is the model itself; expected a module inside it, whose input are the features"
        )
    inputs: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    outputs: list[Any] = []

    def before(module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        # Copies, here and below: a later in-place operation would change them.
        inputs.append((tuple(map(_copy, arguments)), keywords))

    def after(module: nn.Module, arguments: Any, output: Any) -> None:
        outputs.append(_copy(output))

    place = next(model.parameters(), torch.empty(0)).device
    features: list[Tensor] = []
    targets: list[Tensor] = []
    with (
        evaluation_mode(model),
        torch.no_grad(),
        module.register_forward_pre_hook(before, with_kwargs=True),
        module.register_forward_hook(after),
    ):
        for index, batch in enumerate(
            batches_of(data, batch_size=batch_size, shuffle=False, name="the data")
        ):
            where = f"batch {index} of the data"
            x, target = to_device(split_batch(batch, where), place)
            inputs.clear()
            outputs.clear()
            result = run(model, x, where)
            if not outputs:
                raise not_called(model, split)
            if len(outputs) > 1:
                raise InputError(
                    f"the model calls {split!r} {len(outputs)} times; expected one call, whose input is kept"
                )
            _check_last(split, outputs[0], result)
            features.append(_only_tensor(split, *inputs[0]))
            targets.append(_target(target, index))
    if not features:
        raise InputError("the data have no batches; expected at least one")
    return TensorDataset(torch.cat(features), torch.cat(targets))


def feature_extraction(
    model: nn.Module,
    train: TrainingData,
    val: TrainingData | None = None,
    *,
    head: str,
    epochs: int,
    batch_size: int = 64,
    device: torch.device | str | None = None,
    **fit_options: Any,
) -> History:
    """Freezes all but the head, runs the frozen part once over the data, and trains the head on its features.

    An epoch then costs only the head's training; the weights are those of `fit` with the frozen part in the
    loop, on the same batches. The features are held in memory. Random augmentation in the data is drawn once:
    for another draw in every epoch, freeze and `fit`.

    Args:
        model: any nn.Module whose last module is the head. All but the head stays frozen.
        train: as in :func:`~torch_nano.fit`. The features are shuffled in every epoch.
        val: likewise.
        head: name of the module that is trained, all of it; as in `model.named_modules()`.
        batch_size: of the head's training, and of the frozen part's run over datasets and tensors.
        device: where to train; the model stays there. None: where the model is.
        fit_options: of :func:`~torch_nano.fit`; `learning_rates` names modules of the head.

    Returns:
        The history of the head's training; its seconds do not include the frozen part.

    Raises:
        ModuleNameError: there is no such head, or the model does not call it.
        InputError: the model goes on after the head, calls it several times or not with one tensor.
        FreezeError: the head shares a parameter with the frozen part.

    Also those of :func:`~torch_nano.fit`. After an error the same modules are frozen as before.

    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> x = torch.randn(100, 4)
    >>> y = (x[:, 0] > 0).long()
    >>> history = feature_extraction(model, (x, y), head="2", epochs=3, progress=False)
    >>> len(history), [parameter.requires_grad for parameter in model.parameters()]
    (3, [False, False, True, True])
    """
    model = own_module(model)
    check_numbers(model)
    module = module_named(model, head)
    if module is model:
        raise InputError("head is the model itself, so nothing would be frozen; fit trains all of a model")
    if device is not None:
        move(model, device)
    with training_only(model, module):
        cached = extract_features(model, train, head, batch_size=batch_size)
        cached_val = None if val is None else extract_features(model, val, head, batch_size=batch_size)
        return fit(module, cached, cached_val, epochs=epochs, batch_size=batch_size, **fit_options)


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def _only_tensor(split: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Tensor:
    if len(arguments) != 1 or keywords or not isinstance(arguments[0], Tensor):
        raise InputError(f"the model calls {split!r} with more than one tensor; expected one, the features")
    return arguments[0]


def _check_last(split: str, output: Any, result: Any) -> None:
    """Raises an InputError unless the module's output is the model's."""
    if (
        not isinstance(output, Tensor)
        or not isinstance(result, Tensor)
        or output.shape != result.shape
        or not torch.allclose(output, result, rtol=0, atol=0, equal_nan=True)
    ):
        raise InputError(
            f"the model goes on after {split!r}, so training that alone would be another training; name the "
            "last module, or freeze the others and fit the model"
        )


def _target(target: Any, index: int) -> Tensor:
    if not isinstance(target, Tensor):
        raise InputError(
            f"batch {index} of the data has targets of type {type(target).__name__}; expected a tensor"
        )
    return target
