"""Settings for `to_nano(head=...)`: the trainer of a device's head and its hyperparameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from .. import _native
from ..arguments import items, one_of, positive_number, shown, whole_number
from ..errors import HeadError
from .rate import AutoRate
from .start import Floats, Start

Loss = Literal["cross_entropy", "binary", "squared"]
#: The logarithm (base 2) of "auto" before a user's samples say more, relative to 3 / |x|^2. For one sample of
#: each class, 2 is right for a watch's new wearers and -3 for MNIST-1D with other noise; -1 loses 1.9 and 1.2
#: points.
PRIOR = -1.0


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent, from the layer's weights on: :class:`torch_nano.heads.SgdHead`.

    Args:
        learning_rate: of the real-valued step; above 0. "auto": the device makes it of its samples, so it
            fits each user. It is a part of the largest with which a linear layer learns stably, by the mean
            square |x|^2 of its inputs, that of the bias included: 3 / |x|^2 for "cross_entropy", 6 / |x|^2
            for "binary", 1.5 / |x|^2 for "squared". For "cross_entropy" it is raised up to 3.4 times where
            the gradients of a class's samples agree, and lowered to a sixteenth where they are noise, as far
            as the layer knows the classes (nano-core's `train::sgd::rate` has the formula).
            :class:`torch_nano.heads.AutoRate`: the same, fitted to a user's first samples.
        loss: what the outputs mean. "cross_entropy": one class is right; "binary": each of at most 32 classes
            is right or wrong by itself; "squared": one output, a number (in a unit in which it is around 1).
        halve_every: number of epochs of one training after which the rate is halved, again and again; None:
            never.
        class_weights: weight of each class's samples; the largest gets the full rate. Not for "squared".
        balance: in a training, weigh each class by how rarely the device's samples have it, down to a
            sixteenth: the rarest class learns at the full rate. Only for "cross_entropy", and for one layer.
        frozen: indices of classes whose weights do not change.
        layer: name of the Linear that ends the model; None: whichever does.
        guard: every sample whose number is a multiple of it is kept aside, 2 to 65,536: no training visits
            it. A training is taken back unless the head then recognises more of the samples kept aside, or
            as many with at most a quarter of the error (nano-core's `train::guard`). They take no RAM beside
            the device's ring. 8 suits; None: all samples are learnt from, and no training is judged.
        half_life: number of newer samples of the device's ring after which a training visits a sample half as
            often: the newest of this number in every epoch, those before them in every second one, and so on.
            Each training of a single layer then begins with the shipped weights: what has left the ring is
            forgotten. None: all alike, and a training continues the one before.

    Raises:
        HeadError: a setting that no head can have; what depends on the model is refused by
            :func:`torch_nano.to_nano`.

    >>> SGD(learning_rate=0.05, halve_every=8)
    SGD(learning_rate=0.05, loss='cross_entropy', halve_every=8, class_weights=(), frozen=(), layer=None,
        guard=None, balance=False, half_life=None)
    """

    learning_rate: float | Literal["auto"] | AutoRate = 0.02
    loss: Loss = "cross_entropy"
    halve_every: int | None = None
    class_weights: Sequence[float] = ()
    frozen: Sequence[int] = ()
    layer: str | None = None
    guard: int | None = None
    balance: bool = False
    half_life: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.balance, bool):
            raise HeadError(f"balance is {shown(self.balance)}; expected True or False")
        weights = items("class_weights", self.class_weights, "numbers, one for each class")
        frozen = items("frozen", self.frozen, "the indices of classes")
        if not isinstance(self.learning_rate, AutoRate) and self.learning_rate != "auto":
            _set(self, "learning_rate", positive_number("learning_rate", self.learning_rate))
        _set(self, "class_weights", tuple(positive_number("a class weight", weight) for weight in weights))
        _set(self, "frozen", tuple(whole_number("a frozen class", index) for index in frozen))
        one_of("loss", self.loss, get_args(Loss), error=HeadError)
        if self.halve_every is not None:
            _set(self, "halve_every", whole_number("halve_every", self.halve_every, least=1))
        if self.guard is not None:
            _set(self, "guard", whole_number("guard", self.guard, least=2))
        _check_half_life(self)
        _check_layer(self.layer)

    def description(self, weights: Floats, biases: Floats) -> dict[str, Any]:
        """What nano-core's writer takes, for a layer [classes, features]."""
        return {
            "trainer": "sgd",
            "weights": weights,
            "biases": biases,
            "learning_rate": self.learning_rate if isinstance(self.learning_rate, float) else None,
            "prior": PRIOR,
            "loss": self.loss,
            "halve_every": self.halve_every or 0,
            "class_weights": list(self.class_weights),
            "balance": self.balance,
            "frozen": list(self.frozen),
            "guard": self.guard or 0,
            "half_life": self.half_life or 0,
            "rejection": None,
        }


@dataclass(frozen=True)
class LDA:
    """Linear discriminant analysis in one pass: :class:`torch_nano.heads.LdaHead`. Without a start it does
    not use the layer's weights.

    Args:
        shrinkage: how far the covariance is shrunk towards the identity, relative to the mean variance, in
            the limit of many samples: above 0, at most 1. (D / 2n)^2 is added to it, with D features and n
            samples less one per class, because an estimate from few samples has a larger error.
        capacity: the largest number of classes; None: those of the layer.
        layer: name of the Linear that ends the model; None: whichever does.
        start: the factory's samples, from which the head starts; None: it starts without samples.
        balance: True: classes weigh alike, however many samples each has, as priors are equal. An LdaHead has
            no other way.
        half_life: number of newer samples of a class after which its older ones count half, at most 16,384:
            when a class has twice as many, the sums of all classes are halved. None: only when they hold
            32,768 samples. What was halved is unlearnt and merged into other heads no more.

    Raises:
        HeadError: a setting that no head can have; what depends on the model is refused by
            :func:`torch_nano.to_nano`.
    """

    shrinkage: float = 0.2
    capacity: int | None = None
    layer: str | None = None
    start: Start | None = None
    balance: Literal[True] = True
    half_life: int | None = None

    def __post_init__(self) -> None:
        if self.balance is not True:
            raise HeadError(f"balance is {shown(self.balance)}; expected True: LDA has equal priors")
        _set(self, "shrinkage", positive_number("shrinkage", self.shrinkage, within=_native.SHRINKAGE))
        if self.capacity is not None:
            _set(self, "capacity", whole_number("capacity", self.capacity, least=1))
        _check_half_life(self)
        _check_layer(self.layer)
        _check_start(self.start)

    def description(self, weights: Floats, biases: Floats) -> dict[str, Any]:
        """What nano-core's writer takes, for a layer [classes, features]; without the start."""
        return {"trainer": "lda", "shrinkage": self.shrinkage, **_sums(weights, self)}


@dataclass(frozen=True)
class Prototype:
    """Nearest class mean: :class:`torch_nano.heads.PrototypeHead`. It does not use the layer's weights.

    Args:
        capacity: the largest number of classes; None: those of the layer.
        layer: name of the Linear that ends the model; None: whichever does.
        start: the factory's samples, from whose means the head starts; None: it starts without samples.
        half_life: number of newer samples of a class after which its older ones count half, at most 32,768:
            when a class has twice as many, its sums are halved, and a sample that the head does not recognise
            leaves one of those before it. 2 suits. None: they are halved only at 65,536 samples.
            What was halved is unlearnt and merged into other heads no more.

    Raises:
        HeadError: a setting that no head can have; what depends on the model is refused by
            :func:`torch_nano.to_nano`.
    """

    capacity: int | None = None
    layer: str | None = None
    start: Start | None = None
    half_life: int | None = None

    def __post_init__(self) -> None:
        if self.capacity is not None:
            _set(self, "capacity", whole_number("capacity", self.capacity, least=1))
        _check_half_life(self)
        _check_layer(self.layer)
        _check_start(self.start)

    def description(self, weights: Floats, biases: Floats) -> dict[str, Any]:
        """What nano-core's writer takes, for a layer [classes, features]; without the start."""
        return {"trainer": "prototype", **_sums(weights, self)}


#: Sets a field of a frozen dataclass.
_set = object.__setattr__


def _check_layer(layer: object) -> None:
    if not isinstance(layer, str | None):
        raise HeadError(f"layer is {shown(layer)}; expected the name of a module, or None")


def _check_start(start: object) -> None:
    if not isinstance(start, Start | None):
        raise HeadError(f"start is {shown(start)}; expected heads.Start((x, y)), or None")


def _check_half_life(settings: SGD | LDA | Prototype) -> None:
    if settings.half_life is not None:
        _set(settings, "half_life", whole_number("half_life", settings.half_life, least=1))


def _sums(weights: Floats, settings: LDA | Prototype) -> dict[str, Any]:
    classes = len(weights)
    return {
        "classes": classes,
        "capacity": classes if settings.capacity is None else settings.capacity,
        "half_life": settings.half_life or 0,
        "start": None,
        "rejection": None,
    }


HeadSettings = SGD | LDA | Prototype
