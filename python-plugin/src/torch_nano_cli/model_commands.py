"""The commands of models: convert, summary, verify, compare, profile, fits, export."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .output import print_json

if TYPE_CHECKING:
    from torch_nano import NanoModule

_CONVERT, _LOOK, _SHIP = "Convert", "Look", "Ship"

_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_Chip = Annotated[str | None, typer.Option(help="A chip, such as esp32c3.")]


class Head(StrEnum):
    """What learns on the device."""

    auto = "auto"
    none = "none"
    sgd = "sgd"
    lda = "lda"
    prototype = "prototype"


class Goal(StrEnum):
    """By what kernels are chosen."""

    speed = "speed"
    flash = "flash"
    ram = "ram"


class Target(StrEnum):
    """With what nano-core is compared."""

    host = "host"
    rv32imc = "rv32imc"


def add_model_commands(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command(rich_help_panel=_CONVERT)(convert)
    for look in (summary, verify, compare, profile, fits):
        app.command(rich_help_panel=_LOOK)(look)
    app.command(rich_help_panel=_SHIP)(export)


def convert(
    source: str,
    calibrate: Annotated[
        str, typer.Option("--calibrate", "-c", help="Typical inputs: .npz, .csv, or file.py:function.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write (.nanomodel).")],
    head: Annotated[
        Head, typer.Option(help="What learns on the device; auto: the last layer, if the others are frozen.")
    ] = Head.auto,
    labels: Annotated[str | None, typer.Option(help="The classes' names, with commas between.")] = None,
    name: Annotated[str | None, typer.Option(help="The model's name.")] = None,
    target: _Chip = None,
    optimize: Annotated[Goal, typer.Option(help="By what kernels are chosen.")] = Goal.speed,
) -> None:
    """Converts a float model to int8, and prints what it costs.

    Example: `torch-nano convert net.py:make_model -c train.npz -o net.nanomodel --target esp32c3`
    """
    from torch_nano import heads, to_nano

    from .sources import data_of, float_model

    settings: heads.HeadSettings | str | None = {
        Head.auto: "auto",
        Head.none: None,
        Head.sgd: heads.SGD(),
        Head.lda: heads.LDA(),
        Head.prototype: heads.Prototype(),
    }[head]
    nano = to_nano(
        float_model(source),
        calibrate=data_of(calibrate),
        head=settings,
        labels=None if labels is None else [one.strip() for one in labels.split(",")],
        name=Path(source).stem if name is None and source.endswith(".pt2") else name,
        target=target,
        optimize=optimize.value,
    )
    nano.save(output)
    print(nano.summary())
    print(f"{output}: {output.stat().st_size:,} bytes")


def summary(
    model: Path,
    target: _Chip = None,
    kernels: Annotated[bool, typer.Option("--kernels", help="All kernels that could be taken, too.")] = False,
    as_json: _Json = False,
) -> None:
    """Prints what each layer costs; with `--target` its cycles and milliseconds, too.

    Example: `torch-nano summary net.nanomodel --target esp32c3`
    """
    made = _load(model).summary(target, kernels=kernels)
    print_json(made) if as_json else print(made)


def verify(
    model: Path,
    target: Annotated[Target, typer.Option(help="With what nano-core is compared.")] = Target.host,
    data: Annotated[str | None, typer.Option(help="Inputs; random ones without it.")] = None,
    as_json: _Json = False,
) -> None:
    """Compares runs of the model byte by byte; exit status 1 if a byte differs.

    Example: `torch-nano verify net.nanomodel --target rv32imc`
    """
    nano = _load(model)
    made = nano.verify(target.value, None if data is None else _inputs(nano, data))
    print_json(made) if as_json else print(made)
    if not made:
        raise typer.Exit(1)


def compare(source: str, model: Path, data: str, as_json: _Json = False) -> None:
    """Compares int8 with the float model that it was made from, layer by layer, and says what to do.

    Example: `torch-nano compare net.py:make_model net.nanomodel test.npz`
    """
    from .sources import data_of, float_model

    nano = _load(model)
    made = nano.compare(float_model(source), data_of(data, _names(nano)))
    print_json(made) if as_json else print(made)


def profile(
    model: Path,
    chip: str,
    data: Annotated[str | None, typer.Option(help="Inputs; a random one without it.")] = None,
    as_json: _Json = False,
) -> None:
    """What a prediction takes on a chip, by a model of its cycles.

    Example: `torch-nano profile net.nanomodel esp32c3`
    """
    nano = _load(model)
    made = nano.profile(chip, None if data is None else _inputs(nano, data))
    print_json(made) if as_json else print(made)


def fits(
    model: Path,
    chip: str,
    firmware: Annotated[str, typer.Option(help="server, classifier, or a sensor.")] = "server",
    period: Annotated[float, typer.Option(help="Seconds from one prediction to the next.")] = 1.0,
    as_json: _Json = False,
) -> None:
    """Whether it fits a chip: flash, RAM, stack and time as bars; exit status 1 if it does not.

    Example: `torch-nano fits net.nanomodel esp32c3 --firmware classifier`
    """
    made = _load(model).fits(chip, period=period, firmware=firmware)
    print_json(made) if as_json else print(made)
    if not made:
        raise typer.Exit(1)


def export(
    model: Path,
    folder: Path,
    crate: Annotated[bool, typer.Option("--crate", help="A no_std crate of its own.")] = False,
    nano_core: Annotated[Path | None, typer.Option(help="Of a crate: the folder of nano-core.")] = None,
) -> None:
    """Writes `model.nano` and `model.rs` for a firmware.

    Example: `torch-nano export net.nanomodel firmware/model`
    """
    _load(model).export(folder, crate=crate, nano_core=nano_core)
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        print(f"{file}: {file.stat().st_size:,} bytes")


def _load(path: Path) -> "NanoModule":
    from torch_nano import load

    return load(path)


def _names(nano: "NanoModule") -> tuple[str, ...]:
    """The names of the inputs of a model of several."""
    names = tuple(nano.input_shapes)
    return names if len(names) > 1 else ()


def _inputs(nano: "NanoModule", source: str) -> Any:
    """The inputs in a file; rows of a CSV file in the shape of the model's input."""
    from .sources import data_of

    found = data_of(source, _names(nano))
    x = found[0] if isinstance(found, tuple) else found
    if hasattr(x, "dim") and x.dim() == 2:
        x = x.reshape(len(x), *next(iter(nano.input_shapes.values())))
    return x
