"""The commands `torch-nano device ...`."""

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .device_command import command
from .groups import Commands
from .output import show

if TYPE_CHECKING:
    from torch_nano import Device

_ABOUT = r"""Ask a device: what it sees, what it learns, what it has learnt.

CONNECTION is a serial port (`/dev/ttyACM0`, `COM3`), `socket://host:port`, `sim` (a device simulated on this
computer) or `qemu` (the emulated rv32imc board). The last two need `--model`, and live as long as a command:
what they save is in the file `--flash`, while samples, and what `undo` takes back, are gone.

**A first session, without a board:**

    torch-nano device learn sim train.csv -m moves.nanomodel \
        --flash sim.flash --save
    torch-nano device predict sim test.csv -m moves.nanomodel \
        --flash sim.flash

**The same on a board:**

    torch-nano device learn /dev/ttyACM0 train.csv \
        -m moves.nanomodel --save
    torch-nano device predict /dev/ttyACM0 test.csv -m moves.nanomodel

**The model** (`--model`, `-m`) is the file that `nano.save("moves.nanomodel")` or `nano.export(folder)`
wrote. `learn` and `predict` need the former to turn floats into the device's integers; with `model.nano`, or
on a board without `--model`, they take a `.npz` file of integers. All other commands take either.

**Data** are

- `.csv` files in UTF-8: a line of names, then one line for each sample. The column `label` holds the label,
  each other column one element. Between columns are commas, semicolons or tabs; decimals take a point.
- `.npz` files: `np.savez("train.npz", x=x, y=y)` with inputs `x` [N, ...] and labels `y` [N]. Of a model of
  several inputs, each is an array of its name: `np.savez("train.npz", motion=m, sound=s, y=y)`. (If one is
  called `y`, the labels are `label`.) `info` lists the names.

The rows of an embedding are given by their indices, whole numbers in either file, also without `--model`.

**Labels** are what the model's head learns from:

- *a class*: its name. Or its index, where no class has a number as its name. (Integers in a `.npz` file are
  indices.)
- *several right classes*: their names with `|` between them, `rain|wind`, or none; in a `.npz` file also bool
  [N, classes].
- *a number*.
"""

device_app = typer.Typer(no_args_is_help=True, help=_ABOUT, cls=Commands)
_ASK, _LEARN, _KEEP = "Ask", "Learn", "Keep"
_Epochs = Annotated[int, typer.Option(help="Passes over the samples, of a head that learns in epochs.")]


@command(device_app, _ASK)
def info(device: "Device") -> None:
    """What the device is: its model, its classes, what it has saved.

    Example: `torch-nano device info /dev/ttyACM0`
    """
    rows: dict[str, object] = {field.name: getattr(device.info, field.name) for field in fields(device.info)}
    for side in ("inputs", "outputs"):
        rows[side] = "\n".join(map(str, getattr(device.info, side)))
    rows["model_id"] = f"{device.info.model_id:08x}"
    rows["labels"] = ", ".join(device.labels)
    rows["rejection"] = f"{device.settings.rejection:g}"
    rows["save_interval"] = device.settings.save_interval
    show(rows)
    if device.info.lost_save is not None:
        print(
            f"Save {device.info.lost_save}, the latest, was cut short or is damaged; "
            f"what can be loaded is save {device.info.saved}, the one before it."
        )


@command(device_app, _ASK)
def stats(device: "Device") -> None:
    """What the device has counted since its start.

    Example: `torch-nano device stats /dev/ttyACM0`
    """
    counted = device.stats()
    show({field.name: getattr(counted, field.name) for field in fields(counted)})


@command(device_app, _ASK)
def predict(device: "Device", data: Path) -> None:
    """Prints for each input of a file what the model makes of it.

    That is the class, its probability, and by how much that exceeds the second class's (the margin: a label
    helps most where it is least), all right classes, or a number; of a model of several outputs each of them
    by name, as real numbers. A class in brackets is rejected: its probability is below the device's threshold
    (`configure --rejection`), or the input is unlike every class that the model knows. If the file has
    labels, the last line says how many were right.

    Example: `torch-nano device predict /dev/ttyACM0 test.npz -m moves.nanomodel`
    """
    from .device_data import inputs_of, labels_of, outputs_shown, samples_of

    table = samples_of(device, data)
    meaning = labels_of(device)
    labels = None if table.labels is None else meaning.read(table)
    inputs = inputs_of(device, table)
    made = []
    for sample in zip(*inputs.values(), strict=True):
        made.append(device.predict(dict(zip(inputs, sample, strict=True))))
        several = len(device.info.outputs) > 1
        print(outputs_shown(device, made[-1]) if several else meaning.shown(made[-1]))
    if labels is not None:
        print(meaning.score(made, labels))


@command(device_app, _LEARN, saves=True)
def learn(device: "Device", data: Path, epochs: _Epochs = 20) -> None:
    """Learns every sample of a file, then trains (or commits, where the model's trainer learns sums).

    Example: `torch-nano device learn /dev/ttyACM0 train.csv -m moves.nanomodel --epochs 10 --save`
    """
    from .device_data import inputs_of, labels_of, samples_of

    table = samples_of(device, data)
    labels = labels_of(device).read(table)
    result = device.fit(inputs_of(device, table), labels, epochs=epochs)
    trained = f"{result.epochs} epochs" if result.epochs else "committed"
    print(f"{result.sent} samples sent, {trained}, {result.seconds:.1f} s, {result.ticks:,} ticks")
    if result.taken_back:
        print("taken back: the head is no better on the samples kept aside, and stays as it was")


@command(device_app, _LEARN, saves=True)
def train(device: "Device", epochs: _Epochs = 20) -> None:
    """Trains for more epochs on the samples that the device keeps. Ctrl-C stops it, and what it learnt stays.

    Example: `torch-nano device train /dev/ttyACM0 --epochs 5 --save`
    """
    print(f"{epochs} epochs, {device.train(epochs):,} ticks")


@command(device_app, _LEARN, saves=True)
def commit(device: "Device") -> None:
    """Makes what was learnt count, in a head that learns sums.

    Example: `torch-nano device commit /dev/ttyACM0 --save`
    """
    print(f"committed, {device.commit():,} ticks")


@command(device_app, _LEARN, "add-class", saves=True)
def add_class(device: "Device", name: str) -> None:
    """Adds a class, to be learnt by samples, in a head that learns sums and has room for one.

    Example: `torch-nano device add-class /dev/ttyACM0 jump --save`
    """
    print(f"class {device.add_class(name)} is {name}")


@command(device_app, _LEARN, saves=True)
def forget(device: "Device", label: str) -> None:
    """Forgets what was learnt of a class, in a head that learns sums. Its index and name stay.

    Example: `torch-nano device forget /dev/ttyACM0 jump --save`
    """
    from .device_data import labels_of

    index = labels_of(device).index(label)
    device.forget(index)
    print(f"forgot class {index}")


@command(device_app, _LEARN, saves=True)
def undo(device: "Device") -> None:
    """Takes back the latest change of the head, or the latest sample, once.

    Example: `torch-nano device undo /dev/ttyACM0`
    """
    device.undo()
    print("undone")


@command(device_app, _LEARN, saves=True)
def reset(device: "Device") -> None:
    """Puts the head back to the model's own, and forgets all that was learnt. What is saved stays.

    With `--save` that is what the device starts with from then on.

    Example: `torch-nano device reset /dev/ttyACM0`
    """
    device.reset()
    print("reset")


@command(device_app, _KEEP, "save")
def save_command(
    device: "Device",
    replace: Annotated[bool, typer.Option("--replace", help="Also over the head of another model.")] = False,
) -> None:
    """Saves the head in the device's flash, from which it starts again.

    Example: `torch-nano device save /dev/ttyACM0`
    """
    print(f"saved: {device.save(replace=replace)} in all")


@command(device_app, _KEEP, "load")
def load_command(device: "Device") -> None:
    """Back to the head that was saved last.

    Example: `torch-nano device load /dev/ttyACM0`
    """
    print(f"loaded save number {device.load()}")


@command(device_app, _KEEP, saves=True)
def configure(
    device: "Device",
    rejection: Annotated[
        float | None, typer.Option(help="Predictions less sure than this, 0 to 1, are of no known class.")
    ] = None,
    save_interval: Annotated[
        int | None, typer.Option(help="The device saves by itself after so many changes; 0: never.")
    ] = None,
) -> None:
    """Sets how the device behaves. What is not given stays; `--save` makes it last.

    Example: `torch-nano device configure /dev/ttyACM0 --rejection 0.6 --save`
    """
    from torch_nano.errors import InputError

    if rejection is None and save_interval is None:
        raise InputError("there is nothing to set; expected --rejection or --save-interval")
    settings = device.configure(rejection=rejection, save_interval=save_interval)
    print(f"rejection {settings.rejection:g}, save interval {settings.save_interval}")


@command(device_app, _KEEP)
def update(device: "Device", new_model: Path) -> None:
    """Replaces the model on the device by the one in a file, and restarts it.

    It is checked before it is used, and a power cut leaves the old model or the new one. The head goes on if
    the new model has the same one; if not, the old head stays saved until `save --replace`. An update that
    was interrupted goes on.

    Example: `torch-nano device update /dev/ttyACM0 better.nanomodel`
    """
    from torch_nano.compile.model_file import read_model

    had_head = device.info.saved is not None or device.info.classes > 0
    result = device.update(read_model(new_model))
    print(f"update {result.number}: {device.info.name}, {result.sent:,} bytes sent, {result.seconds:.1f} s")
    if result.head_kept:
        print("the head goes on")
    elif had_head and device.info.classes:
        print("the new model starts with its own head; the old one stays saved until save --replace")


@command(device_app, _KEEP, "read-head")
def read_head(device: "Device", file: Path) -> None:
    """Writes the head's state to a file: a backup, or for another device of the same model.

    A file of that name must not be there. It has the model's id and a checksum: `write-head` refuses a
    damaged one, and one of another model. In Python
    `torch_nano.cli.head_file` reads it: `nano.head.load(load_head("anna.head", nano.id))`.

    Example: `torch-nano device read-head /dev/ttyACM0 anna.head`
    """
    from torch_nano.cli.head_file import save_head

    state = device.head_state()
    save_head(file, device.info.model_id, state)
    print(f"{file}: a head of {len(state)} bytes")


@command(device_app, _KEEP, "write-head", saves=True)
def write_head(device: "Device", file: Path) -> None:
    """Puts the head from a file, which `read-head` wrote, on a device of the same model.

    Example: `torch-nano device write-head /dev/ttyACM0 anna.head --save`
    """
    from torch_nano.cli.head_file import load_head

    state = load_head(file, device.info.model_id)
    device.write_head(state)
    print(f"{file}: a head of {len(state)} bytes")
