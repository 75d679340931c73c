"""Heads of many devices averaged with Flower (the package `flwr`).

A client app asks one device, :class:`HeadAveraging` makes one head of what they answer, in integers. Both run
wherever Flower runs them: in its supernodes and superlink, or, with :class:`LocalGrid`, in one process.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from hashlib import sha256
from itertools import takewhile
from typing import Any
from uuid import uuid4

import numpy as np
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from ..device.client import Device
from ..device.errors import WrongModelError
from ..errors import HeadError
from ..heads import Head, head_of
from ..module import NanoModule
from .local_grid import LocalGrid

__all__ = ["HeadAveraging", "LocalGrid", "client_app", "head_arrays", "head_state"]

_ARRAY, _FLEET = "head", "fleet"
_ARRAYS, _CONFIG, _METRICS, _SAMPLES = "arrays", "config", "metrics", "num-examples"
_MODEL, _LABELS = "model-id", "labels"
_MEMORY = "torch-nano"


def head_arrays(state: bytes) -> ArrayRecord:
    """A head's state as Flower sends it: one array of bytes.

    >>> head_state(head_arrays(b"123"))
    b'123'
    """
    return ArrayRecord({_ARRAY: Array(np.frombuffer(state, np.uint8))})


def head_state(arrays: ArrayRecord) -> bytes:
    """Undoes :func:`head_arrays`.

    Raises:
        HeadError: there is none in it.
    """
    if _ARRAY not in arrays:
        raise HeadError(f"the arrays are {', '.join(arrays) or 'none'}; expected {_ARRAY}, a head's state")
    return arrays[_ARRAY].numpy().tobytes()


@dataclass
class _Fleet:
    """What travels with the server's head: how classes are called, and what the head has in it."""

    #: Of all heads that came of one start: an answer that none of them lists is in none of them.
    id: str
    labels: list[str]
    #: Digests of the server's heads, from the start to this one.
    heads: list[str]
    #: Digest of the latest head taken in of each node.
    answers: dict[str, str]

    @classmethod
    def of(cls, arrays: ArrayRecord) -> _Fleet:
        return cls(**json.loads(arrays[_FLEET].numpy().tobytes()))

    def array(self) -> Array:
        return Array(np.frombuffer(json.dumps(asdict(self)).encode(), np.uint8))


@dataclass(frozen=True)
class _Update:
    """What a node sent."""

    state: bytes
    samples: int
    labels: list[str]


def _digest(state: bytes) -> str:
    return sha256(state).hexdigest()


def client_app(
    device: Callable[[Context], AbstractContextManager[Device]],
    learn: Callable[[Device, Context], int],
    evaluate: Callable[[Device, Context], tuple[int, Mapping[str, float]]] | None = None,
    *,
    overwrite: bool = False,
) -> ClientApp:
    """What Flower runs next to one device.

    In each round the device takes over the head that the server sends, with the classes that it lacks, then
    it learns, and its head goes back with the names of its classes. What it keeps in its ring, it keeps.

    Weights that descend are replaced by the server's: that is federated averaging. Sums are not: if an answer
    does not reach the server, what was learnt for it is added to the server's next head, and goes out with
    the next answer (`context.state` remembers what that takes, as long as the run lasts). A device that was
    reset, or restarted with nothing saved, has none of its own. Of any other sums that the server's arrays do
    not list, such as those learnt between two rounds, nobody can tell which the server lacks: the device
    refuses, as it does when a class has another name.

    Args:
        device: opens the device; `context.node_config` is what its supernode was given. It is closed after
            each message: `contextlib.nullcontext(device)` keeps one open.
        learn: lets the device learn, and returns from how many samples. A head of sums learns a sample once:
            in later rounds from new ones only. What it has learnt when it raises stays, and goes out later.
        evaluate: scores the device with the server's head on it (and what of its own has not reached the
            server); returns on how many samples, and metrics.
        overwrite: whether the server's head replaces sums all the same, and what it lacks of them is lost.

    >>> import torch, torch_nano as tn
    >>> x, y = torch.randn(64, 4), torch.arange(64) % 3
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    >>> labels = ["walk", "run", "rest"]
    >>> nano = tn.to_nano(model, x, calibrate=x, labels=labels, head=tn.heads.LDA(capacity=4))
    >>> def app(part: slice) -> ClientApp:
    ...     def learn(device: tn.Device, context: Context) -> int:
    ...         if "jump" not in device.labels:
    ...             device.add_class("jump")
    ...         return device.fit(x[part], y[part]).sent
    ...
    ...     return client_app(lambda context: tn.Device("sim", nano=nano), learn)
    >>> grid = LocalGrid([app(slice(0, 20)), app(slice(20, 64))])
    >>> strategy = HeadAveraging(nano, fraction_evaluate=0.0)
    >>> result = strategy.start(grid, strategy.initial_arrays(), num_rounds=1)
    >>> strategy.labels
    ['walk', 'run', 'rest', 'jump']
    >>> nano.head.add_class()
    3
    >>> nano.head.fit(nano.features_int8(x), y)
    >>> head_state(result.arrays) == nano.head.state()
    True
    """
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        with device(context) as connected:
            _take_over(connected, message.content, context, overwrite)
            try:
                samples = learn(connected, context)
            finally:
                state = connected.head_state()
                context.state.config_records[_MEMORY]["held"] = _digest(state)
            names = ConfigRecord({_LABELS: list(connected.labels)})
        metrics = MetricRecord({_SAMPLES: samples})
        content = RecordDict({_ARRAYS: head_arrays(state), _CONFIG: names, _METRICS: metrics})
        return Message(content, reply_to=message)

    if evaluate is not None:

        @app.evaluate()
        def score(message: Message, context: Context) -> Message:
            with device(context) as connected:
                _take_over(connected, message.content, context, overwrite)
                samples, metrics = evaluate(connected, context)
            record = MetricRecord({**metrics, _SAMPLES: samples})
            return Message(RecordDict({_METRICS: record}), reply_to=message)

    return app


def _take_over(device: Device, content: RecordDict, context: Context, overwrite: bool) -> None:
    """Puts the server's head on the device, with the classes that it lacks.

    Raises:
        WrongModelError: it is another model's.
        HeadError: a class has another name on the device, or what the device holds would be lost.
    """
    expected = content.config_records[_CONFIG].get(_MODEL)
    if device.info.model_id != expected:
        raise WrongModelError(
            f"the server averages heads of the model {expected!r}; the device runs "
            f"{device.info.name!r}, {device.info.model_id!r}: give both the same image"
        )
    arrays = content.array_records[_ARRAYS]
    fleet, server, own = _Fleet.of(arrays), head_state(arrays), device.labels
    _merge_labels({"the server": fleet.labels, "the device": own})
    state = server if overwrite else _with_unsent(device, server, fleet, context)
    for name in takewhile(bool, fleet.labels[len(own) :]):
        device.add_class(name)
    device.write_head(state)
    answer = fleet.answers.get(str(context.node_id), "")
    context.state[_MEMORY] = ConfigRecord(
        {"fleet": fleet.id, "server": server, "answer": answer, "held": _digest(state)}
    )


def _with_unsent(device: Device, server: bytes, fleet: _Fleet, context: Context) -> bytes:
    """The server's head, and what the device has learnt for an answer that the server does not have."""
    if device.info.ring_capacity:
        return server
    if device._image is None:
        raise HeadError("to keep its sums the client must know the device's model: Device(..., nano=nano)")
    head, state = head_of(device._image), device.head_state()
    held, answer = _digest(state), fleet.answers.get(str(context.node_id), "")
    if state in (head.state(), server) or held in (answer, *fleet.heads):
        return server
    unsent = ""
    memory = context.state.config_records.get(_MEMORY, ConfigRecord())
    # The server has taken in nothing of this node since it sent the head that the device went on from.
    if [memory.get(key) for key in ("fleet", "answer", "held")] == [fleet.id, answer, held]:
        try:
            head.load(memory["server"])  # type: ignore[arg-type]  # bytes, as _take_over puts it
            head.aggregate([(state, 1), (server, 1)])
            return head.state()
        except HeadError as error:
            unsent = f" ({error})"
    raise HeadError(
        f"the device holds sums of which nobody can tell what the server's head lacks{unsent}: it has learnt "
        "outside of a round, forgotten or restarted, or the server's start is none of this fleet's arrays. "
        "Reset the device and let it learn in a round, or drop them by client_app(overwrite=True). What a "
        "device learnt before its first round, nano.head.merge(device.head_state()) can bring into the "
        "server's start"
    )


def _merge_labels(owners: Mapping[str, Sequence[str]]) -> list[str]:
    """The names that all agree on, "" for a class that nobody has a name for.

    >>> _merge_labels({"the server": ["walk", "run"], "node 1": ["walk", "run", "jump"], "node 2": ["", ""]})
    ['walk', 'run', 'jump']

    Raises:
        HeadError: they do not.
    """
    named: dict[int, tuple[str, str]] = {}
    for owner, labels in owners.items():
        for index, label in enumerate(labels):
            first, name = named.setdefault(index, (owner, label))
            if not name:
                named[index] = (owner, label)
            elif label not in ("", name):
                raise HeadError(
                    f"class {index} is {name!r} to {first} and {label!r} to {owner}: agree on the names, and "
                    "reset the device whose name is the wrong one"
                )
    return [label for _, (_, label) in sorted(named.items())]


class HeadAveraging(FedAvg):
    """Flower's federated averaging, for heads: see :meth:`torch_nano.heads.Head.aggregate`.

    Heads of sums become, to the byte, the head that learnt all samples of all devices; the weights of a head
    that learns by gradient descent the mean of all, each device counting as often as it has samples.

    Nodes that answer with an error are left out, as Flower does, and logged. The result's arrays are a head,
    `nano.head.load(head_state(result.arrays))`, the names of its classes, and what tells a device whether its
    latest answer is in it: start from them, whole, when the fleet goes on.

    Args:
        nano: the model, which stays as it is; its head is where the first round starts from.
        options: those of :class:`flwr.serverapp.strategy.FedAvg`, such as `fraction_train`.

    Raises:
        HeadError: the model has no trainable head.
    """

    def __init__(self, nano: NanoModule, **options: Any) -> None:
        if nano.head is None:
            raise HeadError(f"{nano.name!r} has no trainable head: freeze its backbone before to_nano")
        super().__init__(**options)
        #: The server's head: what the latest round ended in.
        self.head: Head = head_of(nano.image)
        self.model_id = nano.id
        self._image_labels = nano.labels
        self._checked = head_of(nano.image)
        self._load(head_arrays(nano.head.state()))

    @property
    def labels(self) -> list[str]:
        """The names of the head's classes, those that devices added included; "" for one without a name."""
        return list(self._fleet.labels)

    def initial_arrays(self) -> ArrayRecord:
        """What :meth:`start` takes: the head, as it is now."""
        arrays = head_arrays(self.head.state())
        arrays[_FLEET] = self._fleet.array()
        return arrays

    def _load(self, arrays: ArrayRecord) -> None:
        self.head.load(head_state(arrays))
        if _FLEET in arrays:
            self._fleet = _Fleet.of(arrays)
        else:
            labels = [*self._image_labels, *[""] * self.head.classes][: self.head.classes]
            self._fleet = _Fleet(uuid4().hex, labels, [_digest(self.head.state())], {})

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Called by Flower: what the nodes start from."""
        self._load(arrays)
        config[_MODEL] = self.model_id
        return super().configure_train(server_round, self.initial_arrays(), config, grid)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Called by Flower: what the nodes score."""
        config[_MODEL] = self.model_id
        return super().configure_evaluate(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Called by Flower: one head of those of the nodes.

        Raises:
            HeadError: no node learnt, what one sent is no head that started from the server's, or two name
                a class differently; all is then as it was.
        """
        replies = list(replies)
        answers, failures = self._check_and_log_replies(replies, is_train=True)
        if not answers:
            reasons = "".join(f"\n{reply.error.reason}" for reply in failures)
            raise HeadError(f"none of {len(replies)} nodes learnt in round {server_round}{reasons}")
        answers.sort(key=lambda answer: answer.metadata.src_node_id)
        updates = {answer.metadata.src_node_id: self._update(answer) for answer in answers}
        labels = {f"node {node}": update.labels for node, update in updates.items()}
        merged = _merge_labels({"the server": self.labels, **labels})
        self.head.aggregate((update.state, update.samples) for update in updates.values())
        self._fleet.labels = merged
        self._fleet.heads.append(_digest(self.head.state()))
        self._fleet.answers.update({str(node): _digest(update.state) for node, update in updates.items()})
        metrics = None
        if any(update.samples for update in updates.values()):
            metrics = self.train_metrics_aggr_fn([answer.content for answer in answers], self.weighted_by_key)
        return self.initial_arrays(), metrics

    def _update(self, answer: Message) -> _Update:
        """What a node sent, checked as if it were the only one."""
        (arrays,) = answer.content.array_records.values()
        (metrics,) = answer.content.metric_records.values()
        node, samples = answer.metadata.src_node_id, metrics[self.weighted_by_key]
        if not isinstance(samples, int):
            raise HeadError(f"node {node} learnt from {samples} samples; expected an integer")
        try:
            state = head_state(arrays)
            self._checked.load(self.head.state())
            # Without samples a head of weights has no say, and no other is here that has one.
            self._checked.aggregate([(state, samples or 1)])
        except HeadError as error:
            raise HeadError(
                f"node {node} sent no head that learnt on from the server's, forgetting nothing: {error}"
            ) from error
        return _Update(state, samples, answer.content.config_records[_CONFIG][_LABELS])  # type: ignore[arg-type]
