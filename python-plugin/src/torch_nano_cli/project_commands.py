"""The commands of a project: new, flash, monitor."""

from pathlib import Path
from typing import Annotated

import typer

_SHIP = "Ship"

_Source = Annotated[
    Path | None,
    typer.Option(help="A checkout of torch-nano; without it the one that is here."),
]
_Port = Annotated[str | None, typer.Option(help="The board's serial port; without it the only one there.")]


def add_project_commands(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command(rich_help_panel="Convert")(new)
    for act in (flash, monitor):
        app.command(rich_help_panel=_SHIP)(act)


def new(
    project: Path,
    chip: Annotated[str, typer.Option(help="The chip.")] = "esp32c3",
    sensor: Annotated[str, typer.Option(help="lsm6dso (imu), mpu6050, voltage or microphone.")] = "imu",
) -> None:
    """Makes a project in a new folder: model, training on recordings, its own test, and how to flash it.

    Example: `torch-nano new my-watch --chip esp32c3 --sensor imu`
    """
    from .project import make_project

    for file in make_project(project, chip, sensor):
        print(file)
    print(f"next: cd {project} && python -m pytest && python train.py")


def flash(
    chip: str,
    model: Path,
    variant: Annotated[str, typer.Option("--as", help="server, classifier, or a sensor.")] = "server",
    port: _Port = None,
    programmer: Annotated[str | None, typer.Option("--with", help="espflash, esptool or probe-rs.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Do all that needs no board; print the commands that do.")
    ] = False,
    source: _Source = None,
) -> None:
    """Builds the firmware with a model, and writes it to the board.

    The firmware is built from a checkout of torch-nano, which `just setup` has made ready.

    Example: `torch-nano flash esp32c3 build/model --as lsm6dso`
    """
    from torch_nano.chips import chip as facts_of
    from torch_nano.errors import MissingFileError
    from torch_nano.fits.variant import variant_of

    from .checkout import run_tools

    facts_of(chip)
    variant_of(variant)
    if not model.exists():
        raise MissingFileError(f"{model}: there is no such model; expected a folder of export, or a file")
    options = ["--as", variant, *_given("--port", port), *_given("--with", programmer)]
    raise typer.Exit(
        run_tools(source, "flash", chip, str(model.resolve()), *options, *(["--dry-run"] if dry_run else []))
    )


def monitor(chip: str, port: _Port = None, source: _Source = None) -> None:
    """Shows the text that a board sends, such as the place of a panic; Ctrl-] ends it.

    Example: `torch-nano monitor esp32c3`
    """
    from torch_nano.chips import chip as facts_of

    from .checkout import run_tools

    facts_of(chip)
    raise typer.Exit(run_tools(source, "monitor", chip, *_given("--port", port)))


def _given(name: str, value: str | None) -> list[str]:
    return [] if value is None else [name, value]
