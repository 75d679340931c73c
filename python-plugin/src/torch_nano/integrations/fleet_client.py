"""The Flower client app for one device of a fleet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from itertools import takewhile

from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from ..device.client import Device
from ..errors import HeadError, WrongModelError
from ..heads import head_of
from .fleet_records import (
    ARRAYS,
    CONFIG,
    METRICS,
    MODEL,
    SAMPLES,
    ClassNames,
    Standing,
    Update,
    digest,
    head_state,
)

_MEMORY = "torch-nano"


def client_app(
    device: Callable[[Context], AbstractContextManager[Device]],
    learn: Callable[[Device, Context], int],
    evaluate: Callable[[Device, Context], tuple[int, Mapping[str, float]]] | None = None,
    *,
    overwrite: bool = False,
) -> ClientApp:
    """Makes the Flower client app for one device.

    In each round the device loads the server's head, adds the classes that it lacks, and learns; its head
    goes back with the names of its classes. The samples in its ring stay.

    Weights trained by gradient descent are replaced by the server's: that is federated averaging. Sums are
    not: if an answer does not reach the server, or is left out there, its sums are added to the server's next
    head and go out with the next answer (`context.state` stores what is needed for that, for the duration of
    the run). A device that was reset, or restarted with nothing saved, has no sums of its own. For any other
    sums that the server's arrays do not list, such as those learnt between two rounds, it is unknown which of
    them the server lacks: the device refuses, as it does when a class has another name.

    Args:
        device: opens the device; `context.node_config` is the configuration of its supernode. The device is
            closed after each message: `contextlib.nullcontext(device)` keeps one open.
        learn: lets the device learn, and returns the number of samples. A head of sums learns each sample
            once: later rounds need new ones. If it raises, what was learnt so far is kept and sent later.
        evaluate: scores the device with the server's head (plus its own sums that have not reached the
            server); returns the number of samples, and metrics.
        overwrite: whether the server's head replaces the device's sums in any case; sums that the server
            lacks are then lost.

    >>> import torch, torch_nano as tn
    >>> from torch_nano.integrations.flower import HeadAveraging, LocalGrid
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
                context.state.config_records[_MEMORY]["held"] = digest(state)
            update = Update(connected.info.model_id, state, samples, list(connected.labels))
        return Message(update.record(), reply_to=message)

    if evaluate is not None:

        @app.evaluate()
        def score(message: Message, context: Context) -> Message:
            with device(context) as connected:
                _take_over(connected, message.content, context, overwrite)
                samples, metrics = evaluate(connected, context)
            record = MetricRecord({**metrics, SAMPLES: samples})
            return Message(RecordDict({METRICS: record}), reply_to=message)

    return app


def _take_over(device: Device, content: RecordDict, context: Context, overwrite: bool) -> None:
    """Loads the server's head into the device, and adds the classes that the device lacks.

    Raises:
        WrongModelError: it is another model's.
        HeadError: a class has another name on the device, or sums of the device would be lost.
    """
    expected = content.config_records[CONFIG].get(MODEL)
    if device.info.model_id != expected:
        raise WrongModelError(
            f"the server averages heads of the model {expected!r}; the device runs "
            f"{device.info.name!r}, {device.info.model_id!r}: give both the same image"
        )
    standing, server = Standing.of(content), head_state(content.array_records[ARRAYS])
    own = device.labels
    ClassNames("the server", standing.labels).add("the device", own)
    state = server if overwrite else _with_unsent(device, server, standing, context)
    for name in takewhile(bool, standing.labels[len(own) :]):
        device.add_class(name)
    device.write_head(state)
    context.state[_MEMORY] = ConfigRecord(
        {"fleet": standing.fleet, "server": server, "answer": standing.answer, "held": digest(state)}
    )


def _with_unsent(device: Device, server: bytes, standing: Standing, context: Context) -> bytes:
    """The server's head plus what the device has learnt for an answer that the server does not have."""
    if device.info.ring_capacity:
        return server
    if device._image is None:
        raise HeadError("to keep its sums the client must know the device's model: Device(..., nano=nano)")
    head, state = head_of(device._image), device.head_state()
    held = digest(state)
    if state in (head.state(), server) or held in (standing.answer, *standing.heads):
        return server
    unsent = ""
    memory = context.state.config_records.get(_MEMORY, ConfigRecord())
    # The server has included nothing of this node since it sent the head that the device started from.
    if [memory.get(key) for key in ("fleet", "answer", "held")] == [standing.fleet, standing.answer, held]:
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
