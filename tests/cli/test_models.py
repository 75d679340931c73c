"""The commands that convert models and look at them, as a user types them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch_nano as tn
from torch_nano_cli.main import app
from typer.testing import CliRunner

RUNNER = CliRunner()
NET = """
import torch
from torch import nn

def make_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(6, 8, 5), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 3))

def data():
    torch.manual_seed(1)
    return torch.randn(64, 6, 20), torch.randint(3, (64,))

def large():
    return nn.Sequential(nn.Flatten(), nn.Linear(120, 17_000), nn.ReLU(), nn.Linear(17_000, 3))

def number():
    return 7
"""


def run(*arguments: object, status: int = 0) -> str:
    result = RUNNER.invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == status, result.output
    assert "Traceback" not in result.output
    return result.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("models")
    (made / "net.py").write_text(NET)
    namespace: dict[str, object] = {}
    exec(NET, namespace)
    x, y = namespace["data"]()  # type: ignore[operator]
    np.savez(made / "train.npz", x=x.numpy(), y=y.numpy())
    model = namespace["make_model"]().eval()  # type: ignore[operator]
    torch.export.save(torch.export.export(model, (x[:1],)), made / "exported.pt2")
    (made / "other.pt2").write_bytes(b"no program")
    told = run("convert", f"{made}/net.py:make_model", "-c", made / "train.npz", "-o", made / "net.nanomodel")
    assert "conv2d" in told and "net.nanomodel: " in told
    return made


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["device", "--help"], ["fits", "--help"]])
def test_help_and_version_need_no_torch(arguments: list[str]) -> None:
    # numpy and torch take most of the time of a start.
    program = (
        "import sys; sys.modules['torch'] = sys.modules['numpy'] = None; "
        "from torch_nano_cli.main import main; main()"
    )
    made = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    assert "torch-nano" in made.stdout


def test_a_program_of_torch_export_is_the_model_it_was_made_from(folder: Path) -> None:
    data, made = f"{folder}/net.py:data", folder / "exported.nanomodel"
    run("convert", folder / "exported.pt2", "-c", data, "-o", made)
    program, module = (tn.load(folder / f"{name}.nanomodel") for name in ("exported", "net"))
    x = torch.randn(9, 6, 20, generator=torch.Generator().manual_seed(2))
    assert program.name == "exported" and torch.equal(program(x), module(x))


def test_options_of_a_conversion_reach_it(folder: Path) -> None:
    options = ["--head", "lda", "--labels", "rest, walk,run", "--name", "moves", "--target", "esp32c3"]
    source, file = f"{folder}/net.py:make_model", folder / "moves.nanomodel"
    run("convert", source, "-c", f"{folder}/net.py:data", "-o", file, *options)
    nano = tn.load(file)
    assert isinstance(nano.head, tn.heads.LdaHead)
    assert (nano.name, nano.labels) == ("moves", ["rest", "walk", "run"])


def test_what_is_printed_is_what_the_methods_return(folder: Path) -> None:
    model = folder / "net.nanomodel"
    nano = tn.load(model)
    assert run("summary", model).rstrip() == str(nano.summary())
    assert "ms" in run("summary", model, "--target", "esp32c3")
    assert run("verify", model).rstrip() == str(nano.verify())
    assert "0 differ" in run("verify", model, "--target", "rv32imc", "--data", folder / "train.npz")
    assert run("profile", model, "esp32c3").rstrip() == str(nano.profile("esp32c3"))
    assert run("fits", model, "esp32c3", "--firmware", "classifier").startswith("Sequential fits an ESP32-C3")
    assert "accuracy" in run("compare", f"{folder}/net.py:make_model", model, folder / "train.npz")
    assert "model.rs" in run("export", model, folder / "exported")
    assert (folder / "exported/model.nano").read_bytes() == nano.image


def test_json_is_for_programs(folder: Path) -> None:
    model = folder / "net.nanomodel"
    summary = json.loads(run("summary", model, "--json"))
    assert summary["flash_bytes"] == tn.load(model).flash_bytes
    assert [layer["operator"] for layer in summary["layers"]] == ["conv2d", "fully_connected"]
    assert json.loads(run("verify", model, "--json"))["differing_bytes"] == 0
    profile = json.loads(run("profile", model, "esp32c3", "--json"))
    assert profile["layers"][0]["counts"]["cycles"] > 0
    assert json.loads(run("fits", model, "esp32c3", "--json"))["flash"]["available"] > 0
    source, data = f"{folder}/net.py:make_model", f"{folder}/net.py:data"
    compared = json.loads(run("compare", source, model, data, "--json"))
    assert compared["samples"] == 64
    assert isinstance(json.loads(run("ports", "--json")), list)


@pytest.mark.parametrize(
    ("source", "data", "says"),
    [
        ("nothing.py:make_model", "net.py:data", "there is no file .*nothing.py"),
        ("net.py:make", "net.py:data", "has no function 'make'; it has make_model, data, large, number"),
        ("net.py", "net.py:data", "is no source; expected file.py:function, or a file .pt2"),
        ("net.py:number", "net.py:data", "returned int; expected an nn.Module"),
        ("other.pt2", "net.py:data", "is no program that this torch"),
        ("missing.pt2", "net.py:data", "there is no such file"),
        ("net.py:make_model", "missing.npz", "there is no such file"),
        ("net.py:make_model", "net.py:number", "expected a tensor or an iterable of batches"),
    ],
)
def test_a_wrong_source_is_one_line(folder: Path, source: str, data: str, says: str) -> None:
    told = run("convert", folder / source, "-c", folder / data, "-o", folder / "no.nanomodel", status=1)
    assert re.search(says, told) and len(told.splitlines()) == 1
    assert not (folder / "no.nanomodel").exists()


def test_a_chip_that_is_too_small_is_an_exit_status(folder: Path) -> None:
    assert "there is no chip 'esp8266'" in run("fits", folder / "net.nanomodel", "esp8266", status=1)
    made = folder / "large.nanomodel"
    run("convert", f"{folder}/net.py:large", "-c", folder / "train.npz", "-o", made)
    told = run("fits", made, "esp32c3", status=1)
    assert told.startswith("Sequential does not fit an ESP32-C3") and "flash" in told


def test_evaluate_reads_labels_by_name_or_index(folder: Path) -> None:
    nano, made = tn.load(folder / "net.nanomodel"), folder / "net.nanomodel"
    source = f"{folder}/net.py:make_model"
    found = json.loads(run("evaluate", made, folder / "train.npz", "--float", source, "--json"))
    train = np.load(folder / "train.npz")
    predicted = nano(train["x"]).argmax(1).numpy()
    assert found["samples"] == 64 and found["accuracy"] == (predicted == train["y"]).mean()
    assert found["float_accuracy"] is not None and np.sum(found["confusion"]) == 64
    rows = ["a,label", *(f"{','.join(['0.5'] * 120)},{label % 3}" for label in range(5))]
    rows[0] = ",".join([*(f"c{index}" for index in range(120)), "label"])
    (folder / "rows.csv").write_text("\n".join(rows))
    told = run("evaluate", made, folder / "rows.csv")
    assert "5 samples, accuracy" in told and "confusion matrix" in told
    assert "net.py:data" not in run("evaluate", made, f"{folder}/net.py:data")
    (folder / "rows.csv").write_text("\n".join([rows[0], rows[1][:-1] + "walk"]))
    page = folder / "report.html"
    assert f"{page}: " in run("report", made, folder / "train.npz", "--float", source, "-o", page)
    assert f"{found['accuracy']:.1%}" in page.read_text() and "Error in int8" in page.read_text()
    assert "there is no chip 'esp'" in run("report", made, "--chip", "esp", status=1)
    assert "line 2: no class is called 'walk'" in run("evaluate", made, folder / "rows.csv", status=1)
