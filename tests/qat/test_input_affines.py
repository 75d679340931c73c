"""A batch norm, or arithmetic with parameters, in front of the network: trained as its input's scales."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torch_nano as tn
from torch import Tensor, nn

from .trained import assert_is_the_image, differing_bits, train

UNITS = torch.tensor([1.0, 600.0, 0.02, 50.0])


def data() -> tuple[Tensor, Tensor]:
    """[N, 4, 16] in units of all sizes; what says the class is in the small ones."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(3, (1200,), generator=generator)
    x = torch.randn(1200, 4, 16, generator=generator)
    x[:, ::2] += 3 * F.one_hot(y, 3)[:, :2, None]
    return x * UNITS[:, None] + 2 * UNITS[:, None], y


class Normed(nn.Module):
    """Arithmetic with parameters, and a batch norm, in front of a small network."""

    def __init__(self, arithmetic: bool, norm: bool) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor([0.5, -0.01, 20.0, 0.1]).reshape(1, 4, 1))
        self.shift = nn.Parameter(torch.tensor([0.1, 0.2, -0.3, 5.0]))
        self.norm = nn.BatchNorm1d(4)
        self.arithmetic, self.normed = arithmetic, norm
        self.net = nn.Sequential(
            nn.Conv1d(4, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 3)
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.arithmetic:
            x = x * self.gain + self.shift[:, None]
        if self.normed:
            x = self.norm(x)
        result: Tensor = self.net(x)
        return result


def trained(arithmetic: bool = True, norm: bool = True) -> nn.Module:
    torch.manual_seed(1)
    model = Normed(arithmetic, norm)
    train(model, *data(), steps=60)
    return model


@pytest.mark.parametrize("options", [{}, {"batch_norm": "batch_statistics"}, {"ranges": "learned"}])
@pytest.mark.parametrize(("arithmetic", "norm"), [(False, True), (True, False), (True, True)])
def test_training_and_evaluation_are_the_image(arithmetic: bool, norm: bool, options: dict[str, Any]) -> None:
    x, y = data()
    qat = tn.prepare_qat(trained(arithmetic, norm), x[:2], calibrate=x[:200], **options)
    before = qat.to_nano().image
    train(qat.train(), x, y, steps=8)
    assert qat.to_nano().image != before
    assert_is_the_image(qat.eval(), x[-1000:])
    tn.qat.freeze_ranges(qat.train())
    tn.qat.fold_batch_norm(qat)
    train(qat, x, y, steps=4)
    assert_is_the_image(qat, x[-1000:])
    assert_is_the_image(qat.eval(), x[-1000:])
    nano = qat.to_nano()
    assert nano.graph.graph.nodes[0].operator.name == "conv2d" and list(nano.input_channels) == ["x"]
    assert float((nano(x).argmax(1) == y).float().mean()) > 0.9


def test_without_rounding_it_is_torch_s_own() -> None:
    """Gradients, and the statistics of a batch norm after arithmetic with parameters, in train mode."""
    x, y = data()
    model = trained().train()
    qat = tn.prepare_qat(model, x[:2], calibrate=x[:200], batch_norm="batch_statistics").train()
    tn.qat.freeze_ranges(qat)
    tn.qat.disable_quantization(qat)
    for module in (model, qat):
        module.zero_grad()
        F.cross_entropy(module(x[:128]), y[:128]).backward()
    for name, parameter in model.named_parameters():
        own = qat.get_parameter(name).grad
        assert own is not None and parameter.grad is not None
        # The shift before a batch norm has gradient 0: what is there is rounding.
        torch.testing.assert_close(own, parameter.grad, rtol=1e-3, atol=1e-5, msg=name)
    for name, buffer in model.named_buffers():
        torch.testing.assert_close(qat.get_buffer(name), buffer, rtol=1e-5, atol=1e-5)


def test_the_rounded_gradient_is_that_of_the_float_model_nearly() -> None:
    x, y = data()
    model = trained(arithmetic=False).eval()
    qat = tn.prepare_qat(model, x[:2], calibrate=x).eval()
    for module in (model, qat):
        module.zero_grad()
        F.cross_entropy(module(x), y).backward()
    for name in ("norm.weight", "norm.bias", "net.0.weight"):
        ours, theirs = qat.get_parameter(name).grad, model.get_parameter(name).grad
        assert ours is not None and theirs is not None
        # Straight through int8's rounding: the same direction.
        assert float(F.cosine_similarity(ours.flatten(), theirs.flatten(), 0)) > 0.98, name


def test_a_factor_that_changes_its_sign_in_training_is_the_image() -> None:
    x, _ = data()
    qat = tn.prepare_qat(trained(arithmetic=False), x[:2], calibrate=x)
    with torch.no_grad():
        qat.get_parameter("norm.weight").mul_(torch.tensor([1.0, -1.0, 1.0, 0.0]))
    assert_is_the_image(qat.eval(), x[-1000:])


def test_a_frozen_batch_norm_keeps_its_range() -> None:
    x, _ = data()
    qat = tn.prepare_qat(trained(arithmetic=False), x[:2], calibrate=x)
    before = qat.quantization_ranges.bounds.clone()
    tn.freeze(qat, "norm")
    qat.train()(x[:64] * 3)
    moved = (qat.quantization_ranges.bounds != before).any(1)
    assert not moved[0] and moved[1:].any()
    tn.unfreeze(qat, "norm")
    tn.qat.freeze_ranges(qat, "norm")
    qat.train()(x[:64] * 3)
    assert torch.equal(qat.quantization_ranges.bounds[0], before[0])
    tn.qat.unfreeze_ranges(qat, "norm")
    qat.train()(x[:64] * 3)
    assert not torch.equal(qat.quantization_ranges.bounds[0], before[0])


def test_a_state_dict_and_a_copy_are_the_same_module() -> None:
    x, y = data()
    qat = tn.prepare_qat(trained(), x[:2], calibrate=x)
    tn.qat.disable_quantization(qat, "norm")
    train(qat.train(), x, y, steps=2)
    other = tn.prepare_qat(trained(), x[:2], calibrate=x)
    other.load_state_dict(qat.state_dict())
    for one in (other, copy.deepcopy(qat)):
        assert differing_bits(one.eval()(x), qat.eval()(x)) == 0
        with pytest.raises(tn.errors.QuantizationError, match="disabled for 'norm'"):
            one.to_nano()


def test_training_may_start_with_the_first_batch() -> None:
    """Of a network whose batch norm has seen nothing."""
    x, y = data()
    torch.manual_seed(1)
    qat = tn.prepare_qat(Normed(False, True), x[:2], batch_norm="batch_statistics")
    train(qat.train(), x, y, steps=60)
    assert float((qat.eval().to_nano()(x).argmax(1) == y).float().mean()) > 0.95
