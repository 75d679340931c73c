"""Weights that modules compute of their parameters alone: weight_norm, spectral_norm, prune and others."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torch_nano as tn
from models.zoo import make
from networks import inputs
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch_nano.capture.capture import capture
from torch_nano.capture.passes import optimize

Change = Callable[[nn.Module], nn.Module]
X = inputs((4, 20), 32)


def pruned(module: nn.Module) -> nn.Module:
    result: nn.Module = prune.l1_unstructured(module, "weight", 0.5)
    return result


#: How weights become computed, and the parameters that train in their place.
CHANGES: dict[str, tuple[Change, set[str]]] = {
    "weight_norm, hook": (nn.utils.weight_norm, {"weight_g", "weight_v"}),
    "weight_norm": (
        parametrizations.weight_norm,
        {"parametrizations.weight.original0", "parametrizations.weight.original1"},
    ),
    "prune": (pruned, {"weight_orig"}),
    "spectral_norm, hook": (nn.utils.spectral_norm, {"weight_orig"}),
    "spectral_norm": (parametrizations.spectral_norm, {"parametrizations.weight.original"}),
    "orthogonal": (parametrizations.orthogonal, {"parametrizations.weight.original"}),
}
changes = pytest.mark.parametrize("name", CHANGES)
pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated")


def network(change: Change) -> nn.Sequential:
    """A convolution with a batch norm, a transposed convolution and a Linear, all changed."""
    torch.manual_seed(0)
    return nn.Sequential(
        change(nn.Conv1d(4, 6, 3)),
        nn.BatchNorm1d(6),
        nn.ReLU(),
        change(nn.ConvTranspose1d(6, 3, 2)),
        nn.Flatten(),
        change(nn.Linear(57, 3)),
    )


def trained(qat: tn.qat.QatModule) -> dict[str, float]:
    """The names of the parameters and how far one epoch moves each."""
    before = {name: parameter.detach().clone() for name, parameter in qat.named_parameters()}
    labels = torch.arange(len(X)) % 3
    tn.fit(qat, [(X, labels)] * 2, epochs=1, progress=False)
    return {
        name: float((parameter.detach() - before[name]).abs().max())
        for name, parameter in qat.named_parameters()
    }


@changes
def test_the_graph_equals_the_module(name: str) -> None:
    model = network(CHANGES[name][0]).eval()
    graph = optimize(capture(model, X))
    with torch.no_grad():
        (y,) = graph.float_run(X)
        expected = model(X)
        # float32: an output near 0 is a difference of sums as large as the largest outputs.
        torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5 * max(1.0, float(expected.abs().max())))
    assert tn.to_nano(model, X, calibrate=X, check=False, head=None).verify("host", X[:4])


@pytest.mark.parametrize("name", ["weight_norm, hook", "weight_norm", "prune"])
def test_qat_trains_the_originals(name: str) -> None:
    change, originals = CHANGES[name]
    qat = tn.prepare_qat(network(change), X, calibrate=X)
    moved = trained(qat)
    for layer in ("0", "3", "5"):
        assert {f"{layer}.{original}" for original in originals} <= moved.keys()
    assert min(moved.values()) > 0
    nano = tn.to_nano(qat, head=None)
    assert nano.verify("host", X[:4])
    assert torch.equal(nano(X), qat.eval()(X))


@pytest.mark.parametrize("name", ["weight_norm, hook", "weight_norm", "prune"])
def test_frozen_layers_keep_their_originals(name: str) -> None:
    model = network(CHANGES[name][0])
    tn.freeze(model, "0", "3")
    moved = trained(tn.prepare_qat(model, X, calibrate=X))
    assert {name.split(".")[0] for name, by in moved.items() if by > 0} == {"1", "5"}


@pytest.mark.parametrize("name", ["spectral_norm, hook", "spectral_norm"])
def test_spectral_norm_is_refused_in_training_until_it_is_frozen_or_removed(name: str) -> None:
    change, _ = CHANGES[name]
    model = network(change)
    with pytest.raises(
        tn.errors.UnsupportedError, match=r"(?s)3 calls.*it is computed in train mode only"
    ) as refused:
        tn.prepare_qat(model, X, calibrate=X)
    assert "tn.freeze its module" in str(refused.value)
    tn.freeze(model, "0", "3", "5")
    frozen = trained(tn.prepare_qat(model, X, calibrate=X))
    assert {name.split(".")[0] for name, by in frozen.items() if by > 0} == {"1"}
    model = network(change)
    for layer in (model[0], model[3], model[5]):
        if parametrize.is_parametrized(layer):
            parametrize.remove_parametrizations(layer, "weight")
        else:
            nn.utils.remove_spectral_norm(layer)
    assert min(trained(tn.prepare_qat(model, X, calibrate=X)).values()) > 0


def test_weights_of_norms_and_biases_may_be_computed() -> None:
    norm, layer_norm, linear = nn.BatchNorm1d(4), nn.LayerNorm(20), nn.Linear(20, 3)
    with torch.no_grad():
        for module in (norm, layer_norm, linear):
            module.weight.uniform_(0.5, 2.0)
            prune.random_unstructured(module, "weight", 0.5)
    prune.random_unstructured(linear, "bias", 0.5)
    model = nn.Sequential(norm, nn.Tanh(), layer_norm, linear).eval()
    with torch.no_grad():
        (y,) = optimize(capture(model, X)).float_run(X)
        torch.testing.assert_close(y, model(X), rtol=1e-4, atol=1e-5)


class Doubled(nn.Module):
    """A convolution whose forward computes its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, 6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv1d(x, self.conv.weight * 2 - self.conv.weight.mean(), self.conv.bias)


def test_a_weight_computed_in_forward_trains_its_parameter() -> None:
    qat = tn.prepare_qat(nn.Sequential(Doubled(), nn.Flatten(), nn.Linear(108, 3)), X, calibrate=X)
    assert trained(qat)["0.conv.weight"] > 0
    assert torch.equal(tn.to_nano(qat, head=None)(X), qat.eval()(X))


@pytest.mark.parametrize("name", ["tcn", "tcn, chomp"])
def test_a_causal_network_with_weight_norm_streams_the_window(name: str) -> None:
    model, x = make(name)
    nano = tn.to_nano(model, x[:2], calibrate=x, head=None, check=False)
    stream = nano.stream()
    for window in x[:3]:
        stream.reset()
        for step in window.T:
            y = stream.step(step)
        assert torch.equal(y, nano(window[None])[0])
