"""What predictions on labelled data are worth; it prints and draws itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..drawing import axes_to_draw_in, draw_matrix, name_ticks
from ..errors import InputError
from ..tables import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

#: Samples among the worst that are printed.
_WORST = 5
#: Classes of a confusion matrix that is printed.
_MATRIX = 12


@dataclass(frozen=True)
class ClassScore:
    """How one class is recognised; shares are 0 to 1, None where they are of nothing."""

    name: str
    #: Samples of this class.
    samples: int
    #: Of the samples that are predicted as this class, the share that are.
    precision: float | None
    #: Of the samples of this class, the share that are predicted as it.
    recall: float | None
    #: The harmonic mean of precision and recall.
    f1: float | None
    #: The recall of the float model, if it is known.
    float_recall: float | None


@dataclass(frozen=True)
class WorstSample:
    """A sample that is recognised worst."""

    #: Its place in the data, from 0.
    index: int
    truth: str
    predicted: str
    #: The right class's score minus the largest of the others', in units of the outputs; below 0 if the
    #: prediction is wrong.
    margin: float
    #: What the float model predicts, if it is known.
    float_predicted: str | None


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation:
    """Predictions for labelled samples against their labels; prints as tables, and :meth:`plot` draws the
    confusion matrix.

    >>> import torch, torch_nano as tn
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    >>> x, y = torch.randn(64, 4), torch.arange(64) % 3
    >>> made = tn.to_nano(model, x, calibrate=x).evaluate((x, y), model)
    >>> made.samples, int(made.confusion.sum()), 0 <= made.float_accuracy <= 1
    (64, 64, True)
    """

    #: What predicted: the name of a model, a head or a device.
    name: str
    #: The classes' names; where they have none, their indices as text.
    labels: tuple[str, ...]
    #: The right classes, int64 [N].
    truth: Ints
    #: The predicted classes, int64 [N].
    predicted: Ints
    #: The right class's score minus the largest of the others', [N]; see :attr:`WorstSample.margin`.
    margins: Floats
    #: What the float model predicts, int64 [N]; None if it is not known.
    float_predicted: Ints | None = None
    #: Whether a sample is taken for one of a known class, bool [N]; None where nothing is rejected.
    known: NDArray[np.bool_] | None = None

    @property
    def samples(self) -> int:
        """Number of samples."""
        return len(self.truth)

    @property
    def accuracy(self) -> float:
        """Share, 0 to 1, of the samples whose class is predicted."""
        return _share(self.predicted == self.truth)

    @property
    def balanced_accuracy(self) -> float:
        """The mean recall of the classes that have samples: rare classes count as much as others."""
        return float(np.mean([each.recall for each in self.classes if each.recall is not None]))

    @property
    def float_accuracy(self) -> float | None:
        """The accuracy of the float model; None if it is not known."""
        return None if self.float_predicted is None else _share(self.float_predicted == self.truth)

    @property
    def agreement(self) -> float | None:
        """Share of the samples for which the float model predicts the same class; None if it is not known."""
        return None if self.float_predicted is None else _share(self.float_predicted == self.predicted)

    @property
    def rejected(self) -> float | None:
        """Share of the samples that are taken for none of a known class; None where nothing is rejected."""
        return None if self.known is None else 1 - _share(self.known)

    @property
    def confusion(self) -> Ints:
        """The confusion matrix, int64 [classes, classes]: rows are the right classes, columns the predicted
        ones.
        """
        return confusion_of(self.truth, self.predicted, len(self.labels))

    @property
    def classes(self) -> tuple[ClassScore, ...]:
        """The score of each class."""
        matrix, of_float = self.confusion, None
        if self.float_predicted is not None:
            of_float = confusion_of(self.truth, self.float_predicted, len(self.labels))
        scores = []
        for index, name in enumerate(self.labels):
            right, own = matrix[index, index], matrix[index].sum()
            named = matrix[:, index].sum()
            scores.append(
                ClassScore(
                    name=name,
                    samples=int(own),
                    precision=_ratio(right, named),
                    recall=_ratio(right, own),
                    f1=_ratio(2 * right, own + named),
                    float_recall=None if of_float is None else _ratio(of_float[index, index], own),
                )
            )
        return tuple(scores)

    def worst(self, count: int = _WORST) -> tuple[WorstSample, ...]:
        """The samples that are recognised worst, least margin first."""
        order = np.argsort(self.margins, kind="stable")[: max(0, count)]
        return tuple(
            WorstSample(
                index=int(index),
                truth=self.labels[self.truth[index]],
                predicted=self.labels[self.predicted[index]],
                margin=float(self.margins[index]),
                float_predicted=None
                if self.float_predicted is None
                else self.labels[self.float_predicted[index]],
            )
            for index in order
        )

    def to_dict(self, worst: int = _WORST) -> dict[str, Any]:
        """The figures as plain Python values, as JSON can hold."""
        return {
            "name": self.name,
            "samples": self.samples,
            "accuracy": self.accuracy,
            "balanced_accuracy": self.balanced_accuracy,
            "float_accuracy": self.float_accuracy,
            "agreement": self.agreement,
            "rejected": self.rejected,
            "classes": [asdict(each) for each in self.classes],
            "confusion": self.confusion.tolist(),
            "worst": [asdict(each) for each in self.worst(worst)],
        }

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draws the confusion matrix: each row's shares as colours, and the numbers of samples.

        Args:
            ax: where to draw; a new figure if None.

        Raises:
            MissingPackageError: matplotlib is not installed.
        """
        ax = axes_to_draw_in(ax)
        draw_matrix(ax, self.confusion, self.labels)
        ax.set(xlabel="predicted", ylabel="right class", title=self.headline)
        return ax

    def plot_change(self, before: Evaluation, ax: Axes | None = None) -> Axes:
        """Draws what learning has changed: the recall of each class before and after.

        Args:
            before: the evaluation of the same samples before; it may have fewer classes.
            ax: where to draw; a new figure if None.

        Raises:
            InputError: `before` is of other samples.
            MissingPackageError: matplotlib is not installed.
        """
        if not np.array_equal(before.truth, self.truth):
            raise InputError(
                f"before is of {before.samples} samples, and this of {self.samples}, or their labels differ; "
                "expected evaluations of the same samples"
            )
        ax = axes_to_draw_in(ax, names=len(self.labels))
        recalls = [
            [float("nan") if each.recall is None else 100 * each.recall for each in one.classes]
            for one in (before, self)
        ]
        recalls[0] += [float("nan")] * (len(recalls[1]) - len(recalls[0]))
        places = range(len(self.labels))
        ax.vlines(places, recalls[0], recalls[1], color="C1", alpha=0.4, linewidth=5)
        ax.scatter(places, recalls[0], color="C7", label=f"before: {before.accuracy:.1%}", zorder=3)
        ax.scatter(places, recalls[1], color="C1", label=f"after: {self.accuracy:.1%}", zorder=3)
        name_ticks(ax, self.labels)
        ax.set(ylabel="recall (%)", title=f"{self.name}: {self.samples} samples", ylim=(-3, 103))
        ax.legend()
        return ax

    @property
    def headline(self) -> str:
        """Name, number of samples and accuracy in one line."""
        told = [f"accuracy {self.accuracy:.1%}"]
        if self.float_accuracy is not None:
            told = [f"accuracy {self.float_accuracy:.1%} in float, {self.accuracy:.1%} in int8"]
        return f"{self.name}: {self.samples} samples, {', '.join(told)}"

    @property
    def notes(self) -> list[str]:
        """Remarks in sentences: balanced accuracy, agreement with float, what is rejected."""
        notes = [f"balanced accuracy {self.balanced_accuracy:.1%}"]
        if self.agreement is not None:
            notes.append(f"same class as in float: {self.agreement:.1%}")
        if self.rejected is not None:
            notes.append(f"rejected as of no known class: {self.rejected:.1%}")
        return notes

    def tables(self, worst: int = _WORST) -> list[Table]:
        """Classes, confusion matrix and worst samples, as printed."""
        return [self._class_table(), self._matrix_table(), *self._worst_table(worst)]

    def _class_table(self) -> Table:
        of_float = self.float_predicted is not None
        headers = ["class", "samples", "precision", "recall", "F1", *["recall\nin float"] * of_float]
        table = Table(headers, self.headline, numbers=range(1, len(headers)), notes=self.notes)
        for each in self.classes:
            shares = [each.precision, each.recall, each.f1, *[each.float_recall] * of_float]
            table.add(each.name, str(each.samples), *map(_percent, shares))
        return table

    def _matrix_table(self) -> Table:
        names = self.labels
        if len(names) > _MATRIX:
            return self._confused_table()
        columns = range(1, len(names) + 1)
        table = Table(("right class", *names), "confusion matrix: columns are predicted", numbers=columns)
        for name, row in zip(names, self.confusion, strict=True):
            table.add(name, *map(str, row))
        return table

    def _confused_table(self) -> Table:
        """The pairs that are confused most, of a matrix too large to print."""
        table = Table(("right class", "predicted", "samples"), "confused most", numbers=[2])
        wrong = self.confusion.copy()
        np.fill_diagonal(wrong, 0)
        order = np.argsort(-wrong, axis=None, kind="stable")[:_MATRIX]
        for right, predicted in zip(*np.unravel_index(order, wrong.shape), strict=True):
            if wrong[right, predicted]:
                table.add(self.labels[right], self.labels[predicted], str(wrong[right, predicted]))
        return table

    def _worst_table(self, count: int) -> list[Table]:
        found = [each for each in self.worst(count) if each.margin < 0]
        if not found:
            return []
        of_float = self.float_predicted is not None
        headers = ["sample", "right class", "predicted", *["in float"] * of_float, "margin"]
        table = Table(headers, "worst samples", numbers=[0, len(headers) - 1])
        for each in found:
            float_cell = [each.float_predicted or ""] * of_float
            table.add(str(each.index), each.truth, each.predicted, *float_cell, f"{each.margin:.3g}")
        return [table]

    def __str__(self) -> str:
        return "\n\n".join(map(str, self.tables()))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return "".join(table.html() for table in self.tables())


def confusion_of(truth: Ints, predicted: Ints, classes: int) -> Ints:
    """The confusion matrix: rows are the right classes, columns the predicted ones.

    >>> confusion_of(np.array([0, 1, 1]), np.array([0, 0, 1]), 2).tolist()
    [[1, 0], [1, 1]]
    """
    matrix = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (truth, predicted), 1)
    return matrix


def margins_of(scores: NDArray[np.floating] | NDArray[np.integer], truth: Ints) -> Floats:
    """The right class's score minus the largest of the others', [N].

    Args:
        scores: of each class, [N, classes].
        truth: the right classes, [N].

    >>> margins_of(np.array([[1.0, 3.0, 0.0], [2.0, 0.0, 1.0]]), np.array([0, 0])).tolist()
    [-2.0, 1.0]
    """
    real = scores.astype(np.float64)
    rows = np.arange(len(real))
    own = real[rows, truth]
    others = real.copy()
    others[rows, truth] = -np.inf
    return np.asarray(own - others.max(1, initial=-np.inf), np.float64)


def names_of_classes(labels: Sequence[str], classes: int) -> tuple[str, ...]:
    """The classes' names; the index of one that has none.

    >>> names_of_classes(["walk", ""], 3)
    ('walk', '1', '2')
    """
    names = [*labels, *[""] * (classes - len(labels))]
    return tuple(name or str(index) for index, name in enumerate(names))


def _share(flags: NDArray[np.bool_]) -> float:
    return float(np.mean(flags))


def _ratio(part: int, whole: int) -> float | None:
    return float(part / whole) if whole else None


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


class Predictions:
    """Predictions, batch by batch, and their labels."""

    def __init__(self) -> None:
        self._parts: dict[str, list[NDArray[Any]]] = {
            name: [] for name in ("truth", "predicted", "margins", "known")
        }

    def add(self, scores: Tensor, truth: Tensor, known: Tensor | None = None) -> None:
        """Adds a batch.

        Args:
            scores: of all classes, [N, classes], or the predicted classes, integers [N].
            truth: the right classes, int64 [N].
            known: whether each is of a known class, bool [N]; None where nothing is rejected.

        Raises:
            InputError: the scores have another shape.
        """
        found, right = scores.detach().cpu().numpy(), truth.cpu().numpy()
        if found.ndim not in (1, 2) or len(found) != len(right):
            raise InputError(
                f"the model returns shape {found.shape} for {len(right)} samples; evaluate takes a model "
                "that returns one score for each class, [N, classes]"
            )
        if found.ndim == 1:
            predicted, margins = found.astype(np.int64), np.where(found == right, 0.0, -1.0)
        else:
            # The first of equal ones, as on a device.
            predicted, margins = found.argmax(1), margins_of(found, right)
        rejected = [] if known is None else [("known", known.cpu().numpy())]
        for name, part in [("truth", right), ("predicted", predicted), ("margins", margins), *rejected]:
            self._parts[name].append(part)

    @property
    def samples(self) -> int:
        """Number of samples."""
        return sum(map(len, self._parts["truth"]))

    @property
    def predicted(self) -> Ints:
        """The predicted classes, int64 [N]."""
        return np.concatenate(self._parts["predicted"])

    def evaluation(
        self, name: str, labels: tuple[str, ...], float_predicted: Ints | None = None
    ) -> Evaluation:
        """All predictions."""
        known = self._parts["known"]
        return Evaluation(
            name,
            labels,
            np.concatenate(self._parts["truth"]),
            self.predicted,
            np.concatenate(self._parts["margins"]),
            float_predicted,
            np.concatenate(known) if known else None,
        )
