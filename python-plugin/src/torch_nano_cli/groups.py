"""A group of commands: its errors are one line, and arguments have their help."""

from __future__ import annotations

import sys
from typing import Any

import typer
from rich.console import Console
from typer.core import TyperGroup

_ARGUMENTS = {
    "connection": "A serial port, socket://host:port, sim or qemu.",
    "data": "A .npz or .csv file, as `torch-nano device --help` describes it.",
    "file": "The head's file.",
    "new_model": "The file of `nano.save`, or `model.nano` of `nano.export`.",
    "name": "The new class's name.",
    "label": "The class's name, or its index.",
    "model": "A file of `torch-nano convert` or `nano.save`.",
    "source": "The float model: `file.py:function` that returns it, or a program of torch.export (.pt2).",
    "project": "The new folder; its name is the project's.",
    "chip": "The chip's name, such as esp32c3.",
    "folder": "The folder; it is made if it is missing.",
}


class Commands(TyperGroup):
    """A group of commands whose errors are one line, with exit status 1."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # `torch-nano ... | head`: typer ends quietly
            raise
        except Exception as error:
            if not (isinstance(error, OSError) or _is_ours(error)):
                raise
            line = f"torch-nano: {_reason(error)}".replace("\n", " ")
            Console(stderr=True).print(line, markup=False, highlight=False, soft_wrap=True)
            raise typer.Exit(1) from error

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        found = super().get_command(ctx, cmd_name)
        # Set here, as typer 0.20 with click 8.5 ignores the help of typer.Argument.
        for parameter in [] if found is None else found.params:
            if parameter.param_type_name == "argument" and parameter.name in _ARGUMENTS:
                parameter.help = _ARGUMENTS[parameter.name]
        return found


def _is_ours(error: Exception) -> bool:
    """Whether it is an error of torch_nano, which is not imported for this: no error of it comes before."""
    errors = sys.modules.get("torch_nano.errors")
    return errors is not None and isinstance(error, errors.TorchNanoError)


def _reason(error: Exception) -> str:
    """An error's message, without the operating system's error number."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)
