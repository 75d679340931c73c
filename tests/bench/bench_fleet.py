"""What a round of a fleet costs its server, with nodes simulated in this process: `just bench-fleet`.

Every node learns a few samples in each round. Ends with status 1 if what is sent to a node beside the head is
more than it may be, if checking and adding a node's head takes more than its share of an LDA solve, or if the
merged head is not, to the byte, the one that learnt all samples itself.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import time
from collections.abc import Iterable
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch_nano as tn
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.serde import recorddict_to_proto
from flwr.serverapp import Grid
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch_nano.integrations.flower import HeadAveraging, LocalGrid, client_app, head_state

REPORT = Path(__file__).resolve().parents[2] / "build/bench/fleet.json"
INPUTS, FEATURES, CLASSES, SAMPLES = 8, 64, 6, 4
#: Most bytes sent to a node in addition to the head.
LARGEST_SHARE_OF_A_NODE = 2000
#: Most time to check and add a node's head, as a share of the time of one LDA solve.
LARGEST_SHARE_OF_A_SOLVE = 0.5


@dataclass
class Costs:
    """What one round took."""

    to_nodes: list[int] = field(default_factory=list)
    from_nodes: list[int] = field(default_factory=list)


def size_of(content: RecordDict) -> int:
    """Bytes of a message's content, as Flower sends it."""
    return len(recorddict_to_proto(content).SerializeToString())


class MeasuredGrid(LocalGrid):
    """Counts the bytes of all messages of the training half of a round."""

    def __init__(self, apps: list[ClientApp]) -> None:
        super().__init__(apps)
        self.costs = Costs()

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """The nodes' answers."""
        messages = list(messages)
        self.costs.to_nodes += [size_of(message.content) for message in messages]
        replies = list(super().send_and_receive(messages, timeout=timeout))
        self.costs.from_nodes += [size_of(reply.content) for reply in replies if reply.has_content()]
        return replies


class MeasuredAveraging(HeadAveraging):
    """Times the server's own work."""

    configure_seconds = aggregate_seconds = 0.0

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """What the nodes start from."""
        start = time.process_time()
        result = list(super().configure_train(server_round, arrays, config, grid))
        self.configure_seconds = time.process_time() - start
        return result

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """One head of those of the nodes."""
        replies = list(replies)
        start = time.process_time()
        result = super().aggregate_train(server_round, replies)
        self.aggregate_seconds = time.process_time() - start
        return result


def samples(seed: int) -> tuple[Tensor, Tensor]:
    """Some inputs, and their classes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (SAMPLES,), generator=generator)
    return torch.eye(CLASSES, INPUTS)[labels] + 0.3 * torch.randn(
        SAMPLES, INPUTS, generator=generator
    ), labels


def converted() -> tn.NanoModule:
    """A model with a head of sums."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(INPUTS, FEATURES), nn.ReLU(), nn.Linear(FEATURES, CLASSES))
    x = torch.cat([samples(-seed)[0] for seed in range(1, 50)])
    labels = [f"exercise {index}" for index in range(CLASSES)]
    return tn.to_nano(model, x, calibrate=x, head=tn.heads.LDA(), labels=labels)


def node(device: tn.Device, number: int) -> ClientApp:
    """What Flower runs next to one device; round after round it learns other samples."""
    seeds = iter(range(number, sys.maxsize, 1_000_000))

    def learn(device: tn.Device, context: Context) -> int:
        return device.fit(*samples(next(seeds))).sent

    return client_app(lambda context: nullcontext(device), learn)


def solve_seconds(head: tn.heads.LdaHead) -> float:
    """Median time of one LDA solve."""
    taken = []
    for _ in range(50):
        start = time.process_time()
        head.commit()
        taken.append(time.process_time() - start)
    return statistics.median(taken)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=1000, help="simulated nodes")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; the last one is judged")
    given = parser.parse_args()
    logging.getLogger("flwr").setLevel(logging.WARNING)
    nano = converted()
    assert isinstance(nano.head, tn.heads.LdaHead)
    head_bytes = len(nano.head.state())
    strategy = MeasuredAveraging(nano, fraction_evaluate=0.0)
    table = Table("round", "MB to nodes", "beside the head", "B a node", "MB from nodes", "send s", "merge s")
    with ExitStack() as opened:
        devices = [
            opened.enter_context(tn.Device("sim", nano=nano, progress=False)) for _ in range(given.nodes)
        ]
        grid = MeasuredGrid([node(device, number) for number, device in enumerate(devices)])
        arrays = strategy.initial_arrays()
        for turn in range(1, given.rounds + 1):
            grid.costs = costs = Costs()
            arrays = strategy.start(grid, arrays, num_rounds=1).arrays
            beside = sum(costs.to_nodes) - head_bytes * given.nodes
            table.add_row(
                str(turn),
                f"{sum(costs.to_nodes) / 1e6:.2f}",
                f"{beside / 1e6:.2f}",
                f"{beside / given.nodes:.0f}",
                f"{sum(costs.from_nodes) / 1e6:.2f}",
                f"{strategy.configure_seconds:.3f}",
                f"{strategy.aggregate_seconds:.3f}",
            )
    Console().print(table)
    for number in range(given.nodes):
        for turn in range(given.rounds):
            x, y = samples(number + 1_000_000 * turn)
            nano.head.learn(nano.features_int8(x), y)
    nano.head.commit()
    solve = solve_seconds(nano.head)
    differing = sum(a != b for a, b in zip(nano.head.state(), head_state(arrays), strict=True))
    measured = {
        "bytes_beside_the_head_of_a_node": beside / given.nodes,
        "merge_vs_solve": strategy.aggregate_seconds / given.nodes / solve,
        "differing_bytes": differing,
    }
    print(f"a head has {head_bytes} bytes; one LDA solve takes {1e3 * solve:.2f} ms")
    print(f"checking and adding a head: {measured['merge_vs_solve']:.3f} of a solve")
    print(f"bytes unlike a head that learnt all: {differing}")
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps(measured, indent=2) + "\n")
    limits = {
        "bytes_beside_the_head_of_a_node": LARGEST_SHARE_OF_A_NODE,
        "merge_vs_solve": LARGEST_SHARE_OF_A_SOLVE,
        "differing_bytes": 0,
    }
    exceeded = [name for name, limit in limits.items() if measured[name] > limit]
    if exceeded:
        print(f"over the limit: {', '.join(exceeded)}", file=sys.stderr)
    return int(bool(exceeded))


if __name__ == "__main__":
    sys.exit(main())
