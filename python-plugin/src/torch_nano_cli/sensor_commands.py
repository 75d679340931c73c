"""The commands of a device's sensor: collect, watch."""

from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from .device_command import command

if TYPE_CHECKING:
    from torch_nano import Device

_SENSE = "Sense"

Replay = Annotated[
    Path | None,
    typer.Option(help="Instead of the device's sensor: a recording, as `collect` writes it (.csv)."),
]
Rate = Annotated[float, typer.Option(help="Samples a second. The shipped firmware takes 100.")]
Hop = Annotated[
    int | None, typer.Option(min=1, help="Samples from window to window; without it half a window.")
]


def add_sensor_commands(app: typer.Typer) -> None:
    """Adds the commands."""
    for act in (collect, watch):
        command(app, _SENSE)(act)


def add_live(app: typer.Typer) -> None:
    """Adds the command `live`."""
    command(app, "Devices")(live)


def collect(
    device: "Device",
    label: Annotated[str, typer.Option(help="What is being done; empty: unknown.")],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="The file (.csv), to which a recording is added."),
    ] = Path("recordings.csv"),
    seconds: Annotated[float, typer.Option(help="How long; Ctrl-C ends it before.")] = 10,
    rate: Rate = 100,
    columns: Annotated[
        str | None, typer.Option(help="Names of the sensor's numbers, with commas between.")
    ] = None,
    group: Annotated[str, typer.Option(help="Such as who wears the device.")] = "",
    replay: Replay = None,
) -> None:
    """Writes what the device's sensor sees to a file: one row per time stamp, with a label.

    `tn.windows("recordings.csv", length=100, hop=50)` cuts the file into windows for `to_nano` and `fit`.

    Example: `torch-nano device collect /dev/ttyACM0 --label walk --seconds 30`
    """
    from .collecting import Collection

    names = None if columns is None else [name.strip() for name in columns.split(",")]
    with Collection(output, label, group, rate, names) as collection:
        collection.run(device, seconds, replay)
    print(collection)


def watch(
    device: "Device",
    hop: Hop = None,
    rate: Rate = 100,
    replay: Replay = None,
    count: Annotated[int | None, typer.Option("--count", min=1, help="Stop after so many windows.")] = None,
) -> None:
    """Shows live what the device makes of its sensor: each class with its probability. Ctrl-C ends it.

    The PC assembles windows from the samples, and asks the device. On a terminal these are bars, else a line
    for each window.

    Example: `torch-nano device watch /dev/ttyACM0 --hop 25`
    """
    from rich.live import Live

    from .sensor import samples_of
    from .watching import bars, line
    from .window_predictor import WindowPredictor

    predictor = WindowPredictor(device, hop)
    console = Console()
    live = Live(console=console, auto_refresh=False) if console.is_terminal else None
    number = 0
    with nullcontext() if live is None else live, suppress(KeyboardInterrupt):
        for sample in samples_of(device, replay, rate):
            made = predictor.push(sample)
            if made is None:
                continue
            number += 1
            if live is None:
                print(line(device, made), flush=True)
            else:
                live.update(bars(device, made, number), refresh=True)
            if number == count:
                break


def live(
    device: "Device",
    hop: Hop = None,
    rate: Rate = 100,
    replay: Replay = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the page; 0: any that is free.")] = 0,
) -> None:
    """Serves a page for this computer's browser: live predictions, and buttons that teach the device.

    It shows each class with its probability, the signal, and how many windows were right since the first
    label. A recording is played again and again. Ctrl-C ends it.

    Example: `torch-nano live sim -m moves.nanomodel --replay recordings.csv`
    """
    from torch_nano.errors import TorchNanoError

    try:
        from .live.server import LiveServer
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn"):
            raise
        raise TorchNanoError(
            f"the page needs {error.name}, which is not installed: pip install 'torch-nano[live]'"
        ) from error
    from .live.session import LiveSession
    from .sensor import samples_of

    session = LiveSession(device, samples_of(device, replay, rate, repeat=True), hop)
    server = LiveServer(session, port)
    print(f"open {server.url}   (Ctrl-C ends it)", flush=True)
    server.run()
