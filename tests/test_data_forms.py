"""Data as users have them: tensors or arrays, pairs, datasets and loaders, alike everywhere."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch_nano as tn
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

NAMES = ["rest", "walk", "run"]
X, Y = torch.randn(48, 6, generator=torch.Generator().manual_seed(0)), torch.arange(48) % 3

#: From inputs and labels to one form of data.
Form = Callable[[Tensor, Any, str], Any]


class Samples(Dataset[Any]):
    """Samples one by one, as a user's own dataset has them."""

    def __init__(self, x: Tensor, y: Any, name: str | None = None) -> None:
        self.x, self.y, self.name = x, y, name

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Any:
        x, y = self.x[index], self.y[index]
        return (x, y) if self.name is None else {self.name: x, "label": y}


def _parts(x: Tensor, y: Any) -> list[tuple[Tensor, Any]]:
    return [(x[:16], y[:16]), (x[16:], y[16:])]


def _numpy(y: Any) -> Any:
    return y.numpy() if isinstance(y, Tensor) else np.array(y)


FORMS: dict[str, Form] = {
    "tensors": lambda x, y, name: (x, y),
    "arrays": lambda x, y, name: (x.numpy(), _numpy(y)),
    "lists of labels": lambda x, y, name: (x, y.tolist() if isinstance(y, Tensor) else tuple(y)),
    "dict": lambda x, y, name: {name: x, "y": y},
    "dict of arrays": lambda x, y, name: {name: x.numpy(), "labels": _numpy(y)},
    "dataset": lambda x, y, name: Samples(x, y),
    "dataset of dicts": lambda x, y, name: Samples(x, y, name),
    "loader": lambda x, y, name: DataLoader(Samples(x, y), 16),
    "loader of dicts": lambda x, y, name: DataLoader(Samples(x, y, name), 16),
    "batches": lambda x, y, name: _parts(x, y),
    "batches of arrays": lambda x, y, name: [(part.numpy(), _numpy(own)) for part, own in _parts(x, y)],
    "batches of dicts": lambda x, y, name: [{name: part, "target": own} for part, own in _parts(x, y)],
}


def _model() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    tn.freeze(model, "0")
    return model


@pytest.fixture(scope="module")
def nano() -> tn.NanoModule:
    return tn.to_nano(_model(), X[:2], calibrate=X, labels=NAMES, check=False)


@pytest.fixture(scope="module")
def started() -> tn.NanoModule:
    return _started((X, Y))


def _started(data: Any) -> tn.NanoModule:
    head = tn.heads.LDA(start=tn.heads.Start(data))
    return tn.to_nano(_model(), calibrate=data, labels=NAMES, head=head, rejection=tn.heads.Rejection(data))


@pytest.mark.parametrize("by_name", [False, True], ids=["indices", "names"])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_each_form_of_data_is_taken_everywhere(
    nano: tn.NanoModule, started: tn.NanoModule, form: Form, by_name: bool
) -> None:
    labels: Any = [NAMES[label] for label in Y] if by_name else Y
    data = form(X, labels, "input")
    assert tn.to_nano(_model(), calibrate=data, labels=NAMES, check=False).image == nano.image
    assert _started(data).image == started.image
    expected = nano.compare(_model(), (X, Y)).outputs[0]
    compared = nano.compare(_model(), data).outputs[0]
    # Sums of floats depend on the batches; counts do not.
    for share in ("agreement", "float_accuracy", "int8_accuracy"):
        assert getattr(compared, share) == getattr(expected, share)
    made = nano.evaluate(data)
    assert made.accuracy == expected.int8_accuracy and np.array_equal(made.truth, Y)
    features = form(nano.features_int8(X), labels, "features")
    assert np.array_equal(nano.head.evaluate(features).predicted, made.predicted)
    with tn.Device("sim", nano=nano) as device:
        assert np.array_equal(device.evaluate(data).predicted, made.predicted)
        assert device.fit(data, epochs=1).sent == len(X)
        state = device.head_state()
    with tn.Device("sim", nano=nano) as device:
        device.fit(X, Y, epochs=1)
        assert device.head_state() == state


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_training_takes_each_form_with_indices(form: Form) -> None:
    model = Named()
    assert len(tn.fit(model, form(X, Y, "input"), epochs=1, progress=False)) == 1
    with pytest.raises(tn.errors.InputError, match="names"):
        tn.fit(model, form(X, [NAMES[label] for label in Y], "input"), epochs=1, progress=False)


class Named(nn.Module):
    """Its input has the name that dicts have here."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, input: Tensor) -> Tensor:
        result: Tensor = self.layer(input)
        return result


def test_a_call_takes_arrays_of_any_layout(nano: tn.NanoModule) -> None:
    array = X.numpy()
    frozen = array.copy()
    frozen.flags.writeable = False
    for given in (array, frozen, array[::-1][::-1], array.astype(">f4"), np.asfortranarray(array)):
        assert torch.equal(nano(given), nano(X))
        assert torch.equal(nano.features_int8(given), nano.features_int8(X))
    assert torch.equal(nano(array.astype(np.longdouble)), nano(X.double()))
    assert nano.verify("host", array)
    assert tn.to_nano(_model(), array[:2], calibrate=X, labels=NAMES, check=False).image == nano.image
    qat = tn.prepare_qat(_model(), array[:2], calibrate=array)
    assert torch.equal(qat(array), qat(X))
    for module in (nano, qat):
        with pytest.raises(tn.errors.InputError, match=r"expected a tensor \[N, 6\] of floats"):
            module(np.array([["a"] * 6]))


def test_a_head_takes_labels_as_a_device_does(nano: tn.NanoModule) -> None:
    features = nano.features_int8(X)
    names = [NAMES[label] for label in Y]
    expected = None
    for labels in (Y, Y.numpy(), Y.tolist(), names, np.array(names)):
        nano.head.reset()
        nano.head.fit(features.numpy(), labels)
        expected = expected or nano.head.state()
        assert nano.head.state() == expected
    nano.head.reset()
    with pytest.raises(tn.errors.HeadError, match="no class is called 'wlak'; did you mean 'walk'"):
        nano.head.fit(features, ["wlak"] * len(X))
    with pytest.raises(tn.errors.HeadError, match=r"expected integers \[48\]"):
        nano.head.fit(features, ["walk"])
