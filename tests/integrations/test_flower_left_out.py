"""A fleet's server with answers that are damaged, hostile or of another model, and the messages it sends."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from functools import cache

import numpy as np
import pytest
import torch_nano as tn
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.common.serde import recorddict_to_proto
from torch_nano.integrations.fleet_records import Fleet
from torch_nano.integrations.flower import HeadAveraging, LocalGrid, head_arrays, head_state

from integrations.test_flower import (
    SUMS,
    app,
    converted,
    fitting,
    learnt,
    opened,
    reasons,
    samples,
    weight_counts,
)

#: A model for many tests, none of which changes it.
unchanged = cache(converted)

Tamper = Callable[[RecordDict], None]


class TamperingGrid(LocalGrid):
    """Node 2's answers in training are changed on the way while `tamper` is set; what is sent is kept."""

    tamper: Tamper | None = None

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        messages = list(messages)
        if messages:
            self.sent = {message.metadata.dst_node_id: message.content for message in messages}
        return super().push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        replies = list(super().pull_messages(message_ids))
        for reply in replies:
            if reply.metadata.src_node_id == 2 and reply.metadata.message_type == "train" and self.tamper:
                self.tamper(reply.content)
        return replies


def state_of(content: RecordDict) -> bytes:
    return head_state(content.array_records["arrays"])


def with_state(change: Callable[[bytes], bytes]) -> Tamper:
    """Another state in place of the node's."""

    def tamper(content: RecordDict) -> None:
        content["arrays"] = head_arrays(change(state_of(content)))

    return tamper


def with_array(**fields: object) -> Tamper:
    """The array's own fields changed."""

    def tamper(content: RecordDict) -> None:
        array = content.array_records["arrays"]["head"]
        own = {"dtype": array.dtype, "shape": array.shape, "stype": array.stype, "data": array.data}
        content["arrays"] = ArrayRecord({"head": Array(**{**own, **fields})})  # type: ignore[arg-type]

    return tamper


def with_entry(record: str, **entries: object) -> Tamper:
    """Entries of a record changed; None: taken out."""

    def tamper(content: RecordDict) -> None:
        kind = ConfigRecord if record == "config" else MetricRecord
        changed = {**content[record], **{key.replace("_", "-"): value for key, value in entries.items()}}
        content[record] = kind({key: value for key, value in changed.items() if value is not None})  # type: ignore[arg-type]

    return tamper


def without(record: str) -> Tamper:
    def tamper(content: RecordDict) -> None:
        del content[record]

    return tamper


def twice(record: str) -> Tamper:
    def tamper(content: RecordDict) -> None:
        content[f"{record} again"] = content[record]

    return tamper


#: Numpy's header asks for 8 EB.
HUGE = (
    np.lib.format.magic(1, 0)
    + b"\x76\x00"
    + b"{'descr': '|u1', 'fortran_order': False, 'shape': (1"
    + b"0" * 18
    + b",), }"
)

BAD: dict[str, tuple[Tamper, str]] = {
    "cut": (with_state(lambda state: state[:-1]), "saved head has length"),
    "longer": (with_state(lambda state: state + b"\0"), "saved head has length"),
    "empty": (with_state(lambda state: b""), "saved head has length 0"),
    "impossible sums": (with_state(lambda state: state[:4] + b"\xff" * (len(state) - 4)), "holds"),
    "more classes than there is room for": (with_state(lambda state: b"\x99" + state[1:]), "classes in use"),
    "fewer samples than the start": (
        with_state(lambda state: bytes([3]) + bytes(len(state) - 1)),
        "learnt on",
    ),
    "another array": (with_array(data=b"\0" * 500), "damaged; expected a uint8 array"),
    "no bytes": (with_array(data=b""), "damaged; expected a uint8 array"),
    "a header of any size": (with_array(data=HUGE), "damaged; expected a uint8 array"),
    "another serialization": (with_array(stype="pickle"), "of pickle are damaged"),
    "no array": (lambda content: content.update({"arrays": ArrayRecord()}), "the arrays are none"),
    "no arrays": (without("arrays"), "it sent config, metrics; expected arrays and config"),
    "another model": (with_entry("config", model_id=1), "its head is of the model 1; expected"),
    "no model": (with_entry("config", model_id=None), "it sent None as its model's id"),
    "names that are none": (with_entry("config", labels=[1, 2, 3]), "as the names of its classes"),
    "no names": (with_entry("config", labels=None), "it sent None as the names of its classes"),
    "too few names": (with_entry("config", labels=["", ""]), "it sent 2 names for the 3 classes"),
    "too many names": (with_entry("config", labels=[""] * 5), "it sent 5 names for the 3 classes"),
    "a long name": (with_entry("config", labels=["", "", "x" * 500]), "which no device takes as a name"),
    "no config": (without("config"), "it sent arrays, metrics; expected arrays and config"),
    "part of a sample": (with_entry("metrics", num_examples=0.5), "it counted 0.5 samples"),
    "fewer than no samples": (with_entry("metrics", num_examples=-1), "it counted -1 samples"),
    "many samples": (with_entry("metrics", num_examples=2**32), "it counted 4294967296 samples"),
    "samples of each class": (with_entry("metrics", num_examples=[1, 2]), r"it counted \[1, 2\] samples"),
    "no number of samples": (with_entry("metrics", num_examples=None, loss=0.5), "it counted None samples"),
    "other metrics": (
        with_entry("metrics", loss=0.5),
        "its metrics are {'loss': 1, 'num-examples': 1}, those of most",
    ),
    "no metrics": (without("metrics"), "it sent 0 records of metrics"),
    "metrics twice": (twice("metrics"), "it sent 2 records of metrics"),
}


@pytest.mark.parametrize("settings", SUMS)
@pytest.mark.parametrize("bad", BAD)
def test_a_bad_answer_is_left_out_named_and_sent_again(settings: tn.heads.HeadSettings, bad: str) -> None:
    """Of three nodes, the second one's answer is bad in the second of three rounds; its device is sound."""
    nano = unchanged(settings)
    tamper, reason = BAD[bad]
    with opened(nano, 3) as devices:
        grid = TamperingGrid(
            [app(device, *(fitting(5, 10 * k + r) for r in range(3))) for k, device in enumerate(devices)]
        )
        strategy = HeadAveraging(nano, fraction_evaluate=0.0)
        result = strategy.start(grid, strategy.initial_arrays(), num_rounds=1)
        grid.tamper = tamper
        result = strategy.start(grid, result.arrays, num_rounds=1)
        assert list(reasons(strategy)) == [2]
        with pytest.raises(AssertionError, match=reason):
            raise AssertionError(strategy.left_out[0].reason)
        seeds = [10 * k + r for r in range(3) for k in range(3)]
        taken = [seed for seed in seeds[:6] if seed != 11]
        assert head_state(result.arrays) == learnt(nano, *(samples(5, seed) for seed in taken))
        grid.tamper = None
        result = strategy.start(grid, result.arrays, num_rounds=1)
        assert len(strategy.left_out) == 1
        assert head_state(result.arrays) == learnt(nano, *(samples(5, seed) for seed in seeds))


@pytest.mark.parametrize("seed", range(20))
def test_random_damage_never_stops_a_round(seed: int) -> None:
    rng = random.Random(seed)
    nano = unchanged(tn.heads.LDA())

    def damaged(data: bytes) -> bytes:
        changed = bytearray(data)
        for _ in range(rng.choice([1, 5, 50])):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        return bytes(changed[: rng.choice([None, -1, rng.randrange(len(changed))])])

    def tamper(content: RecordDict) -> None:
        array = content.array_records["arrays"]["head"]
        with_array(data=damaged(array.data))(content)

    with opened(nano, 2) as devices:
        grid = TamperingGrid(
            [app(device, fitting(5, k), fitting(5, 2 + k)) for k, device in enumerate(devices)]
        )
        grid.tamper = tamper
        strategy = HeadAveraging(nano, fraction_evaluate=0.0)
        result = strategy.start(grid, strategy.initial_arrays(), num_rounds=1)
        kept = learnt(nano, samples(5, 0))
        # A damage that no check can tell from something learnt counts; all other leaves out the node.
        assert (head_state(result.arrays) == kept) == (len(strategy.left_out) == 1), seed


@pytest.mark.parametrize("train_last", [1, 2])
def test_the_mean_leaves_out_bad_answers(train_last: int) -> None:
    nano = converted(tn.heads.SGD(learning_rate=0.02), train_last=train_last)
    head = nano.head
    assert isinstance(head, tn.heads.SgdHead)
    states = {}

    def tamper(content: RecordDict) -> None:
        with_state(lambda state: b"\xff" * 4 + state[4:])(content)

    with opened(nano, 3) as devices:
        grid = TamperingGrid([app(device, fitting(10, k)) for k, device in enumerate(devices)])
        grid.tamper = tamper
        strategy = HeadAveraging(nano, fraction_evaluate=0.0)
        result = strategy.start(grid, strategy.initial_arrays(), num_rounds=1)
        assert list(reasons(strategy)) == [2]
        states = [device.head_state() for device in devices]
        assert len(weight_counts(head)) == train_last
        head.aggregate([(states[0], 1), (states[2], 1)])
        assert head_state(result.arrays) == head.state()


def test_sums_that_do_not_fit_are_left_out_in_order() -> None:
    nano = converted(tn.heads.LDA())
    head = nano.head
    assert isinstance(head, tn.heads.LdaHead)
    many = samples(2**15 - 30, 99)
    head.load(learnt(nano, many))
    with opened(nano, 3) as devices:
        grid = LocalGrid(
            [
                app(device, fitting(count, count), fitting(1, 50))
                for device, count in zip(devices, (15, 20, 10), strict=True)
            ]
        )
        strategy = HeadAveraging(nano, fraction_evaluate=0.0)
        result = strategy.start(grid, strategy.initial_arrays(), num_rounds=1)
        assert list(reasons(strategy)) == [2]
        assert "room for 32768 samples" in strategy.left_out[0].reason
        assert head_state(result.arrays) == learnt(nano, many, samples(15, 15), samples(10, 10))
        held = devices[1].head_state()
        result = strategy.start(grid, result.arrays, num_rounds=1)
        # Its device keeps what does not fit, and says so.
        assert devices[1].head_state() == held
        assert "room for 32768 samples" in strategy.left_out[-1].reason
        assert head_state(result.arrays) == learnt(
            nano, many, samples(15, 15), samples(10, 10), samples(1, 50), samples(1, 50)
        )


def test_a_node_whose_metrics_differ_does_not_stop_the_evaluation() -> None:
    nano = converted(tn.heads.LDA())

    class Grid(TamperingGrid):
        def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
            replies = list(super().pull_messages(message_ids))
            for reply in replies:
                if reply.metadata.src_node_id == 2 and reply.metadata.message_type == "evaluate":
                    reply.content["metrics"] = MetricRecord({"num-examples": 1, "loss": [1.0, 2.0]})
            return replies

    with opened(nano, 3) as devices:
        grid = Grid([app(device, fitting(5, k)) for k, device in enumerate(devices)])
        strategy = HeadAveraging(nano)
        result = strategy.start(grid, strategy.initial_arrays(), num_rounds=1)
    (left,) = strategy.left_out
    assert (left.node, left.asked) == (2, "evaluate")
    assert str(left).startswith("node 2 is left out of round 1 (evaluate): its metrics are {'loss': 2, ")
    assert dict(result.evaluate_metrics_clientapp[1]) == {"accuracy": 1.0}


def test_a_node_is_told_what_concerns_it_and_no_more() -> None:
    nano = converted(tn.heads.LDA())
    sizes = {}
    for count in (2, 20):
        with opened(nano, count) as devices:
            grid = TamperingGrid(
                [
                    app(device, *(fitting(2, 100 * r + k) for r in range(3)))
                    for k, device in enumerate(devices)
                ]
            )
            strategy = HeadAveraging(nano, fraction_evaluate=0.0)
            strategy.start(grid, strategy.initial_arrays(), num_rounds=3)
        answers = {node: content.config_records["standing"]["answer"] for node, content in grid.sent.items()}
        assert len(set(answers.values())) == count
        sizes[count] = {
            len(recorddict_to_proto(content).SerializeToString()) for content in grid.sent.values()
        }
    assert sizes[2] == sizes[20]


def test_a_node_is_told_of_all_heads_since_its_latest_answer() -> None:
    states = [bytes([index]) * 8 for index in range(5)]
    fleet = Fleet.start(states[0], [])
    fleet.advance(states[1], [], {1: b"one", 2: b"two"})
    fleet.advance(states[2], [], {2: b"two again"})
    fleet.advance(states[3], [], {2: b"two once more"})
    assert fleet.standing(1).heads == fleet.heads[0:]
    assert fleet.standing(2).heads == fleet.heads[2:]
    assert fleet.standing(3).heads == fleet.heads
    assert fleet.standing(3).answer == ""
    arrays = head_arrays(states[3])
    fleet.put_into(arrays)
    assert Fleet.of(arrays) == fleet


def test_arrays_with_a_damaged_record_are_refused() -> None:
    nano = converted(tn.heads.LDA())
    strategy = HeadAveraging(nano, fraction_evaluate=0.0)
    for content in (b"", b"[]", b"{}", b'{"answers": []}', b'{"answers": {"1": 5}}', b"\xff"):
        arrays = strategy.initial_arrays()
        arrays["fleet"] = Array(np.frombuffer(content, np.uint8))
        with (
            opened(nano, 2) as devices,
            pytest.raises(tn.errors.HeadError, match="record of the fleet cannot be read"),
        ):
            strategy.start(LocalGrid([app(device) for device in devices]), arrays, num_rounds=1)
