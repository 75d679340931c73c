"""What a terminal shows of a device's predictions."""

from __future__ import annotations

from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from torch_nano import Device
from torch_nano.device import Prediction

from .device_data import labels_of, outputs_shown
from .window_predictor import WindowPrediction, shares

_WIDTH = 40


def line(device: Device, made: WindowPrediction) -> str:
    """A prediction as text; in brackets what is seen, where a recording says it."""
    several = len(device.info.outputs) > 1 and not device.info.classes
    text = outputs_shown(device, made.prediction) if several else labels_of(device).shown(made.prediction)
    return f"{text}  [{made.label}]" if made.label else text


def bars(device: Device, made: WindowPrediction, number: int) -> Table:
    """Each class with a bar of its probability; of a head without classes that exclude each other a line."""
    table = Table(box=None, show_header=False, title=f"window {number}", title_justify="left")
    probabilities = shares(made.prediction)
    if probabilities is None:
        table.add_row(line(device, made))
        return table
    for index, probability in enumerate(probabilities):
        chosen = index == made.prediction.label
        style = "bold" if chosen else "dim"
        colour = _colour(made.prediction, chosen)
        bar = ProgressBar(
            total=1,
            completed=float(probability),
            width=_WIDTH,
            complete_style=colour,
        )
        table.add_row(Text(_name(device, index), style), bar, Text(f"{probability:6.1%}", style))
    known = "" if made.prediction.known else "rejected: unsure, or unlike every class"
    table.caption = Text(f"seen: {made.label}  {known}" if made.label else known)
    table.caption_justify = "left"
    return table


def _colour(prediction: Prediction, chosen: bool) -> str:
    if not chosen:
        return "grey50"
    return "green" if prediction.known else "yellow"


def _name(device: Device, index: int) -> str:
    names = device.labels
    return (names[index] if index < len(names) else "") or str(index)
