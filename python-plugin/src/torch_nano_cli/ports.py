"""The command `torch-nano ports`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from .output import print_json


def add_ports(app: typer.Typer) -> None:
    """Adds the command."""

    @app.command(rich_help_panel="Devices")
    def ports(
        as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    ) -> None:
        """Lists the serial ports of this computer: where a board may be."""
        from serial.tools.list_ports import comports

        found = sorted(comports())
        if as_json:
            print_json(
                [{"port": one.device, "description": one.description, "id": one.hwid} for one in found]
            )
            return
        if not found:
            print("no serial port: plug the board in with a cable that carries data")
            return
        table = Table(box=None)
        for title in ("port", "description", "id"):
            table.add_column(title)
        for one in found:
            table.add_row(one.device, one.description, one.hwid)
        Console().print(table)
