"""Federated learning of heads with Flower (the package `flwr`).

A client app talks to one device; :class:`HeadAveraging` aggregates the answers into one head, in integers.
Both run in Flower's supernodes and superlink or, with :class:`LocalGrid`, in one process.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from ..arguments import image_of
from ..compile.nano_module import NanoModule
from ..errors import HeadError
from ..heads import Head, head_of
from .fleet_client import client_app
from .fleet_records import MODEL, STANDING, ClassNames, Fleet, Reply, Update, head_arrays, head_state
from .local_grid import LocalGrid

__all__ = ["HeadAveraging", "LeftOut", "LocalGrid", "client_app", "head_arrays", "head_state"]

Asked = Literal["train", "evaluate"]
_LOGGER = logging.getLogger("flwr")


@dataclass(frozen=True)
class LeftOut:
    """A node that a round left out."""

    server_round: int
    #: The half of the round.
    asked: Asked
    node: int
    reason: str

    def __str__(self) -> str:
        return f"node {self.node} is left out of round {self.server_round} ({self.asked}): {self.reason}"


class HeadAveraging(FedAvg):
    """Flower's federated averaging, for heads: see :meth:`torch_nano.heads.Head.aggregate`.

    Heads of sums become, to the byte, the head that learnt all samples of all devices; the weights of a head
    trained by gradient descent become the mean of all, weighted by the devices' numbers of samples.

    A node is left out of a round, logged and listed in :attr:`left_out` if it answers with an error; if its
    answer is damaged, of another model, or not a head that started from the server's; if it has another name
    for a class than the server or a node before it (in the order of their ids); or if a head of sums has no
    room for its samples. In the next round it gets the server's head like every node. Its device keeps what
    it has learnt: sums that the server can add go out with the next answer, as after a lost one. With other
    sums, such as those of a device that forgot a class, the device refuses the round until it is reset.

    The result's arrays hold a head, `nano.head.load(head_state(result.arrays))`, the names of its classes,
    and the record by which a device knows whether its latest answer is included: to continue with the fleet,
    start from the complete arrays.

    Args:
        nano: the model, which does not change; the first round starts from its head.
        options: those of :class:`flwr.serverapp.strategy.FedAvg`, such as `fraction_train`.

    Raises:
        HeadError: the model has no trainable head.
    """

    def __init__(self, nano: NanoModule, **options: Any) -> None:
        if nano.head is None:
            raise HeadError(f"{nano.name!r} has no trainable head: freeze its backbone before to_nano")
        super().__init__(**options)
        #: The server's head, the result of the latest round.
        self.head: Head = head_of(image_of(nano))
        #: Nodes that were left out, in the order of rounds.
        self.left_out: list[LeftOut] = []
        self.model_id = nano.id
        self._image_labels = nano.labels
        self._checked = head_of(image_of(nano))
        self._load(head_arrays(nano.head.state()))

    @property
    def labels(self) -> list[str]:
        """The names of the head's classes, including those that devices added; "" for one without a name."""
        return list(self._fleet.labels)

    def initial_arrays(self) -> ArrayRecord:
        """The present head, for :meth:`start`."""
        arrays = head_arrays(self.head.state())
        self._fleet.put_into(arrays)
        return arrays

    def _load(self, arrays: ArrayRecord) -> None:
        state, fleet = head_state(arrays), Fleet.of(arrays)
        self.head.load(state)
        labels = [*self._image_labels, *[""] * self.head.classes][: self.head.classes]
        self._fleet = fleet or Fleet.start(state, labels)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Called by Flower: the messages that start a training round."""
        return self._configure(super().configure_train, server_round, arrays, config, grid)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Called by Flower: the messages that start an evaluation round."""
        return self._configure(super().configure_evaluate, server_round, arrays, config, grid)

    def _configure(
        self,
        configure: Callable[[int, ArrayRecord, ConfigRecord, Grid], Iterable[Message]],
        server_round: int,
        arrays: ArrayRecord,
        config: ConfigRecord,
        grid: Grid,
    ) -> list[Message]:
        """Flower's messages with the head, and for each node its own :class:`Standing`."""
        self._load(arrays)
        config[MODEL] = self.model_id
        messages = list(configure(server_round, head_arrays(self.head.state()), config, grid))
        for message in messages:
            standing = self._fleet.standing(message.metadata.dst_node_id).record()
            message.content = RecordDict({**message.content, STANDING: standing})
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Called by Flower: aggregates the nodes' heads.

        Raises:
            HeadError: all nodes are left out; the head is then unchanged.
        """
        replies, before = list(replies), len(self.left_out)
        answers = self._answers(server_round, replies, "train")
        updates = self._updates(server_round, answers)
        pairs = [(update.state, update.samples) for update in updates.values()]
        try:
            refused = self.head.aggregate(pairs, leave_out=True) if pairs else {}
        except HeadError as error:
            raise self._nobody(server_round, replies, before, f": {error}") from error
        for node, reason in [(list(updates)[index], reason) for index, reason in refused.items()]:
            self._leave_out(server_round, node, reason)
            del updates[node]
        if not updates:
            raise self._nobody(server_round, replies, before, "")
        names = ClassNames("the server", self.labels)
        for node, update in updates.items():
            names.add(f"node {node}", update.labels)
        states = {node: update.state for node, update in updates.items()}
        self._fleet.advance(self.head.state(), names.labels, states)
        taken = [answers[node] for node in updates]
        return self.initial_arrays(), self._metrics(self.train_metrics_aggr_fn, taken)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Called by Flower: aggregates the metrics of the nodes that scored the head."""
        answers = self._answers(server_round, list(replies), "evaluate")
        return self._metrics(self.evaluate_metrics_aggr_fn, list(answers.values()))

    def _answers(self, server_round: int, messages: list[Message], asked: Asked) -> dict[int, Reply]:
        """The valid answers by node, in order: those with a number of samples and the usual metrics."""
        answered, failed = self._check_and_log_replies(messages, is_train=asked == "train", validate=False)
        for message in failed:
            self._leave_out(server_round, message.metadata.src_node_id, str(message.error.reason), asked)
        replies: dict[int, Reply] = {}
        for message in sorted(answered, key=lambda message: message.metadata.src_node_id):
            node = message.metadata.src_node_id
            try:
                replies[node] = Reply.of(message.content, self.weighted_by_key)
            except HeadError as error:
                self._leave_out(server_round, node, str(error), asked)
        for usual, _ in Counter(reply.metrics for reply in replies.values()).most_common(1):
            for node in [node for node, reply in replies.items() if reply.metrics != usual]:
                own = replies.pop(node).metrics
                reason = f"its metrics are {dict(own)}, those of most nodes {dict(usual)}"
                self._leave_out(server_round, node, reason, asked)
        return replies

    def _updates(self, server_round: int, replies: dict[int, Reply]) -> dict[int, Update]:
        """The nodes' updates that can each be aggregated alone, and whose names of classes agree."""
        updates = {}
        names = ClassNames("the server", self.labels)
        for node, reply in replies.items():
            try:
                update = self._update(reply)
                names.add(f"node {node}", update.labels)
            except HeadError as error:
                self._leave_out(server_round, node, str(error))
            else:
                updates[node] = update
        return updates

    def _update(self, reply: Reply) -> Update:
        update = Update.of(reply)
        if update.model_id != self.model_id:
            raise HeadError(f"its head is of the model {update.model_id}; expected {self.model_id}")
        try:
            self.head.check_update(update.state)
        except HeadError as error:
            raise HeadError(
                f"it sent no head that learnt on from the server's, forgetting nothing: {error}"
            ) from error
        self._checked.load(update.state)
        if len(update.labels) != self._checked.classes:
            raise HeadError(
                f"it sent {len(update.labels)} names for the {self._checked.classes} classes of its head"
            )
        return update

    def _metrics(
        self, average: Callable[[list[RecordDict], str], MetricRecord], replies: list[Reply]
    ) -> MetricRecord | None:
        """The mean of all metrics, weighted by the numbers of samples; None without any."""
        if not any(reply.samples for reply in replies):
            return None
        return average([reply.content for reply in replies], self.weighted_by_key)

    def _leave_out(self, server_round: int, node: int, reason: str, asked: Asked = "train") -> None:
        self.left_out.append(LeftOut(server_round, asked, node, reason))
        _LOGGER.warning("%s", self.left_out[-1])

    def _nobody(self, server_round: int, replies: list[Message], before: int, why: str) -> HeadError:
        """The error of a round without updates; `before` is the number of nodes left out before it."""
        reasons = "".join(f"\nnode {left.node}: {left.reason}" for left in self.left_out[before:])
        return HeadError(f"none of {len(replies)} nodes learnt in round {server_round}{why}{reasons}")
