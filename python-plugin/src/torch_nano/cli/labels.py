"""Conversion between labels in files and the targets and predictions of a device's head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arguments import class_index, shown
from ..device.answers import Prediction
from ..errors import LabelError
from .sample_files import SampleFile, SampleFileError, number

#: Separates the names of several right classes.
_AND = "|"


class Labels:
    """The labels of a device's head.

    Args:
        target: the kind of its targets (:attr:`torch_nano.device.DeviceInfo.target`); None, without a head:
            "class".
        classes: number of classes.
        names: of the classes; "" for one without a name.
    """

    def __init__(self, target: str | None, classes: int, names: Sequence[str]) -> None:
        self._target = target or "class"
        self._classes = classes
        self._names = names

    def index(self, text: str) -> int:
        """The class with this name, or with this index unless a class has a number as its name.

        >>> labels = Labels("class", 3, ["walk", "run", ""])
        >>> labels.index("run"), labels.index("2")
        (1, 2)
        >>> Labels("class", 2, ["1", "2"]).index("1")
        0
        >>> Labels("class", 2, ["1", "2"]).index("0")
        Traceback (most recent call last):
        torch_nano.errors.LabelError: no class is called '0'; the classes are 1, 2

        Raises:
            LabelError: there is no such class.
        """
        if not (text.isascii() and text.isdecimal()) or text in self._names:
            return class_index(text, self._classes, self._names)
        if any(name.isdecimal() for name in self._names):
            known = ", ".join(name for name in self._names if name)
            raise LabelError(f"no class is called {text!r}; the classes are {known}")
        # Without leading zeros: Python refuses integers of several thousand digits.
        digits = text.lstrip("0") or "0"
        if len(digits) > len(str(self._classes)):
            raise LabelError(f"there is no class {shown(text)}; expected 0 to {self._classes - 1}")
        return class_index(int(digits), self._classes, self._names)

    def read(self, table: SampleFile) -> list[Any]:
        """The labels of a file, for :meth:`torch_nano.Device.fit`.

        Raises:
            SampleFileError: it has no labels, or not the kind that the head learns from.
        """
        given = table.require_labels()
        texts = given.dtype.kind in "UO" and given.ndim == 1
        if not texts:
            self._require_shape(table, given)
        labels = []
        for sample, label in enumerate(given.tolist()):
            place = table.place(sample)
            try:
                labels.append(self._of_text(place, label) if texts else self._of_array(label))
            except LabelError as error:
                raise SampleFileError(f"{place}: {error}") from error
        return labels

    def _of_text(self, place: str, text: str) -> Any:
        match self._target:
            case "value":
                return number(place, text)
            case "labels":
                right = {self.index(part.strip()) for part in text.split(_AND)} if text else set()
                return [index in right for index in range(self._classes)]
        return self.index(text)

    def _of_array(self, label: Any) -> Any:
        match self._target:
            case "value":
                return float(label)
            case "labels":
                return list(label)
        return class_index(label, self._classes, self._names)

    def _require_shape(self, table: SampleFile, given: NDArray[np.generic]) -> None:
        kinds, shape, expected = {
            "class": ("iu", given.shape[:1], "names or integers (indices) [N]"),
            "labels": (
                *("b", (len(given), self._classes)),
                f"bool [N, {self._classes}], or names with '{_AND}' between them [N]",
            ),
            "value": ("fiu", given.shape[:1], "numbers [N]"),
        }[self._target]
        if given.dtype.kind not in kinds or given.shape != shape:
            found = f"y has dtype {given.dtype} and shape {list(given.shape)}"
            raise SampleFileError(f"{table.path}: {found}; this head learns from {expected}")

    def shown(self, made: Prediction) -> str:
        """A prediction as a line: class or value, confidence and margin; in brackets if rejected."""
        if self._target == "value":
            return f"{made.value:.6g}"
        if self._target == "labels":
            assert made.right is not None
            return f" {_AND} ".join(self._named(index) for index in made.right) or "none"
        text = self._named(made.label)
        sure = "" if made.confidence is None else f"  {made.confidence:.3f}  margin {made.margin:.3f}"
        return (text if made.known else f"({text})") + sure

    def _named(self, index: int) -> str:
        name = self._names[index] if index < len(self._names) else ""
        return f"{index} {name}".strip()

    def score(self, made: Sequence[Prediction], labels: Sequence[Any]) -> str:
        """The accuracy or the error of predictions, as a line."""
        if self._target == "value":
            errors = np.abs([one.value - label for one, label in zip(made, labels, strict=True)])
            return f"off by {errors.mean():.4g} on average, by {errors.max():.4g} at most"
        if self._target == "labels":
            right = sum(
                one.right == tuple(np.flatnonzero(label).tolist())
                for one, label in zip(made, labels, strict=True)
            )
        else:
            right = sum(one.known and one.label == label for one, label in zip(made, labels, strict=True))
        unsure = sum(not one.known for one in made)
        rejected = f", {unsure} not sure enough" if unsure else ""
        return f"{right} of {len(made)} right, {100 * right / len(made):.1f} %{rejected}"
