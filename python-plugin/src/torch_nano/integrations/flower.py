"""Heads of many devices averaged with Flower (the package `flwr`).

A client app asks one device, :class:`HeadAveraging` makes one head of what they answer, in integers. Both run
wherever Flower runs them: in its supernodes and superlink, or, with :class:`LocalGrid`, in one process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import count
from typing import Any, NoReturn

import numpy as np
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Error,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from ..device.client import Device
from ..device.errors import WrongModelError
from ..errors import HeadError, InputError
from ..heads import Head, head_of
from ..module import NanoModule

_ARRAY = "head"
_ARRAYS, _CONFIG, _METRICS, _SAMPLES = "arrays", "config", "metrics", "num-examples"
_MODEL = "model-id"


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
    if list(arrays) != [_ARRAY]:
        raise HeadError(f"the arrays are {', '.join(arrays) or 'none'}; expected {_ARRAY}, a head's state")
    return arrays[_ARRAY].numpy().tobytes()


def client_app(
    device: Callable[[Context], AbstractContextManager[Device]],
    learn: Callable[[Device, Context], int],
    evaluate: Callable[[Device, Context], tuple[int, Mapping[str, float]]] | None = None,
) -> ClientApp:
    """What Flower runs next to one device.

    In each round the device takes over the head that the server sends, which overwrites what it has learnt
    so far, then it learns and its head goes back. What it keeps in its ring, it keeps.

    Args:
        device: opens the device; `context.node_config` is what its supernode was given. It is closed after
            each message: `contextlib.nullcontext(device)` keeps one open.
        learn: lets the device learn, and returns from how many samples. A head of sums learns a sample once:
            in later rounds from new ones only.
        evaluate: scores the device with the server's head on it; returns on how many samples, and metrics.

    >>> import torch, torch_nano as tn
    >>> x, y = torch.randn(64, 4), torch.arange(64) % 3
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    >>> nano = tn.to_nano(model, x, calibrate=x, head=tn.heads.LDA())
    >>> def app(part: slice) -> ClientApp:
    ...     def learn(device: tn.Device, context: Context) -> int:
    ...         return device.fit(x[part], y[part]).sent
    ...
    ...     return client_app(lambda context: tn.Device("sim", nano=nano), learn)
    >>> grid = LocalGrid([app(slice(0, 20)), app(slice(20, 64))])
    >>> strategy = HeadAveraging(nano, fraction_evaluate=0.0)
    >>> result = strategy.start(grid, strategy.initial_arrays(), num_rounds=1)
    >>> nano.head.fit(nano.features_int8(x), y)
    >>> head_state(result.arrays) == nano.head.state()
    True
    """
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        with device(context) as connected:
            _take_over(connected, message.content)
            samples = learn(connected, context)
            arrays = head_arrays(connected.head_state())
        content = RecordDict({_ARRAYS: arrays, _METRICS: MetricRecord({_SAMPLES: samples})})
        return Message(content, reply_to=message)

    if evaluate is not None:

        @app.evaluate()
        def score(message: Message, context: Context) -> Message:
            with device(context) as connected:
                _take_over(connected, message.content)
                samples, metrics = evaluate(connected, context)
            record = MetricRecord({**metrics, _SAMPLES: samples})
            return Message(RecordDict({_METRICS: record}), reply_to=message)

    return app


def _take_over(device: Device, content: RecordDict) -> None:
    """Puts the server's head on the device.

    Raises:
        WrongModelError: it is another model's.
    """
    expected = content.config_records[_CONFIG].get(_MODEL)
    if device.info.model_id != expected:
        raise WrongModelError(
            f"the server averages heads of the model {expected!r}; the device runs "
            f"{device.info.name!r}, {device.info.model_id!r}: give both the same image"
        )
    device.write_head(head_state(content.array_records[_ARRAYS]))


class HeadAveraging(FedAvg):
    """Flower's federated averaging, for heads: see :meth:`torch_nano.heads.Head.aggregate`.

    Heads of sums become, to the byte, the head that learnt all samples of all devices; the weights of a head
    that learns by gradient descent the mean of all, each device counting as often as it has samples.

    Nodes that answer with an error are left out, as Flower does, and logged. The result's arrays are a head:
    `nano.head.load(head_state(result.arrays))`.

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
        self.head.load(nano.head.state())
        self.model_id = nano.id
        self._checked = head_of(nano.image)

    def initial_arrays(self) -> ArrayRecord:
        """What :meth:`start` takes: the head, as it is now."""
        return head_arrays(self.head.state())

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Called by Flower: what the nodes start from."""
        self.head.load(head_state(arrays))
        config[_MODEL] = self.model_id
        return super().configure_train(server_round, arrays, config, grid)

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
            HeadError: no node learnt, or what one sent is no head that started from the server's; the head
                is then as it was.
        """
        replies = list(replies)
        answers, failures = self._check_and_log_replies(replies, is_train=True)
        if not answers:
            reasons = "".join(f"\n{reply.error.reason}" for reply in failures)
            raise HeadError(f"none of {len(replies)} nodes learnt in round {server_round}{reasons}")
        updates = [self._update(answer) for answer in answers]
        self.head.aggregate(updates)
        metrics = None
        if any(samples for _, samples in updates):
            metrics = self.train_metrics_aggr_fn([answer.content for answer in answers], self.weighted_by_key)
        return head_arrays(self.head.state()), metrics

    def _update(self, answer: Message) -> tuple[bytes, int]:
        """A node's head and number of samples."""
        (arrays,) = answer.content.array_records.values()
        (metrics,) = answer.content.metric_records.values()
        node, samples = answer.metadata.src_node_id, metrics[self.weighted_by_key]
        if not isinstance(samples, int):
            raise HeadError(f"node {node} learnt from {samples} samples; expected an integer")
        try:
            state = head_state(arrays)
            self._checked.load(state)
        except HeadError as error:
            raise HeadError(f"node {node} sent no head of this model: {error}") from error
        return state, samples


class LocalGrid(Grid):
    """A Flower grid whose nodes are client apps in this process, one after the other.

    For boards that are connected to one computer, and for devices simulated on it: nothing but Python is
    needed. Node k, from 1 on, runs the k-th app. As with Flower's own, an app that raises answers with an
    error.

    Args:
        apps: the nodes, at least one.
    """

    def __init__(self, apps: Sequence[ClientApp]) -> None:
        if not apps:
            raise InputError("there are no client apps; expected one for each node")
        self._nodes = {
            node: (app, Context(0, node, {}, RecordDict(), {})) for node, app in enumerate(apps, start=1)
        }
        self._replies: dict[str, Message] = {}
        self._numbers = count()
        # Who sends: a process that Flower starts is told so by it.
        TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 0, 0, SUPERLINK_NODE_ID

    def set_run(self, run: Run) -> NoReturn:
        """There is but one.

        Raises:
            InputError: always.
        """
        raise InputError("a LocalGrid has one run, which cannot be set")

    @property
    def run(self) -> Run:
        """The one run, with Flower's defaults."""
        return Run.create_empty(0)

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """A message to a node; `Message` does the same."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """1 to the number of apps."""
        return list(self._nodes)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Has the nodes answer; returns the messages' numbers."""
        numbers = []
        for message in messages:
            numbers.append(str(next(self._numbers)))
            self._replies[numbers[-1]] = self._answer(message)
        return numbers

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The answers to messages of these numbers, each once."""
        return [self._replies.pop(number) for number in message_ids if number in self._replies]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """The nodes' answers. They come at once, so there is no timeout."""
        return self.pull_messages(self.push_messages(messages))

    def _answer(self, message: Message) -> Message:
        app, context = self._nodes[message.metadata.dst_node_id]
        try:
            return app(message, context)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=message)
