"""Messages between the server of a fleet and its nodes, as Flower's records."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from .. import _native
from ..errors import HeadError

#: Names of records.
ARRAYS, CONFIG, METRICS, STANDING = "arrays", "config", "metrics", "standing"
#: Names within them.
MODEL, LABELS, SAMPLES = "model-id", "labels", "num-examples"
_HEAD, _FLEET = "head", "fleet"
_DIGEST_BYTES = 16


def head_arrays(state: bytes) -> ArrayRecord:
    """A head's state as Flower's arrays: one array of bytes.

    >>> head_state(head_arrays(b"123"))
    b'123'
    """
    return ArrayRecord({_HEAD: _array(state)})


def head_state(arrays: ArrayRecord) -> bytes:
    """The inverse of :func:`head_arrays`.

    Raises:
        HeadError: the arrays are not exactly one head's state.
    """
    if _HEAD not in arrays:
        raise HeadError(f"the arrays are {', '.join(arrays) or 'none'}; expected {_HEAD}, a head's state")
    return _content(arrays[_HEAD])


def _array(content: bytes) -> Array:
    return Array(np.frombuffer(content, np.uint8))


def _content(array: Array) -> bytes:
    """The bytes of an array of bytes.

    Its header is not parsed, as a damaged one could ask for any amount of memory, but compared with the one
    that numpy writes for so many bytes.

    Raises:
        HeadError: the header differs.
    """
    start = _header(len(array.data) - len(_header(len(array.data))))
    if array.stype != "numpy.ndarray" or not array.data.startswith(start):
        raise HeadError(
            f"the {len(array.data)} bytes of {array.stype} are damaged; expected a uint8 array [N]"
        )
    return array.data[len(start) :]


@lru_cache(maxsize=8)
def _header(length: int) -> bytes:
    """The header that numpy writes for an array of `length` bytes; it has the same size for any length."""
    header = io.BytesIO()
    description = {"descr": "|u1", "fortran_order": False, "shape": (length,)}
    np.lib.format.write_array_header_1_0(header, description)
    return header.getvalue()


def digest(state: bytes) -> str:
    """A digest that identifies a head."""
    return blake2b(state, digest_size=_DIGEST_BYTES).hexdigest()


@dataclass(frozen=True)
class Standing:
    """Information for a node about the server's head: names of classes, and which answer it includes."""

    #: Identifies the heads that descend from one start: an answer that none of them lists is in none of them.
    fleet: str
    labels: list[str]
    #: Digests of the server's heads, from the one on which the node's latest answer was learnt to this one.
    heads: list[str]
    #: Digest of the node's latest answer in the head; "" without one.
    answer: str

    @classmethod
    def of(cls, content: RecordDict) -> Standing:
        """The inverse of :meth:`record`."""
        return cls(**content.config_records[STANDING])  # type: ignore[arg-type]

    def record(self) -> ConfigRecord:
        """Converts it to Flower's record."""
        return ConfigRecord(asdict(self))


class Answer(NamedTuple):
    """A node's latest answer that is included in the server's head."""

    digest: str
    #: Index of the server's head that it was learnt on.
    start: int


@dataclass
class Fleet:
    """The answers that the server's head includes; stored with the head."""

    id: str
    labels: list[str]
    #: Digests of the server's heads, from the start to this one.
    heads: list[str]
    #: By node.
    answers: dict[str, Answer]

    @classmethod
    def start(cls, state: bytes, labels: list[str]) -> Fleet:
        """The record of a head that includes no known answers."""
        return cls(uuid4().hex, labels, [digest(state)], {})

    @classmethod
    def of(cls, arrays: ArrayRecord) -> Fleet | None:
        """The inverse of :meth:`put_into`; None without such a record.

        Raises:
            HeadError: it is damaged.
        """
        if _FLEET not in arrays:
            return None
        try:
            entries: dict[str, Any] = json.loads(_content(arrays[_FLEET]))
            answers = {node: Answer(*answer) for node, answer in entries.pop("answers").items()}
            return cls(**entries, answers=answers)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise HeadError(
                f"the arrays' record of the fleet cannot be read ({error}); start from whole arrays that "
                "HeadAveraging gave, or from head_arrays(state) of a fleet that starts anew"
            ) from error

    def put_into(self, arrays: ArrayRecord) -> None:
        """Adds it to a head's arrays."""
        arrays[_FLEET] = _array(json.dumps(asdict(self)).encode())

    def standing(self, node: int) -> Standing:
        """The information for a node."""
        answer = self.answers.get(str(node), Answer("", 0))
        return Standing(self.id, self.labels, self.heads[answer.start :], answer.digest)

    def advance(self, state: bytes, labels: list[str], answers: dict[int, bytes]) -> None:
        """Records the server's next head, which includes these nodes' heads."""
        start = len(self.heads) - 1
        self.answers.update({str(node): Answer(digest(own), start) for node, own in answers.items()})
        self.labels = labels
        self.heads.append(digest(state))


class ClassNames:
    """The names of classes that all owners agree on; "" for a class without a name.

    >>> names = ClassNames("the server", ["walk", "run"])
    >>> names.add("node 1", ["walk", "run", "jump"])
    >>> names.add("node 2", ["", ""])
    >>> names.labels
    ['walk', 'run', 'jump']
    """

    def __init__(self, owner: str, labels: Sequence[str]) -> None:
        #: Per class: the owner that named it, and the name.
        self._named = [(owner, label) for label in labels]

    @property
    def labels(self) -> list[str]:
        """The names."""
        return [label for _, label in self._named]

    def add(self, owner: str, labels: Sequence[str]) -> None:
        """Adds the names of another owner.

        Raises:
            HeadError: the owner has another name for a class; nothing is then added.
        """
        for index, ((first, name), label) in enumerate(zip(self._named, labels, strict=False)):
            if name and label not in ("", name):
                raise HeadError(
                    f"class {index} is {name!r} to {first} and {label!r} to {owner}: agree on the names, and "
                    "reset the device whose name is the wrong one"
                )
        for index, label in enumerate(labels):
            if index == len(self._named):
                self._named.append((owner, label))
            elif not self._named[index][1]:
                self._named[index] = (owner, label)


@dataclass(frozen=True)
class Reply:
    """The common part of all answers of nodes."""

    content: RecordDict
    #: The number of samples that it stands for.
    samples: int
    #: Name of each metric, and number of its values.
    metrics: tuple[tuple[str, int], ...]

    @classmethod
    def of(cls, content: RecordDict, samples_key: str) -> Reply:
        """Reads the answer's one record of metrics.

        Raises:
            HeadError: there is no such record, or it has no number of samples.
        """
        records = list(content.metric_records.values())
        if len(records) != 1:
            raise HeadError(f"it sent {len(records)} records of metrics; expected one")
        samples = records[0].get(samples_key)
        if not isinstance(samples, int) or not 0 <= samples <= _native.LARGEST_COUNT:
            raise HeadError(
                f"it counted {samples!r} samples ({samples_key!r}); expected a whole number, 0 to "
                f"{_native.LARGEST_COUNT}"
            )
        shape = sorted(
            (name, len(value) if isinstance(value, list) else 1) for name, value in records[0].items()
        )
        return cls(content, samples, tuple(shape))


@dataclass(frozen=True)
class Update:
    """A node's answer after learning."""

    #: :attr:`torch_nano.NanoModule.id` of the model that the node runs.
    model_id: int
    state: bytes
    samples: int
    #: Name of each class, "" for one without a name.
    labels: list[str]

    def record(self) -> RecordDict:
        """Converts it to Flower's records."""
        config = ConfigRecord({MODEL: self.model_id, LABELS: self.labels})
        metrics = MetricRecord({SAMPLES: self.samples})
        return RecordDict({ARRAYS: head_arrays(self.state), CONFIG: config, METRICS: metrics})

    @classmethod
    def of(cls, reply: Reply) -> Update:
        """The inverse of :meth:`record`.

        Raises:
            HeadError: it is not such a record.
        """
        arrays, config = reply.content.get(ARRAYS), reply.content.get(CONFIG)
        if not isinstance(arrays, ArrayRecord) or not isinstance(config, ConfigRecord):
            raise HeadError(
                f"it sent {', '.join(reply.content) or 'nothing'}; expected {ARRAYS} and {CONFIG}"
            )
        model_id, labels = config.get(MODEL), config.get(LABELS)
        if not isinstance(model_id, int):
            raise HeadError(f"it sent {model_id!r} as its model's id; expected a whole number")
        if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
            raise HeadError(f"it sent {labels!r} as the names of its classes; expected a list of texts")
        names = [str(label) for label in labels]
        wrong = next((name for name in names if name and not _native.is_label(name)), None)
        if wrong is not None:
            raise HeadError(f"it calls a class {wrong!r}, which no device takes as a name")
        return cls(model_id, head_state(arrays), reply.samples, names)
