"""The command line, as tests use it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch_nano as tn
from device.test_transports import LABELS, make, model_and_data
from torch_nano_cli.main import app
from typer.testing import CliRunner

RUNNER = CliRunner()


def run(*arguments: object, status: int = 0) -> str:
    result = RUNNER.invoke(app, [str(argument) for argument in ("device", *arguments)])
    assert result.exit_code == status, result.output
    assert "Traceback" not in result.output
    return result.output


def write_files(folder: Path) -> Path:
    """Models and data, as files."""
    _, x, y = model_and_data()
    nano = make(tn.heads.SGD(0.05))
    nano.save(folder / "moves.nanomodel")
    nano.export(folder / "export")
    make(tn.heads.LDA(capacity=6)).save(folder / "lda.nanomodel")
    np.savez(folder / "train.npz", x=x.numpy(), y=y.numpy())
    np.savez(folder / "int8.npz", x=nano.device_inputs(x), y=y.numpy())
    np.savez(folder / "inputs.npz", x=x.numpy())
    csv(folder / "train.csv", [LABELS[label] for label in y.tolist()])
    return folder


def csv(file: Path, labels: list[str]) -> Path:
    """The inputs that all models here take, with other labels."""
    _, x, _ = model_and_data()
    lines = [
        ",".join([label, *map(repr, row)]) for label, row in zip(labels, x.flatten(1).tolist(), strict=True)
    ]
    file.write_text("\n".join([",".join(["label", *map(str, range(24))]), *lines]))
    return file
