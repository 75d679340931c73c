"""The common part of all commands of `torch-nano device`: connection, options and errors."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from ..compile.model_file import read_model
from ..device.client import Device
from ..errors import TorchNanoError

#: Connections to a device that exists for one command only.
_SIMULATED = ("sim", "qemu")
_ARGUMENTS = {
    "connection": "A serial port, socket://host:port, sim or qemu.",
    "data": "A .npz or .csv file, as `torch-nano device --help` describes it.",
    "file": "The head's file.",
    "new_model": "The file of `nano.save`, or `model.nano` of `nano.export`.",
    "name": "The new class's name.",
    "label": "The class's name, or its index.",
}


class Commands(TyperGroup):
    """A group of commands whose errors are one line, with exit status 1."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # `torch-nano ... | head`: typer ends quietly
            raise
        except (TorchNanoError, OSError) as error:
            line = f"torch-nano: {_reason(error)}".replace("\n", " ")
            Console(stderr=True).print(line, markup=False, highlight=False, soft_wrap=True)
            raise typer.Exit(1) from error

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        found = super().get_command(ctx, cmd_name)
        # Set here, as typer 0.20 with click 8.5 ignores the help of typer.Argument.
        for parameter in [] if found is None else found.params:
            if parameter.name in _ARGUMENTS:
                parameter.help = _ARGUMENTS[parameter.name]
        return found


def command(
    app: typer.Typer, panel: str, name: str | None = None, *, saves: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Makes a command from a function of a connected device and the command's own options.

    Args:
        panel: the heading above it in `--help`.
        name: the command's name; None: the function's.
        saves: whether it changes what a device can save, and so has the option `--save`.
    """

    def register(act: Callable[..., None]) -> Callable[..., None]:
        def run(
            connection: str,
            model: Path | None,
            flash: Path | None,
            timeout: float,
            save: bool = False,
            **own: Any,
        ) -> None:
            simulated = connection in _SIMULATED
            if save and simulated and flash is None:
                raise TorchNanoError(f"--save with {connection!r} needs a file to save in: --flash FILE")
            with Device(
                connection, nano=None if model is None else read_model(model), flash=flash, timeout=timeout
            ) as device:
                act(device, **own)
                if save:
                    print(f"saved: {device.save()} in all")
                elif saves and simulated:
                    print(f"not saved: {connection!r} forgets it now; --save --flash FILE keeps it")

        own = list(inspect.signature(act, eval_str=True).parameters.values())[1:]
        shared = dict(inspect.signature(_shared, eval_str=True).parameters)
        if not saves:
            del shared["save"]
        parameters = [shared.pop("connection"), *own, *shared.values()]
        run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
        )
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        run.__name__, run.__doc__ = act.__name__, act.__doc__
        app.command(name, rich_help_panel=panel)(run)
        return act

    return register


def _shared(
    connection: str,
    save: Annotated[bool, typer.Option("--save", help="Save in the device's flash afterwards.")] = False,
    model: Annotated[Path | None, typer.Option("--model", "-m", help="The model's file.")] = None,
    flash: Annotated[Path | None, typer.Option(help="For sim and qemu: the file they save in.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for an answer.")] = 30,
) -> None:
    """The parameters of all commands; `save` only of those that change what a device can save."""


def _reason(error: Exception) -> str:
    """An error's message, without the operating system's error number."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)
