"""The commands that say what a model is worth: evaluate, report."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .output import print_json

if TYPE_CHECKING:
    from torch_nano import NanoModule

_LOOK = "Look"

_Float = Annotated[
    str | None, typer.Option("--float", help="The float model, side by side: file.py:function or .pt2.")
]


def add_report_commands(app: typer.Typer) -> None:
    """Adds the commands."""
    for look in (evaluate, report):
        app.command(rich_help_panel=_LOOK)(look)


def evaluate(
    model: Path,
    data: str,
    float_source: _Float = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Predicts labelled samples: accuracy, classes, confusion matrix, worst samples.

    Example: `torch-nano evaluate net.nanomodel test.npz --float net.py:make_model`
    """
    from torch_nano import load

    from .sources import float_model

    nano = load(model)
    made = nano.evaluate(_labelled(nano, data), None if float_source is None else float_model(float_source))
    print_json(made.to_dict()) if as_json else print(made)


def report(
    model: Path,
    data: Annotated[
        str | None, typer.Argument(help="Labelled samples: a .npz or .csv file, or file.py:function.")
    ] = None,
    float_source: _Float = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The page to write.")] = Path("report.html"),
    chip: Annotated[str, typer.Option(help="The chip whose cycles are shown.")] = "esp32c3",
) -> None:
    """Writes a page: graph, memory, layers, accuracy, and what the model takes of each chip.

    Example: `torch-nano report net.nanomodel test.npz --float net.py:make_model -o report.html`
    """
    from torch_nano import load

    from .sources import float_model

    nano = load(model)
    nano.report(
        output,
        None if data is None else _labelled(nano, data),
        None if float_source is None else float_model(float_source),
        chip=chip,
    )
    print(f"{output}: {output.stat().st_size:,} bytes")


def _labelled(nano: "NanoModule", source: str) -> Any:
    """Labelled samples; rows of a CSV file in the shape of the model's input, labels as indices."""
    import torch
    from torch_nano.cli.labels import Labels
    from torch_nano.cli.sample_files import read_samples

    from .sources import data_of

    if ".py:" in source:
        return data_of(source)
    shapes = nano.input_shapes
    table = read_samples(Path(source), tuple(shapes) if len(shapes) > 1 else ())
    labels = Labels("class", nano.classes, nano.labels).read(table)
    inputs = {}
    for name, array, shape in zip(shapes, table.inputs.values(), shapes.values(), strict=True):
        tensor = torch.as_tensor(array)
        tensor = tensor.float() if tensor.is_floating_point() else tensor
        inputs[name] = tensor.reshape(len(tensor), *shape) if table.columns is not None else tensor
    return inputs, torch.tensor(labels)
