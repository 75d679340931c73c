"""The command line's top: `torch-nano`."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from .device_commands import device_app
from .groups import Commands
from .model_commands import add_model_commands
from .ports import add_ports
from .project_commands import add_project_commands
from .report_commands import add_report_commands
from .sensor_commands import add_live, add_sensor_commands

_ABOUT = """PyTorch models as exact int8 programs for microcontrollers, with a head that learns there.

**From a model to a chip:**

    torch-nano convert net.py:make_model -c train.npz -o net.nanomodel
    torch-nano verify net.nanomodel --target rv32imc
    torch-nano fits net.nanomodel esp32c3
    torch-nano export net.nanomodel firmware/model

**Exit status**: 0: done, and what was asked holds; 1: an error, or it does not hold (bytes differ, the chip
is too small); 2: wrong usage.
"""

app = typer.Typer(name="torch-nano", no_args_is_help=True, rich_markup_mode="markdown", cls=Commands)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"torch-nano {version('torch-nano')}")
        raise typer.Exit


@app.callback(help=_ABOUT)
def about(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """The options before all commands."""


add_model_commands(app)
add_report_commands(app)
add_project_commands(app)
add_ports(app)
add_live(app)
add_sensor_commands(device_app)
app.add_typer(device_app, name="device", rich_help_panel="Devices")


def main() -> None:
    """Runs the command line."""
    app(prog_name="torch-nano")
