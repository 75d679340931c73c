"""Wrong arguments of every kind that several functions share: one typed error, which shows what was given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch_nano as tn
from torch import Tensor, nn
from torch_nano.cli.head_file import load_head, save_head

X, Y = torch.randn(64, 4, generator=torch.Generator().manual_seed(0)), torch.arange(64) % 3


def small() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


@pytest.fixture(scope="module")
def nano() -> tn.NanoModule:
    return tn.to_nano(small(), X, calibrate=X, head=tn.heads.SGD())


def train(**options: Any) -> tn.training.History:
    return tn.fit(small(), (X, Y), **{"epochs": 1, "progress": False} | options)


def unfreeze_in_steps(**options: Any) -> tn.training.History:
    chosen = {"schedule": {0: ["2"]}, "epochs": 1, "progress": False} | options
    return tn.transfer.gradual_unfreezing(small(), (X, Y), **chosen)


WITH_PATHS: dict[str, Callable[[tn.NanoModule, Any], Any]] = {
    "load": lambda nano, path: tn.load(path),
    "save": lambda nano, path: nano.save(path),
    "export": lambda nano, path: nano.export(path),
    "replay": lambda nano, path: tn.device.replay(path, nano),
    "flash": lambda nano, path: tn.device.SimulatedBoard(nano.image, flash=path),
    "load_head": lambda nano, path: load_head(path, nano.id),
    "save_head": lambda nano, path: save_head(path, nano.id, b""),
    "checkpoint": lambda nano, path: train(checkpoint=path),
}


@pytest.mark.parametrize("path", [3, b"a", "", "a\0b"], ids=repr)
@pytest.mark.parametrize("name", WITH_PATHS)
def test_wrong_paths_are_refused(nano: tn.NanoModule, name: str, path: object) -> None:
    with pytest.raises(tn.errors.InputError, match="expected a path") as refused:
        WITH_PATHS[name](nano, path)
    assert repr(path) in str(refused.value)


@pytest.mark.parametrize("name", ["", "a\nb", "a\0", "\ud800", "n" * 65, 3], ids=ascii)
def test_a_name_that_no_device_can_keep_is_refused(name: Any) -> None:
    with pytest.raises(tn.errors.InputError, match=r"name is .*; expected a text of 1 to 64 bytes"):
        tn.to_nano(small(), X, calibrate=X, name=name)


def test_a_class_with_a_long_name_needs_another_name() -> None:
    kind = type("L" * 65, (nn.Sequential,), {})
    with pytest.raises(tn.errors.InputError, match=r"more than 64 bytes .* to_nano\(..., name=...\)"):
        tn.to_nano(kind(nn.Linear(4, 3)), X, calibrate=X)
    assert tn.to_nano(kind(nn.Linear(4, 3)), X, calibrate=X, name="short").name == "short"


@pytest.mark.parametrize("head", [tn.heads.SGD(), tn.heads.LDA(), tn.heads.Prototype()], ids=repr)
def test_a_head_needs_a_sample_to_learn(head: tn.heads.HeadSettings) -> None:
    learner: Any = tn.to_nano(small(), X, calibrate=X, head=head).head
    with pytest.raises(tn.errors.HeadError, match=r"shape \(0, 8\); expected at least one sample"):
        learner.fit(torch.zeros(0, 8, dtype=torch.int8), Y[:0])


def test_a_head_needs_an_epoch_to_learn(nano: tn.NanoModule) -> None:
    assert isinstance(nano.head, tn.heads.SgdHead)
    with pytest.raises(tn.errors.HeadError, match="epochs is 0; expected a whole number, 1 to"):
        nano.head.fit(nano.features_int8(X), Y, epochs=0)


@pytest.mark.parametrize("target", ["host", "rv32imc"])
def test_verify_needs_a_sample(nano: tn.NanoModule, target: Any) -> None:
    with pytest.raises(tn.errors.InputError, match="expected at least one sample to compare"):
        nano.verify(target, X[:0])


def test_ranges_need_a_sample() -> None:
    qat = tn.prepare_qat(small(), X, calibrate=X)
    with pytest.raises(tn.errors.InputError, match="give at least one sample"):
        qat(X[:0])


WRONG_KINDS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "bool as epochs": (
        lambda: train(epochs=True),
        tn.errors.FitError,
        "epochs is True; expected a whole number",
    ),
    "rates": (
        lambda: train(learning_rates=0.1),
        tn.errors.FitError,
        "learning_rates is 0.1; expected a rate for each",
    ),
    "glob": (
        lambda: train(learning_rates={3: 0.1}),
        tn.errors.ModuleNameError,
        "a pattern is 3; expected a name",
    ),
    "callbacks": (
        lambda: train(callbacks=3),
        tn.errors.FitError,
        "callbacks is 3; expected a list of callables",
    ),
    "schedule": (
        lambda: unfreeze_in_steps(schedule=["2"]),
        tn.errors.FitError,
        r"schedule is \['2'\]; expected",
    ),
    "schedule's rates": (
        lambda: unfreeze_in_steps(learning_rates=1),
        tn.errors.FitError,
        "learning_rates is 1;",
    ),
    "schedule's epochs": (lambda: unfreeze_in_steps(epochs=0), tn.errors.FitError, "epochs is 0; expected"),
    "names": (
        lambda: tn.transfer.freeze_layers(small(), 3),
        tn.errors.ModuleNameError,
        "layer_names is 3; expected a list",
    ),
    "pairs": (
        lambda: tn.transfer.compare_model_features(small(), small(), X, ["0"]),
        tn.errors.ModuleNameError,
        "layer_pairs has '0'; expected pairs",
    ),
    "features": (
        lambda: tn.transfer.coral_loss(None, X),
        tn.errors.InputError,
        "source is None; expected a tensor",
    ),
    "no target": (
        lambda: tn.transfer.coral_alignment(small(), (X, Y), X[:0], layer="1", epochs=1),
        tn.errors.InputError,
        "the target has 0 samples; a covariance needs at least 2",
    ),
    "temperature": (
        lambda: tn.transfer.distillation(small(), small(), (X, Y), epochs=1, temperature="a"),
        tn.errors.FitError,
        "temperature is 'a'; expected",
    ),
    "min_delta": (lambda: tn.EarlyStopping(min_delta="a"), tn.errors.FitError, "min_delta='a'; expected"),
    "port": (
        lambda: tn.Device("socket://host:99999"),
        tn.errors.ConnectionFailed,
        "port is 99999; expected 1 to 65535",
    ),
}


@pytest.mark.parametrize("case", WRONG_KINDS)
def test_an_argument_of_another_kind_is_refused(case: str) -> None:
    call, kind, message = WRONG_KINDS[case]
    with pytest.raises(kind, match=message):
        call()


class Returns(nn.Module):
    def __init__(self, result: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.linear, self.result = nn.Linear(4, 3), result

    def forward(self, x: torch.Tensor) -> Any:
        return self.result(self.linear(x))


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda x: None, "the model returns None; expected one tensor"),
        (lambda x: 3, "the model returns 3; expected one tensor"),
    ],
)
def test_a_model_is_told_what_it_returns(result: Callable[[torch.Tensor], Any], message: str) -> None:
    with pytest.raises(tn.errors.CaptureError, match=message):
        tn.to_nano(Returns(result), X, calibrate=X)


def test_torch_logs_nothing_of_a_refused_example(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(tn.errors.CaptureError, match="expects in_features=4"):
        tn.to_nano(small(), torch.zeros(2, 5), calibrate=X)
    assert capfd.readouterr() == ("", "")


class Two(nn.Module):
    """A model of two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        made: Tensor = self.layer(first) + self.layer(second)
        return made


@pytest.mark.parametrize(
    ("data", "given"),
    [
        ((X,), "a tuple of Tensor"),
        ([(X,)], "a tuple of Tensor"),
        ([(X, None)], "a tuple of Tensor, NoneType"),
        (((),), "a tuple of nothing"),
        (X, "a Tensor"),
    ],
)
def test_calibration_data_have_a_tensor_for_each_input(data: Any, given: str) -> None:
    expected = "a tuple that begins with tensors for first, second, or a dict of them"
    with pytest.raises(tn.errors.InputError, match=f"a calibration batch is {given}; expected {expected}"):
        tn.to_nano(Two(), (X, X), calibrate=data)
