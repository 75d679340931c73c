"""Plain PyTorch around a network in training: optimizers, autocast, accumulation, copies, files."""

import copy
import io
import pickle

import pytest
import torch
import torch.nn.functional as F
import torch_nano as tn
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch_nano.qat import QatModule

from .trained import TASKS, assert_is_the_image, differing_bits, train

# torch says that it pads an even kernel unevenly.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")


def prepared(task: str = "residual", **options: object) -> tuple[QatModule, Tensor, Tensor]:
    x, y = TASKS[task].data()
    qat = tn.prepare_qat(TASKS[task].model(), x[:2], calibrate=x[:200], **options)  # type: ignore[arg-type]
    return qat.train(), x, y


def gradients(qat: QatModule) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in qat.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", ["SGD", "Adam", "RMSprop"])
def test_optimizers_and_schedulers_work(name: str) -> None:
    qat, x, y = prepared()
    options = {"SGD": {"lr": 0.03, "momentum": 0.9}, "Adam": {"lr": 3e-3}, "RMSprop": {"lr": 1e-3}}[name]
    optimizer = getattr(torch.optim, name)(qat.parameters(), **options)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=3)
    losses = []
    for _ in range(3):
        losses += train(qat, x, y, 8, optimizer)
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] < 1e-9
    assert sum(losses[-8:]) < 0.8 * sum(losses[:8])
    before = {parameter: parameter.detach().clone() for parameter in qat.parameters()}
    # The rate has come down to 0: nothing moves any more.
    train(qat, x, y, 1, optimizer)
    for parameter, old in before.items():
        torch.testing.assert_close(parameter.detach(), old, rtol=0, atol=1e-7)


def test_autocast_changes_no_bit() -> None:
    for task in ("residual", "functions", "separable"):
        qat, x, y = prepared(task, batch_norm="batch_statistics")
        other = copy.deepcopy(qat)
        with torch.autocast("cpu", torch.bfloat16):
            output = other(x[:64])
            loss = F.cross_entropy(output, y[:64])
        loss.backward()
        expected = qat(x[:64])
        F.cross_entropy(expected, y[:64]).backward()
        assert differing_bits(output, expected.detach()) == 0, task
        for name, gradient in gradients(qat).items():
            assert torch.equal(other.get_parameter(name).grad, gradient), f"{task}: {name}"
        assert torch.equal(other.quantization_ranges.bounds, qat.quantization_ranges.bounds)


def test_half_batches_accumulate_to_the_whole() -> None:
    qat, x, y = prepared()
    tn.qat.freeze_ranges(qat)
    x, y = x[:64], y[:64]
    whole = qat(x)
    F.cross_entropy(whole, y).backward()
    expected = gradients(qat)
    qat.zero_grad()
    halves = []
    for rows in (slice(0, 32), slice(32, 64)):
        halves.append(qat(x[rows]))
        (F.cross_entropy(halves[-1], y[rows]) / 2).backward()
    assert differing_bits(torch.cat(halves), whole.detach()) == 0
    for name, gradient in gradients(qat).items():
        # Integers forward: the same bits. Backward the float32 sums over the batch are in another order.
        largest = float(expected[name].abs().max())
        torch.testing.assert_close(gradient, expected[name], rtol=1e-5, atol=1e-6 * largest + 1e-8, msg=name)


def test_gradients_are_clipped_as_any_others() -> None:
    qat, x, y = prepared()
    (100 * F.cross_entropy(qat(x[:64]), y[:64])).backward()
    before = gradients(qat)
    norm = clip_grad_norm_(qat.parameters(), 1.0)
    assert float(norm) > 1.0
    for name, gradient in gradients(qat).items():
        torch.testing.assert_close(gradient, before[name] / norm, rtol=1e-4, atol=1e-8)


def test_gradients_reach_the_input_and_saturate_there() -> None:
    qat, x, _ = prepared("watch")
    leaf = (3 * x[:8]).requires_grad_()
    low, high = qat.quantization_ranges.quantization("x").range
    tn.qat.freeze_ranges(qat)
    qat(leaf).square().sum().backward()
    assert leaf.grad is not None
    outside = (leaf < low) | (leaf > high)
    assert bool(outside.any()) and not leaf.grad[outside].any() and bool(leaf.grad[~outside].any())


def copied(qat: QatModule) -> QatModule:
    return copy.deepcopy(qat)


def pickled(qat: QatModule) -> QatModule:
    result: QatModule = pickle.loads(pickle.dumps(qat))
    return result


def saved(qat: QatModule) -> QatModule:
    file = io.BytesIO()
    torch.save(qat, file)
    file.seek(0)
    result: QatModule = torch.load(file, weights_only=False)
    return result


@pytest.mark.parametrize("ranges", ["moving_average", "learned"])
@pytest.mark.parametrize("make", [copied, pickled, saved], ids=lambda make: make.__name__)
@pytest.mark.parametrize("task", ["residual", "functions"])
def test_a_copy_is_equal_and_goes_its_own_way(task: str, make: object, ranges: str) -> None:
    qat, x, y = prepared(task, batch_norm="batch_statistics", ranges=ranges)
    tn.freeze(qat, next(name for name, _ in qat.named_children()))
    train(qat, x, y, 2)
    tn.qat.disable_quantization(qat)
    other = make(qat)  # type: ignore[operator]
    for module in (qat, other):
        tn.qat.enable_quantization(module)
    assert tn.frozen(other) == tn.frozen(qat)
    assert train(other, x, y, 2) == train(qat, x, y, 2)
    assert other.to_nano().image == qat.to_nano().image
    train(qat, x, y, 2)
    assert other.to_nano().image != qat.to_nano().image
    tn.qat.fold_batch_norm(other)
    assert_is_the_image(other.eval(), x[:300])


def test_a_state_dict_loads_with_weights_only() -> None:
    qat, x, y = prepared()
    train(qat, x, y, 2)
    tn.qat.freeze_ranges(qat, "stem")
    file = io.BytesIO()
    torch.save(qat.state_dict(), file)
    file.seek(0)
    other, _, _ = prepared()
    other.load_state_dict(torch.load(file, weights_only=True))
    assert other.to_nano().image == qat.to_nano().image
    assert [other.quantization_ranges.is_frozen(n) for n in other.quantization_ranges._index] == [
        qat.quantization_ranges.is_frozen(n) for n in qat.quantization_ranges._index
    ]


def test_inference_mode_and_no_grad_change_no_bit() -> None:
    qat, x, _ = prepared()
    expected = qat.eval()(x[:100]).detach()
    with torch.inference_mode():
        assert differing_bits(qat(x[:100]), expected) == 0
    with torch.no_grad():
        assert not qat(x[:100]).requires_grad


def test_a_second_derivative_is_refused() -> None:
    qat, x, _ = prepared()
    leaf = x[:4].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(qat(leaf).square().sum(), leaf, create_graph=True)
    with pytest.raises(NotImplementedError, match="no double backward"):
        gradient.sum().backward()
