"""Base classes of trainable heads as nn.Modules."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from .. import _native
from ..arguments import TensorOrArray, as_tensors, check_tensor, class_index, shown, whole_number
from ..data.forms import Data, batches, indices_of, inputs_and_labels, is_one_batch
from ..drawing import axes_to_draw_in, draw_scatter
from ..errors import HeadError, InputError, LabelError
from ..evaluation.evaluation import Evaluation, Predictions, names_of_classes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Int8 = npt.NDArray[np.int8]
Targets = npt.NDArray[np.int64]
#: Classes as indices or names, or other targets of a head.
Labels = TensorOrArray | Sequence[int | str]
#: Samples of a dataset that are evaluated at a time.
_BATCH = 256


def checked_image(image: object) -> _native.Model:
    """An image, checked unless it is already.

    Raises:
        HeadError: it is not an image.
    """
    if isinstance(image, _native.Model):
        return image
    if not isinstance(image, bytes):
        raise HeadError(f"image is {shown(image)}; expected a .nano image as bytes (NanoModule.image)")
    try:
        return _native.Model(image)
    except _native.NanoError as error:
        raise HeadError(f"this image gives no trainable head: {error}") from error


def native_head(image: _native.Model) -> _native.Head:
    """nano-core's head of an image.

    Raises:
        HeadError: the image has no head.
    """
    try:
        return _native.Head(image)
    except _native.NanoError as error:
        raise HeadError(f"this image gives no trainable head: {error}") from error


def _state(given: object) -> bytes:
    """The state as bytes, given a head or its state."""
    if isinstance(given, Head):
        return given.state()
    if isinstance(given, bytes | bytearray | memoryview):
        return bytes(given)
    raise HeadError(
        f"the state is {shown(given)}; expected a head of this image, or the bytes of its state()"
    )


class Certainty(NamedTuple):
    """How sure a head is of its predictions, as a device says it."""

    #: The probability of the predicted class, float32 [N]: multiples of 1/32768. Zeros for a head whose
    #: classes do not exclude each other, as the margins.
    confidence: Tensor
    #: By how much it exceeds that of the second class, float32 [N]: a label helps most where it is least.
    margin: Tensor
    #: Squared distance of the features, in steps, to the nearest known class mean, int64 [N]; 2^32 - 1
    #: without one (:class:`torch_nano.heads.Rejection`).
    distance: Tensor
    #: Whether the sample is of a known class, bool [N]; all are without a rejection.
    known: Tensor


class Head(nn.Module):
    """A head on int8 features that learns in integers, exactly as on the device.

    Two heads of one image that get the same calls have the same bytes, here and on any device. Features are
    int8 [N, features] in the device's order, from :meth:`torch_nano.NanoModule.features_int8`. There are no
    float parameters: autograd and optimizers do not apply. Arrays of numpy are taken as tensors. Labels of
    classes are a tensor, an array or a list of indices, or of names that the model was given (`labels` of
    :func:`torch_nano.to_nano`).

    Args:
        image: a `.nano` image with a trainable head of this kind, as bytes or checked.

    Raises:
        HeadError: the image has no such head.
    """

    #: The trainer's name in summaries.
    name: ClassVar[str]

    def __init__(self, image: bytes | _native.Model) -> None:
        super().__init__()
        self._model = checked_image(image)
        self._head = native_head(self._model)
        if self._head.trainer != type(self).__name__:
            raise HeadError(f"this image's head is a {self._head.trainer}, not a {type(self).__name__}")

    @property
    def model_id(self) -> int:
        """:attr:`torch_nano.NanoModule.id` of the model that the head belongs to."""
        return self._model.id

    @property
    def classes(self) -> int:
        """Number of classes (or other outputs) at present."""
        return self._head.classes

    @property
    def capacity(self) -> int:
        """The largest number of classes it can have."""
        return self._head.capacity

    @property
    def features(self) -> int:
        """Number of features."""
        return self._head.features

    @property
    def layer_sizes(self) -> tuple[int, int, int, int]:
        """For a head of several layers the numbers of layers, weights that learn, outputs without the last
        layer's, and sums of gradients, which its memory depends on; for a :class:`PrototypeHead` with a start
        the number of its means in place of weights; zeros for others.
        """
        return self._head.layer_sizes

    @property
    def macs(self) -> int:
        """Multiplications of one prediction."""
        return self._head.macs

    @property
    def ram_bytes(self) -> int:
        """Bytes of RAM of the head on a device: its state and scratch memory."""
        return self._head.ram_bytes

    def forward(self, features: TensorOrArray) -> Tensor:
        """float32 logits [N, classes]: the integer logits in real numbers."""
        return self.logits(features).float() * self._head.logit_scale

    def logits(self, features: TensorOrArray) -> Tensor:
        """int32 logits [N, classes] for int8 features [N, features].

        Raises:
            HeadError: wrong shape or dtype.
        """
        features = self._checked(features, "[N, features]", 2)
        return torch.from_numpy(self._head.logits(features.cpu().contiguous().numpy())).to(features.device)

    def predict(self, features: TensorOrArray) -> Tensor:
        """int64 classes [N]: the largest logit, the first of equal ones.

        Raises:
            HeadError: wrong shape or dtype.
        """
        # numpy's argmax, unlike torch's, guarantees the first of equal ones.
        return torch.from_numpy(self.logits(features).cpu().numpy().argmax(1)).to(features.device)

    def evaluate(self, data: Data, labels: Labels | None = None) -> Evaluation:
        """Predicts labelled features: accuracy, classes, confusion matrix, worst samples. Prints as tables.

        Args:
            data, labels: features int8 [N, features] with labels [N]; or, with `labels` left out, the pair of
                both, or several such pairs, such as a DataLoader's.

        Raises:
            InputError: no samples, or no labels, or labels that are no classes.
            HeadError: wrong shape or dtype of the features; or a head of several right classes.

        >>> import torch, torch_nano as tn
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        >>> x, y = torch.randn(64, 4), torch.arange(64) % 3
        >>> nano = tn.to_nano(model, x, calibrate=x, head=tn.heads.LDA())
        >>> features = nano.features_int8(x)
        >>> nano.head.fit(features, y)
        >>> nano.head.evaluate(features, y).accuracy == nano.evaluate((x, y)).accuracy
        True
        """
        if self.target != "class":
            raise HeadError(
                f"evaluate takes heads of one right class; this one learns from {self.target!r} (its loss)"
            )
        names, made = self._model.labels, Predictions()
        pairs = as_tensors(data if labels is None else (data, labels))
        one = is_one_batch(pairs, 1, (self.features,))
        for part in batches(pairs, "evaluation", _BATCH, one):
            (features,), given = inputs_and_labels(["features"], as_tensors(part), "evaluation")
            if given is None:
                raise InputError("the evaluation data has no labels; expected (features, labels)")
            truth = indices_of(given, names, self.classes, "the evaluation data")
            made.add(self.logits(features), truth)
        if not made.samples:
            raise InputError("the evaluation data is empty; expected at least one sample")
        return made.evaluation(repr(self), names_of_classes(names, self.classes))

    def plot_features(self, features: TensorOrArray, labels: Labels, ax: Axes | None = None) -> Axes:
        """Draws features int8 [N, features] of labelled samples in the plane of their two principal
        components: classes that lie apart are easy to tell apart.

        Args:
            labels: classes [N].
            ax: where to draw; a new figure if None.

        Raises:
            HeadError: wrong shape, dtype or label, or fewer than two samples.
            MissingPackageError: matplotlib is not installed.
        """
        samples = self._samples(features)
        if len(samples) < 2:
            raise HeadError(f"there is {len(samples)} sample; expected two or more to draw")
        classes = self._classes_of(samples, labels)
        ax = axes_to_draw_in(ax)
        draw_scatter(ax, samples.cpu().numpy(), classes, names_of_classes(self._model.labels, self.classes))
        ax.set(title=f"features of {len(samples)} samples")
        return ax

    @property
    def target(self) -> str:
        """What it learns from: "class" (the right one), "labels" (all right ones) or "value" (a number)."""
        return self._head.target

    def certainty(self, features: TensorOrArray) -> Certainty:
        """How sure the head is of int8 features [N, features], in the device's integers.

        Raises:
            HeadError: wrong shape or dtype.
        """
        features = self._checked(features, "[N, features]", 2)
        made = self._head.certainties(features.cpu().contiguous().numpy())
        confidence, margin = (torch.from_numpy(part.astype(np.float32) / (1 << 15)) for part in made[:2])
        distance, known = torch.from_numpy(made[2].astype(np.int64)), torch.from_numpy(made[3])
        return Certainty(*(part.to(features.device) for part in (confidence, margin, distance, known)))

    def state(self) -> bytes:
        """The whole state, as a device stores and sends it."""
        return self._head.state()

    def load(self, state: bytes) -> None:
        """Loads a state from :meth:`state` or from a device.

        Raises:
            HeadError: it is not one of this head; the head is then unchanged.
        """
        state = _state(state)
        try:
            self._head.load(state)
        except _native.NanoError as error:
            raise HeadError(f"{len(state)} bytes are no state of this head: {error}") from error

    def reset(self) -> None:
        """Restores the state in the image."""
        self._head.reset()

    def aggregate(
        self, updates: Iterable[tuple[Self | bytes, int]], *, leave_out: bool = False
    ) -> dict[int, str]:
        """Federated averaging: aggregates heads that started from this one into it.

        Heads of sums (:class:`SumsHead`) become the head that learnt all samples of all of them itself, to
        the byte. With gradient descent (:class:`SgdHead`, :class:`LayersHead`) the weights become the mean,
        weighted by the numbers of samples and rounded once (see nano-core's `train::aggregate`). The order of
        the heads does not matter.

        >>> import torch, torch_nano as tn
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        >>> x, y = torch.randn(64, 4), torch.arange(64) % 3
        >>> nano = tn.to_nano(model, x, calibrate=x, head=tn.heads.LDA())
        >>> features, devices = nano.features_int8(x), [tn.heads.LdaHead(nano.image) for _ in range(2)]
        >>> for device, part in zip(devices, (slice(0, 20), slice(20, 64))):
        ...     device.fit(features[part], y[part])
        >>> nano.head.aggregate((device, 1) for device in devices)
        {}
        >>> both = tn.heads.LdaHead(nano.image)
        >>> both.fit(features, y)
        >>> nano.head.state() == both.state()
        True

        Args:
            updates: the heads, or their states, and the number of samples of each; heads of sums count their
                own.
            leave_out: whether to leave out heads that cannot be aggregated.

        Returns:
            The indices in `updates` of heads that are left out, each with the reason.

        Raises:
            HeadError: unless `leave_out`, one is not a head of this image, has learnt less than this one, or
                has more samples than there is room for; or no head is left, or none with samples. The head is
                then unchanged.
        """
        try:
            pairs = [(head, samples) for head, samples in updates]
        except (TypeError, ValueError) as error:
            raise HeadError(f"updates is {shown(updates)}; expected pairs (head, samples)") from error
        states = [
            (_state(head), whole_number("samples", samples, most=_native.LARGEST_COUNT))
            for head, samples in pairs
        ]
        try:
            return dict(self._head.aggregate(states, leave_out=leave_out))
        except _native.NanoError as error:
            raise HeadError(f"{len(states)} heads cannot be aggregated: {error}") from error

    def check_update(self, update: Self | bytes) -> None:
        """Checks that :meth:`aggregate` of this head accepts another one, without aggregating.

        The sums of several heads may still be of more samples than there is room for.

        Raises:
            HeadError: it is not a head of this image, or has learnt less than this one.
        """
        try:
            self._head.check_update(_state(update))
        except _native.NanoError as error:
            raise HeadError(f"the head cannot be aggregated: {error}") from error

    def get_extra_state(self) -> Tensor:
        """The state as uint8, for `state_dict()`."""
        return torch.frombuffer(bytearray(self.state()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Restores the state of :meth:`get_extra_state`, for `load_state_dict()`.

        Raises:
            HeadError: it is not a state of this head; the head is then unchanged.
        """
        check_tensor("the extra state", state)
        self.load(state.cpu().numpy().tobytes())

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_head": self.state()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({**state, "_head": _native.Head(state["_model"])})
        self._head.load(state["_head"])

    def extra_repr(self) -> str:
        return f"features={self.features}, classes={self.classes}"

    def _checked(self, features: Any, shape: str, rank: int) -> Tensor:
        """The features as a tensor int8 of that shape."""
        features = as_tensors(features)
        check_tensor("features", features)
        if features.dtype != torch.int8 or features.dim() != rank or features.shape[-1] != self.features:
            raise HeadError(
                f"features have shape {tuple(features.shape)} and dtype {features.dtype}; "
                f"expected int8 {shape} with {self.features} features"
            )
        return cast(Tensor, features)

    def _samples(self, features: Any) -> Tensor:
        """The features as a tensor int8 [N, features] of at least one sample."""
        samples = self._checked(features, "[N, features]", 2)
        if not len(samples):
            raise HeadError(f"features have shape {tuple(samples.shape)}; expected at least one sample")
        return samples

    def _classes_of(self, features: Tensor, labels: Any) -> Targets:
        """Classes [N] for features int8 [N, features]: indices or names of classes."""
        labels = self._indices(labels)
        check_tensor("labels", labels)
        integers = not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)
        if not integers or labels.shape != features.shape[:1]:
            raise HeadError(
                f"labels have shape {tuple(labels.shape)} and dtype {labels.dtype}; "
                f"expected integers [{len(features)}]"
            )
        if not 0 <= int(labels.min()) <= int(labels.max()) < self.classes:
            raise HeadError(
                f"labels go from {labels.min()} to {labels.max()}; expected 0 to {self.classes - 1}"
            )
        return cast(Targets, labels.cpu().numpy().astype(np.int64))

    def _indices(self, labels: Any) -> Any:
        """Labels as a tensor of the classes' indices; of another kind unchanged."""
        if isinstance(labels, np.ndarray) and labels.dtype.kind in "UO":
            labels = labels.tolist()
        if not isinstance(labels, list | tuple):
            return as_tensors(labels)
        try:
            indices = [class_index(label, self.classes, self._model.labels) for label in labels]
        except LabelError as error:
            raise HeadError(f"labels: {error}") from error
        return torch.tensor(indices, dtype=torch.int64)


class SumsHead(Head):
    """A head that learns by adding to exact sums: each sample once, in any order, on one device or many."""

    def learn(self, features: TensorOrArray, labels: Labels) -> None:
        """Adds samples int8 [N, features] with integer labels [N], each once.

        Raises:
            HeadError: wrong shape, dtype or label; the head is then
                unchanged.
        """
        self._for_all(self._head.learn_all, features, labels, "learnt")

    def unlearn(self, features: TensorOrArray, labels: Labels) -> None:
        """Removes samples exactly: the sums become those of the other samples.

        Raises:
            HeadError: wrong shape, dtype or label, or the sums cannot have held them; the head is then
                unchanged.
        """
        self._for_all(self._head.unlearn_all, features, labels, "taken out")

    def add_class(self) -> int:
        """Adds a class without samples; returns its index.

        Raises:
            HeadError: the image has no room for another one.
        """
        try:
            return self._head.add_class()
        except _native.NanoError as error:
            raise HeadError(f"no class can be added: {error}") from error

    def forget(self, label: int) -> None:
        """Forgets all that was learnt of a class; it keeps its index and can be learnt anew.

        Raises:
            HeadError: there is no such class.
        """
        self._head.forget(whole_number("the class to forget", label, most=self.classes - 1))

    def merge(self, other: Self | bytes) -> None:
        """Adds what another head of this image has learnt: the sums become those of all samples of both.

        Args:
            other: the head, or its :meth:`state`.

        Raises:
            HeadError: it is not one of this image, or both have more samples than the sums hold; the head is
                then unchanged.
        """
        try:
            self._head.merge(_state(other))
        except _native.NanoError as error:
            raise HeadError(f"the heads cannot be merged: {error}") from error

    def _for_all(
        self, act: Callable[[Int8, Targets], None], features: TensorOrArray, labels: Labels, done: str
    ) -> None:
        features = self._samples(features)
        targets = self._classes_of(features, labels)
        try:
            act(features.cpu().contiguous().numpy(), targets)
        except _native.NanoError as error:
            raise HeadError(f"{len(targets)} samples cannot be {done}: {error}") from error
