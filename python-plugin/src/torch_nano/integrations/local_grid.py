"""A Flower grid in one process."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import count
from typing import NoReturn

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from ..errors import InputError


class LocalGrid(Grid):
    """A Flower grid whose nodes are client apps in this process, one after the other.

    For boards that are connected to one computer, and for devices simulated on it; it needs nothing but
    Python. Node k, from 1 on, runs the k-th app. As in Flower's own grids, an app that raises answers with an
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
        # The identity of the sender, which Flower sets in the processes that it starts.
        TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 0, 0, SUPERLINK_NODE_ID

    def set_run(self, run: Run) -> NoReturn:
        """Not supported: there is only one run.

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
        """Runs the nodes on the messages; returns the messages' ids."""
        numbers = []
        for message in messages:
            numbers.append(str(next(self._numbers)))
            self._replies[numbers[-1]] = self._answer(message)
        return numbers

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The answers to the messages with these ids, each once."""
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
