"""Data as users have them: tensors or arrays, pairs, datasets and loaders, alike everywhere."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch_nano as tn
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

NAMES = ["rest", "walk", "run"]
X, Y = torch.randn(48, 6, generator=torch.Generator().manual_seed(0)), torch.arange(48) % 3

#: From inputs and labels to one form of data.
Form = Callable[[Tensor, Tensor], Any]
FORMS: dict[str, Form] = {
    "tensors": lambda x, y: (x, y),
    "arrays": lambda x, y: (x.numpy(), y.numpy()),
    "dataset": TensorDataset,
    "loader": lambda x, y: DataLoader(TensorDataset(x, y), 16),
    "batches of arrays": lambda x, y: [(x[:16].numpy(), y[:16].numpy()), (x[16:].numpy(), y[16:].numpy())],
}


def _model() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    tn.freeze(model, "0")
    return model


@pytest.fixture(scope="module")
def nano() -> tn.NanoModule:
    return tn.to_nano(_model(), X[:2], calibrate=X, labels=NAMES, check=False)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_each_form_of_data_is_taken_everywhere(nano: tn.NanoModule, form: Form) -> None:
    data = form(X, Y)
    assert tn.to_nano(_model(), X[:2], calibrate=data, labels=NAMES, check=False).image == nano.image
    assert nano.compare(_model(), data).outputs[0].int8_accuracy is not None
    assert len(tn.fit(_model(), data, epochs=1, progress=False)) == 1
    with tn.Device("sim", nano=nano) as device:
        assert device.fit(data, epochs=1).sent == len(X)


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
