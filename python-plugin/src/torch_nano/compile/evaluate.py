"""Evaluation of a converted model, and of the float model beside it, on labelled data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ..calibration.batches import Batch
from ..data.forms import indices_of
from ..errors import InputError
from ..evaluation.evaluation import Evaluation, Predictions, names_of_classes
from ..modules.inputs import Inputs
from ..modules.models import own_module
from ..modules.modes import evaluation_mode

#: From a batch's inputs to the scores of all classes [N, classes], or to the predicted classes [N]; and
#: whether each sample is of a known class, None where nothing is rejected.
Predict = Callable[[Sequence[Tensor]], tuple[Tensor, Tensor | None]]


def evaluate(
    name: str,
    batches: Iterable[Batch],
    labels: Sequence[str],
    classes: int,
    predict: Predict,
    model: nn.Module | None,
    inputs: Sequence[str],
) -> Evaluation:
    """See :meth:`torch_nano.NanoModule.evaluate`.

    Args:
        labels: the names of the classes.
        classes: their number.
        predict: the model in int8.
        model: the float model, or None.
        inputs: the names of the models' inputs.

    Raises:
        InputError: no data, no labels, or wrong ones.
    """
    made, of_float = Predictions(), Predictions()
    float_model = None if model is None else own_module(model)
    with torch.no_grad(), nullcontext() if float_model is None else evaluation_mode(float_model):
        for batch in batches:
            if not len(batch):
                continue
            if batch.labels is None:
                raise InputError(
                    "the evaluation data has no labels; expected (x, y), or dicts with their labels under 'y'"
                )
            truth = indices_of(batch.labels, labels, classes, "the evaluation data")
            if truth.dim() != 1:
                raise InputError(
                    f"the evaluation data has labels of shape {tuple(truth.shape)}; expected one class for "
                    "each sample, [N]"
                )
            scores, known = predict(batch.inputs)
            made.add(scores, truth, known)
            if float_model is not None:
                of_float.add(_float_scores(float_model, inputs, batch, classes), truth)
    if not made.samples:
        raise InputError("the evaluation data is empty; expected at least one sample")
    return made.evaluation(
        name, names_of_classes(labels, classes), None if float_model is None else of_float.predicted
    )


def only_output(returned: object) -> Tensor:
    """The tensor that a model returns, alone or in a tuple, list or dict.

    Raises:
        InputError: the model returns several, or none.
    """
    outputs = [leaf for leaf in tree_leaves(returned) if isinstance(leaf, Tensor)]
    if len(outputs) != 1:
        raise InputError(
            f"the model returns {len(outputs)} tensors; evaluate takes a model that returns the scores of "
            "classes [N, classes]"
        )
    return outputs[0]


def _float_scores(model: nn.Module, inputs: Sequence[str], batch: Batch, classes: int) -> Tensor:
    parameter = next(model.parameters(), None)
    place = torch.device("cpu") if parameter is None else parameter.device
    tensors = [x.to(place) for x in batch.inputs]
    positional = len(inputs) == 1
    given = Inputs(tuple(tensors)) if positional else Inputs((), dict(zip(inputs, tensors, strict=True)))
    scores = only_output(given.call(model)).cpu()
    if scores.dim() > 1 and scores.shape[1:] != (classes,):
        raise InputError(
            f"the float model returns shape {tuple(scores.shape)}; expected [N, {classes}], the classes "
            "of the converted model"
        )
    return scores
