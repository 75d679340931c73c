"""Ranges in training: a moving average, frozen, or learned."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
import torch_nano as tn
from torch import Tensor, nn
from torch_nano.calibration.ranges import Range
from torch_nano.qat import QatModule
from torch_nano.qat.training_ranges import TrainingRanges

from .trained import TASKS, differing_bits, train


def doubler(**options: object) -> QatModule:
    """``y = 2 x`` for one number."""
    model = nn.Sequential(nn.Linear(1, 1))
    with torch.no_grad():
        model[0].weight.fill_(2.0)
        model[0].bias.zero_()
    x = torch.tensor([[-1.0], [1.0]])
    return tn.prepare_qat(model, x, calibrate=x, **options)  # type: ignore[arg-type]


def bounds(qat: QatModule, name: str) -> list[float]:
    ranges = qat.quantization_ranges
    return ranges.bounds[ranges._index[name]].tolist()


def test_the_moving_average_is_that_by_hand() -> None:
    qat = doubler(momentum=0.25).train()
    assert bounds(qat, "input") == [-1.0, 1.0] and bounds(qat, "linear") == [-2.0, 2.0]
    qat(torch.tensor([[-5.0], [3.0]]))
    # -1 + (-5 - -1) / 4 and 1 + (3 - 1) / 4.
    assert bounds(qat, "input") == [-2.0, 1.5]
    # The layer sees the int8 input of the new range: its step is 3.5 / 255, its zero point 18.
    scale = float(torch.tensor(3.5 / 255))
    low, high = scale * (-128 - 18), scale * (127 - 18)
    expected = [-2 + (2 * low + 2) / 4, 2 + (2 * high - 2) / 4]
    # The float32 run of the layer.
    assert bounds(qat, "linear") == pytest.approx(expected, rel=1e-6)


def test_without_calibration_the_first_batch_sets_the_ranges() -> None:
    model = nn.Sequential(nn.Linear(1, 1))
    qat = tn.prepare_qat(model, torch.zeros(2, 1), momentum=0.01)
    with pytest.raises(tn.errors.QuantizationError, match="value input has no range yet: pass calibrate="):
        qat.eval()(torch.zeros(2, 1))
    with pytest.raises(tn.errors.QuantizationError, match="has no range yet"):
        qat.to_nano()
    with pytest.raises(tn.errors.QuantizationError, match="has no range yet"):
        tn.qat.freeze_ranges(qat)
    assert not qat.quantization_ranges.frozen.any()
    qat.train()(torch.tensor([[-3.0], [5.0]]))
    assert bounds(qat, "input") == [-3.0, 5.0]


def test_ranges_move_in_train_mode_only_and_not_once_frozen() -> None:
    qat, x = doubler(momentum=0.5), torch.tensor([[-8.0], [8.0]])
    before = qat.quantization_ranges.bounds.clone()
    qat.eval()(x)
    tn.qat.freeze_ranges(qat.train())
    frozen = qat(x)
    assert torch.equal(qat.quantization_ranges.bounds, before)
    assert differing_bits(frozen, qat.eval()(x)) == 0
    tn.qat.unfreeze_ranges(qat.train())
    qat(x)
    assert not torch.equal(qat.quantization_ranges.bounds, before)


def test_ranges_of_some_modules_are_frozen() -> None:
    x, _ = TASKS["residual"].data()
    qat = tn.prepare_qat(TASKS["residual"].model(), x[:2], calibrate=x[:200], momentum=0.5).train()
    tn.qat.freeze_ranges(qat, "stem.*", qat.get_submodule("classifier"))
    before = qat.quantization_ranges.bounds.clone()
    qat(2 * x[:50])
    ranges = qat.quantization_ranges
    still = {
        name for name, index in ranges._index.items() if torch.equal(before[index], ranges.bounds[index])
    }
    assert {qat._graph.values[name].module_path.partition(".")[0] for name in still} == {"stem", "classifier"}
    assert all(ranges.is_frozen(name) for name in still)
    with pytest.raises(tn.errors.ModuleNameError, match="clasifier"):
        tn.qat.freeze_ranges(qat, "clasifier")


def test_other_devices_and_dtypes_leave_the_bounds_exact() -> None:
    qat = doubler().eval()
    expected = qat(torch.tensor([[0.3]]))
    before = qat.quantization_ranges.bounds.clone()
    assert torch.equal(qat.to(torch.float32).quantization_ranges.bounds, before)
    assert before.dtype == torch.float64
    assert differing_bits(qat(torch.tensor([[0.3]])), expected) == 0


def lsq_gradient(real: Tensor, grad: Tensor, scale: float, zero_point: int) -> float:
    """LSQ's gradient of the logarithm of a scale, from the paper's equation 3, number by number."""
    total = 0.0
    for v, g in zip(real.flatten().tolist(), grad.flatten().tolist(), strict=True):
        steps, low, high = v / scale, -128 - zero_point, 127 - zero_point
        by_scale = low if steps <= low else high if steps >= high else round(steps) - steps
        # d/d log s = s * d/d s.
        total += g * scale * by_scale
    return total / math.sqrt(127 * real[0].numel())


def test_the_gradient_of_a_learned_scale_is_that_by_hand() -> None:
    qat = doubler(ranges="learned").train()
    scales = qat.quantization_ranges.log_scales
    assert scales is not None
    x = torch.tensor([[-3.0], [-0.7], [0.111], [0.4], [0.99], [1.7]])
    grad = torch.tensor([[0.5], [-1.0], [2.0], [0.25], [-0.5], [1.0]])
    input_, output = (qat.quantization_ranges.quantization(name) for name in ("input", "linear"))
    qat(x).backward(grad)
    # The layer doubles: its own gradient is masked where its output saturates, which the input's bounds do.
    rounded = (x / input_.scale).round().clamp(-128 - input_.zero_point, 127 - input_.zero_point)
    real = 2 * rounded * input_.scale
    y = (real / output.scale).round()
    masked = grad * ((y > -128 - output.zero_point) & (y < 127 - output.zero_point))
    assert int((masked != 0).sum()) < len(grad)
    # float32 sums of a few numbers whose differences are a hundredth of them.
    expected = lsq_gradient(real, grad, output.scale, output.zero_point)
    assert scales[qat.quantization_ranges.key("linear")].grad.item() == pytest.approx(expected, rel=1e-3)
    expected = lsq_gradient(x, 2 * masked, input_.scale, input_.zero_point)
    assert scales[qat.quantization_ranges.key("input")].grad.item() == pytest.approx(expected, rel=1e-3)


def test_learned_scales_move_and_lower_the_loss() -> None:
    """Ranges that are 32 times too wide: learning brings them in; the same training without does worse."""
    # Eight times too wide cost so little that the processor's float sums decided which of the two did better.
    x, y = TASKS["residual"].data()
    model = TASKS["residual"].model()
    losses = {}
    for learned in (True, False):
        qat = tn.prepare_qat(model, x[:2], calibrate=x[:200] * 32, ranges="learned").train()
        scales = qat.quantization_ranges.log_scales
        assert scales is not None
        for parameter in qat.parameters():
            parameter.requires_grad_(False)
        if not learned:
            tn.qat.freeze_ranges(qat)
        else:
            for scale in scales.values():
                scale.requires_grad_(True)
            start = {name: scale.item() for name, scale in scales.items()}
            optimizer = torch.optim.Adam(scales.parameters(), lr=0.1)
            train(qat, x, y, 60, optimizer)
            assert all(scale.item() < start[name] - 0.1 for name, scale in scales.items())
        with torch.no_grad():
            losses[learned] = F.cross_entropy(qat.eval()(x[-500:]), y[-500:]).item()
            assert differing_bits(qat(x[:500]), qat.to_nano()(x[:500])) == 0
    assert losses[True] < losses[False]


def test_a_learned_scale_that_diverges_is_named() -> None:
    qat = doubler(ranges="learned")
    scales = qat.quantization_ranges.log_scales
    assert scales is not None
    with torch.no_grad():
        scales[qat.quantization_ranges.key("linear")].fill_(math.nan)
    with pytest.raises(
        tn.errors.QuantizationError, match=r"module '0': the learned scale of value linear is exp\(nan"
    ):
        qat(torch.zeros(1, 1))


@pytest.mark.parametrize("apart", ["input", "output"])
def test_learned_scales_that_drift_apart_are_named(apart: str) -> None:
    """Each is a scale for itself, but no multiplier leads from one to the other."""
    model = nn.Sequential(nn.Sequential(nn.Linear(1, 1), nn.ReLU()), nn.Linear(1, 1))
    x = torch.linspace(-1, 1, 8)[:, None]
    for native in (True, False):
        qat = tn.prepare_qat(model, x, calibrate=x, ranges="learned").train(native)
        ranges = qat.quantization_ranges
        assert ranges.log_scales is not None
        name, change = (
            (qat._graph.inputs[0], 40.0) if apart == "input" else (qat._graph.nodes[0].output, -40.0)
        )
        with torch.no_grad():
            ranges.log_scales[ranges.key(name)] += change
        with pytest.raises(
            tn.errors.QuantizationError,
            match=r"module '0\.0': .*multiplier .*scale of its input is .*of its output .*; training has "
            r"diverged; lower the learning rate of quantization_ranges\.log_scales",
        ) as caught:
            qat(x)
        assert caught.value.module_path == "0.0"
        with pytest.raises(tn.errors.QuantizationError, match=r"module '0\.0'"):
            qat.to_nano()


def test_a_learning_rate_too_large_for_learned_scales_is_named() -> None:
    """Every way in which it goes wrong is a divergence, blamed on the scales."""
    x, y = torch.randn(32, 6, generator=torch.Generator().manual_seed(0)), torch.arange(32) % 3
    for rate in (30.0, 300.0, 1e6, 1e20):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
        qat = tn.prepare_qat(model, x, calibrate=x, ranges="learned")
        optimizer = torch.optim.Adam(qat.parameters(), lr=rate)
        with pytest.raises(tn.errors.TrainingDivergedError) as caught:
            tn.fit(qat, (x, y), epochs=30, optimizer=optimizer, progress=False)
        assert "quantization_ranges.log_scales" in str(caught.value), rate
        assert "loss function" not in str(caught.value)


def test_frozen_learned_scales_stay_and_need_no_gradient() -> None:
    qat = doubler(ranges="learned").train()
    tn.qat.freeze_ranges(qat)
    qat(torch.ones(2, 1)).sum().backward()
    scales = qat.quantization_ranges.log_scales
    assert scales is not None
    assert all(scale.grad is None and not scale.requires_grad for scale in scales.values())
    copied = copy.deepcopy(qat)
    tn.qat.unfreeze_ranges(copied)
    copied(torch.ones(2, 1)).sum().backward()
    assert all(scale.grad is not None for scale in copied.quantization_ranges.log_scales.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"ranges": "guessed"},
            "ranges is 'guessed'; expected one of moving_average, learned",
        ),
        ({"momentum": 0.0}, r"momentum is 0\.0; expected a number above 0, at most 1\.0"),
        ({"momentum": 1.5}, r"momentum is 1\.5"),
        ({"ranges": "learned"}, r"learned ranges need a start: pass calibrate="),
        ({"method": "mode", "calibrate": torch.zeros(2, 1)}, "method is 'mode'"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(tn.errors.InputError, match=message):
        tn.prepare_qat(nn.Sequential(nn.Linear(1, 1)), torch.zeros(2, 1), **options)  # type: ignore[arg-type]


def test_changed_buffers_take_effect() -> None:
    """As averages of models and DistributedDataParallel make it: into the buffers, without a call."""
    ranges = TrainingRanges([Range(("x",), "int8")], {"x": (0.0, 2.0)}, "moving_average", 0.5)
    ranges.freeze(["x"], True)
    ranges.bounds.copy_(torch.tensor([[0.0, 4.0]]))
    ranges.refresh()
    assert ranges.quantization("x").scale == pytest.approx(4 / 255)
    ranges.frozen.zero_()
    ranges.refresh()
    assert not ranges.is_frozen("x")


def test_a_copy_sees_as_many_changes_as_its_original_had() -> None:
    """torch counts the changes of each tensor, those of a copy anew: the counts alone may be equal."""
    ranges = TrainingRanges(
        [Range((name,), "int8") for name in "xy"], {"x": (0.0, 2.0), "y": (0.0, 1.0)}, "moving_average", 0.5
    )
    for _ in range(2):
        ranges.observe("x", torch.tensor([0.0, 4.0]))
    ranges.freeze(["x", "y"], True)
    copied = copy.deepcopy(ranges)
    while copied.bounds._version < ranges.bounds._version:
        copied.bounds.copy_(torch.tensor([[0.0, 8.0], [0.0, 1.0]]))
        copied.frozen.copy_(torch.tensor([1, 1]))
    copied.refresh()
    assert (copied.bounds._version, copied.frozen._version) == (
        ranges.bounds._version,
        ranges.frozen._version,
    )
    assert ranges.quantization("x").scale == pytest.approx(3.5 / 255)
    assert copied.quantization("x").scale == pytest.approx(8 / 255)
