"""Weights and biases as integers."""

import pytest
import torch
from torch_nano.arithmetic.weights import quantize_channels
from torch_nano.errors import NonFiniteError


def test_every_channel_uses_its_range_and_is_half_a_step_off_at_most() -> None:
    for seed in range(10):
        generator = torch.Generator().manual_seed(seed)
        spread = 10.0 ** torch.linspace(-2, 1, 16)
        weight = torch.randn(16, 5, 3, 3, generator=generator) * spread.reshape(-1, 1, 1, 1)
        bias = torch.randn(16, generator=generator)
        quantized = quantize_channels(weight, bias, 0.02)
        assert (quantized.weight.dtype, quantized.bias.dtype, quantized.scales.dtype) == (
            torch.int8,
            torch.int32,
            torch.float32,
        )
        assert bool((quantized.weight.abs().flatten(1).amax(1) == 127).all()), f"seed {seed}"
        steps = quantized.scales.double().reshape(-1, 1, 1, 1)
        # Half a step, and the rounding of the scale to float32 times 127 steps.
        assert float(((quantized.weight * steps - weight).abs() / steps).max()) <= 0.5 + 127 * 2**-24
        bias_steps = 0.02 * quantized.scales.double()
        assert float(((quantized.bias * bias_steps - bias).abs() / bias_steps).max()) <= 0.5


def test_a_channel_of_zeros_takes_the_largest_scale() -> None:
    weight = torch.tensor([[1.0, -1.27], [0.0, 0.0], [0.5, 0.1]])
    quantized = quantize_channels(weight, torch.tensor([0.0, 0.3, 0.0]), 0.1)
    assert quantized.scales.tolist() == pytest.approx([0.01, 0.01, 0.5 / 127])
    assert quantized.weight[1].tolist() == [0, 0]
    assert quantized.bias.tolist() == [0, 300, 0]
    nothing = quantize_channels(torch.zeros(2, 3), None, 0.1)
    assert nothing.scales.tolist() == [1.0, 1.0]
    assert not nothing.weight.any() and not nothing.bias.any()


def test_a_bias_far_above_its_weights_raises_the_scale() -> None:
    quantized = quantize_channels(torch.tensor([[1e-12]]), torch.tensor([3.0]), 0.1)
    assert quantized.weight.item() == 0
    assert abs(int(quantized.bias)) <= 2**22
    assert float(quantized.bias * 0.1 * quantized.scales) == pytest.approx(3.0, rel=1e-6)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(wrong: float) -> None:
    weight, bias = torch.ones(3, 2), torch.ones(3)
    weight[1, 0] = wrong
    with pytest.raises(NonFiniteError, match="the weight holds NaN or infinity in output channels 1"):
        quantize_channels(weight, bias, 0.1)
    bias[2] = wrong
    with pytest.raises(NonFiniteError, match="the bias holds NaN or infinity in output channels 2"):
        quantize_channels(torch.ones(3, 2), bias, 0.1)
