"""`to_nano(train_last=k, budget={"training": ...})`: which layers learn, and what holds of such heads."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch_nano as tn
from networks import inputs
from torch import Tensor, nn
from torch_nano import _native
from torch_nano.compile.saved_model import _VERSION as VERSION
from torch_nano.files import archive

from .test_last_layers import Residual, convolution, mlp, network

SHAPE = (1, 12, 12)


def model() -> nn.Sequential:
    """A convolution, a residual block of 1x1, depthwise and 1x1 convolutions, pool, Linear."""
    return network(convolution(8, 8), Residual(8, separable=True)).eval()


def chosen(budget: int, count: int = 5, **options: Any) -> tuple[tn.NanoModule, Tensor]:
    x = inputs(SHAPE, 64)
    settings = {"learning_rate": 0.01, "budget": {"training": budget}, **options}
    return tn.to_nano(model(), x, calibrate=x, train_last=count, check=False, **settings), x


def learning_bytes(nano: tn.NanoModule) -> float:
    parts = nano.fits("esp32c3").ram.parts
    return parts["head"] + parts["head's copy"] + parts["ring"]


#: All layers learn; some in the middle do not; the last one alone.
BUDGETS = [60_000, 50_000, 2_000]


@pytest.mark.parametrize("budget", BUDGETS)
def test_what_learns_fits_and_is_shown(budget: int) -> None:
    nano, _ = chosen(budget)
    summary = nano.summary()
    learning = [layer for layer in summary.choice if layer.learns]
    assert learning_bytes(nano) <= budget
    assert nano.head_path == ", ".join(layer.module_path for layer in learning)
    assert [layer.module_path for layer in summary.choice] == [
        "2.0", "3.branch.0", "3.branch.2", "3.branch.4", "6"
    ]  # fmt: skip
    assert summary.choice[-1].learns and abs(sum(layer.share for layer in summary.choice) - 1) < 1e-9
    parameters = [
        sum(p.numel() for p in model().get_submodule(own.module_path).parameters()) for own in summary.choice
    ]
    assert [layer.parameters for layer in summary.choice] == parameters
    for layer in summary.choice:
        assert f"{layer.module_path} " in str(summary) and layer.reason in str(summary)


def test_a_smaller_budget_never_gains_more_and_no_better_choice_fits() -> None:
    gains, sizes = [], []
    for budget in (200_000, 52_000, 50_500, 48_000, 2_000):
        nano, _ = chosen(budget)
        gains.append(sum(layer.share for layer in nano.summary().choice if layer.learns))
        sizes.append(learning_bytes(nano))
    assert gains == sorted(gains, reverse=True) and gains[0] == pytest.approx(1)
    assert len(set(sizes)) >= 3, sizes
    # What fits exactly is taken, and a byte less is not enough for it.
    whole, _ = chosen(int(sizes[0]))
    less, _ = chosen(int(sizes[0]) - 1)
    assert learning_bytes(whole) == sizes[0] > learning_bytes(less)


def test_the_trace_is_that_of_the_gradients() -> None:
    """Of a Linear z = W h + b the trace is exact: classes * (|h|^2 + 1), averaged over the samples."""
    x = inputs((12,), 64)
    net = mlp()
    nano = tn.to_nano(net, x, calibrate=x, train_last=2, learning_rate=0.01, budget={"training": 200_000})
    first, last = nano.summary().choice
    with torch.no_grad():
        hidden = net[:-1](x)
    # 128 outputs and inputs: the sum over 32 samples of those 64 that are kept is near that over all.
    jacobians = []
    for sample in x:
        output = net(sample[None])[0]
        gradients = [torch.autograd.grad(z, net[2].weight, retain_graph=True)[0] for z in output]
        jacobians.append(sum(float(gradient.square().sum()) for gradient in gradients))
    own = 10 * float((hidden.square().sum(1) + 1).mean())
    below = sum(jacobians) / len(jacobians)
    assert first.share / last.share == pytest.approx(below / own, rel=0.35)


@pytest.mark.parametrize("budget", BUDGETS)
def test_host_torch_board_and_simulated_device_learn_the_same(budget: int, tmp_path: Path) -> None:
    nano, x = chosen(budget)
    assert nano.head is not None and nano.verify("host", x)
    labels, start = torch.arange(24) % 3, nano.head.state()
    states, frozen = [], copy.deepcopy(nano)
    for number, port in enumerate(("sim", tn.device.QemuBoard(nano.image))):
        path = tmp_path / f"{number}.record"
        with tn.Device(port, nano=nano) as device, tn.device.record(device, path):
            for sample, label in zip(nano.device_inputs(x[:24]), labels.tolist(), strict=True):
                device.learn(sample, label)
            device.train(4)
            states.append(device.head_state())
            predicted = device.predict(nano.device_inputs(x[:1])[0]).logits.tolist()
        assert tn.device.replay(path, nano).head.state() == states[-1]
    nano.head.fit(nano.features_int8(x[:24]), labels, epochs=4)
    assert states == [nano.head.state()] * 2 and nano.head.state() != start
    assert nano.forward_int8(nano.quantize_input(x[:1])).tolist() == [predicted]
    # What learnt goes back into the float model, and nothing else moves.
    net = model()
    before = copy.deepcopy(net.state_dict())
    nano.load_head_into(net)
    moved = {
        name.rsplit(".", 1)[0]
        for name, weight in net.state_dict().items()
        if not torch.equal(weight, before[name])
    }
    assert moved <= set(str(nano.head_path).split(", ")) and moved
    assert frozen.head is not None and frozen.head.state() == start


@pytest.mark.parametrize("budget", BUDGETS)
def test_it_is_saved_and_compared(budget: int, tmp_path: Path) -> None:
    nano, x = chosen(budget)
    assert nano.head is not None
    nano.head.fit(nano.features_int8(x), torch.arange(64) % 3, epochs=2)
    nano.save(tmp_path / "model.tn")
    again = tn.load(tmp_path / "model.tn")
    assert again.image == nano.image and again.head is not None and again.head.state() == nano.head.state()
    assert str(again.summary()) == str(nano.summary())
    assert again.compare(model(), x).samples == 64
    with pytest.raises(tn.errors.InputError, match=r"differs|ends in"):
        again.compare(network(convolution(8, 8), Residual(8, separable=False)).eval(), x)
    kind, version = "model", VERSION
    contents = archive.unpack(kind, version, (tmp_path / "model.tn").read_bytes())
    contents["head"]["choice"][-1]["learns"] = False
    (tmp_path / "model.tn").write_bytes(archive.pack(kind, version, contents))
    with pytest.raises(tn.errors.FileFormatError, match="others were chosen"):
        tn.load(tmp_path / "model.tn")


def test_wrong_budgets_are_refused() -> None:
    with pytest.raises(
        tn.errors.TooLargeError,
        match=r"\['training'\] is 500 B, and learning takes [\d,]+ B of RAM with '6' alone",
    ):
        chosen(500)
    with pytest.raises(tn.errors.InputError, match=r"train_last is 1; expected train_last=2"):
        chosen(5000, count=1)
    with pytest.raises(
        tn.errors.InputError, match=r"train_last is 13, with budget\['training'\]; expected at most 12"
    ):
        chosen(5000, count=13)
    with pytest.raises(tn.errors.HeadError, match=r"train_last=7 needs 7"):
        chosen(5000, count=7)
    for wrong in (-1, 1.5, "many"):
        with pytest.raises(tn.errors.InputError, match=r"budget\['training'\] is "):
            chosen(wrong)  # type: ignore[arg-type]
    x = inputs((12,), 64)
    trained = tn.prepare_qat(mlp(), x, calibrate=x)
    with pytest.raises(tn.errors.InputError, match="which a QatModule does not have"):
        tn.to_nano(trained, train_last=2, budget={"training": 90_000})


def test_the_limit_is_that_of_the_image() -> None:
    """What the choice counts is what `fits` counts of the image that is made."""
    nano, _ = chosen(50_000)
    description = nano._saved_head.description if nano._saved_head else {}
    assert _native.training_ram(description["layers"]) == learning_bytes(nano)
