"""The command line: `torch-nano device ...`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

from .. import _native
from ..errors import TorchNanoError
from ..module import NanoModule, load
from .client import Device
from .tables import Table as Data
from .tables import TableError, read_table

_ABOUT = """Ask a device: what it sees, what it learns, what it has learnt.

CONNECTION is a serial port (`/dev/ttyACM0`, `COM3`), `socket://host:port`, `sim` (a device simulated on this
computer) or `qemu` (the emulated rv32imc board). The last two need `--model`, and keep what they save in
`--flash`.

The model is the file that `nano.save(path)` or `nano.export(folder)` wrote. With the former a device can be
given floats; with `model.nano` alone, the device's int8.

**A first session, without a board:**

    torch-nano device learn sim train.csv --model moves.pt --flash sim.flash --save

    torch-nano device predict sim test.csv --model moves.pt --flash sim.flash

**The same on a board:**

    torch-nano device learn /dev/ttyACM0 train.csv --model moves.pt --save

Data are `.npz` files with inputs `x` [N, ...] and labels `y` [N], or `.csv` files with a line of names, in
which the column `label` holds the label (an index or a name) and each other column one element.
"""


class _OneMessage(TyperGroup):
    """Commands whose errors are one message and exit status 1."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (TorchNanoError, _native.NanoError, OSError, ValueError) as error:
            reason = _reason(error)
            Console(stderr=True).print(f"torch-nano: {reason}", markup=False, highlight=False, soft_wrap=True)
            raise typer.Exit(1) from error


app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown", cls=_OneMessage)
device_app = typer.Typer(no_args_is_help=True, help=_ABOUT)
app.add_typer(device_app, name="device")


@app.callback()
def about() -> None:
    """PyTorch models as exact int8 programs for microcontrollers, with a head that goes on learning there."""


Connection = Annotated[str, typer.Argument(help="A serial port, socket://host:port, sim or qemu.")]
Model = Annotated[Path | None, typer.Option("--model", "-m", help="The model's file.")]
Flash = Annotated[Path | None, typer.Option(help="For sim and qemu: the file they save in.")]
Timeout = Annotated[float, typer.Option(help="Seconds to wait for an answer.")]
Save = Annotated[bool, typer.Option("--save", help="Save the head in the device's flash afterwards.")]
DataFile = Annotated[Path, typer.Argument(help="A .npz or .csv file.")]


def model_of(path: Path | None) -> NanoModule | bytes | None:
    """What `--model` names: an image, or a whole model."""
    if path is None:
        return None
    with path.open("rb") as file:
        start = file.read(4)
    return path.read_bytes() if start == b"NANO" else load(path)


@contextmanager
def connected(connection: str, model: Path | None, flash: Path | None, timeout: float) -> Iterator[Device]:
    """The device, until the command ends."""
    with Device(connection, nano=model_of(model), flash=flash, timeout=timeout) as device:
        yield device


def show(rows: dict[str, object]) -> None:
    """Names and values, one below the other."""
    table = Table(box=None, show_header=False)
    for name, value in rows.items():
        table.add_row(name.replace("_", " "), str(value))
    Console().print(table)


@device_app.command()
def info(connection: Connection, model: Model = None, flash: Flash = None, timeout: Timeout = 30) -> None:
    """What the device is: its model, its classes, what it has saved.

    Example: `torch-nano device info /dev/ttyACM0`
    """
    with connected(connection, model, flash, timeout) as device:
        rows: dict[str, object] = {
            field.name: getattr(device.info, field.name) for field in fields(device.info)
        }
        rows["model_id"] = f"{device.info.model_id:08x}"
        rows["labels"] = ", ".join(device.labels)
        rows["rejection"] = f"{device.settings.rejection:g}"
        rows["save_interval"] = device.settings.save_interval
        show(rows)


@device_app.command()
def predict(
    connection: Connection, data: DataFile, model: Model = None, flash: Flash = None, timeout: Timeout = 30
) -> None:
    """Runs the model on every input of a file, and prints a line for each: class, name, confidence.

    A class in brackets was not sure enough: its confidence is below the device's rejection threshold. If the
    file has labels, the last line says how many were right.

    Example: `torch-nano device predict /dev/ttyACM0 test.npz --model moves.pt`
    """
    table = read_table(data)
    with connected(connection, model, flash, timeout) as device:
        right = 0
        labels: Sequence[int | str | None] = table.labels or [None] * len(table.inputs)
        for input, label in zip(inputs_for(device, table), labels, strict=True):
            made = device.predict(input)
            sure = "" if made.confidence is None else f"  {made.confidence:.3f}"
            shown = f"{made.label} {made.name}".strip()
            print((shown if made.known else f"({shown})") + sure)
            right += label is not None and label in (made.label, made.name)
        if table.labels is not None:
            print(f"{right} of {len(table.inputs)} right, {100 * right / len(table.inputs):.1f} %")


@device_app.command()
def learn(
    connection: Connection,
    data: DataFile,
    model: Model = None,
    epochs: Annotated[int, typer.Option(help="Passes, of a head that learns in epochs.")] = 20,
    save: Save = False,
    flash: Flash = None,
    timeout: Timeout = 30,
) -> None:
    """Learns every sample of a file, then trains (or commits, where the model's trainer learns sums).

    Example: `torch-nano device learn /dev/ttyACM0 train.csv --model moves.pt --epochs 10 --save`
    """
    table = read_table(data)
    if table.labels is None:
        raise TableError(f"{data} has no labels; expected an array `y`, or a column `label`")
    with connected(connection, model, flash, timeout) as device:
        result = device.fit(inputs_for(device, table), table.labels, epochs=epochs)
        trained = f"{result.epochs} epochs" if result.epochs else "committed"
        print(f"{result.sent} samples sent, {trained}, {result.seconds:.1f} s, {result.ticks:,} ticks")
        saved(device, save)


@device_app.command()
def train(
    connection: Connection,
    epochs: Annotated[int, typer.Option(help="Passes over what the device keeps.")] = 20,
    save: Save = False,
    model: Model = None,
    flash: Flash = None,
    timeout: Timeout = 30,
) -> None:
    """Trains for more epochs on the samples that the device keeps.

    Example: `torch-nano device train /dev/ttyACM0 --epochs 5 --save`
    """
    with connected(connection, model, flash, timeout) as device:
        print(f"{epochs} epochs, {device.train(epochs):,} ticks")
        saved(device, save)


@device_app.command()
def commit(
    connection: Connection,
    save: Save = False,
    model: Model = None,
    flash: Flash = None,
    timeout: Timeout = 30,
) -> None:
    """Makes what was learnt count, in a head that learns sums.

    Example: `torch-nano device commit /dev/ttyACM0 --save`
    """
    with connected(connection, model, flash, timeout) as device:
        print(f"committed, {device.commit():,} ticks")
        saved(device, save)


@device_app.command("save")
def save_command(
    connection: Connection,
    replace: Annotated[bool, typer.Option("--replace", help="Also over the head of another model.")] = False,
    model: Model = None,
    flash: Flash = None,
    timeout: Timeout = 30,
) -> None:
    """Saves the head in the device's flash, from which it starts again.

    Example: `torch-nano device save /dev/ttyACM0`
    """
    with connected(connection, model, flash, timeout) as device:
        print(f"saved: {device.save(replace=replace)} in all")


@device_app.command("load")
def load_command(
    connection: Connection, model: Model = None, flash: Flash = None, timeout: Timeout = 30
) -> None:
    """Back to the head that was saved last.

    Example: `torch-nano device load /dev/ttyACM0`
    """
    with connected(connection, model, flash, timeout) as device:
        print(f"loaded save number {device.load()}")


@device_app.command()
def undo(connection: Connection, model: Model = None, flash: Flash = None, timeout: Timeout = 30) -> None:
    """Takes back the latest change of the head, or the latest sample. Once.

    Example: `torch-nano device undo /dev/ttyACM0`
    """
    with connected(connection, model, flash, timeout) as device:
        device.undo()
        print("undone")


@device_app.command("read-head")
def read_head(
    connection: Connection,
    file: Annotated[Path, typer.Argument(help="Where to write the head's state; must not be there.")],
    model: Model = None,
    flash: Flash = None,
    timeout: Timeout = 30,
) -> None:
    """Writes the head's state to a file: a backup, or for another device of the same model.

    In Python: `nano.head.load(Path(file).read_bytes())`

    Example: `torch-nano device read-head /dev/ttyACM0 anna.head`
    """
    with connected(connection, model, flash, timeout) as device:
        state = device.head_state()
    with file.open("xb") as opened:
        opened.write(state)
    print(f"{len(state)} bytes, CRC-32 {_native.crc32(state):08x}")


@device_app.command("write-head")
def write_head(
    connection: Connection,
    file: Annotated[Path, typer.Argument(help="A head's state, from read-head.", exists=True)],
    save: Save = False,
    model: Model = None,
    flash: Flash = None,
    timeout: Timeout = 30,
) -> None:
    """Puts the head from a file on the device.

    Example: `torch-nano device write-head /dev/ttyACM0 anna.head --save`
    """
    state = file.read_bytes()
    with connected(connection, model, flash, timeout) as device:
        device.write_head(state)
        print(f"{len(state)} bytes, CRC-32 {_native.crc32(state):08x}")
        saved(device, save)


@device_app.command()
def stats(connection: Connection, model: Model = None, flash: Flash = None, timeout: Timeout = 30) -> None:
    """What the device has counted since its start.

    Example: `torch-nano device stats /dev/ttyACM0`
    """
    with connected(connection, model, flash, timeout) as device:
        counted = device.stats()
        show({field.name: getattr(counted, field.name) for field in fields(counted)})


def inputs_for(device: Device, table: Data) -> NDArray[np.generic]:
    """The inputs of a file, in the shape that the device's model has."""
    nano, inputs = device._nano, table.inputs
    flat = inputs.ndim == 2 and inputs.shape[1] == device.info.input_length and inputs.dtype != np.int8
    return inputs if nano is None or not flat else inputs.reshape(len(inputs), *nano.input_shape)


def saved(device: Device, wanted: bool) -> None:
    """Saves the head if that is wanted, and says so."""
    if wanted:
        print(f"saved: {device.save()} in all")


def main() -> None:
    """Runs the command line."""
    app()


def _reason(error: Exception) -> str:
    """What went wrong, without the system's numbers."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)
