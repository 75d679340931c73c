"""What a network in training computes is what its image computes: 1,000 real inputs, bit by bit."""

from dataclasses import replace

import pytest
import torch
import torch_nano as tn
from torch import nn
from torch_nano.arithmetic import fixed_point
from torch_nano.arithmetic.quantization import Quantization
from torch_nano.ir.layer import Layer
from torch_nano.library import train_run
from torch_nano.ops import _pairwise, average_pool2d, table

from .trained import INPUTS, TASKS, assert_is_the_image, differing_bits, train

# torch says that it pads an even kernel unevenly.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
all_tasks = pytest.mark.parametrize("task", TASKS)


@all_tasks
def test_training_and_evaluation_are_the_image(task: str) -> None:
    x, y = TASKS[task].data()
    qat = tn.prepare_qat(TASKS[task].model(), x[:2], calibrate=x[:200])
    before = qat.to_nano().image
    train(qat.train(), x, y, steps=8)
    assert qat.to_nano().image != before
    assert_is_the_image(qat.eval(), x[-INPUTS:])
    tn.qat.freeze_ranges(qat.train())
    train(qat, x, y, steps=4)
    assert_is_the_image(qat, x[-INPUTS:])
    assert_is_the_image(qat.eval(), x[-INPUTS:])


@pytest.mark.parametrize("task", ["residual", "separable", "sequence"])
def test_training_in_16_bits_is_the_image(task: str) -> None:
    x, y = TASKS[task].data()
    qat = tn.prepare_qat(TASKS[task].model(), x[:2], calibrate=x[:200], precision={"": "int16"})
    before = qat.to_nano().image
    losses = train(qat.train(), x, y, steps=8)
    assert sum(losses) / 8 < 2.0
    nano = qat.to_nano()
    assert nano.image != before and set(nano.precision.values()) == {"int16"}
    assert_is_the_image(qat.eval(), x[-INPUTS:])


@all_tasks
def test_learned_ranges_and_statistics_of_batches_are_the_image_too(task: str) -> None:
    x, y = TASKS[task].data()
    qat = tn.prepare_qat(
        TASKS[task].model(), x[:2], calibrate=x[:200], ranges="learned", batch_norm="batch_statistics"
    )
    train(qat.train(), x, y, steps=8)
    assert_is_the_image(qat.eval(), x[-INPUTS:])
    tn.qat.fold_batch_norm(qat.train())
    train(qat, x, y, steps=4)
    assert_is_the_image(qat, x[-INPUTS:])


@all_tasks
def test_devices_without_native_code_are_the_image(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = TASKS[task].data()
    qat = tn.prepare_qat(TASKS[task].model(), x[:2], calibrate=x[:200])
    train(qat.train(), x, y, steps=2)
    tn.qat.freeze_ranges(qat)

    def outputs_and_gradients() -> list[torch.Tensor]:
        qat.zero_grad()
        outputs = qat(x[:64])
        outputs.square().sum().backward()
        gradients = [p.grad.clone() for p in qat.parameters() if p.grad is not None]
        return [outputs.detach(), *gradients]

    native, *native_gradients = outputs_and_gradients()

    def refuse(*arguments: object) -> None:
        raise AssertionError("native code ran")

    for module in (fixed_point, train_run, _pairwise, table):
        monkeypatch.setattr(module, "is_native", lambda tensor: False)
    for module, name in (
        (_pairwise, "look_up_pairs"),
        (table, "look_up"),
        (train_run._native, "requantize_"),
    ):
        monkeypatch.setattr(module, name, refuse)
    plain, *plain_gradients = outputs_and_gradients()
    assert differing_bits(plain, native) == 0
    assert_is_the_image(qat, x[-200:])
    assert len(plain_gradients) == len(native_gradients) > 0
    for gradient, reference in zip(plain_gradients, native_gradients, strict=True):
        # Only the multiplications by a constant, a table's slope or an addition's gain, are in another order.
        torch.testing.assert_close(gradient, reference, rtol=1e-4, atol=1e-5 * float(reference.abs().max()))


@all_tasks
def test_every_prediction_is_the_image_s(task: str) -> None:
    x, y = TASKS[task].data()
    qat = tn.prepare_qat(TASKS[task].model(), x[:2], calibrate=x[:200])
    train(qat.train(), x, y, steps=4)
    qat.eval()
    with torch.no_grad():
        own = qat(x[-INPUTS:]).argmax(1)
    assert torch.equal(own, qat.to_nano()(x[-INPUTS:]).argmax(1))
    assert len(own.unique()) > 1


def test_a_layer_too_large_for_float32_stays_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """A patch made against the layer: the first half of the products adds up to far more than 2^24, where
    float32 has no odd numbers, and the second half takes it off again.
    """
    features = 8192
    model = nn.Sequential(nn.Flatten(), nn.Linear(features, 16))
    generator = torch.Generator().manual_seed(0)
    sign = torch.cat([torch.ones(features // 2), -torch.ones(features // 2)])
    with torch.no_grad():
        model[1].weight.copy_(sign * (1 - 0.01 * torch.rand(16, features, generator=generator)))
        model[1].bias.zero_()
    patches = 1 - 0.05 * torch.rand(200, features, generator=generator)
    qat = tn.prepare_qat(model, patches, calibrate=torch.cat([patches, -patches])).eval()
    # A step of the output is a few of the accumulator, so that each of these counts.
    step = float(qat.quantization_ranges.quantization("input").scale) / 127
    center = float(model(patches).detach().mean())
    qat.quantization_ranges.bounds[1] = torch.tensor([-step * 900, step * 900], dtype=torch.float64)
    with torch.no_grad():
        model[1].bias.fill_(-center)
        qat.get_parameter("1.bias").fill_(-center)
    assert differing_bits(qat(patches), qat.to_nano()(patches)) == 0
    monkeypatch.setattr(train_run, "accumulation_dtype", lambda *_: torch.float32)
    assert differing_bits(qat(patches), qat.to_nano()(patches)) > 0


def test_a_mean_of_more_numbers_than_float32_holds_is_exact() -> None:
    """Sums of 300 * 300 differences of 255 exceed 2^24."""
    pool = average_pool2d.AveragePool2d(kernel=(300, 300))
    quantization = Quantization(1.0, -128)
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(124, 128, (64, 1, 300, 300), generator=generator, dtype=torch.int8)
    x[:, :, 0, 0] = torch.arange(64)[:, None].to(torch.int8)
    layer = Layer(pool, [x], input_quantizations=[quantization], output_quantizations=[quantization])
    (expected,), (found,) = layer.integer_run(), replace(layer, inputs=[x.float() + 128]).train_run()
    assert torch.equal(found, expected.float() + 128)


def test_channels_last_and_float64_inputs_give_the_same_bits() -> None:
    x, _ = TASKS["residual"].data()
    qat = tn.prepare_qat(TASKS["residual"].model(), x[:2], calibrate=x[:200]).eval()
    expected = qat(x[:100])
    assert differing_bits(qat(x[:100].double()), expected) == 0
    last = x[:100].to(memory_format=torch.channels_last)
    assert differing_bits(qat.to(memory_format=torch.channels_last)(last), expected) == 0


def test_an_empty_batch_stays_empty() -> None:
    x, _ = TASKS["residual"].data()
    qat = tn.prepare_qat(TASKS["residual"].model(), x[:2], calibrate=x[:200]).eval()
    assert qat(x[:0]).shape == (0, 10)
