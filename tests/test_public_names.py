"""The package's public names: few at the top, the rest in submodules; former names warn once."""

import subprocess
import sys
import warnings
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch_nano as tn
from torch import nn

SUBMODULES = [tn.errors, tn.device, tn.heads, tn.qat, tn.results, tn.training, tn.transfer]


def test_the_top_has_what_a_script_needs_and_nothing_else() -> None:
    assert dir(tn) == sorted(tn.__all__) and len(tn.__all__) <= 30
    assert all(getattr(tn, name) is not None for name in tn.__all__)
    for name in ("verify", "summary", "export", "compare", "load", "save", "to_nano", "fit"):
        assert callable(getattr(tn, name)) and not isinstance(getattr(tn, name), ModuleType)


@pytest.mark.parametrize("module", SUBMODULES, ids=lambda module: module.__name__)
def test_a_submodule_exports_what_exists_and_is_documented(module: ModuleType) -> None:
    assert module.__doc__
    for name in module.__all__:
        assert getattr(module, name).__doc__, name


def test_a_name_is_in_one_submodule() -> None:
    names = [name for module in SUBMODULES for name in module.__all__]
    assert len(names) == len(set(names))


def test_functions_are_the_methods_of_a_nano_module(tmp_path: Path) -> None:
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    nano = tn.to_nano(model, x, calibrate=x, check=False)
    assert str(tn.verify(nano, "host", x)) == str(nano.verify("host", x))
    assert str(tn.summary(nano)) == str(nano.summary())
    assert str(tn.compare(nano, model, x)) == str(nano.compare(model, x))
    tn.save(nano, tmp_path / "model.nanomodel")
    tn.export(nano, tmp_path / "exported")
    assert (tmp_path / "exported/model.nano").read_bytes() == nano.image
    assert tn.load(tmp_path / "model.nanomodel").id == nano.id
    for function in (tn.verify, tn.summary, tn.compare, tn.export, tn.save):
        with pytest.raises(tn.errors.InputError, match=r"takes a converted model, .*; got Sequential"):
            function(model)  # type: ignore[operator]


def test_a_former_name_warns_once_and_works() -> None:
    program = "import torch_nano as tn; tn.QemuBoard; tn.QemuBoard; tn.InputError"
    made = subprocess.run([sys.executable, "-W", "always", "-c", program], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    told = [line for line in made.stderr.splitlines() if "Warning" in line]
    assert [line.partition(": ")[2] for line in told] == [
        "DeprecationWarning: torch_nano.QemuBoard has moved: torch_nano.device.QemuBoard",
        "DeprecationWarning: torch_nano.InputError has moved: torch_nano.errors.InputError",
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(AttributeError, match="module 'torch_nano' has no attribute 'to_tflite'"):
            tn.to_tflite  # noqa: B018
