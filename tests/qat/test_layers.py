"""Layers in training that are not rounded, dropout, and what is refused."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torch_nano as tn
from torch import Tensor, nn
from torch_nano.qat import QatModule

from .trained import TASKS, differing_bits, train


def residual(**options: object) -> tuple[nn.Module, QatModule, Tensor]:
    x, _ = TASKS["residual"].data()
    model = TASKS["residual"].model().eval()
    qat = tn.prepare_qat(model, x[:2], calibrate=x[:200], **options)  # type: ignore[arg-type]
    return model, qat, x[-200:]


def test_all_layers_disabled_are_the_float_model_after_an_int8_input() -> None:
    model, qat, x = residual()
    tn.qat.disable_quantization(qat)
    quantization = qat.quantization_ranges.quantization("x")
    rounded = (x / quantization.scale).round() * quantization.scale
    # float32: the same products, of folded weights.
    torch.testing.assert_close(qat(rounded), model(rounded), rtol=1e-4, atol=1e-4)
    tn.qat.enable_quantization(qat)
    assert differing_bits(qat(x), qat.to_nano()(x)) == 0


def test_a_layer_in_float_computes_what_the_quantized_one_is_rounded_from() -> None:
    _, qat, x = residual()
    scale = qat.quantization_ranges.quantization("linear").scale
    rounded = qat(x).detach()
    tn.qat.disable_quantization(qat, "classifier")
    real = qat(x).detach()
    assert differing_bits(real, rounded) > 0
    # Half a step of the output, and half a step of each of 48 weights, whose inputs are below 8.
    assert float((real - rounded).abs().max()) < scale / 2 + 48 * 8 * 0.5 / 127
    with pytest.raises(
        tn.errors.QuantizationError, match=r"disabled for 'classifier', and the image knows no such"
    ):
        qat.to_nano()
    tn.qat.enable_quantization(qat, "class*")
    assert differing_bits(qat(x), rounded) == 0


def test_a_quantized_layer_quantizes_outputs_of_a_float_layer() -> None:
    """The last layer's integers are exact: its output is a whole number of steps, whatever precedes it."""
    _, qat, x = residual(float_layers=["stem", "first.*"])
    assert {qat._graph.values[name].module_path for name in qat._in_float} == {"stem.0", "first.0"}
    y = qat(x).detach()
    scale = qat.quantization_ranges.quantization("linear").scale
    assert torch.equal((y / scale).round() * scale, y)
    qat.zero_grad()
    qat(x).sum().backward()
    assert all(bool(parameter.grad.any()) for parameter in qat.parameters() if parameter.grad is not None)


@pytest.mark.parametrize(
    ("options", "in_float"),
    [
        ({"first_layer": False}, {"stem.0"}),
        ({"last_layer": False}, {"classifier"}),
        ({"first_layer": False, "last_layer": False, "float_layers": ["projection"]},
         {"stem.0", "classifier", "projection"}),
    ],
)  # fmt: skip
def test_first_and_last_layer_can_stay_in_float(options: dict[str, object], in_float: set[str]) -> None:
    _, qat, x = residual(**options)
    assert {qat._graph.values[name].module_path for name in qat._in_float} == in_float
    with pytest.raises(tn.errors.QuantizationError, match="enable_quantization first"):
        qat.to_nano()
    tn.qat.enable_quantization(qat)
    assert differing_bits(qat(x), qat.to_nano()(x)) == 0


def test_unknown_layers_are_refused_with_near_names() -> None:
    _, qat, _ = residual()
    for function in (tn.qat.disable_quantization, tn.qat.enable_quantization):
        with pytest.raises(tn.errors.ModuleNameError, match="classifier"):
            function(qat, "clasifier")


class Dropouts(nn.Module):
    """A dropout of numbers, one of channels, and one in forward."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.channels = nn.Dropout2d(0.5)
        self.numbers = nn.Dropout(0.25)
        self.classifier = nn.Linear(4 * 6 * 6, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.flatten(self.channels(torch.relu(self.conv(x))), 1)
        y: Tensor = F.dropout(self.classifier(self.numbers(x)), 0.5, self.training)
        return y


def with_dropouts() -> tuple[QatModule, Tensor]:
    x, _ = TASKS["residual"].data()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Dropouts()
    qat = tn.prepare_qat(model, x[:2], calibrate=x[:200])
    tn.qat.freeze_ranges(qat.train())
    return qat, x[-200:]


def test_dropout_works_in_train_mode_only() -> None:
    qat, x = with_dropouts()
    torch.manual_seed(1)
    assert differing_bits(qat(x), qat(x)) > 0
    qat.eval()
    assert differing_bits(qat(x), qat.to_nano()(x)) == 0


def test_dropped_numbers_are_zero_and_others_are_scaled_int8() -> None:
    qat, x = with_dropouts()
    for module in (qat.channels, qat.numbers):
        module.eval()
    torch.manual_seed(1)
    y = qat(x).detach()
    scale = qat.quantization_ranges.quantization("linear").scale
    steps = y / scale
    assert torch.equal(steps.round() * scale, y)
    undropped = (qat.to_nano()(x) / scale).round()
    dropped = (steps.round() == 0) & (undropped != 0)
    # 2,000 coins: five standard deviations.
    assert abs(float(dropped.float().mean()) - 0.5) < 5 * 0.5 / 2000**0.5 + float(
        (undropped == 0).float().mean()
    )
    low, high = (bound / scale for bound in qat.quantization_ranges.quantization("linear").range)
    kept = ~dropped & (undropped != 0)
    assert torch.equal(steps.round()[kept], (undropped * 2).clamp(round(low), round(high))[kept])


def followed_by(dropout: nn.Module) -> tuple[QatModule, Tensor]:
    """A convolution, none of whose outputs is 0, in front of a dropout; ranges frozen."""
    model = nn.Sequential(nn.Conv2d(1, 8, 1), dropout)
    with torch.no_grad():
        model[0].weight.fill_(0.5)
        model[0].bias.fill_(0.5)
    x = torch.rand(100, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    qat = tn.prepare_qat(model, x, calibrate=4 * x)
    tn.qat.freeze_ranges(qat.train())
    return qat, x


def test_dropout_of_channels_drops_whole_channels() -> None:
    qat, x = followed_by(nn.Dropout2d(0.5))
    undropped = qat.to_nano()(x)
    torch.manual_seed(1)
    y = qat(x).detach()
    kept = y.flatten(2).ne(0).any(2)
    assert torch.equal(y, 2 * undropped * kept[:, :, None, None])
    # 800 coins: five standard deviations.
    assert abs(float(kept.float().mean()) - 0.5) < 5 * 0.5 / 800**0.5


def test_a_changed_probability_takes_effect() -> None:
    qat, x = followed_by(nn.Dropout(0.5))
    assert differing_bits(qat(x), qat.to_nano()(x)) > 0
    qat.get_submodule("1").p = 0.0
    assert differing_bits(qat(x), qat.to_nano()(x)) == 0


def test_a_frozen_dropout_is_off() -> None:
    qat, x = followed_by(nn.Dropout(0.5))
    tn.freeze(qat, "1")
    assert differing_bits(qat.train()(x), qat.to_nano()(x)) == 0
    tn.unfreeze(qat)
    assert differing_bits(qat.train()(x), qat.to_nano()(x)) > 0


def test_the_gradient_goes_through_what_dropout_keeps() -> None:
    qat, x = followed_by(nn.Dropout(0.5))
    leaf = x.clone().requires_grad_()
    torch.manual_seed(1)
    y = qat(leaf)
    kept = y != 0
    y.sum().backward()
    # Each of 8 weights of 0.5, twice what is kept; 64 * s_w = 0.5 up to the rounding of the scale to float32.
    torch.testing.assert_close(leaf.grad, kept.sum(1, keepdim=True) * 2 * 0.5, rtol=1e-5, atol=1e-5)


class Bypassed(nn.Module):
    """A tensor that a dropout reads, and also a function of the caller."""

    def __init__(self, forward: Callable[[Tensor, nn.Module], Tensor]) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.dropout = nn.Dropout(0.5)
        self.rest = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(self.linear(x), self.dropout)


BYPASSES: dict[str, Callable[[Tensor, nn.Module], Tensor]] = {
    "before": lambda x, dropout: torch.sigmoid(x) + dropout(x),
    "after": lambda x, dropout: x + dropout(x),
    "sum first": lambda x, dropout: dropout(x) + x,
    "a layer after": lambda x, dropout: dropout(x) + torch.sigmoid(x),
    "a function": lambda x, dropout: x + F.dropout(x, 0.5, dropout.training),
    "a function by name": lambda x, dropout: x + F.dropout(input=x, training=dropout.training),
    "another shape": lambda x, dropout: x + dropout(x.reshape(-1, 4)),
    "twice": lambda x, dropout: dropout(x) + dropout(x),
}


@pytest.mark.parametrize("name", BYPASSES)
def test_a_dropout_beside_which_its_input_is_read_is_refused(name: str) -> None:
    model = Bypassed(BYPASSES[name])
    with pytest.raises(tn.errors.UnsupportedError, match="read by others, without the dropout"):
        tn.prepare_qat(model, torch.zeros(2, 4))
    # Evaluation has no dropout: such a model can be exported.
    assert tn.to_nano(model, torch.zeros(2, 4), calibrate=torch.randn(8, 4)).head is None


def test_a_dropped_tensor_may_be_read_twice() -> None:
    def forward(x: Tensor, dropout: nn.Module) -> Tensor:
        x = dropout(x)
        return x + torch.sigmoid(x)

    tn.prepare_qat(Bypassed(forward), torch.zeros(2, 4))


def test_dropouts_that_integers_cannot_do_are_refused() -> None:
    with pytest.raises(tn.errors.UnsupportedError, match=r"use nn.Dropout"):
        tn.prepare_qat(nn.Sequential(nn.Linear(4, 4), nn.AlphaDropout()), torch.zeros(2, 4))


@pytest.mark.parametrize("frozen_ranges", [True, False])
@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_weights_and_inputs_that_are_not_finite_are_refused(frozen_ranges: bool, wrong: float) -> None:
    _, qat, x = residual()
    qat.train()
    if frozen_ranges:
        tn.qat.freeze_ranges(qat)
    bad = x.clone()
    bad[3, 0, 0, 0] = wrong
    with pytest.raises(tn.errors.InputError, match=r"NaN or infinity in samples \[3\] of 200"):
        qat(bad)
    with torch.no_grad():
        qat.get_parameter("second.0.weight")[0, 0, 0, 0] = wrong
    with pytest.raises(tn.errors.NonFiniteError, match=r"module 'second.0': .*holds NaN or infinity"):
        qat(x)


def test_wrong_shapes_and_dtypes_are_refused() -> None:
    _, qat, x = residual()
    for wrong in (x[:, 0], x[0], x[:, :, :7], x.to(torch.int32), torch.tensor(1.0)):
        with pytest.raises(
            tn.errors.InputError, match=r"the input has shape .* expected a tensor \[N, 1, 8, 8\] of floats"
        ):
            qat(wrong)


def test_training_goes_on_after_a_refusal() -> None:
    x, y = TASKS["residual"].data()
    _, qat, _ = residual()
    bounds = qat.quantization_ranges.bounds.clone()
    with pytest.raises(tn.errors.InputError):
        qat.train()(torch.full_like(x[:4], torch.nan))
    assert torch.equal(qat.quantization_ranges.bounds, bounds)
    assert len(train(qat, x, y, steps=1)) == 1
