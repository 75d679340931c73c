"""The common part of all commands of `torch-nano device`: connection and options."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

#: Connections to a device that exists for one command only.
_SIMULATED = ("sim", "qemu")


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
            from torch_nano.compile.model_file import read_model
            from torch_nano.device import Device
            from torch_nano.errors import TorchNanoError

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

        own = list(inspect.signature(act).parameters.values())[1:]
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
